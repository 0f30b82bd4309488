//! What packets change of a flow that was found.

use core::intrinsics::{self, AtomicOrdering};

use aya_ebpf::helpers::{bpf_spin_lock, bpf_spin_unlock};
use sg_common::flow::{FlowBucket, FlowSlot, FlowState, Leg};
use sg_common::ids::Ticks;

use super::bucket::{EMBRYONIC_FLOWS, FoundFlow, Lane, OTHER, holds_assured, next_stamp};
use super::owners::{NOBODY, own};
use crate::opaque::in_register;
use crate::words;

/// Writes what a leg's segment has moved. No lock: each word is a number of its own, and whoever
/// writes one at the same time has seen a packet of the same leg.
#[inline(always)]
pub(crate) fn advance(flow: FoundFlow, leg: Leg, state: &FlowState) {
    let Some(lane) = flow.lane() else { return };
    let slot = lane.slot();
    // SAFETY: the slot lies in a bucket.
    unsafe {
        if (&raw const (*slot).stamp).read_volatile() == flow.stamp {
            advance_slot(slot, leg, state);
        }
    }
}

/// Where a pair has a leg's element. LLVM knows of no third leg and would leave out the mask, from which
/// the verifier learns it.
#[inline(always)]
pub(super) fn place_of(leg: Leg) -> usize {
    in_register(leg as u32) & 1
}

/// # Safety
/// The slot must lie in a bucket.
#[inline(always)]
pub(super) unsafe fn advance_slot(slot: *mut FlowSlot, leg: Leg, state: &FlowState) {
    let place = place_of(leg);
    // SAFETY: `place` is 0 or 1, and the words are aligned.
    unsafe {
        let to = &raw mut (*slot).state;
        (&raw mut (*to).end)
            .cast::<u32>()
            .add(place)
            .write_volatile(leg.of(&state.end));
        (&raw mut (*to).ack)
            .cast::<u32>()
            .add(place)
            .write_volatile(leg.of(&state.ack));
        (&raw mut (*to).window)
            .cast::<u16>()
            .add(place)
            .write_volatile(leg.of(&state.window));
    }
}

#[inline(always)]
pub(crate) fn update(flow: FoundFlow, state: &FlowState) {
    let Some(lane) = flow.lane() else { return };
    write_state(lane.bucket, lane.lane, flow.table, flow.stamp, state);
}

/// Writes the state, if the place still holds the flow.
#[inline(never)]
pub(super) fn write_state(
    bucket: *mut FlowBucket,
    lane: u32,
    table: u32,
    stamp: u32,
    state: &FlowState,
) -> u32 {
    let lane = Lane { bucket, lane };
    // SAFETY: lock and slot lie in one map value; between lock and unlock are plain stores.
    unsafe {
        let lock = &raw mut (*bucket).lock;
        bpf_spin_lock(lock.cast());
        if lane.holds(table, stamp) {
            words::copy(state, &raw mut (*lane.slot()).state);
        }
        bpf_spin_unlock(lock.cast());
    }
    0
}

#[inline(always)]
pub(crate) fn extend(flow: FoundFlow, deadline: Ticks) {
    let Some(lane) = flow.lane() else { return };
    if !holds_assured(flow.table) {
        write_deadline(lane.bucket, lane.lane, flow.stamp, deadline);
        return;
    }
    extend_lane(lane, deadline);
}

/// The same for an assured flow.
#[inline(always)]
pub(super) fn extend_lane(lane: Lane, deadline: Ticks) {
    let at = lane.deadline();
    // SAFETY: the pointer lies in the bucket; one aligned word. Whoever moves it at the same time
    // has seen a packet of the same flow within the same second.
    unsafe {
        if at.read_volatile().is_worth_moving_to(deadline) {
            at.write_volatile(deadline);
        }
    }
}

/// Writes an embryonic flow's deadline, if it is still one: another CPU may have given it the longer
/// one of an assured flow.
#[inline(never)]
pub(super) fn write_deadline(
    bucket: *mut FlowBucket,
    lane: u32,
    stamp: u32,
    deadline: Ticks,
) -> u32 {
    let lane = Lane { bucket, lane };
    // SAFETY: as in `write_state`.
    unsafe {
        if !(*lane.deadline()).is_worth_moving_to(deadline) {
            return 0;
        }
        let lock = &raw mut (*bucket).lock;
        bpf_spin_lock(lock.cast());
        if lane.holds(EMBRYONIC_FLOWS, stamp) {
            lane.deadline().write_volatile(deadline);
        }
        bpf_spin_unlock(lock.cast());
    }
    0
}

#[inline(always)]
pub(crate) fn count(flow: FoundFlow, leg: Leg, packets: u32, bytes: u32) {
    if let Some(lane) = flow.lane() {
        // SAFETY: the slot lies in a bucket.
        unsafe { count_slot(lane.slot(), leg, packets, bytes) };
    }
}

/// # Safety
/// The slot must lie in a bucket.
#[inline(always)]
pub(super) unsafe fn count_slot(slot: *mut FlowSlot, leg: Leg, packets: u32, bytes: u32) {
    let place = place_of(leg);
    // SAFETY: `place` is 0 or 1.
    unsafe {
        let counted = (&raw mut (*slot).packets).cast::<u64>().add(place);
        add(counted, u64::from(packets));
        let counted = (&raw mut (*slot).bytes).cast::<u64>().add(place);
        add(counted, u64::from(bytes));
    }
}

/// Adds without losing what another CPU adds.
///
/// # Safety
/// `to` must point into a map value, aligned.
#[inline(always)]
pub(super) unsafe fn add(to: *mut u64, value: u64) {
    // SAFETY: the caller vouches for the pointer.
    unsafe { intrinsics::atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(to, value) };
}

#[inline(always)]
pub(crate) fn carry_counts(from: FoundFlow, to: FoundFlow) {
    // A flow that was assured where it was has them.
    if from.bucket == to.bucket && from.lane == to.lane && (from.table ^ to.table) & OTHER == 0 {
        return;
    }
    let (Some(from), Some(to)) = (from.lane(), to.lane()) else {
        return;
    };
    // SAFETY: both lie in their buckets.
    unsafe { copy_counts(from.slot(), to.slot()) };
}

/// # Safety
/// Both must lie in buckets.
#[inline(always)]
pub(super) unsafe fn copy_counts(from: *const FlowSlot, to: *mut FlowSlot) {
    // SAFETY: the caller vouches for the pointers.
    unsafe {
        words::copy(&raw const (*from).packets, &raw mut (*to).packets);
        words::copy(&raw const (*from).bytes, &raw mut (*to).bytes);
        (*to).opened = (*from).opened;
    }
}

#[inline(always)]
pub(crate) fn remove(flow: FoundFlow) {
    let Some(lane) = flow.lane() else { return };
    clear(lane.bucket, lane.lane, flow.table, flow.stamp);
}

/// Frees a place, if it still holds the flow.
#[inline(never)]
pub(super) fn clear(bucket: *mut FlowBucket, lane: u32, table: u32, stamp: u32) -> u32 {
    let lane = Lane { bucket, lane };
    let mut owner = NOBODY;
    // SAFETY: as in `write_state`.
    unsafe {
        let lock = &raw mut (*bucket).lock;
        bpf_spin_lock(lock.cast());
        if lane.holds(table, stamp) {
            lane.tag().write_volatile(0);
            (&raw mut (*lane.slot()).stamp).write_volatile(next_stamp(stamp));
            owner = (*lane.slot()).state.owner;
        }
        bpf_spin_unlock(lock.cast());
    }
    if owner != NOBODY && holds_assured(table) {
        own(owner, NOBODY);
    }
    0
}
