//! The host's answers to the decision's questions: an image, and flows in plain maps.
//!
//! The verdicts are those of the kernel, since the decision is the same. What differs is where
//! flows are kept: the host's table is full when all of it is, the kernel's when two buckets are.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use sg_common::abi::{
    Awaiting, FragmentKey, FragmentVerdict, GrantKey, GroupSetEntry, Interface, MemberKey,
    PrefixKey, Scope,
};
use sg_common::addr::Addr;
use sg_common::decide::{
    FastDecision, Outcome, Scratch, Stage, Stages, Trace, decide, decide_fast, decide_fast_v4,
    direction_of,
};
use sg_common::flow::{FlowKey, FlowKind, FlowState, Leg};
use sg_common::ids::{Generation, Identity, Ticks};
use sg_common::packet::{Framing, Packet};
use sg_common::ports::{PortEntry, PortTable, Ports};
use sg_common::ranges::search_ranges;
use sg_common::report::{Decision, Reason};
use sg_common::tables::{Flows, Fragments, Policies};

use super::host_flows::HostFlows;
use super::image::{Image, ScopedPrefix};

/// First fragments that are remembered before the oldest are forgotten.
const FRAGMENTS: usize = 4096;

/// An image in force on the host, with a clock that stands until it is set. A clone goes its own way
/// from the same flows.
#[derive(Clone)]
pub struct HostTables<'a> {
    image: &'a Image,
    generation: Generation,
    set_lengths: Lengths,
    devices: HashMap<(u32, u32), u32>,
    now: Cell<Ticks>,
    flows: RefCell<HostFlows>,
    fragments: RefCell<HashMap<FragmentKey, FragmentVerdict>>,
    awaiting: RefCell<HashMap<u32, Awaiting>>,
}

impl<'a> HostTables<'a> {
    /// The image in force, and no flows yet; the flow table has room for `capacity`.
    pub fn new(image: &'a Image, generation: Generation, capacity: usize) -> Self {
        let mut tables = Self {
            image,
            generation,
            set_lengths: Lengths::default(),
            devices: HashMap::new(),
            now: Cell::default(),
            flows: RefCell::new(HostFlows::new(capacity)),
            fragments: RefCell::default(),
            awaiting: RefCell::default(),
        };
        tables.install(image, generation);
        tables
    }

    /// Puts another image in force. Flows live on.
    pub fn install(&mut self, image: &'a Image, generation: Generation) {
        self.image = image;
        self.generation = generation;
        self.set_lengths = Lengths::of(image.sets.keys());
        let interfaces = image.interfaces.iter();
        self.devices = interfaces
            .map(|(slot, i)| ((i.netns, i.ifindex), *slot))
            .collect();
    }

    /// Sets the clock.
    pub fn set_now(&self, now: Ticks) {
        self.now.set(now);
    }

    /// What is in force on a device; `None` where the kernel would find no entry and drop.
    pub fn interface(&self, netns: u32, ifindex: u32) -> Option<&'a Interface> {
        let slot = self.devices.get(&(netns, ifindex))?;
        let installed = self.image.interfaces.get(slot)?;
        (installed.interface.policy != 0).then_some(&installed.interface)
    }

    /// Judges a frame that a device has received or is about to send. `None`: the device is not
    /// protected.
    pub fn decide(
        &self,
        netns: u32,
        ifindex: u32,
        received: bool,
        frame: &[u8],
        trace: &impl Trace,
    ) -> Option<Decision> {
        let interface = self.interface(netns, ifindex)?;
        Some(self.judge(interface, received, frame, trace))
    }

    /// Judges any packet at an interface.
    pub fn judge<P: Packet + ?Sized>(
        &self,
        interface: &Interface,
        received: bool,
        packet: &P,
        trace: &impl Trace,
    ) -> Decision {
        let direction = direction_of(interface, received);
        decide(
            packet,
            direction,
            interface,
            self,
            &mut Scratch::default(),
            trace,
        )
    }

    /// The same by the short way, which has no answer for most packets; `scratch` may be that of any
    /// packet before.
    pub fn judge_fast<P: Packet + ?Sized>(
        &self,
        interface: &Interface,
        received: bool,
        packet: &P,
        scratch: &mut Scratch,
    ) -> Option<Decision> {
        let direction = direction_of(interface, received);
        let short = decide_fast(packet, direction, interface, self, scratch)?;
        Some(self.follow(short, interface, received, packet, scratch))
    }

    /// The same by the shortest way.
    pub fn judge_fast_v4<P: Packet + ?Sized>(
        &self,
        interface: &Interface,
        received: bool,
        packet: &P,
        scratch: &mut Scratch,
    ) -> Option<Decision> {
        let short = decide_fast_v4(packet, received, interface, self)?;
        Some(self.follow(short, interface, received, packet, scratch))
    }

    /// Opens the flow of a packet that a short way has admitted.
    fn follow<P: Packet + ?Sized>(
        &self,
        short: FastDecision,
        interface: &Interface,
        received: bool,
        packet: &P,
        scratch: &mut Scratch,
    ) -> Decision {
        match short {
            FastDecision::Decided(decision) => decision,
            FastDecision::Admitted(rule) => {
                scratch.read(packet, Framing::Ethernet);
                let direction = direction_of(interface, received);
                match self.stage(Stage::Open(rule), scratch, direction, interface, &()) {
                    Outcome::Decided(decision) => decision,
                    Outcome::Continue => Decision::without_rule(Reason::TableFull),
                }
            }
        }
    }

    /// The flows that are alive.
    pub fn flows_alive(&self) -> Vec<(FlowKey, FlowKind, FlowState)> {
        self.flows.borrow().alive(self.now()).collect()
    }
}

/// The lengths of the prefixes in each scope: what a longest-prefix search has to try.
#[derive(Clone, Default)]
struct Lengths(HashMap<[u8; 4], BTreeSet<u32>>);

impl Lengths {
    fn of<'k>(keys: impl Iterator<Item = &'k ScopedPrefix>) -> Self {
        let mut lengths: HashMap<_, BTreeSet<u32>> = HashMap::new();
        for prefix in keys {
            lengths
                .entry(prefix.key.scope)
                .or_default()
                .insert(prefix.bits);
        }
        Self(lengths)
    }

    fn longest<T: Copy>(
        &self,
        entries: &BTreeMap<ScopedPrefix, T>,
        scope: Scope,
        address: &Addr,
    ) -> Option<T> {
        let whole = PrefixKey::new(scope, *address);
        let octets = u128::from_be_bytes(address.octets());
        let lengths = self.0.get(&whole.scope)?;
        lengths.iter().rev().find_map(|&bits| {
            let behind = PrefixKey::BITS.checked_sub(bits)?;
            let mask = u128::MAX.checked_shl(behind).unwrap_or(0);
            let cut = Addr::from_v6((octets & mask).to_be_bytes());
            let key = ScopedPrefix {
                key: PrefixKey::new(scope, cut),
                bits,
            };
            entries.get(&key).copied()
        })
    }
}

impl Ports for HostTables<'_> {
    fn port_entry(&self, index: u32) -> Option<PortEntry> {
        self.image.ports.entry(index).copied()
    }
}

impl Stages for HostTables<'_> {}

impl Policies for HostTables<'_> {
    fn generation(&self) -> Generation {
        self.generation
    }

    fn group_set(&self, id: u32) -> Option<&GroupSetEntry> {
        self.image.policies.get(&id)
    }

    fn prefix(&self, scope: Scope, address: &Addr) -> PortTable {
        let Some(table) = self.image.policy_ranges.get(&scope.0) else {
            return PortTable::EMPTY;
        };
        let number = search_ranges(&self.image.ranges, table, address);
        let table = self.image.port_tables.entry(number.wrapping_sub(1));
        table.copied().unwrap_or(PortTable::EMPTY)
    }

    fn set(&self, scope: Scope, address: &Addr) -> Identity {
        if let Some(index) = scope.list_table() {
            return match self.image.list_ranges.get(&index) {
                Some(table) => Identity(search_ranges(&self.image.ranges, table, address)),
                None => Identity::NONE,
            };
        }
        let found = self.set_lengths.longest(&self.image.sets, scope, address);
        found.unwrap_or(Identity::NONE)
    }

    fn member(&self, vpc: u32, address: &Addr) -> Identity {
        let member = self.image.members.get(&MemberKey {
            vpc,
            address: *address,
        });
        member.map_or(Identity::NONE, |member| member.identity)
    }

    fn grant(&self, key: &GrantKey) -> PortTable {
        self.image
            .grants
            .get(key)
            .map_or(PortTable::EMPTY, |grant| grant.table)
    }
}

impl Flows for HostTables<'_> {
    type Flow = FlowKey;

    fn now(&self) -> Ticks {
        self.now.get()
    }

    fn find_flow(&self, key: &FlowKey, state: &mut FlowState) -> Option<(FlowKind, FlowKey)> {
        let (kind, found) = self.flows.borrow().find(key, self.now())?;
        *state = found;
        Some((kind, *key))
    }

    fn open_flow(&self, key: &FlowKey, state: &FlowState, deadline: Ticks) -> Option<FlowKey> {
        let opened = self
            .flows
            .borrow_mut()
            .open(key, state, deadline, self.now());
        opened.then_some(*key)
    }

    fn assure_flow(&self, flow: FlowKey, state: &FlowState, deadline: Ticks) -> Option<FlowKey> {
        let mut flows = self.flows.borrow_mut();
        flows.assure(&flow, state, deadline).then_some(flow)
    }

    fn update_flow(&self, flow: FlowKey, state: &FlowState) {
        let mut flows = self.flows.borrow_mut();
        flows.change(&flow, |held| held.state = *state);
    }

    fn extend_flow(&self, flow: FlowKey, deadline: Ticks) {
        self.flows.borrow_mut().change(&flow, |held| {
            if held.deadline.is_worth_moving_to(deadline) {
                held.deadline = deadline;
            }
        });
    }

    /// Nobody reads what the host would count.
    fn count_flow(&self, _flow: FlowKey, _leg: Leg, _packets: u32, _bytes: u32) {}

    fn remove_flow(&self, flow: FlowKey, _owner: u32) {
        self.flows.borrow_mut().remove(&flow);
    }

    fn reclaim_flows(&self) {
        self.flows.borrow_mut().forget_expired(self.now());
    }

    fn flows_of(&self, owner: u32) -> u32 {
        self.flows.borrow().owned_by(owner)
    }
}

impl Fragments for HostTables<'_> {
    fn remember_fragment(&self, key: &FragmentKey, verdict: &FragmentVerdict) {
        let mut fragments = self.fragments.borrow_mut();
        if fragments.len() >= FRAGMENTS {
            let now = self.now();
            fragments.retain(|_, verdict| !verdict.deadline.has_passed(now));
        }
        if fragments.len() >= FRAGMENTS {
            let now = self.now();
            let oldest = fragments
                .iter()
                .min_by_key(|(_, verdict)| verdict.deadline.until(now));
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                fragments.remove(&oldest);
            }
        }
        fragments.insert(*key, *verdict);
    }

    fn recall_fragment(&self, key: &FragmentKey) -> Option<FragmentVerdict> {
        self.fragments.borrow().get(key).copied()
    }

    fn awaiting(&self, slot: u32) -> Awaiting {
        self.awaiting
            .borrow()
            .get(&slot)
            .copied()
            .unwrap_or_default()
    }

    fn set_awaiting(&self, slot: u32, awaiting: Awaiting) {
        self.awaiting.borrow_mut().insert(slot, awaiting);
    }
}
