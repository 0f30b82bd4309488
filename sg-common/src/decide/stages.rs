//! The stages of the judgement, each of which the kernel verifies by itself.

use super::question::Question;
use super::scratch::Scratch;
use super::trace::Trace;
use crate::abi::Interface;
use crate::ids::RuleSlot;
use crate::packet::Direction;
use crate::report::{Decision, Reason};
use crate::tables::Tables;

/// A part of the judgement that the kernel verifies by itself, so that the ways through one don't
/// multiply with those through the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Is the quoted packet that of an allowed flow? [`Reason::Related`] or [`Reason::NoRule`].
    Related,
    /// What does a known flow say? [`Reason::NoFlow`] when none is known; [`Reason::TableFull`] when
    /// the flow has been seen from both sides, until [`Stage::Assure`] has found room for it.
    Flow,
    /// Moves the flow that [`Stage::Flow`] has found to where it is never forgotten.
    Assure,
    /// Is it of no tracked flow, by rules open to everyone? Otherwise [`Reason::NoFlow`].
    Untracked,
    /// Does a SYN that no rule admits answer another? Otherwise [`Reason::NoRule`].
    CrossingSyn,
    /// Which rule admits it as the first packet of a flow? [`Reason::Rule`] or [`Reason::Untracked`].
    Admit,
    /// Opens a flow that this rule admits.
    Open(RuleSlot),
    /// What of its link layer does a guest not send or get, and is ARP about it? Otherwise
    /// [`Reason::NoRule`].
    Link,
    /// What does a guest not send or get, because of its addresses? Otherwise [`Reason::NoRule`].
    Guard,
    /// Neighbor discovery, DHCP and others that groups never filter; otherwise [`Reason::NoRule`].
    Exempt,
    /// What became of the first fragment? Of the first one itself: [`Reason::FragmentOverlap`] when it
    /// reaches into one that came earlier, otherwise [`Reason::NoRule`].
    Fragment,
    /// May any packet of this protocol go between the two, by the rules of this direction or because
    /// the other is a service? [`Reason::Rule`] or [`Reason::NoRule`].
    Carried(Direction),
    /// Lets a later fragment pass before its first one, if there is room: [`Reason::EarlyFragment`] or
    /// [`Reason::FragmentUnknown`].
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
    ) -> Decision
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
) -> Decision {
    let question = Question {
        direction,
        interface,
        tables,
        trace,
    };
    let mut rule = RuleSlot::NONE;
    let reason = match stage {
        Stage::Related if question.is_related(scratch) => Reason::Related,
        Stage::Related => Reason::NoRule,
        Stage::Flow => question.by_flow(scratch, &mut rule),
        Stage::Assure => question.assure(scratch, &mut rule),
        Stage::Untracked if question.is_untracked(&scratch.headers, direction, &mut rule) => {
            Reason::Untracked
        }
        Stage::Untracked => Reason::NoFlow,
        Stage::CrossingSyn if question.joins_crossing_syn(scratch, &mut rule) => Reason::Tracked,
        Stage::CrossingSyn => Reason::NoRule,
        Stage::Admit => match question.admitted(&scratch.headers, direction) {
            Ok(admitted) => {
                rule = admitted.rule;
                if admitted.untracked {
                    Reason::Untracked
                } else {
                    Reason::Rule
                }
            }
            Err(refusal) => refusal,
        },
        Stage::Open(admitted) => {
            rule = admitted;
            question.open(scratch, &mut rule)
        }
        Stage::Link => question.link(&scratch.headers),
        Stage::Guard if question.is_guarded(&scratch.headers) => Reason::NoRule,
        Stage::Guard => question.guard_reason(&scratch.headers),
        Stage::Exempt => question.exempt(&scratch.headers),
        Stage::Carried(way) if question.is_carried(&scratch.headers, way) => Reason::Rule,
        Stage::Carried(_) => Reason::NoRule,
        Stage::Await => question.await_first(&scratch.headers),
        Stage::Fragment => question.fragment(&scratch.headers, &mut rule),
        Stage::Remember(decision) => {
            question.remember(&scratch.headers, decision);
            decision.reason
        }
    };
    Decision { reason, rule }
}
