//! What is kept of a flow, and how a packet moves it from one state to the next.

use super::phase::Phase;
use crate::ids::{Generation, RuleSlot};
use crate::packet::Direction;
use crate::parse::Headers;
use crate::protocol::{ICMP, ICMPV6, TCP, TcpFlags, UDP};

/// Who sent a packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Leg {
    /// What is protected.
    Local = 0,
    /// The other side.
    Peer = 1,
}

impl Leg {
    /// Who sends in this direction.
    #[inline(always)]
    pub const fn sending(direction: Direction) -> Self {
        match direction {
            Direction::Egress => Self::Local,
            Direction::Ingress => Self::Peer,
        }
    }

    /// The local or the peer's element, found without a branch.
    #[inline(always)]
    pub fn of<T: Copy>(self, pair: &[T; 2]) -> T {
        let [local, _] = pair;
        *pair.get(self as usize & 1).unwrap_or(local)
    }

    /// Writes the local or the peer's element, as [`Leg::of`] reads it.
    #[inline(always)]
    pub(super) fn put<T>(self, pair: &mut [T; 2], value: T) {
        if let Some(place) = pair.get_mut(self as usize & 1) {
            *place = value;
        }
    }

    /// The other one.
    #[inline(always)]
    pub const fn other(self) -> Self {
        match self {
            Self::Local => Self::Peer,
            Self::Peer => Self::Local,
        }
    }
}

/// Everything the decision keeps about a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowState {
    /// The rule that admitted it.
    pub rule: RuleSlot,
    /// The policy that admitted it, or last judged it.
    pub generation: Generation,
    /// The interface slot that opened it, whose quota it counts against.
    pub owner: u32,
    /// TCP: one past the highest sequence number each leg has sent in its peer's window.
    pub end: [u32; 2],
    /// TCP: the highest acknowledgment each leg has sent; the module `tcp` says what it is until then.
    pub ack: [u32; 2],
    /// TCP: the window each leg last offered, unscaled.
    pub window: [u16; 2],
    /// Where in its life it is.
    pub phase: Phase,
    /// [`Direction`] of its first packet.
    pub initiator: u8,
    /// TCP: what else is remembered of its legs, as the module `tcp` has it.
    pub marks: u8,
    /// TCP window scales: the low nibble is the local leg's, the high the peer's.
    pub scales: u8,
}

impl FlowState {
    /// A flow that opens with this packet.
    #[inline(always)]
    pub fn opened_by(headers: &Headers, direction: Direction) -> Self {
        let mut state = Self {
            initiator: direction as u8,
            ..Self::default()
        };
        state.phase = match headers.protocol {
            TCP if headers.tcp_flags.has(TcpFlags::SYN) => Phase::SYN_SENT,
            TCP => Phase::PICKED_UP,
            UDP => Phase::SINGLE,
            ICMP | ICMPV6 => Phase::ICMP,
            _ => Phase::OTHER,
        };
        if headers.protocol == TCP {
            state.open_tcp(headers, Leg::sending(direction));
        }
        state
    }

    /// The direction of the packet that opened the flow.
    #[inline(always)]
    pub const fn initiator(&self) -> Direction {
        if self.initiator == Direction::Ingress as u8 {
            Direction::Ingress
        } else {
            Direction::Egress
        }
    }

    /// What a packet does to this embryonic flow. A function of its own in the kernel: few packets
    /// need it, and its stack is then free for the others.
    #[cfg_attr(target_arch = "bpf", inline(never))]
    pub fn grow(&mut self, headers: &Headers, direction: Direction) -> Growth {
        let from_initiator = direction as u8 == self.initiator;
        if headers.protocol == TCP {
            return self.grow_tcp(headers, Leg::sending(direction), from_initiator);
        }
        if from_initiator {
            Growth::Stay
        } else {
            Growth::Assure
        }
    }

    /// What a packet does to this assured flow. A function of its own in the kernel, as the last one.
    #[cfg_attr(target_arch = "bpf", inline(never))]
    pub fn update(&mut self, headers: &Headers, direction: Direction) -> StateChange {
        if headers.protocol == TCP {
            self.update_tcp(headers, Leg::sending(direction))
        } else {
            self.update_udp(headers, direction)
        }
    }

    /// The same of a packet that [`FlowState::needs_full_update`] does not hold of. Returns whether it has moved
    /// the sender's numbers.
    #[inline(always)]
    pub fn update_fast(&mut self, headers: &Headers, direction: Direction) -> bool {
        headers.protocol == TCP
            && matches!(
                self.advance(headers, Leg::sending(direction)),
                StateChange::Numbers
            )
    }

    /// Whether a packet may do more to this assured flow than move its numbers.
    #[inline(always)]
    pub const fn needs_full_update(&self, headers: &Headers, direction: Direction) -> bool {
        match headers.protocol {
            TCP => self.is_moment(headers),
            UDP => self.becomes_stream(direction),
            _ => false,
        }
    }

    #[inline(always)]
    const fn update_udp(&mut self, headers: &Headers, direction: Direction) -> StateChange {
        if headers.protocol == UDP && self.becomes_stream(direction) {
            self.phase = Phase::STREAM;
            return StateChange::State;
        }
        StateChange::Nothing
    }

    /// Whether a packet of UDP makes more of its flow than a request and its response.
    #[inline(always)]
    const fn becomes_stream(&self, direction: Direction) -> bool {
        self.phase.0 == Phase::SINGLE.0 && direction as u8 == self.initiator
    }
}

/// What a packet does to an embryonic flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// It stays embryonic.
    Stay,
    /// It has now been seen from both sides.
    Assure,
    /// It is over, and this packet passes.
    End,
    /// The packet does not answer what opened it.
    Refuse,
}

/// What of an assured flow's state a packet has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateChange {
    /// Nothing.
    Nothing,
    /// The numbers of the leg that sent it.
    Numbers,
    /// More than that.
    State,
}

/// A packet of an assured flow that does no more than to move its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastUpdate {
    /// Who sent it.
    pub leg: Leg,
    /// Whether it has moved its sender's numbers.
    pub has_moved: bool,
    /// How long the flow now lives without another one.
    pub timeout: u32,
}

const _: () = assert!(size_of::<FlowState>() == 36);
