//! The search for a flow.

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use sg_common::flow::slot::{self, Wanted};
use sg_common::flow::{FlowKey, FlowKind, FlowSearch, FlowState};
use sg_common::ids::Ticks;

use super::bucket::{
    ASSURED_BIT, EMBRYONIC_FLOWS, FoundFlow, NOWHERE, ONES, OTHER, SLOTS, Slot, bit_number, bucket,
    holds_assured, matching, place_number, table_of,
};
use super::order::keep_order;
use crate::globals::GLOBALS;
use crate::opaque::hidden;
use crate::words;

/// This CPU's search; programs on one CPU run one after the other.
#[btf_map]
pub(super) static SEARCHES: PerCpuArray<FlowSearch, 1> = PerCpuArray::new();

#[inline(always)]
pub(super) fn begin_search(key: &FlowKey, now: Ticks) -> Option<&'static mut FlowSearch> {
    let search = SEARCHES.get_ptr_mut(0)?;
    // SAFETY: one program at a time runs on a CPU, and begins a search when the last one is over.
    let search = unsafe { &mut *search };
    // SAFETY: both are references.
    unsafe { words::copy(key, &raw mut search.key) };
    search.table = EMBRYONIC_FLOWS;
    search.now = now;
    search.except = NOWHERE;
    sg_set_places(search);
    Some(search)
}

/// Works out where the flow may be.
///
/// A global function: its stack is then free for the others.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn sg_set_places(search: *mut FlowSearch) -> u32 {
    let Some(globals) = GLOBALS.get(0) else {
        return 0;
    };
    if search.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let search = unsafe { &mut *search };
    let places = search.key.places(&globals.hash_key);
    search.first = places.first;
    search.second = places.second;
    search.tag = u32::from(places.tag);
    1
}

/// The buckets of a table, less one.
#[inline(always)]
pub(super) fn mask(table: u32) -> Option<u32> {
    let globals = GLOBALS.get(0)?;
    // Both are read before one is chosen: LLVM would work out an address instead, which the verifier
    // cannot follow.
    let read = |mask: &u32| {
        // SAFETY: a reference is good to read from.
        unsafe { (&raw const *mask).read_volatile() }
    };
    let current = read(&globals.flow_mask);
    let other = read(&globals.other_flow_mask);
    Some(if table & OTHER == 0 { current } else { other })
}

/// What is looked for in the place with this number. All of it is read anew from memory: it would
/// otherwise be kept on the stack.
struct Searched<'a> {
    search: &'a FlowSearch,
    number: u32,
}

impl Wanted<FlowKey> for Searched<'_> {
    #[inline(always)]
    fn key(&self) -> &FlowKey {
        hidden(&self.search.key)
    }

    #[inline(always)]
    fn now(&self) -> Ticks {
        // SAFETY: a reference is good to read from.
        unsafe { (&raw const self.search.now).read_volatile() }
    }

    #[inline(always)]
    fn leaves_out(&self) -> bool {
        // SAFETY: as in `now`.
        self.number == unsafe { (&raw const self.search.except).read_volatile() }
    }
}

/// Finds a live flow. Returns 1 when there is one.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn sg_search_flow(search: *mut FlowSearch) -> u32 {
    if search.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let search = unsafe { &mut *search };
    let own = &raw mut search.stamp;
    // The bit that tells the kinds apart is set in all tags, so that flows of both match.
    const KIND: u64 = ASSURED_BIT as u64 * ONES;
    let tag = search.tag as u16 | ASSURED_BIT;
    for round in 0..2 {
        // Worked out anew: what is kept from round to round is kept on the stack.
        let Some(mask) = mask(search.table) else {
            return 0;
        };
        let index = if round == 0 {
            search.first
        } else {
            search.second
        } & mask;
        let Some(bucket) = bucket(search.table, index) else {
            return 0;
        };
        // SAFETY: array elements live as long as the program; what is read may change meanwhile,
        // and is compared again below.
        unsafe {
            let words = (&raw const (*bucket).tags).cast::<u64>();
            let mut slots = matching(words.read_volatile() | KIND, tag)
                | matching(words.add(1).read_volatile() | KIND, tag) << 4;
            for _ in 0..SLOTS {
                if slots == 0 {
                    break;
                }
                let bit = slots & slots.wrapping_neg();
                slots &= !bit;
                let slot = Slot {
                    bucket,
                    slot: bit_number(bit),
                };
                let memory = slot.shared(own);
                let number = place_number(index, slot.slot);
                let Some(seen) = slot::look(memory, &Searched { search, number }) else {
                    continue;
                };
                search.bucket = index;
                search.slot = slot.slot;
                search.stamp = seen.stamp;
                if slot::read_state(memory, seen, &mut search.state) {
                    let searched = (&raw const search.table).read_volatile();
                    search.table = table_of(seen.tag) | searched & OTHER;
                    return 1;
                }
            }
        }
    }
    0
}

/// Finds a live flow of either kind.
#[inline(always)]
pub(crate) fn find(
    key: &FlowKey,
    now: Ticks,
    state: &mut FlowState,
) -> Option<(FlowKind, FoundFlow)> {
    let search = begin_search(key, now)?;
    if !search_both(search) {
        return None;
    }
    // SAFETY: both are references.
    unsafe { words::copy(&raw const search.state, state) };
    let kind = if holds_assured(search.table) {
        FlowKind::Assured
    } else {
        FlowKind::Embryonic
    };
    Some((kind, found(search)))
}

/// Whether a flow may be in the other table.
#[inline(always)]
pub(super) fn is_migrating() -> bool {
    GLOBALS
        .get(0)
        .is_some_and(|globals| globals.other_flow_mask != 0)
}

/// Searches, also where flows are migrated from. One that moves is in its new place before it leaves the
/// old one, so who misses it in both finds it in the new one.
///
/// In place: the frame of another function would be on the stack during a search.
#[inline(always)]
pub(super) fn search_both(search: &mut FlowSearch) -> bool {
    if sg_search_flow(search) != 0 {
        return true;
    }
    if !is_migrating() {
        return false;
    }
    search.table = OTHER;
    if sg_search_flow(search) != 0 {
        return true;
    }
    search.table = EMBRYONIC_FLOWS;
    keep_order(&raw mut search.stamp);
    sg_search_flow(search) != 0
}

#[inline(always)]
pub(super) fn found(search: &FlowSearch) -> FoundFlow {
    FoundFlow {
        table: search.table,
        bucket: search.bucket,
        slot: search.slot,
        stamp: search.stamp,
    }
}
