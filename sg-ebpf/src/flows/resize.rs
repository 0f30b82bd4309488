//! Flows move from a table of one size to a table of another.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::{bpf_spin_lock, bpf_spin_unlock};
use aya_ebpf::macros::btf_map;
use sg_common::flow::{FlowSearch, Migration};

use super::bucket::{
    ASSURED_FLOWS, EMBRYONIC_FLOWS, OTHER_FLOWS, SLOTS, Slot, holds_assured, next_stamp, table_of,
};
use super::change::{copy_counts, remove, write_state};
use super::owners::{NO_OWNER, count_owned};
use super::place::place;
use super::search::{SEARCHES, found, sg_set_places};
use crate::globals::{self, GLOBALS};
use crate::words;

/// How far the migration has come.
#[btf_map]
static MIGRATION: Array<Migration, 1> = Array::new();

/// Migrates the flows of one more bucket of the other table to where they belong.
#[inline(always)]
pub(crate) fn migrate() {
    let Some(migration) = MIGRATION.get_ptr_mut(0) else {
        return;
    };
    let Some(globals) = GLOBALS.get(0) else {
        return;
    };
    // SAFETY: only the controller runs this, one run after the other.
    let migration = unsafe { &mut *migration };
    let index = migration.bucket;
    migration.bucket = index.wrapping_add(1);
    if index > globals.other_flow_mask {
        return;
    }
    for slot in 0..SLOTS {
        migration.left += sg_migrate_flow(index, slot);
    }
}

/// Migrates one flow. Returns 1 when there is no room for it; it then stays where it is. An embryonic
/// one is forgotten then.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn sg_migrate_flow(index: u32, slot: u32) -> u32 {
    let Some(search) = SEARCHES.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: as in `begin_search`.
    let search = unsafe { &mut *search };
    let Some(old_bucket) = OTHER_FLOWS.get_ptr_mut(index) else {
        return 0;
    };
    let now = globals::now();
    let old = Slot {
        bucket: old_bucket,
        slot,
    };
    let mut is_live = false;
    let mut expired_owner = NO_OWNER;
    let mut table = EMBRYONIC_FLOWS;
    let entry = old.entry();
    let stamp;
    // SAFETY: lock and entry lie in one map value; between lock and unlock are plain loads and
    // stores.
    unsafe {
        let lock = &raw mut (*old_bucket).lock;
        bpf_spin_lock(lock.cast());
        stamp = (*entry).stamp;
        let tag = *old.tag();
        if tag != 0 {
            table = table_of(tag);
            if (*old.deadline()).has_passed(now) {
                expired_owner = (*entry).state.owner;
                (*entry).stamp = next_stamp(stamp);
                old.tag().write_volatile(0);
            } else {
                words::copy(&raw const (*entry).key, &raw mut search.key);
                words::copy(&raw const (*entry).state, &raw mut search.state);
                search.deadline = *old.deadline();
                is_live = true;
            }
        }
        bpf_spin_unlock(lock.cast());
    }
    if expired_owner != NO_OWNER && holds_assured(table) {
        count_owned(expired_owner, NO_OWNER);
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

/// Ends a flow that was migrated, in its old place; what happened to it meanwhile happens to it where it is
/// now.
#[inline(always)]
pub(super) fn leave(old: Slot, table: u32, stamp: u32, search: &FlowSearch) {
    let new = found(search);
    let Some(new_slot) = new.slot() else { return };
    let entry = old.entry();
    let owner = search.state.owner;
    let mut has_left = false;
    let mut last = search.state;
    // SAFETY: both lie in their buckets; lock and entry as in `write_state`.
    unsafe {
        copy_counts(entry, new_slot.entry());
        let lock = &raw mut (*old.bucket).lock;
        bpf_spin_lock(lock.cast());
        if old.holds(table, stamp) {
            words::copy(&raw const (*entry).state, &raw mut last);
            old.tag().write_volatile(0);
            (*entry).stamp = next_stamp(stamp);
            has_left = true;
        }
        bpf_spin_unlock(lock.cast());
    }
    if !has_left {
        // It ended while it was migrated.
        remove(new);
        return;
    }
    if holds_assured(table) {
        count_owned(owner, NO_OWNER);
    }
    if last != search.state {
        write_state(new_slot.bucket, new_slot.slot, new.table, new.stamp, &last);
    }
}
