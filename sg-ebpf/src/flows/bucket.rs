//! The tables of flows, and one place of a bucket.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::{bpf_spin_lock, bpf_spin_unlock};
use aya_ebpf::macros::btf_map;
use sg_common::flow::slot::SlotMemory;
use sg_common::flow::{FlowBucket, FlowKey, FlowKind, FlowSlot, FlowState};
use sg_common::ids::Ticks;

use super::order::keep_order;
use crate::words;

/// Begins at a page, as an array that can be mapped does: a bucket then never lies on two, and what is
/// read of it first is one cache line.
const PAGED: usize = BPF_F_MMAPABLE as usize;

#[btf_map]
pub(super) static FLOWS: Array<FlowBucket, 1, PAGED> = Array::new();
/// The table of another size, while flows are migrated; else one bucket that nobody looks at.
#[btf_map]
pub(super) static OTHER_FLOWS: Array<FlowBucket, 1, PAGED> = Array::new();

pub(super) const SLOTS: u32 = FlowBucket::SLOTS as u32;

/// The tables as [`FlowSearch::table`](sg_common::flow::FlowSearch) numbers them: a bit tells assured
/// flows from embryonic ones, another the buckets that flows are migrated from.
pub(super) const EMBRYONIC_FLOWS: u32 = 0;
pub(super) const ASSURED_FLOWS: u32 = 1;
pub(super) const OTHER: u32 = 2;

/// The bit for the kind of the flow with this tag.
#[inline(always)]
pub(super) fn table_of(tag: u16) -> u32 {
    u32::from(tag >> 1) & ASSURED_FLOWS
}

/// The kind of flows that a table with this number is for.
#[inline(always)]
pub(super) fn kind_of(table: u32) -> FlowKind {
    if holds_assured(table) {
        FlowKind::Assured
    } else {
        FlowKind::Embryonic
    }
}

/// The bit of a tag that says that its flow is assured.
pub(super) const ASSURED_BIT: u16 = FlowKind::Assured.tag(0);

/// The tag of a flow of this kind.
#[inline(always)]
pub(super) fn tag_in(table: u32, tag: u32) -> u16 {
    (tag | (table & ASSURED_FLOWS) << 1) as u16
}

#[inline(always)]
pub(super) fn holds_assured(table: u32) -> bool {
    table & ASSURED_FLOWS != 0
}

/// Where a flow was found.
#[derive(Clone, Copy)]
pub(crate) struct FoundFlow {
    pub(super) table: u32,
    pub(super) bucket: u32,
    pub(super) slot: u32,
    pub(super) stamp: u32,
}

impl FoundFlow {
    #[inline(always)]
    pub(super) fn slot(self) -> Option<Slot> {
        Some(Slot {
            bucket: bucket(self.table, self.bucket)?,
            slot: self.slot,
        })
    }
}

#[inline(always)]
pub(super) fn bucket(table: u32, index: u32) -> Option<*mut FlowBucket> {
    if table & OTHER == 0 {
        FLOWS.get_ptr_mut(index)
    } else {
        OTHER_FLOWS.get_ptr_mut(index)
    }
}

/// One of a bucket's eight places.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) bucket: *mut FlowBucket,
    pub(super) slot: u32,
}

impl Slot {
    #[inline(always)]
    pub(super) fn index(self) -> usize {
        (self.slot & (SLOTS - 1)) as usize
    }

    #[inline(always)]
    pub(super) fn entry(self) -> *mut FlowSlot {
        // SAFETY: the index is below the number of slots.
        unsafe {
            (&raw mut (*self.bucket).slots)
                .cast::<FlowSlot>()
                .add(self.index())
        }
    }

    #[inline(always)]
    pub(super) fn deadline(self) -> *mut Ticks {
        // SAFETY: as in `entry`.
        unsafe {
            (&raw mut (*self.bucket).deadlines)
                .cast::<Ticks>()
                .add(self.index())
        }
    }

    #[inline(always)]
    pub(super) fn tag(self) -> *mut u16 {
        // SAFETY: as in `entry`.
        unsafe {
            (&raw mut (*self.bucket).tags)
                .cast::<u16>()
                .add(self.index())
        }
    }
}

/// A slot for those who share it with other CPUs.
#[derive(Clone, Copy)]
pub(super) struct SharedSlot {
    slot: Slot,
    /// A word of this CPU's, which keeps the order of memory on some processors.
    own: *mut u32,
}

impl Slot {
    /// The slot for one who reads or writes more than one thing of it. `own` is a word of this CPU's.
    #[inline(always)]
    pub(super) fn shared(self, own: *mut u32) -> SharedSlot {
        SharedSlot { slot: self, own }
    }

    /// The slot for one who needs no order of memory but the lock's.
    #[inline(always)]
    pub(super) fn locked(self) -> SharedSlot {
        self.shared(core::ptr::null_mut())
    }
}

/// The pointers lie in the bucket, which lives as long as the program. What is read may change
/// meanwhile, so everything is read and written as single words.
impl SlotMemory for SharedSlot {
    type Key = FlowKey;
    type State = FlowState;

    #[inline(always)]
    fn tag(self) -> u16 {
        // SAFETY: as above.
        unsafe { self.slot.tag().read_volatile() }
    }

    #[inline(always)]
    fn set_tag(self, tag: u16) {
        // SAFETY: as above.
        unsafe { self.slot.tag().write_volatile(tag) };
    }

    #[inline(always)]
    fn stamp(self) -> u32 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.slot.entry()).stamp).read_volatile() }
    }

    #[inline(always)]
    fn set_stamp(self, stamp: u32) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.slot.entry()).stamp).write_volatile(stamp) };
    }

    #[inline(always)]
    fn deadline(self) -> Ticks {
        // SAFETY: as above.
        unsafe { self.slot.deadline().read_volatile() }
    }

    #[inline(always)]
    fn set_deadline(self, deadline: Ticks) {
        // SAFETY: as above.
        unsafe { self.slot.deadline().write_volatile(deadline) };
    }

    #[inline(always)]
    fn is_keyed(self, key: &FlowKey) -> bool {
        // SAFETY: as above.
        unsafe { (*self.slot.entry()).key.is(key) }
    }

    #[inline(always)]
    fn read_key(self, to: &mut FlowKey) {
        // SAFETY: as above.
        unsafe { words::copy(&raw const (*self.slot.entry()).key, to) };
    }

    #[inline(always)]
    fn set_key(self, key: &FlowKey) {
        // SAFETY: as above.
        unsafe { words::copy(key, &raw mut (*self.slot.entry()).key) };
    }

    #[inline(always)]
    fn read_state(self, to: &mut FlowState) {
        // SAFETY: as above.
        unsafe { words::copy(&raw const (*self.slot.entry()).state, to) };
    }

    #[inline(always)]
    fn write_state(self, state: &FlowState) {
        // SAFETY: as above.
        unsafe { words::copy(state, &raw mut (*self.slot.entry()).state) };
    }

    #[inline(always)]
    fn owner(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.slot.entry()).state.owner }
    }

    #[inline(always)]
    fn clear_counts(self, now: Ticks) {
        let entry = self.slot.entry();
        // SAFETY: as above.
        unsafe {
            words::clear(&raw mut (*entry).packets);
            words::clear(&raw mut (*entry).bytes);
            (*entry).opened = now;
        }
    }

    #[inline(always)]
    fn keep_order(self) {
        keep_order(self.own);
    }

    #[inline(always)]
    fn lock(self) {
        // SAFETY: the lock lies in the same value of a map as the slot.
        unsafe { bpf_spin_lock((&raw mut (*self.slot.bucket).lock).cast()) };
    }

    #[inline(always)]
    fn unlock(self) {
        // SAFETY: as in `lock`.
        unsafe { bpf_spin_unlock((&raw mut (*self.slot.bucket).lock).cast()) };
    }
}

/// One in each of four tags.
pub(super) const ONES: u64 = 0x0001_0001_0001_0001;

/// Which slots of a word of four tags hold the tag: bits 0 to 3, and never too few.
///
/// A slot that is equal becomes zero, and subtraction borrows from the top bit of zero slots only,
/// or of their neighbours; the key is compared afterwards.
#[inline(always)]
pub(super) fn matching(word: u64, tag: u16) -> u32 {
    const TOPS: u64 = 0x8000_8000_8000_8000;
    let difference = word ^ u64::from(tag).wrapping_mul(ONES);
    let zero = difference.wrapping_sub(ONES) & !difference & TOPS;
    // Gathers the four top bits.
    const GATHER: u64 = 1 << 48 | 1 << 33 | 1 << 18 | 1 << 3;
    ((zero >> 15).wrapping_mul(GATHER) >> 48) as u32 & 0xf
}

/// The number of the only bit set among the lowest eight, without a branch: the verifier then keeps
/// one state for all slots.
#[inline(always)]
pub(super) fn bit_number(bit: u32) -> u32 {
    (bit >> 1 & 1)
        + (bit >> 2 & 1) * 2
        + (bit >> 3 & 1) * 3
        + (bit >> 4 & 1) * 4
        + (bit >> 5 & 1) * 5
        + (bit >> 6 & 1) * 6
        + (bit >> 7 & 1) * 7
}

/// 1 for a place that holds a flow which has not expired, without a branch.
#[inline(always)]
pub(super) fn live_bit(tag: u32, deadline: Ticks, now: Ticks) -> u32 {
    // Below zero when it has passed.
    let left = deadline.0.wrapping_sub(now.0).wrapping_sub(1);
    tag & !(left >> 31) & 1
}

/// A number for each place of a table.
#[inline(always)]
pub(super) fn place_number(bucket: u32, slot: u32) -> u32 {
    bucket * SLOTS + (slot & (SLOTS - 1))
}

/// The number of no place.
pub(super) const NOWHERE: u32 = u32::MAX;
