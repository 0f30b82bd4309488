//! Logs each step of the packets that a command asks for: in the traced build alone.
//!
//! The steps of a packet are written into one record, which goes through aya-log in one piece, so that
//! what finds no room is lost packet by packet. The maps here are no other build's and pinned nowhere:
//! each trace has its own.

use core::slice;

use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::btf_map;
use aya_log_ebpf::trace;
use sg_common::abi::InterfaceFlags;
use sg_common::decide::{Step, Trace};
use sg_common::event::EventKind;
use sg_common::ids::{Identity, RuleSlot, Ticks};
use sg_common::trace::{TRACE_STEPS, TraceFilter, TraceRecord, TraceStep};

use crate::context::Context;
use crate::maps;
use crate::registers::{direction, unpack};

/// Whether each packet goes the long way, and its steps are told.
pub(crate) const IS_ON: bool = true;

/// What this trace asks for.
#[btf_map]
static TRACE_FILTER: Array<TraceFilter, 1> = Array::new();
/// How many packets it asked for, whether they found room in the log or not.
#[btf_map]
static TRACE_COUNT: PerCpuArray<u64, 1> = PerCpuArray::new();
/// The record that is being written.
#[btf_map]
static TRACE_RECORDS: PerCpuArray<TraceRecord, 1> = PerCpuArray::new();

/// Writes steps down.
pub(crate) struct Steps;
/// As above.
pub(crate) const STEPS: Steps = Steps;

impl Trace for Steps {
    #[inline(always)]
    fn step(&self, step: Step) {
        let TraceStep {
            what,
            rule,
            identity,
        } = TraceStep::of(&step);
        sg_note_step(what, rule.0, identity.0);
    }
}

/// This CPU's record. Programs on one CPU run one after the other.
#[inline(always)]
fn record() -> Option<&'static mut TraceRecord> {
    // SAFETY: one program at a time runs on a CPU, and its functions use the record in turn.
    TRACE_RECORDS
        .get_ptr_mut(0)
        .map(|record| unsafe { &mut *record })
}

/// Forgets the steps of the packet before.
#[inline(always)]
pub(crate) fn begin() {
    if let Some(record) = record() {
        record.taken = 0;
    }
}

/// A global function: the verifier checks it once and not at every step.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_note_step(what: u32, rule: u32, identity: u32) -> u32 {
    let Some(record) = record() else { return 0 };
    let place = record.taken;
    if place >= TRACE_STEPS as u32 {
        return 0;
    }
    record.taken = place + 1;
    if let Some(step) = record.steps.get_mut(place as usize) {
        *step = TraceStep {
            what,
            rule: RuleSlot(rule),
            identity: Identity(identity),
        };
    }
    0
}

/// Logs the packet that was judged, if it is one that is asked for.
#[inline(always)]
pub(crate) fn tell(context: *mut Context, decision: u64) {
    sg_tell_trace(context, decision);
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_tell_trace(context: *mut Context, decision: u64) -> u32 {
    if context.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let context = unsafe { &*context };
    let headers = &context.scratch.headers;
    let direction = direction(context.direction);
    let Some(filter) = TRACE_FILTER.get(0) else {
        return 0;
    };
    if !filter.takes(headers, direction) {
        return 0;
    }
    if let Some(count) = TRACE_COUNT.get_ptr_mut(0) {
        // SAFETY: the element is this CPU's.
        unsafe { *count += 1 };
    }
    // SAFETY: the helper only reads a clock.
    let now = Ticks::from_jiffies(unsafe { bpf_jiffies64() });
    if filter.until.has_passed(now) {
        return 0;
    }
    let (Some(record), Some(entry)) = (record(), maps::interface_entry(context.interface)) else {
        return 0;
    };
    let Some(interface) = maps::in_force(entry, context.generation) else {
        return 0;
    };
    let audited = interface.flags.has(InterfaceFlags::AUDIT);
    let packet = &mut record.packet;
    packet.describe(
        EventKind::Drop,
        direction,
        unpack(decision),
        headers,
        audited,
    );
    packet.interface = interface.slot;
    packet.netns = entry.netns;
    packet.ifindex = entry.ifindex;
    packet.generation = context.generation;
    // SAFETY: the helper only reads a clock.
    packet.time_ns = unsafe { bpf_ktime_get_boot_ns() };
    sg_log_record();
    0
}

/// A function of its own: what aya-log puts on the stack is gone when the others run.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_log_record() -> u32 {
    let Some(record) = TRACE_RECORDS.get(0) else {
        return 0;
    };
    // SAFETY: the record has no byte that is not its own, and lies in a map.
    let bytes: &[u8] =
        unsafe { slice::from_raw_parts((&raw const *record).cast(), size_of::<TraceRecord>()) };
    trace!((), "{:x}", bytes);
    0
}
