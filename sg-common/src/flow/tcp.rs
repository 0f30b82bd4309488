//! What a TCP segment does to its flow.
//!
//! It follows RFC 9293, keeps to RFC 5961 where a forged segment could do harm, and gets in step again
//! with both sides as nf_conntrack does. Neither side's word is enough to end a connection that is
//! alive: an RST ends it at the exact number that its receiver expects, a FIN when its receiver has
//! acknowledged it, and a SYN opens another one when the other side answers it.
//!
//! Until a leg has acknowledged anything, its place in [`FlowState::ack`] has another meaning. When a
//! SYN is sent, that of the initiator is the lowest acknowledgment that answers its last SYN, and that
//! of the responder the same for its first SYN. When it is answered, each leg's place is the lowest
//! acknowledgment which that leg may send.

use super::phase::Phase;
use super::state::{FlowState, Growth, Leg, StateChange};
use crate::parse::Headers;
use crate::protocol::TcpFlags;

/// The largest shift RFC 7323 §2.3 allows; taken when a connection's scales were never seen.
const LARGEST_SCALE: u8 = 14;

/// How far a connection may have come when the answer to its SYN is seen again.
const NEARBY: u32 = 1 << 20;

/// The leg has sent FIN, and the other one has acknowledged it; shifted by the leg, as the next two.
const CLOSED: u8 = 1;
/// The leg has sent FIN.
const FIN: u8 = 1 << 2;
/// The leg has sent a SYN over a connection that was known already.
const SYN_AGAIN: u8 = 1 << 4;
/// A segment may do more than move numbers.
const WATCHED: u8 = 1 << 6;
/// It was the peer that has reset the connection.
const RESET_BY_PEER: u8 = 1 << 7;

/// Whether `value` is in `first..=last`, on the circle of sequence numbers.
#[inline(always)]
const fn within(first: u32, value: u32, last: u32) -> bool {
    value.wrapping_sub(first) <= last.wrapping_sub(first)
}

/// Whether `a` comes after `b` on the circle of sequence numbers.
#[inline(always)]
const fn after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

/// One past the last sequence number of a segment.
#[inline(always)]
const fn end_of(headers: &Headers) -> u32 {
    headers.tcp_seq.wrapping_add(headers.tcp_length)
}

/// The lowest acknowledgment that answers a SYN.
#[inline(always)]
const fn answer_to(syn: &Headers) -> u32 {
    syn.tcp_seq.wrapping_add(1)
}

impl FlowState {
    /// Takes note of the first segment.
    #[inline(always)]
    pub(super) fn open_tcp(&mut self, headers: &Headers, leg: Leg) {
        if headers.tcp_flags.has(TcpFlags::SYN) {
            leg.other().put(&mut self.ack, answer_to(headers));
            self.put_syn(headers, leg);
        } else {
            leg.put(&mut self.end, end_of(headers));
            leg.put(&mut self.ack, headers.tcp_ack);
            leg.put(&mut self.window, headers.tcp_window);
            self.scales = LARGEST_SCALE << 4 | LARGEST_SCALE;
        }
    }

    /// Takes note of the initiator's last SYN.
    #[inline(always)]
    fn put_syn(&mut self, headers: &Headers, leg: Leg) {
        leg.put(&mut self.end, end_of(headers));
        leg.put(&mut self.ack, answer_to(headers));
        leg.put(&mut self.window, headers.tcp_window);
        self.set_scale(leg, headers.window_scale);
    }

    #[inline(always)]
    const fn scale(&self, leg: Leg) -> u8 {
        self.scales >> (leg as u8 * 4) & 0x0f
    }

    #[inline(always)]
    const fn set_scale(&mut self, leg: Leg, scale: u8) {
        self.scales = match leg {
            Leg::Local => self.scales & 0xf0 | scale & 0x0f,
            Leg::Peer => self.scales & 0x0f | scale << 4,
        };
    }

    #[inline(always)]
    const fn is_marked(&self, mark: u8, leg: Leg) -> bool {
        self.marks & mark << leg as u8 != 0
    }

    /// Whether a leg of a TCP flow has sent a FIN that its receiver has accepted, or may yet.
    #[must_use]
    pub const fn has_sent_fin(&self, leg: Leg) -> bool {
        self.is_marked(CLOSED | FIN, leg)
    }

    /// What a segment does to an embryonic flow.
    #[inline(always)]
    pub(super) fn grow_tcp(&mut self, headers: &Headers, leg: Leg, from_initiator: bool) -> Growth {
        match (self.phase, from_initiator) {
            (_, true) if headers.tcp_flags.is_plain_syn() => {
                self.open_again(headers, leg);
                Growth::Stay
            }
            (Phase::SYN_SENT, true) => self.go_on_unanswered(headers, leg),
            (Phase::SYN_SENT, false) => self.answer_syn(headers, leg),
            (Phase::SYN_RECEIVED, true) => self.complete(headers, leg),
            (Phase::SYN_RECEIVED, false) => self.answer_again(headers, leg),
            (_, true) => {
                self.advance(headers, leg);
                Growth::Stay
            }
            (_, false) => self.answer_midway(headers, leg),
        }
    }

    /// A SYN of the initiator, where one was seen before. It may be forged, or the initiator may have
    /// begun anew, so what is known of the first one's handshake is kept beside it.
    #[inline(always)]
    fn open_again(&mut self, headers: &Headers, leg: Leg) {
        let other = leg.other();
        if self.phase == Phase::SYN_RECEIVED {
            if answer_to(headers) == other.of(&self.ack) {
                return;
            }
            self.marks |= SYN_AGAIN << leg as u8;
        } else if self.phase != Phase::SYN_SENT {
            other.put(&mut self.ack, answer_to(headers));
            self.marks = 0;
        }
        self.put_syn(headers, leg);
        self.phase = Phase::SYN_SENT;
    }

    /// The initiator goes on before its last SYN is answered.
    #[inline(always)]
    fn go_on_unanswered(&mut self, headers: &Headers, leg: Leg) -> Growth {
        let flags = headers.tcp_flags;
        let other = leg.other();
        let first = other.of(&self.ack);
        let was_answered = self.is_marked(SYN_AGAIN, leg);
        if flags.has(TcpFlags::RST) {
            let expected = if was_answered {
                first
            } else {
                leg.of(&self.end)
            };
            return if headers.tcp_seq == expected {
                Growth::End
            } else {
                Growth::Stay
            };
        }
        if was_answered && flags.has(TcpFlags::ACK) && headers.tcp_ack == other.of(&self.end) {
            // It has never sent the other SYN.
            leg.put(&mut self.end, first);
            return self.establish(headers, leg);
        }
        Growth::Stay
    }

    /// Whether an acknowledgment covers what the other leg has sent, and no more.
    #[inline(always)]
    fn acknowledges(&self, headers: &Headers, leg: Leg) -> bool {
        headers.tcp_flags.has(TcpFlags::ACK)
            && within(
                leg.of(&self.ack),
                headers.tcp_ack,
                leg.other().of(&self.end),
            )
    }

    /// The other side's first packet after a SYN.
    #[inline(always)]
    fn answer_syn(&mut self, headers: &Headers, leg: Leg) -> Growth {
        let flags = headers.tcp_flags;
        let other = leg.other();
        let first = leg.of(&self.ack);
        let answers_last = flags.has(TcpFlags::ACK)
            && within(other.of(&self.ack), headers.tcp_ack, other.of(&self.end));
        let answers_first = flags.has(TcpFlags::ACK) && headers.tcp_ack == first;
        let answers = answers_last || answers_first;
        if flags.has(TcpFlags::RST) {
            return if answers { Growth::End } else { Growth::Refuse };
        }
        if !flags.has(TcpFlags::SYN) {
            // A bare acknowledgment of something else comes from a connection that only the other
            // side still knows (RFC 9293 §3.5.1): the initiator resets that, and tries again.
            let is_challenge = headers.tcp_length == 0 && !answers;
            return if is_challenge || self.is_marked(SYN_AGAIN, other) {
                Growth::Stay
            } else {
                Growth::Refuse
            };
        }
        if flags.has(TcpFlags::ACK) && !answers {
            return Growth::Refuse;
        }
        if answers_first && !answers_last {
            other.put(&mut self.end, first);
        } else {
            let last = other.of(&self.ack);
            leg.put(&mut self.ack, last);
        }
        self.put_answer(headers, leg);
        self.marks = 0;
        Growth::Stay
    }

    /// Takes note of a SYN-ACK, or of a SYN that crosses the first one.
    #[inline(always)]
    fn put_answer(&mut self, headers: &Headers, leg: Leg) {
        leg.put(&mut self.end, end_of(headers));
        leg.other().put(&mut self.ack, answer_to(headers));
        leg.put(&mut self.window, headers.tcp_window);
        // Scaling is in force only when both SYNs offer it (RFC 7323 §2.2); an absent option reads
        // as 0 and leaves the other side's scale in place, which only widens the window.
        self.set_scale(leg, headers.window_scale);
        self.phase = Phase::SYN_RECEIVED;
    }

    /// The initiator goes on when its SYN is answered.
    #[inline(always)]
    fn complete(&mut self, headers: &Headers, leg: Leg) -> Growth {
        if headers.tcp_flags.has(TcpFlags::RST) {
            return if headers.tcp_seq == leg.of(&self.end) {
                Growth::End
            } else {
                Growth::Stay
            };
        }
        if self.acknowledges(headers, leg) {
            return self.establish(headers, leg);
        }
        // It acknowledges an answer that was seen before the last one, or none.
        self.advance(headers, leg);
        Growth::Stay
    }

    #[inline(always)]
    fn establish(&mut self, headers: &Headers, leg: Leg) -> Growth {
        leg.put(&mut self.ack, headers.tcp_ack);
        self.advance(headers, leg);
        self.phase = Phase::ESTABLISHED;
        self.marks = 0;
        self.note_fin(headers, leg);
        Growth::Assure
    }

    /// The responder goes on when it has answered the SYN.
    #[inline(always)]
    fn answer_again(&mut self, headers: &Headers, leg: Leg) -> Growth {
        let flags = headers.tcp_flags;
        let other = leg.other();
        if flags.has(TcpFlags::RST) {
            // What does not end it may be for an acknowledgment of an earlier answer.
            return if within(other.of(&self.ack), headers.tcp_seq, leg.of(&self.end)) {
                Growth::End
            } else {
                Growth::Stay
            };
        }
        if flags.is_plain_syn() {
            // That of a simultaneous open (RFC 9293 figure 7).
            return Growth::Stay;
        }
        if !self.acknowledges(headers, leg) {
            return Growth::Refuse;
        }
        if flags.has(TcpFlags::SYN) {
            // Again, or with another number: a SYN cookie, or a service that was restarted.
            if answer_to(headers) != other.of(&self.ack) {
                self.put_answer(headers, leg);
            }
            return Growth::Stay;
        }
        // A responder that sends data, or acknowledges some, has had an answer to its SYN, or sent
        // its first data with it (RFC 7413). A bare acknowledgment may be a challenge.
        if headers.tcp_length == 0 && !after(headers.tcp_ack, leg.of(&self.ack)) {
            return Growth::Stay;
        }
        let known = self.is_in_window(headers, leg);
        if !known {
            other.put(&mut self.ack, headers.tcp_seq);
        }
        if !known || after(end_of(headers), leg.of(&self.end)) {
            leg.put(&mut self.end, end_of(headers));
        }
        self.be_answered(headers, leg)
    }

    /// The first answer of a connection that is picked up in its midst.
    #[inline(always)]
    fn answer_midway(&mut self, headers: &Headers, leg: Leg) -> Growth {
        if headers.tcp_flags.has(TcpFlags::RST) {
            return if headers.tcp_seq == leg.other().of(&self.ack) {
                Growth::End
            } else {
                Growth::Refuse
            };
        }
        if headers.tcp_flags.has(TcpFlags::SYN) {
            return Growth::Refuse;
        }
        leg.put(&mut self.end, end_of(headers));
        self.be_answered(headers, leg)
    }

    #[inline(always)]
    fn be_answered(&mut self, headers: &Headers, leg: Leg) -> Growth {
        leg.put(&mut self.ack, headers.tcp_ack);
        leg.put(&mut self.window, headers.tcp_window);
        self.phase = Phase::ESTABLISHED;
        self.marks = 0;
        self.note_fin(headers, leg);
        Growth::Assure
    }

    /// Whether a segment may do more to an assured flow than move its numbers.
    #[inline(always)]
    pub(super) const fn is_moment(&self, headers: &Headers) -> bool {
        let control = TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0;
        headers.tcp_flags.0 & control != 0 || self.marks & WATCHED != 0
    }

    /// What a segment does to an assured flow.
    #[inline(always)]
    pub(super) fn update_tcp(&mut self, headers: &Headers, leg: Leg) -> StateChange {
        if headers.tcp_flags.has(TcpFlags::SYN) {
            return self.synchronize(headers, leg);
        }
        if headers.tcp_flags.has(TcpFlags::RST) {
            return self.reset(headers, leg);
        }
        if self.phase == Phase::SYN_RECEIVED {
            if self.is_marked(SYN_AGAIN, leg) {
                self.complete(headers, leg);
            } else {
                self.answer_again(headers, leg);
            }
            return StateChange::State;
        }
        let acknowledged = leg.of(&self.ack);
        let moved = self.advance(headers, leg);
        if self.phase == Phase::RESET {
            // What was sent before the RST ends before it: who acknowledges more has heard more.
            let was_reset = (self.marks & RESET_BY_PEER != 0) == (leg as u8 == Leg::Local as u8);
            if !was_reset || !after(leg.of(&self.ack), acknowledged) {
                return moved;
            }
        }
        let before = (self.phase, self.marks);
        self.marks &= !RESET_BY_PEER;
        self.note_fin(headers, leg);
        if (self.phase, self.marks) == before {
            moved
        } else {
            StateChange::State
        }
    }

    /// A SYN or SYN-ACK within a connection that is known. The receiver of a SYN answers it with a
    /// challenge if the connection is alive (RFC 5961 §4), and with a SYN-ACK if it knows none: then
    /// both sides agree on another connection than this flow has.
    #[inline(always)]
    fn synchronize(&mut self, headers: &Headers, leg: Leg) -> StateChange {
        let other = leg.other();
        if headers.tcp_flags.is_plain_syn() {
            // The SYN that this connection began with, again.
            let behind = other.of(&self.ack).wrapping_sub(headers.tcp_seq);
            if behind <= NEARBY || self.is_marked(SYN_AGAIN, leg) {
                return StateChange::Nothing;
            }
            self.marks |= SYN_AGAIN << leg as u8;
            return StateChange::State;
        }
        // The answer that this connection began with, again.
        let behind = other.of(&self.end).wrapping_sub(headers.tcp_ack);
        let again = behind <= NEARBY && self.is_in_window(headers, leg);
        if again || !self.is_marked(SYN_AGAIN, other) {
            return StateChange::Nothing;
        }
        other.put(&mut self.end, headers.tcp_ack);
        leg.put(&mut self.ack, headers.tcp_ack);
        // Of the SYN no more is known than that it came.
        self.set_scale(other, LARGEST_SCALE);
        self.put_answer(headers, leg);
        self.marks = SYN_AGAIN << other as u8 | WATCHED;
        StateChange::State
    }

    /// RFC 5961 §3: a reset counts only at the exact sequence number that the receiver expects, and is
    /// answered with a challenge elsewhere in the window.
    #[inline(always)]
    fn reset(&mut self, headers: &Headers, leg: Leg) -> StateChange {
        let other = leg.other();
        let expected = other.of(&self.ack);
        let answers_syn = self.is_marked(SYN_AGAIN, other) && headers.tcp_flags.has(TcpFlags::ACK);
        // A keep-alive begins before what is expected, and may be all that was seen of a leg.
        let end = leg.of(&self.end);
        let last = if after(expected, end) { expected } else { end };
        if headers.tcp_seq == expected || answers_syn {
            self.phase = Phase::RESET;
            self.marks = self.marks & (CLOSED | CLOSED << 1) | WATCHED;
            if let Leg::Peer = leg {
                self.marks |= RESET_BY_PEER;
            }
        } else if self.phase != Phase::RESET && within(expected, headers.tcp_seq, last) {
            self.phase = Phase::CHALLENGED;
            self.marks |= WATCHED;
        } else {
            return StateChange::Nothing;
        }
        StateChange::State
    }

    /// Takes note of a FIN that the receiver will accept, of its acknowledgment, and of what shows that
    /// it was none; and of the phase that follows.
    #[inline(always)]
    fn note_fin(&mut self, headers: &Headers, leg: Leg) {
        let other = leg.other();
        let end = end_of(headers);
        if headers.tcp_flags.has(TcpFlags::FIN) {
            if !self.is_marked(CLOSED, leg) && self.is_in_window(headers, leg) {
                leg.put(&mut self.end, end);
                self.marks |= FIN << leg as u8;
            }
        } else if leg.of(&self.end) == end && headers.tcp_length > 0 {
            // Data that reaches further than the FIN, which has no more numbers of its own.
            self.marks &= !(FIN << leg as u8);
        }
        if self.is_marked(FIN, other) && leg.of(&self.ack) == other.of(&self.end) {
            self.marks &= !(FIN << other as u8);
            self.marks |= CLOSED << other as u8;
        }
        self.phase = match self.marks & (CLOSED | CLOSED << 1) {
            0 => Phase::ESTABLISHED,
            3 => Phase::CLOSING,
            _ => Phase::HALF_CLOSED,
        };
        self.marks = if self.marks & (FIN | FIN << 1) == 0 {
            self.marks & !WATCHED
        } else {
            self.marks | WATCHED
        };
    }

    /// Whether a segment begins in the window the other leg offers.
    #[inline(always)]
    fn is_in_window(&self, headers: &Headers, leg: Leg) -> bool {
        let other = leg.other();
        let window = u32::from(other.of(&self.window)) << self.scale(other).min(LARGEST_SCALE);
        let first = other.of(&self.ack);
        // A zero window still admits the byte that probes it; and what is resent lies before.
        let resent = after(first, headers.tcp_seq)
            && first.wrapping_sub(headers.tcp_seq) <= window.wrapping_add(65_536);
        resent || headers.tcp_seq.wrapping_sub(first) <= window.wrapping_add(1)
    }

    /// Moves end, acknowledgment and window forward.
    #[inline(always)]
    pub(super) fn advance(&mut self, headers: &Headers, leg: Leg) -> StateChange {
        let mut change = StateChange::Nothing;
        let end = end_of(headers);
        if after(end, leg.of(&self.end)) && self.is_in_window(headers, leg) {
            leg.put(&mut self.end, end);
            change = StateChange::Numbers;
        }
        if headers.tcp_flags.has(TcpFlags::ACK) {
            let ack = headers.tcp_ack;
            // No leg acknowledges what was not sent.
            let sent = !after(ack, leg.other().of(&self.end));
            if sent && after(ack, leg.of(&self.ack)) {
                leg.put(&mut self.ack, ack);
                change = StateChange::Numbers;
            }
            if sent && headers.tcp_window != leg.of(&self.window) {
                leg.put(&mut self.window, headers.tcp_window);
                change = StateChange::Numbers;
            }
        }
        change
    }
}
