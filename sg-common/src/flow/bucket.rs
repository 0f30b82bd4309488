//! Flows as they lie in memory: buckets of eight places.

use super::key::FlowKey;
use super::state::FlowState;
use crate::ids::Ticks;

/// A place for one flow.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct FlowSlot {
    /// Packets each leg has sent.
    pub packets: [u64; 2],
    /// Bytes each leg has sent.
    pub bytes: [u64; 2],
    /// Whose it is.
    pub key: FlowKey,
    /// Where in its life it is.
    pub state: FlowState,
    /// When it opened.
    pub opened: Ticks,
    /// Grows with each flow that takes the place, so that a late writer notices; odd while one does.
    pub stamp: u32,
}

/// The kernel finds a lock in a map's value by this name.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct bpf_spin_lock {
    value: u32,
}

/// Flows whose keys hash alike. What a search reads first is in the first cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct FlowBucket {
    /// Held by writers; readers look at tag and stamp instead.
    pub lock: bpf_spin_lock,
    /// Always zero.
    pub padding: [u32; 3],
    /// A part of each key's hash, always odd, and its table; zero is a free place.
    pub tags: [u16; FlowBucket::SLOTS],
    /// Until when each flow lives.
    pub deadlines: [Ticks; FlowBucket::SLOTS],
    /// The flows.
    pub slots: [FlowSlot; FlowBucket::SLOTS],
}

impl FlowBucket {
    /// Flows a bucket holds.
    pub const SLOTS: usize = 8;

    /// The slot that a flow with this tag takes if it is free. A search that begins there reads the flow
    /// without waiting for the tags.
    #[inline(always)]
    pub const fn home(tag: u16) -> u32 {
        (tag >> 13) as u32
    }
}

/// A search for a flow: what it is told, and what it finds. `repr(C)` because the kernel checks a
/// function that takes one by itself, by the size of its argument.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct FlowSearch {
    /// Whose flow.
    pub key: FlowKey,
    /// What was found.
    pub state: FlowState,
    /// Hash bits that choose the first bucket.
    pub first: u32,
    /// Hash bits that choose the second bucket.
    pub second: u32,
    /// What is compared before the key.
    pub tag: u32,
    /// Which table, as the kernel's half numbers them.
    pub table: u32,
    /// The time.
    pub now: Ticks,
    /// Where it was found.
    pub bucket: u32,
    /// Which of the bucket's places.
    pub slot: u32,
    /// The place's stamp.
    pub stamp: u32,
    /// Until when a flow to be placed lives.
    pub deadline: Ticks,
    /// A place where it is not looked for, as the kernel's half numbers them.
    pub except: u32,
    /// That place's stamp.
    pub except_stamp: u32,
    /// The table of the flow there.
    pub except_table: u32,
}

/// How far flows have been migrated from tables of one size to tables of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Migration {
    /// The next bucket to migrate.
    pub bucket: u32,
    /// Flows that found no room, and are where they were.
    pub left: u32,
}

const _: () = {
    assert!(size_of::<FlowSearch>() == 128);
    assert!(size_of::<FlowSlot>() == 120);
    assert!(size_of::<FlowBucket>() == 1024);
};
