//! Events: one record a drop, or a new flow, for those who read along.
//!
//! The kernel writes events only while somebody reads, and never waits for a reader: what exceeds
//! the rate, or finds a reader's ring full, is counted for that reader instead. Who reads has a
//! lease that it renews; with a dead reader the lease ends and with it the writing.

use crate::addr::Addr;
use crate::ids::{Generation, RuleSlot, Ticks};
use crate::packet::Direction;
use crate::parse::Headers;
use crate::protocol::TCP;
use crate::report::{Decision, Reason, Verdict};

/// How many may read at once. Each has a ring of its own, because a ring has one reading position.
pub const EVENT_READERS: usize = 4;

/// The most events of one kind that one CPU writes in a second; about as many as a person's
/// terminal and a log's disk take without thinking.
pub const EVENTS_PER_SECOND: u32 = 1_000;

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EventKind {
    /// A packet was dropped, or would have been.
    Drop = 0,
    /// The first packet of a flow passed.
    NewFlow = 1,
}

impl EventKind {
    /// How many there are.
    pub const COUNT: usize = 2;
    /// Both, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Drop, Self::NewFlow];

    /// The kind of event that a judged packet is, if it is one.
    #[inline(always)]
    pub const fn of(reason: Reason, headers: &Headers) -> Option<Self> {
        match reason {
            // Each broadcast and flooded frame of the guest's link: nothing that was asked of it.
            Reason::NotForGuest => None,
            _ if matches!(reason.verdict(), Verdict::Drop) => Some(Self::Drop),
            Reason::Rule => Some(Self::NewFlow),
            // An untracked flow has no first packet but the one that asks for a connection.
            Reason::Untracked if headers.protocol == TCP && headers.tcp_flags.is_plain_syn() => {
                Some(Self::NewFlow)
            }
            _ => None,
        }
    }

    /// Where [`EventReader::wants`] and the counts of unseen packets have it.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Its bit in [`EventReader::wants`].
    #[inline(always)]
    pub const fn bit(self) -> u32 {
        1 << self.number()
    }
}

/// What became of one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// Nanoseconds since the machine has started (`CLOCK_BOOTTIME`).
    pub time_ns: u64,
    /// Sender; all zero when the packet was not read that far.
    pub source: Addr,
    /// Receiver; all zero when the packet was not read that far.
    pub destination: Addr,
    /// [`Interface::slot`](crate::abi::Interface::slot).
    pub interface: u32,
    /// The network namespace, as the controller numbers them.
    pub netns: u32,
    /// The kernel's number of the device in that namespace.
    pub ifindex: u32,
    /// The rule that admits it, if one does.
    pub rule: RuleSlot,
    /// The policy that judged it, and that numbers the rule.
    pub generation: Generation,
    /// Packets of the wire.
    pub packets: u32,
    /// Bytes of their frame.
    pub bytes: u32,
    /// The sender's port, or the ICMP identifier.
    pub source_port: u16,
    /// The receiver's port, or the ICMP identifier.
    pub destination_port: u16,
    /// The innermost EtherType.
    pub ethertype: u16,
    /// The IP protocol.
    pub protocol: u8,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// TCP control bits.
    pub tcp_flags: u8,
    /// [`Reason::number`].
    pub reason: u8,
    /// [`Direction::number`].
    pub direction: u8,
    /// [`EventKind::number`].
    pub kind: u8,
    /// Bits of [`EventFlags`].
    pub flags: EventFlags,
    /// [`Content`](crate::parse::Content): what of the packet could be read.
    pub content: u8,
    /// [`Part`](crate::parse::Part): a later fragment has no ports.
    pub part: u8,
    /// Always zero.
    pub padding: [u8; 2],
}

/// Yes-or-no properties of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct EventFlags(pub u8);

impl EventFlags {
    /// The interface is only audited: the packet went on whatever the verdict.
    pub const AUDITED: Self = Self(1);

    /// Whether all of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`, if `on`.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, other: Self, on: bool) -> Self {
        if on { Self(self.0 | other.0) } else { self }
    }
}

impl Event {
    /// Writes down what the headers and the decision say; where and when is for the caller.
    #[inline(always)]
    pub const fn describe(
        &mut self,
        kind: EventKind,
        direction: Direction,
        decision: Decision,
        headers: &Headers,
        audited: bool,
    ) {
        self.source = headers.source;
        self.destination = headers.destination;
        self.source_port = headers.source_port;
        self.destination_port = headers.destination_port;
        self.ethertype = headers.ethertype;
        self.protocol = headers.protocol;
        self.icmp_type = headers.icmp_type;
        self.icmp_code = headers.icmp_code;
        self.tcp_flags = headers.tcp_flags.0;
        self.packets = headers.packets;
        self.bytes = headers.bytes;
        self.rule = decision.rule;
        self.reason = decision.reason.number() as u8;
        self.direction = direction.number() as u8;
        self.kind = kind as u8;
        self.content = headers.content as u8;
        self.part = headers.part as u8;
        self.flags = EventFlags(0).with(EventFlags::AUDITED, audited);
    }
}

/// Somebody who reads events. Written by that reader alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EventReader {
    /// The kinds it wants, as bits.
    pub wants: u32,
    /// Until when it is believed to be alive.
    pub until: Ticks,
}

impl EventReader {
    /// Whether it wants this kind, and lives.
    #[inline(always)]
    pub const fn listens(self, kind: EventKind, now: Ticks) -> bool {
        self.wants & kind.bit() != 0 && !self.until.has_passed(now)
    }
}

/// What one CPU may still write, and what it has not written.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct EventScratch {
    /// The event that is being written.
    pub event: Event,
    /// By reader and kind: packets that it wanted to know of, and that were over the rate or found
    /// its ring full.
    pub unseen: [[u64; EventKind::COUNT]; EVENT_READERS],
    /// By kind: how many more may be written in this tick.
    pub left: [u32; EventKind::COUNT],
    /// When that was last set anew.
    pub tick: Ticks,
    /// Always zero.
    pub padding: u32,
}

/// How many events of one kind one CPU may write in one tick. Each tick begins with as many, so a
/// quiet CPU cannot save up for a burst that a reader could not follow.
#[inline(always)]
pub const fn events_per_tick(jiffies_per_second: u32) -> u32 {
    match (EVENTS_PER_SECOND << Ticks::SHIFT).checked_div(jiffies_per_second) {
        Some(0) | None => 1,
        Some(events) => events,
    }
}

const _: () = {
    assert!(size_of::<Event>() == 88);
    assert!(size_of::<EventReader>() == 8);
    assert!(size_of::<EventScratch>() == 168);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{TcpFlags, UDP};

    #[test]
    fn drops_and_first_packets_are_events_and_others_are_not() {
        let syn = Headers {
            protocol: TCP,
            tcp_flags: TcpFlags::SYN,
            ..Headers::default()
        };
        let datagram = Headers {
            protocol: UDP,
            ..Headers::default()
        };
        for reason in Reason::ALL {
            let expected = match reason {
                Reason::NotForGuest => None,
                _ if reason.verdict() == Verdict::Drop => Some(EventKind::Drop),
                Reason::Rule => Some(EventKind::NewFlow),
                _ => None,
            };
            assert_eq!(EventKind::of(*reason, &datagram), expected, "{reason:?}");
        }
        assert_eq!(
            EventKind::of(Reason::Untracked, &syn),
            Some(EventKind::NewFlow)
        );
    }

    #[test]
    fn a_dead_reader_stops_listening() {
        let reader = EventReader {
            wants: EventKind::Drop.bit(),
            until: Ticks(100),
        };
        assert!(reader.listens(EventKind::Drop, Ticks(99)));
        assert!(!reader.listens(EventKind::NewFlow, Ticks(99)));
        assert!(!reader.listens(EventKind::Drop, Ticks(100)));
    }

    #[test]
    fn the_rate_is_the_same_at_any_rate_of_ticks() {
        assert_eq!(events_per_tick(250), 128);
        assert_eq!(events_per_tick(1000), 32);
        assert_eq!(events_per_tick(0), 1);
    }
}
