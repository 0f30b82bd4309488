//! Flows move from a table of one size to a table of another.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use sg_common::flow::slot::{self, Content, NO_OWNER};
use sg_common::flow::{FlowSearch, Migration};

use super::bucket::{OTHER_FLOWS, SLOTS, Slot, holds_assured, table_of};
use super::change::{copy_counts, remove, write_state};
use super::owners::count_owned;
use super::place::{place, sg_assure_flow};
use super::search::{SEARCHES, found, sg_set_places};
use crate::globals::{self, GLOBALS};

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
pub(super) extern "C" fn sg_migrate_flow(index: u32, number: u32) -> u32 {
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
        slot: number,
    };
    let (seen, deadline) = match slot::copy(old.locked(), now, &mut search.key, &mut search.state) {
        Content::Free | Content::Expired(NO_OWNER) => return 0,
        Content::Expired(owner) => {
            count_owned(owner, NO_OWNER);
            return 0;
        }
        Content::Live(seen, deadline) => (seen, deadline),
    };
    let table = table_of(seen.tag);
    search.deadline = deadline;
    search.now = now;
    search.table = table;
    sg_set_places(search);
    if place(search).is_none() {
        // SAFETY: an aligned word in a map value.
        return table_of(unsafe { old.tag().read_volatile() });
    }
    leave(old, table, seen.stamp, search);
    0
}

/// Ends a flow in its old place, when it has been migrated; what happened to it meanwhile happens to it in
/// its new place: it may have ended, been assured, or have another state.
#[inline(always)]
fn leave(old: Slot, table: u32, stamp: u32, search: &mut FlowSearch) {
    let new = found(search);
    let Some(new_slot) = new.slot() else { return };
    let mut last = search.state;
    let own = &raw mut search.stamp;
    // SAFETY: both lie in their buckets.
    unsafe { copy_counts(old.entry(), new_slot.entry()) };
    let Some((tag, deadline)) = slot::leave(old.shared(own), stamp, &mut last) else {
        remove(new);
        return;
    };
    let last_table = table_of(tag);
    search.deadline = deadline;
    if holds_assured(last_table) {
        count_owned(search.state.owner, NO_OWNER);
    }
    if last_table != table {
        search.state = last;
        sg_assure_flow(search);
    } else if last != search.state {
        write_state(new_slot.bucket, new_slot.slot, new.table, new.stamp, &last);
    }
}
