//! Asking what becomes of a packet.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use sg_common::packet::Direction;
use sg_common::parse::{ICMP, ICMPV6, TCP, UDP};

use crate::controller::View;
use crate::dirs::DirOptions;
use crate::explain::{Explanation, Machine, Protected, Question, TCP_FLAGS, explain};
use crate::observe::protocol_number;
use crate::policy::model::{IcmpMatch, Traffic};
use crate::policy::names::{InterfaceName, VpcName};
use crate::policy::rule_text::{Protocol, RuleError, parse_icmp};
use crate::policy::services::{Service, service};
use crate::show::{self, Style};

use super::error::{Error, Result};
use super::output::{print, print_json};
use super::{Answer, choose};

/// The port of whoever begins, where none is said: any of those that are given out on the way.
const EPHEMERAL_PORT: u16 = 50_000;

/// The packet is judged as the kernel would now; no flow opens, nothing is counted, nothing is
/// sent. Where the other side is a protected interface of this machine too, both ends are judged,
/// and the packet passes when both let it.
///
/// Exit code: 0 it passes, 1 it is dropped.
///
/// Examples:
///
///   sg-ctl explain eth0 ingress tcp 198.51.100.7:40000 :22
///
///   sg-ctl explain eth0 ingress https 2001:db8::7
///
///   sg-ctl explain eth0 egress udp [2001:db8::1]:53
///
///   sg-ctl explain eth0 ingress icmp:8 198.51.100.7
#[expect(
    rustdoc::broken_intra_doc_links,
    reason = "an address in brackets is no link, and help shows a backslash"
)]
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Explain {
    /// The interface
    #[arg(value_name = "IFACE")]
    interface: InterfaceName,
    /// Which way the packet goes, seen from what is protected
    direction: DirectionWord,
    /// tcp, udp, a number, icmp:TYPE/CODE, or a service like ssh
    #[arg(value_name = "PROTO")]
    protocol: AskedProtocol,
    /// The other side
    #[arg(value_name = "PEER[:PORT]")]
    peer: Endpoint,
    /// What is protected; `:22` leaves out the address [default: the interface's own]
    #[arg(value_name = "LOCAL[:PORT]")]
    local: Option<Endpoint>,
    /// ICMP type [default: echo request]
    #[arg(long = "type", value_name = "TYPE")]
    icmp_type: Option<u8>,
    /// ICMP code
    #[arg(long, requires = "icmp_type")]
    code: Option<u8>,
    /// TCP flags; the default is the first packet of a connection
    #[arg(long, value_name = "FLAGS", value_delimiter = ',', default_value = "syn", value_parser = parse_flag)]
    flags: Vec<u8>,
    /// The VPC of the interface
    #[arg(long)]
    vpc: Option<VpcName>,
    /// The network namespace of the interface, by name or path
    #[arg(long, value_name = "NAME|PATH")]
    netns: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DirectionWord {
    /// Towards it
    Ingress,
    /// Away from it
    Egress,
}

/// A protocol, with what a service or an ICMP type says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AskedProtocol {
    Plain(Protocol),
    Icmp(Protocol, IcmpMatch),
    Service(&'static Service),
}

impl FromStr for AskedProtocol {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if let Some((protocol, message)) = text.split_once(':') {
            let (kind, code) = match message.split_once('/') {
                Some((kind, code)) => (kind, Some(code)),
                None => (message, None),
            };
            let message = parse_icmp(Some(kind), code)?;
            return match protocol.parse()? {
                icmp @ (Protocol::Icmp | Protocol::Icmpv6) => Ok(Self::Icmp(icmp, message)),
                _ => Err(RuleError::IcmpPartsElsewhere),
            };
        }
        match (text.parse(), service(text)) {
            (Ok(protocol), _) => Ok(Self::Plain(protocol)),
            (Err(_), Ok(service)) => Ok(Self::Service(service)),
            (Err(error), Err(_)) => Err(error),
        }
    }
}

/// An address, a port, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Endpoint {
    address: Option<IpAddr>,
    port: Option<u16>,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(Self {
                address: Some(socket.ip().to_canonical()),
                port: Some(socket.port()),
            });
        }
        if let Some(port) = text.strip_prefix(':')
            && let Ok(port) = port.parse()
        {
            return Ok(Self {
                address: None,
                port: Some(port),
            });
        }
        let address = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        match address.unwrap_or(text).parse::<IpAddr>() {
            Ok(address) => Ok(Self {
                address: Some(address.to_canonical()),
                port: None,
            }),
            Err(_) => Err(format!(
                "{text:?} is no address; write 192.0.2.1, 192.0.2.1:443, [2001:db8::1]:443, or :443"
            )),
        }
    }
}

fn parse_flag(text: &str) -> Result<u8, String> {
    let found = TCP_FLAGS
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, bit)| bit).ok_or_else(|| {
        let names = TCP_FLAGS.map(|(name, _)| name).join(", ");
        format!("{text:?} is no TCP flag; they are {names}")
    })
}

impl Explain {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let view = View::open(dirs)?;
        let (vpc, _) = choose::interface(
            &view.policy,
            self.vpc.as_ref(),
            self.netns.as_deref(),
            &self.interface,
        )?;
        let machine = Machine::of(&view.policy, &view.devices()?);
        let interface = machine.interface(vpc, &self.interface);
        let interface = interface.ok_or_else(|| Error::Gone {
            name: self.interface.clone(),
        })?;
        let question = self.question(interface)?;
        let dataplane = view.dataplane()?;
        let told = explain(
            &view.policy,
            &machine,
            dataplane.as_ref(),
            interface,
            &question,
        )?;
        match self.json {
            true => print_json(&told)?,
            false => print(&show::explanation(&told, Style::of_stdout()))?,
        }
        Ok(answer(&told))
    }

    fn question(&self, interface: &Protected) -> Result<Question> {
        let peer = self.peer.address.ok_or(Error::NoPeerAddress)?;
        let (protocol, icmp, service_port) = self.protocol(peer)?;
        let asked = self.local.and_then(|local| local.address);
        let local = asked.or_else(|| interface.address_towards(peer));
        let local = local.ok_or_else(|| Error::NoLocalAddress {
            name: self.interface.clone(),
            family: family(peer),
        })?;
        if local.is_ipv4() != peer.is_ipv4() {
            return Err(Error::TwoFamilies { local, peer });
        }
        let direction = match self.direction {
            DirectionWord::Ingress => Direction::Ingress,
            DirectionWord::Egress => Direction::Egress,
        };
        let local_port = self.local.and_then(|local| local.port);
        let (asks, answers) = match direction {
            Direction::Ingress => (self.peer.port, local_port),
            Direction::Egress => (local_port, self.peer.port),
        };
        let has_ports = matches!(protocol, TCP | UDP);
        let answers = match answers.or(service_port) {
            Some(port) => port,
            None if has_ports => return Err(Error::NoDestinationPort(direction)),
            None => 0,
        };
        let asks = match has_ports {
            true => asks.unwrap_or(EPHEMERAL_PORT),
            false => 0,
        };
        let (local_port, peer_port) = match direction {
            Direction::Ingress => (answers, asks),
            Direction::Egress => (asks, answers),
        };
        Ok(Question {
            direction,
            protocol,
            local,
            peer,
            local_port,
            peer_port,
            icmp,
            tcp_flags: self.flags.iter().fold(0, |all, flag| all | flag),
        })
    }

    /// The protocol's number, the ICMP type and code, and the port of a service.
    fn protocol(&self, peer: IpAddr) -> Result<(u8, [u8; 2], Option<u16>)> {
        let echo = match peer {
            IpAddr::V4(_) => 8,
            IpAddr::V6(_) => 128,
        };
        let message = |wanted| match wanted {
            IcmpMatch::Any => [self.icmp_type.unwrap_or(echo), self.code.unwrap_or(0)],
            IcmpMatch::Type(kind) => [kind, self.code.unwrap_or(0)],
            IcmpMatch::TypeCode(kind, code) => [kind, code],
        };
        let (protocol, wanted, port) = match self.protocol {
            AskedProtocol::Plain(protocol) => (protocol, IcmpMatch::Any, None),
            AskedProtocol::Icmp(protocol, wanted) => (protocol, wanted, None),
            AskedProtocol::Service(service) => of_service(service, peer)?,
        };
        let number = protocol_number(protocol).ok_or(Error::NoProtocol)?;
        match (number, peer) {
            (ICMP, IpAddr::V6(_)) => Err(Error::OtherIcmp("icmp", "icmpv6", "IPv6")),
            (ICMPV6, IpAddr::V4(_)) => Err(Error::OtherIcmp("icmpv6", "icmp", "IPv4")),
            (ICMP | ICMPV6, _) => Ok((number, message(wanted), None)),
            _ => Ok((number, [0; 2], port)),
        }
    }
}

/// The one protocol and port of a service, for the peer's family.
fn of_service(
    service: &'static Service,
    peer: IpAddr,
) -> Result<(Protocol, IcmpMatch, Option<u16>)> {
    let mut fitting = service
        .traffic
        .iter()
        .filter_map(|traffic| match (traffic, peer) {
            (Traffic::Tcp(ports), _) if ports.first() == ports.last() => {
                Some((Protocol::Tcp, IcmpMatch::Any, Some(ports.first())))
            }
            (Traffic::Udp(ports), _) if ports.first() == ports.last() => {
                Some((Protocol::Udp, IcmpMatch::Any, Some(ports.first())))
            }
            (Traffic::Icmp(wanted), IpAddr::V4(_)) => Some((Protocol::Icmp, *wanted, None)),
            (Traffic::Icmpv6(wanted), IpAddr::V6(_)) => Some((Protocol::Icmpv6, *wanted, None)),
            _ => None,
        });
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(Error::SeveralServices(service.name)),
    }
}

fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

fn answer(told: &Explanation) -> Answer {
    match told.verdict {
        "pass" => Answer::Yes,
        _ => Answer::No,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use ipnet::IpNet;

    use super::super::{Cli, Command};
    use super::*;
    use crate::interfaces::Netns;
    use crate::policy::model::Side;

    fn question(words: &str) -> Result<Question, String> {
        let words = ["sg-ctl", "explain", "eth0"]
            .into_iter()
            .chain(words.split_whitespace());
        let interface = Protected {
            vpc: VpcName::default(),
            name: "eth0".parse().unwrap(),
            netns: None,
            side: Side::Host,
            groups: Default::default(),
            addresses: ["10.0.0.10/24", "fe80::1/64", "2001:db8::10/64"]
                .map(|address| address.parse::<IpNet>().unwrap())
                .to_vec(),
            stack: Netns::current().unwrap().id(),
        };
        match Cli::try_parse_from(words)
            .map_err(|error| error.to_string())?
            .command
        {
            Command::Explain(command) => command
                .question(&interface)
                .map_err(|error| error.to_string()),
            other => Err(format!("{other:?}")),
        }
    }

    #[track_caller]
    fn check(words: &str, local: &str, peer: &str, low: u32) {
        let question = question(words).unwrap_or_else(|error| panic!("{words}: {error}"));
        let end = |address, port| SocketAddr::new(address, port).to_string();
        assert_eq!(end(question.local, question.local_port), local, "{words}");
        assert_eq!(end(question.peer, question.peer_port), peer, "{words}");
        assert_eq!(question.service().0, low, "{words}");
    }

    #[test]
    fn a_packet_is_said_in_few_words() {
        check(
            "ingress tcp 198.51.100.7:40000 :22",
            "10.0.0.10:22",
            "198.51.100.7:40000",
            0x06_0016,
        );
        check(
            "egress udp [2001:db8::1]:53",
            "[2001:db8::10]:50000",
            "[2001:db8::1]:53",
            0x11_0035,
        );
        check(
            "ingress ssh 198.51.100.7",
            "10.0.0.10:22",
            "198.51.100.7:50000",
            0x06_0016,
        );
        check(
            "ingress tcp [2001:db8::7]:1 [2001:db8::99]:22",
            "[2001:db8::99]:22",
            "[2001:db8::7]:1",
            0x06_0016,
        );
        check(
            "ingress tcp fe80::9 :22",
            "[fe80::1]:22",
            "[fe80::9]:50000",
            0x06_0016,
        );
        check(
            "ingress icmp:3/4 10.0.0.1",
            "10.0.0.10:0",
            "10.0.0.1:0",
            0x01_0304,
        );
        check(
            "ingress icmp 10.0.0.1 --type 8",
            "10.0.0.10:0",
            "10.0.0.1:0",
            0x01_0800,
        );
        check(
            "ingress ping 2001:db8::1",
            "[2001:db8::10]:0",
            "[2001:db8::1]:0",
            0x3a_8000,
        );
        check("egress 47 10.0.0.1", "10.0.0.10:0", "10.0.0.1:0", 0x2f_0000);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (words, wanted) in [
            (
                "ingress tcp 10.0.0.1",
                "say the port that the packet is for: PEER :PORT",
            ),
            (
                "egress tcp 10.0.0.1",
                "say the port that the packet is for: PEER:PORT",
            ),
            ("ingress tcp :22", "say the address of the other side"),
            (
                "ingress icmp 2001:db8::1",
                "icmp is not for IPv6; write icmpv6",
            ),
            ("ingress dns 10.0.0.1", "say tcp or udp with the port"),
            ("ingress all 10.0.0.1", "a packet has one protocol"),
            ("ingress tcp 10.0.0.1 [::1]:22", "are not of one family"),
            ("ingress tcpp 10.0.0.1", "did you mean \"tcp\"?"),
            ("ingress tcp 10.0.0.1 :22 --flags sin", "is no TCP flag"),
        ] {
            let refused = question(words).unwrap_err();
            assert!(refused.contains(wanted), "{words}: {refused}");
        }
    }
}
