//! The decision over the maps that are really installed, read one entry at a time.
//!
//! Looking opens no flow, counts nothing and writes nothing. What an update changes meanwhile is
//! noticed, not prevented: a caller asks [`Standpoint::is_current`] at the end, and looks again
//! where the answer is no.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use aya::Pod;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, MapData, MapError};
use sg_common::abi::{
    Awaiting, DoubleBuffer, FragmentKey, FragmentVerdict, Globals, GrantKey, GroupSetEntry,
    INTERFACE_PROBES, Interface, MemberKey, PrefixKey, Scope, interface_home,
};
use sg_common::addr::Addr;
use sg_common::decide::{Scratch, Stages, Step, Trace, decide};
use sg_common::flow::{FlowBucket, FlowKey, FlowKind, FlowState, Leg};
use sg_common::ids::{Generation, Identity, RuleSlot, Ticks};
use sg_common::packet::Direction;
use sg_common::parse::Headers;
use sg_common::ports::{PortEntry, PortTable, Ports};
use sg_common::ranges::{IntervalV4, IntervalV6, RangeSlot, RangeTable, Ranges, search_ranges};
use sg_common::report::Decision;
use sg_common::tables::{Flows, Fragments, Policies};

use super::clock::Clock;
use super::flow_reports::{FlowNames, flow_report};
use super::maps::{FLOW_TABLE, LayoutMaps, flows_folder, layout_folder, open};
use super::report::FlowReport;
use super::state::Record;
use super::tracing::TracedPacket;
use super::wire::Wire;
use super::{Dataplane, Error};
use crate::compile::image::{Image, MembersOf};
use crate::policy::names::{GroupName, PrefixListName, RuleId};

/// The maps in force, opened to be looked at.
pub struct Installed<'a> {
    bpffs: &'a Path,
    record: &'a Record,
    image: &'a Image,
    maps: LayoutMaps,
    flows: Array<MapData, Wire<FlowBucket>>,
    owned: Array<MapData, u32>,
}

/// One interface as its packets find it, for as long as nothing is changed.
pub struct Standpoint<'a> {
    installed: &'a Installed<'a>,
    globals: Globals,
    interface: Interface,
    policy: GroupSetEntry,
    clock: Clock,
    /// The first map that could not be read; the decision's questions cannot fail.
    failure: RefCell<Option<MapError>>,
}

/// What would become of a packet.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The verdict's reason, and where its rule's counters are.
    pub decision: Decision,
    /// The rule that admits the packet or its flow.
    pub rule: Option<RuleId>,
    /// What was looked at, in order.
    pub steps: Vec<Step>,
    /// What was read of the packet.
    pub headers: Headers,
}

/// Where a flow was found.
#[derive(Clone, Copy, Debug)]
pub struct FlowPlace {
    bucket: u32,
    slot: usize,
}

impl Dataplane {
    /// Opens the maps in force; `None` when nothing is installed.
    pub fn installed(&self) -> Result<Option<Installed<'_>>, Error> {
        let Some((record, image)) = self.names() else {
            return Ok(None);
        };
        let flows = flows_folder(&self.bpffs);
        Ok(Some(Installed {
            bpffs: &self.bpffs,
            record,
            image,
            maps: LayoutMaps::open(&layout_folder(&self.bpffs, record.layout))?,
            flows: open(&record.flows.folder(&self.bpffs), FLOW_TABLE)?,
            owned: open(&flows, "OWNED")?,
        }))
    }
}

impl Installed<'_> {
    /// Steps to an interface; `None` where the kernel finds no entry, and drops.
    pub fn at(&self, netns: u32, ifindex: u32) -> Result<Option<Standpoint<'_>>, Error> {
        let globals = self.globals()?;
        let home = interface_home(netns, ifindex);
        for probe in 0..INTERFACE_PROBES {
            let slot = home.wrapping_add(probe) & globals.interface_mask;
            let Wire(entry) = self.maps.interfaces.get(&slot, 0).map_err(Error::Read)?;
            if (entry.netns, entry.ifindex) != (netns, ifindex) {
                continue;
            }
            let interface = *entry.buffers.at(globals.generation);
            if interface.policy == 0 {
                return Ok(None);
            }
            let policy = self.maps.policies.get(&interface.policy, 0);
            let Wire(policy) = policy.map_err(Error::Read)?;
            return Ok(Some(Standpoint {
                installed: self,
                globals,
                interface,
                policy: *policy.at(globals.generation),
                clock: Clock::read(self.bpffs, self.record)?,
                failure: RefCell::default(),
            }));
        }
        Ok(None)
    }

    fn globals(&self) -> Result<Globals, Error> {
        let Wire(globals) = self.maps.globals.get(&0, 0).map_err(Error::Read)?;
        Ok(globals)
    }

    /// Whether the rule is one that packets are judged by.
    pub fn has_rule(&self, rule: RuleId) -> bool {
        self.image.ids.rules.contains_key(&rule)
    }

    fn rule(&self, slot: RuleSlot) -> Option<RuleId> {
        let mut rules = self.image.ids.rules.iter();
        let found = rules.find(|(_, known)| **known == slot && slot.is_some())?;
        Some(*found.0)
    }

    fn members_of(&self, identity: Identity) -> Option<&MembersOf> {
        let mut sets = self.image.ids.identities.iter();
        let found = sets.find(|(_, known)| **known == identity && identity.is_some())?;
        Some(&found.0.members_of)
    }
}

impl Standpoint<'_> {
    /// What is in force here.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Judges a packet as the interface's programs would now, if it came from a link-layer address of
    /// the guest.
    pub fn judge(&self, packet: &[u8], direction: Direction) -> Result<Judged, Error> {
        let recorder = Recorder::default();
        let mut scratch = Scratch::default();
        let decision = decide(
            packet,
            direction,
            &self.interface.without_macs(),
            self,
            &mut scratch,
            &recorder,
        );
        self.check()?;
        Ok(Judged {
            decision,
            rule: self.installed.rule(decision.rule),
            steps: recorder.0.into_inner(),
            headers: scratch.headers,
        })
    }

    /// What the interface's programs have made of a packet, as [`Self::judge`] tells it.
    pub fn judged(&self, packet: &TracedPacket) -> Judged {
        Judged {
            decision: packet.decision,
            rule: self.installed.rule(packet.decision.rule),
            steps: packet.steps.clone(),
            headers: packet.headers,
        }
    }

    /// The groups whose rules know the address, of those that any rule in force names.
    pub fn groups_of(&self, address: &Addr) -> Result<BTreeSet<GroupName>, Error> {
        let identity = self.member(self.interface.vpc, address);
        self.check()?;
        Ok(match self.installed.members_of(identity) {
            Some(MembersOf::Groups(groups)) => groups.clone(),
            _ => BTreeSet::new(),
        })
    }

    /// The prefix lists that hold the address, of those that any rule in force names.
    pub fn prefix_lists_of(&self, address: &Addr) -> Result<BTreeSet<PrefixListName>, Error> {
        let scope = Scope::prefix_lists(self.interface.vpc, address.family());
        let identity = self.set(scope, address);
        self.check()?;
        Ok(match self.installed.members_of(identity) {
            Some(MembersOf::PrefixLists(lists)) => lists.clone(),
            _ => BTreeSet::new(),
        })
    }

    /// The flow of this key, if it is alive.
    pub fn flow(&self, key: &FlowKey) -> Result<Option<(FlowState, FlowReport)>, Error> {
        let names = FlowNames::of(self.installed.image);
        let mut state = FlowState::default();
        let found = self.find_flow(key, &mut state);
        let found = found.and_then(|(kind, place)| Some((kind, place, self.bucket(place.bucket)?)));
        self.check()?;
        Ok(found.map(|(kind, place, bucket)| {
            let report = flow_report(&bucket, place.slot, kind, &self.clock, &names);
            (state, report)
        }))
    }

    /// Whether everything that was looked at belonged to one policy.
    pub fn is_current(&self) -> Result<bool, Error> {
        Ok(self.installed.globals()?.generation == self.globals.generation)
    }

    fn check(&self) -> Result<(), Error> {
        match self.failure.take() {
            Some(failure) => Err(Error::Read(failure)),
            None => Ok(()),
        }
    }

    /// What was read; a key that is not there is nothing, and any other failure is kept.
    fn read<T>(&self, read: Result<T, MapError>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(MapError::KeyNotFound | MapError::OutOfBounds { .. }) => None,
            Err(failure) => {
                self.failure.borrow_mut().get_or_insert(failure);
                None
            }
        }
    }

    fn bucket(&self, index: u32) -> Option<FlowBucket> {
        let Wire(bucket) = self.read(self.installed.flows.get(&index, 0))?;
        Some(bucket)
    }

    /// The tag of a key's flow while it is embryonic, and its two buckets.
    fn places(&self, key: &FlowKey) -> (u16, [u32; 2]) {
        let mask = self.globals.flow_mask;
        let places = key.places(&self.globals.hash_key);
        let indexes = [places.first & mask, places.second & mask];
        (places.tag, indexes)
    }
}

fn whole(scope: Scope, address: &Addr) -> Key<Wire<PrefixKey>> {
    Key::new(PrefixKey::BITS, Wire(PrefixKey::new(scope, *address)))
}

impl Standpoint<'_> {
    /// The value of an address in one of these tables.
    fn range_value(
        &self,
        tables: &Array<MapData, Wire<DoubleBuffer<RangeTable>>>,
        index: u32,
        address: &Addr,
    ) -> u32 {
        self.read(tables.get(&index, 0)).map_or(0, |Wire(buffers)| {
            search_ranges(self, buffers.at(self.globals.generation), address)
        })
    }

    fn entry<T>(&self, entries: &Array<MapData, Wire<T>>, index: u32) -> Option<T>
    where
        Wire<T>: Pod,
    {
        let Wire(entry) = self.read(entries.get(&index, 0))?;
        Some(entry)
    }
}

impl Ranges for Standpoint<'_> {
    fn slot(&self, index: u32) -> Option<RangeSlot> {
        self.entry(&self.installed.maps.range_slots, index)
    }

    fn interval_v4(&self, index: u32) -> Option<IntervalV4> {
        self.entry(&self.installed.maps.intervals_v4, index)
    }

    fn interval_v6(&self, index: u32) -> Option<IntervalV6> {
        self.entry(&self.installed.maps.intervals_v6, index)
    }

    fn nested(&self, index: u32) -> Option<RangeTable> {
        self.entry(&self.installed.maps.nested_ranges, index)
    }
}

impl Ports for Standpoint<'_> {
    fn port_entry(&self, index: u32) -> Option<PortEntry> {
        self.entry(&self.installed.maps.ports, index)
    }
}

impl Stages for Standpoint<'_> {}

/// Flows are read where they are. What would be written is not, and what would be put into a table
/// gets a place if there is one.
impl Policies for Standpoint<'_> {
    fn generation(&self) -> Generation {
        self.globals.generation
    }

    fn group_set(&self, id: u32) -> Option<&GroupSetEntry> {
        (id == self.interface.policy).then_some(&self.policy)
    }

    fn prefix(&self, scope: Scope, address: &Addr) -> PortTable {
        let maps = &self.installed.maps;
        let number = self.range_value(&maps.policy_ranges, scope.0, address);
        let table = number.checked_sub(1);
        let table = table.and_then(|index| self.read(maps.port_tables.get(&index, 0)));
        table.map_or(PortTable::EMPTY, |Wire(table)| table)
    }

    fn set(&self, scope: Scope, address: &Addr) -> Identity {
        if let Some(index) = scope.list_table() {
            let tables = &self.installed.maps.list_ranges;
            return Identity(self.range_value(tables, index, address));
        }
        let found = self.installed.maps.sets.get(&whole(scope, address), 0);
        self.read(found).map_or(Identity::NONE, |Wire(buffers)| {
            *buffers.at(self.globals.generation)
        })
    }

    fn member(&self, vpc: u32, address: &Addr) -> Identity {
        let maps = &self.installed.maps;
        let key = Wire(MemberKey {
            vpc,
            address: *address,
        });
        let index = self.read(maps.members.get(&key, 0));
        let found = index.and_then(|index| self.read(maps.identities.get(&index, 0)));
        found.map_or(Identity::NONE, |Wire(buffers)| {
            *buffers.at(self.globals.generation)
        })
    }

    fn grant(&self, key: &GrantKey) -> PortTable {
        let maps = &self.installed.maps;
        let index = self.read(maps.grants.get(&Wire(*key), 0));
        let found = index.and_then(|index| self.read(maps.granted.get(&index, 0)));
        found.map_or(PortTable::EMPTY, |Wire(buffers)| {
            *buffers.at(self.globals.generation)
        })
    }
}

impl Flows for Standpoint<'_> {
    type Flow = FlowPlace;

    fn now(&self) -> Ticks {
        self.clock.now
    }

    fn find_flow(&self, key: &FlowKey, state: &mut FlowState) -> Option<(FlowKind, FlowPlace)> {
        let (tag, indexes) = self.places(key);
        indexes.into_iter().find_map(|index| {
            let bucket = self.bucket(index)?;
            let slots = bucket.tags.iter().zip(&bucket.deadlines).zip(&bucket.slots);
            let held = slots.enumerate().find(|(_, ((known, deadline), slot))| {
                // Of either kind.
                FlowKind::Assured.tag(**known) == FlowKind::Assured.tag(tag)
                    && !deadline.has_passed(self.now())
                    && slot.key == *key
            });
            let (slot, ((known, _), held)) = held?;
            *state = held.state;
            let place = FlowPlace {
                bucket: index,
                slot,
            };
            Some((FlowKind::of_tag(*known)?, place))
        })
    }

    fn open_flow(&self, key: &FlowKey, _state: &FlowState, _deadline: Ticks) -> Option<FlowPlace> {
        let (_, indexes) = self.places(key);
        indexes.into_iter().find_map(|index| {
            let bucket = self.bucket(index)?;
            let mut places = bucket.tags.iter().zip(&bucket.deadlines);
            // An embryonic flow gives way.
            let slot = places.position(|(tag, deadline)| {
                FlowKind::of_tag(*tag) != Some(FlowKind::Assured) || deadline.has_passed(self.now())
            })?;
            Some(FlowPlace {
                bucket: index,
                slot,
            })
        })
    }

    fn assure_flow(
        &self,
        flow: FlowPlace,
        _state: &FlowState,
        _deadline: Ticks,
    ) -> Option<FlowPlace> {
        Some(flow)
    }

    fn flows_of(&self, owner: u32) -> u32 {
        self.read(self.installed.owned.get(&owner, 0))
            .unwrap_or_default()
    }

    fn update_flow(&self, _flow: FlowPlace, _state: &FlowState) {}

    fn extend_flow(&self, _flow: FlowPlace, _deadline: Ticks) {}

    fn count_flow(&self, _flow: FlowPlace, _leg: Leg, _packets: u32, _bytes: u32) {}

    fn remove_flow(&self, _flow: FlowPlace, _owner: u32) {}

    fn reclaim_flows(&self) {}
}

impl Fragments for Standpoint<'_> {
    fn remember_fragment(&self, _key: &FragmentKey, _verdict: &FragmentVerdict) {}

    fn recall_fragment(&self, _key: &FragmentKey) -> Option<FragmentVerdict> {
        None
    }

    fn awaiting(&self, _slot: u32) -> Awaiting {
        Awaiting::default()
    }

    fn set_awaiting(&self, _slot: u32, _awaiting: Awaiting) {}
}

/// Keeps the steps of a decision.
#[derive(Default)]
struct Recorder(RefCell<Vec<Step>>);

impl Trace for Recorder {
    fn step(&self, step: Step) {
        self.0.borrow_mut().push(step);
    }
}
