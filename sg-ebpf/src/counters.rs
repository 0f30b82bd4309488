//! Counts, per CPU, so that no two CPUs write one line.

use core::arch::asm;

use aya_ebpf::Global;
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::btf_map;
use sg_common::abi::{ReasonCounter, ReasonCounters, RuleCounter, reasons_index};
use sg_common::ids::RuleSlot;
use sg_common::packet::{Direction, Packet};
use sg_common::parse::Headers;
use sg_common::report::{Decision, Reason};

use crate::globals;
use crate::maps::MMAPABLE;

// Each of these two arrays holds what one CPU counts, then what the next one does, and last what
// earlier maps had counted. The controller reads them through memory, as it could not read per-CPU
// values, and their entries cost each CPU no more than their size.
#[btf_map]
static REASONS: Array<ReasonCounters, 1, MMAPABLE> = Array::new();
#[btf_map]
static RULES: Array<RuleCounter, 1, MMAPABLE> = Array::new();
/// How many entries of REASONS each CPU has.
#[unsafe(no_mangle)]
static REASONS_A_CPU: Global<u32> = Global::new(1);
/// How many entries of RULES each CPU has.
#[unsafe(no_mangle)]
static RULES_A_CPU: Global<u32> = Global::new(1);
/// Frames that came to an interface without an entry.
#[btf_map]
static STRAYS: PerCpuArray<ReasonCounter, 1> = PerCpuArray::new();

/// The place of an entry among this CPU's.
#[inline(always)]
fn place_of_cpu(entries_a_cpu: u32, index: u32) -> Option<u32> {
    if index >= entries_a_cpu {
        return None;
    }
    // SAFETY: the kernel has no condition for this call.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    Some(cpu * entries_a_cpu + index)
}

/// Where this CPU counts a reason.
#[inline(always)]
fn reason_counter(
    interface_slot: u32,
    direction: Direction,
    reason: Reason,
) -> Option<*mut ReasonCounter> {
    let index = reasons_index(interface_slot, direction);
    let counters = REASONS.get_ptr_mut(place_of_cpu(REASONS_A_CPU.load(), index)?)?;
    let mut number = u64::from(reason.number());
    // SAFETY: it copies a number. LLVM knows how many reasons there are, and would leave out the
    // comparison that the verifier learns it from.
    unsafe { asm!("{number} += 0", number = inout(reg) number, options(pure, nomem, nostack)) };
    if number >= Reason::COUNT as u64 {
        return None;
    }
    // SAFETY: there are as many counters as reasons, as just compared.
    Some(unsafe { counters.cast::<ReasonCounter>().add(number as usize) })
}

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
    count_both(interface_slot, direction, decision, packets, bytes);
}

/// The same for a frame whose headers nobody has kept.
#[inline(always)]
pub(crate) fn count_frame<P: Packet>(
    interface_slot: u32,
    direction: Direction,
    decision: Decision,
    frame: &P,
) {
    let (packets, bytes) = (u64::from(frame.segments(0)), u64::from(frame.length()));
    count_both(interface_slot, direction, decision, packets, bytes);
}

#[inline(always)]
fn count_both(
    interface_slot: u32,
    direction: Direction,
    decision: Decision,
    packets: u64,
    bytes: u64,
) {
    let counter = reason_counter(interface_slot, direction, decision.reason);
    add(counter, packets, bytes);
    if decision.rule.is_some() {
        let opened = decision.reason == Reason::Rule;
        count_rule(decision.rule, packets, bytes, opened);
    }
}

/// Counts a frame of an interface that has no entry, or one that is not in force.
#[inline(always)]
pub(crate) fn count_stray() {
    add(STRAYS.get_ptr_mut(0), 1, 0);
}

#[inline(always)]
fn count_rule(rule: RuleSlot, packets: u64, bytes: u64, opened: bool) {
    // A flow may have outlived its rule, and the layout that had room for it.
    let place = place_of_cpu(RULES_A_CPU.load(), rule.0);
    if let Some(counter) = place.and_then(|place| RULES.get_ptr_mut(place)) {
        // SAFETY: as in `add`.
        unsafe {
            (*counter).packets += packets;
            (*counter).bytes += bytes;
            (*counter).flows += u64::from(opened);
            (*counter).last_hit = globals::now();
        }
    }
}
