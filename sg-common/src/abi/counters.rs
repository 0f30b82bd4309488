//! Counters of reasons and of rules.

use crate::ids::Ticks;
use crate::packet::Direction;
use crate::report::Reason;

/// Packets and bytes that had one reason at one interface in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ReasonCounter {
    /// Packets of the wire; a GSO packet counts its segments.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// The counters of all reasons at one interface in one direction, by [`Reason::number`]. They fill
/// whole cache lines: no two CPUs write one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct ReasonCounters(pub [ReasonCounter; Self::PLACES]);

impl Default for ReasonCounters {
    fn default() -> Self {
        Self([ReasonCounter::default(); Self::PLACES])
    }
}

impl ReasonCounters {
    /// One for each reason, and the rest of the last cache line.
    const PLACES: usize = Reason::COUNT.next_multiple_of(4);

    /// One reason's counter.
    pub fn of(&self, reason: Reason) -> ReasonCounter {
        let Self(counters) = self;
        let counter = counters.get(reason.number() as usize);
        counter.copied().unwrap_or_default()
    }
}

/// What a rule admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RuleCounter {
    /// Packets of the wire, those of tracked flows included.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Flows it opened.
    pub flows: u64,
    /// When it last admitted a packet; zero is never.
    pub last_hit: Ticks,
    /// Always zero.
    pub padding: u32,
}

/// Where the [`ReasonCounters`] of an interface in a direction are.
#[inline(always)]
pub const fn reasons_index(interface_slot: u32, direction: Direction) -> u32 {
    interface_slot * 2 + direction.number()
}

const _: () = {
    assert!(size_of::<RuleCounter>() == 32);
    assert!(size_of::<ReasonCounters>().is_multiple_of(64));
};
