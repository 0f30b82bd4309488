//! Counters that each CPU keeps for itself, in this process's memory.
//!
//! A map of them is one array: the entries of one CPU, then those of the next, and last the entries
//! in which the controller keeps what earlier maps had counted. The kernel would make a per-CPU array
//! entry by entry, which takes a microsecond each, and a system call an entry to be read or cleared.
//! Packets go on counting meanwhile: a value may be a packet old.

use std::fs;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd as _;
use std::path::Path;

use aya::maps::{Array, IterableMap as _, MapData};
use sg_common::abi::{ReasonCounters, RuleCounter};

use super::Error;
use super::sys::MappedArray;
use super::wire::{Entry, Wire, bytes_of};

/// Counters that are written one by one.
const FEW: usize = 64;

/// What one CPU, or all of them, counted.
pub(super) trait Counter: Entry + Default {
    /// Adds what another one counted.
    fn add(&mut self, other: &Self);
}

impl Counter for ReasonCounters {
    fn add(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(&other.0) {
            sum.packets += count.packets;
            sum.bytes += count.bytes;
        }
    }
}

impl Counter for RuleCounter {
    fn add(&mut self, other: &Self) {
        let is_later = self.packets == 0 || !other.last_hit.has_passed(self.last_hit);
        if other.packets > 0 && is_later {
            self.last_hit = other.last_hit;
        }
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.flows += other.flows;
    }
}

/// The entries of a map that has so many for each CPU.
pub(super) fn entries(for_each_cpu: u32) -> Result<u32, Error> {
    Ok(for_each_cpu.saturating_mul(cpus()? + 1))
}

/// A map of counters.
pub(super) struct PerCpu<C> {
    memory: MappedArray,
    cpus: usize,
    for_each_cpu: usize,
    counter: PhantomData<C>,
}

impl<C: Counter> PerCpu<C> {
    pub(super) fn open(map: &Array<MapData, Wire<C>>) -> Result<Self, Error> {
        let (entries, cpus) = (map.len() as usize, cpus()? as usize);
        let memory = MappedArray::open(map.map().fd().as_fd(), entries * size_of::<C>());
        Ok(Self {
            memory: memory.map_err(Error::Mapped)?,
            cpus,
            for_each_cpu: entries / (cpus + 1),
            counter: PhantomData,
        })
    }

    /// What all CPUs have counted, in this map and in those before it.
    pub(super) fn total(&self, index: u32) -> Result<C, Error> {
        let mut total = C::default();
        for place in self.places(index) {
            total.add(&self.memory.entry(place).map_err(Error::Mapped)?);
        }
        Ok(total)
    }

    fn clear(&mut self, index: u32) -> Result<(), Error> {
        let mut places = self.places(index);
        places.try_for_each(|place| self.write(place, C::default()))
    }

    /// Goes on from what the map before this one has counted, if it has that entry. Nothing counts
    /// there any more; doing it again changes nothing.
    pub(super) fn continue_from(&mut self, before: &Self, index: u32) -> Result<(), Error> {
        if index as usize >= before.for_each_cpu {
            return Ok(());
        }
        match self.places(index).last() {
            Some(place) => self.write(place, before.total(index)?),
            None => Ok(()),
        }
    }

    fn write(&mut self, place: usize, counter: C) -> Result<(), Error> {
        let written = self
            .memory
            .write(place * size_of::<C>(), bytes_of(&[counter]));
        written.map_err(Error::Mapped)
    }

    fn places(&self, index: u32) -> impl Iterator<Item = usize> + use<C> {
        let (index, for_each_cpu) = (index as usize, self.for_each_cpu);
        (0..=self.cpus).map(move |cpu| cpu * for_each_cpu + index)
    }
}

/// Makes these counters say that nothing has been counted.
pub(super) fn clear<C: Counter>(
    map: &mut Array<MapData, Wire<C>>,
    indexes: &[u32],
) -> Result<(), Error> {
    // To map a large array takes longer than a few calls.
    if indexes.len() > FEW {
        let mut counters = PerCpu::open(map)?;
        return indexes.iter().try_for_each(|index| counters.clear(*index));
    }
    let cpus = cpus()?;
    let for_each_cpu = map.len() / (cpus + 1);
    for index in indexes {
        for cpu in 0..=cpus {
            let set = map.set(cpu * for_each_cpu + index, Wire(C::default()), 0);
            set.map_err(Error::Write)?;
        }
    }
    Ok(())
}

/// How many CPUs there may be while this kernel runs: the highest number and one.
fn cpus() -> Result<u32, Error> {
    let path = Path::new("/sys/devices/system/cpu/possible");
    let wrong = |source| Error::Folder {
        path: path.to_path_buf(),
        source,
    };
    let text = fs::read_to_string(path).map_err(wrong)?;
    count(&text).ok_or_else(|| wrong(io::ErrorKind::InvalidData.into()))
}

/// The numbers are in order, like `0-3` or `0,2-5`.
fn count(possible: &str) -> Option<u32> {
    let highest: u32 = possible.trim().rsplit(['-', ',']).next()?.parse().ok()?;
    highest.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted_to_the_highest_number() {
        for (possible, wanted) in [("0\n", 1), ("0-3\n", 4), ("0,2-5\n", 6), ("0-1,7\n", 8)] {
            assert_eq!(count(possible), Some(wanted), "{possible:?}");
        }
        assert_eq!(count("\n"), None);
    }
}
