//! How a flow gets a place, and is assured there.

use aya_ebpf::helpers::{bpf_spin_lock, bpf_spin_unlock};
use sg_common::flow::slot::{self, Assured, NO_OWNER, gives_way};
use sg_common::flow::{FlowBucket, FlowKey, FlowSearch, FlowState};
use sg_common::ids::Ticks;

use super::bucket::{
    ASSURED_FLOWS, EMBRYONIC_FLOWS, FLOWS, FoundFlow, NOWHERE, SLOTS, Slot, bucket, holds_assured,
    kind_of, live_bit, place_number, table_of, tag_in,
};
use super::change::remove;
use super::expire::sweep;
use super::order::full_barrier;
use super::owners::count_owned;
use super::search::{SEARCHES, begin_search, found, is_migrating, mask, sg_search_flow};
use crate::words;

/// Opens an embryonic flow in one of its two buckets.
#[inline(always)]
pub(crate) fn open(
    key: &FlowKey,
    state: &FlowState,
    deadline: Ticks,
    now: Ticks,
) -> Option<FoundFlow> {
    let search = begin_search(key, now)?;
    // SAFETY: both are references.
    unsafe { words::copy(state, &raw mut search.state) };
    search.deadline = deadline;
    place(search)?;
    Some(found(search))
}

/// Assures the flow that this CPU's search has found last, where it is.
#[inline(always)]
pub(crate) fn assure(state: &FlowState, deadline: Ticks, now: Ticks) -> Option<FoundFlow> {
    let search = SEARCHES.get_ptr_mut(0)?;
    // SAFETY: one program at a time runs on a CPU, and the search is over.
    let search = unsafe { &mut *search };
    // SAFETY: both are references.
    unsafe { words::copy(state, &raw mut search.state) };
    search.deadline = deadline;
    sweep(now);
    (sg_assure_flow(search) != 0).then_some(found(search))
}

/// Puts a flow into one place. `None`: there is no room.
#[inline(always)]
pub(super) fn place(search: &mut FlowSearch) -> Option<()> {
    sg_choose_bucket(search);
    // Others may fill a bucket before its lock is taken.
    if sg_place_flow(search) == 0 && sg_place_flow(search) == 0 {
        return None;
    }
    // A migrated copy may still be rolled back, so duplicates are left to expire.
    if is_migrating() {
        return Some(());
    }
    for _ in 0..MAX_DUPLICATES {
        begin_duplicate_search(search);
        if sg_search_flow(search) == 0 {
            end_duplicate_search(search);
            break;
        }
        sg_drop_duplicate(search);
    }
    Some(())
}

/// Turns to whatever other place the flow that was just placed may have.
#[inline(always)]
pub(super) fn begin_duplicate_search(search: &mut FlowSearch) {
    search.except = place_number(search.bucket, search.slot);
    search.except_stamp = search.stamp;
    search.except_table = search.table;
    search.table = EMBRYONIC_FLOWS;
    // What is read from here on is read after what was written.
    full_barrier(&raw mut search.stamp);
}

/// Turns back.
#[inline(always)]
pub(super) fn end_duplicate_search(search: &mut FlowSearch) {
    (search.bucket, search.slot) = (search.except / SLOTS, search.except % SLOTS);
    search.stamp = search.except_stamp;
    search.table = search.except_table;
    search.except = NOWHERE;
}

/// How many other places of one flow are looked for at most: those that so many CPUs can have written
/// within a microsecond.
pub(super) const MAX_DUPLICATES: u32 = 4;

/// Assures a flow where this CPU has found it last, if it is there still. Returns 1 when it is assured.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn sg_assure_flow(search: *mut FlowSearch) -> u32 {
    if search.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let search = unsafe { &mut *search };
    let owner = search.state.owner;
    let Some(bucket) = bucket(search.table, search.bucket) else {
        return 0;
    };
    let slot = Slot {
        bucket,
        slot: search.slot,
    };
    // Counted before anybody can find it and end it.
    count_owned(owner, 1);
    let memory = slot.shared(&raw mut search.stamp);
    let (stamp, is_new) = match slot::assure(memory, &search.key, &search.state, search.deadline) {
        Assured::Now(stamp) => (stamp, true),
        Assured::Before(stamp) => (stamp, false),
        Assured::Gone => {
            count_owned(owner, NO_OWNER);
            return 0;
        }
    };
    if !is_new {
        count_owned(owner, NO_OWNER);
    }
    search.stamp = stamp;
    search.table |= ASSURED_FLOWS;
    1
}

/// Turns to the first of a flow's buckets, or where that is not half free to the emptier one.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn sg_choose_bucket(search: *mut FlowSearch) -> u32 {
    if search.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let search = unsafe { &mut *search };
    let Some(mask) = mask(search.table) else {
        return 0;
    };
    let (first, second) = (search.first & mask, search.second & mask);
    let room = sg_room_in(first, search.now.0);
    let is_roomy = room >= ROOM_OF_FREE * SLOTS / 2;
    search.bucket = if is_roomy || room >= sg_room_in(second, search.now.0) {
        first
    } else {
        second
    };
    1
}

/// What a free place, or one whose flow has expired, is worth against an embryonic flow's.
pub(super) const ROOM_OF_FREE: u32 = 16;

/// How much room a bucket has, before its lock is taken.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn sg_room_in(index: u32, now: u32) -> u32 {
    let now = Ticks(now);
    let Some(bucket) = FLOWS.get_ptr_mut(index) else {
        return 0;
    };
    let mut room = 0;
    for slot in 0..SLOTS {
        let slot = Slot { bucket, slot };
        // SAFETY: the pointers lie in the bucket.
        unsafe {
            let tag = u32::from(slot.tag().read_volatile());
            let is_live = live_bit(tag, slot.deadline().read_volatile(), now);
            let is_assured = tag >> 1 & 1;
            room += (1 - is_live) * ROOM_OF_FREE + (is_live & !is_assured);
        }
    }
    room
}

/// Writes a flow into a place of the bucket: a free one, one whose flow has expired, or that of the
/// embryonic flow with least time left; among equals, its home. Returns 1 when there was one, and
/// turns to the other bucket when there was none.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn sg_place_flow(search: *mut FlowSearch) -> u32 {
    /// What an assured flow's place costs: more than any can.
    const TAKEN: u32 = 1 << 31;
    if search.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let search = unsafe { &mut *search };
    let Some(bucket) = FLOWS.get_ptr_mut(search.bucket) else {
        return 0;
    };
    let tag = tag_in(search.table, search.tag);
    let home = FlowBucket::home(tag);
    let is_assured = holds_assured(search.table);
    if is_assured {
        // As in `sg_assure_flow`.
        count_owned(search.state.owner, 1);
    }
    let mut expired_owner = NO_OWNER;
    let mut placed = 0;
    // SAFETY: lock and slots lie in one map value; between lock and unlock are plain loads and
    // stores.
    unsafe {
        let lock = &raw mut (*bucket).lock;
        bpf_spin_lock(lock.cast());
        let mut least = u64::MAX;
        for number in 0..SLOTS {
            let at = Slot {
                bucket,
                slot: number,
            };
            let tag = u32::from(*at.tag());
            let deadline = *at.deadline();
            let is_live = live_bit(tag, deadline, search.now);
            let is_assured = tag >> 1 & 1;
            let left = deadline.0.wrapping_sub(search.now.0) | (is_assured * TAKEN);
            let cost = left & is_live.wrapping_neg();
            let candidate = u64::from(cost) << 32 | u64::from(number ^ home);
            least = if candidate < least { candidate } else { least };
        }
        if (least >> 32) as u32 & TAKEN == 0 {
            let slot = Slot {
                bucket,
                slot: least as u32 ^ home,
            };
            if holds_assured(table_of(*slot.tag())) {
                expired_owner = (*slot.entry()).state.owner;
            }
            let memory = slot.shared(&raw mut search.stamp);
            let stamp = slot::fill(
                memory,
                tag,
                &search.key,
                &search.state,
                search.deadline,
                search.now,
            );
            search.slot = slot.index() as u32;
            search.stamp = stamp;
            placed = 1;
        }
        bpf_spin_unlock(lock.cast());
    }
    if expired_owner != NO_OWNER {
        count_owned(expired_owner, NO_OWNER);
    }
    if placed == 0 {
        if is_assured {
            count_owned(search.state.owner, NO_OWNER);
        }
        search.bucket ^= (search.first ^ search.second) & mask(search.table).unwrap_or(0);
    }
    placed
}

/// Ends one of the two places of a flow that two CPUs have placed at the same time: the one this CPU
/// has written or the one it has found, and leaves the search at the other.
///
/// Both CPUs write first and look then, so one of them at least sees the other's place; and both choose
/// alike: the assured flow stays, or the one that is found first. If that has changed when one is to
/// go, none goes, and the next look says more.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn sg_drop_duplicate(search: *mut FlowSearch) -> u32 {
    if search.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let search = unsafe { &mut *search };
    let duplicate = found(search);
    end_duplicate_search(search);
    let Some(slot) = found(search).slot() else {
        return 0;
    };
    // SAFETY: the pointer lies in the bucket.
    search.table = table_of(unsafe { slot.tag().read_volatile() });
    let own = found(search);
    let Some(mask) = mask(own.table) else {
        return 0;
    };
    let first = search.first & mask;
    let own_goes = gives_way(
        (kind_of(own.table), rank(own, first)),
        (kind_of(duplicate.table), rank(duplicate, first)),
    );
    if own_goes {
        remove(own);
        (search.bucket, search.slot) = (duplicate.bucket, duplicate.slot);
        (search.stamp, search.table) = (duplicate.stamp, duplicate.table);
    } else {
        remove(duplicate);
    }
    0
}

/// Where in the order of a search a place comes.
#[inline(always)]
pub(super) fn rank(place: FoundFlow, first: u32) -> u32 {
    u32::from(place.bucket != first) * SLOTS + place.slot
}
