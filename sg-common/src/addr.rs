//! One 16-byte address for both families.
//!
//! IPv4 is held as an IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2), so that nothing after the
//! parser needs to know families. A real IPv6 packet that carries a mapped address is malformed.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 address in network byte order.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C, align(4))]
pub struct Addr([u8; 16]);

impl Addr {
    /// `::`, and what an unset address reads as.
    pub const UNSPECIFIED: Self = Self([0; 16]);
    /// `0.0.0.0`, which a DHCP client without a lease sends from.
    pub const V4_UNSPECIFIED: Self = Self::from_v4([0; 4]);

    /// Holds an IPv4 address as `::ffff:a.b.c.d`.
    #[inline(always)]
    pub const fn from_v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// Holds an IPv6 address; a mapped one becomes indistinguishable from IPv4.
    #[inline(always)]
    pub const fn from_v6(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// The sixteen bytes, in network order.
    #[inline(always)]
    pub const fn octets(&self) -> [u8; 16] {
        self.0
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        matches!(self.0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..])
    }

    /// The family as tables index it.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        if self.is_v4() { Family::V4 } else { Family::V6 }
    }

    /// Whether this can never be the source of a packet: loopback, multicast, or IPv4's class E
    /// with the limited broadcast (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3 and §2.7).
    #[inline(always)]
    pub const fn is_impossible_source(&self) -> bool {
        match self.0 {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, first, ..] => first == 127 || first >= 224,
            [0xff, ..] => true,
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] => true,
            _ => false,
        }
    }

    /// Whether this is an IPv6 link-local unicast address, `fe80::/10`.
    #[inline(always)]
    pub const fn is_v6_link_local(&self) -> bool {
        matches!(self.0, [0xfe, 0x80..=0xbf, ..])
    }

    /// Whether a link-local service may live here: 169.254.0.0/16, fe80::/10 or fd00:ec2::/32.
    #[inline(always)]
    pub const fn may_be_link_local_service(&self) -> bool {
        matches!(
            self.0,
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 169, 254, ..]
                | [0xfe, 0x80..=0xbf, ..]
                | [0xfd, 0x00, 0x0e, 0xc2, ..]
        )
    }

    /// The four 32-bit words as they lie in memory, for hashing only.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.0;
        [
            u32::from_be_bytes([a, b, c, d]),
            u32::from_be_bytes([e, f, g, h]),
            u32::from_be_bytes([i, j, k, l]),
            u32::from_be_bytes([m, n, o, p]),
        ]
    }

    /// The address as the standard library holds it.
    pub const fn to_ip(self) -> IpAddr {
        match self.0 {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => {
                IpAddr::V4(Ipv4Addr::new(a, b, c, d))
            }
            octets => IpAddr::V6(Ipv6Addr::from_octets(octets)),
        }
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
        Addr::from(text.parse::<IpAddr>().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
    }

    #[test]
    fn sources_that_cannot_be() {
        for text in ["127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "ff02::1"] {
            assert!(addr(text).is_impossible_source(), "{text}");
        }
        for text in ["0.0.0.0", "10.0.0.1", "223.255.255.255", "::", "fe80::1", "2001:db8::1"] {
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
