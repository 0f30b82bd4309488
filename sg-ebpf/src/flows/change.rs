//! What packets change of a flow that was found.

use core::intrinsics::{self, AtomicOrdering};

use sg_common::flow::slot::{self, NO_OWNER};
use sg_common::flow::{FlowBucket, FlowSlot, FlowState, Leg};
use sg_common::ids::Ticks;

use super::bucket::{FoundFlow, Slot, holds_assured, kind_of};
use super::owners::count_owned;
use crate::opaque::in_register;
use crate::words;

/// Writes what a leg's segment has moved. No lock: each word is a number of its own, and whoever
/// writes one at the same time has seen a packet of the same leg.
#[inline(always)]
pub(crate) fn advance(flow: FoundFlow, leg: Leg, state: &FlowState) {
    let Some(slot) = flow.slot() else { return };
    let entry = slot.entry();
    // SAFETY: the entry lies in a bucket.
    unsafe {
        if (&raw const (*entry).stamp).read_volatile() == flow.stamp {
            advance_entry(entry, leg, state);
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
/// The entry must lie in a bucket.
#[inline(always)]
pub(super) unsafe fn advance_entry(entry: *mut FlowSlot, leg: Leg, state: &FlowState) {
    let place = place_of(leg);
    // SAFETY: `place` is 0 or 1, and the words are aligned.
    unsafe {
        let to = &raw mut (*entry).state;
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
    let Some(slot) = flow.slot() else { return };
    write_state(slot.bucket, slot.slot, flow.table, flow.stamp, state);
}

/// Writes the state, if the place still holds the flow.
#[inline(never)]
pub(super) fn write_state(
    bucket: *mut FlowBucket,
    slot: u32,
    table: u32,
    stamp: u32,
    state: &FlowState,
) -> u32 {
    let slot = Slot { bucket, slot };
    slot::update(slot.locked(), kind_of(table), stamp, state);
    0
}

#[inline(always)]
pub(crate) fn extend(flow: FoundFlow, deadline: Ticks) {
    let Some(slot) = flow.slot() else { return };
    if !holds_assured(flow.table) {
        write_deadline(slot.bucket, slot.slot, flow.stamp, deadline);
        return;
    }
    extend_slot(slot, deadline);
}

/// The same for an assured flow.
#[inline(always)]
pub(super) fn extend_slot(slot: Slot, deadline: Ticks) {
    let at = slot.deadline();
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
    slot: u32,
    stamp: u32,
    deadline: Ticks,
) -> u32 {
    let slot = Slot { bucket, slot };
    // SAFETY: an aligned word in a map value.
    if unsafe { !(*slot.deadline()).is_worth_moving_to(deadline) } {
        return 0;
    }
    slot::extend(slot.locked(), stamp, deadline);
    0
}

#[inline(always)]
pub(crate) fn count(flow: FoundFlow, leg: Leg, packets: u32, bytes: u32) {
    if let Some(slot) = flow.slot() {
        // SAFETY: the entry lies in a bucket.
        unsafe { count_entry(slot.entry(), leg, packets, bytes) };
    }
}

/// # Safety
/// The entry must lie in a bucket.
#[inline(always)]
pub(super) unsafe fn count_entry(entry: *mut FlowSlot, leg: Leg, packets: u32, bytes: u32) {
    let place = place_of(leg);
    // SAFETY: `place` is 0 or 1.
    unsafe {
        let counted = (&raw mut (*entry).packets).cast::<u64>().add(place);
        add(counted, u64::from(packets));
        let counted = (&raw mut (*entry).bytes).cast::<u64>().add(place);
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
    let Some(slot) = flow.slot() else { return };
    clear(slot.bucket, slot.slot, flow.table, flow.stamp);
}

/// Frees a place, if it still holds the flow.
#[inline(never)]
pub(super) fn clear(bucket: *mut FlowBucket, slot: u32, table: u32, stamp: u32) -> u32 {
    let slot = Slot { bucket, slot };
    let owner = slot::clear(slot.locked(), kind_of(table), stamp);
    if owner != NO_OWNER && holds_assured(table) {
        count_owned(owner, NO_OWNER);
    }
    0
}
