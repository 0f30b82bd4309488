//! One slot of a bucket, which several CPUs read and write at once.
//!
//! Readers take no lock: they read the stamp, compare the key, and look at the stamp again after
//! copying. It is odd while a flow moves in, and another one afterwards. Writers of one bucket are
//! serialised by its lock. Where the memory is, is not this module's business: the kernel runs it over
//! the value of a map, and a test runs it over a model of memory that knows every interleaving.

use super::kind::FlowKind;
use crate::ids::Ticks;

/// The memory of a slot. Each method loads or stores what it names, in any order with the others but
/// for [`SlotMemory::keep_order`].
pub trait SlotMemory: Copy {
    /// Whose flow it is.
    type Key;
    /// What is kept of the flow.
    type State;

    /// The tag: zero is a free slot.
    fn tag(self) -> u16;
    /// Writes the tag.
    fn set_tag(self, tag: u16);
    /// The stamp.
    fn stamp(self) -> u32;
    /// Writes the stamp.
    fn set_stamp(self, stamp: u32);
    /// Until when the flow lives.
    fn deadline(self) -> Ticks;
    /// Writes the deadline.
    fn set_deadline(self, deadline: Ticks);
    /// Whether the flow has this key.
    fn is_keyed(self, key: &Self::Key) -> bool;
    /// Copies the key out.
    fn read_key(self, to: &mut Self::Key);
    /// Writes the key.
    fn set_key(self, key: &Self::Key);
    /// Copies the state out.
    fn read_state(self, to: &mut Self::State);
    /// Copies a state in.
    fn write_state(self, state: &Self::State);
    /// The interface slot that opened the flow.
    fn owner(self) -> u32;
    /// Begins to count anew, at this time.
    fn clear_counts(self, now: Ticks);
    /// What comes before stays before what comes after, reads and writes each.
    fn keep_order(self);
    /// Takes the lock of the bucket.
    fn lock(self);
    /// Gives the lock back.
    fn unlock(self);
}

/// A flow that was seen in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The tag, which says of which kind the flow is.
    pub tag: u16,
    /// The stamp of the slot, by which a late writer knows whether the flow is still there.
    pub stamp: u32,
}

/// The stamp after a flow has moved in, or gone.
#[inline(always)]
const fn next_stamp(stamp: u32) -> u32 {
    stamp.wrapping_add(2)
}

/// Whether a flow is moving into the slot with this stamp: what is read there may be of two flows.
#[inline(always)]
pub const fn is_moving_in(stamp: u32) -> bool {
    stamp & 1 == 1
}

/// Begins to read a slot: returns the stamp that [`is_same`] compares.
#[inline(always)]
pub fn begin_read<M: SlotMemory>(slot: M) -> u32 {
    let stamp = slot.stamp();
    slot.keep_order();
    stamp
}

/// Whether all that was read since the stamp was read is of one flow.
#[inline(always)]
pub fn is_same<M: SlotMemory>(slot: M, stamp: u32) -> bool {
    slot.keep_order();
    slot.stamp() == stamp
}

/// What a search looks for in a slot. A trait, so that each is read when it is needed.
pub trait Wanted<K> {
    /// Whose flow.
    fn key(&self) -> &K;
    /// The time, at which the flow must not have expired.
    fn now(&self) -> Ticks;
    /// Whether this slot is left out.
    fn leaves_out(&self) -> bool;
}

/// Looks for a flow. What is seen of it holds if [`read_state`] says so.
#[inline(always)]
pub fn look<M: SlotMemory>(slot: M, wanted: &impl Wanted<M::Key>) -> Option<Seen> {
    // Before the state: who finds a flow assured finds the state of an assured one.
    let tag = slot.tag();
    let stamp = begin_read(slot);
    let is_left_out = wanted.leaves_out();
    let now = wanted.now();
    if tag == 0
        || is_moving_in(stamp)
        || is_left_out
        || slot.deadline().has_passed(now)
        || !slot.is_keyed(wanted.key())
    {
        return None;
    }
    Some(Seen { tag, stamp })
}

/// Copies the state of a flow that was seen, and says whether all of it is that flow's.
#[inline(always)]
pub fn read_state<M: SlotMemory>(slot: M, seen: Seen, state: &mut M::State) -> bool {
    slot.read_state(state);
    is_same(slot, seen.stamp)
}

/// Whether the flow that was found here under this stamp is here, and of the same kind. The lock is
/// held.
#[inline(always)]
fn holds<M: SlotMemory>(slot: M, kind: FlowKind, stamp: u32) -> bool {
    slot.stamp() == stamp && kind.is_tag(slot.tag())
}

/// Moves a flow in, whatever was there, and returns its stamp. The lock is held.
#[inline(always)]
pub fn fill<M: SlotMemory>(
    slot: M,
    tag: u16,
    key: &M::Key,
    state: &M::State,
    deadline: Ticks,
    now: Ticks,
) -> u32 {
    slot.set_tag(0);
    let stamp = next_stamp(slot.stamp());
    slot.set_stamp(stamp.wrapping_sub(1));
    slot.keep_order();
    slot.set_key(key);
    slot.write_state(state);
    slot.clear_counts(now);
    slot.set_deadline(deadline);
    slot.keep_order();
    slot.set_stamp(stamp);
    slot.set_tag(tag);
    stamp
}

/// Frees a slot whose stamp is this. The lock is held.
#[inline(always)]
fn free<M: SlotMemory>(slot: M, stamp: u32) {
    slot.set_tag(0);
    slot.set_stamp(next_stamp(stamp));
}

/// What became of a flow that was to be assured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assured {
    /// It is not there any more.
    Gone,
    /// Another CPU has assured it already; this is its stamp.
    Before(u32),
    /// It is assured from here on; this is its stamp.
    Now(u32),
}

/// Assures a flow where it is. The stamp stays the same, so that a concurrent search finds the flow,
/// either as embryonic or as assured.
#[inline(always)]
pub fn assure<M: SlotMemory>(slot: M, key: &M::Key, state: &M::State, deadline: Ticks) -> Assured {
    let mut outcome = Assured::Gone;
    slot.lock();
    let tag = slot.tag();
    if tag != 0 && slot.is_keyed(key) {
        let stamp = slot.stamp();
        outcome = Assured::Before(stamp);
        if FlowKind::Embryonic.is_tag(tag) {
            slot.write_state(state);
            slot.set_deadline(deadline);
            slot.keep_order();
            slot.set_tag(FlowKind::Assured.tag(tag));
            outcome = Assured::Now(stamp);
        }
    }
    slot.unlock();
    outcome
}

/// Writes the state of a flow that was found earlier, if it is still there and of the same kind.
#[inline(always)]
pub fn update<M: SlotMemory>(slot: M, kind: FlowKind, stamp: u32, state: &M::State) {
    slot.lock();
    if holds(slot, kind, stamp) {
        slot.write_state(state);
    }
    slot.unlock();
}

/// Writes the deadline of a flow that was found embryonic, if it still is: another CPU may have given it
/// the longer one of an assured flow.
#[inline(always)]
pub fn extend<M: SlotMemory>(slot: M, stamp: u32, deadline: Ticks) {
    slot.lock();
    if holds(slot, FlowKind::Embryonic, stamp) {
        slot.set_deadline(deadline);
    }
    slot.unlock();
}

/// No owner: nothing was there to end.
pub const NO_OWNER: u32 = u32::MAX;

/// Ends a flow that was found earlier, if it is still there and of the same kind. Returns its owner.
#[inline(always)]
pub fn clear<M: SlotMemory>(slot: M, kind: FlowKind, stamp: u32) -> u32 {
    let mut owner = NO_OWNER;
    slot.lock();
    if holds(slot, kind, stamp) {
        free(slot, stamp);
        owner = slot.owner();
    }
    slot.unlock();
    owner
}

/// Ends the flow in a slot if it has expired. Returns its owner if it was assured.
#[inline(always)]
pub fn expire<M: SlotMemory>(slot: M, now: Ticks) -> u32 {
    let mut owner = NO_OWNER;
    slot.lock();
    let tag = slot.tag();
    if tag != 0 && slot.deadline().has_passed(now) {
        if FlowKind::Assured.is_tag(tag) {
            owner = slot.owner();
        }
        free(slot, slot.stamp());
    }
    slot.unlock();
    owner
}

/// What a slot has to migrate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Free,
    /// A flow that had expired, and is ended; its owner, if it was assured.
    Expired(u32),
    /// A live flow: what was seen of it, and its deadline.
    Live(Seen, Ticks),
}

/// Copies the flow of a slot out, to migrate it.
#[inline(always)]
pub fn copy<M: SlotMemory>(slot: M, now: Ticks, key: &mut M::Key, state: &mut M::State) -> Content {
    let mut content = Content::Free;
    slot.lock();
    let tag = slot.tag();
    if tag != 0 {
        let stamp = slot.stamp();
        let deadline = slot.deadline();
        if deadline.has_passed(now) {
            let mut owner = NO_OWNER;
            if FlowKind::Assured.is_tag(tag) {
                owner = slot.owner();
            }
            free(slot, stamp);
            content = Content::Expired(owner);
        } else {
            slot.read_key(key);
            slot.read_state(state);
            content = Content::Live(Seen { tag, stamp }, deadline);
        }
    }
    slot.unlock();
    content
}

/// Ends a flow in its old slot, when it has been migrated. Leaves its last state in `state`, and returns
/// its last tag and deadline: it may have been assured meanwhile. `None`: it has ended meanwhile.
#[inline(always)]
pub fn leave<M: SlotMemory>(slot: M, stamp: u32, state: &mut M::State) -> Option<(u16, Ticks)> {
    let mut last = None;
    // It is in its new slot before it leaves the old one.
    slot.keep_order();
    slot.lock();
    let tag = slot.tag();
    if slot.stamp() == stamp && tag != 0 {
        slot.read_state(state);
        last = Some((tag, slot.deadline()));
        free(slot, stamp);
    }
    slot.unlock();
    last
}

/// Whether of two places of one flow, which two CPUs have placed at the same time, the first gives way
/// to the second: the assured flow stays, or else the one that a search finds first. Each is given by
/// its kind and its rank in the order of a search.
#[inline(always)]
pub const fn gives_way((kind, rank): (FlowKind, u32), other: (FlowKind, u32)) -> bool {
    let (other_kind, other_rank) = other;
    match (kind, other_kind) {
        (FlowKind::Embryonic, FlowKind::Assured) => true,
        (FlowKind::Assured, FlowKind::Embryonic) => false,
        _ => other_rank < rank,
    }
}
