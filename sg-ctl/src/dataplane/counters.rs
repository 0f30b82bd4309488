//! Reads counters out of the maps, in the model's words.

use std::collections::HashMap;
use std::path::Path;

use aya::maps::PerCpuArray;
use sg_common::packet::Direction;
use sg_common::report::Reason;
use sg_common::tables::{ReasonCounters, reasons_index};

use super::Error;
use super::clock::Clock;
use super::maps::{flows_folder, layout_folder, open};
use super::report::{ReasonCount, RuleCount};
use super::rule_counters::RuleCounters;
use super::state::Record;
use super::wire::Wire;
use crate::compile::image::Image;
use crate::policy::names::RuleId;

pub(super) fn reason_counts(bpffs: &Path, image: &Image) -> Result<Vec<ReasonCount>, Error> {
    let counters: PerCpuArray<_, Wire<ReasonCounters>> = open(&flows_folder(bpffs), "REASONS")?;
    let mut counts = Vec::new();
    for (slot, installed) in &image.interfaces {
        for direction in Direction::ALL {
            let index = reasons_index(*slot, direction);
            let cpus = counters.get(&index, 0).map_err(Error::Read)?;
            for reason in Reason::ALL {
                let cpus = cpus.iter().map(|Wire(cpu)| cpu.of(*reason));
                let (packets, bytes) = cpus.fold((0, 0), |(packets, bytes), cpu| {
                    (packets + cpu.packets, bytes + cpu.bytes)
                });
                if packets > 0 {
                    counts.push(ReasonCount {
                        vpc: installed.vpc.clone(),
                        interface: installed.name.clone(),
                        direction,
                        reason: *reason,
                        packets,
                        bytes,
                    });
                }
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
    let counters = RuleCounters::open(&counters)?;
    let clock = Clock::read(bpffs, record)?;
    let mut counts = HashMap::new();
    for (rule, slot) in &image.ids.rules {
        let mut count = RuleCount::default();
        let mut ago = None;
        for cpu in counters.read(*slot) {
            let cpu = cpu?;
            count.packets += cpu.packets;
            count.bytes += cpu.bytes;
            count.flows += cpu.flows;
            if cpu.packets > 0 {
                let ticks = clock.now.0.wrapping_sub(cpu.last_hit.0);
                ago = Some(ago.map_or(ticks, |least: u32| least.min(ticks)));
            }
        }
        count.last_hit_s_ago = ago.map(|ticks| clock.seconds(ticks));
        counts.insert(*rule, count);
    }
    Ok(counts)
}
