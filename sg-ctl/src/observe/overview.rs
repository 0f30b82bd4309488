//! Everything at a glance, again and again: what a full-screen view shows.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use jiff::Timestamp;
use sg_common::event::EventKind;
use sg_common::packet::Direction;
use sg_common::report::{Reason, Verdict};

use super::events::{EventSource, PacketEvent};
use super::rates::{Rates, RuleRate};
use super::stats::Stats;
use super::status::{FlowsStatus, Status};
use crate::controller::{Error, View};
use crate::dataplane::{self, Dataplane};
use crate::dirs::DirOptions;
use crate::policy::names::{InterfaceName, VpcName};

/// How many looks a history goes back.
const HISTORY: usize = 240;
/// How many peers are remembered; the quietest give way.
const MAX_PEERS: usize = 4_096;
/// Counting live flows reads the whole table, so it is not done at each look.
const LOOKS_PER_FLOW_COUNT: u32 = 5;

/// What is going on at one moment.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// When.
    pub time: Timestamp,
    /// The revision that is stored.
    pub revision: u64,
    /// Every interface of the policy.
    pub interfaces: Vec<InterfaceLoad>,
    /// What was counted at least once, by interface.
    pub reasons: Vec<ReasonLoad>,
    /// Rules that have admitted anything.
    pub rules: Vec<RuleRate>,
    /// Whose packets were dropped.
    pub peers: Vec<PeerDrops>,
    /// Why there are no peers, if there cannot be any.
    pub peers_missing: Option<String>,
    /// Dropped packets whose peers the kernel has not told.
    pub unseen_drops: u64,
    /// How full the flow tables are.
    pub flows: FlowsStatus,
}

/// An interface of a VPC.
pub type InterfaceKey = (VpcName, InterfaceName);

/// How busy an interface is.
#[derive(Clone, Debug)]
pub struct InterfaceLoad {
    /// Which one.
    pub key: InterfaceKey,
    /// Whether packets are judged.
    pub attached: bool,
    /// Whether what is judged passes all the same.
    pub audit: bool,
    /// What passes.
    pub pass: Load,
    /// What is dropped, or would be.
    pub drop: Load,
}

/// How often a reason applies at an interface.
#[derive(Clone, Debug)]
pub struct ReasonLoad {
    /// At which one.
    pub interface: InterfaceKey,
    /// Whether drops pass there.
    pub audit: bool,
    /// Relative to the interface.
    pub direction: Direction,
    /// Why.
    pub reason: Reason,
    /// How often.
    pub load: Load,
}

/// How fast a counter grows, and has grown.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// At the last look.
    pub packets_per_second: f64,
    /// At the last look.
    pub bytes_per_second: f64,
    /// Ever.
    pub packets: u64,
    /// Packets per second at each look, the last one last.
    pub history: VecDeque<f64>,
}

impl Load {
    /// Adds another counter to this one.
    pub fn add(&mut self, other: &Self) {
        self.packets_per_second += other.packets_per_second;
        self.bytes_per_second += other.bytes_per_second;
        self.packets += other.packets;
        let longer = other.history.len().saturating_sub(self.history.len());
        for _ in 0..longer {
            self.history.push_front(0.0);
        }
        // The last ones are of the same look.
        for (sum, more) in self
            .history
            .iter_mut()
            .rev()
            .zip(other.history.iter().rev())
        {
            *sum += more;
        }
    }
}

/// Whose packets were dropped at an interface, since the view was opened.
#[derive(Clone, Debug)]
pub struct PeerDrops {
    /// At which one.
    pub interface: InterfaceKey,
    /// Who.
    pub peer: IpAddr,
    /// Why, the last time.
    pub reason: Reason,
    /// What for, the last time: protocol and port of the protected side.
    pub service: String,
    /// At the last look.
    pub packets_per_second: f64,
    /// At the last look.
    pub bytes_per_second: f64,
    /// Ever.
    pub packets: u64,
    pending: u64,
    pending_bytes: u64,
}

/// What a counter counts; the last is whether the interface was only audited.
type Counted = (Direction, Reason, bool);

/// Looks again and again.
pub struct Watcher {
    options: DirOptions,
    events: Result<EventSource, String>,
    before: Option<(Stats, Instant)>,
    history: HashMap<(InterfaceKey, Counted), VecDeque<f64>>,
    peers: Peers,
    unseen_drops: u64,
    flows: FlowsStatus,
    looks: u32,
}

impl Watcher {
    /// Begins to watch. Where no more readers of events fit in, it does without peers.
    pub fn open(options: &DirOptions) -> Result<Self, Error> {
        let events = match EventSource::open(options, &[EventKind::Drop]) {
            Ok(events) => Ok(events),
            Err(Error::Dataplane(error @ dataplane::Error::TooManyReaders)) => {
                Err(error.to_string())
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            options: options.clone(),
            events,
            before: None,
            history: HashMap::new(),
            peers: BTreeMap::new(),
            unseen_drops: 0,
            flows: FlowsStatus::default(),
            looks: 0,
        })
    }

    /// Takes the events that have come. Call it several times a second.
    pub fn listen(&mut self) -> Result<(), Error> {
        if let Ok(events) = &mut self.events {
            let peers = &mut self.peers;
            let unseen = events.poll(&mut |event| note(peers, &event))?;
            self.unseen_drops += unseen.drops;
        }
        Ok(())
    }

    /// Looks at everything.
    pub fn look(&mut self) -> Result<Overview, Error> {
        let view = View::open(&self.options)?;
        let dataplane = view.dataplane()?;
        let stats = Stats::read(&view.policy, dataplane.as_ref(), None)?;
        self.count_flows(dataplane.as_ref())?;
        let states = view.interface_states()?;
        let (before, looked) = self
            .before
            .take()
            .unwrap_or_else(|| (stats.clone(), Instant::now()));
        let time = looked.elapsed();
        self.before = Some((stats.clone(), Instant::now()));
        let rates = Rates::between(&before, stats, time);
        let reasons = self.reasons(&rates);
        let interfaces = rates.interfaces.iter().map(|interface| {
            let key = (interface.stats.vpc.clone(), interface.stats.name.clone());
            let (mut pass, mut drop) = (Load::default(), Load::default());
            for counted in reasons.iter().filter(|counted| counted.interface == key) {
                match counted.reason.verdict() {
                    Verdict::Pass => pass.add(&counted.load),
                    Verdict::Drop if counted.audit == interface.stats.audit => {
                        drop.add(&counted.load);
                    }
                    Verdict::Drop => {}
                }
            }
            InterfaceLoad {
                attached: states.is_protected(&key.0, &key.1),
                audit: interface.stats.audit,
                key,
                pass,
                drop,
            }
        });
        let interfaces = interfaces.collect();
        let rules = rates
            .rules
            .into_iter()
            .filter(|rule| rule.total.packets > 0);
        Ok(Overview {
            time: Timestamp::now(),
            revision: view.revision,
            interfaces,
            reasons,
            rules: rules.collect(),
            peers: self.peers(time.as_secs_f64()),
            peers_missing: self.events.as_ref().err().cloned(),
            unseen_drops: self.unseen_drops,
            flows: self.flows,
        })
    }

    fn count_flows(&mut self, dataplane: Option<&Dataplane>) -> Result<(), Error> {
        if self.looks.is_multiple_of(LOOKS_PER_FLOW_COUNT) {
            self.flows = Status::flows(dataplane)?;
        }
        self.looks = self.looks.wrapping_add(1);
        Ok(())
    }

    fn reasons(&mut self, rates: &Rates) -> Vec<ReasonLoad> {
        let mut reasons = Vec::new();
        let mut kept = HashMap::new();
        for interface in &rates.interfaces {
            let key = (interface.stats.vpc.clone(), interface.stats.name.clone());
            for rate in &interface.rates {
                let (total, growth) = (&rate.total, &rate.growth);
                let kind = (total.direction, total.reason, total.audit);
                let place = (key.clone(), kind);
                let mut history = self.history.remove(&place).unwrap_or_default();
                history.push_back(growth.packets_per_second);
                if history.len() > HISTORY {
                    history.pop_front();
                }
                kept.insert(place, history.clone());
                reasons.push(ReasonLoad {
                    interface: key.clone(),
                    audit: total.audit,
                    direction: total.direction,
                    reason: total.reason,
                    load: Load {
                        packets_per_second: growth.packets_per_second,
                        bytes_per_second: growth.bytes_per_second,
                        packets: total.packets,
                        history,
                    },
                });
            }
        }
        // What is gone takes its history with it.
        self.history = kept;
        reasons
    }

    fn peers(&mut self, seconds: f64) -> Vec<PeerDrops> {
        let seconds = seconds.max(0.001);
        for peer in self.peers.values_mut() {
            peer.packets_per_second = peer.pending as f64 / seconds;
            peer.bytes_per_second = peer.pending_bytes as f64 / seconds;
            (peer.pending, peer.pending_bytes) = (0, 0);
        }
        self.peers.values().cloned().collect()
    }
}

/// A line for each peer and what it asks for, at each interface.
type Peers = BTreeMap<(InterfaceKey, IpAddr, String), PeerDrops>;

/// Remembers a dropped packet with its peer.
fn note(peers: &mut Peers, event: &PacketEvent) {
    let (Some(vpc), Some(name), Some(address)) = (&event.vpc, &event.interface, event.peer) else {
        return;
    };
    let interface = (vpc.clone(), name.clone());
    let protocol = event.protocol.as_deref().unwrap_or("-");
    // What is asked for: the receiver's port.
    let port = match event.direction {
        Direction::Ingress => event.local_port,
        Direction::Egress => event.peer_port,
    };
    let service = match port {
        Some(port) => format!("{protocol} {port}"),
        None => protocol.to_owned(),
    };
    let key = (interface.clone(), address, service.clone());
    if peers.len() >= MAX_PEERS && !peers.contains_key(&key) {
        let quietest = peers.iter().min_by_key(|(_, peer)| peer.packets);
        if let Some(quietest) = quietest.map(|(key, _)| key.clone()) {
            peers.remove(&quietest);
        }
    }
    let peer = peers.entry(key).or_insert_with(|| PeerDrops {
        interface,
        peer: address,
        reason: event.reason,
        service,
        packets_per_second: 0.0,
        bytes_per_second: 0.0,
        packets: 0,
        pending: 0,
        pending_bytes: 0,
    });
    peer.reason = event.reason;
    peer.packets += u64::from(event.packets);
    peer.pending += u64::from(event.packets);
    peer.pending_bytes += u64::from(event.bytes);
}

impl PeerDrops {
    /// A peer for those who show some without a kernel.
    #[cfg(test)]
    pub(crate) fn example(interface: &InterfaceKey, peer: &str, packets: u64) -> Self {
        Self {
            interface: interface.clone(),
            peer: peer.parse().unwrap(),
            reason: Reason::NoRule,
            service: "tcp 22".to_owned(),
            packets_per_second: packets as f64 / 10.0,
            bytes_per_second: packets as f64 * 6.0,
            packets,
            pending: 0,
            pending_bytes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(history: &[f64]) -> Load {
        Load {
            packets_per_second: history.last().copied().unwrap_or_default(),
            bytes_per_second: 0.0,
            packets: 1,
            history: history.iter().copied().collect(),
        }
    }

    /// A packet from a peer to a port, dropped at `eth0`.
    fn dropped(peer: &str, port: u16) -> PacketEvent {
        PacketEvent {
            time: Timestamp::UNIX_EPOCH,
            kind: EventKind::Drop,
            verdict: Verdict::Drop,
            audit: false,
            interface: "eth0".parse().ok(),
            vpc: Some(VpcName::default()),
            groups: Default::default(),
            direction: Direction::Ingress,
            reason: Reason::NoRule,
            sentence: Reason::NoRule.sentence(),
            protocol: Some("tcp".to_owned()),
            protocol_number: Some(6),
            ethertype: 0x0800,
            local: "10.0.0.10".parse().ok(),
            local_port: Some(port),
            peer: peer.parse().ok(),
            peer_port: Some(40_000),
            icmp: None,
            tcp_flags: None,
            tcp_flag_bits: 2,
            rule: None,
            rule_group: None,
            generation: 1,
            packets: 1,
            bytes: 60,
        }
    }

    #[test]
    fn a_dropped_peer_has_a_line_for_each_target() {
        let mut peers = Peers::new();
        for (peer, port) in [
            ("10.0.0.1", 22),
            ("10.0.0.1", 23),
            ("10.0.0.1", 22),
            ("10.0.0.2", 22),
        ] {
            note(&mut peers, &dropped(peer, port));
        }
        let lines = peers
            .values()
            .map(|line| format!("{} {} {}", line.peer, line.service, line.packets));
        assert_eq!(
            lines.collect::<Vec<_>>(),
            [
                "10.0.0.1 tcp 22 2",
                "10.0.0.1 tcp 23 1",
                "10.0.0.2 tcp 22 1"
            ]
        );
    }

    #[test]
    fn histories_are_added_from_their_ends() {
        let mut sum = load(&[1.0, 2.0]);
        sum.add(&load(&[10.0, 20.0, 30.0]));
        assert_eq!(sum.history, [10.0, 21.0, 32.0]);
        assert_eq!(sum.packets, 2);
        let mut sum = load(&[1.0, 2.0, 3.0]);
        sum.add(&load(&[10.0]));
        assert_eq!(sum.history, [1.0, 2.0, 13.0]);
    }
}
