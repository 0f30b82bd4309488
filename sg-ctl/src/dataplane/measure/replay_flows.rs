//! The flows under a replay: read, aged and forgotten, so that a story of hours is told in no time.
//!
//! Nothing at run time calls this. A caller lets no other packet pass meanwhile: buckets are
//! written whole, and not under their locks.

use std::collections::BTreeSet;
use std::path::Path;

use aya::maps::{Array, HashMap, MapData};
use sg_common::abi::{Awaiting, FragmentKey, FragmentVerdict};
use sg_common::flow::{FlowBucket, FlowKey, FlowKind, FlowState};
use sg_common::ids::Ticks;

use super::super::Error;
use super::super::maps::{FLOW_TABLE, flows_folder, open};
use super::super::state::Record;
use super::super::wire::Wire;

type Buckets = Array<MapData, Wire<FlowBucket>>;

/// The maps that outlive layouts.
pub struct ReplayFlows {
    buckets: Buckets,
    owned: Array<MapData, u32>,
    fragments: HashMap<MapData, Wire<FragmentKey>, Wire<FragmentVerdict>>,
    awaiting: Array<MapData, Wire<Awaiting>>,
}

impl ReplayFlows {
    pub(super) fn open(bpffs: &Path, record: &Record) -> Result<Self, Error> {
        let folder = flows_folder(bpffs);
        Ok(Self {
            buckets: open(&record.flows.folder(bpffs), FLOW_TABLE)?,
            owned: open(&folder, "OWNED")?,
            fragments: open(&folder, "FRAGMENTS")?,
            awaiting: open(&folder, "AWAITING")?,
        })
    }

    /// The flows that are alive, with the table each is in.
    pub fn alive(&self, now: Ticks) -> Result<Vec<(FlowKey, FlowKind, FlowState)>, Error> {
        let mut alive = Vec::new();
        for bucket in self.buckets.iter() {
            let Wire(bucket) = bucket.map_err(Error::Read)?;
            let places = bucket.tags.iter().zip(&bucket.deadlines);
            let held = places
                .zip(&bucket.slots)
                .filter(|((_, deadline), _)| !deadline.has_passed(now));
            alive.extend(held.filter_map(|((tag, _), slot)| {
                Some((slot.key, FlowKind::of_tag(*tag)?, slot.state))
            }));
        }
        Ok(alive)
    }

    /// How many assured flows the programs hold an interface slot to have.
    pub fn owned(&self, slot: u32) -> Result<u32, Error> {
        self.owned.get(&slot, 0).map_err(Error::Read)
    }

    /// Makes every flow and every first fragment so much older; what is negative makes them younger.
    pub fn age(&mut self, ticks: i32) -> Result<(), Error> {
        let older = |deadline: Ticks| deadline.after(ticks.wrapping_neg().cast_unsigned());
        rewrite(&mut self.buckets, |bucket| {
            for (tag, deadline) in bucket.tags.iter().zip(&mut bucket.deadlines) {
                if *tag != 0 {
                    *deadline = older(*deadline);
                }
            }
        })?;
        for key in self.fragment_keys()? {
            let Wire(mut verdict) = self.fragments.get(&key, 0).map_err(Error::Read)?;
            verdict.deadline = older(verdict.deadline);
            self.fragments
                .insert(key, Wire(verdict), 0)
                .map_err(Error::Write)?;
        }
        Ok(())
    }

    /// Forgets all flows and first fragments.
    pub fn forget(&mut self) -> Result<(), Error> {
        let mut owners = BTreeSet::new();
        rewrite(&mut self.buckets, |bucket| {
            owners.extend(bucket.slots.iter().map(|slot| slot.state.owner));
            *bucket = FlowBucket::default();
        })?;
        for owner in owners {
            self.owned.set(owner, 0, 0).map_err(Error::Write)?;
        }
        for key in self.fragment_keys()? {
            self.fragments.remove(&key).map_err(Error::Write)?;
        }
        for slot in 0..self.awaiting.len() {
            let none = Wire(Awaiting::default());
            self.awaiting.set(slot, none, 0).map_err(Error::Write)?;
        }
        Ok(())
    }

    fn fragment_keys(&self) -> Result<Vec<Wire<FragmentKey>>, Error> {
        self.fragments
            .keys()
            .collect::<Result<_, _>>()
            .map_err(Error::Read)
    }
}

/// Writes the buckets that hold anything.
fn rewrite(buckets: &mut Buckets, mut change: impl FnMut(&mut FlowBucket)) -> Result<(), Error> {
    for index in 0..buckets.len() {
        let Wire(mut bucket) = buckets.get(&index, 0).map_err(Error::Read)?;
        if bucket.tags.iter().all(|tag| *tag == 0) {
            continue;
        }
        change(&mut bucket);
        buckets.set(index, Wire(bucket), 0).map_err(Error::Write)?;
    }
    Ok(())
}
