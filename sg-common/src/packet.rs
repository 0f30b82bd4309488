//! What the decision needs to know of a packet's bytes, and which way it goes.

use core::ops::ControlFlow;

/// Which way a packet goes, relative to the protected interface and never to the kernel's hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Direction {
    /// Towards what is protected.
    Ingress = 0,
    /// Away from what is protected.
    Egress = 1,
}

impl Direction {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The way a reply goes.
    #[inline(always)]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Ingress => Self::Egress,
            Self::Egress => Self::Ingress,
        }
    }

    /// The number tables use.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The word people use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// The options of the longest TCP header.
pub const WINDOW: u32 = 40;

/// Bytes readable by offset, however they are laid out in memory.
///
/// A frame's bytes may lie outside its linear part; an implementation answers "too short" only when
/// the kernel itself says so.
pub trait Packet {
    /// Reads `N` bytes at `offset` from the frame's first byte; `None` when the frame is shorter.
    /// `offset` is always even, since every header the parser follows has an even length.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// Reads `N` words of four bytes each, as the numbers they are in network order.
    fn load_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;

    /// The same where they lie in the frame's linear part; `None` says nothing of the frame's length.
    #[inline(always)]
    fn linear_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.load_words(offset)
    }

    /// Reads at most [`WINDOW`] bytes, and gives each by its place among them; what is given for a
    /// place behind them means nothing.
    fn window(&self, offset: u32, length: u32) -> Option<impl Fn(u32) -> u8>;

    /// Whether the frame has at least `end` bytes.
    fn reaches(&self, end: u32) -> bool;

    /// The length of the frame in bytes, for counters.
    fn length(&self) -> u32;

    /// How many VLAN tags the kernel took off the frame and keeps beside it: TC sees the outer tag
    /// that way, XDP sees it inline.
    fn tags_beside(&self) -> u32;

    /// The number of the VLAN of the tag that is kept beside the frame.
    fn vlan_beside(&self) -> u16;

    /// How many packets of the wire this one stands for (GSO), at least 1. Each of them repeats the
    /// headers, which are the first so many bytes of the frame.
    fn segments(&self, headers: u32) -> u32;

    /// The same where it takes no reckoning. `None`: the kernel has not counted them.
    #[inline(always)]
    fn counted_segments(&self) -> Option<u32> {
        Some(self.segments(0))
    }

    /// Whether the kernel has merged it from several, or will cut it into such (GSO).
    #[inline(always)]
    fn is_merged(&self) -> bool {
        false
    }

    /// Whether the kernel gives this machine its own multicast or broadcast packet back, for its own
    /// listeners. Such a copy has no link-layer header, and nothing that a wire carries can be one.
    #[inline(always)]
    fn is_own_copy(&self) -> bool {
        false
    }

    /// The EtherType, for a device that has no Ethernet header.
    fn protocol_beside(&self) -> u16;

    /// Returns the number as it is. In the kernel the verifier forgets on the way what it knows of
    /// the number, so that all turns of a loop look alike to it and it follows one of them.
    #[inline(always)]
    fn forget(&self, number: u32) -> u32 {
        number
    }

    /// Takes turns until one breaks off. In the kernel each other one ends with a jump back: the
    /// verifier of Linux 6.1 takes no loop that is entered again by falling into it.
    #[inline(always)]
    fn repeat<T: Turns>(&self, mut turns: T) -> T::Result {
        loop {
            if let ControlFlow::Break(result) = turns.turn() {
                return result;
            }
        }
    }
}

/// A loop over something in a packet. No closure: LLVM may make a function of that.
pub trait Turns {
    /// What comes out of it.
    type Result;

    /// Takes one turn.
    fn turn(&mut self) -> ControlFlow<Self::Result>;
}

/// How a device frames its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// An Ethernet header comes first.
    Ethernet,
    /// The IP header comes first (tun, WireGuard).
    Bare,
}

impl Packet for [u8] {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.get(offset as usize..)?.first_chunk().copied()
    }

    #[inline(always)]
    fn load_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let (words, _) = self.get(offset as usize..)?.as_chunks::<4>();
        let words: &[[u8; 4]; N] = words.first_chunk()?;
        Some(words.map(u32::from_be_bytes))
    }

    #[inline(always)]
    fn window(&self, offset: u32, length: u32) -> Option<impl Fn(u32) -> u8> {
        let bytes = self.get(offset as usize..)?.get(..length as usize)?;
        Some(|place| bytes.get(place as usize).copied().unwrap_or(0))
    }

    #[inline(always)]
    fn reaches(&self, end: u32) -> bool {
        self.len() as u64 >= u64::from(end)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.len() as u32
    }

    #[inline(always)]
    fn tags_beside(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn vlan_beside(&self) -> u16 {
        0
    }

    #[inline(always)]
    fn segments(&self, _headers: u32) -> u32 {
        1
    }

    #[inline(always)]
    fn protocol_beside(&self) -> u16 {
        match self.first().map(|first| first >> 4) {
            Some(4) => 0x0800,
            Some(6) => 0x86dd,
            _ => 0,
        }
    }
}
