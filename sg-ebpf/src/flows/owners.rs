//! How many assured flows each interface owns.

use core::intrinsics::{self, AtomicOrdering};

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use sg_common::flow::slot::NO_OWNER;

/// Assured flows by owner.
#[btf_map]
static OWNED: Array<u32, 1> = Array::new();

/// Adds to an owner's flows; [`NO_OWNER`] takes one away.
#[inline(always)]
pub(super) fn count_owned(owner: u32, change: u32) {
    if let Some(owned) = OWNED.get_ptr_mut(owner) {
        // SAFETY: an aligned word in a map value.
        unsafe {
            intrinsics::atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(owned, change);
        }
    }
}

#[inline(always)]
pub(crate) fn owned(owner: u32) -> u32 {
    OWNED.get(owner).copied().unwrap_or(NO_OWNER)
}
