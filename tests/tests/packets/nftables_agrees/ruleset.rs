//! A policy of one guest as somebody would write it for nftables: stateful, by the same rules.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use sg_common::packet::Direction;
use sg_ctl::policy::model::{IcmpMatch, Interface, Peer, Permission, Traffic, Vpc};
use sg_ctl::policy::names::GroupName;

/// The rule set of a router in front of `guest0`.
pub(crate) fn ruleset(vpc: &Vpc, interface: &Interface) -> String {
    let (own4, own6): (Vec<&IpAddr>, Vec<&IpAddr>) =
        interface.addresses.iter().partition(|a| a.is_ipv4());
    let mut text = "table inet guest {\n".to_owned();
    for direction in Direction::ALL {
        let _ = writeln!(text, "  chain {} {{", direction.name());
        // A guest speaks for itself alone, and nobody else does.
        let speaks = match direction {
            Direction::Ingress => "",
            Direction::Egress => "!= ",
        };
        let _ = writeln!(text, "    ip saddr {speaks}{} drop", set(&own4));
        let _ = writeln!(text, "    ip6 saddr {speaks}{} drop", set(&own6));
        text.push_str("    ct state established,related accept\n    ct state invalid drop\n");
        let groups = interface.groups.iter();
        let rules: BTreeSet<_> = groups
            .filter_map(|group| vpc.groups.get(group))
            .flat_map(|group| &group.rules)
            .map(|rule| &rule.permission)
            .filter(|permission| permission.direction == direction)
            .collect();
        for permission in rules {
            for peer in peers(vpc, interface, permission) {
                let _ = writeln!(text, "    {peer} {} accept", traffic(permission.traffic));
            }
        }
        text.push_str("    drop\n  }\n");
    }
    text.push_str(
        "  chain forward {\n    \
         type filter hook forward priority 0; policy drop;\n    \
         oifname \"guest0\" jump ingress\n    \
         iifname \"guest0\" jump egress\n  }\n}\n",
    );
    text
}

fn set<T: ToString>(members: &[T]) -> String {
    let members: Vec<_> = members.iter().map(T::to_string).collect();
    format!("{{ {} }}", members.join(", "))
}

/// The peer, in as many expressions as it takes.
fn peers(vpc: &Vpc, interface: &Interface, permission: &Permission) -> Vec<String> {
    let side = match permission.direction {
        Direction::Ingress => "saddr",
        Direction::Egress => "daddr",
    };
    let prefix = |prefix: &IpNet| match prefix {
        IpNet::V4(prefix) => format!("ip {side} {prefix}"),
        IpNet::V6(prefix) => format!("ip6 {side} {prefix}"),
    };
    match &permission.peer {
        Peer::Prefix(one) => vec![prefix(one)],
        Peer::PrefixList(list) => vpc.prefix_lists[list].iter().map(prefix).collect(),
        Peer::Group(group) => {
            let members = members(vpc, interface, group);
            let (v4, v6): (Vec<&IpAddr>, Vec<&IpAddr>) = members.iter().partition(|a| a.is_ipv4());
            [("ip", v4), ("ip6", v6)]
                .into_iter()
                .filter(|(_, members)| !members.is_empty())
                .map(|(family, members)| format!("{family} {side} {}", set(&members)))
                .collect()
        }
    }
}

fn members(vpc: &Vpc, interface: &Interface, group: &GroupName) -> BTreeSet<IpAddr> {
    let mut members = vpc.groups[group].members.clone();
    if interface.groups.contains(group) {
        members.extend(&interface.addresses);
    }
    members
}

/// ICMP is matched by its bytes, as nftables would otherwise add that ICMP is of IPv4 only.
fn traffic(traffic: Traffic) -> String {
    let icmp = |number, matched| match matched {
        IcmpMatch::Any => format!("meta l4proto {number}"),
        IcmpMatch::Type(kind) => format!("meta l4proto {number} @th,0,8 {kind}"),
        IcmpMatch::TypeCode(kind, code) => {
            let both = u16::from_be_bytes([kind, code]);
            format!("meta l4proto {number} @th,0,16 {both}")
        }
    };
    match traffic {
        Traffic::All => String::new(),
        Traffic::Tcp(ports) => format!("tcp dport {}-{}", ports.first(), ports.last()),
        Traffic::Udp(ports) => format!("udp dport {}-{}", ports.first(), ports.last()),
        Traffic::Icmp(matched) => icmp(1, matched),
        Traffic::Icmpv6(matched) => icmp(58, matched),
        Traffic::Protocol(number) => format!("meta l4proto {number}"),
    }
}
