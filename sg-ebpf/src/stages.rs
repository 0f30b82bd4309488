//! The stages of the judgement as global functions.
//!
//! The verifier checks a global function once and by itself, assuming nothing of its arguments but
//! their sizes, so that the ways through one don't multiply with those through the next.

use sg_common::abi::Interface;
use sg_common::decide::{Desk, Stage, Stages, Trace, judge, run_stage};
use sg_common::ids::RuleSlot;
use sg_common::packet::Direction;
use sg_common::report::{Decision, Reason, Verdict};

use crate::context::Job;
use crate::counters;
use crate::events;
use crate::registers::{direction, pack, unpack};
use crate::tables::{Maps, Reach};

impl<R: Reach> Stages for Maps<R> {
    #[inline(always)]
    fn stage<T: Trace>(
        &self,
        stage: Stage,
        _desk: &mut Desk,
        _direction: Direction,
        _interface: &Interface,
        _trace: &T,
    ) -> Decision {
        call(stage, self.job)
    }
}

/// Calls the function of a stage.
#[inline(always)]
fn call(stage: Stage, job: *mut Job) -> Decision {
    unpack(match stage {
        Stage::Related => sg_stage_related(job),
        Stage::Flow => sg_stage_flow(job),
        Stage::Assure => sg_stage_assure(job),
        Stage::Untracked => sg_stage_untracked(job),
        Stage::CrossingSyn => sg_stage_crossing_syn(job),
        Stage::Admit => sg_stage_admit(job),
        Stage::Open(rule) => sg_stage_open(job, rule.0),
        Stage::Link => sg_stage_link(job),
        Stage::Guard => sg_stage_guard(job),
        Stage::Exempt => sg_stage_exempt(job),
        Stage::Fragment => sg_stage_fragment(job),
        Stage::Carried(direction) => sg_stage_carried(job, direction.number()),
        Stage::Await => sg_stage_await(job),
        Stage::Remember(decision) => {
            sg_stage_remember(job, decision.rule.0, decision.reason.number())
        }
    })
}

#[inline(always)]
fn run(stage: Stage, job: *mut Job) -> u64 {
    const REFUSED: Decision = Decision::without_rule(Reason::NoInterface);
    if job.is_null() {
        return pack(REFUSED);
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let job = unsafe { &mut *job };
    let maps = Maps::of_job(job);
    let Some(interface) = maps.interface() else {
        return pack(REFUSED);
    };
    let direction = direction(job.direction);
    pack(run_stage(
        stage,
        &mut job.desk,
        direction,
        interface,
        &maps,
        &(),
    ))
}

macro_rules! stages {
    ($($name:ident = $stage:ident,)*) => {$(
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $name(job: *mut Job) -> u64 {
            run(Stage::$stage, job)
        }
    )*};
}

stages! {
    sg_stage_related = Related,
    sg_stage_flow = Flow,
    sg_stage_assure = Assure,
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
extern "C" fn sg_stage_open(job: *mut Job, rule: u32) -> u64 {
    run(Stage::Open(RuleSlot(rule)), job)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_stage_carried(job: *mut Job, way: u32) -> u64 {
    run(Stage::Carried(direction(way)), job)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_stage_remember(job: *mut Job, rule: u32, reason: u32) -> u64 {
    let reason = Reason::from_number(reason).unwrap_or(Reason::NoPolicy);
    run(
        Stage::Remember(Decision {
            reason,
            rule: RuleSlot(rule),
        }),
        job,
    )
}

/// Judges what is on the desk, counts, and tells who reads along. Returns 1 to pass.
#[inline(always)]
pub(crate) fn judge_desk(job: *mut Job) -> u32 {
    // SAFETY: the job is this CPU's.
    let admitted = unsafe { (*job).admitted };
    let decision = if admitted.is_some() {
        sg_stage_open(job, admitted.0)
    } else {
        sg_judge(job)
    };
    sg_conclude(job, decision)
}

/// Judges what is on the desk.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_judge(job: *mut Job) -> u64 {
    const REFUSED: Decision = Decision::without_rule(Reason::NoInterface);
    if job.is_null() {
        return pack(REFUSED);
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let job = unsafe { &mut *job };
    let maps = Maps::of_job(job);
    let Some(interface) = maps.interface() else {
        return pack(REFUSED);
    };
    let refusal = Reason::from_number(job.refusal).unwrap_or(Reason::NoInterface);
    let direction = direction(job.direction);
    pack(judge(
        &mut job.desk,
        refusal,
        direction,
        interface,
        &maps,
        &(),
    ))
}

/// Concludes the judgement of what is on the desk. Returns 1 to pass.
///
/// A function of its own: its stack is then gone while the judgement runs.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_conclude(job: *mut Job, decision: u64) -> u32 {
    if job.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let job = unsafe { &mut *job };
    let Some(interface) = Maps::of_job(job).interface() else {
        return 0;
    };
    let verdict = conclude(job, interface, direction(job.direction), unpack(decision));
    u32::from(verdict == Verdict::Pass)
}

/// Counts a decision, tells who reads along, and says what becomes of the packet.
#[inline(always)]
pub(crate) fn conclude(
    job: &Job,
    interface: &Interface,
    direction: Direction,
    decision: Decision,
) -> Verdict {
    let headers = &job.desk.headers;
    counters::count(interface.slot, direction, decision, headers);
    events::report(job.interface, job.generation, direction, decision, headers);
    interface.enforce(decision.reason)
}
