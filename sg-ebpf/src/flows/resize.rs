//! Flows move from a table of one size to a table of another.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::{bpf_spin_lock, bpf_spin_unlock};
use aya_ebpf::macros::btf_map;
use sg_common::flow::{Carrying, FlowSearch};

use super::bucket::{
    ASSURED_FLOWS, EMBRYONIC_FLOWS, Lane, OTHER_FLOWS, SLOTS, holds_assured, next_stamp, table_of,
};
use super::change::{copy_counts, remove, write_state};
use super::owners::{NOBODY, own};
use super::place::place;
use super::search::{SEARCHES, found, sg_set_places};
use crate::globals::{self, GLOBALS};
use crate::words;

/// How far the carrying has come.
#[btf_map]
static CARRYING: Array<Carrying, 1> = Array::new();

/// Carries the flows of one more bucket of the other table to where they belong.
#[inline(always)]
pub(crate) fn carry() {
    let Some(carrying) = CARRYING.get_ptr_mut(0) else {
        return;
    };
    let Some(globals) = GLOBALS.get(0) else {
        return;
    };
    // SAFETY: only the controller runs this, one run after the other.
    let carrying = unsafe { &mut *carrying };
    let index = carrying.bucket;
    carrying.bucket = index.wrapping_add(1);
    if index > globals.other_flow_mask {
        return;
    }
    for lane in 0..SLOTS {
        carrying.left += sg_carry_flow(index, lane);
    }
}

/// Carries one flow. Returns 1 when there is no room for it; it then stays where it is. An embryonic
/// one is forgotten then.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn sg_carry_flow(index: u32, lane: u32) -> u32 {
    let Some(search) = SEARCHES.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: as in `begin_search`.
    let search = unsafe { &mut *search };
    let Some(old_bucket) = OTHER_FLOWS.get_ptr_mut(index) else {
        return 0;
    };
    let now = globals::now();
    let old = Lane {
        bucket: old_bucket,
        lane,
    };
    let mut is_live = false;
    let mut expired_owner = NOBODY;
    let mut table = EMBRYONIC_FLOWS;
    let slot = old.slot();
    let stamp;
    // SAFETY: lock and slot lie in one map value; between lock and unlock are plain loads and
    // stores.
    unsafe {
        let lock = &raw mut (*old_bucket).lock;
        bpf_spin_lock(lock.cast());
        stamp = (*slot).stamp;
        let tag = *old.tag();
        if tag != 0 {
            table = table_of(tag);
            if (*old.deadline()).has_passed(now) {
                expired_owner = (*slot).state.owner;
                (*slot).stamp = next_stamp(stamp);
                old.tag().write_volatile(0);
            } else {
                words::copy(&raw const (*slot).key, &raw mut search.key);
                words::copy(&raw const (*slot).state, &raw mut search.state);
                search.deadline = *old.deadline();
                is_live = true;
            }
        }
        bpf_spin_unlock(lock.cast());
    }
    if expired_owner != NOBODY && holds_assured(table) {
        own(expired_owner, NOBODY);
    }
    if !is_live {
        return 0;
    }
    search.now = now;
    search.table = table;
    sg_set_places(search);
    if place(search).is_none() {
        return table & ASSURED_FLOWS;
    }
    leave(old, table, stamp, search);
    0
}

/// Ends a flow where it was carried from; what happened to it meanwhile happens to it where it is
/// now.
#[inline(always)]
pub(super) fn leave(old: Lane, table: u32, stamp: u32, search: &FlowSearch) {
    let new = found(search);
    let Some(new_lane) = new.lane() else { return };
    let slot = old.slot();
    let owner = search.state.owner;
    let mut has_left = false;
    let mut last = search.state;
    // SAFETY: both lie in their buckets; lock and slot as in `write_state`.
    unsafe {
        copy_counts(slot, new_lane.slot());
        let lock = &raw mut (*old.bucket).lock;
        bpf_spin_lock(lock.cast());
        if old.holds(table, stamp) {
            words::copy(&raw const (*slot).state, &raw mut last);
            old.tag().write_volatile(0);
            (*slot).stamp = next_stamp(stamp);
            has_left = true;
        }
        bpf_spin_unlock(lock.cast());
    }
    if !has_left {
        // It ended while it was carried.
        remove(new);
        return;
    }
    if holds_assured(table) {
        own(owner, NOBODY);
    }
    if last != search.state {
        write_state(new_lane.bucket, new_lane.lane, new.table, new.stamp, &last);
    }
}
