//! Counts, per CPU, so that no two CPUs write one line.

use aya_ebpf::Global;
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::helpers::bpf_jiffies64;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::btf_map;
use sg_common::flow::Ticks;
use sg_common::packet::{Direction, Packet};
use sg_common::parse::Headers;
use sg_common::report::{Decision, Reason};
use sg_common::tables::{ReasonCounter, RuleCounter, RuleSlot, reason_index};

use crate::maps::MMAPABLE;

#[btf_map]
static REASONS: PerCpuArray<ReasonCounter, 1> = PerCpuArray::new();
/// The rules as one CPU counts them, then as the next one does. The controller reads them through
/// memory, as it could not read per-CPU values.
#[btf_map]
static RULES: Array<RuleCounter, 1, MMAPABLE> = Array::new();
/// How many rules each CPU counts.
#[unsafe(no_mangle)]
static RULES_A_CPU: Global<u32> = Global::new(1);
/// Frames that came to an interface without an entry.
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

/// Counts a packet for its reason, and for the rule the decision rests on.
#[inline(always)]
pub(crate) fn count(
    interface_slot: u32,
    direction: Direction,
    decision: Decision,
    headers: &Headers,
) {
    let (packets, bytes) = (u64::from(headers.packets), u64::from(headers.bytes));
    let index = reason_index(interface_slot, direction, decision.reason);
    add(REASONS.get_ptr_mut(index), packets, bytes);
    if decision.rule.is_some() {
        let opened = decision.reason == Reason::Rule;
        count_rule(decision.rule, packets, bytes, opened);
    }
}

/// Counts a SYN that no rule admits.
#[inline(always)]
pub(crate) fn count_refused<P: Packet>(interface_slot: u32, direction: Direction, frame: &P) {
    let index = reason_index(interface_slot, direction, Reason::NoRule);
    let (packets, bytes) = (u64::from(frame.segments()), u64::from(frame.length()));
    add(REASONS.get_ptr_mut(index), packets, bytes);
}

/// Counts a frame of an interface that has no entry, or one that is not in force.
#[inline(always)]
pub(crate) fn count_stray() {
    add(STRAYS.get_ptr_mut(0), 1, 0);
}

#[inline(always)]
fn count_rule(rule: RuleSlot, packets: u64, bytes: u64, opened: bool) {
    let rules = RULES_A_CPU.load();
    // A flow may have outlived its rule, and the layout that had room for it.
    if rule.0 >= rules {
        return;
    }
    // SAFETY: the kernel has no condition for this call.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(counter) = RULES.get_ptr_mut(cpu * rules + rule.0) {
        // SAFETY: as in `add`.
        unsafe {
            (*counter).packets += packets;
            (*counter).bytes += bytes;
            (*counter).flows += u64::from(opened);
            (*counter).last_hit = Ticks::from_jiffies(bpf_jiffies64());
        }
    }
}
