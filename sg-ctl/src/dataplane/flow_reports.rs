//! Reads flows out of their tables, many buckets a system call: there may be millions.

use std::collections::HashMap;
use std::path::Path;

use sg_common::flow::{FlowBucket, Ticks};

use super::Error;
use super::clock::Clock;
use super::report::{FlowReport, FlowUsage};
use super::state::Record;
use super::sys::ArrayBatches;
use crate::compile::image::Image;
use crate::policy::names::RuleId;

/// Buckets read at once: half a megabyte, which stays in the processor's caches.
const BATCH: usize = 512;

/// Calls `each` with every live flow.
pub(super) fn flows(
    bpffs: &Path,
    record: &Record,
    image: &Image,
    each: &mut dyn FnMut(FlowReport),
) -> Result<(), Error> {
    let clock = Clock::read(bpffs, record)?;
    let rules: HashMap<u32, RuleId> = image
        .ids
        .rules
        .iter()
        .map(|(rule, slot)| (slot.0, *rule))
        .collect();
    each_bucket(bpffs, record, |assured, bucket| {
        for lane in live(bucket, clock.now) {
            each(flow_report(bucket, lane, assured, &clock, &rules));
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

fn flow_report(
    bucket: &FlowBucket,
    lane: usize,
    assured: bool,
    clock: &Clock,
    rules: &HashMap<u32, RuleId>,
) -> FlowReport {
    let slot = &bucket.slots[lane];
    let [packets_out, packets_in] = slot.packets;
    let [bytes_out, bytes_in] = slot.bytes;
    FlowReport {
        zone: slot.key.zone,
        local: slot.key.local.to_ip(),
        local_port: slot.key.local_port,
        peer: slot.key.peer.to_ip(),
        peer_port: slot.key.peer_port,
        protocol: slot.key.protocol,
        state: slot.state.phase.name(),
        assured,
        expires_in_s: clock.seconds(bucket.deadlines[lane].until(clock.now)),
        rule: rules.get(&slot.state.rule.0).copied(),
        packets_in,
        packets_out,
        bytes_in,
        bytes_out,
    }
}
