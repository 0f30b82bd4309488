//! Why a connection from this machine does not come about: tried for real, with an eye on what is
//! counted meanwhile, and explained.

mod attempt;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use sg_common::packet::Direction;
use sg_common::report::Verdict;

use crate::dataplane::{self, Dataplane};
use crate::explain::{self, Explanation, Machine, Protected, Question, Remedy, TCP_SYN, explain};
use crate::interfaces::{self, Netns};
use crate::policy::model::{Policy, Side};
use crate::policy::names::{InterfaceName, VpcName};

use attempt::{Attempt, Outcome, source_towards};
pub use attempt::{Transport, resolve};

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The other side talks.
    Fine,
    /// A machine answered that nobody listens there.
    Refused,
    /// Groups on this machine drop it.
    Dropped,
    /// It went out, and nothing came back.
    NoAnswer,
    /// It cannot be sent there.
    Unreachable,
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
    pub fn diagnose(&self, address: SocketAddr) -> Result<Diagnosis, Error> {
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
                diagnosis.system = Some(error.to_string());
                return Ok(diagnosis);
            }
        };
        diagnosis.source = Some(attempt.source);
        let leaves_by = self.interface_of(attempt.source.ip(), address.ip())?;
        if let Some(interface) = leaves_by {
            diagnosis.interface = Some(interface.name.clone());
            diagnosis.explanation = self.explain(interface, attempt.source, address)?;
        }
        let before = self.drops()?;
        let (outcome, waited) = attempt.run(self.patience);
        diagnosis.counted = counted(&before, self.drops()?);
        diagnosis.waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        let dropped = diagnosis.explanation.as_ref().and_then(dropped_at);
        diagnosis.answer = match (outcome, dropped) {
            (Outcome::Answered, _) => Answer::Fine,
            (Outcome::Refused, _) => Answer::Refused,
            (Outcome::Silence | Outcome::Unreachable(_), Some(dropped)) => {
                diagnosis.dropped = Some(dropped);
                Answer::Dropped
            }
            (Outcome::Silence, None) => Answer::NoAnswer,
            (Outcome::Unreachable(error), None) => {
                diagnosis.system = Some(error.to_string());
                Answer::Unreachable
            }
        };
        Ok(diagnosis)
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
        let question = Question {
            direction: Direction::Egress,
            protocol: self.transport.number(),
            local: source.ip(),
            peer: destination.ip(),
            local_port: source.port(),
            peer_port: destination.port(),
            icmp: [0; 2],
            tcp_flags: TCP_SYN,
        };
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
            .filter(|count| count.reason.verdict() == Verdict::Drop);
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
            reason: sg_common::report::Reason::from_number(reason)?.name(),
            packets: Some(more).filter(|more| *more > 0)?,
        })
    });
    risen.collect()
}
