//! A flow log: what passed and what was dropped, summed up by interval.
//!
//! Tracked flows are read from the flow tables every few seconds, oftener than any flow expires, and
//! what their counters have grown by is logged. Drops, and the first packets of untracked TCP
//! connections, come as events; so do those of tracked ones, which tell how a connection began, and
//! that there was one that was refused at once and left no flow. What leaves no trace in either is not logged: the later packets of
//! untracked connections, untracked UDP, and what groups never filter (ARP, neighbor discovery,
//! DHCP and the like), which AWS leaves out as well.

mod file;
mod record;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::net::IpAddr;

use sg_common::event::EventKind;
use sg_common::flow::FlowKey;
use sg_common::packet::Direction;
use sg_common::protocol::{TCP, UDP};
use sg_common::report::{Reason, Verdict};

pub use file::{LogFile, Rotation};
pub use record::{FlowState, HEADER, Record, RecordKey, Silence, Tally};

use super::events::{PacketEvent, Unseen};
use crate::controller::{Error, View};
use crate::dataplane::{FlowReport, TcpMarks};
use crate::policy::model::Policy;
use crate::policy::names::{GroupId, InterfaceName, RuleId, VpcName};

/// More records than this in one interval are skipped, and said to be: a scan of ports from forged
/// addresses must not take the machine's memory.
const MAX_RECORDS: usize = 1 << 17;

/// Sums up one interval after the other.
#[derive(Debug, Default)]
pub struct FlowLog {
    records: HashMap<RecordKey, Tally>,
    flows: HashMap<FlowIdentity, Counters>,
    /// First packets of TCP connections whose flows were not read yet.
    openings: HashMap<Ends, (RecordKey, Tally)>,
    interfaces: BTreeSet<(VpcName, InterfaceName)>,
    groups: HashMap<RuleId, GroupId>,
    /// Unix seconds.
    start: i64,
    /// When flows were last read.
    sampled: Option<i64>,
    skipped: bool,
}

/// Where a TCP connection is: interface, protected side and other side.
type Ends = (VpcName, InterfaceName, (IpAddr, u16), (IpAddr, u16));

/// One flow, and no later one between the same ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FlowIdentity {
    key: FlowKey,
    opened: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    packets_in: u64,
    packets_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    /// When it was last there.
    sampled: i64,
    marks: TcpMarks,
    /// Its first packet was a SYN, and that was logged.
    began: bool,
}

impl FlowLog {
    /// Begins an interval, in Unix seconds.
    pub fn begin(now: i64) -> Self {
        Self {
            start: now,
            ..Self::default()
        }
    }

    /// Adds what tracked flows have carried since the last time. What they had carried before the
    /// first time was before this log.
    pub fn sample(&mut self, view: &View, now: i64) -> Result<(), Error> {
        self.groups = groups_of_rules(&view.policy);
        let Some(dataplane) = view.dataplane()? else {
            self.interfaces.clear();
            return Ok(());
        };
        if let Some((image, _)) = dataplane.numbered() {
            let installed = image.interfaces.values();
            self.interfaces = installed
                .map(|installed| (installed.vpc.clone(), installed.name.clone()))
                .collect();
        }
        self.flows(now, |each| dataplane.flows(&mut |flow| each(&flow)))
            .map_err(Error::from)
    }

    fn flows<T>(&mut self, now: i64, read: impl FnOnce(&mut dyn FnMut(&FlowReport)) -> T) -> T {
        let mut openings = mem::take(&mut self.openings);
        let read = read(&mut |flow| self.flow(flow, now, &mut openings));
        // Their flows ended before they were read: the connections were refused.
        for (key, tally) in openings.into_values() {
            self.add(key, tally);
        }
        // Those that were not there this time have ended.
        self.flows.retain(|_, counters| counters.sampled == now);
        self.sampled = Some(now);
        read
    }

    fn flow(
        &mut self,
        flow: &FlowReport,
        now: i64,
        openings: &mut HashMap<Ends, (RecordKey, Tally)>,
    ) {
        let opening = flow.interface.clone().and_then(|(vpc, interface)| {
            let local = (flow.local, flow.local_port);
            openings.remove(&(vpc, interface, local, (flow.peer, flow.peer_port)))
        });
        let first_flags = opening.map_or(0, |(_, tally)| tally.tcp_flags);
        let identity = FlowIdentity {
            key: flow.key,
            opened: flow.opened,
        };
        let counters = Counters {
            packets_in: flow.packets_in,
            packets_out: flow.packets_out,
            bytes_in: flow.bytes_in,
            bytes_out: flow.bytes_out,
            sampled: now,
            marks: flow.marks,
            began: first_flags & SYN != 0,
        };
        let opened = now - i64::try_from(flow.opened_s_ago).unwrap_or(0);
        let before = match self.flows.entry(identity) {
            Entry::Occupied(mut entry) => {
                let before = entry.insert(counters);
                entry.get_mut().began |= before.began;
                before
            }
            Entry::Vacant(entry) => {
                entry.insert(counters);
                match self.sampled {
                    Some(_) => Counters::default(),
                    None => counters,
                }
            }
        };
        let Some((vpc, interface)) = flow.interface.clone() else {
            return;
        };
        let ends = |direction| match direction {
            Direction::Ingress => (flow.peer, flow.peer_port, flow.local, flow.local_port),
            Direction::Egress => (flow.local, flow.local_port, flow.peer, flow.peer_port),
        };
        for (direction, packets, bytes) in [
            (
                Direction::Ingress,
                counters.packets_in.saturating_sub(before.packets_in),
                counters.bytes_in.saturating_sub(before.bytes_in),
            ),
            (
                Direction::Egress,
                counters.packets_out.saturating_sub(before.packets_out),
                counters.bytes_out.saturating_sub(before.bytes_out),
            ),
        ] {
            if packets == 0 {
                continue;
            }
            let tcp_flags = match flow.protocol {
                TCP => tcp_flags(flow, direction, (&before, &counters), first_flags),
                _ => 0,
            };
            let is_new = opened >= self.start;
            let (source, source_port, destination, destination_port) = ends(direction);
            let has_ports = has_ports(flow.protocol);
            let key = RecordKey {
                vpc: vpc.clone(),
                interface: interface.clone(),
                direction,
                source: Some(source),
                destination: Some(destination),
                source_port: if has_ports { source_port } else { 0 },
                destination_port: if has_ports { destination_port } else { 0 },
                protocol: Some(flow.protocol),
                passed: true,
                reason: Reason::Tracked,
                rule: flow.rule,
                group: flow.rule.and_then(|rule| self.groups.get(&rule).copied()),
                generation: flow.generation,
                state: match is_new {
                    true => FlowState::New,
                    false => FlowState::Established,
                },
            };
            let tally = Tally {
                packets,
                bytes,
                start: opened.max(self.sampled.unwrap_or(self.start)),
                end: now,
                tcp_flags,
            };
            self.add(key, tally);
        }
    }

    /// Adds an event, if it is one that the flow tables know nothing of.
    pub fn event(&mut self, event: &PacketEvent) {
        let is_untracked = event.reason == Reason::Untracked;
        let is_tracked = event.kind == EventKind::NewFlow && !is_untracked;
        // A flow of another protocol lives longer than until it is read.
        if is_tracked && event.protocol_number != Some(TCP) {
            return;
        }
        let (Some(vpc), Some(interface)) = (event.vpc.clone(), event.interface.clone()) else {
            return;
        };
        let (local_port, peer_port) = (event.local_port.unwrap_or(0), event.peer_port.unwrap_or(0));
        let (source, source_port, destination, destination_port) = match event.direction {
            Direction::Ingress => (event.peer, peer_port, event.local, local_port),
            Direction::Egress => (event.local, local_port, event.peer, peer_port),
        };
        let key = RecordKey {
            vpc,
            interface,
            direction: event.direction,
            source,
            destination,
            source_port,
            destination_port,
            protocol: event.protocol_number,
            passed: event.verdict == Verdict::Pass || event.audit,
            reason: event.reason,
            rule: event.rule,
            group: event.rule.and_then(|rule| self.groups.get(&rule).copied()),
            generation: event.generation,
            state: match event.kind {
                EventKind::NewFlow if is_untracked => FlowState::Untracked,
                EventKind::NewFlow => FlowState::New,
                EventKind::Drop => FlowState::None,
            },
        };
        let second = event.time.as_second();
        let tally = Tally {
            packets: event.packets.into(),
            bytes: event.bytes.into(),
            start: second,
            end: second,
            tcp_flags: match event.tcp_flags {
                Some(_) => as_aws_tells(event.tcp_flag_bits),
                None => 0,
            },
        };
        let ends = event.local.zip(event.peer);
        match ends {
            Some((local, peer)) if is_tracked => {
                if self.openings.len() >= MAX_RECORDS {
                    self.skipped = true;
                    return;
                }
                let (local, peer) = ((local, local_port), (peer, peer_port));
                let ends = (key.vpc.clone(), key.interface.clone(), local, peer);
                self.openings.insert(ends, (key, tally));
            }
            _ => self.add(key, tally),
        }
    }

    /// Notes what the kernel has not told.
    pub fn unseen(&mut self, unseen: Unseen) {
        self.skipped |= !unseen.is_none();
    }

    /// Notes that records were lost on their way into the file.
    pub fn lost(&mut self) {
        self.skipped = true;
    }

    fn add(&mut self, key: RecordKey, tally: Tally) {
        if self.records.len() >= MAX_RECORDS && !self.records.contains_key(&key) {
            self.skipped = true;
            return;
        }
        self.records.entry(key).or_default().add(tally);
    }

    /// When the interval began.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// Ends the interval and begins the next: its records, in the order of their times.
    pub fn finish(&mut self, now: i64) -> Vec<Record> {
        let mut seen: Vec<_> = self.records.drain().collect();
        seen.sort_by(|(a, tally), (b, other)| tally.start.cmp(&other.start).then_with(|| a.cmp(b)));
        let heard: BTreeSet<_> = seen
            .iter()
            .map(|(key, _)| (key.vpc.clone(), key.interface.clone()))
            .collect();
        let silence = |(vpc, interface): &(VpcName, InterfaceName)| Silence {
            vpc: vpc.clone(),
            interface: interface.clone(),
            start: self.start,
            end: now,
        };
        let silent = self
            .interfaces
            .iter()
            .filter(|interface| !heard.contains(interface));
        let mut records: Vec<_> = match self.skipped {
            // At which interface it was is not known.
            true => self
                .interfaces
                .iter()
                .map(silence)
                .map(Record::SkipData)
                .collect(),
            false => silent.map(silence).map(Record::NoData).collect(),
        };
        let seen = seen
            .into_iter()
            .map(|(key, tally)| Record::Seen(key, tally));
        records.splice(0..0, seen);
        self.start = now;
        self.skipped = false;
        records
    }
}

fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP)
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// The control bits that a flow log tells: FIN, SYN and RST, and ACK beside SYN alone.
fn as_aws_tells(bits: u8) -> u8 {
    let told = bits & (FIN | SYN | RST);
    match told & SYN {
        0 => told,
        _ => told | bits & ACK,
    }
}

/// The control bits that a flow has seen in one direction since it was last read. Nothing counts
/// them: they are what must have passed for the flow to be as it is. From which side a RST came is
/// not known where both have sent.
fn tcp_flags(
    flow: &FlowReport,
    direction: Direction,
    (before, after): (&Counters, &Counters),
    first_flags: u8,
) -> u8 {
    let (was, is) = (before.marks, after.marks);
    let fin = match direction {
        Direction::Ingress => is.fin_in && !was.fin_in,
        Direction::Egress => is.fin_out && !was.fin_out,
    };
    let began = before.began || after.began;
    let begins = match direction == flow.opened_by {
        true => first_flags,
        false if began && is.answered && !was.answered => SYN | ACK,
        false => 0,
    };
    begins | if fin { FIN } else { 0 } | if is.reset && !was.reset { RST } else { 0 }
}

fn groups_of_rules(policy: &Policy) -> HashMap<RuleId, GroupId> {
    let groups = policy.vpcs.values().flat_map(|vpc| vpc.groups.values());
    groups
        .flat_map(|group| group.rules.iter().map(|rule| (rule.id, group.id)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(packets: u64) -> FlowReport {
        FlowReport {
            key: FlowKey::default(),
            zone: 1,
            local: "10.0.0.1".parse().unwrap(),
            local_port: 22,
            peer: "192.0.2.9".parse().unwrap(),
            peer_port: 40_022,
            protocol: 6,
            state: "established",
            assured: true,
            expires_in_s: 60,
            rule: None,
            packets_in: packets,
            packets_out: 1,
            bytes_in: packets * 100,
            bytes_out: 60,
            interface: Some((VpcName::default(), "eth0".parse().unwrap())),
            generation: 3,
            opened: 17,
            opened_s_ago: 1_000,
            idle_s: 1,
            opened_by: Direction::Ingress,
            marks: TcpMarks {
                answered: true,
                ..TcpMarks::default()
            },
        }
    }

    fn log(now: i64) -> FlowLog {
        let mut log = FlowLog::begin(now);
        log.interfaces
            .insert((VpcName::default(), "eth0".parse().unwrap()));
        log
    }

    fn sample(log: &mut FlowLog, flows: &[FlowReport], now: i64) {
        log.flows(now, |each| flows.iter().for_each(each));
    }

    fn seen(records: &[Record]) -> Vec<(Direction, u64, u64, FlowState)> {
        let seen = records.iter().filter_map(|record| match record {
            Record::Seen(key, tally) => {
                Some((key.direction, tally.packets, tally.bytes, key.state))
            }
            _ => None,
        });
        seen.collect()
    }

    #[test]
    fn what_a_flow_has_grown_by_is_logged_by_direction() {
        let mut log = log(1_000);
        sample(&mut log, &[flow(5)], 1_000);
        sample(&mut log, &[flow(7)], 1_030);
        sample(&mut log, &[flow(8)], 1_060);
        let records = log.finish(1_060);
        let state = FlowState::Established;
        assert_eq!(seen(&records), [(Direction::Ingress, 3, 300, state)]);
        assert_eq!(
            log.finish(1_120)
                .first()
                .map(ToString::to_string)
                .as_deref(),
            Some("2 - eth0 - - - - - - - 1060 1120 - NODATA - - - default - - - - -")
        );
    }

    #[test]
    fn a_flow_that_began_in_the_interval_is_logged_whole() {
        let mut log = log(1_000);
        sample(&mut log, &[], 1_000);
        let young = FlowReport {
            opened_s_ago: 10,
            ..flow(5)
        };
        sample(&mut log, &[young], 1_030);
        let new = FlowState::New;
        assert_eq!(
            seen(&log.finish(1_060)),
            [
                (Direction::Ingress, 5, 500, new),
                (Direction::Egress, 1, 60, new)
            ]
        );
    }

    #[test]
    fn another_flow_between_the_same_ends_begins_at_nothing() {
        let mut log = log(1_000);
        sample(&mut log, &[flow(5)], 1_000);
        let again = FlowReport {
            opened: 18,
            ..flow(2)
        };
        sample(&mut log, &[again], 1_030);
        assert_eq!(seen(&log.finish(1_060)).first().map(|seen| seen.1), Some(2));
    }

    /// The first packet of the flow above.
    fn first_packet(tcp_flag_bits: u8) -> PacketEvent {
        PacketEvent {
            time: jiff::Timestamp::from_second(1_020).unwrap(),
            kind: EventKind::NewFlow,
            verdict: Verdict::Pass,
            audit: false,
            interface: Some("eth0".parse().unwrap()),
            vpc: Some(VpcName::default()),
            groups: BTreeSet::new(),
            direction: Direction::Ingress,
            reason: Reason::Rule,
            sentence: "",
            protocol: Some("tcp".to_owned()),
            protocol_number: Some(TCP),
            ethertype: 0x0800,
            local: Some("10.0.0.1".parse().unwrap()),
            local_port: Some(22),
            peer: Some("192.0.2.9".parse().unwrap()),
            peer_port: Some(40_022),
            icmp: None,
            tcp_flags: Some("SYN".to_owned()),
            tcp_flag_bits,
            rule: None,
            rule_group: None,
            generation: 3,
            packets: 1,
            bytes: 74,
        }
    }

    fn flags(records: &[Record]) -> Vec<(Direction, u8)> {
        let seen = records.iter().filter_map(|record| match record {
            Record::Seen(key, tally) => Some((key.direction, tally.tcp_flags)),
            _ => None,
        });
        seen.collect()
    }

    #[test]
    fn flags_are_those_of_the_interval_by_direction() {
        use Direction::{Egress, Ingress};
        let mut log = log(1_000);
        sample(&mut log, &[], 1_000);
        log.event(&first_packet(SYN));
        let with = |packets, out, marks| FlowReport {
            opened_s_ago: 10,
            packets_out: out,
            marks,
            ..flow(packets)
        };
        let mut marks = TcpMarks::default();
        sample(&mut log, &[with(1, 0, marks)], 1_021);
        marks.answered = true;
        sample(&mut log, &[with(2, 1, marks)], 1_026);
        assert_eq!(
            flags(&log.finish(1_060)),
            [(Ingress, SYN), (Egress, SYN | ACK)]
        );
        marks.fin_out = true;
        sample(&mut log, &[with(3, 2, marks)], 1_066);
        assert_eq!(flags(&log.finish(1_120)), [(Ingress, 0), (Egress, FIN)]);
        marks.reset = true;
        sample(&mut log, &[with(4, 2, marks)], 1_130);
        assert_eq!(flags(&log.finish(1_180)), [(Ingress, RST)]);
        // What was before the log is not in its records.
        let mut late = self::log(2_000);
        sample(&mut late, &[with(4, 2, marks)], 2_000);
        sample(&mut late, &[with(5, 2, marks)], 2_030);
        assert_eq!(flags(&late.finish(2_060)), [(Ingress, 0)]);
    }

    #[test]
    fn a_connection_that_was_refused_at_once_is_logged() {
        let mut log = log(1_000);
        sample(&mut log, &[], 1_000);
        log.event(&first_packet(SYN));
        sample(&mut log, &[], 1_021);
        let records = log.finish(1_060);
        assert_eq!(
            seen(&records),
            [(Direction::Ingress, 1, 74, FlowState::New)]
        );
        assert_eq!(flags(&records), [(Direction::Ingress, SYN)]);
    }

    #[test]
    fn a_pause_is_said_to_be_one_even_if_nothing_was_dropped() {
        let mut log = log(1_000);
        log.unseen(Unseen {
            paused_s: Some(5),
            ..Unseen::default()
        });
        assert!(matches!(
            log.finish(1_060).as_slice(),
            [Record::SkipData(_)]
        ));
    }

    #[test]
    fn what_was_too_much_is_said_to_be_skipped() {
        let mut log = log(1_000);
        log.unseen(Unseen {
            drops: 1,
            ..Unseen::default()
        });
        let records = log.finish(1_060);
        assert!(
            matches!(records.as_slice(), [Record::SkipData(_)]),
            "{records:?}"
        );
        assert!(matches!(log.finish(1_120).as_slice(), [Record::NoData(_)]));
    }
}
