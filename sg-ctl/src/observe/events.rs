//! Events in the model's words: which packet, at which interface, by which rule or for want of one.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use sg_common::addr::Addr;
use sg_common::event::{Event, EventFlags, EventKind};
use sg_common::ids::Generation;
use sg_common::packet::Direction;
use sg_common::parse::{Content, Part};
use sg_common::protocol::{ICMP, ICMPV6, TCP, UDP};
use sg_common::report::{Reason, Verdict};

use super::direction_name;
use super::protocol_name;
use super::stats::reason_name;
use crate::controller::{Error, View};
use crate::dataplane::EventStream;
use crate::dirs::DirOptions;
use crate::policy::names::{GroupName, InterfaceName, RuleId, VpcName};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PacketEvent {
    /// When the packet was judged.
    pub time: Timestamp,
    /// `drop` or `new-flow`.
    #[serde(rename = "event", serialize_with = "kind_name")]
    pub kind: EventKind,
    /// `pass` or `drop`: how the packet was judged.
    #[serde(serialize_with = "verdict_name")]
    pub verdict: Verdict,
    /// Whether it passed all the same, because the interface is only audited.
    pub audit: bool,
    /// The interface; none when it was detached meanwhile.
    pub interface: Option<InterfaceName>,
    /// Whose policy.
    pub vpc: Option<VpcName>,
    /// The groups the interface is in.
    pub groups: BTreeSet<GroupName>,
    /// Relative to the interface.
    #[serde(serialize_with = "direction_name")]
    pub direction: Direction,
    /// Why.
    #[serde(serialize_with = "reason_name")]
    pub reason: Reason,
    /// The same as a sentence.
    pub sentence: &'static str,
    /// The protocol as rules name it; none when it could not be read.
    pub protocol: Option<String>,
    /// The IP protocol number; none when it could not be read.
    pub protocol_number: Option<u8>,
    /// The EtherType.
    pub ethertype: u16,
    /// The protected side; none when it could not be read.
    pub local: Option<IpAddr>,
    /// Its port, where the packet has ports.
    pub local_port: Option<u16>,
    /// The other side; none when it could not be read.
    pub peer: Option<IpAddr>,
    /// Its port, where the packet has ports.
    pub peer_port: Option<u16>,
    /// ICMP type and code.
    pub icmp: Option<[u8; 2]>,
    /// TCP control bits, like `SYN,ACK`.
    pub tcp_flags: Option<String>,
    /// The same as a number.
    #[serde(skip)]
    pub tcp_flag_bits: u8,
    /// The rule that admits it, if one does and still exists.
    pub rule: Option<RuleId>,
    /// The group of that rule.
    pub rule_group: Option<GroupName>,
    /// The number of the policy that judged it.
    pub generation: u32,
    /// Packets of the wire.
    pub packets: u32,
    /// Bytes of their frame.
    pub bytes: u32,
}

fn kind_name<S: serde::Serializer>(kind: &EventKind, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(match kind {
        EventKind::Drop => "drop",
        EventKind::NewFlow => "new-flow",
    })
}

fn verdict_name<S: serde::Serializer>(verdict: &Verdict, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(match verdict {
        Verdict::Pass => "pass",
        Verdict::Drop => "drop",
    })
}

/// Packets that were events and were not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unseen {
    /// Dropped packets.
    pub drops: u64,
    /// First packets of flows; those of a pause are not among them, as nothing counts them.
    pub new_flows: u64,
    /// For how long nobody has read, where that was too long: in whole seconds, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_s: Option<u64>,
}

impl Unseen {
    /// Whether there is none.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Adds what was not told later.
    pub fn add(&mut self, more: Self) {
        self.drops += more.drops;
        self.new_flows += more.new_flows;
        let paused = [self.paused_s, more.paused_s].into_iter().flatten();
        self.paused_s = paused.reduce(|one, other| one + other);
    }
}

/// Which events are asked for; all that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// The interface.
    pub interface: Option<InterfaceName>,
    /// Relative to the interface.
    pub direction: Option<Direction>,
    /// Any of these; none is all.
    pub reasons: Vec<Reason>,
    /// The IP protocol.
    pub protocol: Option<u8>,
    /// Where the protected side is.
    pub local: Option<IpNet>,
    /// Where the other side is.
    pub peer: Option<IpNet>,
    /// The port of either side.
    pub port: Option<u16>,
}

impl EventFilter {
    /// Says whether the event is asked for.
    pub fn takes(&self, event: &PacketEvent) -> bool {
        fn is<T: PartialEq>(asked: &Option<T>, found: &Option<T>) -> bool {
            asked.is_none() || asked == found
        }
        let within = |asked: Option<IpNet>, found: Option<IpAddr>| {
            asked.is_none_or(|prefix| found.is_some_and(|address| prefix.contains(&address)))
        };
        let is_at = |asked: &InterfaceName| {
            let found = event.interface.as_ref();
            found.is_some_and(|found| found.is_meant_by(asked))
        };
        self.interface.as_ref().is_none_or(is_at)
            && self.direction.is_none_or(|asked| asked == event.direction)
            && (self.reasons.is_empty() || self.reasons.contains(&event.reason))
            && is(&self.protocol, &event.protocol_number)
            && within(self.local, event.local)
            && within(self.peer, event.peer)
            && (self.port.is_none()
                || self.port == event.local_port
                || self.port == event.peer_port)
    }
}

/// What numbers in events mean.
#[derive(Debug, Default)]
struct Names {
    generation: Generation,
    rules: HashMap<u32, (RuleId, Option<GroupName>)>,
    interfaces: HashMap<u32, NamedInterface>,
}

#[derive(Clone, Debug)]
struct NamedInterface {
    vpc: VpcName,
    name: InterfaceName,
    groups: BTreeSet<GroupName>,
}

impl Names {
    fn read(view: &View) -> Result<Self, Error> {
        let dataplane = view.dataplane()?;
        let Some((image, generation)) = dataplane.as_ref().and_then(|found| found.numbered())
        else {
            return Ok(Self::default());
        };
        let mut groups = HashMap::new();
        for vpc in view.policy.vpcs.values() {
            for (name, group) in &vpc.groups {
                groups.extend(group.rules.iter().map(|rule| (rule.id, name)));
            }
        }
        let rule = |(id, slot): (&RuleId, &sg_common::ids::RuleSlot)| {
            (slot.0, (*id, groups.get(id).map(|group| (*group).clone())))
        };
        let interface = |(slot, found): (&u32, &crate::compile::image::InstalledInterface)| {
            let vpc = view.policy.vpcs.get(&found.vpc);
            let interface = vpc.and_then(|vpc| vpc.interface(&found.name));
            let named = NamedInterface {
                vpc: found.vpc.clone(),
                name: found.name.clone(),
                groups: interface
                    .map(|interface| interface.groups.clone())
                    .unwrap_or_default(),
            };
            (*slot, named)
        };
        Ok(Self {
            generation,
            rules: image.ids.rules.iter().map(rule).collect(),
            interfaces: image.interfaces.iter().map(interface).collect(),
        })
    }

    fn packet_event(&self, event: &Event, time: Timestamp) -> PacketEvent {
        let direction = match Direction::Ingress.number() == u32::from(event.direction) {
            true => Direction::Ingress,
            false => Direction::Egress,
        };
        let kind = match EventKind::Drop.number() == u32::from(event.kind) {
            true => EventKind::Drop,
            false => EventKind::NewFlow,
        };
        let reason = Reason::from_number(u32::from(event.reason)).unwrap_or(Reason::NoPolicy);
        let is_addressed =
            event.source != Addr::UNSPECIFIED || event.destination != Addr::UNSPECIFIED;
        let is_ip = is_addressed && matches!(event.ethertype, 0x0800 | 0x86dd);
        let protocol = is_ip.then_some(event.protocol);
        let is_whole = event.content == Content::Ip as u8 && event.part != Part::Later as u8;
        let has_ports = matches!(protocol, Some(TCP | UDP))
            && (is_whole || event.source_port != 0 || event.destination_port != 0);
        let source = is_addressed.then(|| event.source.to_ip());
        let destination = is_addressed.then(|| event.destination.to_ip());
        let source_port = has_ports.then_some(event.source_port);
        let destination_port = has_ports.then_some(event.destination_port);
        let (local, local_port, peer, peer_port) = match direction {
            Direction::Ingress => (destination, destination_port, source, source_port),
            Direction::Egress => (source, source_port, destination, destination_port),
        };
        let is_icmp = is_whole && matches!(protocol, Some(ICMP | ICMPV6));
        let has_flags = protocol == Some(TCP) && event.part != Part::Later as u8;
        let rule = self.rules.get(&event.rule.0);
        let interface = self.interfaces.get(&event.interface);
        PacketEvent {
            time,
            kind,
            verdict: reason.verdict(),
            audit: event.flags.has(EventFlags::AUDITED),
            interface: interface.map(|interface| interface.name.clone()),
            vpc: interface.map(|interface| interface.vpc.clone()),
            groups: interface
                .map(|interface| interface.groups.clone())
                .unwrap_or_default(),
            direction,
            reason,
            sentence: reason.sentence(),
            protocol: protocol.map(protocol_name),
            protocol_number: protocol,
            ethertype: event.ethertype,
            local,
            local_port,
            peer,
            peer_port,
            icmp: is_icmp.then_some([event.icmp_type, event.icmp_code]),
            tcp_flags: has_flags.then(|| tcp_flags(event.tcp_flags)),
            tcp_flag_bits: event.tcp_flags,
            rule: rule.map(|(id, _)| *id),
            rule_group: rule.and_then(|(_, group)| group.clone()),
            generation: event.generation.0,
            packets: event.packets,
            bytes: event.bytes,
        }
    }
}

/// The names of the control bits that are set (RFC 9293 §3.1).
fn tcp_flags(bits: u8) -> String {
    const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    // As people say them: what the packet is for comes first.
    const ORDER: [usize; 8] = [1, 0, 2, 4, 3, 5, 6, 7];
    let set = ORDER.iter().filter(|bit| bits >> **bit & 1 == 1);
    let set: Vec<&str> = set.filter_map(|bit| NAMES.get(*bit).copied()).collect();
    match set.is_empty() {
        true => "none".to_owned(),
        false => set.join(","),
    }
}

/// How often the kernel's lease is renewed and the policy looked at.
const RENEWAL: Duration = Duration::from_secs(1);

/// The events of this machine, for as long as they are read, whatever is attached and detached.
pub struct EventSource {
    options: DirOptions,
    kinds: Vec<EventKind>,
    opened: Option<Opened>,
    looked: Instant,
}

struct Opened {
    stream: EventStream,
    names: Names,
    /// What the kernel has counted instead of telling it, as of the last look.
    uncounted: [u64; EventKind::COUNT],
    /// By interface, what was dropped before [`Self::accounted`].
    dropped: HashMap<(VpcName, InterfaceName), u64>,
    /// Packets whose drops were told, or counted as not told, since.
    accounted: u64,
}

impl EventSource {
    /// Begins to read events of these kinds.
    pub fn open(options: &DirOptions, kinds: &[EventKind]) -> Result<Self, Error> {
        let mut source = Self {
            options: options.clone(),
            kinds: kinds.to_vec(),
            opened: None,
            looked: Instant::now(),
        };
        source.reopen()?;
        Ok(source)
    }

    /// Whether anything is protected.
    pub fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    fn reopen(&mut self) -> Result<(), Error> {
        // The seat is given back before it is taken again.
        self.opened = None;
        let view = View::open(&self.options)?;
        let Some(dataplane) = view.dataplane()? else {
            return Ok(());
        };
        // Before the kernel begins to tell, so that nothing that is told was dropped before.
        let dropped = dropped(&view)?;
        self.opened = match dataplane.read_events(&self.kinds)? {
            Some(stream) => Some(Opened {
                stream,
                names: Names::read(&view)?,
                uncounted: [0; EventKind::COUNT],
                dropped,
                accounted: 0,
            }),
            None => None,
        };
        Ok(())
    }

    /// Calls `each` with what has come since the last time. Call it several times a second.
    pub fn poll(&mut self, each: &mut dyn FnMut(PacketEvent)) -> Result<Unseen, Error> {
        let mut unseen = Unseen::default();
        let is_due = self.looked.elapsed() >= RENEWAL;
        if let Some(opened) = &mut self.opened {
            unseen = opened.read(&self.options, each)?;
            if is_due && let Some(pause) = opened.stream.renew()? {
                unseen.add(opened.make_up(&self.options, pause, each)?);
            }
        }
        if is_due {
            self.looked = Instant::now();
            let is_current = self
                .opened
                .as_ref()
                .is_some_and(|opened| opened.stream.is_current());
            if !is_current {
                self.reopen()?;
            }
        }
        Ok(unseen)
    }
}

impl Opened {
    fn read(
        &mut self,
        options: &DirOptions,
        each: &mut dyn FnMut(PacketEvent),
    ) -> Result<Unseen, Error> {
        let started = started();
        let mut has_looked = false;
        while let Some(event) = self.stream.next_event() {
            // A rule that came with a newer policy has its name there.
            if self.names.generation.is_before(event.generation) && !has_looked {
                self.names = Names::read(&View::open(options)?)?;
                has_looked = true;
            }
            let time = after(started, event.time_ns);
            if EventKind::Drop.number() == u32::from(event.kind) {
                self.accounted += u64::from(event.packets);
            }
            each(self.names.packet_event(&event, time));
        }
        let uncounted = self.stream.unseen()?;
        let [drops, new_flows] = uncounted;
        let [drops_before, new_flows_before] = self.uncounted;
        self.uncounted = uncounted;
        let unseen = Unseen {
            drops: drops.saturating_sub(drops_before),
            new_flows: new_flows.saturating_sub(new_flows_before),
            paused_s: None,
        };
        self.accounted += unseen.drops;
        Ok(unseen)
    }

    /// Finds out what was dropped while nobody read: the counters go on whoever reads.
    fn make_up(
        &mut self,
        options: &DirOptions,
        pause: Duration,
        each: &mut dyn FnMut(PacketEvent),
    ) -> Result<Unseen, Error> {
        let mut unseen = self.read(options, each)?;
        let mut dropped = dropped(&View::open(options)?)?;
        // What is dropped between the two readings would count as lost, and be told besides.
        for _ in 0..ATTEMPTS {
            let before = self.accounted;
            unseen.add(self.read(options, each)?);
            if self.accounted == before {
                break;
            }
            dropped = self::dropped(&View::open(options)?)?;
        }
        let since = |(interface, packets): (&(VpcName, InterfaceName), &u64)| {
            let before = self.dropped.get(interface).copied().unwrap_or_default();
            packets.saturating_sub(before)
        };
        let all: u64 = dropped.iter().map(since).sum();
        unseen.add(Unseen {
            drops: all.saturating_sub(self.accounted),
            new_flows: 0,
            paused_s: Some(pause.as_secs().max(1)),
        });
        (self.dropped, self.accounted) = (dropped, 0);
        Ok(unseen)
    }
}

/// How often the counters are read until nothing is dropped meanwhile.
const ATTEMPTS: usize = 5;

/// How many packets each interface has dropped, or would have.
fn dropped(view: &View) -> Result<HashMap<(VpcName, InterfaceName), u64>, Error> {
    let Some(dataplane) = view.dataplane()? else {
        return Ok(HashMap::new());
    };
    let mut dropped = HashMap::new();
    for count in dataplane.reason_counts()? {
        if count.reason.verdict() == Verdict::Drop {
            *dropped.entry((count.vpc, count.interface)).or_default() += count.packets;
        }
    }
    Ok(dropped)
}

/// The time of something that happened so many nanoseconds after the machine has started.
pub fn time_of(since_start_ns: u64) -> Timestamp {
    after(started(), since_start_ns)
}

fn after(started: Timestamp, since_ns: u64) -> Timestamp {
    let since = i64::try_from(since_ns).unwrap_or(i64::MAX);
    started
        .checked_add(SignedDuration::from_nanos(since))
        .unwrap_or(started)
}

/// When the machine's uptime began, by the clock that people read.
fn started() -> Timestamp {
    let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    let uptime = uptime.ok().and_then(|uptime| uptime.try_into().ok());
    let now = Timestamp::now();
    now.checked_sub::<SignedDuration>(uptime.unwrap_or_default())
        .unwrap_or(now)
}
