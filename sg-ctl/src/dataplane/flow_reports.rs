//! Reads flows out of their tables, many buckets a system call: there may be millions.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use sg_common::flow::{FlowBucket, Ticks};

use super::Error;
use super::clock::Clock;
use super::report::{FlowReport, FlowUsage};
use super::state::Record;
use super::sys::ArrayBatches;
use crate::compile::image::{Image, InstalledInterface};
use crate::policy::names::RuleId;

/// Buckets read at once: half a megabyte, which stays in the processor's caches.
const BATCH: usize = 512;

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
    let clock = Clock::read(bpffs, record)?;
    let names = FlowNames::of(image);
    each_bucket(bpffs, record, |assured, bucket| {
        for lane in live(bucket, clock.now) {
            each(flow_report(bucket, lane, assured, &clock, &names));
        }
    })
}

/// How full the tables are.
pub(super) fn flow_usage(bpffs: &Path, record: &Record) -> Result<FlowUsage, Error> {
    let clock = Clock::read(bpffs, record)?;
    let mut usage = FlowUsage {
        capacity: u64::from(record.flows.sizes.capacity()),
        ..FlowUsage::default()
    };
    each_bucket(bpffs, record, |assured, bucket| {
        let flows = live(bucket, clock.now).count() as u64;
        match assured {
            true => usage.assured += flows,
            false => usage.embryonic += flows,
        }
    })?;
    Ok(usage)
}

/// Calls `each` with every bucket, and whether its flows are assured. A flow that is carried over
/// meanwhile may be met twice.
fn each_bucket(
    bpffs: &Path,
    record: &Record,
    mut each: impl FnMut(bool, &FlowBucket),
) -> Result<(), Error> {
    for tables in [Some(record.flows), record.other_flows]
        .into_iter()
        .flatten()
    {
        for (name, assured) in [("ASSURED", true), ("EMBRYONIC", false)] {
            let path = tables.folder(bpffs).join(name);
            // Tables of another size are named before they are made.
            if tables != record.flows && !path.exists() {
                continue;
            }
            let mut batches =
                ArrayBatches::<FlowBucket>::open(&path, BATCH).map_err(|source| Error::Map {
                    name,
                    path: path.clone(),
                    source,
                })?;
            loop {
                let batch = batches.next().map_err(|source| Error::Folder {
                    path: path.clone(),
                    source,
                })?;
                if batch.is_empty() {
                    break;
                }
                for bucket in batch {
                    each(assured, bucket);
                }
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
        generation: slot.state.generation.0,
        opened: slot.opened.0,
    }
}
