//! The short way to a decision, for the packets that come most often: those of assured flows, those
//! that rules open to everyone admit, and those that no rule admits.
//!
//! It comes to the same decision as the long way or to none. It opens no flow, moves none between the
//! tables, and remembers no fragment.

use super::{Desk, Question, is_plain_syn, may_be_exempt};
use crate::addr::Addr;
use crate::flow::FlowState;
use crate::packet::{Direction, Packet};
use crate::parse::{Headers, TCP, read_plain};
use crate::report::{Decision, Reason};
use crate::tables::{Glance, Interface, InterfaceFlags, RuleSlot, Tables};

/// Judges a packet, if the answer is near, and leaves on the desk what was read of it. `None`: read it
/// again, and [`judge`](super::judge).
#[inline(always)]
pub fn at_once<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    direction: Direction,
    interface: &Interface,
    tables: &T,
    desk: &mut Desk,
) -> Option<Decision> {
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
    fn at_once(&self, desk: &mut Desk) -> Option<Decision> {
        let Desk {
            headers,
            key,
            state,
            ..
        } = desk;
        if may_be_exempt(headers)
            || headers.peer(self.direction).may_be_link_local_service()
            || (self.is_guest() && !self.is_guarded(headers))
        {
            return None;
        }
        let is_syn = is_plain_syn(headers);
        if !is_syn {
            *key = headers.flow(self.direction, self.interface.zone);
            match self.tables.glance(key, state) {
                Glance::Found(flow) => return self.assured_at_once(flow, state, headers),
                Glance::Unsure => return None,
                Glance::Absent => {}
            }
            let mut rule = RuleSlot::NONE;
            if self.is_untracked(headers, self.direction, &mut rule) {
                return Some(Decision {
                    reason: Reason::Untracked,
                    rule,
                });
            }
            // Another CPU may have moved the flow while it was looked for; nothing is dropped for that.
            if self.tables.find_either(key, state).is_some() {
                return None;
            }
            if headers.protocol == TCP && !self.may_pick_up(headers) {
                return Some(Decision::without_rule(Reason::NoFlow));
            }
        }
        match self.admitted(headers, self.direction) {
            Ok(admitted) if is_syn && admitted.untracked => Some(Decision {
                reason: Reason::Untracked,
                rule: admitted.rule,
            }),
            Err(Reason::NoRule) if !is_syn || !self.may_cross_syn() => {
                Some(Decision::without_rule(Reason::NoRule))
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn assured_at_once(
        &self,
        flow: T::Flow,
        state: &mut FlowState,
        headers: &Headers,
    ) -> Option<Decision> {
        let is_judged = if self.owns(state) {
            let admitted = state.generation;
            admitted.is_before(self.interface.judge_again_before)
        } else {
            self.has_opened(state)
        };
        if is_judged || state.takes_time(headers) {
            return None;
        }
        let change = state.live_at_once(headers, self.direction);
        self.keep(flow, state, change, headers);
        Some(Decision {
            reason: Reason::Tracked,
            rule: state.rule,
        })
    }
}
