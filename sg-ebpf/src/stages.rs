//! The stages of the judgement as global functions.
//!
//! The verifier checks a global function once and by itself, assuming nothing of its arguments but
//! their sizes, so that the ways through one don't multiply with those through the next.

use sg_common::abi::Interface;
use sg_common::decide::{Outcome, Scratch, Stage, Stages, Trace, judge, run_stage};
use sg_common::ids::RuleSlot;
use sg_common::packet::Direction;
use sg_common::report::{Decision, Reason, Verdict};

use crate::context::Context;
use crate::counters;
use crate::events;
use crate::registers::{direction, pack, pack_outcome, unpack, unpack_outcome};
use crate::tables::{Maps, Reach};
use crate::trace::{self, STEPS};

impl<R: Reach> Stages for Maps<R> {
    #[inline(always)]
    fn stage<T: Trace>(
        &self,
        stage: Stage,
        _desk: &mut Scratch,
        _direction: Direction,
        _interface: &Interface,
        _trace: &T,
    ) -> Outcome {
        call(stage, self.context)
    }
}

/// Calls the function of a stage.
#[inline(always)]
fn call(stage: Stage, context: *mut Context) -> Outcome {
    unpack_outcome(match stage {
        Stage::Related => sg_stage_related(context),
        Stage::Flow => sg_stage_flow(context),
        Stage::Untracked => sg_stage_untracked(context),
        Stage::CrossingSyn => sg_stage_crossing_syn(context),
        Stage::Admit => sg_stage_admit(context),
        Stage::Open(rule) => sg_stage_open(context, rule.0),
        Stage::Link => sg_stage_link(context),
        Stage::Guard => sg_stage_guard(context),
        Stage::Exempt => sg_stage_exempt(context),
        Stage::Fragment => sg_stage_fragment(context),
        Stage::Carried(direction) => sg_stage_carried(context, direction.number()),
        Stage::Await => sg_stage_await(context),
        Stage::Remember(decision) => {
            sg_stage_remember(context, decision.rule.0, decision.reason.number())
        }
    })
}

#[inline(always)]
fn run(stage: Stage, context: *mut Context) -> u64 {
    const REFUSED: Decision = Decision::without_rule(Reason::NoInterface);
    if context.is_null() {
        return pack(REFUSED);
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let context = unsafe { &mut *context };
    let maps = Maps::of_context(context);
    let Some(interface) = maps.interface() else {
        return pack(REFUSED);
    };
    let direction = direction(context.direction);
    pack_outcome(run_stage(
        stage,
        &mut context.scratch,
        direction,
        interface,
        &maps,
        &STEPS,
    ))
}

macro_rules! stages {
    ($($name:ident = $stage:ident,)*) => {$(
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $name(context: *mut Context) -> u64 {
            run(Stage::$stage, context)
        }
    )*};
}

stages! {
    sg_stage_related = Related,
    sg_stage_flow = Flow,
    sg_stage_untracked = Untracked,
    sg_stage_crossing_syn = CrossingSyn,
    sg_stage_admit = Admit,
    sg_stage_link = Link,
    sg_stage_guard = Guard,
    sg_stage_exempt = Exempt,
    sg_stage_fragment = Fragment,
    sg_stage_await = Await,
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_stage_open(context: *mut Context, rule: u32) -> u64 {
    run(Stage::Open(RuleSlot(rule)), context)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_stage_carried(context: *mut Context, way: u32) -> u64 {
    run(Stage::Carried(direction(way)), context)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_stage_remember(context: *mut Context, rule: u32, reason: u32) -> u64 {
    let reason = Reason::from_number(reason).unwrap_or(Reason::NoPolicy);
    run(
        Stage::Remember(Decision {
            reason,
            rule: RuleSlot(rule),
        }),
        context,
    )
}

/// Judges what is on the scratch, counts, and tells who reads along. Returns 1 to pass.
#[inline(always)]
pub(crate) fn judge_read(context: *mut Context) -> u32 {
    // SAFETY: the context is this CPU's.
    let admitted = unsafe { (*context).admitted };
    let decision = if admitted.is_some() {
        sg_stage_open(context, admitted.0)
    } else {
        sg_judge(context)
    };
    let passed = sg_conclude(context, decision);
    trace::tell(context, decision);
    passed
}

/// Judges what is on the scratch.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_judge(context: *mut Context) -> u64 {
    const REFUSED: Decision = Decision::without_rule(Reason::NoInterface);
    if context.is_null() {
        return pack(REFUSED);
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let context = unsafe { &mut *context };
    let maps = Maps::of_context(context);
    let Some(interface) = maps.interface() else {
        return pack(REFUSED);
    };
    let refusal = Reason::from_number(context.refusal).unwrap_or(Reason::NoInterface);
    let direction = direction(context.direction);
    pack(judge(
        &mut context.scratch,
        refusal,
        direction,
        interface,
        &maps,
        &STEPS,
    ))
}

/// Concludes the judgement of what is on the scratch. Returns 1 to pass.
///
/// A function of its own: its stack is then gone while the judgement runs.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_conclude(context: *mut Context, decision: u64) -> u32 {
    if context.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let context = unsafe { &mut *context };
    let Some(interface) = Maps::of_context(context).interface() else {
        return 0;
    };
    let verdict = conclude(
        context,
        interface,
        direction(context.direction),
        unpack(decision),
    );
    u32::from(verdict == Verdict::Pass)
}

/// Counts a decision, tells who reads along, and says what becomes of the packet.
#[inline(always)]
pub(crate) fn conclude(
    context: &Context,
    interface: &Interface,
    direction: Direction,
    decision: Decision,
) -> Verdict {
    let headers = &context.scratch.headers;
    counters::count(interface.slot, direction, decision, headers);
    events::report(
        context.interface,
        context.generation,
        direction,
        decision,
        headers,
    );
    interface.enforce(decision.reason)
}
