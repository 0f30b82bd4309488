//! How files, commands and findings spell the parts of a rule.

use std::fmt;

use sg_common::packet::Direction;

use super::model::{IcmpMatch, Peer, Permission, PortRange, Traffic};

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first(), self.last()) {
            (0, u16::MAX) => f.pad("*"),
            (first, last) if first == last => f.pad(&first.to_string()),
            (first, last) => f.pad(&format!("{first}-{last}")),
        }
    }
}

impl fmt::Display for IcmpMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.pad("*"),
            Self::Type(kind) => f.pad(&kind.to_string()),
            Self::TypeCode(kind, code) => f.pad(&format!("{kind}/{code}")),
        }
    }
}

impl Traffic {
    /// The protocol alone, as a file names it.
    pub fn protocol(&self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Tcp(_) => "tcp".to_owned(),
            Self::Udp(_) => "udp".to_owned(),
            Self::Icmp(_) => "icmp".to_owned(),
            Self::Icmpv6(_) => "icmpv6".to_owned(),
            Self::Protocol(number) => number.to_string(),
        }
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Tcp(ports) => write!(f, "tcp {ports}"),
            Self::Udp(ports) => write!(f, "udp {ports}"),
            Self::Icmp(kind) => write!(f, "icmp {kind}"),
            Self::Icmpv6(kind) => write!(f, "icmpv6 {kind}"),
            Self::Protocol(number) => write!(f, "protocol {number}"),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Formatted twice only where a column has a width.
            Self::Prefix(prefix) if f.width().is_none() => write!(f, "{prefix}"),
            Self::Prefix(prefix) => f.pad(&prefix.to_string()),
            Self::PrefixList(name) => f.pad(&format!("pl:{name}")),
            Self::Group(name) => f.pad(&format!("sg:{name}")),
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let towards = match self.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        write!(f, "{} {towards} {}", self.traffic, self.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_range_is_as_short_as_it_can_be() {
        let spelt = |first, last| PortRange::new(first, last).unwrap().to_string();
        assert_eq!(spelt(0, 65535), "*");
        assert_eq!(spelt(22, 22), "22");
        assert_eq!(spelt(22, 25), "22-25");
        assert_eq!(spelt(0, 0), "0");
    }

    #[test]
    fn a_permission_reads_as_a_phrase() {
        let permission = Permission {
            direction: Direction::Egress,
            traffic: Traffic::Icmp(IcmpMatch::TypeCode(3, 4)),
            peer: Peer::Group("web".parse().unwrap()),
        };
        assert_eq!(permission.to_string(), "icmp 3/4 to sg:web");
    }
}
