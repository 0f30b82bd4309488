//! Values as they go from one function of a program to another: in one register.

use sg_common::decide::Outcome;
use sg_common::ids::RuleSlot;
use sg_common::packet::Direction;
use sg_common::report::{Decision, Reason};

/// A decision in one register.
#[inline(always)]
pub(crate) fn pack(decision: Decision) -> u64 {
    u64::from(decision.rule.0) << 8 | u64::from(decision.reason.number())
}

#[inline(always)]
pub(crate) fn unpack(packed: u64) -> Decision {
    let reason = Reason::from_number((packed & 0xff) as u32).unwrap_or(Reason::NoPolicy);
    Decision {
        reason,
        rule: RuleSlot((packed >> 8) as u32),
    }
}

/// [`Outcome::Continue`]; no decision is packed so.
const CONTINUE: u64 = u64::MAX;

/// An outcome in one register.
#[inline(always)]
pub(crate) fn pack_outcome(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Decided(decision) => pack(decision),
        Outcome::Continue => CONTINUE,
    }
}

#[inline(always)]
pub(crate) fn unpack_outcome(packed: u64) -> Outcome {
    match packed {
        CONTINUE => Outcome::Continue,
        decision => Outcome::Decided(unpack(decision)),
    }
}

#[inline(always)]
pub(crate) fn direction(number: u32) -> Direction {
    if number == Direction::Ingress.number() {
        Direction::Ingress
    } else {
        Direction::Egress
    }
}
