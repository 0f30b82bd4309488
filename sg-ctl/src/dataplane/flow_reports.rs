//! Reads flows out of their table, many buckets a system call: there may be millions.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use aya::maps::Array;
use sg_common::abi::InterfaceFlags;
use sg_common::flow::{FlowBucket, FlowKind, FlowState, Leg, Phase};
use sg_common::ids::Ticks;

use super::Error;
use super::clock::Clock;
use super::maps::{FLOW_TABLE, flows_folder, open};
use super::report::{FlowReport, FlowUsage, FullRoom, TcpMarks};
use super::state::Record;
use super::sys::Batches;
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
    each_bucket(bpffs, record, |bucket| {
        for (place, table) in live(bucket, clock.now) {
            each(flow_report(bucket, place, table, &clock, &names));
        }
    })
}

/// How full the table is.
pub(super) fn flow_usage(bpffs: &Path, record: &Record) -> Result<FlowUsage, Error> {
    let clock = Clock::read(bpffs, record)?;
    let mut usage = FlowUsage {
        capacity: u64::from(record.flows.size.capacity()),
        ..FlowUsage::default()
    };
    each_bucket(bpffs, record, |bucket| {
        for (_, table) in live(bucket, clock.now) {
            match table {
                FlowKind::Assured => usage.assured += 1,
                FlowKind::Embryonic => usage.embryonic += 1,
            }
        }
    })?;
    Ok(usage)
}

/// How many percent of the table's places are taken when new flows begin to find none. It is an
/// estimate: a flow has the places of two buckets only, and they may be taken earlier or later.
const FULL_PERCENT: u64 = 95;

/// What has no room for another flow. The table is only read where the counters of its owners say
/// that it may be full: those count flows too that have expired since.
pub(super) fn full_rooms(
    bpffs: &Path,
    record: &Record,
    image: &Image,
) -> Result<Vec<FullRoom>, Error> {
    let capacity = u64::from(record.flows.size.capacity());
    let is_full = |flows: u64| flows * 100 >= capacity * FULL_PERCENT;
    let counted: Array<_, u32> = open(&flows_folder(bpffs), "OWNED")?;
    let mut flows = HashMap::new();
    for slot in image.interfaces.keys() {
        flows.insert(*slot, u64::from(counted.get(slot, 0).map_err(Error::Read)?));
    }
    let most = |slot: &u32| {
        image
            .interfaces
            .get(slot)
            .map(|installed| u64::from(installed.interface.max_flows))
    };
    let full = |flows: &HashMap<u32, u64>| {
        let quotas = flows
            .iter()
            .filter(|(slot, flows)| most(slot).is_some_and(|most| **flows >= most));
        let quotas: Vec<_> = quotas.map(|(slot, flows)| (*slot, *flows)).collect();
        let all: u64 = flows.values().sum();
        (quotas, Some(all).filter(|all| is_full(*all)))
    };
    if full(&flows) == (Vec::new(), None) {
        return Ok(Vec::new());
    }
    let clock = Clock::read(bpffs, record)?;
    flows.clear();
    each_bucket(bpffs, record, |bucket| {
        for (place, table) in live(bucket, clock.now) {
            if table == FlowKind::Assured {
                *flows.entry(bucket.slots[place].state.owner).or_default() += 1;
            }
        }
    })?;
    let (mut quotas, all) = full(&flows);
    quotas.sort_unstable();
    let mut rooms: Vec<_> = quotas
        .into_iter()
        .filter_map(|(slot, flows)| {
            let installed = image.interfaces.get(&slot)?;
            Some(FullRoom {
                interface: Some((installed.vpc.clone(), installed.name.clone())),
                flows,
                capacity: installed.interface.max_flows.into(),
                audit: is_audited(installed),
            })
        })
        .collect();
    rooms.extend(all.map(|flows| FullRoom {
        interface: None,
        flows,
        capacity,
        audit: image.interfaces.values().all(is_audited),
    }));
    Ok(rooms)
}

fn is_audited(installed: &InstalledInterface) -> bool {
    installed.interface.flags.has(InterfaceFlags::AUDIT)
}

/// Calls `each` with every bucket. A flow that is migrated meanwhile may be met twice.
fn each_bucket(
    bpffs: &Path,
    record: &Record,
    mut each: impl FnMut(&FlowBucket),
) -> Result<(), Error> {
    for room in [Some(record.flows), record.other_flows]
        .into_iter()
        .flatten()
    {
        let path = room.folder(bpffs).join(FLOW_TABLE);
        // A table of another size is named before it is made.
        if room != record.flows && !path.exists() {
            continue;
        }
        let mut batches =
            Batches::<u32, FlowBucket>::open(&path, BATCH).map_err(|source| Error::Map {
                name: FLOW_TABLE,
                path: path.clone(),
                source,
            })?;
        loop {
            let (_, batch) = batches.next().map_err(|source| Error::Folder {
                path: path.clone(),
                source,
            })?;
            if batch.is_empty() {
                break;
            }
            for bucket in batch {
                each(bucket);
            }
        }
    }
    Ok(())
}

/// The places of a bucket that hold flows, and in which table those are.
fn live(bucket: &FlowBucket, now: Ticks) -> impl Iterator<Item = (usize, FlowKind)> {
    let places = bucket.tags.iter().zip(&bucket.deadlines).enumerate();
    places.filter_map(move |(place, (tag, deadline))| {
        let table = FlowKind::of_tag(*tag)?;
        (!deadline.has_passed(now)).then_some((place, table))
    })
}

pub(super) fn flow_report(
    bucket: &FlowBucket,
    place: usize,
    table: FlowKind,
    clock: &Clock,
    names: &FlowNames<'_>,
) -> FlowReport {
    let slot = &bucket.slots[place];
    let left = bucket.deadlines[place].until(clock.now);
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
        assured: table == FlowKind::Assured,
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
        marks: marks(&slot.state),
    }
}

fn marks(state: &FlowState) -> TcpMarks {
    TcpMarks {
        answered: !matches!(state.phase, Phase::SYN_SENT | Phase::PICKED_UP),
        fin_in: state.has_sent_fin(Leg::Peer),
        fin_out: state.has_sent_fin(Leg::Local),
        reset: state.phase == Phase::RESET,
    }
}
