//! When a SYN last opened a flow.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use sg_common::ids::Ticks;
use sg_common::packet::Direction;

/// When a SYN last opened a flow, by the direction it went.
#[btf_map]
static OPENINGS: Array<Ticks, 2> = Array::new();

#[inline(always)]
pub(crate) fn note_syn(went: Direction, now: Ticks) {
    // Zero is never.
    let now = Ticks(now.0 | 1);
    if let Some(at) = OPENINGS.get_ptr_mut(went.number()) {
        // SAFETY: an aligned word in a map value. Written a few times a second at most.
        unsafe {
            if at.read_volatile() != now {
                at.write_volatile(now);
            }
        }
    }
}

#[inline(always)]
pub(crate) fn may_cross_syn(went: Direction, ticks: u32, now: Ticks) -> bool {
    let Some(at) = OPENINGS.get_ptr(went.number()) else {
        return true;
    };
    // SAFETY: as in `note_syn`.
    let at = unsafe { at.read_volatile() };
    at.0 != 0 && !at.after(ticks).has_passed(now)
}
