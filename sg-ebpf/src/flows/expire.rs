//! Expired flows give up their places.

use core::intrinsics::{self, AtomicOrdering};

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::{bpf_spin_lock, bpf_spin_unlock};
use aya_ebpf::macros::btf_map;
use sg_common::ids::Ticks;

use super::bucket::{FLOWS, SLOTS, Slot, holds_assured, next_stamp, table_of};
use super::owners::{NO_OWNER, count_owned};
use crate::globals::GLOBALS;

/// The next bucket to sweep.
#[btf_map]
static SWEEP: Array<u32, 1> = Array::new();

/// Frees the expired flows of the next bucket.
#[inline(always)]
pub(crate) fn sweep(now: Ticks) {
    sg_sweep_flows(now.0);
}

/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn sg_sweep_flows(now: u32) -> u32 {
    let now = Ticks(now);
    let Some(globals) = GLOBALS.get(0) else {
        return 0;
    };
    let Some(next) = SWEEP.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: an aligned word in a map value. The old value is used, so the order is AcqRel: a
    // relaxed addition compiles to the instruction that does not return it.
    let next = unsafe { intrinsics::atomic_xadd::<u32, u32, { AtomicOrdering::AcqRel }>(next, 1) };
    let Some(bucket) = FLOWS.get_ptr_mut(next & globals.flow_mask) else {
        return 0;
    };
    for slot in 0..SLOTS {
        let slot = Slot { bucket, slot };
        // SAFETY: the pointers lie in the bucket; looked at again under the lock.
        unsafe {
            if *slot.tag() == 0 || !(*slot.deadline()).has_passed(now) {
                continue;
            }
            let entry = slot.entry();
            let mut owner = NO_OWNER;
            let lock = &raw mut (*bucket).lock;
            bpf_spin_lock(lock.cast());
            let tag = *slot.tag();
            if tag != 0 && (*slot.deadline()).has_passed(now) {
                if holds_assured(table_of(tag)) {
                    owner = (*entry).state.owner;
                }
                (*entry).stamp = next_stamp((*entry).stamp);
                slot.tag().write_volatile(0);
            }
            bpf_spin_unlock(lock.cast());
            if owner != NO_OWNER {
                count_owned(owner, NO_OWNER);
            }
        }
    }
    0
}
