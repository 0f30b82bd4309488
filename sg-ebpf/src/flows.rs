//! Flows in buckets of eight, in two arrays.
//!
//! Readers take no lock: they compare tags, then the key, and look at the stamp again after copying;
//! it is odd while a flow moves in, and another one afterwards. Writers of one bucket are
//! serialised by its spin lock, under which the verifier allows no call; so time and places are
//! computed before. Two CPUs that open one flow at once may leave it in both its buckets: searches
//! find the first, and the other runs out.
//!
//! Expired flows are no flows: their places are reused by whoever needs one, and each new assured
//! flow sweeps one more bucket, so that quotas become true again without any process.
//!
//! While the tables change their size there are two pairs, and a flow is in one of them: what the
//! current pair does not have is looked for in the *other* one, used there in place, and carried over
//! by a program that the controller runs.
//!
//! What is called from several places is a function of its own in the kernel too: a call costs less
//! than the instructions and the stack of another copy.

use core::arch::asm;
use core::intrinsics::{self, AtomicOrdering};

use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::helpers::{bpf_jiffies64, bpf_spin_lock, bpf_spin_unlock};
use aya_ebpf::macros::btf_map;
use sg_common::flow::{
    Carrying, FlowBucket, FlowKey, FlowSearch, FlowSlot, FlowState, FlowTable, Leg, Ticks,
};
use sg_common::packet::Direction;
use sg_common::tables::{Glance, Globals};

use crate::maps::{GLOBALS, hidden};

#[btf_map]
static EMBRYONIC: Array<FlowBucket, 1> = Array::new();
#[btf_map]
static ASSURED: Array<FlowBucket, 1> = Array::new();
/// The tables of another size, while flows are carried over; else one bucket that nobody looks at.
#[btf_map]
static OTHER_EMBRYONIC: Array<FlowBucket, 1> = Array::new();
#[btf_map]
static OTHER_ASSURED: Array<FlowBucket, 1> = Array::new();
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

/// Keeps the compiler from moving reads and writes of memory from one side to the other. BPF has no
/// instruction that keeps the processor from it, and x86 does not.
#[inline(always)]
fn keep_order() {
    // SAFETY: it is empty; the compiler must think that it touches memory.
    unsafe { asm!("", options(nostack, preserves_flags)) };
}

/// The tables as [`FlowSearch::table`] numbers them: a bit tells assured flows from embryonic ones,
/// another tells the tables that flows are carried from.
const EMBRYONIC_FLOWS: u32 = 0;
const ASSURED_FLOWS: u32 = 1;
const OTHER: u32 = 2;
const OTHER_EMBRYONIC_FLOWS: u32 = OTHER | EMBRYONIC_FLOWS;

#[inline(always)]
fn number(table: FlowTable) -> u32 {
    match table {
        FlowTable::Embryonic => EMBRYONIC_FLOWS,
        FlowTable::Assured => ASSURED_FLOWS,
    }
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
    match table {
        EMBRYONIC_FLOWS => EMBRYONIC.get_ptr_mut(index),
        ASSURED_FLOWS => ASSURED.get_ptr_mut(index),
        OTHER_EMBRYONIC_FLOWS => OTHER_EMBRYONIC.get_ptr_mut(index),
        _ => OTHER_ASSURED.get_ptr_mut(index),
    }
}

/// A bucket of a table where flows open.
#[inline(always)]
fn current_bucket(table: u32, index: u32) -> Option<*mut FlowBucket> {
    if holds_assured(table) {
        ASSURED.get_ptr_mut(index)
    } else {
        EMBRYONIC.get_ptr_mut(index)
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
}

/// Which lanes of a word of four tags hold the tag: bits 0 to 3, and never too few.
///
/// A lane that is equal becomes zero, and subtraction borrows from the top bit of zero lanes only,
/// or of their neighbours; the key is compared afterwards.
#[inline(always)]
fn matching(word: u64, tag: u16) -> u32 {
    const ONES: u64 = 0x0001_0001_0001_0001;
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
fn begin_search(table: FlowTable, key: &FlowKey, now: Ticks) -> Option<&'static mut FlowSearch> {
    let search = SEARCHES.get_ptr_mut(0)?;
    // SAFETY: one program at a time runs on a CPU, and begins a search when the last one is over.
    let search = unsafe { &mut *search };
    // Hidden from LLVM, which otherwise keeps all words of the key on the stack.
    search.key = *hidden(key);
    search.table = number(table);
    search.now = now;
    Some(search)
}

/// Works out where the flow may be.
#[inline(always)]
fn set_places(search: &mut FlowSearch) -> Option<()> {
    let globals = GLOBALS.get(0)?;
    // As in `begin_search`.
    let places = hidden(&search.key).places(&globals.hash_key);
    let mask = mask(globals, search.table);
    search.first = places.first & mask;
    search.second = places.second & mask;
    search.tag = u32::from(places.tag);
    Some(())
}

#[inline(always)]
fn mask(globals: &Globals, table: u32) -> u32 {
    // All are read before one is chosen: LLVM would work out an address instead, which the verifier
    // cannot follow.
    let read = |mask: &u32| {
        // SAFETY: a reference is good to read from.
        unsafe { (&raw const *mask).read_volatile() }
    };
    let embryonic = read(&globals.embryonic_mask);
    let assured = read(&globals.assured_mask);
    let other_embryonic = read(&globals.other_embryonic_mask);
    let other_assured = read(&globals.other_assured_mask);
    match table {
        EMBRYONIC_FLOWS => embryonic,
        ASSURED_FLOWS => assured,
        OTHER_EMBRYONIC_FLOWS => other_embryonic,
        _ => other_assured,
    }
}

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
    if set_places(search).is_none() {
        return 0;
    }
    let tag = search.tag as u16;
    let mut index = search.first;
    for _ in 0..2 {
        let Some(bucket) = bucket(search.table, index) else {
            return 0;
        };
        // SAFETY: array elements live as long as the program; what is read may change meanwhile,
        // and is compared again below.
        unsafe {
            let words = (&raw const (*bucket).tags).cast::<u64>();
            let mut lanes = matching(words.read_volatile(), tag)
                | matching(words.add(1).read_volatile(), tag) << 4;
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
                let stamp = (&raw const (*slot).stamp).read_volatile();
                keep_order();
                if is_moving_in(stamp)
                    || lane.deadline().read_volatile().has_passed(search.now)
                    || !(*slot).key.is(&search.key)
                {
                    continue;
                }
                search.state = (*slot).state;
                search.bucket = index;
                search.lane = lane.lane;
                search.stamp = stamp;
                keep_order();
                if (&raw const (*slot).stamp).read_volatile() == stamp {
                    return 1;
                }
            }
        }
        index = search.second;
    }
    0
}

/// Looks at the first place of each bucket whose tag is right: nearly always that is the flow, and
/// no loop is needed.
#[inline(always)]
pub(crate) fn glance(
    globals: &Globals,
    table: FlowTable,
    key: &FlowKey,
    now: Ticks,
    state: &mut FlowState,
) -> Glance<FoundFlow> {
    let places = key.places(&globals.hash_key);
    let mask = match table {
        FlowTable::Embryonic => globals.embryonic_mask,
        FlowTable::Assured => globals.assured_mask,
    };
    let table = number(table);
    let first = glance_into(table, places.first & mask, places.tag, key, now, state);
    let Glance::Absent = first else { return first };
    match glance_into(table, places.second & mask, places.tag, key, now, state) {
        Glance::Absent if globals.other_assured_mask != 0 => Glance::Unsure,
        sure => sure,
    }
}

#[inline(always)]
fn glance_into(
    table: u32,
    index: u32,
    tag: u16,
    key: &FlowKey,
    now: Ticks,
    state: &mut FlowState,
) -> Glance<FoundFlow> {
    let Some(bucket) = current_bucket(table, index) else {
        return Glance::Unsure;
    };
    // SAFETY: as in `sg_search_flow`.
    unsafe {
        let words = (&raw const (*bucket).tags).cast::<u64>();
        let lanes =
            matching(words.read_volatile(), tag) | matching(words.add(1).read_volatile(), tag) << 4;
        if lanes == 0 {
            return Glance::Absent;
        }
        let lane = Lane {
            bucket,
            lane: bit_number(lanes & lanes.wrapping_neg()),
        };
        let slot = lane.slot();
        let stamp = (&raw const (*slot).stamp).read_volatile();
        keep_order();
        // Read again from memory: the words that were hashed would be kept on the stack.
        let key = hidden(key);
        if is_moving_in(stamp)
            || lane.deadline().read_volatile().has_passed(now)
            || !(*slot).key.is(key)
        {
            return Glance::Unsure;
        }
        *state = (*slot).state;
        keep_order();
        if (&raw const (*slot).stamp).read_volatile() != stamp {
            return Glance::Unsure;
        }
        Glance::Found(FoundFlow {
            table,
            bucket: index,
            lane: lane.lane,
            stamp,
        })
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
    let place = leg as usize & 1;
    // SAFETY: `place` is 0 or 1, and the words are aligned.
    unsafe {
        if (&raw const (*slot).stamp).read_volatile() != flow.stamp {
            return;
        }
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
    table: FlowTable,
    key: &FlowKey,
    now: Ticks,
    state: &mut FlowState,
) -> Option<FoundFlow> {
    let search = begin_search(table, key, now)?;
    if sg_search_flow(search) == 0 && !(is_carrying() && sg_search_other_flow(search) != 0) {
        return None;
    }
    *state = search.state;
    Some(found(search))
}

/// Whether a flow may be in the other tables.
#[inline(always)]
fn is_carrying() -> bool {
    GLOBALS
        .get(0)
        .is_some_and(|globals| globals.other_assured_mask != 0)
}

/// Looks where flows are carried from. One that moves is in its new place before it leaves the old
/// one, so who misses it in both finds it in the new one.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_search_other_flow(search: *mut FlowSearch) -> u32 {
    if search.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let search = unsafe { &mut *search };
    search.table |= OTHER;
    if sg_search_flow(search) != 0 {
        return 1;
    }
    search.table &= !OTHER;
    sg_search_flow(search)
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
    write_state(lane.bucket, lane.lane, flow.stamp, state);
}

/// Writes the state, if the place still holds the flow.
#[inline(never)]
fn write_state(bucket: *mut FlowBucket, lane: u32, stamp: u32, state: &FlowState) -> u32 {
    let state = *state;
    let slot = Lane { bucket, lane }.slot();
    // SAFETY: lock and slot lie in one map value; between lock and unlock are plain stores.
    unsafe {
        let lock = &raw mut (*bucket).lock;
        bpf_spin_lock(lock.cast());
        if (*slot).stamp == stamp {
            (*slot).state = state;
        }
        bpf_spin_unlock(lock.cast());
    }
    0
}

#[inline(always)]
pub(crate) fn extend(flow: FoundFlow, deadline: Ticks) {
    let Some(lane) = flow.lane() else { return };
    let at = lane.deadline();
    // SAFETY: the pointer lies in the bucket; one aligned word. Whoever moves it at the same time
    // has seen a packet of the same flow within the same second.
    unsafe {
        if at.read_volatile().is_worth_moving_to(deadline) {
            at.write_volatile(deadline);
        }
    }
}

#[inline(always)]
pub(crate) fn count(flow: FoundFlow, leg: Leg, packets: u32, bytes: u32) {
    let Some(lane) = flow.lane() else { return };
    let slot = lane.slot();
    let place = leg as usize & 1;
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
        (*to).packets = (*from).packets;
        (*to).bytes = (*from).bytes;
        (*to).opened = (*from).opened;
    }
}

#[inline(always)]
pub(crate) fn remove(flow: FoundFlow, owner: u32) {
    let Some(lane) = flow.lane() else { return };
    let removed = clear(lane.bucket, lane.lane, flow.stamp);
    if removed != 0 && holds_assured(flow.table) {
        own(owner, NOBODY);
    }
}

/// Frees a place, if it still holds the flow. Returns 1 when it did.
#[inline(never)]
fn clear(bucket: *mut FlowBucket, lane: u32, stamp: u32) -> u32 {
    let lane = Lane { bucket, lane };
    let slot = lane.slot();
    let mut removed = 0;
    // SAFETY: as in `write_state`.
    unsafe {
        let lock = &raw mut (*bucket).lock;
        bpf_spin_lock(lock.cast());
        if (*slot).stamp == stamp {
            lane.tag().write_volatile(0);
            lane.deadline().write_volatile(Ticks(0));
            (&raw mut (*slot).stamp).write_volatile(next_stamp(stamp));
            removed = 1;
        }
        bpf_spin_unlock(lock.cast());
    }
    removed
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

/// Puts a flow into the emptier of its two buckets.
#[inline(always)]
pub(crate) fn insert(
    table: FlowTable,
    key: &FlowKey,
    state: &FlowState,
    deadline: Ticks,
    now: Ticks,
) -> Option<FoundFlow> {
    if let FlowTable::Assured = table {
        sweep(now);
    }
    let search = begin_search(table, key, now)?;
    search.state = *state;
    search.deadline = deadline;
    if sg_place_flow(search) == 0 {
        return None;
    }
    Some(found(search))
}

/// Writes a flow into the place whose flow has least time left: a free or expired one has none; an
/// embryonic one gives way. Returns 1 when there was room.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_place_flow(search: *mut FlowSearch) -> u32 {
    if search.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let search = unsafe { &mut *search };
    if set_places(search).is_none() {
        return 0;
    }
    let table = search.table;
    let assured = holds_assured(table);
    let roomier =
        free_lanes(table, search.first, search.now) >= free_lanes(table, search.second, search.now);
    let index = if roomier { search.first } else { search.second };
    let Some(bucket) = current_bucket(table, index) else {
        return 0;
    };
    let mut expired_owner = NOBODY;
    let mut placed = 0;
    // SAFETY: lock and slots lie in one map value; between lock and unlock are plain loads and
    // stores.
    unsafe {
        let lock = &raw mut (*bucket).lock;
        bpf_spin_lock(lock.cast());
        let mut least = u64::MAX;
        for lane in 0..SLOTS {
            let at = Lane { bucket, lane };
            let left = (*at.deadline()).until(search.now);
            let candidate = u64::from(left) << 32 | u64::from(lane);
            least = if candidate < least { candidate } else { least };
        }
        if least >> 32 == 0 || !assured {
            let lane = Lane {
                bucket,
                lane: least as u32,
            };
            let slot = lane.slot();
            if *lane.tag() != 0 {
                expired_owner = (*slot).state.owner;
            }
            lane.tag().write_volatile(0);
            let stamp = next_stamp((*slot).stamp);
            (&raw mut (*slot).stamp).write_volatile(stamp.wrapping_sub(1));
            keep_order();
            (*slot).key = search.key;
            (*slot).state = search.state;
            (*slot).packets = [0; 2];
            (*slot).bytes = [0; 2];
            (*slot).opened = search.now;
            lane.deadline().write_volatile(search.deadline);
            keep_order();
            (&raw mut (*slot).stamp).write_volatile(stamp);
            lane.tag().write_volatile(search.tag as u16);
            search.bucket = index;
            search.lane = least as u32 & (SLOTS - 1);
            search.stamp = stamp;
            placed = 1;
        }
        bpf_spin_unlock(lock.cast());
    }
    if assured {
        if expired_owner != NOBODY {
            own(expired_owner, NOBODY);
        }
        if placed == 1 {
            own(search.state.owner, 1);
        }
    }
    placed
}

/// How many places of a bucket are free, or hold an expired flow.
#[inline(always)]
fn free_lanes(table: u32, index: u32, now: Ticks) -> u32 {
    let Some(bucket) = current_bucket(table, index) else {
        return 0;
    };
    let mut free = 0;
    for lane in 0..SLOTS {
        let lane = Lane { bucket, lane };
        // SAFETY: the pointer lies in the bucket. A free place's deadline is past as well.
        unsafe {
            let left = lane
                .deadline()
                .read_volatile()
                .0
                .wrapping_sub(now.0)
                .wrapping_sub(1);
            free += left >> 31;
        }
    }
    free
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
    let Some(bucket) = current_bucket(ASSURED_FLOWS, next & globals.assured_mask) else {
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
            if *lane.tag() != 0 && (*lane.deadline()).has_passed(now) {
                owner = (*slot).state.owner;
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

/// Carries the flows of one more bucket, of each of the other tables, to where they belong.
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
    for lane in 0..SLOTS {
        if index <= globals.other_assured_mask {
            carrying.left += sg_carry_flow(OTHER | ASSURED_FLOWS, index, lane);
        }
        if index <= globals.other_embryonic_mask {
            carrying.left += sg_carry_flow(OTHER_EMBRYONIC_FLOWS, index, lane);
        }
    }
}

/// Carries one flow. Returns 1 when there is no room for it; it then stays where it is.
///
/// A global function: the verifier checks it once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_carry_flow(table: u32, index: u32, lane: u32) -> u32 {
    let Some(search) = SEARCHES.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: as in `begin_search`.
    let search = unsafe { &mut *search };
    let Some(old_bucket) = bucket(table, index) else {
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
    let slot = old.slot();
    let stamp;
    // SAFETY: lock and slot lie in one map value; between lock and unlock are plain loads and
    // stores.
    unsafe {
        let lock = &raw mut (*old_bucket).lock;
        bpf_spin_lock(lock.cast());
        stamp = (*slot).stamp;
        if *old.tag() != 0 {
            if (*old.deadline()).has_passed(now) {
                expired_owner = (*slot).state.owner;
                (*slot).stamp = next_stamp(stamp);
                old.tag().write_volatile(0);
            } else {
                search.key = (*slot).key;
                search.state = (*slot).state;
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
    search.table = table & ASSURED_FLOWS;
    if sg_place_flow(search) == 0 {
        return 1;
    }
    leave(old_bucket, lane, stamp, search);
    0
}

/// Ends a flow where it was carried from; what happened to it meanwhile happens to it where it is
/// now.
#[inline(always)]
fn leave(old_bucket: *mut FlowBucket, lane: u32, stamp: u32, search: &FlowSearch) {
    let new = found(search);
    let old = Lane {
        bucket: old_bucket,
        lane,
    };
    let Some(new_lane) = new.lane() else { return };
    let slot = old.slot();
    let owner = search.state.owner;
    let mut has_left = false;
    let mut last = search.state;
    // SAFETY: both lie in their buckets; lock and slot as in `write_state`.
    unsafe {
        copy_counts(slot, new_lane.slot());
        let lock = &raw mut (*old_bucket).lock;
        bpf_spin_lock(lock.cast());
        if (*slot).stamp == stamp {
            last = (*slot).state;
            old.tag().write_volatile(0);
            old.deadline().write_volatile(Ticks(0));
            (*slot).stamp = next_stamp(stamp);
            has_left = true;
        }
        bpf_spin_unlock(lock.cast());
    }
    if !has_left {
        // It ended while it was carried.
        remove(new, owner);
        return;
    }
    if holds_assured(new.table) {
        own(owner, NOBODY);
    }
    if last != search.state {
        write_state(new_lane.bucket, new_lane.lane, new.stamp, &last);
    }
}
