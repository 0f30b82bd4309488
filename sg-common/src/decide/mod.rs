//! The decision: one packet at one interface, its verdict and the reason.
//!
//! The order is that of cost and of certainty: what the parser refuses, what groups never filter,
//! the guest's address guard, fragments, errors about flows, flows, rules. A plain SYN asks the
//! rules first, so that a refused flood never reaches the flow tables.

mod exempt;
mod fast;
mod fast_v4;
mod fragments;
mod guest;
mod question;
mod rules;
mod scratch;
mod stages;
mod stateful;
mod trace;

use exempt::may_be_exempt;
use question::{Question, is_plain_syn};

use crate::abi::{Interface, InterfaceFlags};
use crate::ids::RuleSlot;
use crate::packet::{Direction, Framing, Packet};
use crate::parse::{Content, Part};
use crate::protocol::{IcmpRole, TCP, UDP};
use crate::report::{Decision, Reason};

pub use fast::{FastDecision, decide_fast};
pub use fast_v4::decide_fast_v4;
pub use scratch::Scratch;
pub use stages::{Outcome, Stage, Stages, run_stage};
pub use trace::{RuleSource, Step, Trace};

/// Which way a packet goes, from which hook saw it.
#[inline(always)]
pub const fn direction_of(interface: &Interface, received: bool) -> Direction {
    if received == interface.flags.has(InterfaceFlags::GUEST) {
        Direction::Egress
    } else {
        Direction::Ingress
    }
}

/// Judges a received packet by how it came, before any of it is read: a packet that never leaves the
/// machine is not for groups to filter.
#[inline(always)]
pub fn by_arrival<P: Packet + ?Sized>(packet: &P) -> Option<Decision> {
    packet
        .is_own_copy()
        .then_some(Decision::without_rule(Reason::OwnCopy))
}

/// Reads and judges one packet, the long way, which is the reference for [`decide_fast()`], and leaves on
/// the scratch what was read of it.
pub fn decide<P: Packet + ?Sized, T: Stages, R: Trace>(
    packet: &P,
    direction: Direction,
    interface: &Interface,
    tables: &T,
    scratch: &mut Scratch,
    trace: &R,
) -> Decision {
    let framing = if interface.flags.has(InterfaceFlags::BARE) {
        Framing::Bare
    } else {
        Framing::Ethernet
    };
    let refusal = scratch.read(packet, framing);
    judge(scratch, refusal, direction, interface, tables, trace)
}

/// Judges the packet that was read. `refusal` is what [`Scratch::read`] returned.
#[inline(always)]
pub fn judge<T: Stages, R: Trace>(
    scratch: &mut Scratch,
    refusal: Reason,
    direction: Direction,
    interface: &Interface,
    tables: &T,
    trace: &R,
) -> Decision {
    let question = Question {
        direction,
        interface,
        tables,
        trace,
    };
    question.judge(scratch, refusal)
}

impl<T: Stages, R: Trace> Question<'_, T, R> {
    #[inline(always)]
    fn judge(&self, scratch: &mut Scratch, refusal: Reason) -> Decision {
        let is_readable = !matches!(scratch.headers.content, Content::Refused);
        if self.is_guest()
            && is_readable
            && let Outcome::Decided(decision) = self.stage(Stage::Link, scratch)
        {
            return decision;
        }
        let headers = &scratch.headers;
        match headers.content {
            Content::Refused => return Decision::without_rule(refusal),
            Content::Ip => {}
            Content::Arp => return Decision::without_rule(Reason::LinkProtocol),
            Content::OtherArp => return Decision::without_rule(self.other_arp()),
            Content::LinkProtocol => return Decision::without_rule(self.link_protocol()),
            Content::Other => return Decision::without_rule(self.other_ethertype(headers)),
        }
        self.trace.step(Step::Parsed(*headers));
        if let Part::First = headers.part
            && let Outcome::Decided(overlap) = self.stage(Stage::Fragment, scratch)
        {
            return self.remembered(scratch, overlap);
        }
        if may_be_exempt(&scratch.headers)
            && let Outcome::Decided(exempt) = self.stage(Stage::Exempt, scratch)
        {
            return self.remembered(scratch, exempt);
        }
        if self.is_guest()
            && let Outcome::Decided(refusal) = self.stage(Stage::Guard, scratch)
        {
            return refusal;
        }
        let headers = &scratch.headers;
        if let Part::Later = headers.part {
            return self.later_fragment(scratch);
        }
        let decision = if self.is_link_local_service(headers) {
            self.link_local_service(scratch)
        } else {
            self.stateful(scratch)
        };
        self.remembered(scratch, decision)
    }

    /// The decision, which is that of the packet's other fragments too.
    #[inline(always)]
    fn remembered(&self, scratch: &mut Scratch, decision: Decision) -> Decision {
        if let Part::First = scratch.headers.part {
            self.stage(Stage::Remember(decision), scratch);
        }
        decision
    }

    #[inline(always)]
    fn stage(&self, stage: Stage, scratch: &mut Scratch) -> Outcome {
        self.tables
            .stage(stage, scratch, self.direction, self.interface, self.trace)
    }

    /// Whether any packet of the protocol may go between the two in a direction.
    #[inline(always)]
    fn may_go(&self, direction: Direction, scratch: &mut Scratch) -> bool {
        self.stage(Stage::Carried(direction), scratch) != Outcome::Continue
    }

    /// A later fragment completes nothing without the first one, which decides for the packet: it may
    /// pass before that, if it holds nothing that a packet is judged by, and its sender may send the
    /// protocol at all.
    #[inline(always)]
    fn later_fragment(&self, scratch: &mut Scratch) -> Decision {
        /// No transport header is longer: TCP's data offset counts fifteen words.
        const LONGEST_HEADER: u32 = 60;
        const UNKNOWN: Decision = Decision::without_rule(Reason::FragmentUnknown);
        if let Outcome::Decided(decision) = self.stage(Stage::Fragment, scratch) {
            return decision;
        }
        if self.interface.flags.has(InterfaceFlags::STRICT_FRAGMENTS)
            || scratch.headers.fragment_offset < LONGEST_HEADER
        {
            return UNKNOWN;
        }
        let answers = self.direction.opposite();
        if !self.may_go(self.direction, scratch) && !self.may_go(answers, scratch) {
            return UNKNOWN;
        }
        self.stage(Stage::Await, scratch)
            .or(Reason::FragmentUnknown)
    }

    /// Passes; and what is not TCP opens a flow, by which the reply is known.
    #[inline(always)]
    fn link_local_service(&self, scratch: &mut Scratch) -> Decision {
        let role = scratch.headers.icmp_role();
        if scratch.headers.protocol != TCP
            && !matches!(role, IcmpRole::Error | IcmpRole::Notice)
            && self.stage(Stage::Flow, scratch) == Outcome::Continue
        {
            self.stage(Stage::Open(RuleSlot::NONE), scratch);
        }
        Decision::without_rule(Reason::LinkLocalService)
    }

    /// Flows first and rules second, but for a plain SYN: a refused one then costs no flow lookup but
    /// one, for the crossing SYNs of a simultaneous open.
    #[inline(always)]
    fn stateful(&self, scratch: &mut Scratch) -> Decision {
        let role = scratch.headers.icmp_role();
        if role == IcmpRole::Error
            && let Outcome::Decided(related) = self.stage(Stage::Related, scratch)
        {
            return related;
        }
        let is_syn = is_plain_syn(&scratch.headers);
        let opens_nothing = matches!(role, IcmpRole::Error | IcmpRole::Notice);
        if !is_syn && !opens_nothing {
            if let Outcome::Decided(known) = self.stage(Stage::Flow, scratch) {
                return known;
            }
            if matches!(scratch.headers.protocol, TCP | UDP)
                && let Outcome::Decided(untracked) = self.stage(Stage::Untracked, scratch)
            {
                return untracked;
            }
            if scratch.headers.protocol == TCP && !self.may_pick_up(&scratch.headers) {
                return Decision::without_rule(Reason::NoFlow);
            }
        }
        let admitted = match self.stage(Stage::Admit, scratch) {
            Outcome::Decided(decision) => decision,
            Outcome::Continue if is_syn => {
                return self.stage(Stage::CrossingSyn, scratch).or(Reason::NoRule);
            }
            Outcome::Continue => return Decision::without_rule(Reason::NoRule),
        };
        let untracked = admitted.reason == Reason::Untracked;
        if admitted.reason != Reason::Rule && !untracked {
            return admitted;
        }
        if opens_nothing || role == IcmpRole::Reply {
            // What neither asks nor answers, or answers nothing, opens nothing.
            return Decision {
                reason: Reason::RuleAlone,
                rule: admitted.rule,
            };
        }
        if is_syn && untracked {
            return admitted;
        }
        let open = Stage::Open(admitted.rule);
        self.stage(open, scratch).or(Reason::TableFull)
    }
}
