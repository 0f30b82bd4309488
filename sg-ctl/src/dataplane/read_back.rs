//! Reads the tables in force out of the maps, and notices what sg has not put there.
//!
//! Names come from the record and everything else from the maps: entries by the buffer in force, and
//! of the arrays behind them what entries lead to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use aya::maps::{Array, IterableMap as _, MapData, MapError};
use sg_common::abi::{DoubleBuffer, Globals, GrantKey, Interface, InterfaceEntry, MemberKey};
use sg_common::ids::{Generation, Identity};
use sg_common::ports::PortTable;

use super::maps::{LayoutMaps, layout_folder, open, prefix_key};
use super::state::Record;
use super::sys::{Batches, MappedArray};
use super::verify::Difference;
use super::wire::{Entry, Wire};
use super::{Dataplane, Error};
use crate::compile::image::{Grant, Image, InstalledInterface, Member, ScopedPrefix};
use crate::compile::{Arrays, Astray};

/// Elements read by one system call.
const AT_ONCE: usize = 4_096;

/// What is wrong with one map.
pub(super) struct Tally {
    map: &'static str,
    missing: usize,
    wrong: usize,
    unknown: usize,
    first: Option<String>,
}

impl Tally {
    fn of(map: &'static str) -> Self {
        Self {
            map,
            missing: 0,
            wrong: 0,
            unknown: 0,
            first: None,
        }
    }

    /// An entry is gone.
    fn missing(&mut self, what: impl Display) {
        self.missing += 1;
        self.first.get_or_insert_with(|| what.to_string());
    }

    /// An entry is not as an update leaves it.
    fn wrong(&mut self, what: impl Display) {
        self.wrong += 1;
        self.first.get_or_insert_with(|| what.to_string());
    }

    /// No update has made the entry.
    fn unknown(&mut self, what: impl Display) {
        self.unknown += 1;
        self.first.get_or_insert_with(|| what.to_string());
    }

    /// The value of both buffers, which are alike between updates.
    fn buffer<T: Copy + PartialEq>(
        &mut self,
        buffers: &DoubleBuffer<T>,
        generation: Generation,
        what: impl Display,
    ) -> T {
        let value = *buffers.at(generation);
        if *buffers != DoubleBuffer::both(value) {
            self.wrong(what);
        }
        value
    }

    /// Whether entries of this map are gone.
    pub(super) fn has_missing(&self, map: &str) -> bool {
        self.map == map && self.missing > 0
    }

    pub(super) fn difference(self) -> Option<Difference> {
        let Self {
            map,
            missing,
            wrong,
            unknown,
            first,
        } = self;
        first.map(|first| Difference::Map {
            map,
            missing,
            wrong,
            unknown,
            first,
        })
    }
}

/// The interfaces in force.
pub(super) struct Interfaces {
    /// By their slots.
    pub(super) found: BTreeMap<u32, InstalledInterface>,
    tally: Tally,
}

impl Interfaces {
    /// Those that are recorded, with nothing in force on them.
    pub(super) fn unread(record: &Record) -> Self {
        let devices = record.devices.iter();
        let devices = devices.filter_map(|device| {
            let installed = InstalledInterface {
                place: 0,
                netns: device.netns,
                ifindex: device.ifindex,
                vpc: device.vpc.clone(),
                name: device.name.clone(),
                interface: Interface::default(),
            };
            Some((device.slot?, installed))
        });
        Self {
            found: devices.collect(),
            tally: Tally::of("INTERFACES"),
        }
    }
}

/// Reads the entries of the interfaces that are recorded.
pub(super) fn interfaces(bpffs: &Path, record: &Record) -> Result<Interfaces, Error> {
    let folder = layout_folder(bpffs, record.layout);
    let globals: Array<_, Wire<Globals>> = open(&folder, "GLOBALS")?;
    let Wire(Globals { generation, .. }) = globals.get(&0, 0).map_err(Error::Read)?;
    let Interfaces { found, mut tally } = Interfaces::unread(record);
    let recorded = found.into_iter();
    let mut recorded: HashMap<_, _> = recorded
        .map(|(slot, found)| ((found.netns, found.ifindex), (slot, found)))
        .collect();
    let mut found = BTreeMap::new();
    each::<u32, InterfaceEntry>(&folder, "INTERFACES", |place, entry| {
        match recorded.remove(&(entry.netns, entry.ifindex)) {
            Some((slot, mut installed)) => {
                let interface = tally.buffer(&entry.buffers, generation, &installed.name);
                (installed.place, installed.interface) = (*place, interface);
                found.insert(slot, installed);
            }
            None if entry.buffers != DoubleBuffer::both(Interface::default()) => {
                tally.unknown(format_args!("place {place}"));
            }
            None => {}
        }
    })?;
    for (slot, gone) in recorded.into_values() {
        tally.missing(&gone.name);
        found.insert(slot, gone);
    }
    Ok(Interfaces { found, tally })
}

/// Reads everything, with what is wrong with it. `names` has the numbers and who has them.
pub(super) fn tables(
    bpffs: &Path,
    record: &Record,
    names: &Image,
) -> Result<(Image, Vec<Tally>), Error> {
    let folder = layout_folder(bpffs, record.layout);
    let maps = LayoutMaps::open(&folder)?;
    let generation = Generation(record.generation);
    let Interfaces { found, tally } = interfaces(bpffs, record)?;
    let mut image = Image {
        interfaces: found,
        interface_places: names.interface_places,
        ids: names.ids.clone(),
        ..Image::default()
    };
    let mut tallies = vec![tally, globals(&maps, record)?];
    tallies.extend(policies(&maps, generation, &mut image)?);
    tallies.push(sets(&maps, generation, &mut image)?);
    tallies.push(members(&folder, generation, &mut image)?);
    tallies.push(grants(&folder, generation, &mut image)?);
    let arrays = Arrays {
        ports: mapped(&maps.ports)?,
        port_tables: mapped(&maps.port_tables)?,
        slots: mapped(&maps.range_slots)?,
        intervals_v4: mapped(&maps.intervals_v4)?,
        intervals_v6: mapped(&maps.intervals_v6)?,
        nested: mapped(&maps.nested_ranges)?,
    };
    if let Err(Astray { map, index }) = arrays.put_used(&mut image) {
        let mut tally = Tally::of(map);
        tally.wrong(format_args!("number {index}"));
        tallies.push(tally);
    }
    tallies.retain(|tally| tally.first.is_some());
    Ok((image, tallies))
}

fn globals(maps: &LayoutMaps, record: &Record) -> Result<Tally, Error> {
    let mut tally = Tally::of("GLOBALS");
    let Wire(found) = maps.globals.get(&0, 0).map_err(Error::Read)?;
    if found != Dataplane::globals(record) {
        tally.wrong("number 0");
    }
    Ok(tally)
}

/// Reads POLICIES and the tables of prefixes that they and the VPCs have.
fn policies(
    maps: &LayoutMaps,
    generation: Generation,
    image: &mut Image,
) -> Result<[Tally; 3], Error> {
    let mut tally = Tally::of("POLICIES");
    let numbers = image.ids.policies.iter();
    let known: BTreeMap<u32, _> = numbers.map(|(set, number)| (*number, set)).collect();
    for (id, buffers) in (0..).zip(mapped(&maps.policies)?) {
        match known.get(&id) {
            Some(set) => {
                let groups: Vec<_> = set.groups.iter().map(ToString::to_string).collect();
                let what = format_args!("that of the groups {}", groups.join(", "));
                let policy = tally.buffer(&buffers, generation, what);
                image.policies.insert(id, policy);
            }
            None if buffers != DoubleBuffer::default() => {
                tally.unknown(format_args!("number {id}"))
            }
            None => {}
        }
    }
    let vpcs: BTreeSet<u32> = image.ids.vpcs.values().copied().collect();
    let range_tables = |map, array, is_known: &dyn Fn(u32) -> bool| -> Result<_, Error> {
        let mut tally = Tally::of(map);
        let mut tables = BTreeMap::new();
        for (index, buffers) in (0..).zip(mapped(array)?) {
            if buffers == DoubleBuffer::default() {
                continue;
            }
            let what = format_args!("number {index}");
            if !is_known(index) {
                tally.unknown(what);
                continue;
            }
            tables.insert(index, tally.buffer(&buffers, generation, what));
        }
        Ok((tables, tally))
    };
    // By the number of a policy's direction, and the family; by that of a VPC, and the family.
    let is_policys = |index: u32| known.contains_key(&(index >> 2));
    let is_vpcs = |index: u32| vpcs.contains(&(index >> 1));
    let (policy_ranges, of_policies) =
        range_tables("POLICY_RANGES", &maps.policy_ranges, &is_policys)?;
    let (list_ranges, of_lists) = range_tables("LIST_RANGES", &maps.list_ranges, &is_vpcs)?;
    (image.policy_ranges, image.list_ranges) = (policy_ranges, list_ranges);
    Ok([tally, of_policies, of_lists])
}

fn sets(maps: &LayoutMaps, generation: Generation, image: &mut Image) -> Result<Tally, Error> {
    let mut tally = Tally::of("SETS");
    for key in maps.sets.keys() {
        let key = key.map_err(Error::Read)?;
        let Wire(prefix) = key.data();
        let prefix = ScopedPrefix {
            key: prefix,
            bits: key.prefix_len(),
        };
        let buffers: Wire<DoubleBuffer<Identity>> = match maps.sets.get(&prefix_key(&prefix), 0) {
            Ok(buffers) => buffers,
            // Somebody has deleted it meanwhile.
            Err(MapError::KeyNotFound) => continue,
            Err(source) => return Err(Error::Read(source)),
        };
        let identity = tally.buffer(&buffers.0, generation, prefix.words());
        image.sets.insert(prefix, identity);
    }
    Ok(tally)
}

fn members(folder: &Path, generation: Generation, image: &mut Image) -> Result<Tally, Error> {
    let mut tally = Tally::of("MEMBERS");
    let led = led_to(
        folder,
        ["MEMBERS", "IDENTITIES"],
        generation,
        &mut tally,
        |key: &MemberKey| key.address.to_string(),
    )?;
    let members = led.into_iter();
    image.members = members
        .map(|(key, index, identity)| (key, Member { index, identity }))
        .collect();
    Ok(tally)
}

fn grants(folder: &Path, generation: Generation, image: &mut Image) -> Result<Tally, Error> {
    let mut tally = Tally::of("GRANTS");
    let led = led_to(
        folder,
        ["GRANTS", "GRANTED"],
        generation,
        &mut tally,
        |key: &GrantKey| format!("that of identity {}", key.identity.0),
    )?;
    let grants = led.into_iter();
    image.grants = grants
        .map(|(key, index, table): (_, _, PortTable)| (key, Grant { index, table }))
        .collect();
    Ok(tally)
}

/// Reads the keys of a hash map with the entries of an array that they lead to, each to its own. An
/// update deletes a key after it has emptied its entry, so that a full one tells of a key that was
/// deleted by somebody else.
fn led_to<K, V>(
    folder: &Path,
    [keys, values]: [&'static str; 2],
    generation: Generation,
    tally: &mut Tally,
    words: impl Fn(&K) -> String,
) -> Result<Vec<(K, u32, V)>, Error>
where
    K: Entry + Default + Ord,
    V: Copy + Default + PartialEq,
    DoubleBuffer<V>: Entry + Default,
{
    let mut entries: Vec<DoubleBuffer<V>> = Vec::new();
    each::<u32, DoubleBuffer<V>>(folder, values, |_, buffers| entries.push(*buffers))?;
    let mut led = Vec::new();
    each::<K, u32>(folder, keys, |key, index| {
        // What each key leads to is its own, and says something.
        let buffers = entries.get_mut(*index as usize);
        match buffers.filter(|buffers| **buffers != DoubleBuffer::default()) {
            Some(buffers) => {
                let value = tally.buffer(buffers, generation, words(key));
                *buffers = DoubleBuffer::default();
                led.push((*key, *index, value));
            }
            None => tally.unknown(words(key)),
        }
    })?;
    for (index, buffers) in entries.iter().enumerate() {
        if *buffers != DoubleBuffer::default() {
            tally.missing(format_args!(
                "the one that led to number {index} of {values}"
            ));
        }
    }
    led.sort_unstable_by_key(|(key, ..)| *key);
    Ok(led)
}

/// Calls `each` with every element of a pinned map.
fn each<K: Entry + Default, V: Entry + Default>(
    folder: &Path,
    name: &'static str,
    mut each: impl FnMut(&K, &V),
) -> Result<(), Error> {
    let path = folder.join(name);
    let wrong = |source| Error::Map {
        name,
        path: path.clone(),
        source,
    };
    let mut batches = Batches::<K, V>::open(&path, AT_ONCE).map_err(wrong)?;
    loop {
        let (keys, values) = batches.next().map_err(|source| Error::Folder {
            path: path.clone(),
            source,
        })?;
        if keys.is_empty() {
            return Ok(());
        }
        keys.iter()
            .zip(values)
            .for_each(|(key, value)| each(key, value));
    }
}

/// All entries of an array.
fn mapped<E: Entry>(map: &Array<MapData, Wire<E>>) -> Result<Vec<E>, Error> {
    let count = map.len() as usize;
    let read = || -> io::Result<_> {
        MappedArray::open(map.map().fd().as_fd(), count * size_of::<E>())?.entries(count)
    };
    read().map_err(Error::Mapped)
}
