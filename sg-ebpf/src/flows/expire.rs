//! Expired flows give up their places.

use core::intrinsics::{self, AtomicOrdering};

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use sg_common::flow::slot::{self, NO_OWNER};
use sg_common::ids::Ticks;

use super::bucket::{FLOWS, SLOTS, Slot};
use super::owners::count_owned;
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
        if unsafe { *slot.tag() == 0 || !(*slot.deadline()).has_passed(now) } {
            continue;
        }
        let owner = slot::expire(slot.locked(), now);
        if owner != NO_OWNER {
            count_owned(owner, NO_OWNER);
        }
    }
    0
}
