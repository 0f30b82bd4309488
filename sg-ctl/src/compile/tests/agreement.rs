//! The tables say what the specification says, on random policies, packets and changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use sg_common::ids::Generation;
use sg_common::packet::Direction;
use sg_common::report::{Reason, Verdict};

use super::super::host::HostTables;
use super::super::image::Image;
use super::super::{AttachedInterface, compile};
use super::frames::{CLIENT_PORT, frame};
use super::numbers::assert_apart;
use super::settings;
use crate::policy::allows::{FirstPacket, L4, ReadAddresses};
use crate::policy::model::{
    Group, IcmpMatch, Interface, Peer, Permission, Policy, PortRange, Rule, Side, Traffic, Vpc,
};
use crate::policy::names::{InterfaceName, VpcName};

const PEERS: [&str; 12] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.1.1",
    "10.128.0.1",
    "192.0.2.1",
    "203.0.113.9",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8:1::1",
    // With the first, neighbours of /64 that differ in nothing else.
    "2001:db8:0:1::1",
    "2001:db8:0:2::1",
    "2a00::1",
];
const PORTS: [u16; 8] = [0, 1, 22, 53, 80, 443, CLIENT_PORT, u16::MAX];
const PROTOCOLS: [u8; 5] = [4, 47, 50, 132, 255];
/// None of neighbor discovery, which groups never filter.
const ICMP_TYPES: [u8; 8] = [0, 1, 3, 8, 13, 40, 128, 129];
const CODES: [u8; 3] = [0, 1, 4];
pub(crate) const GROUPS: usize = 5;
pub(crate) const LISTS: usize = 3;
const INTERFACES: usize = 4;

pub(crate) fn peer() -> impl Strategy<Value = IpAddr> {
    select(&PEERS[..]).prop_map(|text| text.parse().unwrap())
}

pub(crate) fn prefix() -> impl Strategy<Value = IpNet> {
    (
        peer(),
        select(&[0_u8, 1, 8, 16, 24, 31, 32, 48, 64, 127, 128][..]),
    )
        .prop_map(|(address, length)| {
            let length = if address.is_ipv4() {
                length.min(32)
            } else {
                length
            };
            IpNet::new(address, length).unwrap().trunc()
        })
}

fn ports() -> impl Strategy<Value = PortRange> {
    let range = (select(&PORTS[..]), select(&PORTS[..]));
    let range = range.prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap());
    prop_oneof![3 => range, 1 => Just(PortRange::ALL)]
}

fn icmp() -> impl Strategy<Value = IcmpMatch> {
    prop_oneof![
        Just(IcmpMatch::Any),
        select(&ICMP_TYPES[..]).prop_map(IcmpMatch::Type),
        (select(&ICMP_TYPES[..]), select(&CODES[..]))
            .prop_map(|(kind, code)| IcmpMatch::TypeCode(kind, code)),
    ]
}

fn traffic() -> impl Strategy<Value = Traffic> {
    prop_oneof![
        1 => Just(Traffic::All),
        3 => ports().prop_map(Traffic::Tcp),
        3 => ports().prop_map(Traffic::Udp),
        1 => icmp().prop_map(Traffic::Icmp),
        1 => icmp().prop_map(Traffic::Icmpv6),
        1 => select(&PROTOCOLS[..]).prop_map(Traffic::Protocol),
    ]
}

pub(crate) fn permission() -> impl Strategy<Value = Permission> {
    let named = prop_oneof![
        4 => prefix().prop_map(Peer::Prefix),
        1 => (0..LISTS).prop_map(|n| Peer::PrefixList(format!("l{n}").parse().unwrap())),
        2 => (0..GROUPS).prop_map(|n| Peer::Group(format!("g{n}").parse().unwrap())),
    ];
    let direction = select(&Direction::ALL[..]);
    (direction, traffic(), named).prop_map(|(direction, traffic, peer)| Permission {
        direction,
        traffic,
        peer,
    })
}

fn interface() -> impl Strategy<Value = (Interface, BTreeSet<IpAddr>)> {
    let groups = btree_set(0..GROUPS, 1..4);
    (groups, any::<bool>(), btree_set(peer(), 1..4)).prop_map(|(groups, is_guest, addresses)| {
        let groups = groups
            .iter()
            .map(|n| format!("g{n}").parse().unwrap())
            .collect();
        let side = if is_guest { Side::Guest } else { Side::Host };
        let declared = if is_guest {
            addresses.clone()
        } else {
            BTreeSet::new()
        };
        (
            Interface {
                groups,
                side,
                addresses: declared,
                ..Interface::default()
            },
            addresses,
        )
    })
}

/// A policy with the addresses read from its interfaces. Rules of two such worlds may share ids
/// and differ in all else.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) policy: Policy,
    pub(crate) read: ReadAddresses,
}

pub(crate) fn vpc_name() -> VpcName {
    "prod".parse().unwrap()
}

pub(crate) fn world() -> impl Strategy<Value = World> {
    let groups = vec(
        (
            btree_set(permission(), 0..8),
            btree_set(peer(), 0..2),
            0_u32..3,
        ),
        GROUPS,
    );
    let lists = vec(btree_set(prefix(), 0..5), LISTS);
    let interfaces = vec(interface(), 1..=INTERFACES);
    (groups, lists, interfaces).prop_map(|(groups, lists, interfaces)| {
        let mut vpc = Vpc::bare("sg-00000000000000fff".parse().unwrap());
        let lists = lists.into_iter().enumerate();
        vpc.prefix_lists = lists
            .map(|(n, l)| (format!("l{n}").parse().unwrap(), l))
            .collect();
        for (n, (permissions, members, shift)) in groups.into_iter().enumerate() {
            let id = format!("sg-{n:017x}").parse().unwrap();
            let rules = permissions
                .into_iter()
                .zip(shift..)
                .map(|(permission, rule)| Rule {
                    id: format!("sgr-{:017x}", n * 100 + rule as usize)
                        .parse()
                        .unwrap(),
                    permission,
                    description: String::new(),
                });
            let rules = rules.collect();
            let group = Group {
                rules,
                members,
                ..Group::bare(id, String::new())
            };
            vpc.groups.insert(format!("g{n}").parse().unwrap(), group);
        }
        let mut read = BTreeMap::new();
        for (n, (interface, addresses)) in interfaces.into_iter().enumerate() {
            let name: InterfaceName = format!("eth{n}").parse().unwrap();
            read.insert(name.clone(), addresses);
            vpc.interfaces.insert(name, interface);
        }
        let policy = Policy {
            vpcs: BTreeMap::from([(vpc_name(), vpc)]),
        };
        World {
            policy: policy.checked().unwrap_or_else(|e| panic!("{e}")),
            read,
        }
    })
}

pub(super) fn first_packet() -> impl Strategy<Value = FirstPacket> {
    let port = || select(&PORTS[..]).prop_map(L4::Port);
    let message = || {
        (select(&ICMP_TYPES[..]), select(&CODES[..])).prop_map(|(kind, code)| L4::Icmp(kind, code))
    };
    let what = prop_oneof![
        4 => (Just(6), port()),
        4 => (Just(17), port()),
        1 => (Just(1), message()),
        1 => (Just(58), message()),
        1 => (select(&PROTOCOLS[..]), Just(L4::Other)),
    ];
    (select(&Direction::ALL[..]), peer(), what).prop_map(|(direction, peer, (protocol, l4))| {
        FirstPacket {
            direction,
            peer,
            protocol,
            l4,
        }
    })
}

impl World {
    pub(crate) fn attached(&self) -> Vec<AttachedInterface> {
        let interfaces = self.policy.vpcs[&vpc_name()].interfaces.keys().zip(2_u32..);
        interfaces
            .map(|(name, number)| AttachedInterface {
                vpc: vpc_name(),
                name: name.clone(),
                netns: 1,
                ifindex: number,
                bare: false,
                incarnation: number,
                addresses: self.read[name].clone(),
                peer_mac: None,
                judge_again_before: None,
            })
            .collect()
    }

    pub(crate) fn compile(&self, previous: Option<&Image>) -> Image {
        let compiled = compile(&self.policy, &self.attached(), previous, &settings());
        compiled.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Compares what the tables say of a packet at each interface with the specification.
    pub(super) fn check(&self, image: &Image, packet: FirstPacket) {
        let vpc = vpc_name();
        let interfaces = self.policy.vpcs[&vpc].interfaces.iter().zip(2_u32..);
        for ((name, interface), ifindex) in interfaces {
            let Some(local) = local_address(interface, packet.peer) else {
                continue;
            };
            let allowing = self.policy.allows(&vpc, name, &self.read, packet);
            let is_untracked = self.is_untracked(name, packet);

            let (source, destination) = match packet.direction {
                Direction::Ingress => (packet.peer, local),
                Direction::Egress => (local, packet.peer),
            };
            let bytes = frame(source, destination, packet.protocol, packet.l4);
            let is_guest = interface.side == Side::Guest;
            let received = (packet.direction == Direction::Ingress) != is_guest;
            let tables = HostTables::new(image, Generation(1), 16);
            let decision = tables.decide(1, ifindex, received, &bytes, &()).unwrap();

            let story = format!("{packet:?} at {name}: {decision:?}, allowed by {allowing:?}");
            let passes = decision.reason.verdict() == Verdict::Pass;
            assert_eq!(passes, !allowing.is_empty(), "{story}");
            assert_eq!(
                decision.reason == Reason::Untracked,
                is_untracked,
                "{story}"
            );
            match decision.reason {
                Reason::NoRule => assert!(!decision.rule.is_some(), "{story}"),
                Reason::Rule | Reason::RuleAlone => {
                    let slots = allowing.iter().map(|(id, _)| image.ids.rules[id]);
                    assert!(
                        slots.into_iter().any(|slot| slot == decision.rule),
                        "{story}"
                    );
                }
                Reason::Untracked => assert!(decision.rule.is_some(), "{story}"),
                _ => panic!("{story}"),
            }
        }
    }

    /// A datagram without a flow may be the first one or an answer; a SYN is the first one.
    fn is_untracked(&self, interface: &InterfaceName, packet: FirstPacket) -> bool {
        let is_untracked = |packet| self.policy.is_untracked(&vpc_name(), interface, packet);
        let answered = FirstPacket {
            direction: packet.direction.opposite(),
            l4: L4::Port(CLIENT_PORT),
            ..packet
        };
        is_untracked(packet) || (packet.protocol == 17 && is_untracked(answered))
    }
}

/// An address of what is protected, of the peer's family; none when the guest has no other.
fn local_address(interface: &Interface, peer: IpAddr) -> Option<IpAddr> {
    match interface.side {
        Side::Host if peer.is_ipv4() => Some("10.99.0.1".parse().unwrap()),
        Side::Host => Some("2001:db8:99::1".parse().unwrap()),
        // Nobody else has the guest's addresses.
        Side::Guest if interface.addresses.contains(&peer) => None,
        Side::Guest => interface
            .addresses
            .iter()
            .copied()
            .find(|own| own.is_ipv4() == peer.is_ipv4()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_and_specification_agree(world in world(), packets in vec(first_packet(), 60)) {
        let image = world.compile(None);
        for packet in packets {
            world.check(&image, packet);
        }
    }

    #[test]
    fn they_agree_after_any_change_and_what_is_in_force_is_left_alone(
        worlds in vec(world(), 3),
        packets in vec(first_packet(), 25),
    ) {
        let mut previous: Option<Image> = None;
        for world in worlds {
            let image = world.compile(previous.as_ref());
            if let Some(previous) = &previous {
                assert_apart(previous, &image);
            }
            for packet in &packets {
                world.check(&image, *packet);
            }
            previous = Some(image);
        }
    }
}
