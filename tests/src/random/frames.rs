//! Random frames, aimed at one interface of a policy.
//!
//! About six in ten of the valid ones match a rule: a quarter are aimed at one, and the others, which
//! land beside it (the next port, another address, another protocol), often meet a wider one.
//! The hostile ones start from those, as a packet that is wrong in one place goes deepest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use ipnet::IpNet;
use sg_common::packet::Direction;
use sg_ctl::policy::model::{IcmpMatch, Interface, Peer, Permission, Side, Traffic, Vpc};
use sg_ctl::policy::names::{GroupName, InterfaceName};

use super::policy::{HostAddresses, ICMP_TYPES, PORTS, SOURCES};
use super::{address, ipv4, ipv6, other_protocol, percent, pick, without_header};
use crate::packets::ethernet::{self, Ethernet};
use crate::packets::{Extension, Fragment, Packet, control, flags};

/// No hook is ever given less than an Ethernet header.
const SHORTEST_FRAME: usize = 14;

/// What frames are aimed at.
#[derive(Debug)]
pub struct Aim<'policy> {
    vpc: &'policy Vpc,
    hosts: &'policy HostAddresses,
    ingress: Vec<&'policy Permission>,
    egress: Vec<&'policy Permission>,
    local: Vec<IpAddr>,
}

impl<'policy> Aim<'policy> {
    /// Aims at an interface of `vpc`, whose host-side interfaces have these addresses.
    pub fn at(
        vpc: &'policy Vpc,
        name: &InterfaceName,
        interface: &'policy Interface,
        hosts: &'policy HostAddresses,
    ) -> Self {
        let groups = interface
            .groups
            .iter()
            .filter_map(|group| vpc.groups.get(group));
        let rules = groups
            .flat_map(|group| &group.rules)
            .map(|rule| &rule.permission);
        let (ingress, egress) = rules.partition(|rule| rule.direction == Direction::Ingress);
        let local = addresses_of(name, interface, hosts).collect();
        Self {
            vpc,
            hosts,
            ingress,
            egress,
            local,
        }
    }

    /// A frame that a well-behaved machine could have sent.
    pub fn valid(&self, rng: &mut Rng, direction: Direction) -> Vec<u8> {
        let packet = self.packet(rng, direction);
        decorated(rng, packet).frame()
    }

    /// A frame that somebody made to get through, or to break something; some are even fine.
    pub fn hostile(&self, rng: &mut Rng, direction: Direction) -> Vec<u8> {
        match rng.u8(..20) {
            0 => noise(rng),
            1 | 2 => self.control(rng),
            3 => self.icmp_error(rng, direction).frame(),
            _ => {
                let mut packet = self.packet(rng, direction);
                for _ in 0..rng.u8(1..=3) {
                    packet = self.twisted(rng, packet);
                }
                damaged(rng, packet.frame())
            }
        }
    }

    fn packet(&self, rng: &mut Rng, direction: Direction) -> Packet {
        let rules = match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        };
        match rng.choice(rules) {
            Some(rule) if percent(rng, 25) => self.packet_for(rng, rule),
            Some(rule) => self.packet_beside(rng, rule),
            None => {
                let (local, peer) = self.ends(rng, address);
                packet_of(rng, direction, local, peer, any_content)
            }
        }
    }

    /// A packet that the rule allows.
    fn packet_for(&self, rng: &mut Rng, rule: &Permission) -> Packet {
        let (local, peer) = self.ends(rng, |rng| self.peer_of(rng, &rule.peer));
        packet_of(rng, rule.direction, local, peer, |rng, v6| {
            content_of(rng, rule.traffic, v6)
        })
    }

    /// A packet that differs from what the rule allows in its address, its content, or neither.
    fn packet_beside(&self, rng: &mut Rng, rule: &Permission) -> Packet {
        let (local, peer) = self.ends(rng, |rng| {
            let peer = self.peer_of(rng, &rule.peer);
            if rng.bool() { beside(rng, peer) } else { peer }
        });
        packet_of(rng, rule.direction, local, peer, |rng, v6| {
            match rng.u8(..3) {
                0 => content_of(rng, rule.traffic, v6),
                1 => content_beside(rng, rule.traffic, v6),
                _ => any_content(rng, v6),
            }
        })
    }

    /// A local address of the peer's family; at times one that is not the interface's own.
    fn ends(&self, rng: &mut Rng, peer: impl Fn(&mut Rng) -> IpAddr) -> (IpAddr, IpAddr) {
        let mut chosen = peer(rng);
        let has = |v6: bool| self.local.iter().any(|local| local.is_ipv6() == v6);
        // A rule for everybody has peers of the family that the interface has too, if any.
        for _ in 0..3 {
            if has(chosen.is_ipv6()) {
                break;
            }
            chosen = peer(rng);
        }
        let v6 = chosen.is_ipv6();
        let own: Vec<IpAddr> = self
            .local
            .iter()
            .copied()
            .filter(|local| local.is_ipv6() == v6)
            .collect();
        let own = rng.choice(own);
        let local = match own {
            Some(own) if !percent(rng, 4) => own,
            _ => of_family(rng, v6),
        };
        (local, chosen)
    }

    fn peer_of(&self, rng: &mut Rng, peer: &Peer) -> IpAddr {
        let found = match peer {
            Peer::Prefix(prefix) => Some(address_in(rng, *prefix)),
            Peer::PrefixList(list) => {
                let prefixes = self.vpc.prefix_lists.get(list);
                let prefix = prefixes.and_then(|prefixes| rng.choice(prefixes));
                prefix.map(|prefix| address_in(rng, *prefix))
            }
            Peer::Group(group) => rng.choice(self.members(group)),
        };
        found.unwrap_or_else(|| address(rng))
    }

    fn members(&self, group: &GroupName) -> Vec<IpAddr> {
        let fixed = self
            .vpc
            .groups
            .get(group)
            .into_iter()
            .flat_map(|group| &group.members);
        let interfaces = self
            .vpc
            .interfaces
            .iter()
            .filter(|(_, i)| i.groups.contains(group));
        let held = interfaces.flat_map(|(name, i)| addresses_of(name, i, self.hosts));
        fixed.copied().chain(held).collect()
    }

    /// An ICMP error about a packet that goes the other way, or about anything.
    fn icmp_error(&self, rng: &mut Rng, direction: Direction) -> Packet {
        let other_way = match direction {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        };
        let about = if percent(rng, 80) {
            other_way
        } else {
            direction
        };
        let about = self.packet(rng, about);
        let (router, to) = match about.source() {
            IpAddr::V4(source) => (ipv4(rng).into(), IpAddr::V4(source)),
            IpAddr::V6(source) => (ipv6(rng).into(), IpAddr::V6(source)),
        };
        let kind = match to {
            IpAddr::V4(_) => pick(rng, &[(3, 1), (3, 3), (3, 4), (11, 0), (12, 0), (5, 0)]),
            IpAddr::V6(_) => pick(rng, &[(1, 4), (2, 0), (3, 0), (4, 1), (5, 0)]),
        };
        let quoted = if rng.bool() {
            about
        } else {
            self.twisted(rng, about)
        };
        control::icmp_error(router, to, kind, rng.u32(..).to_be_bytes(), &quoted)
    }

    /// What keeps a link alive, from those who may send it and those who may not.
    fn control(&self, rng: &mut Rng) -> Vec<u8> {
        let own4 = self.local.iter().find_map(|a| match a {
            IpAddr::V4(a) => Some(*a),
            IpAddr::V6(_) => None,
        });
        let own6 = self.local.iter().find_map(|a| match a {
            IpAddr::V6(a) => Some(*a),
            IpAddr::V4(_) => None,
        });
        let a4 = own4.filter(|_| rng.bool()).unwrap_or_else(|| ipv4(rng));
        let a6 = own6.filter(|_| rng.bool()).unwrap_or_else(|| ipv6(rng));
        let (b4, b6) = (ipv4(rng), ipv6(rng));
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(rng.u8(..3)));
        let packet = match rng.u8(..16) {
            0 => return Ethernet::default().arp_request(a4, b4),
            1 => return Ethernet::default().arp_reply(a4, b4),
            2 => control::router_solicitation(link_local),
            3 => control::router_advertisement(pick(rng, &[link_local, a6])),
            4 | 5 => control::neighbor_solicitation(pick(rng, &[link_local, a6]), b6),
            6 | 7 => control::neighbor_advertisement(a6, b6, pick(rng, &[a6, b6])),
            8 => control::redirect(link_local, a6, b6, b6),
            9 => control::mld_report(link_local, "ff02::fb".parse().expect("an address")),
            10 => control::mld_query(link_local),
            11 => control::igmp_report(a4, Ipv4Addr::new(224, 0, 0, 251)),
            12 => control::dhcp_discover(),
            13 => control::dhcp_offer(a4, b4),
            14 => control::dhcpv6_solicit(link_local),
            _ => control::dhcpv6_reply(link_local, a6),
        };
        match rng.u8(..6) {
            0 => packet.hop_limit(pick(rng, &[0, 1, 64, 254])).frame(),
            1 => self.twisted(rng, packet).frame(),
            _ => packet.frame(),
        }
    }

    /// The packet, wrong or unusual in one more way.
    fn twisted(&self, rng: &mut Rng, packet: Packet) -> Packet {
        match rng.u8(..22) {
            0 => packet.ihl(rng.u8(..16)),
            1 => packet.length(pick(rng, &[0, 8, 19, 20, 21, 28, 40, 60, 1500, 65_535])),
            2 => packet.options(&bytes(rng, 40)),
            3 => packet.data_offset(rng.u8(..16)),
            4 => packet.udp_length(pick(rng, &[0, 7, 8, 9, 65_535])),
            5 => packet.flags(rng.u8(..)),
            6 => packet.version(pick(rng, &[0, 4, 5, 6, 15])),
            7 => packet.protocol(pick(
                rng,
                &[0, 1, 6, 17, 41, 43, 44, 50, 51, 58, 59, 60, 255],
            )),
            8..11 => {
                let headers = (0..rng.u8(1..12))
                    .map(|_| extension(rng))
                    .collect::<Vec<_>>();
                headers.into_iter().fold(packet, Packet::extension)
            }
            11..14 => packet.fragment(fragment(rng)),
            14 => {
                let parts = packet.fragments(rng.u32(..4), usize::from(rng.u8(8..40)));
                rng.choice(parts).unwrap_or(packet)
            }
            15 => packet.hop_limit(pick(rng, &[0, 1, 255])),
            16 => packet.checksum(rng.u16(..)),
            17 => packet.trailer(&bytes(rng, 60)),
            18 => packet.payload(&bytes(rng, 200)),
            19 => packet.ethertype(odd_ethertype(rng)),
            20 => {
                let tags = (0..rng.u8(1..5))
                    .map(|_| (tpid(rng), rng.u16(..)))
                    .collect();
                packet.ethernet(Ethernet {
                    tags,
                    ..Ethernet::default()
                })
            }
            _ => {
                let twisted = special_address(rng, packet.source());
                if rng.bool() {
                    packet.from(twisted)
                } else {
                    packet.to(twisted)
                }
            }
        }
    }
}

fn addresses_of<'policy>(
    name: &InterfaceName,
    interface: &'policy Interface,
    hosts: &'policy HostAddresses,
) -> impl Iterator<Item = IpAddr> + use<'policy> {
    let held = match interface.side {
        Side::Guest => Some(&interface.addresses),
        Side::Host => hosts.get(name),
    };
    held.into_iter().flatten().copied()
}

/// What a packet holds besides its addresses.
enum Content {
    Tcp { port: u16 },
    Udp { port: u16 },
    Icmp { v6: bool, kind: u8, code: u8 },
    Other { protocol: u8 },
}

fn content_of(rng: &mut Rng, traffic: Traffic, v6: bool) -> Content {
    let icmp = |rng: &mut Rng, v6, matched| {
        let (kind, code) = match matched {
            IcmpMatch::Any => (pick(rng, &ICMP_TYPES), rng.u8(..2)),
            IcmpMatch::Type(kind) => (kind, rng.u8(..3)),
            IcmpMatch::TypeCode(kind, code) => (kind, code),
        };
        Content::Icmp { v6, kind, code }
    };
    match traffic {
        Traffic::All => any_content(rng, v6),
        Traffic::Tcp(range) => Content::Tcp {
            port: port_in(rng, range.first(), range.last()),
        },
        Traffic::Udp(range) => Content::Udp {
            port: port_in(rng, range.first(), range.last()),
        },
        Traffic::Icmp(matched) => icmp(rng, false, matched),
        Traffic::Icmpv6(matched) => icmp(rng, true, matched),
        Traffic::Protocol(protocol) => Content::Other { protocol },
    }
}

fn content_beside(rng: &mut Rng, traffic: Traffic, v6: bool) -> Content {
    let edge = |rng: &mut Rng, first: u16, last: u16| {
        pick(rng, &[first.wrapping_sub(1), last.wrapping_add(1)])
    };
    match traffic {
        Traffic::Tcp(r) if rng.bool() => Content::Tcp {
            port: edge(rng, r.first(), r.last()),
        },
        Traffic::Tcp(r) => Content::Udp { port: r.first() },
        Traffic::Udp(r) if rng.bool() => Content::Udp {
            port: edge(rng, r.first(), r.last()),
        },
        Traffic::Udp(r) => Content::Tcp { port: r.last() },
        Traffic::Icmp(IcmpMatch::TypeCode(kind, code)) => Content::Icmp {
            v6: false,
            kind,
            code: code.wrapping_add(1),
        },
        Traffic::Icmpv6(IcmpMatch::TypeCode(kind, code)) => Content::Icmp {
            v6: true,
            kind,
            code: code.wrapping_add(1),
        },
        Traffic::Icmp(_) => Content::Icmp {
            v6: true,
            kind: pick(rng, &ICMP_TYPES),
            code: 0,
        },
        Traffic::Icmpv6(_) => Content::Icmp {
            v6: false,
            kind: pick(rng, &ICMP_TYPES),
            code: 0,
        },
        Traffic::Protocol(number) => Content::Other {
            protocol: without_header(number.wrapping_add(1)),
        },
        Traffic::All => any_content(rng, v6),
    }
}

fn any_content(rng: &mut Rng, v6: bool) -> Content {
    match rng.u8(..10) {
        0..4 => Content::Tcp {
            port: pick(rng, &PORTS),
        },
        4..7 => Content::Udp {
            port: pick(rng, &PORTS),
        },
        7 | 8 => Content::Icmp {
            v6,
            kind: pick(rng, &ICMP_TYPES),
            code: rng.u8(..2),
        },
        _ => Content::Other {
            protocol: other_protocol(rng),
        },
    }
}

fn packet_of(
    rng: &mut Rng,
    direction: Direction,
    local: IpAddr,
    peer: IpAddr,
    content: impl FnOnce(&mut Rng, bool) -> Content,
) -> Packet {
    let (from, to) = match direction {
        Direction::Ingress => (peer, local),
        Direction::Egress => (local, peer),
    };
    let client = pick(rng, &[40_000, 40_001, 50_000, 1]);
    let packet = match content(rng, to.is_ipv6()) {
        Content::Tcp { port } => {
            // Mostly connection attempts; the rest is what pick-up and replies look like.
            let chosen = match rng.u8(..10) {
                0 => flags::SYN | flags::ACK,
                1 => flags::ACK,
                2 => pick(
                    rng,
                    &[flags::RST, flags::FIN | flags::ACK, flags::PSH | flags::ACK],
                ),
                _ => flags::SYN,
            };
            Packet::tcp((from, client).into(), (to, port).into()).flags(chosen)
        }
        Content::Udp { port } => Packet::udp((from, client).into(), (to, port).into()),
        Content::Icmp {
            v6: false,
            kind,
            code,
        } => Packet::icmp(from, to, kind, code).echo_identifier(u16::from(rng.u8(..4))),
        Content::Icmp {
            v6: true,
            kind,
            code,
        } => Packet::icmpv6(from, to, kind, code).echo_identifier(u16::from(rng.u8(..4))),
        Content::Other { protocol } => Packet::raw(from, to, protocol),
    };
    packet.payload(&vec![0x78; usize::from(rng.u8(..64))])
}

/// The packet with what a well-behaved sender or network may add.
fn decorated(rng: &mut Rng, packet: Packet) -> Packet {
    let packet = match rng.u8(..20) {
        0 => packet.vlan(5),
        1 => packet.service_vlan(7).vlan(5),
        2 => packet.options(&[1, 1, 148, 4, 0, 0]),
        3 => packet.extension(Extension::destination(&[1, 2, 0, 0])),
        4 => packet.extension(Extension::hop_by_hop(&[5, 2, 0, 0])),
        5 => packet.tcp_options(&[2, 4, 5, 180, 1, 3, 3, 7]),
        6 => packet.from_mac(pick(rng, &SOURCES)),
        _ => packet,
    };
    match rng.u8(..20) {
        0 => packet.trailer(&[0; 18]),
        1 => packet.traffic_class(0xb8),
        2 => packet.fragments(rng.u32(..8), 40).swap_remove(0),
        3 => packet.dont_fragment(),
        _ => packet,
    }
}

/// The frame cut short, with bits turned over, or as it is.
fn damaged(rng: &mut Rng, mut frame: Vec<u8>) -> Vec<u8> {
    match rng.u8(..4) {
        0 => frame.truncate(rng.usize(SHORTEST_FRAME..=frame.len())),
        1 => {
            for _ in 0..rng.u8(1..=8) {
                // Headers are where it hurts; what is past them is payload.
                let end = frame.len().min(100);
                frame[rng.usize(..end)] ^= 1 << rng.u8(..8);
            }
        }
        _ => {}
    }
    frame
}

fn noise(rng: &mut Rng) -> Vec<u8> {
    let mut frame = Ethernet::default().frame(odd_ethertype(rng), &[]);
    frame.extend(bytes(rng, 200));
    frame
}

fn odd_ethertype(rng: &mut Rng) -> u16 {
    use ethernet::{ARP, EAPOL, IPV4, IPV6, LLDP, MPLS, PPPOE_SESSION, PTP, SLOW};
    match rng.bool() {
        true => pick(
            rng,
            &[
                IPV4,
                IPV6,
                ARP,
                MPLS,
                PPPOE_SESSION,
                SLOW,
                EAPOL,
                LLDP,
                PTP,
                0x8915,
                38,
                0x0600,
            ],
        ),
        false => rng.u16(..),
    }
}

fn tpid(rng: &mut Rng) -> u16 {
    pick(
        rng,
        &[ethernet::VLAN, ethernet::VLAN, ethernet::QINQ, 0x9100],
    )
}

fn extension(rng: &mut Rng) -> Extension {
    let header = match rng.u8(..9) {
        0 | 1 => Extension::hop_by_hop(&bytes(rng, 14)),
        2 | 3 => Extension::destination(&bytes(rng, 30)),
        4 => Extension::routing(pick(rng, &[0, 2, 3, 4, 253]), rng.u8(..3)),
        5 => Extension::authentication(),
        6 | 7 => Extension::fragment(fragment(rng)),
        _ => Extension::raw(rng.u8(..), &bytes(rng, 24)),
    };
    if percent(rng, 15) {
        header.claiming(rng.u8(..))
    } else {
        header
    }
}

fn fragment(rng: &mut Rng) -> Fragment {
    let offset = pick(rng, &[0, 0, 8, 16, 24, 1480, 65_528]);
    Fragment {
        identification: rng.u32(..4),
        offset,
        more: rng.bool(),
    }
}

fn bytes(rng: &mut Rng, most: usize) -> Vec<u8> {
    let length = rng.usize(..=most);
    (0..length).map(|_| rng.u8(..)).collect()
}

fn port_in(rng: &mut Rng, first: u16, last: u16) -> u16 {
    match rng.u8(..4) {
        0 => first,
        1 => last,
        _ => rng.u16(first..=last),
    }
}

/// The first address, the last, one of the universe if the prefix has it, or any.
fn address_in(rng: &mut Rng, prefix: IpNet) -> IpAddr {
    let v6 = matches!(prefix, IpNet::V6(_));
    let familiar = (0..8)
        .map(|_| of_family(rng, v6))
        .find(|address| prefix.contains(address));
    match rng.u8(..10) {
        0 => prefix.network(),
        1 => prefix.broadcast(),
        2 => random_bits(rng, prefix),
        _ => familiar.unwrap_or_else(|| random_bits(rng, prefix)),
    }
}

fn random_bits(rng: &mut Rng, prefix: IpNet) -> IpAddr {
    match prefix {
        IpNet::V4(p) => {
            Ipv4Addr::from_bits(p.network().to_bits() | rng.u32(..) & p.hostmask().to_bits()).into()
        }
        IpNet::V6(p) => {
            Ipv6Addr::from_bits(p.network().to_bits() | rng.u128(..) & p.hostmask().to_bits())
                .into()
        }
    }
}

fn beside(rng: &mut Rng, address: IpAddr) -> IpAddr {
    let bit = rng.u8(..4);
    match address {
        IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits() ^ 1 << (bit * 8)).into(),
        IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits() ^ 1 << (bit * 24)).into(),
    }
}

fn of_family(rng: &mut Rng, v6: bool) -> IpAddr {
    if v6 {
        ipv6(rng).into()
    } else {
        ipv4(rng).into()
    }
}

/// An address that no packet should come from, or that is its other end's.
fn special_address(rng: &mut Rng, other: IpAddr) -> IpAddr {
    match other {
        IpAddr::V4(other) => pick(
            rng,
            &[
                Ipv4Addr::UNSPECIFIED,
                Ipv4Addr::LOCALHOST,
                Ipv4Addr::BROADCAST,
                Ipv4Addr::new(224, 0, 0, 251),
                Ipv4Addr::new(240, 0, 0, 1),
                Ipv4Addr::new(169, 254, 169, 254),
                other,
            ],
        )
        .into(),
        IpAddr::V6(other) => pick(
            rng,
            &[
                Ipv6Addr::UNSPECIFIED,
                Ipv6Addr::LOCALHOST,
                Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
                Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped(),
                Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
                other,
            ],
        )
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::policy::{host_addresses, policy};
    use crate::random::seeded;

    /// Every frame of many aims, with what it was aimed at.
    fn each_frame(
        make: impl Fn(&Aim<'_>, &mut Rng, Direction) -> Vec<u8>,
        mut look: impl FnMut(&Aim<'_>, Direction, &[u8]),
    ) {
        let mut rng = seeded("frames");
        for _ in 0..40 {
            let policy = policy(&mut rng);
            let hosts = host_addresses(&mut rng, &policy);
            for vpc in policy.vpcs.values() {
                for (name, interface) in &vpc.interfaces {
                    let aim = Aim::at(vpc, name, interface, &hosts);
                    for direction in [Direction::Ingress, Direction::Egress] {
                        for _ in 0..40 {
                            look(&aim, direction, &make(&aim, &mut rng, direction));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn valid_frames_mostly_name_the_interface_at_the_right_end() {
        let (mut own, mut all) = (0, 0);
        each_frame(
            |aim, rng, direction| aim.valid(rng, direction),
            |aim, direction, frame| {
                let at = if direction == Direction::Ingress {
                    4
                } else {
                    0
                };
                let Some([0x08, 0x00, ip @ ..]) = frame.get(12..) else {
                    return;
                };
                let Some(&[a, b, c, d]) = ip.get(12 + at..16 + at) else {
                    return;
                };
                all += 1;
                own += usize::from(aim.local.contains(&Ipv4Addr::new(a, b, c, d).into()));
            },
        );
        assert!(own * 2 > all && own < all, "{own} of {all}");
    }

    #[test]
    fn what_lands_beside_a_protocol_has_no_ports_to_lack() {
        let mut rng = seeded("beside");
        for number in [0, 5, 16, 57, 255] {
            let content = content_beside(&mut rng, Traffic::Protocol(number), false);
            let Content::Other { protocol } = content else {
                panic!("{number}: a protocol")
            };
            assert!(
                !matches!(protocol, 1 | 6 | 17 | 58),
                "beside {number} is {protocol}"
            );
        }
    }

    #[test]
    fn no_frame_is_shorter_than_an_ethernet_header() {
        each_frame(
            |aim, rng, direction| aim.valid(rng, direction),
            |_, _, frame| assert!(frame.len() >= SHORTEST_FRAME),
        );
        each_frame(
            |aim, rng, direction| aim.hostile(rng, direction),
            |_, _, frame| assert!(frame.len() >= SHORTEST_FRAME),
        );
    }

    #[test]
    fn hostile_frames_differ_and_some_are_cut_within_their_headers() {
        let mut seen = std::collections::HashSet::new();
        let (mut all, mut short) = (0, 0);
        each_frame(
            |aim, rng, direction| aim.hostile(rng, direction),
            |_, _, frame| {
                all += 1;
                short += usize::from(frame.len() < 14 + 20);
                seen.insert(frame.to_vec());
            },
        );
        assert!(seen.len() * 10 > all * 8, "{} of {all} differ", seen.len());
        assert!(short * 100 > all, "{short} of {all} are short");
    }
}
