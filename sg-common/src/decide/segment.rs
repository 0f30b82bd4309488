//! The shortest way, for TCP over IPv4 at a host-side interface: a segment of an assured flow, one that
//! rules open to everyone admit, and a SYN that no rule does. Of a flood of SYNs, each costs only this.
//!
//! Everything is kept in registers, for one family and one direction, so that what is true of all its
//! packets is settled when the code is compiled.

use super::Question;
use super::at_once::tracked;
use crate::flow::{FlowState, Passage};
use crate::packet::{Direction, Packet};
use crate::parse::{Headers, PlainSegment, read_plain_segment};
use crate::report::{Decision, Reason};
use crate::tables::{Glance, Interface, InterfaceFlags, Passing, RuleSlot, Tables};

/// Judges a segment: [`Reason::Tracked`], [`Reason::NoRule`] or [`Reason::Untracked`]; the last two change
/// nothing, and the segment can be judged anew. `None`: it is no plain one, or there is more to look at.
#[inline(always)]
pub fn segment_at_once<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    received: bool,
    interface: &Interface,
    tables: &T,
) -> Option<Decision> {
    let InterfaceFlags(flags) = interface.flags;
    if flags & (InterfaceFlags::BARE.0 | InterfaceFlags::GUEST.0) != 0 {
        return None;
    }
    let question = Question {
        // The other way round for guests.
        direction: if received {
            Direction::Ingress
        } else {
            Direction::Egress
        },
        interface,
        tables,
        trace: &(),
    };
    match read_plain_segment(packet)? {
        PlainSegment::Syn(headers) => question.syn(&headers),
        PlainSegment::Midst(headers) => question.segment(&Segment {
            packet,
            question: &question,
            headers,
        }),
    }
}

/// A segment in the midst of its connection.
struct Segment<'a, P: ?Sized, T> {
    packet: &'a P,
    question: &'a Question<'a, T, ()>,
    headers: Headers,
}

impl<P: Packet + ?Sized, T: Tables> Passing for Segment<'_, P, T> {
    const KEY_IN_MEMORY: bool = false;

    /// Asked of the packet when it is needed: there are few registers.
    #[inline(always)]
    fn size(&self) -> (u32, u32) {
        let packets = self.packet.counted_segments().unwrap_or(1);
        (packets, self.packet.length())
    }

    #[inline(always)]
    fn may_pass(&self, state: &FlowState) -> bool {
        self.question.may_pass(&self.headers, state)
    }

    #[inline(always)]
    fn passage(&self, state: &mut FlowState) -> Passage {
        self.question.passage(&self.headers, state)
    }
}

impl<T: Tables> Question<'_, T, ()> {
    #[inline(always)]
    fn syn(&self, headers: &Headers) -> Option<Decision> {
        if headers.peer(self.direction).may_be_link_local_service() {
            return None;
        }
        match self.admitted(headers, self.direction) {
            Ok(admitted) if admitted.untracked => Some(Decision {
                reason: Reason::Untracked,
                rule: admitted.rule,
            }),
            Err(Reason::NoRule) if !self.may_cross_syn() => {
                Some(Decision::without_rule(Reason::NoRule))
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn segment<P: Packet + ?Sized>(&self, segment: &Segment<'_, P, T>) -> Option<Decision> {
        let headers = &segment.headers;
        if headers.peer(self.direction).may_be_link_local_service() {
            return None;
        }
        let key = headers.flow(self.direction, self.interface.zone);
        let mut state = FlowState::default();
        match self.tables.pass_along(&key, &mut state, segment) {
            Glance::Found(rule) => Some(tracked(rule)),
            Glance::Unsure => None,
            Glance::Absent => {
                let mut rule = RuleSlot::NONE;
                self.is_untracked(headers, self.direction, &mut rule)
                    .then_some(Decision {
                        reason: Reason::Untracked,
                        rule,
                    })
            }
        }
    }

    /// Whether a SYN that no rule admits may answer one that went the other way.
    #[inline(always)]
    pub(super) fn may_cross_syn(&self) -> bool {
        let went = self.direction.opposite();
        self.tables
            .may_cross_syn(went, self.interface.timeouts.tcp_opening)
    }
}
