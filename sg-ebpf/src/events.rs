//! Tells who reads along what became of a packet.
//!
//! While nobody reads, a packet that is no event costs a comparison and one that is costs a load.
//! Readers are never woken: they look once in a while.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::btf_maps::{Array, PerCpuArray, RingBuf};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::btf_map;
use sg_common::abi::InterfaceFlags;
use sg_common::event::{
    EVENT_READERS, Event, EventKind, EventReader, EventScratch, events_per_tick,
};
use sg_common::ids::{Generation, Ticks};
use sg_common::packet::Direction;
use sg_common::parse::Headers;
use sg_common::report::Decision;

use crate::globals::{self, GLOBALS};
use crate::maps;
use crate::registers::{self, pack, unpack};

/// By kind: not zero when somebody may want such events. Readers set it with their leases, and it
/// is cleared here when no lease is left, so that each word has one value to be stored by either.
#[btf_map]
static WANTED: Array<u32, { EventKind::COUNT }> = Array::new();
#[btf_map]
static READERS: Array<EventReader, EVENT_READERS> = Array::new();
#[btf_map]
static EVENT_SCRATCHES: PerCpuArray<EventScratch, 1> = PerCpuArray::new();

/// One reader's events. The controller sets the size; the kernel wants whole pages.
type Ring = RingBuf<Event, 4096>;

#[btf_map]
static EVENTS_0: Ring = Ring::new();
#[btf_map]
static EVENTS_1: Ring = Ring::new();
#[btf_map]
static EVENTS_2: Ring = Ring::new();
#[btf_map]
static EVENTS_3: Ring = Ring::new();

/// Tells of a packet that was judged. `place` is where the interface's entry is.
#[inline(always)]
pub(crate) fn report(
    place: u32,
    generation: Generation,
    direction: Direction,
    decision: Decision,
    headers: &Headers,
) {
    let Some(kind) = EventKind::of(decision.reason, headers) else {
        return;
    };
    if !are_wanted(kind) {
        return;
    }
    let direction = direction.number();
    sg_tell_event(headers, place, generation.0, direction, pack(decision));
}

/// Whether somebody may want such events.
#[inline(always)]
pub(crate) fn are_wanted(kind: EventKind) -> bool {
    WANTED.get(kind.number()).is_some_and(|wanted| *wanted != 0)
}

/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_tell_event(
    headers: *const Headers,
    place: u32,
    generation: u32,
    direction: u32,
    decision: u64,
) -> u32 {
    if headers.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let headers = unsafe { &*headers };
    let decision = unpack(decision);
    let direction = registers::direction(direction);
    let generation = Generation(generation);
    let Some(kind) = EventKind::of(decision.reason, headers) else {
        return 0;
    };
    let now = globals::now();
    let listening = listening(kind, now);
    if listening == 0 {
        stop(kind);
        return 0;
    }
    let (Some(globals), Some(entry)) = (GLOBALS.get(0), maps::interface_entry(place)) else {
        return 0;
    };
    let Some(interface) = maps::in_force(entry, generation) else {
        return 0;
    };
    let Some(scratch) = EVENT_SCRATCHES.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: the element is this CPU's, and programs on one CPU run one after the other.
    let scratch = unsafe { &mut *scratch };
    if scratch.tick != now {
        scratch.tick = now;
        scratch.left = [events_per_tick(globals.jiffies_per_second); EventKind::COUNT];
    }
    let [drops, flows] = &mut scratch.left;
    let left = match kind {
        EventKind::Drop => drops,
        EventKind::NewFlow => flows,
    };
    let is_within_rate = *left > 0;
    if is_within_rate {
        *left -= 1;
        let event = &mut scratch.event;
        let audited = interface.flags.has(InterfaceFlags::AUDIT);
        event.describe(kind, direction, decision, headers, audited);
        event.interface = interface.slot;
        event.netns = entry.netns;
        event.ifindex = entry.ifindex;
        event.generation = generation;
        // SAFETY: the helper only reads a clock.
        event.time_ns = unsafe { bpf_ktime_get_boot_ns() };
    }
    let packets = u64::from(headers.packets);
    let EventScratch { event, unseen, .. } = scratch;
    let tell = |reader: usize, ring: &Ring, unseen: &mut [u64; EventKind::COUNT]| {
        if listening & 1 << reader == 0 || is_within_rate && write(ring, event) {
            return;
        }
        let [drops, flows] = unseen;
        match kind {
            EventKind::Drop => *drops += packets,
            EventKind::NewFlow => *flows += packets,
        }
    };
    let [first, second, third, fourth] = unseen;
    tell(0, &EVENTS_0, first);
    tell(1, &EVENTS_1, second);
    tell(2, &EVENTS_2, third);
    tell(3, &EVENTS_3, fourth);
    0
}

/// Which readers listen to this kind, as bits.
#[inline(always)]
fn listening(kind: EventKind, now: Ticks) -> u32 {
    let mut listening = 0;
    for reader in 0..EVENT_READERS as u32 {
        let listens = READERS
            .get(reader)
            .is_some_and(|lease| lease.listens(kind, now));
        listening |= u32::from(listens) << reader;
    }
    listening
}

/// Nobody wants this kind any more. A reader that comes at the same moment says so again when it
/// renews its lease.
#[inline(always)]
fn stop(kind: EventKind) {
    if let Some(wanted) = WANTED.get_ptr_mut(kind.number()) {
        // SAFETY: an aligned word in a map value.
        unsafe { wanted.write_volatile(0) };
    }
}

/// Whether the ring had room.
#[inline(always)]
fn write(ring: &Ring, event: &Event) -> bool {
    ring.output(event, u64::from(BPF_RB_NO_WAKEUP)).is_ok()
}
