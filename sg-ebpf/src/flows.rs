//! Flows in buckets of eight, in two arrays.
//!
//! Readers take no lock: they compare tags, then the key, and look at the tag and the stamp again
//! after copying. Writers of one bucket are serialised by its spin lock, under which the verifier
//! allows no call; so time and places are computed before. Two CPUs that open one flow at once may
//! leave it in both its buckets: searches find the first, and the other runs out.
//!
//! Expired flows are no flows: their places are reused by whoever needs one, and each new assured
//! flow sweeps one more bucket, so that quotas become true again without any process.

use core::intrinsics::{self, AtomicOrdering};

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::{bpf_spin_lock, bpf_spin_unlock};
use aya_ebpf::macros::btf_map;
use sg_common::flow::{FlowBucket, FlowKey, FlowSlot, FlowState, FlowTable, Leg, Ticks};
use sg_common::tables::Globals;

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

const SLOTS: usize = FlowBucket::SLOTS;
/// Less than this is not worth moving a deadline: about a second.
const DEADLINE_GRAIN: u32 = 8;

/// Where a flow was found.
#[derive(Clone, Copy)]
pub(crate) struct FoundFlow {
    bucket: *mut FlowBucket,
    place: u32,
    stamp: u32,
    assured: bool,
}

impl FoundFlow {
    #[inline(always)]
    fn slot(self) -> *mut FlowSlot {
        // SAFETY: `place` is below the number of slots, which the mask shows the verifier.
        unsafe { (&raw mut (*self.bucket).slots).cast::<FlowSlot>().add(place_of(self.place)) }
    }

    #[inline(always)]
    fn deadline(self) -> *mut Ticks {
        // SAFETY: as in `slot`.
        unsafe { (&raw mut (*self.bucket).deadlines).cast::<Ticks>().add(place_of(self.place)) }
    }

    #[inline(always)]
    fn tag(self) -> *mut u16 {
        // SAFETY: as in `slot`.
        unsafe { (&raw mut (*self.bucket).tags).cast::<u16>().add(place_of(self.place)) }
    }
}

#[inline(always)]
fn place_of(place: u32) -> usize {
    (place as usize) & (SLOTS - 1)
}

#[inline(always)]
fn bucket(globals: &Globals, table: FlowTable, place: u32) -> Option<*mut FlowBucket> {
    match table {
        FlowTable::Embryonic => EMBRYONIC.get_ptr_mut(place & globals.embryonic_mask),
        FlowTable::Assured => ASSURED.get_ptr_mut(place & globals.assured_mask),
    }
}

/// Finds a live flow.
#[inline(always)]
pub(crate) fn find(
    globals: &Globals,
    table: FlowTable,
    key: &FlowKey,
    now: Ticks,
) -> Option<(FoundFlow, FlowState)> {
    let places = key.places(&globals.hash_key);
    for place in [places.first, places.second] {
        let bucket = bucket(globals, table, place)?;
        let found = find_in(bucket, places.tag, key, now, table == FlowTable::Assured);
        if found.is_some() {
            return found;
        }
    }
    None
}

#[inline(always)]
fn find_in(
    bucket: *mut FlowBucket,
    tag: u16,
    key: &FlowKey,
    now: Ticks,
    assured: bool,
) -> Option<(FoundFlow, FlowState)> {
    for place in 0..SLOTS as u32 {
        let mut flow = FoundFlow { bucket, place, stamp: 0, assured };
        // SAFETY: the pointers lie in the bucket; what is read may change meanwhile, and is
        // compared again below.
        unsafe {
            if flow.tag().read_volatile() != tag {
                continue;
            }
            let slot = flow.slot();
            flow.stamp = (&raw const (*slot).stamp).read_volatile();
            if flow.deadline().read_volatile().has_passed(now) || (*slot).key != *key {
                continue;
            }
            let state = (*slot).state;
            let same = flow.tag().read_volatile() == tag
                && (&raw const (*slot).stamp).read_volatile() == flow.stamp;
            if same {
                return Some((flow, state));
            }
        }
    }
    None
}

/// Runs `write` under the bucket's lock, if the flow is still the one that was found.
macro_rules! locked {
    ($flow:expr, $write:expr) => {{
        let flow: FoundFlow = $flow;
        let slot = flow.slot();
        // SAFETY: lock and slot lie in one map value; between lock and unlock are plain stores.
        unsafe {
            let lock = &raw mut (*flow.bucket).lock;
            bpf_spin_lock(lock.cast());
            let same = (*slot).stamp == flow.stamp;
            if same {
                $write(flow, slot);
            }
            bpf_spin_unlock(lock.cast());
            same
        }
    }};
}

#[inline(always)]
pub(crate) fn update(flow: FoundFlow, state: &FlowState) {
    let state = *state;
    locked!(flow, |_flow: FoundFlow, slot: *mut FlowSlot| (*slot).state = state);
}

#[inline(always)]
pub(crate) fn extend(flow: FoundFlow, deadline: Ticks) {
    let at = flow.deadline();
    // SAFETY: the pointer lies in the bucket; one aligned word. Whoever moves it at the same time
    // has seen a packet of the same flow within the same second.
    unsafe {
        let moved = deadline.0.wrapping_sub(at.read_volatile().0) as i32;
        if moved.unsigned_abs() >= DEADLINE_GRAIN {
            at.write_volatile(deadline);
        }
    }
}

#[inline(always)]
pub(crate) fn count(flow: FoundFlow, leg: Leg, packets: u32, bytes: u32) {
    let slot = flow.slot();
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
    let removed = locked!(flow, |flow: FoundFlow, slot: *mut FlowSlot| {
        flow.tag().write_volatile(0);
        flow.deadline().write_volatile(Ticks(0));
        (*slot).stamp = (*slot).stamp.wrapping_add(1);
    });
    if removed && flow.assured {
        own(owner, u32::MAX);
    }
}

/// Adds to an owner's flows; `u32::MAX` takes one away.
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
    OWNED.get(owner).copied().unwrap_or(u32::MAX)
}

/// Puts a flow into the emptier of its two buckets.
#[inline(always)]
pub(crate) fn insert(
    globals: &Globals,
    table: FlowTable,
    key: &FlowKey,
    state: &FlowState,
    deadline: Ticks,
    now: Ticks,
) -> Option<FoundFlow> {
    let places = key.places(&globals.hash_key);
    let first = bucket(globals, table, places.first)?;
    let second = bucket(globals, table, places.second)?;
    let chosen = if free_places(first, now) >= free_places(second, now) { first } else { second };
    let assured = table == FlowTable::Assured;
    if assured {
        sweep(globals, now);
    }
    let inserted = insert_in(chosen, places.tag, key, state, deadline, now, assured);
    if inserted.is_some() && assured {
        own(state.owner, 1);
    }
    inserted
}

#[inline(always)]
fn free_places(bucket: *mut FlowBucket, now: Ticks) -> u32 {
    let mut free = 0;
    for place in 0..SLOTS as u32 {
        let flow = FoundFlow { bucket, place, stamp: 0, assured: false };
        // SAFETY: the pointers lie in the bucket.
        unsafe {
            let empty = flow.tag().read_volatile() == 0;
            let expired = flow.deadline().read_volatile().has_passed(now);
            free += u32::from(empty | expired);
        }
    }
    free
}

#[inline(always)]
fn insert_in(
    bucket: *mut FlowBucket,
    tag: u16,
    key: &FlowKey,
    state: &FlowState,
    deadline: Ticks,
    now: Ticks,
    assured: bool,
) -> Option<FoundFlow> {
    let (key, state) = (*key, *state);
    let mut expired_owner = u32::MAX;
    let mut flow = FoundFlow { bucket, place: 0, stamp: 0, assured };
    let mut placed = false;
    // SAFETY: lock and slots lie in one map value; between lock and unlock are plain loads and
    // stores.
    unsafe {
        let lock = &raw mut (*bucket).lock;
        bpf_spin_lock(lock.cast());
        // The place whose flow has least time left: a free or expired one has none.
        let mut least = u32::MAX;
        for place in 0..SLOTS as u32 {
            let at = FoundFlow { bucket, place, stamp: 0, assured };
            let left = if *at.tag() == 0 { 0 } else { (*at.deadline()).until(now) };
            if left < least {
                least = left;
                flow.place = place;
            }
        }
        if least == 0 || !assured {
            let slot = flow.slot();
            if assured && *flow.tag() != 0 {
                expired_owner = (*slot).state.owner;
            }
            flow.tag().write_volatile(0);
            flow.stamp = (*slot).stamp.wrapping_add(1);
            (&raw mut (*slot).stamp).write_volatile(flow.stamp);
            (*slot).key = key;
            (*slot).state = state;
            (*slot).packets = [0; 2];
            (*slot).bytes = [0; 2];
            (*slot).opened = now;
            flow.deadline().write_volatile(deadline);
            flow.tag().write_volatile(tag);
            placed = true;
        }
        bpf_spin_unlock(lock.cast());
    }
    if expired_owner != u32::MAX {
        own(expired_owner, u32::MAX);
    }
    placed.then_some(flow)
}

/// Frees the expired flows of the next bucket.
#[inline(always)]
pub(crate) fn sweep(globals: &Globals, now: Ticks) {
    let Some(next) = SWEEP.get_ptr_mut(0) else { return };
    // SAFETY: an aligned word in a map value. The old value is used, so the order is AcqRel: a
    // relaxed addition compiles to the instruction that does not return it.
    let next = unsafe { intrinsics::atomic_xadd::<u32, u32, { AtomicOrdering::AcqRel }>(next, 1) };
    let Some(bucket) = bucket(globals, FlowTable::Assured, next) else { return };
    let mut owners = [u32::MAX; SLOTS];
    // SAFETY: as in `insert_in`.
    unsafe {
        let lock = &raw mut (*bucket).lock;
        bpf_spin_lock(lock.cast());
        for (place, owner) in owners.iter_mut().enumerate() {
            let flow = FoundFlow { bucket, place: place as u32, stamp: 0, assured: true };
            if *flow.tag() != 0 && (*flow.deadline()).has_passed(now) {
                let slot = flow.slot();
                *owner = (*slot).state.owner;
                (*slot).stamp = (*slot).stamp.wrapping_add(1);
                flow.tag().write_volatile(0);
            }
        }
        bpf_spin_unlock(lock.cast());
    }
    for owner in owners {
        if owner != u32::MAX {
            own(owner, u32::MAX);
        }
    }
}
