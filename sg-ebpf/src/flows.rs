//! Flows in buckets of eight, in one array.
//!
//! Embryonic and assured flows share it: a bit of a place's tag says which its flow is, so that a flow
//! is assured where it is, and what is not assured gives way to what comes.
//!
//! Readers take no lock: they compare tags, then the key, and look at the stamp again after copying;
//! it is odd while a flow moves in, and another one afterwards. Writers of one bucket are
//! serialised by its spin lock, under which the verifier allows no call; so time and places are
//! computed before. Two CPUs that place one flow at once may choose different places: each looks for
//! another one when it has written its own, and one stays.
//!
//! A packet of a flow that is known waits for memory once: the first bucket is taken as long as half
//! of it is free, and in it the place that the tag names. So the processor, which expects what
//! mostly is, reads tags and flow at the same time.
//!
//! Expired flows are no flows: their places are reused by whoever needs one, and each new assured
//! flow sweeps one more bucket, so that quotas become true again without any process.
//!
//! While the table changes its size there are two, and a flow is in one of them: what the current one
//! does not have is looked for in the *other* one, used there in place, and carried over by a
//! program that the controller runs.
//!
//! What is called from several places is a function of its own in the kernel too: a call costs less
//! than the instructions and the stack of another copy.

use core::arch::asm;
use core::intrinsics::{self, AtomicOrdering};

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::helpers::{bpf_jiffies64, bpf_spin_lock, bpf_spin_unlock};
use aya_ebpf::macros::btf_map;
use sg_common::abi::Globals;
use sg_common::flow::{
    Carrying, FlowBucket, FlowKey, FlowKind, FlowSearch, FlowSlot, FlowState, Leg,
};
use sg_common::ids::{RuleSlot, Ticks};
use sg_common::packet::Direction;
use sg_common::tables::{Glance, Passing};

use crate::frame::in_register;
use crate::maps::{GLOBALS, hidden};
use crate::words;

/// Begins at a page, as an array that can be mapped does: a bucket then never lies on two, and what is
/// read of it first is one cache line.
const PAGED: usize = BPF_F_MMAPABLE as usize;

#[btf_map]
static FLOWS: Array<FlowBucket, 1, PAGED> = Array::new();
/// The table of another size, while flows are carried over; else one bucket that nobody looks at.
#[btf_map]
static OTHER_FLOWS: Array<FlowBucket, 1, PAGED> = Array::new();
/// How far the carrying has come.
#[btf_map]
static CARRYING: Array<Carrying, 1> = Array::new();
/// Assured flows by owner.
#[btf_map]
static OWNED: Array<u32, 1> = Array::new();
/// The next bucket to sweep.
#[btf_map]
static SWEEP: Array<u32, 1> = Array::new();

const SLOTS: u32 = FlowBucket::SLOTS as u32;
/// No owner.
const NOBODY: u32 = u32::MAX;

/// The stamp after a flow has moved in, or gone.
#[inline(always)]
fn next_stamp(stamp: u32) -> u32 {
    stamp.wrapping_add(2)
}

/// Whether a flow is moving into the place with this stamp: what is read there may be of two flows.
#[inline(always)]
fn is_moving_in(stamp: u32) -> bool {
    stamp & 1 == 1
}

/// Whether the processor itself keeps the order of reads, and that of writes.
const IS_STRONGLY_ORDERED: bool = match option_env!("AYA_BPF_TARGET_ARCH") {
    Some(processor) => matches!(processor.as_bytes(), b"x86_64" | b"x86"),
    None => false,
};

/// Keeps reads and writes of memory from moving from one side to the other. `own` is a word of this
/// CPU's, which stays as it is.
///
/// x86 moves no read before a read and no write before a write (Intel SDM 3A §9.2.2), so there it is the
/// compiler alone that is kept from it. Other processors move both. The instructions of BPF that acquire
/// and release are of Linux 6.15 and later; one that reads, writes and returns what it read is a full
/// barrier by the kernel's memory model, on every kernel (arm64: `ldaddal`, or `stlxr` and `dmb ish`),
/// and on a word of this CPU's it waits for no other CPU.
#[inline(always)]
fn keep_order(own: *mut u32) {
    if IS_STRONGLY_ORDERED {
        // SAFETY: it is empty; the compiler must think that it touches memory.
        unsafe { asm!("", options(nostack, preserves_flags)) };
    } else {
        full_barrier(own);
    }
}

/// Keeps also writes before reads, which no processor does by itself. `own` is as for [`keep_order`].
#[inline(always)]
fn full_barrier(own: *mut u32) {
    // SAFETY: an aligned word of this CPU's.
    unsafe { intrinsics::atomic_xadd::<u32, u32, { AtomicOrdering::AcqRel }>(own, 0) };
}

/// The tables as [`FlowSearch::table`] numbers them: a bit tells assured flows from embryonic ones,
/// another the buckets that flows are carried from, and a search may be for either kind of flow.
const EMBRYONIC_FLOWS: u32 = 0;
const ASSURED_FLOWS: u32 = 1;
const OTHER: u32 = 2;
const EITHER: u32 = 4;

#[inline(always)]
fn number(table: FlowKind) -> u32 {
    match table {
        FlowKind::Embryonic => EMBRYONIC_FLOWS,
        FlowKind::Assured => ASSURED_FLOWS,
    }
}

/// The number of the table that a flow with this tag is in.
#[inline(always)]
fn table_of(tag: u16) -> u32 {
    u32::from(tag >> 1) & ASSURED_FLOWS
}

/// The tag of a flow in the table with this number.
#[inline(always)]
fn tag_in(table: u32, tag: u32) -> u16 {
    (tag | (table & ASSURED_FLOWS) << 1) as u16
}

#[inline(always)]
fn holds_assured(table: u32) -> bool {
    table & ASSURED_FLOWS != 0
}

/// Where a flow was found.
#[derive(Clone, Copy)]
pub(crate) struct FoundFlow {
    table: u32,
    bucket: u32,
    lane: u32,
    stamp: u32,
}

impl FoundFlow {
    #[inline(always)]
    fn lane(self) -> Option<Lane> {
        Some(Lane {
            bucket: bucket(self.table, self.bucket)?,
            lane: self.lane,
        })
    }
}

#[inline(always)]
fn bucket(table: u32, index: u32) -> Option<*mut FlowBucket> {
    if table & OTHER == 0 {
        FLOWS.get_ptr_mut(index)
    } else {
        OTHER_FLOWS.get_ptr_mut(index)
    }
}

/// One of a bucket's eight places.
#[derive(Clone, Copy)]
struct Lane {
    bucket: *mut FlowBucket,
    lane: u32,
}

impl Lane {
    #[inline(always)]
    fn index(self) -> usize {
        (self.lane & (SLOTS - 1)) as usize
    }

    #[inline(always)]
    fn slot(self) -> *mut FlowSlot {
        // SAFETY: the index is below the number of slots.
        unsafe {
            (&raw mut (*self.bucket).slots)
                .cast::<FlowSlot>()
                .add(self.index())
        }
    }

    #[inline(always)]
    fn deadline(self) -> *mut Ticks {
        // SAFETY: as in `slot`.
        unsafe {
            (&raw mut (*self.bucket).deadlines)
                .cast::<Ticks>()
                .add(self.index())
        }
    }

    #[inline(always)]
    fn tag(self) -> *mut u16 {
        // SAFETY: as in `slot`.
        unsafe {
            (&raw mut (*self.bucket).tags)
                .cast::<u16>()
                .add(self.index())
        }
    }

    /// Whether the flow that was found here under this stamp is here, and in the same table.
    ///
    /// # Safety
    /// The bucket's lock must be held.
    #[inline(always)]
    unsafe fn holds(self, table: u32, stamp: u32) -> bool {
        // SAFETY: the pointers lie in the bucket.
        unsafe { (*self.slot()).stamp == stamp && table_of(*self.tag()) == table & ASSURED_FLOWS }
    }
}

/// One in each of four tags.
const ONES: u64 = 0x0001_0001_0001_0001;

/// Which lanes of a word of four tags hold the tag: bits 0 to 3, and never too few.
///
/// A lane that is equal becomes zero, and subtraction borrows from the top bit of zero lanes only,
/// or of their neighbours; the key is compared afterwards.
#[inline(always)]
fn matching(word: u64, tag: u16) -> u32 {
    const TOPS: u64 = 0x8000_8000_8000_8000;
    let difference = word ^ u64::from(tag).wrapping_mul(ONES);
    let zero = difference.wrapping_sub(ONES) & !difference & TOPS;
    // Gathers the four top bits.
    const GATHER: u64 = 1 << 48 | 1 << 33 | 1 << 18 | 1 << 3;
    ((zero >> 15).wrapping_mul(GATHER) >> 48) as u32 & 0xf
}

/// The number of the only bit set among the lowest eight, without a branch: the verifier then keeps
/// one state for all lanes.
#[inline(always)]
fn bit_number(bit: u32) -> u32 {
    (bit >> 1 & 1)
        + (bit >> 2 & 1) * 2
        + (bit >> 3 & 1) * 3
        + (bit >> 4 & 1) * 4
        + (bit >> 5 & 1) * 5
        + (bit >> 6 & 1) * 6
        + (bit >> 7 & 1) * 7
}

/// This CPU's search; programs on one CPU run one after the other.
#[btf_map]
static SEARCHES: PerCpuArray<FlowSearch, 1> = PerCpuArray::new();

#[inline(always)]
fn begin_search(table: u32, key: &FlowKey, now: Ticks) -> Option<&'static mut FlowSearch> {
    let search = SEARCHES.get_ptr_mut(0)?;
    // SAFETY: one program at a time runs on a CPU, and begins a search when the last one is over.
    let search = unsafe { &mut *search };
    // SAFETY: both are references.
    unsafe { words::copy(key, &raw mut search.key) };
    search.table = table;
    search.now = now;
    search.except = NOWHERE;
    sg_set_places(search);
    Some(search)
}

/// Works out where the flow may be.
///
/// A global function: its stack is then free for the others.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_set_places(search: *mut FlowSearch) -> u32 {
    let Some(globals) = GLOBALS.get(0) else {
        return 0;
    };
    if search.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let search = unsafe { &mut *search };
    let places = search.key.places(&globals.hash_key);
    search.first = places.first;
    search.second = places.second;
    search.tag = u32::from(places.tag);
    1
}

/// The buckets of a table, less one.
#[inline(always)]
fn mask(table: u32) -> Option<u32> {
    let globals = GLOBALS.get(0)?;
    // Both are read before one is chosen: LLVM would work out an address instead, which the verifier
    // cannot follow.
    let read = |mask: &u32| {
        // SAFETY: a reference is good to read from.
        unsafe { (&raw const *mask).read_volatile() }
    };
    let current = read(&globals.flow_mask);
    let other = read(&globals.other_flow_mask);
    Some(if table & OTHER == 0 { current } else { other })
}

/// A number for each place of a table.
#[inline(always)]
fn place_number(bucket: u32, lane: u32) -> u32 {
    bucket * SLOTS + (lane & (SLOTS - 1))
}

/// The number of no place.
const NOWHERE: u32 = u32::MAX;

/// Finds a live flow. Returns 1 when there is one.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_search_flow(search: *mut FlowSearch) -> u32 {
    if search.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let search = unsafe { &mut *search };
    let own = &raw mut search.stamp;
    // Who searches either table does not see the bit that tells them apart.
    let unseen = (search.table & EITHER) >> 1;
    let tag = tag_in(search.table, search.tag) | unseen as u16;
    let unseen = u64::from(unseen) * ONES;
    for round in 0..2 {
        // Worked out anew: what is kept from round to round is kept on the stack.
        let Some(mask) = mask(search.table) else {
            return 0;
        };
        let index = if round == 0 {
            search.first
        } else {
            search.second
        } & mask;
        let Some(bucket) = bucket(search.table, index) else {
            return 0;
        };
        // SAFETY: array elements live as long as the program; what is read may change meanwhile,
        // and is compared again below.
        unsafe {
            let words = (&raw const (*bucket).tags).cast::<u64>();
            let mut lanes = matching(words.read_volatile() | unseen, tag)
                | matching(words.add(1).read_volatile() | unseen, tag) << 4;
            for _ in 0..SLOTS {
                if lanes == 0 {
                    break;
                }
                let bit = lanes & lanes.wrapping_neg();
                lanes &= !bit;
                let lane = Lane {
                    bucket,
                    lane: bit_number(bit),
                };
                let slot = lane.slot();
                // Before the state: who finds a flow assured finds the state of an assured one.
                let table = table_of(lane.tag().read_volatile());
                let stamp = (&raw const (*slot).stamp).read_volatile();
                keep_order(own);
                // What is read anew here would otherwise be kept on the stack; of the key, that is so as in
                // `pass_along`.
                let except = (&raw const search.except).read_volatile();
                let now = (&raw const search.now).read_volatile();
                if is_moving_in(stamp)
                    || place_number(index, lane.lane) == except
                    || lane.deadline().read_volatile().has_passed(now)
                    || !(*slot).key.is(hidden(&search.key))
                {
                    continue;
                }
                words::copy(&raw const (*slot).state, &raw mut search.state);
                search.bucket = index;
                search.lane = lane.lane;
                search.stamp = stamp;
                keep_order(own);
                if (&raw const (*slot).stamp).read_volatile() == stamp {
                    let searched = (&raw const search.table).read_volatile();
                    if searched & EITHER != 0 {
                        search.table = table | searched & OTHER;
                    }
                    return 1;
                }
            }
        }
    }
    0
}

/// Looks at the place where the flow would be at home, or else at the first one of either bucket whose
/// tag is right: nearly always that is the flow, and no loop is needed. What the packet does to the flow
/// is kept.
#[inline(always)]
pub(crate) fn pass_along<P: Passing>(
    globals: &Globals,
    key: &FlowKey,
    own: *mut u32,
    state: &mut FlowState,
    packet: &P,
) -> Glance<RuleSlot> {
    let places = key.places(&globals.hash_key);
    let tag = FlowKind::Assured.tag(places.tag);
    let Some(bucket) = FLOWS.get_ptr_mut(places.first & globals.flow_mask) else {
        return Glance::Unsure;
    };
    let mut lane = Lane {
        bucket,
        lane: FlowBucket::home(tag),
    };
    // SAFETY: array elements live as long as the program; what is read may change meanwhile.
    if unsafe { lane.tag().read_volatile() } != tag {
        let place = sg_place_with(places.first, places.second, u32::from(tag));
        if place >= UNSURE {
            return match place {
                NOWHERE => Glance::Absent,
                _ => Glance::Unsure,
            };
        }
        let Some(bucket) = FLOWS.get_ptr_mut(place / SLOTS) else {
            return Glance::Unsure;
        };
        lane = Lane {
            bucket,
            lane: place,
        };
    }
    // SAFETY: the helper only reads a clock.
    let now = Ticks::from_jiffies(unsafe { bpf_jiffies64() });
    let slot = lane.slot();
    // The words that were hashed would be kept on the stack.
    let key = if P::KEY_IN_MEMORY { hidden(key) } else { key };
    // SAFETY: as in `sg_search_flow`.
    unsafe {
        let stamp = (&raw const (*slot).stamp).read_volatile();
        keep_order(own);
        if lane.tag().read_volatile() != tag
            || is_moving_in(stamp)
            || lane.deadline().read_volatile().has_passed(now)
            || !is_keyed(slot, key)
        {
            return Glance::Unsure;
        }
        // Read as late as it is needed: there are few registers.
        let held = &raw const (*slot).state;
        state.generation = (&raw const (*held).generation).read_volatile();
        state.owner = (&raw const (*held).owner).read_volatile();
        state.phase = (&raw const (*held).phase).read_volatile();
        state.initiator = (&raw const (*held).initiator).read_volatile();
        state.marks = (&raw const (*held).marks).read_volatile();
        if !packet.may_pass(state) {
            return Glance::Unsure;
        }
        state.end = (&raw const (*held).end).read_volatile();
        state.ack = (&raw const (*held).ack).read_volatile();
        state.window = (&raw const (*held).window).read_volatile();
        state.scales = (&raw const (*held).scales).read_volatile();
        let passage = packet.passage(state);
        let rule = (&raw const (*held).rule).read_volatile();
        keep_order(own);
        if (&raw const (*slot).stamp).read_volatile() != stamp {
            return Glance::Unsure;
        }
        if passage.has_moved {
            advance_slot(slot, passage.leg, state);
        }
        extend_lane(lane, now.after(passage.timeout));
        let (packets, bytes) = packet.size();
        count_slot(slot, passage.leg, packets, bytes);
        Glance::Found(rule)
    }
}

/// A number of no place: there may be one.
const UNSURE: u32 = NOWHERE - 1;

/// The number of the first place of a flow's two buckets with the tag of an assured flow, or
/// [`NOWHERE`]. That of an embryonic flow will do: the tag is looked at again.
///
/// A function of its own: few flows are away from home. Flows stay where they are, but for those that
/// are carried from a table of another size: whether there is one is asked before any place is looked at,
/// so that a flow which is found nowhere is in neither table.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_place_with(first: u32, second: u32, tag: u32) -> u32 {
    let (Some(globals), Some(own)) = (GLOBALS.get(0), SEARCHES.get_ptr_mut(0)) else {
        return UNSURE;
    };
    // SAFETY: a reference is good to read from, and the word is this CPU's.
    let carried_from = unsafe {
        let mask = (&raw const globals.other_flow_mask).read_volatile();
        keep_order(&raw mut (*own).stamp);
        mask
    };
    for index in [first, second] {
        let index = index & globals.flow_mask;
        let Some(bucket) = FLOWS.get_ptr(index) else {
            return UNSURE;
        };
        let lanes = lanes_with(bucket, tag as u16);
        if lanes != 0 {
            return place_number(index, bit_number(lanes & lanes.wrapping_neg()));
        }
    }
    match carried_from {
        0 => NOWHERE,
        _ => UNSURE,
    }
}

/// Which places of a bucket have the tag of an assured flow, or that of an embryonic one which is else
/// alike.
#[inline(always)]
fn lanes_with(bucket: *const FlowBucket, tag: u16) -> u32 {
    // The bit that tells the tables apart is set in all of them, so that embryonic flows match.
    let unseen = u64::from(tag_in(ASSURED_FLOWS, 0)) * ONES;
    // SAFETY: array elements live as long as the program; what is read may change meanwhile.
    unsafe {
        let words = (&raw const (*bucket).tags).cast::<u64>();
        matching(words.read_volatile() | unseen, tag)
            | matching(words.add(1).read_volatile() | unseen, tag) << 4
    }
}

/// Whether a slot has this key, by whole words of the processor.
///
/// # Safety
/// The slot must lie in a bucket.
#[inline(always)]
unsafe fn is_keyed(slot: *const FlowSlot, key: &FlowKey) -> bool {
    const _: () = assert!(core::mem::offset_of!(FlowSlot, key).is_multiple_of(8));
    let join = |lower: u32, upper: u32| u64::from(lower) | u64::from(upper) << 32;
    let [a, b, c, d] = key.local.raw_words();
    let [e, f, g, h] = key.peer.raw_words();
    let ports = u32::from(key.local_port) | u32::from(key.peer_port) << 16;
    let expected = [
        join(a, b),
        join(c, d),
        join(e, f),
        join(g, h),
        join(key.zone, ports),
    ];
    // SAFETY: the key lies in the slot, at an address that eight divides.
    unsafe {
        let held = (&raw const (*slot).key).cast::<u64>();
        let mut difference = 0;
        for (place, expected) in expected.into_iter().enumerate() {
            difference |= held.add(place).read_volatile() ^ expected;
        }
        let rest = held.add(expected.len()).cast::<u32>().read_volatile();
        let kind = u32::from(key.protocol) | u32::from(key.asker) << 8;
        difference | u64::from(rest ^ kind) == 0
    }
}

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

/// Writes what a leg's segment has moved. No lock: each word is a number of its own, and whoever
/// writes one at the same time has seen a packet of the same leg.
#[inline(always)]
pub(crate) fn advance(flow: FoundFlow, leg: Leg, state: &FlowState) {
    let Some(lane) = flow.lane() else { return };
    let slot = lane.slot();
    // SAFETY: the slot lies in a bucket.
    unsafe {
        if (&raw const (*slot).stamp).read_volatile() == flow.stamp {
            advance_slot(slot, leg, state);
        }
    }
}

/// Where a pair has a leg's element. LLVM knows of no third leg and would leave out the mask, from which
/// the verifier learns it.
#[inline(always)]
fn place_of(leg: Leg) -> usize {
    in_register(leg as u32) & 1
}

/// # Safety
/// The slot must lie in a bucket.
#[inline(always)]
unsafe fn advance_slot(slot: *mut FlowSlot, leg: Leg, state: &FlowState) {
    let place = place_of(leg);
    // SAFETY: `place` is 0 or 1, and the words are aligned.
    unsafe {
        let to = &raw mut (*slot).state;
        (&raw mut (*to).end)
            .cast::<u32>()
            .add(place)
            .write_volatile(leg.of(&state.end));
        (&raw mut (*to).ack)
            .cast::<u32>()
            .add(place)
            .write_volatile(leg.of(&state.ack));
        (&raw mut (*to).window)
            .cast::<u16>()
            .add(place)
            .write_volatile(leg.of(&state.window));
    }
}

#[inline(always)]
pub(crate) fn find(
    table: FlowKind,
    key: &FlowKey,
    now: Ticks,
    state: &mut FlowState,
) -> Option<FoundFlow> {
    find_in(number(table), key, now, state)
}

/// The same in both tables, by one search: a flow is assured where it is.
#[inline(always)]
pub(crate) fn find_either(
    key: &FlowKey,
    now: Ticks,
    state: &mut FlowState,
) -> Option<(FlowKind, FoundFlow)> {
    let flow = find_in(EITHER, key, now, state)?;
    let table = if holds_assured(flow.table) {
        FlowKind::Assured
    } else {
        FlowKind::Embryonic
    };
    Some((table, flow))
}

#[inline(always)]
fn find_in(table: u32, key: &FlowKey, now: Ticks, state: &mut FlowState) -> Option<FoundFlow> {
    let search = begin_search(table, key, now)?;
    if !search_both(search) {
        return None;
    }
    // SAFETY: both are references.
    unsafe { words::copy(&raw const search.state, state) };
    Some(found(search))
}

/// Whether a flow may be in the other table.
#[inline(always)]
fn is_carrying() -> bool {
    GLOBALS
        .get(0)
        .is_some_and(|globals| globals.other_flow_mask != 0)
}

/// Searches, also where flows are carried from. One that moves is in its new place before it leaves the
/// old one, so who misses it in both finds it in the new one.
///
/// In place: the frame of another function would be on the stack during a search.
#[inline(always)]
fn search_both(search: &mut FlowSearch) -> bool {
    if sg_search_flow(search) != 0 {
        return true;
    }
    if !is_carrying() {
        return false;
    }
    search.table |= OTHER;
    if sg_search_flow(search) != 0 {
        return true;
    }
    search.table &= !OTHER;
    keep_order(&raw mut search.stamp);
    sg_search_flow(search) != 0
}

#[inline(always)]
fn found(search: &FlowSearch) -> FoundFlow {
    FoundFlow {
        table: search.table,
        bucket: search.bucket,
        lane: search.lane,
        stamp: search.stamp,
    }
}

#[inline(always)]
pub(crate) fn update(flow: FoundFlow, state: &FlowState) {
    let Some(lane) = flow.lane() else { return };
    write_state(lane.bucket, lane.lane, flow.table, flow.stamp, state);
}

/// Writes the state, if the place still holds the flow.
#[inline(never)]
fn write_state(
    bucket: *mut FlowBucket,
    lane: u32,
    table: u32,
    stamp: u32,
    state: &FlowState,
) -> u32 {
    let lane = Lane { bucket, lane };
    // SAFETY: lock and slot lie in one map value; between lock and unlock are plain stores.
    unsafe {
        let lock = &raw mut (*bucket).lock;
        bpf_spin_lock(lock.cast());
        if lane.holds(table, stamp) {
            words::copy(state, &raw mut (*lane.slot()).state);
        }
        bpf_spin_unlock(lock.cast());
    }
    0
}

#[inline(always)]
pub(crate) fn extend(flow: FoundFlow, deadline: Ticks) {
    let Some(lane) = flow.lane() else { return };
    if !holds_assured(flow.table) {
        write_deadline(lane.bucket, lane.lane, flow.stamp, deadline);
        return;
    }
    extend_lane(lane, deadline);
}

/// The same for an assured flow.
#[inline(always)]
fn extend_lane(lane: Lane, deadline: Ticks) {
    let at = lane.deadline();
    // SAFETY: the pointer lies in the bucket; one aligned word. Whoever moves it at the same time
    // has seen a packet of the same flow within the same second.
    unsafe {
        if at.read_volatile().is_worth_moving_to(deadline) {
            at.write_volatile(deadline);
        }
    }
}

/// Writes an embryonic flow's deadline, if it is still one: another CPU may have given it the longer
/// one of an assured flow.
#[inline(never)]
fn write_deadline(bucket: *mut FlowBucket, lane: u32, stamp: u32, deadline: Ticks) -> u32 {
    let lane = Lane { bucket, lane };
    // SAFETY: as in `write_state`.
    unsafe {
        if !(*lane.deadline()).is_worth_moving_to(deadline) {
            return 0;
        }
        let lock = &raw mut (*bucket).lock;
        bpf_spin_lock(lock.cast());
        if lane.holds(EMBRYONIC_FLOWS, stamp) {
            lane.deadline().write_volatile(deadline);
        }
        bpf_spin_unlock(lock.cast());
    }
    0
}

#[inline(always)]
pub(crate) fn count(flow: FoundFlow, leg: Leg, packets: u32, bytes: u32) {
    if let Some(lane) = flow.lane() {
        // SAFETY: the slot lies in a bucket.
        unsafe { count_slot(lane.slot(), leg, packets, bytes) };
    }
}

/// # Safety
/// The slot must lie in a bucket.
#[inline(always)]
unsafe fn count_slot(slot: *mut FlowSlot, leg: Leg, packets: u32, bytes: u32) {
    let place = place_of(leg);
    // SAFETY: `place` is 0 or 1.
    unsafe {
        let counted = (&raw mut (*slot).packets).cast::<u64>().add(place);
        add(counted, u64::from(packets));
        let counted = (&raw mut (*slot).bytes).cast::<u64>().add(place);
        add(counted, u64::from(bytes));
    }
}

/// Adds without losing what another CPU adds.
///
/// # Safety
/// `to` must point into a map value, aligned.
#[inline(always)]
unsafe fn add(to: *mut u64, value: u64) {
    // SAFETY: the caller vouches for the pointer.
    unsafe { intrinsics::atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(to, value) };
}

#[inline(always)]
pub(crate) fn carry_counts(from: FoundFlow, to: FoundFlow) {
    // A flow that was assured where it was has them.
    if from.bucket == to.bucket && from.lane == to.lane && (from.table ^ to.table) & OTHER == 0 {
        return;
    }
    let (Some(from), Some(to)) = (from.lane(), to.lane()) else {
        return;
    };
    // SAFETY: both lie in their buckets.
    unsafe { copy_counts(from.slot(), to.slot()) };
}

/// # Safety
/// Both must lie in buckets.
#[inline(always)]
unsafe fn copy_counts(from: *const FlowSlot, to: *mut FlowSlot) {
    // SAFETY: the caller vouches for the pointers.
    unsafe {
        words::copy(&raw const (*from).packets, &raw mut (*to).packets);
        words::copy(&raw const (*from).bytes, &raw mut (*to).bytes);
        (*to).opened = (*from).opened;
    }
}

#[inline(always)]
pub(crate) fn remove(flow: FoundFlow) {
    let Some(lane) = flow.lane() else { return };
    clear(lane.bucket, lane.lane, flow.table, flow.stamp);
}

/// Frees a place, if it still holds the flow.
#[inline(never)]
fn clear(bucket: *mut FlowBucket, lane: u32, table: u32, stamp: u32) -> u32 {
    let lane = Lane { bucket, lane };
    let mut owner = NOBODY;
    // SAFETY: as in `write_state`.
    unsafe {
        let lock = &raw mut (*bucket).lock;
        bpf_spin_lock(lock.cast());
        if lane.holds(table, stamp) {
            lane.tag().write_volatile(0);
            (&raw mut (*lane.slot()).stamp).write_volatile(next_stamp(stamp));
            owner = (*lane.slot()).state.owner;
        }
        bpf_spin_unlock(lock.cast());
    }
    if owner != NOBODY && holds_assured(table) {
        own(owner, NOBODY);
    }
    0
}

/// Adds to an owner's flows; [`NOBODY`] takes one away.
#[inline(always)]
fn own(owner: u32, change: u32) {
    if let Some(owned) = OWNED.get_ptr_mut(owner) {
        // SAFETY: an aligned word in a map value.
        unsafe {
            intrinsics::atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(owned, change);
        }
    }
}

#[inline(always)]
pub(crate) fn owned(owner: u32) -> u32 {
    OWNED.get(owner).copied().unwrap_or(NOBODY)
}

/// Puts a flow into one of its two buckets, or assures it where it is.
#[inline(always)]
pub(crate) fn insert(
    table: FlowKind,
    key: &FlowKey,
    state: &FlowState,
    deadline: Ticks,
    now: Ticks,
) -> Option<FoundFlow> {
    let search = begin_search(number(table), key, now)?;
    // SAFETY: both are references.
    unsafe { words::copy(state, &raw mut search.state) };
    search.deadline = deadline;
    if let FlowKind::Assured = table {
        sweep(now);
        if sg_assure_flow(search) != 0 {
            return Some(found(search));
        }
    }
    place(search)?;
    Some(found(search))
}

/// Puts a flow into one place. `None`: there is no room.
#[inline(always)]
fn place(search: &mut FlowSearch) -> Option<()> {
    sg_choose_bucket(search);
    // Others may fill a bucket before its lock is taken.
    if sg_place_flow(search) == 0 && sg_place_flow(search) == 0 {
        return None;
    }
    // What is carried may yet be taken back. A second place runs out then.
    if is_carrying() {
        return Some(());
    }
    for _ in 0..TWINS {
        begin_twin_search(search);
        if sg_search_flow(search) == 0 {
            end_twin_search(search);
            break;
        }
        sg_part_twins(search);
    }
    Some(())
}

/// Turns to whatever other place the flow that was just placed may have.
#[inline(always)]
fn begin_twin_search(search: &mut FlowSearch) {
    search.except = place_number(search.bucket, search.lane);
    search.except_stamp = search.stamp;
    search.except_table = search.table;
    search.table = EITHER;
    // What is read from here on is read after what was written.
    full_barrier(&raw mut search.stamp);
}

/// Turns back.
#[inline(always)]
fn end_twin_search(search: &mut FlowSearch) {
    (search.bucket, search.lane) = (search.except / SLOTS, search.except % SLOTS);
    search.stamp = search.except_stamp;
    search.table = search.except_table;
    search.except = NOWHERE;
}

/// How many other places of one flow are looked for at most: those that so many CPUs can have written
/// within a microsecond.
const TWINS: u32 = 4;

/// Assures a flow where this CPU has found it last, if it is there still. Returns 1 when it is assured.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_assure_flow(search: *mut FlowSearch) -> u32 {
    if search.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let search = unsafe { &mut *search };
    let owner = search.state.owner;
    let Some(bucket) = FLOWS.get_ptr_mut(search.bucket) else {
        return 0;
    };
    let lane = Lane {
        bucket,
        lane: search.lane,
    };
    let slot = lane.slot();
    // Counted before anybody can find it and end it.
    own(owner, 1);
    let mut was_embryonic = false;
    let mut is_assured = false;
    // SAFETY: lock and slot lie in one map value; between lock and unlock are plain loads and stores.
    unsafe {
        let lock = &raw mut (*bucket).lock;
        bpf_spin_lock(lock.cast());
        let tag = *lane.tag();
        if tag != 0 && (*slot).key.is(&search.key) {
            is_assured = true;
            was_embryonic = table_of(tag) == EMBRYONIC_FLOWS;
            if was_embryonic {
                // The stamp stays, so that whoever reads meanwhile finds the flow in one table or the
                // other.
                words::copy(&raw const search.state, &raw mut (*slot).state);
                lane.deadline().write_volatile(search.deadline);
                keep_order(&raw mut search.stamp);
                lane.tag()
                    .write_volatile(tag_in(ASSURED_FLOWS, u32::from(tag)));
            }
            search.stamp = (*slot).stamp;
        }
        bpf_spin_unlock(lock.cast());
    }
    if !was_embryonic {
        own(owner, NOBODY);
    }
    u32::from(is_assured)
}

/// Turns to the first of a flow's buckets, or where that is not half free to the emptier one.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_choose_bucket(search: *mut FlowSearch) -> u32 {
    if search.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let search = unsafe { &mut *search };
    let Some(mask) = mask(search.table) else {
        return 0;
    };
    let (first, second) = (search.first & mask, search.second & mask);
    let room = sg_room_in(first, search.now.0);
    let is_roomy = room >= ROOM_OF_FREE * SLOTS / 2;
    search.bucket = if is_roomy || room >= sg_room_in(second, search.now.0) {
        first
    } else {
        second
    };
    1
}

/// What a free place, or one whose flow has expired, is worth against an embryonic flow's.
const ROOM_OF_FREE: u32 = 16;

/// How much room a bucket has, before its lock is taken.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_room_in(index: u32, now: u32) -> u32 {
    let now = Ticks(now);
    let Some(bucket) = FLOWS.get_ptr_mut(index) else {
        return 0;
    };
    let mut room = 0;
    for lane in 0..SLOTS {
        let lane = Lane { bucket, lane };
        // SAFETY: the pointers lie in the bucket.
        unsafe {
            let tag = u32::from(lane.tag().read_volatile());
            let is_live = live_bit(tag, lane.deadline().read_volatile(), now);
            let is_assured = tag >> 1 & 1;
            room += (1 - is_live) * ROOM_OF_FREE + (is_live & !is_assured);
        }
    }
    room
}

/// 1 for a place that holds a flow which has not expired, without a branch.
#[inline(always)]
fn live_bit(tag: u32, deadline: Ticks, now: Ticks) -> u32 {
    // Below zero when it has passed.
    let left = deadline.0.wrapping_sub(now.0).wrapping_sub(1);
    tag & !(left >> 31) & 1
}

/// Writes a flow into a place of the bucket: a free one, one whose flow has expired, or that of the
/// embryonic flow with least time left; among equals, its home. Returns 1 when there was one, and
/// turns to the other bucket when there was none.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_place_flow(search: *mut FlowSearch) -> u32 {
    /// What an assured flow's place costs: more than any can.
    const TAKEN: u32 = 1 << 31;
    if search.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let search = unsafe { &mut *search };
    let Some(bucket) = FLOWS.get_ptr_mut(search.bucket) else {
        return 0;
    };
    let tag = tag_in(search.table, search.tag);
    let home = FlowBucket::home(tag);
    let is_assured = holds_assured(search.table);
    if is_assured {
        // As in `sg_assure_flow`.
        own(search.state.owner, 1);
    }
    let mut expired_owner = NOBODY;
    let mut placed = 0;
    // SAFETY: lock and slots lie in one map value; between lock and unlock are plain loads and
    // stores.
    unsafe {
        let lock = &raw mut (*bucket).lock;
        bpf_spin_lock(lock.cast());
        let mut least = u64::MAX;
        for number in 0..SLOTS {
            let at = Lane {
                bucket,
                lane: number,
            };
            let tag = u32::from(*at.tag());
            let deadline = *at.deadline();
            let is_live = live_bit(tag, deadline, search.now);
            let is_assured = tag >> 1 & 1;
            let left = deadline.0.wrapping_sub(search.now.0) | (is_assured * TAKEN);
            let cost = left & is_live.wrapping_neg();
            let candidate = u64::from(cost) << 32 | u64::from(number ^ home);
            least = if candidate < least { candidate } else { least };
        }
        if (least >> 32) as u32 & TAKEN == 0 {
            let lane = Lane {
                bucket,
                lane: least as u32 ^ home,
            };
            let slot = lane.slot();
            if holds_assured(table_of(*lane.tag())) {
                expired_owner = (*slot).state.owner;
            }
            lane.tag().write_volatile(0);
            let stamp = next_stamp((*slot).stamp);
            (&raw mut (*slot).stamp).write_volatile(stamp.wrapping_sub(1));
            keep_order(&raw mut search.stamp);
            words::copy(&raw const search.key, &raw mut (*slot).key);
            words::copy(&raw const search.state, &raw mut (*slot).state);
            words::clear(&raw mut (*slot).packets);
            words::clear(&raw mut (*slot).bytes);
            (*slot).opened = search.now;
            lane.deadline().write_volatile(search.deadline);
            keep_order(&raw mut search.stamp);
            (&raw mut (*slot).stamp).write_volatile(stamp);
            lane.tag().write_volatile(tag);
            search.lane = lane.index() as u32;
            search.stamp = stamp;
            placed = 1;
        }
        bpf_spin_unlock(lock.cast());
    }
    if expired_owner != NOBODY {
        own(expired_owner, NOBODY);
    }
    if placed == 0 {
        if is_assured {
            own(search.state.owner, NOBODY);
        }
        search.bucket ^= (search.first ^ search.second) & mask(search.table).unwrap_or(0);
    }
    placed
}

/// Ends one of the two places of a flow that two CPUs have placed at the same time: the one this CPU
/// has written or the one it has found, and leaves the search at the other.
///
/// Both CPUs write first and look then, so one of them at least sees the other's place; and both choose
/// alike: the assured flow stays, or the one that is found first. If that has changed when one is to
/// go, none goes, and the next look says more.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_part_twins(search: *mut FlowSearch) -> u32 {
    if search.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let search = unsafe { &mut *search };
    let twin = found(search);
    end_twin_search(search);
    let Some(lane) = found(search).lane() else {
        return 0;
    };
    // SAFETY: the pointer lies in the bucket.
    search.table = table_of(unsafe { lane.tag().read_volatile() });
    let own = found(search);
    let Some(mask) = mask(own.table) else {
        return 0;
    };
    let first = search.first & mask;
    let own_goes = if own.table == twin.table {
        rank(twin, first) < rank(own, first)
    } else {
        holds_assured(twin.table)
    };
    if own_goes {
        remove(own);
        (search.bucket, search.lane) = (twin.bucket, twin.lane);
        (search.stamp, search.table) = (twin.stamp, twin.table);
    } else {
        remove(twin);
    }
    0
}

/// Where in the order of a search a place comes.
#[inline(always)]
fn rank(place: FoundFlow, first: u32) -> u32 {
    u32::from(place.bucket != first) * SLOTS + place.lane
}

/// Frees the expired flows of the next bucket.
#[inline(always)]
pub(crate) fn sweep(now: Ticks) {
    sg_sweep_flows(now.0);
}

/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_sweep_flows(now: u32) -> u32 {
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
    for lane in 0..SLOTS {
        let lane = Lane { bucket, lane };
        // SAFETY: the pointers lie in the bucket; looked at again under the lock.
        unsafe {
            if *lane.tag() == 0 || !(*lane.deadline()).has_passed(now) {
                continue;
            }
            let slot = lane.slot();
            let mut owner = NOBODY;
            let lock = &raw mut (*bucket).lock;
            bpf_spin_lock(lock.cast());
            let tag = *lane.tag();
            if tag != 0 && (*lane.deadline()).has_passed(now) {
                if holds_assured(table_of(tag)) {
                    owner = (*slot).state.owner;
                }
                (*slot).stamp = next_stamp((*slot).stamp);
                lane.tag().write_volatile(0);
            }
            bpf_spin_unlock(lock.cast());
            if owner != NOBODY {
                own(owner, NOBODY);
            }
        }
    }
    0
}

/// Carries the flows of one more bucket of the other table to where they belong.
#[inline(always)]
pub(crate) fn carry() {
    let Some(carrying) = CARRYING.get_ptr_mut(0) else {
        return;
    };
    let Some(globals) = GLOBALS.get(0) else {
        return;
    };
    // SAFETY: only the controller runs this, one run after the other.
    let carrying = unsafe { &mut *carrying };
    let index = carrying.bucket;
    carrying.bucket = index.wrapping_add(1);
    if index > globals.other_flow_mask {
        return;
    }
    for lane in 0..SLOTS {
        carrying.left += sg_carry_flow(index, lane);
    }
}

/// Carries one flow. Returns 1 when there is no room for it; it then stays where it is. An embryonic
/// one is forgotten then.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_carry_flow(index: u32, lane: u32) -> u32 {
    let Some(search) = SEARCHES.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: as in `begin_search`.
    let search = unsafe { &mut *search };
    let Some(old_bucket) = OTHER_FLOWS.get_ptr_mut(index) else {
        return 0;
    };
    // SAFETY: the helper only reads a clock.
    let now = Ticks::from_jiffies(unsafe { bpf_jiffies64() });
    let old = Lane {
        bucket: old_bucket,
        lane,
    };
    let mut is_live = false;
    let mut expired_owner = NOBODY;
    let mut table = EMBRYONIC_FLOWS;
    let slot = old.slot();
    let stamp;
    // SAFETY: lock and slot lie in one map value; between lock and unlock are plain loads and
    // stores.
    unsafe {
        let lock = &raw mut (*old_bucket).lock;
        bpf_spin_lock(lock.cast());
        stamp = (*slot).stamp;
        let tag = *old.tag();
        if tag != 0 {
            table = table_of(tag);
            if (*old.deadline()).has_passed(now) {
                expired_owner = (*slot).state.owner;
                (*slot).stamp = next_stamp(stamp);
                old.tag().write_volatile(0);
            } else {
                words::copy(&raw const (*slot).key, &raw mut search.key);
                words::copy(&raw const (*slot).state, &raw mut search.state);
                search.deadline = *old.deadline();
                is_live = true;
            }
        }
        bpf_spin_unlock(lock.cast());
    }
    if expired_owner != NOBODY && holds_assured(table) {
        own(expired_owner, NOBODY);
    }
    if !is_live {
        return 0;
    }
    search.now = now;
    search.table = table;
    sg_set_places(search);
    if place(search).is_none() {
        return table & ASSURED_FLOWS;
    }
    leave(old, table, stamp, search);
    0
}

/// Ends a flow where it was carried from; what happened to it meanwhile happens to it where it is
/// now.
#[inline(always)]
fn leave(old: Lane, table: u32, stamp: u32, search: &FlowSearch) {
    let new = found(search);
    let Some(new_lane) = new.lane() else { return };
    let slot = old.slot();
    let owner = search.state.owner;
    let mut has_left = false;
    let mut last = search.state;
    // SAFETY: both lie in their buckets; lock and slot as in `write_state`.
    unsafe {
        copy_counts(slot, new_lane.slot());
        let lock = &raw mut (*old.bucket).lock;
        bpf_spin_lock(lock.cast());
        if old.holds(table, stamp) {
            words::copy(&raw const (*slot).state, &raw mut last);
            old.tag().write_volatile(0);
            (*slot).stamp = next_stamp(stamp);
            has_left = true;
        }
        bpf_spin_unlock(lock.cast());
    }
    if !has_left {
        // It ended while it was carried.
        remove(new);
        return;
    }
    if holds_assured(table) {
        own(owner, NOBODY);
    }
    if last != search.state {
        write_state(new_lane.bucket, new_lane.lane, new.table, new.stamp, &last);
    }
}
