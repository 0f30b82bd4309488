//! What rules admitted, as each CPU counts it, in this process's memory.
//!
//! The map is one array, with one CPU's counters behind another's. The kernel would make a per-CPU
//! array entry by entry, which takes a microsecond each, and a system call an entry to be read or
//! cleared. Packets go on counting meanwhile: what is read may be a packet old.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use aya::maps::{Array, IterableMap as _, MapData};
use sg_common::tables::{RuleCounter, RuleSlot};

use super::Error;
use super::sys::MappedArray;
use super::wire::{Wire, bytes_of};

const ENTRY: usize = size_of::<RuleCounter>();

/// Counters that are written one by one.
const FEW: usize = 64;

/// The counters of one layout.
pub(super) struct RuleCounters {
    memory: MappedArray,
    cpus: usize,
    rules_a_cpu: usize,
}

impl RuleCounters {
    pub(super) fn open(map: &Array<MapData, Wire<RuleCounter>>) -> Result<Self, Error> {
        let (entries, cpus) = (map.len() as usize, cpus()? as usize);
        Ok(Self {
            memory: MappedArray::open(map.map().fd().as_fd(), entries * ENTRY)
                .map_err(Error::Mapped)?,
            cpus,
            rules_a_cpu: entries / cpus,
        })
    }

    /// What each CPU has counted.
    pub(super) fn read(
        &self,
        slot: RuleSlot,
    ) -> impl Iterator<Item = Result<RuleCounter, Error>> + '_ {
        self.places(slot).map(|at| {
            let counted = self.memory.read(at, 1).map_err(Error::Mapped)?;
            Ok(counted.first().copied().unwrap_or_default())
        })
    }

    fn clear(&mut self, slot: RuleSlot) -> Result<(), Error> {
        let mut places = self.places(slot);
        places.try_for_each(|at| self.write(at, RuleCounter::default()))
    }

    /// Goes on from what another layout has counted, if it has that rule.
    pub(super) fn continue_from(&mut self, before: &Self, slot: RuleSlot) -> Result<(), Error> {
        if slot.0 as usize >= before.rules_a_cpu {
            return Ok(());
        }
        let mut places = self.places(slot).zip(before.read(slot));
        places.try_for_each(|(at, counted)| self.write(at, counted?))
    }

    fn write(&mut self, at: usize, counter: RuleCounter) -> Result<(), Error> {
        let written = self.memory.write(at * ENTRY, bytes_of(&[counter]));
        written.map_err(Error::Mapped)
    }

    fn places(&self, slot: RuleSlot) -> impl Iterator<Item = usize> + use<> {
        let (slot, rules_a_cpu) = (slot.0 as usize, self.rules_a_cpu);
        (0..self.cpus).map(move |cpu| cpu * rules_a_cpu + slot)
    }
}

/// Makes these counters say that nothing has been counted.
pub(super) fn clear(
    map: &mut Array<MapData, Wire<RuleCounter>>,
    slots: &[RuleSlot],
) -> Result<(), Error> {
    // To map a large array takes longer than a few calls.
    if slots.len() > FEW {
        let mut counters = RuleCounters::open(map)?;
        return slots.iter().try_for_each(|slot| counters.clear(*slot));
    }
    let cpus = cpus()?;
    let rules_a_cpu = map.len() / cpus;
    for slot in slots {
        for cpu in 0..cpus {
            let nothing = Wire(RuleCounter::default());
            let set = map.set(cpu * rules_a_cpu + slot.0, nothing, 0);
            set.map_err(Error::Write)?;
        }
    }
    Ok(())
}

/// How many CPUs there may be while this kernel runs: the highest number and one.
pub(super) fn cpus() -> Result<u32, Error> {
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
