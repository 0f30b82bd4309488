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
use question::{Judgement, Question, is_plain_syn};

use crate::abi::{Interface, InterfaceFlags};
use crate::ids::RuleSlot;
use crate::packet::{Direction, Framing, Packet};
use crate::parse::{Content, Part};
use crate::protocol::{IcmpRole, TCP, UDP};
use crate::report::{Decision, Reason};

pub use fast::{FastDecision, decide_fast};
pub use fast_v4::decide_fast_v4;
pub use scratch::Scratch;
pub use stages::{Stage, Stages, run_stage};
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
    match question.judge(scratch, refusal) {
        Ok(decision) => decision,
        Err(reason) => Decision::without_rule(reason),
    }
}

impl<T: Stages, R: Trace> Question<'_, T, R> {
    #[inline(always)]
    fn judge(&self, scratch: &mut Scratch, refusal: Reason) -> Judgement {
        if self.is_guest() && !matches!(scratch.headers.content, Content::Refused) {
            let link = self.stage(Stage::Link, scratch);
            if link.reason != Reason::NoRule {
                return Ok(link);
            }
        }
        let headers = &scratch.headers;
        match headers.content {
            Content::Refused => return Err(refusal),
            Content::Ip => {}
            Content::Arp => return Err(Reason::LinkProtocol),
            Content::OtherArp => return Err(self.other_arp()),
            Content::LinkProtocol => return Err(self.link_protocol()),
            Content::Other => return Err(self.other_ethertype(headers)),
        }
        self.trace.step(Step::Parsed(*headers));
        if let Part::First = headers.part {
            let earlier = self.stage(Stage::Fragment, scratch);
            if earlier.reason == Reason::FragmentOverlap {
                return Ok(self.remembered(scratch, earlier));
            }
        }
        let headers = &scratch.headers;
        if may_be_exempt(headers) {
            let exempt = self.stage(Stage::Exempt, scratch);
            if exempt.reason != Reason::NoRule {
                return Ok(self.remembered(scratch, exempt));
            }
        }
        if self.is_guest() {
            let guard = self.stage(Stage::Guard, scratch);
            if guard.reason != Reason::NoRule {
                return Ok(guard);
            }
        }
        let headers = &scratch.headers;
        if let Part::Later = headers.part {
            return Ok(self.later_fragment(scratch));
        }
        let judgement = if self.is_link_local_service(headers) {
            self.link_local_service(scratch)
        } else {
            self.stateful(scratch)
        };
        if let Part::Whole = scratch.headers.part {
            return judgement;
        }
        Ok(self.remembered(scratch, judgement.unwrap_or_else(Decision::without_rule)))
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
    fn stage(&self, stage: Stage, scratch: &mut Scratch) -> Decision {
        self.tables
            .stage(stage, scratch, self.direction, self.interface, self.trace)
    }

    /// A later fragment completes nothing without the first one, which decides for the packet: it may
    /// pass before that, if it holds nothing that a packet is judged by, and its sender may send the
    /// protocol at all.
    #[inline(always)]
    fn later_fragment(&self, scratch: &mut Scratch) -> Decision {
        /// No transport header is longer: TCP's data offset counts fifteen words.
        const LONGEST_HEADER: u32 = 60;
        let known = self.stage(Stage::Fragment, scratch);
        if known.reason != Reason::FragmentUnknown
            || self.interface.flags.has(InterfaceFlags::STRICT_FRAGMENTS)
            || scratch.headers.fragment_offset < LONGEST_HEADER
        {
            return known;
        }
        let is_question =
            self.stage(Stage::Carried(self.direction), scratch).reason == Reason::Rule;
        let answers = self.direction.opposite();
        if !is_question && self.stage(Stage::Carried(answers), scratch).reason != Reason::Rule {
            return known;
        }
        self.stage(Stage::Await, scratch)
    }

    /// Passes; and what is not TCP opens a flow, by which the reply is known.
    #[inline(always)]
    fn link_local_service(&self, scratch: &mut Scratch) -> Judgement {
        let role = scratch.headers.icmp_role();
        if scratch.headers.protocol != TCP && !matches!(role, IcmpRole::Error | IcmpRole::Notice) {
            let known = self.known_flow(scratch);
            if known.reason == Reason::NoFlow {
                self.stage(Stage::Open(RuleSlot::NONE), scratch);
            }
        }
        Err(Reason::LinkLocalService)
    }

    /// Flows first and rules second, but for a plain SYN: a refused one then costs no flow lookup but
    /// one, for the crossing SYNs of a simultaneous open.
    #[inline(always)]
    fn stateful(&self, scratch: &mut Scratch) -> Judgement {
        let role = scratch.headers.icmp_role();
        if role == IcmpRole::Error && self.stage(Stage::Related, scratch).reason == Reason::Related
        {
            return Err(Reason::Related);
        }
        let is_syn = is_plain_syn(&scratch.headers);
        let opens_nothing = matches!(role, IcmpRole::Error | IcmpRole::Notice);
        if !is_syn && !opens_nothing {
            let known = self.known_flow(scratch);
            if known.reason != Reason::NoFlow {
                return Ok(known);
            }
            if matches!(scratch.headers.protocol, TCP | UDP) {
                let untracked = self.stage(Stage::Untracked, scratch);
                if untracked.reason != Reason::NoFlow {
                    return Ok(untracked);
                }
            }
            if scratch.headers.protocol == TCP && !self.may_pick_up(&scratch.headers) {
                return Err(Reason::NoFlow);
            }
        }
        let admitted = self.stage(Stage::Admit, scratch);
        if admitted.reason == Reason::NoRule && is_syn {
            return Ok(self.stage(Stage::CrossingSyn, scratch));
        }
        let untracked = admitted.reason == Reason::Untracked;
        if admitted.reason != Reason::Rule && !untracked {
            return Ok(admitted);
        }
        if opens_nothing || role == IcmpRole::Reply {
            // What neither asks nor answers, or answers nothing, opens nothing.
            return Ok(Decision {
                reason: Reason::RuleAlone,
                rule: admitted.rule,
            });
        }
        if is_syn && untracked {
            return Ok(admitted);
        }
        Ok(self.stage(Stage::Open(admitted.rule), scratch))
    }

    /// What a known flow says of the packet, or [`Reason::NoFlow`].
    #[inline(always)]
    fn known_flow(&self, scratch: &mut Scratch) -> Decision {
        let known = self.stage(Stage::Flow, scratch);
        if known.reason == Reason::TableFull {
            return self.stage(Stage::Assure, scratch);
        }
        known
    }
}
