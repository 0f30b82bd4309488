//! Makes an edit hold in the maps that are there, without reading the image they hold.
//!
//! What is in force is read from the maps themselves, entry by entry, and from the ledger. Anything
//! out of the ordinary, like an interrupted command, another build or an image that was amended often,
//! is left to the installation of the whole policy.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use aya::maps::{Array, IterableMap as _, MapData, MapError};
use sg_common::ranges::{IntervalV4, IntervalV6, RangeSlot, RangeTable};
use sg_common::tables::{
    Faces, Generation, GrantKey, Identity, MemberKey, Policy, PortEntry, PortTable, RuleSlot,
};

use super::hooks::Instance;
use super::ledger::{Ledger, Origin};
use super::maps::{LayoutMaps, layout_folder};
use super::state::{Files, Record};
use super::sys::MappedArray;
use super::wire::{Entry, Wire};
use super::{Dataplane, Error, hooks, ledger, object, pins, sys, update};
use crate::compile::Limits;
use crate::compile::amend::{
    Amendment, Answer, ArenaKind, Ground, InstalledPolicy, NextNumbers, RangeTableKey, Room,
    Segments, Whole,
};
use crate::compile::image::{FreePlaces, Grant, IdentitySet, Member, Slice};
use crate::policy::model::Peer;
use crate::policy::names::{GroupName, RuleId, VpcName};

/// More edits are not made to one image: others read it, and compiling it again gives back the
/// places that edits leave behind.
const MOST_AMENDMENTS: u32 = 1 << 9;
/// Nor more bytes than these, and as many as the image itself has.
const MOST_AMENDED_BYTES: u64 = 1 << 23;

/// The maps in force, ready for an edit.
pub struct Amendable {
    run: PathBuf,
    files: Files,
    record: Record,
    ledger: Ledger,
    origin: Origin,
    maps: LayoutMaps,
    arrays: Arrays,
    room: Room,
}

/// The arrays that are read by the slice.
#[derive(Default)]
struct Arrays {
    range_slots: OnceCell<MappedArray>,
    intervals_v4: OnceCell<MappedArray>,
    intervals_v6: OnceCell<MappedArray>,
    ports: OnceCell<MappedArray>,
}

impl From<Error> for Whole {
    fn from(error: Error) -> Self {
        Self::because(error.to_string())
    }
}

impl From<MapError> for Whole {
    fn from(error: MapError) -> Self {
        Error::Read(error).into()
    }
}

impl Amendable {
    /// Looks whether what is in force can be edited, and is what the policy with this stamp was
    /// compiled to.
    pub fn open(run: &Path, bpffs: &Path, stamp: u64, limits: &Limits) -> Answer<Self> {
        let files = Files::in_folder(run);
        if files.is_marked() {
            return Err(Whole::because("a command was interrupted"));
        }
        let record = files.read_record()?;
        let record = record.ok_or(Whole::because("nothing is in force"))?;
        if record.fingerprint != object::fingerprint() {
            return Err(Whole::because("another build is in force"));
        }
        if record.other_flows.is_some() {
            return Err(Whole::because("flows are being carried over"));
        }
        let mut devices = record.devices.iter();
        let instance = Instance { run, bpffs };
        if !devices.all(|device| hooks::is_attached(instance, device)) {
            return Err(Whole::because("an interface has lost its programs"));
        }
        if !pins::missing(bpffs, &record).is_empty() {
            return Err(Whole::because("a pin was removed"));
        }
        if !sys::can_wait_for_readers() {
            return Err(Whole::because("there are no grace periods to wait for"));
        }
        let ledger = Ledger::open(run)?;
        let origin = ledger.origin()?;
        if origin.format != ledger::FORMAT
            || origin.generation != record.generation
            || origin.stamp != stamp
        {
            return Err(Whole::because(
                "what is in force was made of another policy",
            ));
        }
        let (image, amendments) = files.lengths();
        if origin.amendments >= MOST_AMENDMENTS || amendments > image + MOST_AMENDED_BYTES {
            return Err(Whole::because("the image was amended often"));
        }
        let sizes = &record.sizes;
        let room = Room {
            ports: sizes.ports.min(limits.port_entries),
            port_tables: sizes.port_tables.min(limits.port_entries),
            range_slots: sizes.range_slots.min(limits.intervals),
            intervals_v4: sizes.intervals_v4.min(limits.intervals),
            intervals_v6: sizes.intervals_v6.min(limits.intervals),
            nested_ranges: sizes.nested_ranges.min(limits.intervals),
            rules: sizes.rules.saturating_sub(1).min(limits.rules),
            members: sizes.members.min(sizes.identities).min(limits.members),
            grants: sizes.grants.min(sizes.granted).min(limits.grants),
        };
        let maps = LayoutMaps::open(&layout_folder(bpffs, record.layout))?;
        Ok(Self {
            run: run.to_path_buf(),
            files,
            record,
            ledger,
            origin,
            maps,
            arrays: Arrays::default(),
            room,
        })
    }

    /// What the command that compiled the image wanted to be compared.
    pub fn surroundings(&self) -> Answer<Vec<u8>> {
        self.ledger.surroundings()
    }

    /// Makes the kernel hold an edit of what is in force. The stamp is that of the policy with it.
    pub fn install(
        mut self,
        vpc: &VpcName,
        amendment: &Amendment,
        stamp: u64,
    ) -> Result<(), Error> {
        let Amendment { old, new, .. } = amendment;
        let is_empty = old == new;
        if !is_empty {
            self.files.mark()?;
            // What is mapped is not written through twice.
            self.arrays = Arrays::default();
            let globals = Dataplane::globals(&self.record);
            let after = update::update(&mut self.maps, &globals, old, new)?;
            self.record.generation = after.0;
            self.files.amend(old, new)?;
            self.files.write_record(&self.record)?;
        }
        self.origin = Origin {
            generation: self.record.generation,
            stamp,
            amendments: self.origin.amendments + u32::from(!is_empty),
            ..self.origin
        };
        self.ledger
            .amend(&self.run, (vpc, amendment), &self.origin)?;
        self.files.unmark()
    }

    fn generation(&self) -> Generation {
        Generation(self.record.generation)
    }

    fn entry<T: Copy>(&self, array: &Array<MapData, Wire<Faces<T>>>, index: u32) -> Answer<T>
    where
        Faces<T>: Entry,
    {
        let Wire(faces) = array.get(&index, 0)?;
        Ok(*faces.at(self.generation()))
    }
}

/// Reads a slice of an array.
fn read<E: Entry>(
    mapped: &OnceCell<MappedArray>,
    array: &Array<MapData, Wire<E>>,
    entries: u32,
    slice: Slice,
) -> Answer<Vec<E>> {
    let mapped = match mapped.get() {
        Some(mapped) => mapped,
        None => {
            let length = entries as usize * size_of::<E>();
            let opened = MappedArray::open(array.map().fd().as_fd(), length);
            let opened = opened.map_err(Error::Mapped)?;
            mapped.get_or_init(|| opened)
        }
    };
    let entries = mapped.read(slice.offset as usize, slice.length as usize);
    Ok(entries.map_err(Error::Mapped)?)
}

impl Segments for Amendable {
    fn range_slots(&mut self, slice: Slice) -> Answer<Vec<RangeSlot>> {
        let (mapped, array) = (&self.arrays.range_slots, &self.maps.range_slots);
        read(mapped, array, self.record.sizes.range_slots, slice)
    }

    fn intervals_v4(&mut self, index: u32) -> Answer<(Slice, Vec<IntervalV4>)> {
        let slice = self.ledger.slice_at(ArenaKind::IntervalsV4, index)?;
        let (mapped, array) = (&self.arrays.intervals_v4, &self.maps.intervals_v4);
        let entries = read(mapped, array, self.record.sizes.intervals_v4, slice)?;
        Ok((slice, entries))
    }

    fn intervals_v6(&mut self, index: u32) -> Answer<(Slice, Vec<IntervalV6>)> {
        let slice = self.ledger.slice_at(ArenaKind::IntervalsV6, index)?;
        let (mapped, array) = (&self.arrays.intervals_v6, &self.maps.intervals_v6);
        let entries = read(mapped, array, self.record.sizes.intervals_v6, slice)?;
        Ok((slice, entries))
    }

    fn nested(&mut self, index: u32) -> Answer<RangeTable> {
        Ok(self.maps.nested_ranges.get(&index, 0)?.0)
    }
}

impl Ground for Amendable {
    fn room(&self) -> Room {
        self.room
    }

    fn vpc(&mut self, name: &VpcName) -> Answer<Option<u32>> {
        self.ledger.vpc(name)
    }

    fn policies_with(&mut self, vpc: &VpcName, group: &GroupName) -> Answer<Vec<InstalledPolicy>> {
        self.ledger.policies_with(vpc, group)
    }

    fn policy(&mut self, id: u32) -> Answer<Policy> {
        self.entry(&self.maps.policies, id)
    }

    fn range_table(&mut self, key: RangeTableKey) -> Answer<RangeTable> {
        match key {
            RangeTableKey::Policy(index) => self.entry(&self.maps.policy_ranges, index),
            RangeTableKey::List(index) => self.entry(&self.maps.list_ranges, index),
        }
    }

    fn uses(&mut self, arena: ArenaKind, slice: Slice) -> Answer<u32> {
        self.ledger.uses(arena, slice)
    }

    fn port_table(&mut self, index: u32) -> Answer<PortTable> {
        Ok(self.maps.port_tables.get(&index, 0)?.0)
    }

    fn ports(&mut self, PortTable { offset, length }: PortTable) -> Answer<Vec<PortEntry>> {
        let slice = Slice { offset, length };
        let (mapped, array) = (&self.arrays.ports, &self.maps.ports);
        read(mapped, array, self.record.sizes.ports, slice)
    }

    fn grant(&mut self, key: GrantKey) -> Answer<Option<Grant>> {
        match self.maps.grants.get(&Wire(key), 0) {
            Ok(index) => Ok(Some(Grant {
                index,
                table: self.entry(&self.maps.granted, index)?,
            })),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn member(&mut self, key: MemberKey) -> Answer<Option<Member>> {
        match self.maps.members.get(&Wire(key), 0) {
            Ok(index) => Ok(Some(Member {
                index,
                identity: self.entry(&self.maps.identities, index)?,
            })),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn identity(&mut self, set: &IdentitySet) -> Answer<Option<Identity>> {
        self.ledger.identity(set)
    }

    fn identity_set(&mut self, identity: Identity) -> Answer<Option<IdentitySet>> {
        self.ledger.identity_set(identity)
    }

    fn identities_with(
        &mut self,
        vpc: &VpcName,
        peer: &Peer,
    ) -> Answer<Vec<(Identity, IdentitySet)>> {
        self.ledger.identities_with(vpc, peer)
    }

    fn is_own_address(&mut self, vpc: &VpcName, address: IpAddr) -> Answer<bool> {
        self.ledger.is_own_address(vpc, address)
    }

    fn slots_of(
        &mut self,
        vpc: &VpcName,
        group: &GroupName,
        rules: &[RuleId],
    ) -> Answer<Vec<Option<RuleSlot>>> {
        self.ledger.slots_of(vpc, group, rules)
    }

    fn slots_taken(&mut self) -> Answer<(Vec<u32>, u32)> {
        self.ledger.slots_taken()
    }

    fn next_numbers(&mut self) -> Answer<NextNumbers> {
        self.ledger.next_numbers()
    }

    fn free_places(&mut self, arena: ArenaKind) -> Answer<FreePlaces> {
        self.ledger.free_places(arena)
    }
}
