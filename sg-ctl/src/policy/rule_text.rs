//! Reads the parts of a rule as users write them, in files and on the command line.

use std::str::FromStr;

use super::model::{IcmpMatch, Peer, PortRange, Traffic};
use super::names::NameError;
use super::prefix::{PrefixError, parse_prefix};
use super::services::{SERVICES, Service, service};
use super::suggest::closest;

/// A protocol by name or number, before its ports or type are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Every protocol.
    All,
    /// TCP, which wants ports.
    Tcp,
    /// UDP, which wants ports.
    Udp,
    /// ICMP, which may have a type and a code.
    Icmp,
    /// ICMPv6, which may have a type and a code.
    Icmpv6,
    /// Any other, whole.
    Number(u8),
}

/// Protocols besides those with a kind of rule of their own; the numbers are IANA's.
const NAMED: [(&str, u8); 12] = [
    ("igmp", 2),
    ("ipip", 4),
    ("dccp", 33),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("sctp", 132),
    ("udplite", 136),
];

/// Why a text is no part of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No protocol has that name or number.
    #[error(
        "{text:?} is not a protocol; {}",
        match suggestion {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => "use tcp, udp, icmp, icmpv6, all or a number from 0 to 255".to_owned(),
        }
    )]
    Protocol {
        /// The text as given.
        text: String,
        /// The name that was perhaps meant.
        suggestion: Option<&'static str>,
    },
    /// Not a port, a range of ports or a service.
    #[error(
        "{text:?} is not a port; {}",
        match suggestion {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => "use 0 to 65535, a range like 8000-8080, a service like https, or all".to_owned(),
        }
    )]
    Port {
        /// The text as given.
        text: String,
        /// The service that was perhaps meant.
        suggestion: Option<&'static str>,
    },
    /// A service as a port of a protocol that it does not use.
    #[error(
        "service \"{}\" has no {protocol} port; it is {}", .service.name, spelt(.service.traffic)
    )]
    ServiceWithoutPort {
        /// The service.
        service: &'static Service,
        /// tcp or udp.
        protocol: &'static str,
    },
    /// A range whose end comes before its start.
    #[error("the port range {first}-{last} is reversed; write {last}-{first}")]
    ReversedPorts {
        /// The start as given.
        first: u16,
        /// The end as given.
        last: u16,
    },
    /// TCP or UDP without ports.
    #[error("a {0} rule needs ports; 0-65535 is all of them")]
    NoPorts(&'static str),
    /// ICMP with ports.
    #[error("{0} has no ports; use type and code")]
    PortsOfIcmp(&'static str),
    /// A type or code where there is none.
    #[error("only icmp and icmpv6 have a type and a code; leave them out")]
    IcmpPartsElsewhere,
    /// Not a type or code.
    #[error("{text:?} is not an ICMP {part}; use 0 to 255, or -1 for any")]
    IcmpPart {
        /// "type" or "code".
        part: &'static str,
        /// The text as given.
        text: String,
    },
    /// One code of every type.
    #[error("a code means nothing without a type; give the type, or leave the code out")]
    CodeWithoutType,
    /// Not a peer.
    #[error(
        "{text:?} is not a peer; write a prefix like 10.0.0.0/8 or 2001:db8::/32, a group like \
         sg:web, self, or a prefix list like pl:office"
    )]
    Peer {
        /// The text as given.
        text: String,
    },
    /// A prefix that cannot stand in a rule.
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    /// A group or prefix list with an impossible name.
    #[error(transparent)]
    Name(#[from] NameError),
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

fn spelt(traffic: &[Traffic]) -> String {
    let traffic: Vec<_> = traffic.iter().map(ToString::to_string).collect();
    traffic.join(", ")
}

impl FromStr for Protocol {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let lower = text.to_ascii_lowercase();
        let number = match lower.as_str() {
            "all" | "-1" => return Ok(Self::All),
            "tcp" => 6,
            "udp" => 17,
            "icmp" => 1,
            "icmpv6" => 58,
            other => {
                let named = NAMED
                    .iter()
                    .find(|(name, _)| *name == other)
                    .map(|(_, n)| *n);
                let digits = other.bytes().all(|b| b.is_ascii_digit());
                let number = named.or_else(|| other.parse().ok().filter(|_| digits));
                number.ok_or_else(|| RuleError::Protocol {
                    text: shown(text),
                    suggestion: closest(
                        other,
                        ["tcp", "udp", "icmp", "icmpv6", "all"]
                            .into_iter()
                            .chain(NAMED.map(|(name, _)| name)),
                    ),
                })?
            }
        };
        Ok(match number {
            1 => Self::Icmp,
            6 => Self::Tcp,
            17 => Self::Udp,
            58 => Self::Icmpv6,
            number => Self::Number(number),
        })
    }
}

impl Protocol {
    /// The traffic of a rule, one for each port range.
    ///
    /// `ports` and `icmp` are `None` where nothing was said. Ports of a protocol that has none are
    /// ignored, as on AWS.
    pub fn traffic(
        self,
        ports: Option<&[PortRange]>,
        icmp: Option<IcmpMatch>,
    ) -> Result<Vec<Traffic>, RuleError> {
        if icmp.is_some() && !matches!(self, Self::Icmp | Self::Icmpv6) {
            return Err(RuleError::IcmpPartsElsewhere);
        }
        let each = |of: fn(PortRange) -> Traffic, name| match ports {
            None => Err(RuleError::NoPorts(name)),
            Some(ports) => Ok(ports.iter().map(|range| of(*range)).collect()),
        };
        match self {
            Self::Tcp => each(Traffic::Tcp, "tcp"),
            Self::Udp => each(Traffic::Udp, "udp"),
            Self::Icmp if ports.is_some() => Err(RuleError::PortsOfIcmp("icmp")),
            Self::Icmpv6 if ports.is_some() => Err(RuleError::PortsOfIcmp("icmpv6")),
            Self::Icmp => Ok(vec![Traffic::Icmp(icmp.unwrap_or(IcmpMatch::Any))]),
            Self::Icmpv6 => Ok(vec![Traffic::Icmpv6(icmp.unwrap_or(IcmpMatch::Any))]),
            Self::All => Ok(vec![Traffic::All]),
            Self::Number(number) => Ok(vec![Traffic::Protocol(number)]),
        }
    }
}

/// Ports as users write them, before the protocol of the rule is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// By number.
    Range(PortRange),
    /// Those of a service.
    Service(&'static Service),
}

impl Ports {
    /// The ranges in a protocol: none where the protocol has no ports.
    pub fn ranges(self, protocol: Protocol) -> Result<Vec<PortRange>, RuleError> {
        let name = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            _ => return Ok(Vec::new()),
        };
        let service = match self {
            Self::Range(range) => return Ok(vec![range]),
            Self::Service(service) => service,
        };
        let ranges: Vec<_> = ports_of(service, Some(protocol)).collect();
        match ranges.is_empty() {
            true => Err(RuleError::ServiceWithoutPort {
                service,
                protocol: name,
            }),
            false => Ok(ranges),
        }
    }
}

/// The ports of a service, in one protocol or in both.
pub fn ports_of(service: &Service, protocol: Option<Protocol>) -> impl Iterator<Item = PortRange> {
    let ranges = service.traffic.iter();
    ranges.filter_map(move |traffic| match traffic {
        Traffic::Tcp(ports) if protocol.is_none_or(|asked| asked == Protocol::Tcp) => Some(*ports),
        Traffic::Udp(ports) if protocol.is_none_or(|asked| asked == Protocol::Udp) => Some(*ports),
        _ => None,
    })
}

/// Reads `22`, `8000-8080`, `https`, `all` and lists of them with commas.
pub fn parse_ports(text: &str) -> Result<Vec<Ports>, RuleError> {
    let parts = text.split(',').map(str::trim);
    let read = parts.map(|part| match parse_port_range(part)? {
        Some(range) => Ok(Ports::Range(range)),
        None => service(part)
            .map(Ports::Service)
            .map_err(|_| RuleError::Port {
                text: shown(part),
                suggestion: similar_service(part),
            }),
    });
    read.collect()
}

/// The service that a text perhaps means, unless it is a number that is no port.
pub fn similar_service(text: &str) -> Option<&'static str> {
    let has_letters = text.bytes().any(|byte| byte.is_ascii_alphabetic());
    closest(text, SERVICES.iter().map(|service| service.name)).filter(|_| has_letters)
}

/// `None` where a text has not the form of a range.
fn parse_port_range(text: &str) -> Result<Option<PortRange>, RuleError> {
    if text == "*" || text.eq_ignore_ascii_case("all") {
        return Ok(Some(PortRange::ALL));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |part: &str| {
        let part = part.trim();
        part.parse::<u16>()
            .ok()
            .filter(|_| part.bytes().all(|b| b.is_ascii_digit()))
    };
    let Some((first, last)) = port(first).zip(port(last)) else {
        return Ok(None);
    };
    let range = PortRange::new(first, last);
    range
        .map(Some)
        .ok_or(RuleError::ReversedPorts { first, last })
}

/// Reads an ICMP type and code, `-1` and `None` being any.
pub fn parse_icmp(kind: Option<&str>, code: Option<&str>) -> Result<IcmpMatch, RuleError> {
    let part = |part: &'static str, text: Option<&str>| match text {
        None | Some("-1") => Ok(None),
        Some(text) => {
            let number = text.parse::<u8>().ok();
            let number = number.filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
            number.map(Some).ok_or_else(|| RuleError::IcmpPart {
                part,
                text: shown(text),
            })
        }
    };
    match (part("type", kind)?, part("code", code)?) {
        (None, None) => Ok(IcmpMatch::Any),
        (None, Some(_)) => Err(RuleError::CodeWithoutType),
        (Some(kind), None) => Ok(IcmpMatch::Type(kind)),
        (Some(kind), Some(code)) => Ok(IcmpMatch::TypeCode(kind, code)),
    }
}

/// Reads a peer; `myself` is what `self` means, where it means anything.
pub fn parse_peer(text: &str, myself: Option<&super::names::GroupName>) -> Result<Peer, RuleError> {
    if let Some(name) = text.strip_prefix("sg:") {
        return Ok(Peer::Group(name.parse()?));
    }
    if let Some(name) = text.strip_prefix("pl:") {
        return Ok(Peer::PrefixList(name.parse()?));
    }
    if let (true, Some(group)) = (text.eq_ignore_ascii_case("self"), myself) {
        return Ok(Peer::Group(group.clone()));
    }
    match parse_prefix(text) {
        Ok(prefix) => Ok(Peer::Prefix(prefix)),
        Err(PrefixError::Prefix { text }) => Err(RuleError::Peer { text }),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ranges that a text stands for.
    fn ranges(text: &str, protocol: Protocol) -> Result<String, RuleError> {
        let ports = parse_ports(text)?.into_iter();
        let ranges: Result<Vec<_>, _> = ports.map(|ports| ports.ranges(protocol)).collect();
        let ranges: Vec<_> = ranges?.concat().iter().map(ToString::to_string).collect();
        Ok(ranges.join(" "))
    }

    #[test]
    fn protocols_have_names_and_numbers_in_any_case() {
        let cases = [
            ("TCP", Protocol::Tcp),
            ("6", Protocol::Tcp),
            ("17", Protocol::Udp),
            ("58", Protocol::Icmpv6),
            ("-1", Protocol::All),
            ("All", Protocol::All),
            ("gre", Protocol::Number(47)),
            ("0", Protocol::Number(0)),
            ("255", Protocol::Number(255)),
        ];
        for (text, protocol) in cases {
            assert_eq!(text.parse(), Ok(protocol), "{text}");
        }
        for bad in ["256", "-2", "+6", "", "tcpp"] {
            assert!(bad.parse::<Protocol>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_come_alone_in_ranges_and_in_lists() {
        let spelt = |text| ranges(text, Protocol::Tcp).unwrap();
        assert_eq!(spelt("22"), "22");
        assert_eq!(spelt("0"), "0");
        assert_eq!(spelt("80, 443,8000-8080"), "80 443 8000-8080");
        assert_eq!(spelt("ALL"), "*");
        assert_eq!(spelt("0-65535"), "*");
        for bad in ["", "-1", "65536", "1-2-3", "80,", "+1", "ssh-https"] {
            let refusal = parse_ports(bad);
            assert!(matches!(refusal, Err(RuleError::Port { .. })), "{bad}");
        }
        let reversed = parse_ports("90-80").unwrap_err().to_string();
        assert_eq!(reversed, "the port range 90-80 is reversed; write 80-90");
    }

    #[test]
    fn a_service_is_its_ports_in_the_protocol() {
        let of = |text, protocol| ranges(text, protocol).map_err(|error| error.to_string());
        assert_eq!(
            of("https,8080, FTP", Protocol::Tcp).unwrap(),
            "443 8080 20-21"
        );
        assert_eq!(of("kerberos", Protocol::Udp).unwrap(), "88");
        assert_eq!(
            of("ssh", Protocol::Udp).unwrap_err(),
            "service \"ssh\" has no udp port; it is tcp 22"
        );
        assert_eq!(
            of("ping", Protocol::Tcp).unwrap_err(),
            "service \"ping\" has no tcp port; it is icmp 8, icmpv6 128"
        );
        assert_eq!(
            of("htps", Protocol::Tcp).unwrap_err(),
            "\"htps\" is not a port; did you mean \"https\"?"
        );
        assert_eq!(
            of("65536", Protocol::Tcp).unwrap_err(),
            "\"65536\" is not a port; use 0 to 65535, a range like 8000-8080, a service like https, \
             or all"
        );
        // Ports of a protocol without ports are ignored, also by name.
        assert_eq!(of("https", Protocol::All).unwrap(), "");
    }

    #[test]
    fn minus_one_is_any_type_and_any_code() {
        assert_eq!(parse_icmp(Some("-1"), Some("-1")), Ok(IcmpMatch::Any));
        assert_eq!(parse_icmp(Some("8"), None), Ok(IcmpMatch::Type(8)));
        assert_eq!(
            parse_icmp(Some("3"), Some("4")),
            Ok(IcmpMatch::TypeCode(3, 4))
        );
        assert_eq!(parse_icmp(None, Some("4")), Err(RuleError::CodeWithoutType));
        assert!(parse_icmp(Some("256"), None).is_err());
    }

    #[test]
    fn ports_of_a_protocol_without_ports_are_ignored() {
        let ports = [PortRange::new(22, 22).unwrap()];
        assert_eq!(
            Protocol::All.traffic(Some(&ports), None),
            Ok(vec![Traffic::All])
        );
        let gre = Protocol::Number(47).traffic(Some(&ports), None);
        assert_eq!(gre, Ok(vec![Traffic::Protocol(47)]));
        assert_eq!(
            Protocol::Tcp.traffic(None, None).unwrap_err().to_string(),
            "a tcp rule needs ports; 0-65535 is all of them"
        );
    }

    #[test]
    fn peers_are_prefixes_lists_groups_and_self() {
        let app = "app".parse().unwrap();
        let spelt = |text| parse_peer(text, Some(&app)).unwrap().to_string();
        assert_eq!(spelt("10.0.0.1"), "10.0.0.1/32");
        assert_eq!(spelt("sg:web"), "sg:web");
        assert_eq!(spelt("pl:office"), "pl:office");
        assert_eq!(spelt("self"), "sg:app");
        assert!(parse_peer("self", None).is_err());
        assert!(parse_peer("web", Some(&app)).is_err());
    }
}
