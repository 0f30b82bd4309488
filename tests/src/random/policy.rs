//! Random policies, always sound.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fastrand::Rng;
use sg_common::packet::Direction;
use sg_ctl::policy::defaults;
use sg_ctl::policy::mac::MacAddress;
use sg_ctl::policy::model::{
    Group, Hook, IcmpMatch, Interface, Macs, OnRuleRemoval, Peer, Permission, Policy, PortRange,
    Rule, Side, Traffic, Vpc,
};
use sg_ctl::policy::names::{GroupId, GroupName, InterfaceName, PrefixListName, RuleId, VpcName};

use super::{address, other_protocol, percent, pick, prefix};

/// Ports that rules and frames share.
pub const PORTS: [u16; 8] = [0, 22, 53, 80, 443, 8080, 65_534, 65_535];

/// ICMP types that rules and frames share: echo, errors, discovery, and a few of no meaning.
pub const ICMP_TYPES: [u8; 12] = [0, 3, 8, 11, 13, 1, 2, 128, 129, 135, 200, 255];

/// Where frames come from, most of them from the first.
pub const SOURCES: [[u8; 6]; 3] = [
    [2, 0, 0, 0, 0, 1],
    [2, 0, 0, 0, 0, 3],
    [0x52, 0x54, 0, 0, 0, 7],
];

/// What the host-side interfaces of a policy have, as the kernel would tell.
pub type HostAddresses = BTreeMap<InterfaceName, BTreeSet<IpAddr>>;

/// A policy of one to three VPCs with one to four interfaces each.
///
/// Interfaces are named `eth0`, `eth1` … without a gap, across all VPCs. Ids are not fresh but
/// counted, so that the same seed gives the same policy.
pub fn policy(rng: &mut Rng) -> Policy {
    let mut draft = Draft {
        rng,
        ids: 0,
        interfaces: 0,
        taken: BTreeSet::new(),
    };
    let vpcs = (0..draft.rng.u8(1..=3)).map(|number| {
        let name = if number == 0 {
            VpcName::default()
        } else {
            named(&format!("vpc-{number}"))
        };
        (name, draft.vpc())
    });
    let policy = Policy {
        vpcs: vpcs.collect(),
    };
    policy
        .checked()
        .unwrap_or_else(|findings| panic!("the generator is wrong:\n{findings}"))
}

/// One to four addresses for each host-side interface; at times two interfaces share one.
pub fn host_addresses(rng: &mut Rng, policy: &Policy) -> HostAddresses {
    let interfaces = policy.vpcs.values().flat_map(|vpc| &vpc.interfaces);
    let host_side = interfaces.filter(|(_, interface)| interface.side == Side::Host);
    host_side
        .map(|(name, _)| (name.clone(), some(rng, 1..=4, address)))
        .collect()
}

/// Any, or mostly those that random frames come from.
fn macs(rng: &mut Rng) -> Macs {
    match rng.u8(..10) {
        0 => Macs::Peer,
        1..5 => Macs::Any,
        _ => Macs::Listed(some(rng, 1..=3, |rng| {
            MacAddress::new(pick(rng, &SOURCES)).expect("a device may have it")
        })),
    }
}

struct Draft<'rng> {
    rng: &'rng mut Rng,
    ids: u64,
    interfaces: u32,
    /// Addresses of guests: no two have the same.
    taken: BTreeSet<IpAddr>,
}

impl Draft<'_> {
    fn vpc(&mut self) -> Vpc {
        let lists: Vec<PrefixListName> = (0..self.rng.u8(..4))
            .map(|number| named(&format!("list-{number}")))
            .collect();
        let mut groups: Vec<GroupName> = (0..self.rng.u8(1..=6))
            .map(|number| named(&format!("group-{number}")))
            .collect();
        groups.push(GroupName::default_group());
        let rng = &mut *self.rng;
        Vpc {
            prefix_lists: lists
                .iter()
                .map(|name| (name.clone(), some(rng, 0..=6, prefix)))
                .collect(),
            link_local_services: match rng.bool() {
                true => defaults::link_local_services(),
                false => BTreeSet::new(),
            },
            on_rule_removal: pick(rng, &[OnRuleRemoval::Keep, OnRuleRemoval::Terminate]),
            groups: groups
                .iter()
                .map(|g| (g.clone(), self.group(&groups, &lists)))
                .collect(),
            interfaces: (0..self.rng.u8(1..=4))
                .map(|_| self.interface(&groups))
                .collect(),
        }
    }

    fn group(&mut self, groups: &[GroupName], lists: &[PrefixListName]) -> Group {
        let mut permissions = BTreeSet::new();
        for _ in 0..self.rng.u8(..8) {
            let direction = pick(self.rng, &[Direction::Ingress, Direction::Egress]);
            let peer = peer(self.rng, groups, lists);
            for traffic in traffic(self.rng) {
                permissions.insert(Permission {
                    direction,
                    traffic,
                    peer: peer.clone(),
                });
            }
        }
        if percent(self.rng, 40) {
            permissions.extend(defaults::egress());
        }
        let id: GroupId = self.id("sg");
        let rules = permissions.into_iter().map(|permission| {
            let id: RuleId = self.id("sgr");
            Rule {
                id,
                permission,
                description: String::new(),
            }
        });
        let rules = rules.collect();
        Group {
            id,
            description: String::new(),
            rules,
            members: some(self.rng, 0..=5, address),
        }
    }

    fn interface(&mut self, groups: &[GroupName]) -> (InterfaceName, Interface) {
        let name: InterfaceName = named(&format!("eth{}", self.interfaces));
        self.interfaces += 1;
        let rng = &mut *self.rng;
        let mut addresses = match rng.bool() {
            true => some(rng, 1..=4, address),
            false => BTreeSet::new(),
        };
        addresses.retain(|address| self.taken.insert(*address));
        let side = match addresses.is_empty() {
            true => Side::Host,
            false => Side::Guest,
        };
        let interface = Interface {
            groups: some(rng, 1..=4, |rng| {
                rng.choice(groups).expect("every VPC has groups").clone()
            }),
            side,
            hook: pick(rng, &[Hook::Auto, Hook::Xdp, Hook::Tc]),
            addresses,
            macs: match side {
                Side::Host => Macs::default(),
                Side::Guest => macs(rng),
            },
            vlans: match side {
                Side::Host => BTreeSet::new(),
                Side::Guest => some(rng, 0..=2, |rng| pick(rng, &[5, 7])),
            },
            ethertypes: some(rng, 0..=2, |rng| pick(rng, &[0x8915, 0x88f8, 0xffff])),
            tcp_pickup: percent(rng, 80),
            strict_fragments: percent(rng, 20),
            ..Interface::default()
        };
        (name, interface)
    }

    fn id<T: std::str::FromStr>(&mut self, prefix: &str) -> T {
        self.ids += 1;
        named(&format!("{prefix}-{:017x}", self.ids))
    }
}

fn peer(rng: &mut Rng, groups: &[GroupName], lists: &[PrefixListName]) -> Peer {
    match rng.u8(..10) {
        0..2 => match rng.choice(lists) {
            Some(list) => Peer::PrefixList(list.clone()),
            None => Peer::Prefix(prefix(rng)),
        },
        2..5 => Peer::Group(rng.choice(groups).expect("every VPC has groups").clone()),
        _ => Peer::Prefix(prefix(rng)),
    }
}

/// One kind of traffic, or one protocol with many port ranges that do not touch.
fn traffic(rng: &mut Rng) -> Vec<Traffic> {
    match rng.u8(..20) {
        0 | 1 => vec![Traffic::All],
        2..8 => vec![Traffic::Tcp(port_range(rng))],
        8..12 => vec![Traffic::Udp(port_range(rng))],
        12 | 13 => vec![Traffic::Icmp(icmp_match(rng))],
        14 | 15 => vec![Traffic::Icmpv6(icmp_match(rng))],
        16 | 17 => vec![Traffic::Protocol(other_protocol(rng))],
        _ => {
            let of = if rng.bool() {
                Traffic::Tcp
            } else {
                Traffic::Udp
            };
            disjoint_ranges(rng).into_iter().map(of).collect()
        }
    }
}

fn port_range(rng: &mut Rng) -> PortRange {
    let (a, b) = match rng.u8(..10) {
        0..4 => {
            let port = pick(rng, &PORTS);
            (port, port)
        }
        4..7 => (pick(rng, &PORTS), pick(rng, &PORTS)),
        7 => return PortRange::ALL,
        8 => {
            let first = rng.u16(..);
            (first, first.saturating_add(rng.u16(..200)))
        }
        _ => (rng.u16(..), rng.u16(..)),
    };
    PortRange::new(a.min(b), a.max(b)).expect("in order")
}

fn disjoint_ranges(rng: &mut Rng) -> Vec<PortRange> {
    let count = if percent(rng, 10) {
        300
    } else {
        rng.u16(2..40)
    };
    let room = u16::MAX / count;
    let ranges = (0..count).map(|index| {
        let start = index * room + rng.u16(..room / 2);
        PortRange::new(start, start + rng.u16(..room / 2 - 1)).expect("in order")
    });
    ranges.collect()
}

fn icmp_match(rng: &mut Rng) -> IcmpMatch {
    let kind = pick(rng, &ICMP_TYPES);
    match rng.u8(..3) {
        0 => IcmpMatch::Any,
        1 => IcmpMatch::Type(kind),
        _ => IcmpMatch::TypeCode(kind, pick(rng, &[0, 0, 1, 4, 255])),
    }
}

fn some<T: Ord>(
    rng: &mut Rng,
    count: std::ops::RangeInclusive<u8>,
    mut one: impl FnMut(&mut Rng) -> T,
) -> BTreeSet<T> {
    (0..rng.u8(count)).map(|_| one(rng)).collect()
}

fn named<T: std::str::FromStr>(text: &str) -> T {
    text.parse()
        .ok()
        .unwrap_or_else(|| panic!("`{text}` is a good name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::seeded;

    /// How many rules of a hundred policies satisfy this.
    fn count(wanted: impl Fn(&GroupName, &Permission) -> bool) -> usize {
        let mut rng = seeded("policies");
        let policies = (0..100).map(|_| policy(&mut rng)).collect::<Vec<_>>();
        let groups = policies
            .iter()
            .flat_map(|p| p.vpcs.values())
            .flat_map(|vpc| &vpc.groups);
        let rules = groups.flat_map(|(name, group)| group.rules.iter().map(move |r| (name, r)));
        rules
            .filter(|(name, rule)| wanted(name, &rule.permission))
            .count()
    }

    #[test]
    fn every_kind_of_rule_occurs() {
        assert!(count(|_, rule| rule.traffic == Traffic::All) > 20);
        assert!(count(|_, rule| matches!(rule.traffic, Traffic::Protocol(_))) > 20);
        assert!(count(|_, rule| matches!(rule.traffic, Traffic::Icmp(_))) > 20);
        assert!(count(|_, rule| matches!(rule.traffic, Traffic::Icmpv6(_))) > 20);
        assert!(count(|_, rule| matches!(rule.peer, Peer::PrefixList(_))) > 20);
        assert!(count(|group, rule| matches!(&rule.peer, Peer::Group(p) if p == group)) > 20);
        assert!(count(|group, rule| matches!(&rule.peer, Peer::Group(p) if p != group)) > 20);
        assert!(count(|_, rule| matches!(rule.traffic, Traffic::Udp(r) if r.first() == 0)) > 20);
    }

    #[test]
    fn one_seed_gives_one_policy() {
        let (mut a, mut b) = (Rng::with_seed(7), Rng::with_seed(7));
        assert_eq!(policy(&mut a), policy(&mut b));
        assert_ne!(policy(&mut a), policy(&mut Rng::with_seed(8)));
    }

    #[test]
    fn some_group_has_hundreds_of_disjoint_port_ranges() {
        let mut rng = seeded("ranges");
        let ranges = (0..100)
            .map(|_| disjoint_ranges(&mut rng))
            .collect::<Vec<_>>();
        assert!(ranges.iter().any(|ranges| ranges.len() == 300));
        for pair in ranges.iter().flat_map(|ranges| ranges.windows(2)) {
            assert!(pair[0].last() + 1 < pair[1].first(), "{pair:?}");
        }
    }
}
