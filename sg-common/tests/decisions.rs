//! The decision over tables that are written by hand: what rules, flows and fragments do to packets,
//! without a compiler of policies, a controller or a kernel.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use sg_common::abi::{
    Awaiting, DirectionPolicy, FragmentKey, FragmentVerdict, GrantKey, GroupSetEntry, Interface,
    InterfaceFlags, Scope,
};
use sg_common::addr::Addr;
use sg_common::decide::{Scratch, Stages, decide};
use sg_common::flow::{FlowKey, FlowKind, FlowState, Leg, TimeoutTicks};
use sg_common::ids::{Generation, Identity, RuleSlot, Ticks};
use sg_common::packet::Direction;
use sg_common::ports::{PortEntry, PortTable, Ports, Service};
use sg_common::protocol::{TCP, UDP};
use sg_common::report::Reason;
use sg_common::tables::{Flows, Fragments, Policies};

const HOST: [u8; 4] = [10, 0, 0, 10];
const PEER: [u8; 4] = [198, 51, 100, 7];
const SSH: RuleSlot = RuleSlot(1);
const DNS: RuleSlot = RuleSlot(2);

/// One flow as the tables hold it.
type Held = (FlowKind, FlowState, Ticks);

/// In: TCP port 22. Out: UDP port 53. Both from and to everyone.
struct ByHand {
    set: GroupSetEntry,
    ports: Vec<PortEntry>,
    now: Cell<Ticks>,
    flows: RefCell<HashMap<FlowKey, Held>>,
    fragments: RefCell<HashMap<FragmentKey, FragmentVerdict>>,
    awaiting: Cell<Awaiting>,
}

impl ByHand {
    fn new() -> Self {
        let one_port = |protocol, port, rule| {
            let entry = |port, rule| PortEntry {
                start: Service::new(protocol, port),
                rule,
            };
            [entry(port, rule), entry(port + 1, RuleSlot::NONE)]
        };
        let open = |offset| {
            let table = PortTable { offset, length: 2 };
            DirectionPolicy {
                open: [table, table],
                ..DirectionPolicy::default()
            }
        };
        Self {
            set: GroupSetEntry {
                directions: [open(0), open(2)],
            },
            ports: [one_port(TCP, 22, SSH), one_port(UDP, 53, DNS)].concat(),
            now: Cell::new(Ticks(1000)),
            flows: RefCell::default(),
            fragments: RefCell::default(),
            awaiting: Cell::default(),
        }
    }

    fn wait(&self, ticks: u32) {
        self.now.set(self.now.get().after(ticks));
    }

    fn judge(&self, direction: Direction, packet: &[u8]) -> (Reason, RuleSlot) {
        let interface = Interface {
            policy: 1,
            flags: InterfaceFlags::BARE,
            max_flows: 10,
            slot: 3,
            timeouts: TimeoutTicks {
                tcp_opening: 30,
                tcp_established: 1000,
                udp: 30,
                udp_stream: 180,
                fragment: 30,
                ..TimeoutTicks::default()
            },
            ..Interface::default()
        };
        let mut scratch = Scratch::default();
        let decision = decide(packet, direction, &interface, self, &mut scratch, &());
        (decision.reason, decision.rule)
    }

    fn kinds(&self) -> Vec<FlowKind> {
        let flows = self.flows.borrow();
        flows.values().map(|(kind, ..)| *kind).collect()
    }
}

impl Ports for ByHand {
    fn port_entry(&self, index: u32) -> Option<PortEntry> {
        self.ports.get(index as usize).copied()
    }
}

impl Policies for ByHand {
    fn generation(&self) -> Generation {
        Generation(1)
    }

    fn group_set(&self, id: u32) -> Option<&GroupSetEntry> {
        (id == 1).then_some(&self.set)
    }

    fn prefix(&self, _scope: Scope, _address: &Addr) -> PortTable {
        PortTable::EMPTY
    }

    fn set(&self, _scope: Scope, _address: &Addr) -> Identity {
        Identity::NONE
    }

    fn member(&self, _vpc: u32, _address: &Addr) -> Identity {
        Identity::NONE
    }

    fn grant(&self, _key: &GrantKey) -> PortTable {
        PortTable::EMPTY
    }
}

impl Flows for ByHand {
    type Flow = FlowKey;

    fn now(&self) -> Ticks {
        self.now.get()
    }

    fn find_flow(&self, key: &FlowKey, state: &mut FlowState) -> Option<(FlowKind, FlowKey)> {
        let flows = self.flows.borrow();
        let (kind, held, deadline) = flows.get(key)?;
        if deadline.has_passed(self.now()) {
            return None;
        }
        *state = *held;
        Some((*kind, *key))
    }

    fn open_flow(&self, key: &FlowKey, state: &FlowState, deadline: Ticks) -> Option<FlowKey> {
        let held = (FlowKind::Embryonic, *state, deadline);
        self.flows.borrow_mut().insert(*key, held);
        Some(*key)
    }

    fn assure_flow(&self, key: FlowKey, state: &FlowState, deadline: Ticks) -> Option<FlowKey> {
        let held = (FlowKind::Assured, *state, deadline);
        self.flows.borrow_mut().insert(key, held).map(|_| key)
    }

    fn update_flow(&self, key: FlowKey, state: &FlowState) {
        if let Some((_, held, _)) = self.flows.borrow_mut().get_mut(&key) {
            *held = *state;
        }
    }

    fn extend_flow(&self, key: FlowKey, deadline: Ticks) {
        if let Some((_, _, held)) = self.flows.borrow_mut().get_mut(&key) {
            *held = deadline;
        }
    }

    fn count_flow(&self, _key: FlowKey, _leg: Leg, _packets: u32, _bytes: u32) {}

    fn remove_flow(&self, key: FlowKey, _owner: u32) {
        self.flows.borrow_mut().remove(&key);
    }

    fn reclaim_flows(&self) {}

    fn flows_of(&self, owner: u32) -> u32 {
        let flows = self.flows.borrow();
        let owned = flows
            .values()
            .filter(|(kind, state, _)| *kind == FlowKind::Assured && state.owner == owner);
        owned.count() as u32
    }
}

impl Fragments for ByHand {
    fn remember_fragment(&self, key: &FragmentKey, verdict: &FragmentVerdict) {
        self.fragments.borrow_mut().insert(*key, *verdict);
    }

    fn recall_fragment(&self, key: &FragmentKey) -> Option<FragmentVerdict> {
        self.fragments.borrow().get(key).copied()
    }

    fn awaiting(&self, _slot: u32) -> Awaiting {
        self.awaiting.get()
    }

    fn set_awaiting(&self, _slot: u32, awaiting: Awaiting) {
        self.awaiting.set(awaiting);
    }
}

impl Stages for ByHand {}

/// An IPv4 packet; `fragment` is the word of flags and offset.
fn ipv4(protocol: u8, from: [u8; 4], to: [u8; 4], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    packet.extend(payload);
    packet
}

fn udp(from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(from.1.to_be_bytes());
    header.extend(to.1.to_be_bytes());
    header.extend([0, 8, 0, 0]);
    ipv4(UDP, from.0, to.0, 0, &header)
}

fn tcp(from: ([u8; 4], u16), to: ([u8; 4], u16), flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(from.1.to_be_bytes());
    header.extend(to.1.to_be_bytes());
    header.extend(seq.to_be_bytes());
    header.extend(ack.to_be_bytes());
    header.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    ipv4(TCP, from.0, to.0, 0, &header)
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

#[test]
fn a_port_without_a_rule_is_refused_and_opens_nothing() {
    let tables = ByHand::new();
    let syn = tcp((PEER, 40_000), (HOST, 23), SYN, 1000, 0);
    assert_eq!(
        tables.judge(Direction::Ingress, &syn),
        (Reason::NoRule, RuleSlot::NONE)
    );
    assert_eq!(tables.kinds(), []);
}

#[test]
fn a_connection_is_assured_when_its_handshake_is_complete() {
    let tables = ByHand::new();
    let (peer, host) = ((PEER, 40_000), (HOST, 22));
    let judged = |direction, packet: Vec<u8>| tables.judge(direction, &packet);
    let syn = judged(Direction::Ingress, tcp(peer, host, SYN, 1000, 0));
    assert_eq!(syn, (Reason::Rule, SSH));
    assert_eq!(tables.kinds(), [FlowKind::Embryonic]);
    let answer = judged(Direction::Egress, tcp(host, peer, SYN | ACK, 5000, 1001));
    assert_eq!(answer, (Reason::Tracked, SSH));
    assert_eq!(tables.kinds(), [FlowKind::Embryonic]);
    let ack = judged(Direction::Ingress, tcp(peer, host, ACK, 1001, 5001));
    assert_eq!(ack, (Reason::Tracked, SSH));
    assert_eq!(tables.kinds(), [FlowKind::Assured]);
}

#[test]
fn an_answer_passes_until_its_flow_expires() {
    let tables = ByHand::new();
    let (host, peer) = ((HOST, 4000), (PEER, 53));
    let request = tables.judge(Direction::Egress, &udp(host, peer));
    assert_eq!(request, (Reason::Rule, DNS));
    tables.wait(29);
    let answer = tables.judge(Direction::Ingress, &udp(peer, host));
    assert_eq!(answer, (Reason::Tracked, DNS));
    assert_eq!(tables.kinds(), [FlowKind::Assured]);
    tables.wait(30);
    let late = tables.judge(Direction::Ingress, &udp(peer, host));
    assert_eq!(late, (Reason::NoRule, RuleSlot::NONE));
}

#[test]
fn a_later_fragment_gets_what_the_first_one_got() {
    let tables = ByHand::new();
    let mut first = udp((HOST, 4000), (PEER, 53));
    // It says that there is more, and how long the whole datagram is.
    first[6] = 0x20;
    first[25] = 24;
    let later = ipv4(UDP, HOST, PEER, 1, &[0; 16]);
    let unknown = tables.judge(Direction::Egress, &later).0;
    assert_eq!(unknown, Reason::FragmentUnknown);
    assert_eq!(tables.judge(Direction::Egress, &first).0, Reason::Rule);
    assert_eq!(
        tables.judge(Direction::Egress, &later),
        (Reason::FragmentPass, DNS)
    );
}

#[test]
fn zeroed_tables_admit_nothing() {
    let mut tables = ByHand::new();
    tables.set.directions = [DirectionPolicy::default(); 2];
    let syn = tcp((PEER, 40_000), (HOST, 22), SYN, 1000, 0);
    assert_eq!(tables.judge(Direction::Ingress, &syn).0, Reason::NoRule);
}
