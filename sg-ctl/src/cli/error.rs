//! What a user can get wrong on a command line, and everything that can fail below it.

use std::fmt;
use std::io;
use std::net::IpAddr;

use sg_common::packet::Direction;

use crate::api::KeyError;
use crate::aws::{AnswerError, ImportError};
use crate::controller;
use crate::daemon;
use crate::dataplane;
use crate::diagnose;
use crate::explain;
use crate::interfaces;
use crate::limits::OutOfBounds;
use crate::policy::fan_out;
use crate::policy::findings::Findings;
use crate::policy::matching::MatchError;
use crate::policy::model::Permission;
use crate::policy::names::{GroupName, InterfaceName, NameError, RuleId, VpcName};
use crate::policy::prefix::PrefixError;
use crate::policy::rule_text::RuleError;
use crate::policy::services::UnknownService;

pub(super) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command ends with exit code 2.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Controller(Box<controller::Error>),
    #[error(transparent)]
    Daemon(#[from] daemon::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    Findings(#[from] Findings),
    #[error(transparent)]
    Dataplane(#[from] dataplane::Error),
    #[error(transparent)]
    Interfaces(#[from] interfaces::Error),
    #[error(transparent)]
    Match(#[from] MatchError),
    #[error(transparent)]
    Limit(#[from] OutOfBounds),
    #[error(transparent)]
    Rule(#[from] RuleError),
    #[error(transparent)]
    Service(#[from] UnknownService),
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("cannot read {file}: {source}")]
    Read { file: String, source: io::Error },
    #[error("cannot write {file}: {source}")]
    WriteFile { file: String, source: io::Error },
    #[error("{file} is not UTF-8 text from byte {byte} on; save it as UTF-8")]
    Encoding { file: String, byte: usize },
    #[error("cannot write the output: {0}")]
    Write(io::Error),
    #[error("there is no VPC \"{name}\"{}", Meant(.meant, "; `sg-ctl vpc list` shows those there are"))]
    NoVpc {
        name: VpcName,
        meant: Option<String>,
    },
    #[error("there is no {what} \"{name}\"{}", Meant(.meant, "; create it first"))]
    Unknown {
        what: &'static str,
        name: String,
        meant: Option<String>,
    },
    #[error("{what} \"{name}\" is in the VPCs {vpcs}; say which with --vpc")]
    Ambiguous {
        what: &'static str,
        name: String,
        vpcs: String,
    },
    #[error("interface \"{name}\" is not attached{}", Meant(.meant, "; `sg-ctl status` shows what is"))]
    NotAttached { name: String, meant: Option<String> },
    #[error("entry \"{name}\" has no device now; `sg-ctl status` shows which there are")]
    NoDevice { name: InterfaceName },
    #[error("\"{name}\" is several interfaces: {devices}; say which")]
    SeveralDevices {
        name: InterfaceName,
        devices: String,
    },
    #[error(
        "{} is a device of the entry \"{}\" of the policy; change the match of the entry, or detach it with \
         all its devices: `sg-ctl detach {}`",
        .name.device().unwrap_or_default(), .name.entry(), .name.entry()
    )]
    OneOfEntry { name: InterfaceName },
    #[error(
        "interface \"{name}\" is attached more than once: {places}; say which with --vpc or --netns"
    )]
    AttachedOften { name: InterfaceName, places: String },
    #[error(
        "VPC \"{vpc}\" has another interface \"{name}\", in {place}; change that one with --netns, or \
         put this one into another VPC with --vpc"
    )]
    OtherDevice {
        vpc: VpcName,
        name: InterfaceName,
        place: String,
    },
    #[error(
        "interface \"{interface}\" is not in group \"{group}\"; `sg-ctl status` shows its groups"
    )]
    NotInGroup {
        interface: InterfaceName,
        group: GroupName,
    },
    #[error("say what the rule allows: --service NAME, or --protocol with --ports, or with --type")]
    NoTraffic,
    #[error("say whom the rule speaks of with --{0}: a prefix, sg:GROUP or pl:LIST")]
    NoPeer(&'static str),
    #[error("an {direction} rule has no --{given}; its peers follow --{wanted}")]
    PeerOption {
        direction: &'static str,
        given: &'static str,
        wanted: &'static str,
    },
    #[error(
        "{ranges} port ranges and {peers} peers are {} rules, and one command may add {}; put the \
         peers into a prefix list with `sg-ctl prefix-list set`",
        .ranges.saturating_mul(*.peers), fan_out::MOST
    )]
    FanOut { ranges: usize, peers: usize },
    #[error("group \"{group}\" allows \"{permission}\" already ({id})")]
    RuleExists {
        group: GroupName,
        permission: Permission,
        id: RuleId,
    },
    #[error(
        "group \"{group}\" has no rule that allows \"{permission}\"; `sg-ctl rule list {group}` shows its rules"
    )]
    NoSuchRule {
        group: GroupName,
        permission: Permission,
    },
    #[error("name the rules to remove by their ids, or say what they allow as in `rule add`")]
    NothingToRemove,
    #[error("say --ingress or --egress")]
    NoDirection,
    #[error("say which flows to end, like --peer 192.0.2.7, or --all")]
    AllFlows,
    #[error("cannot catch the signals that end a command: {0}")]
    Signals(ctrlc::Error),
    #[error("top needs a terminal; `sg-ctl stats --watch` writes to a pipe or a file")]
    NoTerminal,
    #[error(
        "no interface is protected, so nothing happens; attach one with `sg-ctl attach IFACE`, or \
         wait for it with --follow"
    )]
    NothingProtected,
    #[error(transparent)]
    Explain(#[from] explain::Error),
    #[error(transparent)]
    Diagnose(#[from] diagnose::Error),
    #[error("cannot find the address of \"{host}\": {source}")]
    Unresolved { host: String, source: io::Error },
    #[error(
        "interface \"{name}\" is in the policy, but the machine has it no more; \
         `sg-ctl restore` protects it when it is back"
    )]
    Gone { name: InterfaceName },
    #[error("say the address of the other side: PEER, PEER:PORT or [PEER]:PORT")]
    NoPeerAddress,
    #[error(
        "interface \"{name}\" has no {family} address; say what the packet has: LOCAL or LOCAL:PORT"
    )]
    NoLocalAddress {
        name: InterfaceName,
        family: &'static str,
    },
    #[error("{local} and {peer} are not of one family, so no packet has both")]
    TwoFamilies { local: IpAddr, peer: IpAddr },
    #[error(
        "say the port that the packet is for: {}",
        match .0 {
            Direction::Ingress => "PEER PORT, like 198.51.100.7 22",
            Direction::Egress => "PEER PORT, like 198.51.100.7 443",
        }
    )]
    NoDestinationPort(Direction),
    #[error("{0} is not for {2}; write {1}")]
    OtherIcmp(&'static str, &'static str, &'static str),
    #[error("a packet has one protocol; say tcp, udp, icmp, icmpv6 or a number")]
    NoProtocol,
    #[error("service \"{0}\" is more than one port of one protocol; say tcp or udp with the port")]
    SeveralServices(&'static str),
    #[error("service \"{0}\" has more than one port; write the number of the port")]
    SeveralPorts(&'static str),
    #[error(
        "service \"{0}\" has no such port in this protocol; write the number of the port, or another protocol"
    )]
    ServiceWithoutPort(&'static str),
}

impl Error {
    /// What the kernel has refused, if it has.
    pub(super) fn dataplane(&self) -> Option<&dataplane::Error> {
        match self {
            Self::Dataplane(error) => Some(error),
            Self::Controller(error) => error.dataplane(),
            _ => None,
        }
    }
}

impl From<controller::Error> for Error {
    fn from(error: controller::Error) -> Self {
        match error {
            controller::Error::Findings(findings) => Self::Findings(findings),
            error => Self::Controller(Box::new(error)),
        }
    }
}

/// A name that was perhaps meant, or what to do otherwise.
struct Meant<'a>(&'a Option<String>, &'static str);

impl fmt::Display for Meant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "; did you mean \"{name}\"?"),
            None => f.write_str(self.1),
        }
    }
}
