//! One flow log record: the line that AWS's default format (version 2) has, and what it lacks.
//!
//! The first fourteen fields are those of a VPC flow log in their order, so that whatever reads
//! those reads these; `-` is what does not apply. Ours follow: who decided, and why.

use std::fmt::{self, Display};
use std::net::IpAddr;

use sg_common::packet::Direction;
use sg_common::report::Reason;

use crate::policy::names::{GroupId, InterfaceName, RuleId, VpcName};

/// The names of the fields, as a flow log's files begin with them.
pub const HEADER: &str = "version account-id interface-id srcaddr dstaddr srcport dstport protocol \
                          packets bytes start end action log-status tcp-flags type flow-direction \
                          sg-vpc sg-verdict-reason sg-rule-id sg-group-id sg-generation \
                          sg-flow-state";

/// What one record speaks of. Records of one interval differ in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// Whose policy.
    pub vpc: VpcName,
    /// Where it was seen.
    pub interface: InterfaceName,
    /// Relative to the interface.
    pub direction: Direction,
    /// Sender; none when it could not be read.
    pub source: Option<IpAddr>,
    /// Receiver; none when it could not be read.
    pub destination: Option<IpAddr>,
    /// The sender's port; 0 where there are none.
    pub source_port: u16,
    /// The receiver's port; 0 where there are none.
    pub destination_port: u16,
    /// The IP protocol; none when it could not be read.
    pub protocol: Option<u8>,
    /// Whether the packets passed.
    pub passed: bool,
    /// Why.
    pub reason: Reason,
    /// The rule that admits them, if one does.
    pub rule: Option<RuleId>,
    /// The group of the rule.
    pub group: Option<GroupId>,
    /// The policy that judged them.
    pub generation: u32,
    /// What they are to flows.
    pub state: FlowState,
}

/// What packets are to flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlowState {
    /// A tracked flow that began within the interval.
    New,
    /// A tracked flow that began before.
    Established,
    /// Of no flow, because rules open to everyone allow them and every reply.
    Untracked,
    /// Of no flow, because they were dropped.
    None,
}

impl FlowState {
    fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::Untracked => "untracked",
            Self::None => "-",
        }
    }
}

/// How much was seen of it, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets of the wire.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// The first of them, in Unix seconds.
    pub start: i64,
    /// The last of them, in Unix seconds.
    pub end: i64,
    /// TCP control bits of all of them that were seen one by one.
    pub tcp_flags: u8,
}

impl Tally {
    /// Adds what was seen later or earlier.
    pub fn add(&mut self, more: Self) {
        if self.packets == 0 {
            *self = more;
            return;
        }
        self.packets += more.packets;
        self.bytes += more.bytes;
        self.start = self.start.min(more.start);
        self.end = self.end.max(more.end);
        self.tcp_flags |= more.tcp_flags;
    }
}

/// A line of a flow log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// What was seen.
    Seen(RecordKey, Tally),
    /// Nothing was seen at an interface.
    NoData(Silence),
    /// Something was seen at an interface, and too much of it to be logged.
    SkipData(Silence),
}

/// An interface and an interval without records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Whose policy.
    pub vpc: VpcName,
    /// The interface.
    pub interface: InterfaceName,
    /// Unix seconds.
    pub start: i64,
    /// Unix seconds.
    pub end: i64,
}

/// What there is, or `-`.
struct OrDash<T>(Option<T>);

impl<T: Display> Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// The name of a VPC may have spaces, and fields may not.
fn one_word(vpc: &VpcName) -> String {
    vpc.to_string().replace(' ', "_")
}

impl Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seen(key, tally) => seen(f, key, tally),
            Self::NoData(silence) => silent(f, silence, "NODATA"),
            Self::SkipData(silence) => silent(f, silence, "SKIPDATA"),
        }
    }
}

fn seen(f: &mut fmt::Formatter<'_>, key: &RecordKey, tally: &Tally) -> fmt::Result {
    let ports = key.source.and(key.destination);
    write!(
        f,
        "2 - {} {} {} {} {} {} {} {} {} {} {} OK",
        key.interface,
        OrDash(key.source),
        OrDash(key.destination),
        OrDash(ports.map(|_| key.source_port)),
        OrDash(ports.map(|_| key.destination_port)),
        OrDash(key.protocol),
        tally.packets,
        tally.bytes,
        tally.start,
        tally.end,
        if key.passed { "ACCEPT" } else { "REJECT" },
    )?;
    let family = key.source.map(|source| match source {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    });
    write!(
        f,
        " {} {} {} {} {} {} {} {} {}",
        tally.tcp_flags,
        OrDash(family),
        key.direction.name(),
        one_word(&key.vpc),
        key.reason.name(),
        OrDash(key.rule),
        OrDash(key.group),
        key.generation,
        key.state.name(),
    )
}

fn silent(f: &mut fmt::Formatter<'_>, silence: &Silence, status: &str) -> fmt::Result {
    let Silence {
        vpc,
        interface,
        start,
        end,
    } = silence;
    let vpc = one_word(vpc);
    write!(
        f,
        "2 - {interface} - - - - - - - {start} {end} - {status} - - - {vpc} - - - - -"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> RecordKey {
        RecordKey {
            vpc: "my vpc".parse().unwrap(),
            interface: "eth0".parse().unwrap(),
            direction: Direction::Ingress,
            source: "198.51.100.7".parse().ok(),
            destination: "10.0.0.5".parse().ok(),
            source_port: 40_022,
            destination_port: 3_389,
            protocol: Some(6),
            passed: false,
            reason: Reason::NoRule,
            rule: None,
            group: None,
            generation: 7,
            state: FlowState::None,
        }
    }

    const TALLY: Tally = Tally {
        packets: 4,
        bytes: 240,
        start: 1_700_000_000,
        end: 1_700_000_060,
        tcp_flags: 2,
    };

    #[test]
    fn a_record_begins_as_aws_writes_it() {
        assert_eq!(
            Record::Seen(key(), TALLY).to_string(),
            "2 - eth0 198.51.100.7 10.0.0.5 40022 3389 6 4 240 1700000000 1700000060 REJECT OK \
             2 IPv4 ingress my_vpc no-rule - - 7 -"
        );
        let malformed = RecordKey {
            source: None,
            destination: None,
            protocol: None,
            ..key()
        };
        assert!(
            Record::Seen(malformed, TALLY).to_string().starts_with(
                "2 - eth0 - - - - - 4 240 1700000000 1700000060 REJECT OK 2 - ingress"
            )
        );
    }

    #[test]
    fn an_interval_without_records_has_one_that_says_so() {
        let silence = Silence {
            vpc: VpcName::default(),
            interface: "eth0".parse().unwrap(),
            start: 1,
            end: 61,
        };
        assert_eq!(
            Record::NoData(silence.clone()).to_string(),
            "2 - eth0 - - - - - - - 1 61 - NODATA - - - default - - - - -"
        );
        assert!(
            Record::SkipData(silence)
                .to_string()
                .contains("- SKIPDATA -")
        );
    }

    #[test]
    fn every_record_has_as_many_fields_as_the_header() {
        let silence = Silence {
            vpc: "my vpc".parse().unwrap(),
            interface: "eth0".parse().unwrap(),
            start: 1,
            end: 61,
        };
        for record in [Record::Seen(key(), TALLY), Record::NoData(silence)] {
            let fields = record.to_string().split(' ').count();
            assert_eq!(fields, HEADER.split(' ').count(), "{record}");
        }
    }
}
