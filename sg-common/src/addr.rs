//! One 16-byte address for both families.
//!
//! IPv4 is held as an IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2), so that nothing after the
//! parser needs to know families. A real IPv6 packet that carries a mapped address is malformed.

use core::cmp::Ordering;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 address in network byte order.
///
/// Held as four words whose bytes in memory are the address's, so that two are compared in four
/// steps.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct Addr([u32; 4]);

/// The word whose bytes in memory are these.
#[inline(always)]
const fn word(a: u8, b: u8, c: u8, d: u8) -> u32 {
    u32::from_be_bytes([a, b, c, d]).to_be()
}

impl Addr {
    /// `::`, and what an unset address reads as.
    pub const UNSPECIFIED: Self = Self([0; 4]);
    /// `0.0.0.0`, which a DHCP client without a lease sends from.
    pub const V4_UNSPECIFIED: Self = Self::from_v4([0; 4]);
    /// The third word of every mapped address.
    const MAPPED: u32 = word(0, 0, 0xff, 0xff);

    /// Holds an IPv4 address as `::ffff:a.b.c.d`.
    #[inline(always)]
    pub const fn from_v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, 0, Self::MAPPED, word(a, b, c, d)])
    }

    /// Holds an IPv6 address; a mapped one becomes indistinguishable from IPv4.
    #[inline(always)]
    pub const fn from_v6(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Self([
            word(a, b, c, d),
            word(e, f, g, h),
            word(i, j, k, l),
            word(m, n, o, p),
        ])
    }

    /// Holds a link-layer address where sets of addresses have such, from its first four bytes and
    /// the other two.
    #[inline(always)]
    pub const fn from_mac(first: u32, last: u16) -> Self {
        Self::from_words([0, 1, first, last as u32])
    }

    /// Holds the number of a VLAN where sets of addresses have such.
    #[inline(always)]
    pub const fn from_vlan(number: u16) -> Self {
        Self::from_words([0, 2, 0, number as u32])
    }

    /// Holds an IPv6 address from its four words as numbers.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        let [a, b, c, d] = words;
        Self([a.to_be(), b.to_be(), c.to_be(), d.to_be()])
    }

    /// The sixteen bytes, in network order.
    pub const fn octets(&self) -> [u8; 16] {
        let [first, second, third, fourth] = self.words();
        let [a, b, c, d] = first.to_be_bytes();
        let [e, f, g, h] = second.to_be_bytes();
        let [i, j, k, l] = third.to_be_bytes();
        let [m, n, o, p] = fourth.to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The four words as numbers.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        let [a, b, c, d] = self.0;
        [
            u32::from_be(a),
            u32::from_be(b),
            u32::from_be(c),
            u32::from_be(d),
        ]
    }

    /// The upper and the lower half as numbers.
    #[inline(always)]
    pub const fn halves(&self) -> (u64, u64) {
        let [a, b, c, d] = self.words();
        ((a as u64) << 32 | b as u64, (c as u64) << 32 | d as u64)
    }

    /// The four words as they lie in memory, for hashing.
    #[inline(always)]
    pub const fn raw_words(&self) -> [u32; 4] {
        self.0
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let [a, b, c, _] = self.0;
        (a | b | (c ^ Self::MAPPED)) == 0
    }

    /// The family as tables index it.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        if self.is_v4() { Family::V4 } else { Family::V6 }
    }

    /// Whether this can never be the source of a packet: loopback, multicast, or IPv4's limited
    /// broadcast (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3 and §2.7). The rest of 240.0.0.0/4 is in use:
    /// Linux takes it for unicast, and clouds give it to pods.
    #[inline(always)]
    pub const fn is_impossible_source(&self) -> bool {
        let [a, b, c, d] = self.words();
        if self.is_v4() {
            return d >> 24 == 127 || d >> 28 == 0xe || d == u32::MAX;
        }
        a >> 24 == 0xff || (a | b | c) == 0 && d == 1
    }

    /// Whether this is an IPv4 multicast address, `224.0.0.0/4`.
    #[inline(always)]
    pub const fn is_v4_multicast(&self) -> bool {
        let [.., d] = self.words();
        self.is_v4() && d >> 28 == 0xe
    }

    /// Whether this is an IPv6 multicast address, `ff00::/8`.
    #[inline(always)]
    pub const fn is_v6_multicast(&self) -> bool {
        let [a, ..] = self.words();
        a >> 24 == 0xff
    }

    /// Whether this is an IPv6 link-local unicast address, `fe80::/10`.
    #[inline(always)]
    pub const fn is_v6_link_local(&self) -> bool {
        let [a, ..] = self.words();
        a >> 22 == 0xfe80 >> 6
    }

    /// Whether a link-local service may live here: 169.254.0.0/16, fe80::/10 or fd00:ec2::/32.
    #[inline(always)]
    pub const fn may_be_link_local_service(&self) -> bool {
        let [a, _, _, d] = self.words();
        if self.is_v4() {
            return d >> 16 == 0xa9fe;
        }
        a >> 22 == 0xfe80 >> 6 || a == 0xfd00_0ec2
    }

    /// The address as the standard library holds it.
    pub const fn to_ip(self) -> IpAddr {
        if self.is_v4() {
            let [.., d] = self.words();
            return IpAddr::V4(Ipv4Addr::from_bits(d));
        }
        IpAddr::V6(Ipv6Addr::from_octets(self.octets()))
    }
}

impl Ord for Addr {
    fn cmp(&self, other: &Self) -> Ordering {
        self.words().cmp(&other.words())
    }
}

impl PartialOrd for Addr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self::from_v6(v6.octets()),
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_ip(), f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which Internet protocol an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 0,
    /// IPv6.
    V6 = 1,
}

impl Family {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Addr {
        Addr::from(
            text.parse::<IpAddr>()
                .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        )
    }

    #[test]
    fn sources_that_cannot_be() {
        for text in [
            "127.0.0.1",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "::1",
            "ff02::1",
        ] {
            assert!(addr(text).is_impossible_source(), "{text}");
        }
        for text in [
            "0.0.0.0",
            "10.0.0.1",
            "223.255.255.255",
            "240.0.0.0",
            "255.255.255.254",
            "::",
            "fe80::1",
            "2001:db8::1",
        ] {
            assert!(!addr(text).is_impossible_source(), "{text}");
        }
    }

    #[test]
    fn services_live_in_link_local_blocks_only() {
        for text in ["169.254.169.254", "fd00:ec2::254", "fe80::a9fe:a9fe"] {
            assert!(addr(text).may_be_link_local_service(), "{text}");
        }
        for text in ["169.253.0.1", "10.0.0.2", "fd00:ec3::254", "2001:db8::1"] {
            assert!(!addr(text).may_be_link_local_service(), "{text}");
        }
    }

    #[test]
    fn a_mapped_address_is_ipv4() {
        assert!(addr("192.0.2.1").is_v4());
        assert_eq!(addr("192.0.2.1").to_ip(), addr("::ffff:192.0.2.1").to_ip());
        assert!(!addr("::").is_v4());
    }
}
