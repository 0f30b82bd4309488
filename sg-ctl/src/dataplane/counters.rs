//! Reads counters and flows out of the maps, in the model's words.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use sg_common::flow::{FlowBucket, Ticks};
use sg_common::packet::Direction;
use sg_common::report::Reason;
use sg_common::tables::reason_index;

use super::maps::{FlowMaps, LayoutMaps, flows_folder, layout_folder};
use super::report::{FlowReport, FlowUsage, ReasonCount, RuleCount};
use super::state::Record;
use super::wire::Wire;
use super::{Error, object};
use crate::compile::image::{Image, InstalledInterface};
use crate::policy::names::RuleId;

/// The clock that deadlines are told by.
pub(super) struct Clock {
    pub(super) now: Ticks,
    ticks_per_second: f64,
}

impl Clock {
    pub(super) fn read(bpffs: &Path, record: &Record) -> Result<Self, Error> {
        let jiffies = object::jiffies(&layout_folder(bpffs, record.layout))?;
        let ticks = f64::from(record.jiffies_per_second) / f64::from(1_u32 << Ticks::SHIFT);
        Ok(Self {
            now: Ticks::from_jiffies(jiffies),
            ticks_per_second: ticks,
        })
    }

    fn seconds(&self, ticks: u32) -> u64 {
        (f64::from(ticks) / self.ticks_per_second).round() as u64
    }
}

pub(super) fn reason_counts(bpffs: &Path, image: &Image) -> Result<Vec<ReasonCount>, Error> {
    let maps = FlowMaps::open(&flows_folder(bpffs))?;
    let mut counts = Vec::new();
    for (slot, installed) in &image.interfaces {
        for direction in Direction::ALL {
            for reason in Reason::ALL {
                let index = reason_index(*slot, direction, *reason);
                let cpus = maps.reasons.get(&index, 0).map_err(Error::Read)?;
                let (packets, bytes) = cpus.iter().fold((0, 0), |(packets, bytes), Wire(cpu)| {
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
    let maps = LayoutMaps::open(&layout_folder(bpffs, record.layout))?;
    let clock = Clock::read(bpffs, record)?;
    let mut counts = HashMap::new();
    for (rule, slot) in &image.ids.rules {
        let cpus = maps.rules.get(&slot.0, 0).map_err(Error::Read)?;
        let mut count = RuleCount::default();
        let mut ago = None;
        for Wire(cpu) in cpus.iter() {
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

/// Whose the numbers in a flow are.
pub(super) struct FlowNames<'a> {
    rules: HashMap<u32, RuleId>,
    interfaces: &'a BTreeMap<u32, InstalledInterface>,
}

impl<'a> FlowNames<'a> {
    pub(super) fn of(image: &'a Image) -> Self {
        let rules = image.ids.rules.iter();
        Self {
            rules: rules.map(|(rule, slot)| (slot.0, *rule)).collect(),
            interfaces: &image.interfaces,
        }
    }
}

/// Calls `each` with every live flow.
pub(super) fn flows(
    bpffs: &Path,
    record: &Record,
    image: &Image,
    each: &mut dyn FnMut(FlowReport),
) -> Result<(), Error> {
    let maps = FlowMaps::open(&flows_folder(bpffs))?;
    let clock = Clock::read(bpffs, record)?;
    let names = FlowNames::of(image);
    for (buckets, assured) in [(&maps.assured, true), (&maps.embryonic, false)] {
        for bucket in buckets.iter() {
            let Wire(bucket) = bucket.map_err(Error::Read)?;
            for lane in live(&bucket, clock.now) {
                each(flow_report(&bucket, lane, assured, &clock, &names));
            }
        }
    }
    Ok(())
}

/// The places of a bucket that hold flows.
fn live(bucket: &FlowBucket, now: Ticks) -> impl Iterator<Item = usize> {
    (0..FlowBucket::SLOTS)
        .filter(move |lane| bucket.tags[*lane] != 0 && !bucket.deadlines[*lane].has_passed(now))
}

pub(super) fn flow_report(
    bucket: &FlowBucket,
    lane: usize,
    assured: bool,
    clock: &Clock,
    names: &FlowNames<'_>,
) -> FlowReport {
    let slot = &bucket.slots[lane];
    let left = bucket.deadlines[lane].until(clock.now);
    let owner = names.interfaces.get(&slot.state.owner);
    let lifetime = owner.map_or(left, |owner| {
        slot.state.phase.timeout(&owner.interface.timeouts)
    });
    let [packets_out, packets_in] = slot.packets;
    let [bytes_out, bytes_in] = slot.bytes;
    FlowReport {
        key: slot.key,
        zone: slot.key.zone,
        local: slot.key.local.to_ip(),
        local_port: slot.key.local_port,
        peer: slot.key.peer.to_ip(),
        peer_port: slot.key.peer_port,
        protocol: slot.key.protocol,
        state: slot.state.phase.name(),
        assured,
        expires_in_s: clock.seconds(left),
        idle_s: clock.seconds(lifetime.saturating_sub(left)),
        opened_s_ago: clock.seconds(clock.now.0.wrapping_sub(slot.opened.0)),
        opened_by: slot.state.initiator(),
        interface: owner.map(|owner| (owner.vpc.clone(), owner.name.clone())),
        rule: names.rules.get(&slot.state.rule.0).copied(),
        packets_in,
        packets_out,
        bytes_in,
        bytes_out,
    }
}

pub(super) fn flow_usage(bpffs: &Path, record: &Record) -> Result<FlowUsage, Error> {
    let maps = FlowMaps::open(&flows_folder(bpffs))?;
    let clock = Clock::read(bpffs, record)?;
    let mut usage = FlowUsage {
        capacity: u64::from(record.assured_buckets) * FlowBucket::SLOTS as u64,
        ..FlowUsage::default()
    };
    for bucket in maps.assured.iter() {
        usage.assured += live(&bucket.map_err(Error::Read)?.0, clock.now).count() as u64;
    }
    for bucket in maps.embryonic.iter() {
        usage.embryonic += live(&bucket.map_err(Error::Read)?.0, clock.now).count() as u64;
    }
    Ok(usage)
}
