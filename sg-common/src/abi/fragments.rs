//! First fragments, and packets that wait for theirs.

use crate::addr::Addr;
use crate::ids::{RuleSlot, Ticks};

/// Which first fragment a later one belongs to (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentKey {
    /// Sender.
    pub source: Addr,
    /// Receiver.
    pub destination: Addr,
    /// The packet's identification.
    pub id: u32,
    /// `Interface::slot`.
    pub interface: u32,
    /// The protocol, or the next header after the fragment header.
    pub protocol: u8,
    /// `Direction::number`.
    pub direction: u8,
    /// Always zero.
    pub padding: [u8; 2],
}

/// What became of a first fragment, or of later ones that came before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FragmentVerdict {
    /// Until when it counts.
    pub deadline: Ticks,
    /// Bytes of payload the first fragment had: nothing later may reach below. While it is awaited,
    /// where the lowest fragment before it begins: it may not reach beyond.
    pub judged_bytes: u32,
    /// The rule it passed by. While it is awaited, how many fragments came before it.
    pub rule: RuleSlot,
    /// One of the constants; anything else is dropped.
    pub passed: u32,
}

impl FragmentVerdict {
    /// The first fragment was dropped.
    pub const DROPPED: u32 = 0;
    /// The first fragment passed.
    pub const PASSED: u32 = 1;
    /// The first fragment is awaited.
    pub const AWAITED: u32 = 2;
    /// Nothing is known; no entry says so.
    pub const UNKNOWN: u32 = 3;
}

/// How many packets of an interface wait for their first fragment. Two CPUs that count at once may
/// lose a count: the bound is not exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Awaiting {
    /// Packets whose later fragments have passed.
    pub packets: u32,
    /// When that was last counted.
    pub counted: Ticks,
}

impl Awaiting {
    /// The most packets that wait at once. What is lost on its way is given up one a tick, so that
    /// room for all of them comes back within seconds.
    pub const MOST: u32 = 256;
    /// The most fragments of one packet that pass before its first one: the largest packet in pieces
    /// of 256 bytes.
    pub const MOST_FRAGMENTS: u32 = 256;

    /// With those left out that were given up since.
    #[inline(always)]
    const fn at(self, now: Ticks) -> Self {
        let ticks = now.0.wrapping_sub(self.counted.0);
        Self {
            packets: self.packets.saturating_sub(ticks),
            counted: now,
        }
    }

    /// Whether another packet may wait.
    #[inline(always)]
    pub const fn has_room(self, now: Ticks) -> bool {
        self.at(now).packets < Self::MOST
    }

    /// With one more.
    #[inline(always)]
    #[must_use]
    pub const fn with_one(self, now: Ticks) -> Self {
        let current = self.at(now);
        Self {
            packets: current.packets + 1,
            ..current
        }
    }

    /// With one less.
    #[inline(always)]
    #[must_use]
    pub const fn without_one(self, now: Ticks) -> Self {
        let current = self.at(now);
        Self {
            packets: current.packets.saturating_sub(1),
            ..current
        }
    }
}

const _: () = {
    assert!(size_of::<FragmentKey>() == 44);
    assert!(size_of::<FragmentVerdict>() == 16);
    assert!(size_of::<Awaiting>() == 8);
};
