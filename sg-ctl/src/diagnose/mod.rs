//! Why a connection from this machine does not come about: tried for real, with an eye on what is
//! counted meanwhile, and explained.

mod attempt;
mod echo;
mod tap;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use sg_common::packet::Direction;
use sg_common::report::{Reason, Verdict};

use crate::dataplane::{self, Dataplane};
use crate::explain::{self, Explanation, Machine, Protected, Question, Remedy, TCP_SYN, explain};
use crate::interfaces::{self, Hop, Kind, Netns, first_hop};
use crate::observe::{EventSource, Full};
use crate::policy::model::{Policy, Side};
use crate::policy::names::{InterfaceName, VpcName};

use attempt::{Attempt, Outcome, source_towards};
pub use attempt::{Transport, resolve};
use echo::large_ones_are_lost;
use tap::{Seen, Tap};

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The other side talks.
    Fine,
    /// A machine answered that no process listens there.
    Refused,
    /// Groups on this machine drop it.
    Dropped,
    /// It went out, and nothing came back.
    NoAnswer,
    /// It cannot be sent there: there is no route, or a router said so.
    Unreachable,
    /// Something else on this machine kept it from leaving.
    NotSent,
    /// The next machine on the way does not answer on the link.
    NoNeighbour,
    /// An answer came, and something else on this machine dropped it.
    AnswerLost,
    /// The other side talks, and large packets do not get through.
    TooBig,
}

/// How one address was tried, and what came of it.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// What it is.
    pub answer: Answer,
    /// The other side.
    pub address: SocketAddr,
    /// Where this machine spoke from; none where it cannot.
    pub source: Option<SocketAddr>,
    /// The protected interface that it left by.
    pub interface: Option<InterfaceName>,
    /// What the system said, where it said something.
    pub system: Option<String>,
    /// How long it took to know.
    pub waited_ms: u64,
    /// Where it is dropped, and why.
    pub dropped: Option<DroppedAt>,
    /// What was dropped on this machine meanwhile, by this attempt or by anything else.
    pub counted: Vec<CountedDrop>,
    /// The decision about the first packet, where an interface makes one.
    pub explanation: Option<Explanation>,
    /// What has no room for another connection.
    pub full: Vec<Full>,
    /// Packets of this attempt that left this machine, where that can be seen.
    pub sent: Option<u64>,
    /// Packets that came back for it.
    pub received: Option<u64>,
    /// The machine that its packets are given to first.
    pub next_hop: Option<IpAddr>,
    /// Packets that the kernel dropped meanwhile, because answers would leave by another device
    /// (rp_filter).
    pub reverse_path_drops: u64,
    /// The largest packet that the device sends.
    pub mtu: Option<u32>,
}

/// The end that drops.
#[derive(Clone, Debug, Serialize)]
pub struct DroppedAt {
    /// The interface.
    pub interface: InterfaceName,
    /// Its network namespace, where it is not the machine's.
    pub netns: Option<String>,
    /// Seen from there.
    pub direction: &'static str,
    /// Why.
    pub reason: &'static str,
    /// The same as a sentence.
    pub sentence: &'static str,
    /// The rule that is missing.
    pub remedy: Option<Remedy>,
}

/// Packets that were dropped for one reason while somebody looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CountedDrop {
    /// Whose policy.
    pub vpc: VpcName,
    /// The interface.
    pub interface: InterfaceName,
    /// Seen from there.
    pub direction: &'static str,
    /// Why.
    pub reason: &'static str,
    /// How many.
    pub packets: u64,
}

/// Why nothing could be tried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The decision cannot be explained.
    #[error(transparent)]
    Explain(#[from] explain::Error),
    /// The counters cannot be read.
    #[error(transparent)]
    Dataplane(#[from] dataplane::Error),
    /// The network namespace cannot be told.
    #[error(transparent)]
    Interfaces(#[from] interfaces::Error),
}

/// What one attempt is made with.
pub struct Circumstances<'a> {
    /// The policy as it is stored.
    pub policy: &'a Policy,
    /// Who has which address.
    pub machine: &'a Machine,
    /// What the kernel holds.
    pub dataplane: Option<&'a Dataplane>,
    /// The interface to leave by, if it matters.
    pub interface: Option<&'a Protected>,
    /// TCP or UDP.
    pub transport: Transport,
    /// How long to wait for an answer.
    pub patience: Duration,
}

type Drops = BTreeMap<(VpcName, InterfaceName, u32, u32), u64>;

impl Circumstances<'_> {
    /// Tries one address.
    pub fn diagnose(
        &self,
        address: SocketAddr,
        events: Option<&mut EventSource>,
    ) -> Result<Diagnosis, Error> {
        let mut diagnosis = Diagnosis {
            answer: Answer::Unreachable,
            address,
            source: None,
            interface: None,
            system: None,
            waited_ms: 0,
            dropped: None,
            counted: Vec::new(),
            explanation: None,
            full: Vec::new(),
            sent: None,
            received: None,
            next_hop: None,
            reverse_path_drops: 0,
            mtu: None,
        };
        let source = match self.interface {
            Some(interface) => interface.address_towards(address.ip()),
            None => None,
        };
        let prepared = source
            .map_or_else(|| source_towards(address), Ok)
            .and_then(|source| {
                let device = self.interface.map(|interface| interface.name.as_str());
                Attempt::prepare(self.transport, source, address, device)
            });
        let attempt = match prepared {
            Ok(attempt) => attempt,
            Err(error) => {
                diagnosis.system = Some(route_refusal(&error));
                return Ok(diagnosis);
            }
        };
        diagnosis.source = Some(attempt.source);
        let leaves_by = self.interface_of(attempt.source.ip(), address.ip())?;
        if let Some(interface) = leaves_by {
            diagnosis.interface = Some(interface.name.clone());
            diagnosis.explanation = self.explain(interface, attempt.source, address)?;
        }
        let before = (self.drops()?, reverse_path_drops());
        let tap = Tap::open(address.ip()).ok();
        let (outcome, waited) = attempt.run(self.patience);
        diagnosis.counted = counted(&before.0, self.drops()?);
        diagnosis.reverse_path_drops = reverse_path_drops().saturating_sub(before.1);
        diagnosis.waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        let seen = tap.map(|tap| tap.seen(self.transport.number(), attempt.source, address));
        (diagnosis.sent, diagnosis.received) = seen.map(|seen| (seen.sent, seen.received)).unzip();
        let hop = first_hop(&Netns::current()?, address.ip(), None)?;
        diagnosis.next_hop = hop.map(|hop| hop.address);
        let event = self.dropped_event(attempt.source, address, events);
        let dropped = diagnosis
            .explanation
            .as_ref()
            .and_then(dropped_at)
            .or(event.clone());
        diagnosis.answer = match outcome {
            // The last packet of a handshake may be dropped behind this side's back.
            Outcome::Answered if event.is_some() => {
                diagnosis.dropped = event;
                Answer::Dropped
            }
            Outcome::Answered => self.of_large_packets(&mut diagnosis, hop, waited)?,
            Outcome::Refused if seen.is_some_and(|seen| seen.sent == 0) => Answer::NotSent,
            Outcome::Refused => Answer::Refused,
            Outcome::Silence | Outcome::Unreachable(_) if dropped.is_some() => {
                diagnosis.dropped = dropped;
                Answer::Dropped
            }
            Outcome::Silence | Outcome::Unreachable(_) => {
                if let Outcome::Unreachable(error) = &outcome {
                    diagnosis.system = Some(route_refusal(error));
                }
                let is_unresolved = hop.is_some_and(|hop| hop.is_unresolved);
                match (seen, &outcome) {
                    (Some(Seen { sent: 0, .. }), _) if is_unresolved => Answer::NoNeighbour,
                    (Some(Seen { sent: 0, .. }), _) => Answer::NotSent,
                    (Some(Seen { received: 1.., .. }), _) => Answer::AnswerLost,
                    (_, Outcome::Unreachable(_)) => Answer::Unreachable,
                    _ => Answer::NoAnswer,
                }
            }
        };
        let is_full = |reason| {
            [Reason::QuotaFull, Reason::TableFull]
                .map(Reason::name)
                .contains(&reason)
        };
        if diagnosis
            .dropped
            .as_ref()
            .is_some_and(|dropped| is_full(dropped.reason))
        {
            let at = diagnosis.dropped.as_ref().map(|dropped| &dropped.interface);
            diagnosis.full = Full::read(self.dataplane)?;
            diagnosis
                .full
                .retain(|full| full.interface.is_none() || full.interface.as_ref() == at);
        }
        Ok(diagnosis)
    }

    /// A connection is there; whether it can carry full packets too.
    fn of_large_packets(
        &self,
        diagnosis: &mut Diagnosis,
        hop: Option<Hop>,
        waited: Duration,
    ) -> Result<Answer, Error> {
        let links = interfaces::links(&Netns::current()?)?;
        let link = hop.and_then(|hop| links.into_iter().find(|link| link.ifindex == hop.ifindex));
        let Some(link) = link.filter(|link| link.kind != Kind::Loopback) else {
            return Ok(Answer::Fine);
        };
        diagnosis.mtu = Some(link.mtu);
        let patience = (waited * 4).clamp(
            Duration::from_millis(200),
            self.patience.max(Duration::from_millis(200)),
        );
        // Where nothing answers, or no packet can be made, nothing is known.
        let lost = large_ones_are_lost(diagnosis.address.ip(), link.mtu as usize, patience);
        Ok(match lost.unwrap_or(false) {
            true => Answer::TooBig,
            false => Answer::Fine,
        })
    }

    /// The first packet of an attempt that an interface of this machine has told to be dropped.
    fn dropped_event(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
        events: Option<&mut EventSource>,
    ) -> Option<DroppedAt> {
        let end =
            |address: Option<IpAddr>, port: Option<u16>| Some(SocketAddr::new(address?, port?));
        let mut found = None;
        let mut opening = None;
        let polled = events?.poll(&mut |event| {
            let ends = [
                end(event.local, event.local_port),
                end(event.peer, event.peer_port),
            ];
            let is_it = [source, destination].iter().all(|wanted| {
                ends.iter()
                    .flatten()
                    .any(|end| (end.ip(), end.port()) == (wanted.ip(), wanted.port()))
            });
            if let (None, true, false, Some(interface)) =
                (&found, is_it, event.audit, &event.interface)
            {
                let known = event
                    .vpc
                    .as_ref()
                    .and_then(|vpc| self.machine.interface(vpc, interface));
                let (local, peer, opener) = match event.direction {
                    Direction::Ingress => (destination, source, ends[1]),
                    Direction::Egress => (source, destination, ends[0]),
                };
                // An answer that is dropped tells nothing of a rule that would allow it.
                opening = known
                    .filter(|_| opener == Some(source))
                    .map(|known| (known, self.question(event.direction, local, peer)));
                found = Some(DroppedAt {
                    interface: interface.clone(),
                    netns: known.and_then(|known| known.netns.clone()),
                    direction: event.direction.name(),
                    reason: event.reason.name(),
                    sentence: event.sentence,
                    remedy: None,
                });
            }
        });
        polled.ok()?;
        let mut found: DroppedAt = found?;
        if let Some((known, question)) = opening {
            let told = explain(self.policy, self.machine, self.dataplane, known, &question);
            let ends = told.map(|told| told.ends).unwrap_or_default();
            let end = ends.into_iter().find(|end| end.is_of(known));
            found.remedy = end.and_then(|end| end.remedy);
        }
        Some(found)
    }

    /// Whether a packet passes that opens this connection.
    fn question(&self, direction: Direction, local: SocketAddr, peer: SocketAddr) -> Question {
        Question {
            direction,
            protocol: self.transport.number(),
            local: local.ip(),
            peer: peer.ip(),
            local_port: local.port(),
            peer_port: peer.port(),
            icmp: [0; 2],
            tcp_flags: TCP_SYN,
        }
    }

    /// The protected interface by which packets from this address leave the namespace of this
    /// command; none where they stay on the machine.
    fn interface_of(
        &self,
        source: IpAddr,
        destination: IpAddr,
    ) -> Result<Option<&Protected>, Error> {
        if self.interface.is_some() {
            return Ok(self.interface);
        }
        let here = Netns::current()?.id();
        let mut own = self
            .machine
            .interfaces
            .iter()
            .filter(|interface| interface.side == Side::Host && interface.stack == here);
        if own.clone().any(|interface| interface.has(destination)) {
            return Ok(None);
        }
        Ok(own.find(|interface| interface.has(source)))
    }

    fn explain(
        &self,
        interface: &Protected,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Result<Option<Explanation>, Error> {
        let question = self.question(Direction::Egress, source, destination);
        let told = explain(
            self.policy,
            self.machine,
            self.dataplane,
            interface,
            &question,
        );
        match told {
            Ok(told) => Ok(Some(told)),
            Err(explain::Error::NotProtected { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn drops(&self) -> Result<Drops, Error> {
        let counts = self.dataplane.map(Dataplane::reason_counts).transpose()?;
        let drops = counts
            .into_iter()
            .flatten()
            .filter(|count| count.reason.verdict() == Verdict::Drop && !count.audited);
        let keyed = drops.map(|count| {
            let (direction, reason) = (count.direction.number(), count.reason.number());
            (
                (count.vpc, count.interface, direction, reason),
                count.packets,
            )
        });
        Ok(keyed.collect())
    }
}

/// Why a packet cannot be routed, as the kernel says it by a number.
fn route_refusal(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENETUNREACH) => "this machine has no route to it (`ip route`)".to_owned(),
        Some(libc::EHOSTUNREACH) => "its network is reported as unreachable".to_owned(),
        Some(libc::EINVAL) => {
            "a blackhole route discards what is sent there (`ip route`)".to_owned()
        }
        Some(libc::EACCES) => "a route or a rule prohibits it (`ip route`, `ip rule`)".to_owned(),
        Some(libc::EPERM) => "a filter of this machine refuses it".to_owned(),
        Some(libc::EADDRNOTAVAIL) => {
            "this machine has no address of this family to send from".to_owned()
        }
        _ => error.to_string(),
    }
}

/// How many packets were dropped since the machine started because of rp_filter.
fn reverse_path_drops() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap_or_default();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return 0;
    };
    let mut columns = names.split(' ').zip(values.split(' '));
    let found = columns.find(|(name, _)| *name == "IPReversePathFilter");
    found
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or_default()
}

/// The first end that drops the packet.
fn dropped_at(told: &Explanation) -> Option<DroppedAt> {
    let mut ends = told.ends.iter();
    let end = ends.find(|end| end.verdict == "drop" && !end.audit)?;
    Some(DroppedAt {
        interface: end.interface.clone(),
        netns: end.netns.clone(),
        direction: end.direction,
        reason: end.reason,
        sentence: end.sentence,
        remedy: end.remedy.clone(),
    })
}

fn counted(before: &Drops, after: Drops) -> Vec<CountedDrop> {
    let risen = after.into_iter().filter_map(|(key, packets)| {
        let more = packets - before.get(&key).copied().unwrap_or_default().min(packets);
        let (vpc, interface, direction, reason) = key;
        let mut directions = Direction::ALL.into_iter();
        Some(CountedDrop {
            vpc,
            interface,
            direction: directions.find(|known| known.number() == direction)?.name(),
            reason: Reason::from_number(reason)?.name(),
            packets: Some(more).filter(|more| *more > 0)?,
        })
    });
    risen.collect()
}
