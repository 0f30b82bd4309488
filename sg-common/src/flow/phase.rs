//! The phases of a flow's life, and how long each lasts without a packet.

/// Where in its life a flow is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Phase(pub u8);

impl Phase {
    /// TCP: one side has sent SYN.
    pub const SYN_SENT: Self = Self(1);
    /// TCP: the other side has answered with SYN.
    pub const SYN_RECEIVED: Self = Self(2);
    /// TCP: first seen in the middle of its life, from one side.
    pub const PICKED_UP: Self = Self(3);
    /// TCP: open both ways.
    pub const ESTABLISHED: Self = Self(4);
    /// TCP: one side has sent FIN, and the other has acknowledged it.
    pub const HALF_CLOSED: Self = Self(5);
    /// TCP: both sides have sent FIN, and acknowledged it.
    pub const CLOSING: Self = Self(6);
    /// TCP: an RST at the sequence number its receiver expects has passed.
    pub const RESET: Self = Self(7);
    /// UDP: one way, or one request and its response.
    pub const SINGLE: Self = Self(8);
    /// UDP: more than one request and response.
    pub const STREAM: Self = Self(9);
    /// An ICMP request.
    pub const ICMP: Self = Self(10);
    /// Any other protocol.
    pub const OTHER: Self = Self(11);
    /// TCP: an RST within the window has passed, which its receiver may have answered with a challenge
    /// (RFC 5961 §3): the next segment shows that the connection is alive.
    pub const CHALLENGED: Self = Self(12);

    /// The word people and JSON use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SYN_SENT => "syn-sent",
            Self::SYN_RECEIVED => "syn-received",
            Self::PICKED_UP => "picked-up",
            Self::ESTABLISHED => "established",
            Self::HALF_CLOSED => "half-closed",
            Self::CLOSING => "closing",
            Self::RESET => "closed",
            Self::SINGLE => "single",
            Self::STREAM => "stream",
            Self::ICMP => "icmp",
            Self::OTHER => "other",
            Self::CHALLENGED => "challenged",
            _ => "unknown",
        }
    }

    /// How long a flow in this phase lives without a packet.
    #[inline(always)]
    pub const fn timeout(self, timeouts: &TimeoutTicks) -> u32 {
        match self {
            Self::SYN_SENT | Self::SYN_RECEIVED | Self::PICKED_UP => timeouts.tcp_opening,
            Self::ESTABLISHED => timeouts.tcp_established,
            Self::HALF_CLOSED => timeouts.tcp_half_closed,
            Self::CLOSING => timeouts.tcp_closing,
            Self::RESET | Self::CHALLENGED => timeouts.tcp_reset,
            Self::SINGLE => timeouts.udp,
            Self::STREAM => timeouts.udp_stream,
            Self::ICMP => timeouts.icmp,
            _ => timeouts.other,
        }
    }

    /// Whether a SYN may open the connection anew (RFC 9293 §3.6.1, RFC 6191).
    #[inline(always)]
    pub const fn may_reopen(self) -> bool {
        matches!(self, Self::CLOSING | Self::RESET)
    }
}

/// Idle timeouts in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct TimeoutTicks {
    /// TCP whose handshake is not complete.
    pub tcp_opening: u32,
    /// TCP with both sides open.
    pub tcp_established: u32,
    /// TCP that one side has closed.
    pub tcp_half_closed: u32,
    /// TCP that both sides have closed.
    pub tcp_closing: u32,
    /// TCP after a reset.
    pub tcp_reset: u32,
    /// UDP one way, or one request and its response.
    pub udp: u32,
    /// UDP with more than one request and response.
    pub udp_stream: u32,
    /// ICMP requests.
    pub icmp: u32,
    /// Every other protocol.
    pub other: u32,
    /// What became of a first fragment.
    pub fragment: u32,
}
