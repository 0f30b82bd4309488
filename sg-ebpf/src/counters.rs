//! Counts, per CPU, so that no two CPUs write one line.

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::bpf_jiffies64;
use aya_ebpf::macros::btf_map;
use sg_common::flow::Ticks;
use sg_common::packet::{Direction, Packet};
use sg_common::report::Reason;
use sg_common::tables::{ReasonCounter, RuleCounter, RuleSlot, reason_index};

#[btf_map]
static REASONS: PerCpuArray<ReasonCounter, 1> = PerCpuArray::new();
#[btf_map]
static RULES: PerCpuArray<RuleCounter, 1> = PerCpuArray::new();
/// What came to an interface that has no entry.
#[btf_map]
static STRAYS: PerCpuArray<ReasonCounter, 1> = PerCpuArray::new();

#[inline(always)]
fn add(counter: Option<*mut ReasonCounter>, packets: u64, bytes: u64) {
    if let Some(counter) = counter {
        // SAFETY: the element is this CPU's, and programs on one CPU don't interrupt one another
        // between two hooks of one packet.
        unsafe {
            (*counter).packets += packets;
            (*counter).bytes += bytes;
        }
    }
}

#[inline(always)]
pub(crate) fn count_reason(
    interface_slot: u32,
    direction: Direction,
    reason: Reason,
    packets: u64,
    bytes: u64,
) {
    let index = reason_index(interface_slot, direction, reason);
    add(REASONS.get_ptr_mut(index), packets, bytes);
}

#[inline(always)]
pub(crate) fn count_stray<P: Packet>(packet: &P) {
    add(STRAYS.get_ptr_mut(0), u64::from(packet.segments()), u64::from(packet.length()));
}

#[inline(always)]
pub(crate) fn count_rule(rule: RuleSlot, packets: u64, bytes: u64, opened: bool) {
    if let Some(counter) = RULES.get_ptr_mut(rule.0) {
        // SAFETY: as in `add`.
        unsafe {
            (*counter).packets += packets;
            (*counter).bytes += bytes;
            (*counter).flows += u64::from(opened);
            (*counter).last_hit = Ticks::from_jiffies(bpf_jiffies64());
        }
    }
}
