//! The stages of the judgement, each of which the kernel verifies by itself.

use super::question::Question;
use super::scratch::Scratch;
use super::trace::Trace;
use crate::abi::Interface;
use crate::ids::RuleSlot;
use crate::packet::Direction;
use crate::report::{Decision, Reason};
use crate::tables::Tables;

/// What a stage comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The packet is judged.
    Decided(Decision),
    /// The stage has nothing to say: the judgement goes on.
    Continue,
}

impl Outcome {
    #[inline(always)]
    fn of(reason: Option<Reason>, rule: RuleSlot) -> Self {
        match reason {
            Some(reason) => Self::Decided(Decision { reason, rule }),
            None => Self::Continue,
        }
    }

    /// The decision, or else this reason.
    #[inline(always)]
    pub(super) fn or(self, reason: Reason) -> Decision {
        match self {
            Self::Decided(decision) => decision,
            Self::Continue => Decision::without_rule(reason),
        }
    }
}

/// A part of the judgement that the kernel verifies by itself, so that the ways through one don't
/// multiply with those through the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Does the packet that an ICMP error quotes belong to an allowed flow?
    Related,
    /// What does a known flow say of the packet?
    Flow,
    /// Does it belong to no tracked flow, because rules open to everyone allow both ways?
    Untracked,
    /// Does a SYN that no rule admits answer another one?
    CrossingSyn,
    /// Which rule admits it as the first packet of a flow? [`Reason::Rule`] or [`Reason::Untracked`].
    Admit,
    /// Opens a flow that this rule admits.
    Open(RuleSlot),
    /// May a guest send or get the frame by its link layer, and is ARP about the guest?
    Link,
    /// May a guest send or get the packet by its addresses?
    Guard,
    /// Is it of neighbor discovery, DHCP or others that groups never filter?
    Exempt,
    /// What became of the first fragment? For a first fragment: does it reach into one that came
    /// earlier?
    Fragment,
    /// May any packet of this protocol go between the two, by the rules of this direction or because
    /// the other is a service? [`Reason::Rule`] if it may.
    Carried(Direction),
    /// Lets a later fragment pass before its first one, if there is room.
    Await,
    /// Remembers what became of a first fragment.
    Remember(Decision),
}

/// Runs the stages.
pub trait Stages: Tables {
    /// Runs a stage of the judgement; the kernel has a function for each.
    #[inline(always)]
    fn stage<R: Trace>(
        &self,
        stage: Stage,
        scratch: &mut Scratch,
        direction: Direction,
        interface: &Interface,
        trace: &R,
    ) -> Outcome
    where
        Self: Sized,
    {
        run_stage(stage, scratch, direction, interface, self, trace)
    }
}

/// Runs one stage, for an implementation of [`Stages::stage`].
#[inline(always)]
pub fn run_stage<T: Tables, R: Trace>(
    stage: Stage,
    scratch: &mut Scratch,
    direction: Direction,
    interface: &Interface,
    tables: &T,
    trace: &R,
) -> Outcome {
    let question = Question {
        direction,
        interface,
        tables,
        trace,
    };
    let mut rule = RuleSlot::NONE;
    let reason = match stage {
        Stage::Related => question.is_related(scratch).then_some(Reason::Related),
        Stage::Flow => question.by_flow(scratch, &mut rule),
        Stage::Untracked => {
            let is_untracked = question.is_untracked(&scratch.headers, direction, &mut rule);
            is_untracked.then_some(Reason::Untracked)
        }
        Stage::CrossingSyn => {
            let joins = question.joins_crossing_syn(scratch, &mut rule);
            joins.then_some(Reason::Tracked)
        }
        Stage::Admit => match question.admitted(&scratch.headers, direction) {
            Ok(admitted) => {
                rule = admitted.rule;
                Some(if admitted.untracked {
                    Reason::Untracked
                } else {
                    Reason::Rule
                })
            }
            Err(Reason::NoRule) => None,
            Err(refusal) => Some(refusal),
        },
        Stage::Open(admitted) => {
            rule = admitted;
            Some(question.open(scratch, &mut rule))
        }
        Stage::Link => question.link(&scratch.headers),
        Stage::Guard if question.is_guarded(&scratch.headers) => None,
        Stage::Guard => Some(question.guard_reason(&scratch.headers)),
        Stage::Exempt => question.exempt(&scratch.headers),
        Stage::Carried(way) => {
            let may_go = question.is_carried(&scratch.headers, way);
            may_go.then_some(Reason::Rule)
        }
        Stage::Await => Some(question.await_first(&scratch.headers)),
        Stage::Fragment => question.fragment(&scratch.headers, &mut rule),
        Stage::Remember(decision) => {
            question.remember(&scratch.headers, decision);
            None
        }
    };
    Outcome::of(reason, rule)
}
