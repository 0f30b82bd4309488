//! What the packets of one flow have in common, and where the hash of that puts the flow.

use super::kind::FlowKind;
use crate::addr::Addr;
use crate::packet::Direction;
use crate::parse::Headers;
use crate::protocol::{ICMP, IcmpRole};

/// What the packets of one flow have in common, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// The protected side's address.
    pub local: Addr,
    /// The other side's address.
    pub peer: Addr,
    /// Whose flows these are: [`Interface::zone`](crate::abi::Interface::zone).
    pub zone: u32,
    /// TCP, UDP: the protected side's port. ICMP: the identifier.
    pub local_port: u16,
    /// TCP, UDP: the other side's port. ICMP: the identifier.
    pub peer_port: u16,
    /// The IP protocol.
    pub protocol: u8,
    /// ICMP: 1 when what is protected asks, 2 when the other side does, so that leave to answer is
    /// never leave to ask; the bits above tell one kind of question from another. Other protocols:
    /// 0.
    pub asker: u8,
    /// Always zero.
    pub padding: [u8; 2],
}

impl FlowKey {
    /// The key that a packet and the other packets of its flow share.
    #[inline(always)]
    pub const fn of(headers: &Headers, direction: Direction, zone: u32) -> FlowKey {
        let (local_port, peer_port) = match direction {
            Direction::Ingress => (headers.destination_port, headers.source_port),
            Direction::Egress => (headers.source_port, headers.destination_port),
        };
        let asker = match (headers.icmp_role(), direction) {
            (IcmpRole::Request, Direction::Egress) | (IcmpRole::Reply, Direction::Ingress) => 1,
            (IcmpRole::Request, Direction::Ingress) | (IcmpRole::Reply, Direction::Egress) => 2,
            _ => 0,
        };
        // Timestamp, information and mask requests and their replies make pairs 13-14 to 17-18.
        let question = match (headers.protocol, headers.icmp_type) {
            (ICMP, 13..=18) if asker != 0 => (headers.icmp_type + 1) & !1,
            _ => 0,
        };
        Self {
            local: *headers.local(direction),
            peer: *headers.peer(direction),
            zone,
            local_port,
            peer_port,
            protocol: headers.protocol,
            asker: question << 2 | asker,
            padding: [0; 2],
        }
    }

    /// Whether the keys are equal, without a branch for each field.
    #[inline(always)]
    pub const fn is(&self, other: &Self) -> bool {
        let [a, b, c, d] = self.local.raw_words();
        let [e, f, g, h] = other.local.raw_words();
        let [i, j, k, l] = self.peer.raw_words();
        let [m, n, o, p] = other.peer.raw_words();
        let addresses =
            (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) | (i ^ m) | (j ^ n) | (k ^ o) | (l ^ p);
        let ports = (self.local_port ^ other.local_port) | (self.peer_port ^ other.peer_port);
        let rest = (self.protocol ^ other.protocol) | (self.asker ^ other.asker);
        (addresses | (self.zone ^ other.zone) | ports as u32 | rest as u32) == 0
    }

    /// Two buckets (before the mask) and a tag, from a hash keyed with numbers drawn at load.
    ///
    /// NH of UMAC (RFC 4418 §5.2): without the key, an attacker finds two flows of one bucket only by
    /// chance, and so cannot fill a bucket on purpose. A finaliser then spreads the sum over all bits.
    #[inline(always)]
    pub const fn places(&self, key: &HashKey) -> FlowPlaces {
        let [k0, k1, k2, k3, k4, k5, k6, k7, k8, k9] = key.0;
        let [a, b, c, d] = self.local.raw_words();
        let [e, f, g, h] = self.peer.raw_words();
        let ports = (self.local_port as u32) << 16 | self.peer_port as u32;
        let rest = self.zone ^ (self.protocol as u32) << 24 ^ (self.asker as u32) << 16;
        let sum = product(a, k0, b, k1)
            .wrapping_add(product(c, k2, d, k3))
            .wrapping_add(product(e, k4, f, k5))
            .wrapping_add(product(g, k6, h, k7))
            .wrapping_add(product(ports, k8, rest, k9));
        let mixed = (sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = mixed ^ mixed >> 32;
        FlowPlaces {
            first: mixed as u32,
            second: (mixed >> 24) as u32,
            tag: (mixed >> 48) as u16 & !FlowKind::ASSURED_TAG | 1,
        }
    }
}

#[inline(always)]
const fn product(a: u32, key_a: u32, b: u32, key_b: u32) -> u64 {
    (a.wrapping_add(key_a) as u64).wrapping_mul(b.wrapping_add(key_b) as u64)
}

/// Random numbers drawn when the maps are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HashKey(pub [u32; 10]);

/// Where a flow may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowPlaces {
    /// The bucket to search first.
    pub first: u32,
    /// The other bucket.
    pub second: u32,
    /// What is compared before the key, as that of an embryonic flow; always odd.
    pub tag: u16,
}

const _: () = assert!(size_of::<FlowKey>() == 44);
