//! What holds for all packets: the policy in force, the sizes of tables, the clock.

use aya_ebpf::Global;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::bpf_jiffies64;
use aya_ebpf::macros::btf_map;
use sg_common::abi::Globals;
use sg_common::ids::Ticks;

#[btf_map]
pub(crate) static GLOBALS: Array<Globals, 1> = Array::new();

/// The network namespace this program is attached in, as the controller numbers them.
#[unsafe(no_mangle)]
pub(crate) static NETNS: Global<u32> = Global::new(0);

#[btf_map]
static CLOCK: Array<u64, 1> = Array::new();

pub(crate) fn read_clock() {
    if let Some(clock) = CLOCK.get_ptr_mut(0) {
        // SAFETY: an aligned word in a map value; the helper only reads a clock.
        unsafe { clock.write_volatile(bpf_jiffies64()) };
    }
}

/// The time.
#[inline(always)]
pub(crate) fn now() -> Ticks {
    // SAFETY: the helper only reads a clock.
    Ticks::from_jiffies(unsafe { bpf_jiffies64() })
}
