//! Fragments: a first one is judged, and those behind it get what it got.

use super::question::Question;
use super::trace::Trace;
use crate::abi::{Awaiting, FragmentKey, FragmentVerdict, Scope};
use crate::ids::RuleSlot;
use crate::packet::Direction;
use crate::parse::{Headers, Part};
use crate::ports::Service;
use crate::report::{Decision, Reason, Verdict};
use crate::tables::Tables;

impl<T: Tables, R: Trace> Question<'_, T, R> {
    #[inline(always)]
    pub(super) fn fragment_key(&self, headers: &Headers) -> FragmentKey {
        FragmentKey {
            source: headers.source,
            destination: headers.destination,
            id: headers.fragment_id,
            interface: self.interface.slot,
            protocol: headers.fragment_protocol,
            direction: self.direction as u8,
            padding: [0; 2],
        }
    }

    #[inline(always)]
    pub(super) fn remember(&self, headers: &Headers, decision: Decision) {
        let passed = decision.reason.verdict() == Verdict::Pass;
        let verdict = FragmentVerdict {
            deadline: self.tables.now().after(self.interface.timeouts.fragment),
            judged_bytes: headers.end.wrapping_sub(headers.fragment_start),
            rule: decision.rule,
            passed: if passed {
                FragmentVerdict::PASSED
            } else {
                FragmentVerdict::DROPPED
            },
        };
        self.tables
            .remember_fragment(&self.fragment_key(headers), &verdict);
    }

    /// What is known of the first fragment. No option: LLVM would read its value where it has none,
    /// which the verifier refuses.
    #[inline(always)]
    pub(super) fn recall(&self, headers: &Headers) -> FragmentVerdict {
        let mut verdict = FragmentVerdict {
            passed: FragmentVerdict::UNKNOWN,
            ..FragmentVerdict::default()
        };
        if let Some(known) = self.tables.recall_fragment(&self.fragment_key(headers))
            && !known.deadline.has_passed(self.tables.now())
        {
            verdict = known;
        }
        verdict
    }

    #[inline(always)]
    pub(super) fn fragment(&self, headers: &Headers, rule: &mut RuleSlot) -> Option<Reason> {
        let first = self.recall(headers);
        if let Part::First = headers.part {
            return self.first_fragment(headers, first);
        }
        if matches!(
            first.passed,
            FragmentVerdict::UNKNOWN | FragmentVerdict::AWAITED
        ) {
            return None;
        }
        if headers.fragment_offset < first.judged_bytes {
            return Some(Reason::FragmentOverlap);
        }
        if first.passed != FragmentVerdict::PASSED {
            return Some(Reason::FragmentDropped);
        }
        *rule = first.rule;
        Some(Reason::FragmentPass)
    }

    /// A first fragment may not reach into those that have passed before it: they would replace what
    /// it is judged by.
    #[inline(always)]
    pub(super) fn first_fragment(
        &self,
        headers: &Headers,
        earlier: FragmentVerdict,
    ) -> Option<Reason> {
        if earlier.passed != FragmentVerdict::AWAITED {
            return None;
        }
        let slot = self.interface.slot;
        let awaiting = self.tables.awaiting(slot).without_one(self.tables.now());
        self.tables.set_awaiting(slot, awaiting);
        if headers.end.wrapping_sub(headers.fragment_start) > earlier.judged_bytes {
            Some(Reason::FragmentOverlap)
        } else {
            None
        }
    }

    #[inline(always)]
    pub(super) fn is_carried(&self, headers: &Headers, direction: Direction) -> bool {
        let peer = headers.peer(self.direction);
        let is_service = peer.may_be_link_local_service()
            && self
                .tables
                .set(Scope::services(self.interface.vpc, peer.family()), peer)
                .is_some();
        is_service
            || self
                .service_admitted(peer, Service::any_of(headers.protocol), direction)
                .is_ok()
    }

    #[inline(always)]
    pub(super) fn await_first(&self, headers: &Headers) -> Reason {
        let now = self.tables.now();
        let mut awaited = self.recall(headers);
        if awaited.passed == FragmentVerdict::AWAITED {
            if awaited.rule.0 >= Awaiting::MOST_FRAGMENTS {
                return Reason::FragmentUnknown;
            }
            awaited.rule.0 += 1;
            if headers.fragment_offset < awaited.judged_bytes {
                awaited.judged_bytes = headers.fragment_offset;
            }
        } else {
            let slot = self.interface.slot;
            let awaiting = self.tables.awaiting(slot);
            if !awaiting.has_room(now) {
                return Reason::FragmentUnknown;
            }
            self.tables.set_awaiting(slot, awaiting.with_one(now));
            awaited = FragmentVerdict {
                deadline: now,
                judged_bytes: headers.fragment_offset,
                rule: RuleSlot(1),
                passed: FragmentVerdict::AWAITED,
            };
        }
        awaited.deadline = now.after(self.interface.timeouts.fragment);
        self.tables
            .remember_fragment(&self.fragment_key(headers), &awaited);
        Reason::EarlyFragment
    }
}
