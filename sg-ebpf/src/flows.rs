//! Flows in buckets of eight, in two arrays.
//!
//! Readers take no lock: they compare tags, then the key, and look at the tag and the stamp again
//! after copying. Writers of one bucket are serialised by its spin lock, under which the verifier
//! allows no call; so time and places are computed before. Two CPUs that open one flow at once may
//! leave it in both its buckets: searches find the first, and the other runs out.
//!
//! Expired flows are no flows: their places are reused by whoever needs one, and each new assured
//! flow sweeps one more bucket, so that quotas become true again without any process.
//!
//! What is called from several places is a function of its own in the kernel too: a call costs less
//! than the instructions and the stack of another copy.

use core::intrinsics::{self, AtomicOrdering};

use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::helpers::{bpf_spin_lock, bpf_spin_unlock};
use aya_ebpf::macros::btf_map;
use sg_common::flow::{
    FlowBucket, FlowKey, FlowSearch, FlowSlot, FlowState, FlowTable, Leg, Ticks,
};
use sg_common::packet::Direction;
use sg_common::tables::{Glance, Globals};

use crate::maps::{GLOBALS, hidden};

#[btf_map]
static EMBRYONIC: Array<FlowBucket, 1> = Array::new();
#[btf_map]
static ASSURED: Array<FlowBucket, 1> = Array::new();
/// Assured flows by owner.
#[btf_map]
static OWNED: Array<u32, 1> = Array::new();
/// The next bucket to sweep.
#[btf_map]
static SWEEP: Array<u32, 1> = Array::new();

const SLOTS: u32 = FlowBucket::SLOTS as u32;
/// No owner.
const NOBODY: u32 = u32::MAX;

/// Where a flow was found.
#[derive(Clone, Copy)]
pub(crate) struct FoundFlow {
    table: FlowTable,
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
fn bucket(table: FlowTable, index: u32) -> Option<*mut FlowBucket> {
    match table {
        FlowTable::Embryonic => EMBRYONIC.get_ptr_mut(index),
        FlowTable::Assured => ASSURED.get_ptr_mut(index),
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
    search.assured = u32::from(table == FlowTable::Assured);
    search.now = now;
    Some(search)
}

/// Works out where the flow may be.
#[inline(always)]
fn set_places(search: &mut FlowSearch) -> Option<()> {
    let globals = GLOBALS.get(0)?;
    // As in `begin_search`.
    let places = hidden(&search.key).places(&globals.hash_key);
    let mask = mask(globals, table_of(search));
    search.first = places.first & mask;
    search.second = places.second & mask;
    search.tag = u32::from(places.tag);
    Some(())
}

#[inline(always)]
fn mask(globals: &Globals, table: FlowTable) -> u32 {
    match table {
        FlowTable::Embryonic => globals.embryonic_mask,
        FlowTable::Assured => globals.assured_mask,
    }
}

#[inline(always)]
fn table_of(search: &FlowSearch) -> FlowTable {
    if search.assured == 0 {
        FlowTable::Embryonic
    } else {
        FlowTable::Assured
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
        let Some(bucket) = bucket(table_of(search), index) else {
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
                if lane.deadline().read_volatile().has_passed(search.now)
                    || !(*slot).key.is(&search.key)
                {
                    continue;
                }
                search.state = (*slot).state;
                search.bucket = index;
                search.lane = lane.lane;
                search.stamp = stamp;
                let same = lane.tag().read_volatile() == tag
                    && (&raw const (*slot).stamp).read_volatile() == stamp;
                if same {
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
    let mask = mask(globals, table);
    match glance_into(table, places.first & mask, places.tag, key, now, state) {
        Glance::Absent => glance_into(table, places.second & mask, places.tag, key, now, state),
        sure => sure,
    }
}

#[inline(always)]
fn glance_into(
    table: FlowTable,
    index: u32,
    tag: u16,
    key: &FlowKey,
    now: Ticks,
    state: &mut FlowState,
) -> Glance<FoundFlow> {
    let Some(bucket) = bucket(table, index) else {
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
        // Read again from memory: the words that were hashed would be kept on the stack.
        let key = hidden(key);
        if lane.deadline().read_volatile().has_passed(now) || !(*slot).key.is(key) {
            return Glance::Unsure;
        }
        *state = (*slot).state;
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
    if sg_search_flow(search) == 0 {
        return None;
    }
    *state = search.state;
    Some(found(search))
}

#[inline(always)]
fn found(search: &FlowSearch) -> FoundFlow {
    FoundFlow {
        table: table_of(search),
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
    let (from, to) = (from.slot(), to.slot());
    // SAFETY: both lie in their buckets.
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
    if removed != 0 && flow.table == FlowTable::Assured {
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
            (*slot).stamp = stamp.wrapping_add(1);
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
    let table = table_of(search);
    let assured = table == FlowTable::Assured;
    if assured {
        sweep(search.now);
    }
    let roomier =
        free_lanes(table, search.first, search.now) >= free_lanes(table, search.second, search.now);
    let index = if roomier { search.first } else { search.second };
    let Some(bucket) = bucket(table, index) else {
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
            let stamp = (*slot).stamp.wrapping_add(1);
            (&raw mut (*slot).stamp).write_volatile(stamp);
            (*slot).key = search.key;
            (*slot).state = search.state;
            (*slot).packets = [0; 2];
            (*slot).bytes = [0; 2];
            (*slot).opened = search.now;
            lane.deadline().write_volatile(search.deadline);
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
fn free_lanes(table: FlowTable, index: u32, now: Ticks) -> u32 {
    let Some(bucket) = bucket(table, index) else {
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
    let Some(bucket) = bucket(FlowTable::Assured, next & globals.assured_mask) else {
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
                (*slot).stamp = (*slot).stamp.wrapping_add(1);
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
