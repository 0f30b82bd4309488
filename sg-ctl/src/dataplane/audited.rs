//! Which of the counted drops were none, because the interface was only audited at the time.
//!
//! The kernel counts what it judged and not what it did with it: one counter a reason costs a packet
//! nothing more, and an interface half the memory. So what had been counted is written down
//! whenever an interface begins or ends to be audited.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sg_common::abi::{InterfaceFlags, ReasonCounter};
use sg_common::packet::Direction;
use sg_common::report::{Reason, Verdict};

use super::Error;
use super::counters::ReasonTotals;
use crate::compile::image::{Image, InstalledInterface};

/// What had been counted when interfaces last began or ended to be audited, by their slots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AuditMarks(BTreeMap<u32, Vec<Mark>>);

/// One counter at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    direction: u32,
    reason: u32,
    /// What had been counted.
    total: Count,
    /// How much of it while audited.
    audited: Count,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Count {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Count {
    pub(super) fn of(counter: ReasonCounter) -> Self {
        let ReasonCounter { packets, bytes } = counter;
        Self { packets, bytes }
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(other.packets),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            packets: self.packets.saturating_add(other.packets),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

impl AuditMarks {
    /// How much of a counter was counted while the interface was audited.
    pub(super) fn audited(
        &self,
        (slot, interface): (u32, &InstalledInterface),
        direction: Direction,
        reason: Reason,
        total: Count,
    ) -> Count {
        if reason.verdict() == Verdict::Pass {
            return Count::default();
        }
        let marks = self.0.get(&slot).into_iter().flatten();
        let mark = marks
            .copied()
            .find(|mark| (mark.direction, mark.reason) == (direction.number(), reason.number()));
        let (before, audited) = match mark {
            Some(mark) => (mark.total, mark.audited),
            None => Default::default(),
        };
        match is_audited(interface) {
            true => audited.and(total.without(before)),
            false => audited,
        }
    }

    /// The marks for when `after` comes into force in the place of `before`; those of this moment
    /// for interfaces that begin or end to be audited.
    pub(super) fn follow(
        &self,
        before: &Image,
        after: &Image,
        totals: &ReasonTotals,
    ) -> Result<Self, Error> {
        let mut marks = BTreeMap::new();
        for (slot, interface) in &before.interfaces {
            let is_same = |next: &&InstalledInterface| {
                (&next.vpc, &next.name) == (&interface.vpc, &interface.name)
            };
            let Some(next) = after.interfaces.get(slot).filter(is_same) else {
                continue;
            };
            if is_audited(interface) != is_audited(next) {
                marks.insert(*slot, self.now(*slot, interface, totals)?);
            } else if let Some(old) = self.0.get(slot) {
                marks.insert(*slot, old.clone());
            }
        }
        Ok(Self(marks))
    }

    fn now(
        &self,
        slot: u32,
        interface: &InstalledInterface,
        totals: &ReasonTotals,
    ) -> Result<Vec<Mark>, Error> {
        let mut marks = Vec::new();
        for direction in Direction::ALL {
            let counted = totals.of(slot, direction)?;
            let dropped = Reason::ALL
                .iter()
                .filter(|reason| reason.verdict() == Verdict::Drop);
            for reason in dropped {
                let total = Count::of(counted.of(*reason));
                if total.packets > 0 {
                    marks.push(Mark {
                        direction: direction.number(),
                        reason: reason.number(),
                        total,
                        audited: self.audited((slot, interface), direction, *reason, total),
                    });
                }
            }
        }
        Ok(marks)
    }
}

fn is_audited(interface: &InstalledInterface) -> bool {
    interface.interface.flags.has(InterfaceFlags::AUDIT)
}
