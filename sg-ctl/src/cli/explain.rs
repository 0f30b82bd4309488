//! Asking what becomes of a packet.

use std::net::IpAddr;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use sg_common::packet::Direction;
use sg_common::protocol::{ICMP, ICMPV6, TCP, UDP};

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
use super::port::Port;
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
///   sg-ctl explain eth0 ingress tcp 198.51.100.7 22
///
///   sg-ctl explain eth0 ingress tcp:22 198.51.100.7:40000
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
    /// tcp, udp, tcp:PORT, a service like ssh, or a number, which is a port of TCP; icmp:TYPE/CODE;
    /// esp, gre or protocol:NUMBER for other protocols
    #[arg(value_name = "PROTO")]
    protocol: AskedProtocol,
    /// The other side
    #[arg(value_name = "PEER[:PORT]")]
    peer: Endpoint,
    /// The port that the packet is for; or what is protected, where `:22` leaves out the address
    /// [default: the interface's own]
    #[arg(value_name = "PORT|LOCAL[:PORT]")]
    last: Option<Last>,
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
    Port(Protocol, Port),
    Service(&'static Service),
}

impl FromStr for AskedProtocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |error: RuleError| error.to_string();
        if let Some(number) = text.strip_prefix("protocol:") {
            return number.parse().map(Self::Plain).map_err(wrong);
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Port(Protocol::Tcp, text.parse()?));
        }
        // `22/tcp` as ufw and services(5) write it.
        let (protocol, rest) = match text.split_once([':', '/']) {
            Some((port, protocol @ ("tcp" | "udp"))) => (protocol, Some(port)),
            Some((protocol, rest)) => (protocol, Some(rest)),
            None => (text, None),
        };
        match (protocol.parse(), rest, service(text)) {
            (Ok(protocol), None, _) => Ok(Self::Plain(protocol)),
            (Ok(icmp @ (Protocol::Icmp | Protocol::Icmpv6)), Some(message), _) => {
                let (kind, code) = match message.split_once('/') {
                    Some((kind, code)) => (kind, Some(code)),
                    None => (message, None),
                };
                let message = parse_icmp(Some(kind), code).map_err(wrong)?;
                Ok(Self::Icmp(icmp, message))
            }
            (Ok(protocol @ (Protocol::Tcp | Protocol::Udp)), Some(port), _) => {
                Ok(Self::Port(protocol, port.parse()?))
            }
            (Ok(_), Some(_), _) => Err(format!("{protocol} has no ports; leave the port out")),
            (Err(_), _, Ok(service)) => Ok(Self::Service(service)),
            (Err(error), _, Err(unknown)) => Err(match unknown.suggestion {
                Some(_) => unknown.to_string(),
                None => error.to_string(),
            }),
        }
    }
}

/// An address, a port, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Endpoint {
    address: Option<IpAddr>,
    port: Option<Port>,
}

/// What may stand last: the port that the packet is for, or the protected side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Port(Port),
    Local(Endpoint),
}

impl FromStr for Last {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(port) => Ok(Self::Port(port)),
            Err(_) => text.parse().map(Self::Local),
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no address; write 192.0.2.1, 192.0.2.1:443, [2001:db8::1]:443, or :443"
            )
        };
        // An IPv6 address has colons of its own, so that its port stands behind brackets.
        let (address, port) = match text.rsplit_once(':') {
            Some((address, port)) if address.is_empty() || address.ends_with(']') => {
                (address, Some(port))
            }
            Some((address, port)) if !address.contains(':') => (address, Some(port)),
            _ => (text, None),
        };
        let inner = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let address = match inner.unwrap_or(address) {
            "" => None,
            address => Some(
                address
                    .parse::<IpAddr>()
                    .map_err(|_| wrong())?
                    .to_canonical(),
            ),
        };
        let port: Option<Port> = port.map(str::parse).transpose()?;
        match (address, port) {
            (None, None) => Err(wrong()),
            (address, port) => Ok(Self { address, port }),
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
        let (asked, netns) = (self.vpc.as_ref(), self.netns.as_deref());
        let (vpc, name) = choose::present(&view, asked, netns, &self.interface)?;
        let machine = Machine::of(&view.policy, &view.devices()?);
        let interface = machine.interface(&vpc, &name);
        let interface = interface.ok_or(Error::Gone { name })?;
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
        let (protocol, icmp, asked_port) = self.protocol(peer)?;
        let (said, end) = match self.last {
            Some(Last::Port(port)) => (Some(port), None),
            Some(Last::Local(end)) => (None, Some(end)),
            None => (None, None),
        };
        let local = end.and_then(|end| end.address);
        let local = local.or_else(|| interface.address_towards(peer));
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
        let of_protocol = match protocol {
            TCP => Some(Protocol::Tcp),
            UDP => Some(Protocol::Udp),
            _ => None,
        };
        let number = |port: Option<Port>| port.map(|port| port.number(of_protocol)).transpose();
        let (local_port, peer_port) = (
            number(end.and_then(|end| end.port))?,
            number(self.peer.port)?,
        );
        let (asks, answers) = match direction {
            Direction::Ingress => (peer_port, local_port),
            Direction::Egress => (local_port, peer_port),
        };
        let has_ports = matches!(protocol, TCP | UDP);
        let answers = match number(said)?.or(answers).or(asked_port) {
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

    /// The protocol's number, the ICMP type and code, and the port that came with the protocol.
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
            AskedProtocol::Port(protocol, port) => {
                (protocol, IcmpMatch::Any, Some(port.number(Some(protocol))?))
            }
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
    use std::net::SocketAddr;

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
        for gre in ["gre", "protocol:47"] {
            let words = format!("egress {gre} 10.0.0.1");
            check(&words, "10.0.0.10:0", "10.0.0.1:0", 0x2f_0000);
        }
    }

    #[test]
    fn a_port_is_said_in_any_way() {
        for words in [
            "22 10.0.0.1",
            "tcp:22 10.0.0.1",
            "22/tcp 10.0.0.1",
            "tcp:ssh 10.0.0.1",
            "tcp 10.0.0.1 22",
            "tcp 10.0.0.1 ssh",
            "tcp 10.0.0.1 :ssh",
        ] {
            let words = format!("ingress {words}");
            check(&words, "10.0.0.10:22", "10.0.0.1:50000", 0x06_0016);
        }
        for words in [
            "udp 10.0.0.1 53",
            "udp:dns 10.0.0.1",
            "udp 10.0.0.1:dns",
            "udp 10.0.0.1 dns",
            "53/udp 10.0.0.1",
        ] {
            let words = format!("egress {words}");
            check(&words, "10.0.0.10:50000", "10.0.0.1:53", 0x11_0035);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (words, wanted) in [
            (
                "ingress tcp 10.0.0.1",
                "say the port that the packet is for: PEER PORT",
            ),
            (
                "egress tcp 10.0.0.1",
                "say the port that the packet is for: PEER PORT",
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
            ("ingress shs 10.0.0.1", "did you mean \"ssh\"?"),
            ("ingress gre:22 10.0.0.1", "gre has no ports"),
            ("ingress udp 10.0.0.1 ssh", "has no such port"),
            ("ingress tcp 10.0.0.1 99999", "is no address"),
            ("ingress tcp 10.0.0.1 :22 --flags sin", "is no TCP flag"),
        ] {
            let refused = question(words).unwrap_err();
            assert!(refused.contains(wanted), "{words}: {refused}");
        }
    }
}
