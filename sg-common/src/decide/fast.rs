//! The short way to a decision, for the packets that come most often: those of assured flows, those
//! that rules open to everyone admit, and those that no rule admits.
//!
//! It comes to the same decision as the long way or to none. It opens no flow, moves none between the
//! tables, and remembers no fragment. Of a packet that is the first of its flow it says which rule admits
//! it: what is left of the long way is to read all of it, and to open the flow.

use super::exempt::may_be_exempt;
use super::question::{Question, is_plain_syn};
use super::scratch::Scratch;
use crate::abi::{Interface, InterfaceFlags};
use crate::addr::Addr;
use crate::flow::{FastUpdate, FlowKey, FlowState, Leg};
use crate::ids::RuleSlot;
use crate::packet::{Direction, Packet};
use crate::parse::{Headers, read_plain};
use crate::protocol::TCP;
use crate::report::{Decision, Reason};
use crate::tables::{FastFind, FastPacket, Tables};

/// What a short way comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastDecision {
    /// The decision.
    Decided(Decision),
    /// The packet is the first of a flow, which this rule admits: [`Stage::Open`](super::Stage::Open).
    Admitted(RuleSlot),
}

/// Judges a packet, if the answer is near, and leaves on the scratch what was read of it. `None`: read it
/// again, and [`judge`](super::judge).
#[inline(always)]
pub fn decide_fast<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    direction: Direction,
    interface: &Interface,
    tables: &T,
    scratch: &mut Scratch,
) -> Option<FastDecision> {
    if interface.flags.has(InterfaceFlags::BARE) {
        return None;
    }
    read_plain(packet, &mut scratch.headers)?;
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
    question.judge_scratch(scratch)
}

impl<T: Tables> Question<'_, T, ()> {
    /// Whether the packet is a guest's whose link-layer addresses are known.
    #[inline(always)]
    fn has_known_macs(&self) -> bool {
        let known = InterfaceFlags(InterfaceFlags::GUEST.0 | InterfaceFlags::MACS_KNOWN.0);
        self.interface.flags.has(known) && matches!(self.direction, Direction::Egress)
    }

    #[inline(always)]
    fn judge_scratch(&self, scratch: &mut Scratch) -> Option<FastDecision> {
        let Scratch {
            headers,
            key,
            state,
            ..
        } = scratch;
        let headers = &*headers;
        if self.is_guest() && !self.is_guarded(headers) {
            return None;
        }
        let packet = OnDesk {
            question: self,
            headers,
        };
        self.judge_fast(headers, key, state, &packet)
    }

    /// Judges a packet whose headers have been read. `key` and `state` are places to write on.
    #[inline(always)]
    pub(super) fn judge_fast(
        &self,
        headers: &Headers,
        key: &mut FlowKey,
        state: &mut FlowState,
        packet: &impl FastPacket,
    ) -> Option<FastDecision> {
        let decided = |reason, rule| Some(FastDecision::Decided(Decision { reason, rule }));
        if may_be_exempt(headers) || headers.peer(self.direction).may_be_link_local_service() {
            return None;
        }
        let is_syn = is_plain_syn(headers);
        if !is_syn {
            *key = FlowKey::of(headers, self.direction, self.interface.zone);
            let mut rule = RuleSlot::NONE;
            match self.tables.find_fast(key, state, packet) {
                FastFind::Found(rule) => return decided(Reason::Tracked, rule),
                FastFind::Unsure => return None,
                FastFind::Absent if self.is_untracked(headers, self.direction, &mut rule) => {
                    return decided(Reason::Untracked, rule);
                }
                FastFind::Absent if headers.protocol == TCP && !self.may_pick_up(headers) => {
                    return decided(Reason::NoFlow, RuleSlot::NONE);
                }
                FastFind::Absent => {}
            }
        }
        match self.admitted(headers, self.direction) {
            Ok(admitted) if is_syn && admitted.untracked => {
                decided(Reason::Untracked, admitted.rule)
            }
            Ok(admitted) => Some(FastDecision::Admitted(admitted.rule)),
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
    pub(super) fn is_simple(&self, headers: &Headers, state: &FlowState) -> bool {
        let is_judged = if self.owns(state) {
            let admitted = state.generation;
            admitted.is_before(self.interface.judge_again_before)
        } else {
            self.has_opened(state)
        };
        !is_judged && !state.needs_full_update(headers, self.direction)
    }

    /// What such a packet does.
    #[inline(always)]
    pub(super) fn fast_update(&self, headers: &Headers, state: &mut FlowState) -> FastUpdate {
        FastUpdate {
            leg: Leg::sending(self.direction),
            has_moved: state.update_fast(headers, self.direction),
            timeout: state.phase.timeout(&self.interface.timeouts),
        }
    }
}

/// A packet whose headers are on the scratch.
struct OnDesk<'a, T> {
    question: &'a Question<'a, T, ()>,
    headers: &'a Headers,
}

impl<T: Tables> FastPacket for OnDesk<'_, T> {
    const KEY_IN_MEMORY: bool = true;

    #[inline(always)]
    fn size(&self) -> (u32, u32) {
        (self.headers.packets, self.headers.bytes)
    }

    #[inline(always)]
    fn is_simple(&self, state: &FlowState) -> bool {
        self.question.is_simple(self.headers, state)
    }

    #[inline(always)]
    fn fast_update(&self, state: &mut FlowState) -> FastUpdate {
        self.question.fast_update(self.headers, state)
    }
}
