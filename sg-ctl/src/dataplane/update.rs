//! Puts an image into the maps of a layout, without any packet seeing a half-made policy.
//!
//! Each packet reads the generation once and looks at the buffers of its parity. So:
//!
//! 1. tables that nothing points to are written, and the buffers that no packet looks at;
//! 2. the generation is raised: from here on packets see the new policy, whole;
//! 3. a grace period passes, until no packet is left that read the old number;
//! 4. the other buffers are made equal, and keys that hold nothing any more are deleted.
//!
//! No packet follows what only the old policy led to from step 3 on. It rests for a grace period more
//! all the same before it is written again: a command waits for one beside its compiling, and a policy
//! that is kept compiled leaves it alone until the update after this one is in force. The kernel may
//! hand the element of a deleted key to the next key while a packet still looks at it; what that leads
//! to says nothing in the buffer that the packet sees.
//!
//! The work is that of the differences. A crash before step 2 leaves the old policy in force and
//! after it the new one; which entries differ between their buffers is then not known, so the next
//! command makes a new layout.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;

use aya::maps::{Array, IterableMap as _, MapData, MapError};
use sg_common::abi::{
    DoubleBuffer, Globals, GroupSetEntry, Interface, InterfaceEntry, PrefixKey, reasons_index,
};
use sg_common::addr::Addr;
use sg_common::ids::{Generation, Identity};
use sg_common::packet::Direction;
use sg_common::ports::PortTable;
use sg_common::ranges::RangeTable;

use super::grace::Grace;
use super::maps::{LayoutMaps, prefix_key};
use super::sys::MappedArray;
use super::wire::{Entry, Wire, bytes_of};
use super::{Error, per_cpu};
use crate::compile::image::{Arena, Image, ScopedPrefix, Slice};
use crate::crash::{self, Point};

/// Replaces one image by another. `globals` is what the maps hold, but for the generation. `meanwhile`
/// is done while the grace period passes.
pub(super) fn update<T>(
    maps: &mut LayoutMaps,
    globals: &Globals,
    old: &Image,
    new: &Image,
    meanwhile: impl FnOnce(Generation) -> T,
) -> Result<(Generation, T), Error> {
    let before = globals.generation;
    let after = before.next();
    let changes = Changes::between(old, new);

    write_arenas(maps, old, new)?;
    crash::at(Point::ArenasWritten);
    changes.clear_new_counters(maps, old, new)?;
    crash::at(Point::CountersCleared);
    changes.write(maps, Pass::Prepare(after))?;
    crash::at(Point::BuffersPrepared);
    write_new_keys(maps, old, new)?;
    crash::at(Point::KeysWritten);
    maps.globals
        .set(
            0,
            Wire(Globals {
                generation: after,
                ..*globals
            }),
            0,
        )
        .map_err(Error::Write)?;
    crash::at(Point::GenerationRaised);
    let grace = Grace::begin();
    let done = meanwhile(after);
    grace.end()?;
    crash::at(Point::ReadersGone);
    changes.write(maps, Pass::Mirror)?;
    crash::at(Point::BuffersMirrored);
    delete_gone_keys(maps, old, new)?;
    crash::at(Point::KeysDeleted);
    Ok((after, done))
}

/// What the buffers of a changed entry are made.
#[derive(Clone, Copy)]
enum Pass {
    /// Old for those who see the old policy, new for this generation.
    Prepare(Generation),
    /// New for all.
    Mirror,
}

/// What an entry was and what it becomes.
#[derive(Clone, Copy)]
struct Change<T> {
    old: T,
    new: T,
}

impl<T: Copy> Change<T> {
    fn buffers(&self, pass: Pass) -> Wire<DoubleBuffer<T>> {
        Wire(match pass {
            Pass::Prepare(after) => {
                let mut buffers = DoubleBuffer::both(self.old);
                *buffers.at_mut(after) = self.new;
                buffers
            }
            Pass::Mirror => DoubleBuffer::both(self.new),
        })
    }
}

/// Everything that differs between two images.
struct Changes {
    policies: Vec<(u32, Change<GroupSetEntry>)>,
    /// By index.
    policy_ranges: Vec<(u32, Change<RangeTable>)>,
    /// By index.
    list_ranges: Vec<(u32, Change<RangeTable>)>,
    sets: Vec<(ScopedPrefix, Change<Identity>)>,
    /// By index.
    identities: Vec<(u32, Change<Identity>)>,
    /// By index.
    granted: Vec<(u32, Change<PortTable>)>,
    /// By place, with who is there.
    interfaces: Vec<(u32, (u32, u32), Change<Interface>)>,
    /// Slots that another interface may have had before.
    new_slots: Vec<u32>,
}

impl Changes {
    fn between(old: &Image, new: &Image) -> Self {
        let identities = |image: &Image| -> BTreeMap<u32, Identity> {
            image
                .members
                .values()
                .map(|member| (member.index, member.identity))
                .collect()
        };
        let granted = |image: &Image| -> BTreeMap<u32, PortTable> {
            image
                .grants
                .values()
                .map(|grant| (grant.index, grant.table))
                .collect()
        };
        let keys: BTreeSet<_> = old.interfaces.keys().chain(new.interfaces.keys()).collect();
        let mut new_slots = Vec::new();
        let interfaces = keys.into_iter().filter_map(|slot| {
            let (was, is) = (old.interfaces.get(slot), new.interfaces.get(slot));
            let (place, device) = is.or(was).map(|i| (i.place, (i.netns, i.ifindex)))?;
            let change = Change {
                // If another device had the slot before, nothing of it is kept.
                old: was
                    .filter(|i| (i.netns, i.ifindex) == device)
                    .map_or_else(Interface::default, |i| i.interface),
                new: is.map_or_else(Interface::default, |i| i.interface),
            };
            let same_device = was.is_some_and(|i| (i.netns, i.ifindex) == device);
            if !same_device {
                new_slots.push(*slot);
            }
            (change.old != change.new || !same_device).then_some((place, device, change))
        });
        let interfaces = interfaces.collect();
        Self {
            policies: differences(&old.policies, &new.policies, |_, _| {
                GroupSetEntry::default()
            }),
            policy_ranges: differences(&old.policy_ranges, &new.policy_ranges, no_ranges),
            list_ranges: differences(&old.list_ranges, &new.list_ranges, no_ranges),
            sets: differences(&old.sets, &new.sets, inherited),
            identities: differences(&identities(old), &identities(new), |_, _| Identity::NONE),
            granted: differences(&granted(old), &granted(new), |_, _| PortTable::EMPTY),
            interfaces,
            new_slots,
        }
    }

    /// What a new rule or interface counts by may have counted for another one.
    fn clear_new_counters(
        &self,
        maps: &mut LayoutMaps,
        old: &Image,
        new: &Image,
    ) -> Result<(), Error> {
        let directions = Direction::ALL.into_iter();
        let reasons = directions.flat_map(|direction| {
            let slots = self.new_slots.iter();
            slots.map(move |slot| reasons_index(*slot, direction))
        });
        per_cpu::clear(&mut maps.reasons, &reasons.collect::<Vec<_>>())?;
        let known = &old.ids.rules;
        let new = new.ids.rules.iter();
        let new = new.filter(|(rule, slot)| known.get(*rule) != Some(*slot));
        let slots: Vec<_> = new.map(|(_, slot)| slot.0).collect();
        per_cpu::clear(&mut maps.rules, &slots)
    }

    /// Writes every changed entry.
    fn write(&self, maps: &mut LayoutMaps, pass: Pass) -> Result<(), Error> {
        for (index, change) in &self.policies {
            maps.policies
                .set(*index, change.buffers(pass), 0)
                .map_err(Error::Write)?;
        }
        for (index, change) in &self.identities {
            maps.identities
                .set(*index, change.buffers(pass), 0)
                .map_err(Error::Write)?;
        }
        for (index, change) in &self.granted {
            maps.granted
                .set(*index, change.buffers(pass), 0)
                .map_err(Error::Write)?;
        }
        for (index, change) in &self.policy_ranges {
            maps.policy_ranges
                .set(*index, change.buffers(pass), 0)
                .map_err(Error::Write)?;
        }
        for (index, change) in &self.list_ranges {
            maps.list_ranges
                .set(*index, change.buffers(pass), 0)
                .map_err(Error::Write)?;
        }
        for (prefix, change) in &self.sets {
            let key = prefix_key(prefix);
            maps.sets
                .insert(&key, change.buffers(pass), 0)
                .map_err(Error::Write)?;
        }
        for (place, (netns, ifindex), change) in &self.interfaces {
            let gone = matches!(pass, Pass::Mirror) && change.new.policy == 0;
            let (netns, ifindex) = if gone { (0, 0) } else { (*netns, *ifindex) };
            let Wire(buffers) = change.buffers(pass);
            let entry = InterfaceEntry::new(netns, ifindex, buffers);
            maps.interfaces
                .set(*place, Wire(entry), 0)
                .map_err(Error::Write)?;
        }
        Ok(())
    }
}

/// Slices that the old image has not lie where it has none, and nothing points to them yet.
fn write_arenas(maps: &mut LayoutMaps, old: &Image, new: &Image) -> Result<(), Error> {
    let (was, is) = (&old.ranges, &new.ranges);
    write_slices(&maps.ports, &old.ports, &new.ports)?;
    write_slices(&maps.port_tables, &old.port_tables, &new.port_tables)?;
    write_slices(&maps.intervals_v4, &was.intervals_v4, &is.intervals_v4)?;
    write_slices(&maps.intervals_v6, &was.intervals_v6, &is.intervals_v6)?;
    write_slices(&maps.range_slots, &was.slots, &is.slots)?;
    write_slices(&maps.nested_ranges, &was.nested, &is.nested)
}

/// Through memory, because a system call an entry would take a second for a million.
fn write_slices<E: Entry + Default>(
    map: &Array<MapData, Wire<E>>,
    old: &Arena<E>,
    new: &Arena<E>,
) -> Result<(), Error> {
    let mut known = old.slices().iter().peekable();
    let is_new = |slice: &&Slice| {
        while known.next_if(|other| other < slice).is_some() {}
        known.peek() != Some(slice)
    };
    let unknown: Vec<&Slice> = new.slices().iter().filter(is_new).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let length = new.reach() as usize * size_of::<E>();
    let mut memory = MappedArray::open(map.map().fd().as_fd(), length).map_err(Error::Mapped)?;
    for slice in unknown {
        let at = slice.offset as usize * size_of::<E>();
        let bytes = bytes_of(new.entries(*slice));
        memory.write(at, bytes).map_err(Error::Mapped)?;
    }
    Ok(())
}

/// Keys come after what they lead to.
fn write_new_keys(maps: &mut LayoutMaps, old: &Image, new: &Image) -> Result<(), Error> {
    for (key, member) in &new.members {
        if !old.members.contains_key(key) {
            maps.members
                .insert(Wire(*key), member.index, 0)
                .map_err(Error::Write)?;
        }
    }
    for (key, grant) in &new.grants {
        if !old.grants.contains_key(key) {
            maps.grants
                .insert(Wire(*key), grant.index, 0)
                .map_err(Error::Write)?;
        }
    }
    Ok(())
}

/// No entry leads to these keys any more.
fn delete_gone_keys(maps: &mut LayoutMaps, old: &Image, new: &Image) -> Result<(), Error> {
    for key in old
        .members
        .keys()
        .filter(|key| !new.members.contains_key(key))
    {
        gone(maps.members.remove(&Wire(*key)))?;
    }
    for key in old
        .grants
        .keys()
        .filter(|key| !new.grants.contains_key(key))
    {
        gone(maps.grants.remove(&Wire(*key)))?;
    }
    for prefix in old.sets.keys().filter(|key| !new.sets.contains_key(key)) {
        gone(maps.sets.remove(&prefix_key(prefix)))?;
    }
    Ok(())
}

fn gone(removed: Result<(), MapError>) -> Result<(), Error> {
    match removed {
        Err(MapError::KeyNotFound) | Ok(()) => Ok(()),
        Err(source) => Err(Error::Write(source)),
    }
}

/// The entries whose values differ; `missing` says what a key reads as that is not there.
fn differences<K: Ord + Copy, T: Copy + PartialEq>(
    old: &BTreeMap<K, T>,
    new: &BTreeMap<K, T>,
    missing: impl Fn(&K, &BTreeMap<K, T>) -> T,
) -> Vec<(K, Change<T>)> {
    let mut found = Vec::new();
    for (key, is) in new {
        match old.get(key) {
            Some(was) if was == is => {}
            Some(was) => found.push((
                *key,
                Change {
                    old: *was,
                    new: *is,
                },
            )),
            None => found.push((
                *key,
                Change {
                    old: missing(key, old),
                    new: *is,
                },
            )),
        }
    }
    for (key, was) in old {
        if !new.contains_key(key) {
            found.push((
                *key,
                Change {
                    old: *was,
                    new: missing(key, new),
                },
            ));
        }
    }
    found
}

/// A table that is not there holds nothing.
fn no_ranges(_: &u32, _: &BTreeMap<u32, RangeTable>) -> RangeTable {
    RangeTable::default()
}

/// What an address under this prefix reads as where the prefix itself is not there: the value of
/// the longest one that covers it.
fn inherited<T: Copy + Default>(prefix: &ScopedPrefix, entries: &BTreeMap<ScopedPrefix, T>) -> T {
    let octets = u128::from_be_bytes(prefix.key.address.octets());
    (PrefixKey::SCOPE_BITS..prefix.bits)
        .rev()
        .find_map(|bits| {
            let mask = u128::MAX.checked_shl(PrefixKey::BITS - bits).unwrap_or(0);
            let address = Addr::from_v6((octets & mask).to_be_bytes());
            let key = PrefixKey {
                scope: prefix.key.scope,
                address,
            };
            entries.get(&ScopedPrefix { key, bits }).copied()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use sg_common::abi::Scope;
    use sg_common::addr::Family;

    use super::*;

    fn prefix(text: &str) -> ScopedPrefix {
        let net: ipnet::IpNet = text.parse().unwrap();
        let scope = Scope::policy(1, Family::V4);
        let bits = PrefixKey::SCOPE_BITS + 96 + u32::from(net.prefix_len());
        ScopedPrefix {
            key: PrefixKey::new(scope, Addr::from(net.network())),
            bits,
        }
    }

    #[test]
    fn a_prefix_that_is_not_there_reads_as_the_longest_that_covers_it() {
        let table = |offset| PortTable { offset, length: 1 };
        let entries = BTreeMap::from([
            (prefix("10.0.0.0/8"), table(1)),
            (prefix("10.1.0.0/16"), table(2)),
        ]);
        assert_eq!(inherited(&prefix("10.1.1.1/32"), &entries), table(2));
        assert_eq!(inherited(&prefix("10.2.1.1/32"), &entries), table(1));
        assert_eq!(inherited(&prefix("11.0.0.0/8"), &entries), PortTable::EMPTY);
    }

    #[test]
    fn an_inserted_prefix_shows_the_inherited_table_until_the_flip() {
        let table = |offset| PortTable { offset, length: 1 };
        let old = BTreeMap::from([(prefix("10.0.0.0/8"), table(1))]);
        let mut new = old.clone();
        new.insert(prefix("10.1.1.1/32"), table(3));
        let changes = differences(&old, &new, inherited);
        let [(key, change)] = changes.as_slice() else {
            panic!("one change")
        };
        assert_eq!(*key, prefix("10.1.1.1/32"));
        let Wire(buffers) = change.buffers(Pass::Prepare(Generation(8)));
        assert_eq!(*buffers.at(Generation(7)), table(1));
        assert_eq!(*buffers.at(Generation(8)), table(3));
    }
}
