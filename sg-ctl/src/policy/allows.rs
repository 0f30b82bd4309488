//! The naive specification: which rules allow a packet.
//!
//! Obviously right and slow, it is what the tables and the kernel are compared with; nothing calls
//! it at run time. It knows no flows: it judges the packet that would open one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use sg_common::packet::Direction;

use super::defaults::everywhere;
use super::model::{IcmpMatch, Peer, Policy, PortRange, Rule, Side, Traffic, Vpc};
use super::names::{GroupName, InterfaceName, RuleId, VpcName};
use super::prefix::is_link_local;

/// The addresses read from the machine's interfaces.
pub type ReadAddresses = BTreeMap<InterfaceName, BTreeSet<IpAddr>>;

/// The packet that would open a flow, as its interface sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstPacket {
    /// Relative to the interface.
    pub direction: Direction,
    /// The source of ingress, the destination of egress.
    pub peer: IpAddr,
    /// The IP protocol number.
    pub protocol: u8,
    /// What the L4 header says.
    pub l4: L4,
}

/// What a rule may discriminate by besides the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4 {
    /// TCP or UDP to this destination port.
    Port(u16),
    /// ICMP or ICMPv6 with this type and code.
    Icmp(u8, u8),
    /// Any other protocol.
    Other,
}

impl Policy {
    /// The rules, each with its group, that allow the packet; none of them means drop.
    pub fn allows(
        &self,
        vpc: &VpcName,
        interface: &InterfaceName,
        read: &ReadAddresses,
        packet: FirstPacket,
    ) -> Vec<(RuleId, GroupName)> {
        let Some(vpc) = self.vpcs.get(vpc) else {
            return Vec::new();
        };
        let rules = vpc.rules_of(interface).into_iter();
        let allowing = rules.filter(|(_, rule)| {
            rule.permission.direction == packet.direction
                && admits_traffic(rule.permission.traffic, packet.protocol, packet.l4)
                && vpc.admits_peer(&rule.permission.peer, read, packet.peer)
        });
        allowing
            .map(|(group, rule)| (rule.id, group.clone()))
            .collect()
    }

    /// Says whether any rule, of either direction, is about a protocol and a peer: packets of that
    /// protocol may then go between the two, as questions or as answers.
    pub fn may_carry(
        &self,
        vpc: &VpcName,
        interface: &InterfaceName,
        read: &ReadAddresses,
        protocol: u8,
        peer: IpAddr,
    ) -> bool {
        let Some(vpc) = self.vpcs.get(vpc) else {
            return false;
        };
        vpc.rules_of(interface).iter().any(|(_, rule)| {
            is_about(rule.permission.traffic, protocol)
                && vpc.admits_peer(&rule.permission.peer, read, peer)
        })
    }

    /// Says whether the packet opens a flow that takes no entry, because the rules alone let both
    /// its ways pass.
    ///
    /// A prefix list that holds `0.0.0.0/0` or `::/0` is for all addresses like the prefix itself.
    pub fn is_untracked(
        &self,
        vpc: &VpcName,
        interface: &InterfaceName,
        packet: FirstPacket,
    ) -> bool {
        let all_ports = match packet.protocol {
            6 => Traffic::Tcp(PortRange::ALL),
            17 => Traffic::Udp(PortRange::ALL),
            _ => return false,
        };
        let Some(vpc) = self.vpcs.get(vpc) else {
            return false;
        };
        let rules = vpc.rules_of(interface);
        let admitted = rules.iter().any(|(_, rule)| {
            rule.permission.direction == packet.direction
                && admits_traffic(rule.permission.traffic, packet.protocol, packet.l4)
                && vpc.admits_all_of_family(&rule.permission.peer, packet.peer)
        });
        let answered = rules.iter().any(|(_, rule)| {
            rule.permission.direction != packet.direction
                && (rule.permission.traffic == Traffic::All || rule.permission.traffic == all_ports)
                && vpc.admits_all_of_family(&rule.permission.peer, packet.peer)
        });
        admitted && answered
    }
}

impl Vpc {
    fn rules_of(&self, interface: &InterfaceName) -> Vec<(&GroupName, &Rule)> {
        let groups = self
            .interfaces
            .get(interface)
            .into_iter()
            .flat_map(|i| &i.groups);
        groups
            .filter_map(|name| self.groups.get_key_value(name))
            .flat_map(|(name, group)| group.rules.iter().map(move |rule| (name, rule)))
            .collect()
    }

    fn admits_peer(&self, peer: &Peer, read: &ReadAddresses, address: IpAddr) -> bool {
        match peer {
            Peer::Prefix(prefix) => prefix.contains(&address),
            Peer::PrefixList(name) => self
                .prefixes(name)
                .iter()
                .any(|prefix| prefix.contains(&address)),
            Peer::Group(name) => self.is_member(name, read, address),
        }
    }

    fn admits_all_of_family(&self, peer: &Peer, address: IpAddr) -> bool {
        let everywhere = everywhere()
            .into_iter()
            .find(|prefix| prefix.contains(&address));
        match (peer, everywhere) {
            (Peer::Prefix(prefix), Some(all)) => *prefix == all,
            (Peer::PrefixList(name), Some(all)) => self.prefixes(name).contains(&all),
            _ => false,
        }
    }

    fn prefixes(&self, list: &super::names::PrefixListName) -> BTreeSet<IpNet> {
        self.prefix_lists.get(list).cloned().unwrap_or_default()
    }

    /// Says whether an address belongs to a group: static members, the declared addresses of its
    /// guests, and those read from its host-side interfaces. A link-local address read from a
    /// machine names no one machine, so it belongs to no group.
    fn is_member(&self, group: &GroupName, read: &ReadAddresses, address: IpAddr) -> bool {
        if self
            .groups
            .get(group)
            .is_some_and(|group| group.members.contains(&address))
        {
            return true;
        }
        let mut interfaces = self
            .interfaces
            .iter()
            .filter(|(_, i)| i.groups.contains(group));
        interfaces.any(|(name, interface)| match interface.side {
            Side::Guest => interface.addresses.contains(&address),
            Side::Host => {
                !is_link_local(address)
                    && read
                        .get(name)
                        .is_some_and(|addresses| addresses.contains(&address))
            }
        })
    }
}

fn is_about(traffic: Traffic, protocol: u8) -> bool {
    match traffic {
        Traffic::All => true,
        Traffic::Tcp(_) => protocol == 6,
        Traffic::Udp(_) => protocol == 17,
        Traffic::Icmp(_) => protocol == 1,
        Traffic::Icmpv6(_) => protocol == 58,
        Traffic::Protocol(number) => protocol == number,
    }
}

fn admits_traffic(traffic: Traffic, protocol: u8, l4: L4) -> bool {
    match (traffic, protocol, l4) {
        (Traffic::All, _, _) => true,
        (Traffic::Tcp(ports), 6, L4::Port(port)) | (Traffic::Udp(ports), 17, L4::Port(port)) => {
            ports.first() <= port && port <= ports.last()
        }
        (Traffic::Icmp(wanted), 1, L4::Icmp(kind, code))
        | (Traffic::Icmpv6(wanted), 58, L4::Icmp(kind, code)) => match wanted {
            IcmpMatch::Any => true,
            IcmpMatch::Type(wanted) => wanted == kind,
            IcmpMatch::TypeCode(wanted_kind, wanted_code) => {
                wanted_kind == kind && wanted_code == code
            }
        },
        (Traffic::Protocol(number), _, _) => number == protocol,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::PolicyFile;
    use super::*;

    const POLICY: &str = "
prefix_lists:
  office: [203.0.113.0/24]
  world: [0.0.0.0/0]
groups:
  web: {ingress: [{protocol: tcp, ports: 80-90, from: 0.0.0.0/0}]}
  office:
    ingress: [{protocol: tcp, ports: 22, from: [198.51.100.7, pl:office]}, {protocol: -1, ports: 22, from: 10.0.0.0/8}]
    egress: []
  db:
    ingress:
      - {protocol: tcp, ports: 5432, from: [sg:web]}
      - {protocol: icmp, type: 8, from: 0.0.0.0/0}
      - {protocol: icmpv6, type: 3, code: 1, from: '::/0'}
      - {protocol: udp, ports: 0, from: '::/0'}
      - {protocol: 47, from: '::/0'}
    egress: []
    members: [192.0.2.20]
  mesh: {ingress: [{protocol: all, from: self}], egress: []}
  listed: {ingress: [{protocol: udp, ports: 53, from: pl:world}], egress: [{service: all-udp, to: 0.0.0.0/0}]}
interfaces:
  web0: {groups: web}
  office0: {groups: office}
  both0: {groups: [web, office]}
  db0: {groups: db}
  tap0: {groups: [web, mesh], side: guest, addresses: [10.9.0.5]}
  mesh0: {groups: mesh}
  listed0: {groups: listed}
";

    fn read() -> ReadAddresses {
        let address = |text: &str| text.parse().unwrap();
        BTreeMap::from([
            (
                "web0".parse().unwrap(),
                BTreeSet::from([
                    address("10.1.0.1"),
                    address("fe80::1"),
                    address("169.254.7.7"),
                ]),
            ),
            (
                "mesh0".parse().unwrap(),
                BTreeSet::from([address("10.1.0.9")]),
            ),
            (
                "tap0".parse().unwrap(),
                BTreeSet::from([address("10.1.0.8")]),
            ),
        ])
    }

    fn policy() -> Policy {
        let file = PolicyFile::parse("policy", POLICY).unwrap_or_else(|e| panic!("{e}"));
        file.to_policy(&Policy::default()).unwrap()
    }

    /// "interface ingress|egress protocol peer what", `what` being a port, type/code or `-`.
    fn packet(words: &str) -> (InterfaceName, FirstPacket) {
        let words: Vec<_> = words.split_whitespace().collect();
        let [interface, direction, protocol, peer, what] = words[..] else {
            panic!("{words:?}")
        };
        let protocol = match protocol {
            "tcp" => 6,
            "udp" => 17,
            "icmp" => 1,
            "icmpv6" => 58,
            number => number.parse().unwrap(),
        };
        let l4 = match (what, what.split_once('/')) {
            ("-", _) => L4::Other,
            (_, Some((kind, code))) => L4::Icmp(kind.parse().unwrap(), code.parse().unwrap()),
            (port, None) => L4::Port(port.parse().unwrap()),
        };
        let direction = match direction {
            "ingress" => Direction::Ingress,
            _ => Direction::Egress,
        };
        let packet = FirstPacket {
            direction,
            peer: peer.parse().unwrap(),
            protocol,
            l4,
        };
        (interface.parse().unwrap(), packet)
    }

    #[track_caller]
    fn check(words: &str, wanted: &[&str]) {
        let (interface, packet) = packet(words);
        let rules = policy().allows(&VpcName::default(), &interface, &read(), packet);
        let groups: Vec<_> = rules.iter().map(|(_, group)| group.as_str()).collect();
        assert_eq!(groups, wanted, "{words}");
    }

    #[track_caller]
    fn check_untracked(words: &str, wanted: bool) {
        let (interface, packet) = packet(words);
        let untracked = policy().is_untracked(&VpcName::default(), &interface, packet);
        assert_eq!(untracked, wanted, "{words}");
    }

    #[test]
    fn ports_are_inclusive_and_families_independent() {
        check("web0 ingress tcp 203.0.113.9 79", &[]);
        check("web0 ingress tcp 203.0.113.9 80", &["web"]);
        check("web0 ingress tcp 203.0.113.9 90", &["web"]);
        check("web0 ingress tcp 203.0.113.9 91", &[]);
        check("web0 ingress tcp 2001:db8::9 80", &[]);
        check("web0 ingress udp 203.0.113.9 80", &[]);
        check("web0 egress tcp 203.0.113.9 443", &["web"]);
        check("db0 ingress udp 2001:db8::9 0", &["db"]);
        check("db0 ingress udp 2001:db8::9 1", &[]);
    }

    #[test]
    fn groups_of_an_interface_are_a_union() {
        check("both0 ingress tcp 203.0.113.9 22", &["office"]);
        check("both0 ingress tcp 203.0.113.9 80", &["web"]);
        check("both0 ingress tcp 10.0.0.1 80", &["office", "web"]);
        check("office0 egress tcp 10.0.0.1 80", &[]);
    }

    #[test]
    fn all_protocols_ignore_ports() {
        for words in ["udp 10.1.1.1 53", "47 10.1.1.1 -", "icmp 10.1.1.1 8/0"] {
            check(&format!("office0 ingress {words}"), &["office"]);
        }
    }

    #[test]
    fn members_are_read_declared_or_static() {
        check("db0 ingress tcp 10.1.0.1 5432", &["db"]);
        check("db0 ingress tcp 10.9.0.5 5432", &["db"]);
        check("db0 ingress tcp 10.1.0.8 5432", &[]);
        check("db0 ingress tcp 169.254.7.7 5432", &[]);
        check("db0 ingress tcp fe80::1 5432", &[]);
        check("db0 ingress tcp 192.0.2.20 5432", &[]);
        check("mesh0 ingress 47 10.9.0.5 -", &["mesh"]);
        check("mesh0 ingress 47 10.1.0.9 -", &["mesh"]);
        check("mesh0 ingress 47 10.1.0.1 -", &[]);
    }

    #[test]
    fn icmp_is_judged_by_type_and_code() {
        check("db0 ingress icmp 203.0.113.9 8/0", &["db"]);
        check("db0 ingress icmp 203.0.113.9 0/0", &[]);
        check("db0 ingress icmpv6 2001:db8::9 3/1", &["db"]);
        check("db0 ingress icmpv6 2001:db8::9 3/0", &[]);
        check("db0 ingress 47 2001:db8::9 -", &["db"]);
        check("db0 ingress 50 2001:db8::9 -", &[]);
    }

    #[test]
    fn a_protocol_is_carried_where_any_rule_is_about_it() {
        let carries = |interface: &str, protocol, peer: &str| {
            let interface = interface.parse().unwrap();
            policy().may_carry(
                &VpcName::default(),
                &interface,
                &read(),
                protocol,
                peer.parse().unwrap(),
            )
        };
        assert!(carries("office0", 6, "198.51.100.7"));
        assert!(!carries("office0", 17, "198.51.100.7"));
        assert!(!carries("office0", 6, "192.0.2.1"));
        assert!(carries("office0", 47, "10.1.1.1"));
        // Everything may be sent, and so answers may come.
        assert!(carries("web0", 17, "192.0.2.1"));
        assert!(carries("db0", 6, "10.1.0.1"));
        assert!(!carries("db0", 6, "10.1.0.8"));
        assert!(carries("listed0", 17, "192.0.2.1"));
    }

    #[test]
    fn an_unknown_interface_has_no_rules() {
        check("eth9 ingress tcp 10.0.0.1 80", &[]);
    }

    #[test]
    fn a_flow_is_untracked_when_the_rules_alone_let_both_ways_pass() {
        check_untracked("web0 ingress tcp 203.0.113.9 80", true);
        check_untracked("web0 ingress tcp 203.0.113.9 91", false);
        check_untracked("web0 egress tcp 203.0.113.9 443", false);
        check_untracked("web0 ingress tcp 2001:db8::9 80", false);
        check_untracked("office0 ingress tcp 198.51.100.7 22", false);
        check_untracked("db0 ingress udp 2001:db8::9 0", false);
        check_untracked("db0 ingress icmp 203.0.113.9 8/0", false);
        check_untracked("listed0 ingress udp 203.0.113.9 53", true);
        check_untracked("listed0 ingress tcp 203.0.113.9 53", false);
    }
}
