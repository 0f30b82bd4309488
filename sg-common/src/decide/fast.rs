//! The short way to a decision, for the packets that come most often: those of assured flows, those
//! that rules open to everyone admit, and those that no rule admits.
//!
//! It comes to the same decision as the long way or to none. It opens no flow, moves none between the
//! tables, and remembers no fragment. Of a packet that is the first of its flow it says which rule admits
//! it: what is left of the long way is to read all of it, and to open the flow.

use super::exempt::may_be_exempt;
use super::question::{Question, is_plain_syn};
use super::scratch::Desk;
use crate::abi::{Interface, InterfaceFlags};
use crate::addr::Addr;
use crate::flow::{FlowKey, FlowState, Leg, Passage};
use crate::ids::RuleSlot;
use crate::packet::{Direction, Packet};
use crate::parse::{Headers, read_plain};
use crate::protocol::TCP;
use crate::report::{Decision, Reason};
use crate::tables::{Glance, Passing, Tables};

/// What a short way comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtOnce {
    /// The decision.
    Decided(Decision),
    /// The packet is the first of a flow, which this rule admits: [`Stage::Open`](super::Stage::Open).
    Admitted(RuleSlot),
}

/// Judges a packet, if the answer is near, and leaves on the desk what was read of it. `None`: read it
/// again, and [`judge`](super::judge).
#[inline(always)]
pub fn at_once<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    direction: Direction,
    interface: &Interface,
    tables: &T,
    desk: &mut Desk,
) -> Option<AtOnce> {
    if interface.flags.has(InterfaceFlags::BARE) {
        return None;
    }
    read_plain(packet, &mut desk.headers)?;
    let question = Question {
        direction,
        interface,
        tables,
        trace: &(),
    };
    if question.has_known_macs() {
        let [first, last] = packet.linear_words::<2>(6)?;
        if !question.is_guests_on_link(&Addr::from_mac(first, (last >> 16) as u16)) {
            return None;
        }
    }
    question.at_once(desk)
}

impl<T: Tables> Question<'_, T, ()> {
    /// Whether the packet is a guest's whose link-layer addresses are known.
    #[inline(always)]
    fn has_known_macs(&self) -> bool {
        let known = InterfaceFlags(InterfaceFlags::GUEST.0 | InterfaceFlags::MACS_KNOWN.0);
        self.interface.flags.has(known) && matches!(self.direction, Direction::Egress)
    }

    #[inline(always)]
    fn at_once(&self, desk: &mut Desk) -> Option<AtOnce> {
        let Desk {
            headers,
            key,
            state,
            ..
        } = desk;
        let headers = &*headers;
        if self.is_guest() && !self.is_guarded(headers) {
            return None;
        }
        let packet = OnDesk {
            question: self,
            headers,
        };
        self.shortly(headers, key, state, &packet)
    }

    /// Judges a packet whose headers have been read. `key` and `state` are places to write on.
    #[inline(always)]
    pub(super) fn shortly(
        &self,
        headers: &Headers,
        key: &mut FlowKey,
        state: &mut FlowState,
        packet: &impl Passing,
    ) -> Option<AtOnce> {
        let decided = |reason, rule| Some(AtOnce::Decided(Decision { reason, rule }));
        if may_be_exempt(headers) || headers.peer(self.direction).may_be_link_local_service() {
            return None;
        }
        let is_syn = is_plain_syn(headers);
        if !is_syn {
            *key = FlowKey::of(headers, self.direction, self.interface.zone);
            let mut rule = RuleSlot::NONE;
            match self.tables.pass_along(key, state, packet) {
                Glance::Found(rule) => return decided(Reason::Tracked, rule),
                Glance::Unsure => return None,
                Glance::Absent if self.is_untracked(headers, self.direction, &mut rule) => {
                    return decided(Reason::Untracked, rule);
                }
                Glance::Absent if headers.protocol == TCP && !self.may_pick_up(headers) => {
                    return decided(Reason::NoFlow, RuleSlot::NONE);
                }
                Glance::Absent => {}
            }
        }
        match self.admitted(headers, self.direction) {
            Ok(admitted) if is_syn && admitted.untracked => {
                decided(Reason::Untracked, admitted.rule)
            }
            Ok(admitted) => Some(AtOnce::Admitted(admitted.rule)),
            Err(Reason::NoRule) if !is_syn || !self.may_cross_syn() => {
                decided(Reason::NoRule, RuleSlot::NONE)
            }
            Err(_) => None,
        }
    }

    /// Whether a SYN that no rule admits may answer one that went the other way.
    #[inline(always)]
    fn may_cross_syn(&self) -> bool {
        let went = self.direction.opposite();
        self.tables
            .may_cross_syn(went, self.interface.timeouts.tcp_opening)
    }

    /// Whether a packet does no more to an assured flow than to move its numbers.
    #[inline(always)]
    pub(super) fn may_pass(&self, headers: &Headers, state: &FlowState) -> bool {
        let is_judged = if self.owns(state) {
            let admitted = state.generation;
            admitted.is_before(self.interface.judge_again_before)
        } else {
            self.has_opened(state)
        };
        !is_judged && !state.takes_time(headers, self.direction)
    }

    /// What such a packet does.
    #[inline(always)]
    pub(super) fn passage(&self, headers: &Headers, state: &mut FlowState) -> Passage {
        Passage {
            leg: Leg::sending(self.direction),
            has_moved: state.live_at_once(headers, self.direction),
            timeout: state.phase.timeout(&self.interface.timeouts),
        }
    }
}

/// A packet whose headers are on the desk.
struct OnDesk<'a, T> {
    question: &'a Question<'a, T, ()>,
    headers: &'a Headers,
}

impl<T: Tables> Passing for OnDesk<'_, T> {
    const KEY_IN_MEMORY: bool = true;

    #[inline(always)]
    fn size(&self) -> (u32, u32) {
        (self.headers.packets, self.headers.bytes)
    }

    #[inline(always)]
    fn may_pass(&self, state: &FlowState) -> bool {
        self.question.may_pass(self.headers, state)
    }

    #[inline(always)]
    fn passage(&self, state: &mut FlowState) -> Passage {
        self.question.passage(self.headers, state)
    }
}
