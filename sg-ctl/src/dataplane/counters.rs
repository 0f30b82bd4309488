//! Reads counters out of the maps, in the model's words.

use std::collections::HashMap;
use std::path::Path;

use sg_common::abi::{ReasonCounters, RuleCounter, reasons_index};
use sg_common::packet::Direction;
use sg_common::report::Reason;

use super::Error;
use super::audited::{AuditMarks, Count};
use super::clock::Clock;
use super::maps::{layout_folder, open, open_reasons};
use super::per_cpu::PerCpu;
use super::report::{ReasonCount, RuleCount};
use super::state::Record;
use crate::compile::image::Image;
use crate::policy::names::RuleId;

/// The counters of reasons, summed up over all CPUs.
pub(super) struct ReasonTotals(PerCpu<ReasonCounters>);

impl ReasonTotals {
    pub(super) fn open(bpffs: &Path, record: &Record) -> Result<Self, Error> {
        let counters = open_reasons(&layout_folder(bpffs, record.layout))?;
        Ok(Self(PerCpu::open(&counters)?))
    }

    /// Those of an interface in a direction.
    pub(super) fn of(&self, slot: u32, direction: Direction) -> Result<ReasonCounters, Error> {
        self.0.total(reasons_index(slot, direction))
    }
}

pub(super) fn reason_counts(
    totals: &ReasonTotals,
    marks: &AuditMarks,
    image: &Image,
) -> Result<Vec<ReasonCount>, Error> {
    let mut counts = Vec::new();
    for (slot, installed) in &image.interfaces {
        for direction in Direction::ALL {
            let counted = totals.of(*slot, direction)?;
            for reason in Reason::ALL {
                let total = Count::of(counted.of(*reason));
                let audited = marks.audited((*slot, installed), direction, *reason, total);
                let parts = [(false, total.without(audited)), (true, audited)];
                let parts = parts.into_iter().filter(|(_, part)| part.packets > 0);
                counts.extend(
                    parts.map(|(audited, Count { packets, bytes })| ReasonCount {
                        vpc: installed.vpc.clone(),
                        interface: installed.name.clone(),
                        direction,
                        reason: *reason,
                        audited,
                        packets,
                        bytes,
                    }),
                );
            }
        }
    }
    Ok(counts)
}

pub(super) fn rule_counts(
    bpffs: &Path,
    record: &Record,
    image: &Image,
) -> Result<HashMap<RuleId, RuleCount>, Error> {
    let counters = open(&layout_folder(bpffs, record.layout), "RULES")?;
    let counters: PerCpu<RuleCounter> = PerCpu::open(&counters)?;
    let clock = Clock::read(bpffs, record)?;
    let mut counts = HashMap::new();
    for (rule, slot) in &image.ids.rules {
        let counted = counters.total(slot.0)?;
        let ago = clock.now.0.wrapping_sub(counted.last_hit.0);
        let count = RuleCount {
            packets: counted.packets,
            bytes: counted.bytes,
            flows: counted.flows,
            last_hit_s_ago: (counted.packets > 0).then(|| clock.seconds(ago)),
        };
        counts.insert(*rule, count);
    }
    Ok(counts)
}
