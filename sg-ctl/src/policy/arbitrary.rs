//! Random sound policies for property tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use sg_common::packet::Direction;

use super::matching::DeviceMatch;
use super::model::{
    EgressDrops, Group, Hook, IcmpMatch, Interface, Macs, OnRuleRemoval, Peer, Permission, Policy,
    PortRange, Rule, Side, Timeouts, Traffic, Vpc,
};
use super::names::{GroupId, InterfaceName, RuleId};

/// Names that YAML would take for something else, were they not in quotes.
const GROUPS: [&str; 5] = ["default", "web", "no", "a: {b}, #c", "1.0"];
const LISTS: [&str; 3] = ["office", "null", "- x"];
const ADDRESSES: [&str; 6] = [
    "10.0.0.7",
    "192.0.2.20",
    "2001:db8::7",
    "fe80::1",
    "203.0.113.9",
    "::2",
];
const PREFIXES: [&str; 7] = [
    "0.0.0.0/0",
    "::/0",
    "10.0.0.0/8",
    "192.0.2.20/32",
    "2001:db8::/32",
    "::2/128",
    "203.0.113.0/24",
];

fn parse<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z ._:/()#,@\\[\\]+=&;{}!$*-]{0,12}"]
}

fn addresses(least: usize) -> impl Strategy<Value = BTreeSet<IpAddr>> {
    let all: Vec<IpAddr> = ADDRESSES.iter().map(|address| parse(address)).collect();
    subsequence(all, least..=3).prop_map(|addresses| addresses.into_iter().collect())
}

fn prefixes() -> impl Strategy<Value = BTreeSet<IpNet>> {
    let all: Vec<IpNet> = PREFIXES.iter().map(|prefix| parse(prefix)).collect();
    subsequence(all, 0..=7).prop_map(|prefixes| prefixes.into_iter().collect())
}

fn ports() -> impl Strategy<Value = PortRange> {
    let port = select(vec![0u16, 22, 80, 443, 65535]);
    (port.clone(), port).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap())
}

fn icmp() -> impl Strategy<Value = IcmpMatch> {
    let number = select(vec![0u8, 3, 8, 128, 255]);
    prop_oneof![
        Just(IcmpMatch::Any),
        number.clone().prop_map(IcmpMatch::Type),
        (number.clone(), number).prop_map(|(kind, code)| IcmpMatch::TypeCode(kind, code)),
    ]
}

fn traffic() -> impl Strategy<Value = Traffic> {
    prop_oneof![
        Just(Traffic::All),
        ports().prop_map(Traffic::Tcp),
        ports().prop_map(Traffic::Udp),
        icmp().prop_map(Traffic::Icmp),
        icmp().prop_map(Traffic::Icmpv6),
        select(vec![0u8, 47, 132, 255]).prop_map(Traffic::Protocol),
    ]
}

fn peer(groups: Vec<&'static str>, lists: Vec<&'static str>) -> BoxedStrategy<Peer> {
    let prefix = select(PREFIXES.to_vec()).prop_map(|prefix| Peer::Prefix(parse(prefix)));
    let group = select(groups).prop_map(|name| Peer::Group(parse(name)));
    if lists.is_empty() {
        return prop_oneof![prefix, group].boxed();
    }
    let list = select(lists).prop_map(|name| Peer::PrefixList(parse(name)));
    prop_oneof![prefix, group, list].boxed()
}

/// A small space of ids, so that two policies share some.
fn number() -> impl Strategy<Value = u32> {
    0..40u32
}

fn group(groups: Vec<&'static str>, lists: Vec<&'static str>) -> impl Strategy<Value = Group> {
    let direction = prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)];
    let permission =
        (direction, traffic(), peer(groups, lists)).prop_map(|(direction, traffic, peer)| {
            Permission {
                direction,
                traffic,
                peer,
            }
        });
    let rules = btree_map(permission, (number(), text()), 0..8).prop_map(|rules| {
        let mut ids = BTreeSet::new();
        let rules = rules.into_iter().filter(|(_, (id, _))| ids.insert(*id));
        let rules = rules.map(|(permission, (id, description))| Rule {
            id: parse::<RuleId>(&format!("sgr-{id:017x}")),
            permission,
            description,
        });
        rules.collect::<Vec<_>>()
    });
    let standard = super::defaults::egress().map(|permission| Rule {
        id: RuleId::random(),
        permission,
        description: String::new(),
    });
    let rules = prop_oneof![4 => rules, 1 => Just(standard.to_vec())];
    (rules, text(), addresses(0)).prop_map(|(rules, description, members)| Group {
        id: GroupId::random(),
        description,
        rules,
        members,
    })
}

fn matching() -> impl Strategy<Value = DeviceMatch> {
    let criteria = vec![
        "name=vnet*",
        "name=eth0",
        "mac=52:54:00:*",
        "mac=52:54:00:12:34:56",
        "alias=vm ?: \"x\"",
    ];
    select(criteria).prop_map(|criterion| {
        let mut matching = DeviceMatch::default();
        matching.add(criterion).expect("a criterion");
        matching
    })
}

fn interface(groups: Vec<&'static str>) -> impl Strategy<Value = Interface> {
    let all = groups.len();
    let settings = (
        option::of(matching()),
        subsequence(groups, 1..=all),
        option::of(addresses(1)),
        select(vec![Hook::Auto, Hook::Xdp, Hook::Tc, Hook::XdpGeneric]),
        option::of(select(vec!["blue", "/run/x y\"\\z"])),
        btree_set(select(vec![0x0600u16, 0x8915, 0xffff]), 0..3),
    );
    let more = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        select(vec![EgressDrops::Silent, EgressDrops::Told]),
        60..=432_000u32,
        30..=60u32,
        60..=180u32,
    );
    let macs = prop_oneof![
        Just(Macs::Peer),
        Just(Macs::Any),
        btree_set(
            select(vec![parse("52:54:00:00:00:01"), parse("02:00:00:00:00:ff")]),
            1..3
        )
        .prop_map(Macs::Listed),
    ];
    let link = (macs, btree_set(select(vec![1, 5, 4094u16]), 0..3));
    let parts = (settings, more, link, option::of(1..1000u32));
    parts.prop_map(|(settings, more, link, max_flows)| {
        let (matching, groups, guest, hook, netns, ethertypes) = settings;
        let (macs, vlans) = if guest.is_some() {
            link
        } else {
            Default::default()
        };
        let (
            replace_xdp,
            tcp_pickup,
            strict_fragments,
            audit,
            egress_drops,
            tcp_established_s,
            udp_s,
            udp_stream_s,
        ) = more;
        Interface {
            matching: matching.map(Box::new),
            groups: groups.into_iter().map(parse).collect(),
            side: if guest.is_some() {
                Side::Guest
            } else {
                Side::Host
            },
            addresses: guest.unwrap_or_default(),
            hook,
            netns: netns.map(str::to_owned),
            macs,
            vlans,
            ethertypes,
            replace_xdp,
            tcp_pickup,
            strict_fragments,
            egress_drops,
            audit,
            timeouts: Timeouts {
                tcp_established_s,
                udp_s,
                udp_stream_s,
            },
            max_flows,
        }
    })
}

/// The interface without addresses that another one has; with none left it is no guest.
fn with_addresses_of_its_own(mut interface: Interface, taken: &mut BTreeSet<IpAddr>) -> Interface {
    interface.addresses.retain(|address| taken.insert(*address));
    if interface.addresses.is_empty() {
        interface.side = Side::Host;
        (interface.macs, interface.vlans) = Default::default();
    }
    interface
}

/// A VPC whose interfaces have names of its own.
pub(super) fn vpc(interfaces: &'static str) -> impl Strategy<Value = Vpc> {
    let names = (
        subsequence(GROUPS[1..].to_vec(), 0..=4),
        subsequence(LISTS.to_vec(), 0..=3),
    );
    let parts = names.prop_flat_map(move |(mut groups, lists)| {
        groups.push(GROUPS[0]);
        let count = groups.len();
        let list_count = lists.len();
        let bodies = vec(group(groups.clone(), lists.clone()), count);
        let contents = vec(prefixes(), list_count);
        let attached = vec(interface(groups.clone()), 0..3);
        (Just(groups), bodies, Just(lists), contents, attached)
    });
    let services = prop_oneof![
        Just(super::defaults::link_local_services()),
        Just(BTreeSet::new()),
        Just(BTreeSet::from([parse("169.254.1.1"), parse("fe80::53")])),
    ];
    let removal = prop_oneof![Just(OnRuleRemoval::Keep), Just(OnRuleRemoval::Terminate)];
    (parts, services, removal).prop_map(move |(parts, link_local_services, on_rule_removal)| {
        let (groups, bodies, lists, contents, attached) = parts;
        let interface_name =
            |index: usize| -> InterfaceName { parse(&format!("{interfaces}{index}")) };
        let mut taken = BTreeSet::new();
        Vpc {
            prefix_lists: lists.into_iter().map(parse).zip(contents).collect(),
            groups: groups.into_iter().map(parse).zip(bodies).collect(),
            interfaces: attached
                .into_iter()
                .enumerate()
                .map(|(index, interface)| {
                    let mut interface = with_addresses_of_its_own(interface, &mut taken);
                    // Two entries do not match the same, in whichever VPC.
                    let is_first = index == 0 && interfaces == "eth";
                    interface.matching = interface.matching.filter(|_| is_first);
                    (interface_name(index), interface)
                })
                .collect(),
            link_local_services,
            on_rule_removal,
        }
    })
}

/// A policy of up to two VPCs, which may well be those of another one.
pub(super) fn policy() -> impl Strategy<Value = Policy> {
    (option::of(vpc("eth")), option::of(vpc("tap"))).prop_map(|(prod, dev)| {
        let named = [("prod", prod), ("dev", dev)];
        let vpcs = named
            .into_iter()
            .filter_map(|(name, vpc)| Some((parse(name), vpc?)));
        Policy {
            vpcs: vpcs.collect::<BTreeMap<_, _>>(),
        }
    })
}

/// Two policies, the second of which shares some ids with the first.
pub(super) fn two_policies() -> impl Strategy<Value = (Policy, Policy)> {
    (policy(), policy(), any::<u8>()).prop_map(|(old, mut new, kept)| {
        for (name, vpc) in &mut new.vpcs {
            let Some(old) = old.vpcs.get(name) else {
                continue;
            };
            for (index, (name, group)) in vpc.groups.iter_mut().enumerate() {
                match old.groups.get(name) {
                    Some(old) if kept >> index & 1 == 1 => group.id = old.id,
                    _ => {}
                }
            }
        }
        (old, new)
    })
}

proptest! {
    #[test]
    fn a_random_policy_is_sound(policy in policy()) {
        prop_assert_eq!(policy.clone().checked(), Ok(policy));
    }
}
