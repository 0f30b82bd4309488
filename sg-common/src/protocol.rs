//! The protocols that the decision knows: their numbers, TCP's control bits, and the roles of ICMP
//! messages.

use network_types::ip::IpProto;

/// Internet Control Message Protocol.
pub const ICMP: u8 = IpProto::Icmp as u8;
/// Internet Group Management Protocol.
pub const IGMP: u8 = IpProto::Igmp as u8;
/// Transmission Control Protocol.
pub const TCP: u8 = IpProto::Tcp as u8;
/// User Datagram Protocol.
pub const UDP: u8 = IpProto::Udp as u8;
/// ICMP for IPv6.
pub const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;

/// TCP control bits (RFC 9293 §3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// The sender has finished.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// The connection is void.
    pub const RST: Self = Self(0x04);
    /// The acknowledgment field counts.
    pub const ACK: Self = Self(0x10);

    /// Whether all of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// SYN without ACK, RST or FIN: the first packet of a connection.
    #[inline(always)]
    pub const fn is_plain_syn(self) -> bool {
        self.0 & 0x17 == Self::SYN.0
    }

    /// ACK without SYN, RST or FIN: a segment in the midst of a connection.
    #[inline(always)]
    pub const fn is_plain_ack(self) -> bool {
        self.0 & 0x17 == Self::ACK.0
    }

    /// From the word that has them in its second byte.
    #[inline(always)]
    pub const fn of(flags_window: u32) -> Self {
        Self((flags_window >> 16) as u8)
    }

    /// Sequence space that so many bytes of data take, and one each for SYN and FIN.
    #[inline(always)]
    pub const fn sequence_length(self, bytes: u32) -> u32 {
        bytes + self.has(Self::SYN) as u32 + self.has(Self::FIN) as u32
    }

    /// Whether no TCP sends this: none of SYN, ACK, RST and FIN, two of SYN, RST and FIN at once, or
    /// FIN without ACK (RFC 9293 §3.10.4 has every FIN acknowledge).
    #[inline(always)]
    pub const fn is_nonsense(self) -> bool {
        let control = self.0 & 0x17;
        control == 0
            || self.has(Self(Self::SYN.0 | Self::FIN.0))
            || self.has(Self(Self::SYN.0 | Self::RST.0))
            || self.has(Self(Self::RST.0 | Self::FIN.0))
            || control == Self::FIN.0
    }
}

/// What role an ICMP message plays in a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpRole {
    /// Not ICMP.
    NotIcmp,
    /// Asks, and has an identifier.
    Request,
    /// Answers a request.
    Reply,
    /// Speaks of another packet, which it quotes.
    Error,
    /// Anything else: judged by rules alone.
    Notice,
}

impl IcmpRole {
    /// RFC 792, RFC 950, RFC 4443.
    #[inline(always)]
    pub(crate) const fn of(protocol: u8, icmp_type: u8) -> Self {
        match (protocol, icmp_type) {
            (ICMP, 8 | 13 | 15 | 17) | (ICMPV6, 128) => Self::Request,
            (ICMP, 0 | 14 | 16 | 18) | (ICMPV6, 129) => Self::Reply,
            (ICMP, 3 | 11 | 12) | (ICMPV6, 1..=4) => Self::Error,
            (ICMP | ICMPV6, _) => Self::Notice,
            _ => Self::NotIcmp,
        }
    }
}
