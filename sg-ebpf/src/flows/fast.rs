//! The look for a flow where it most likely is.

use sg_common::abi::Globals;
use sg_common::flow::slot;
use sg_common::flow::{FlowBucket, FlowKey, FlowKind, FlowSlot, FlowState};
use sg_common::ids::RuleSlot;
use sg_common::tables::{FastFind, FastPacket};

use super::bucket::{
    ASSURED_FLOWS, FLOWS, NOWHERE, ONES, SLOTS, Slot, bit_number, matching, place_number, tag_in,
};
use super::change::{advance_entry, count_entry, extend_slot};
use super::order::keep_order;
use super::search::SEARCHES;
use crate::globals::{self, GLOBALS};
use crate::opaque::hidden;

/// Looks at the place where the flow would be at home, or else at the first one of either bucket whose
/// tag is right: nearly always that is the flow, and no loop is needed. What the packet does to the flow
/// is kept.
#[inline(always)]
pub(crate) fn find_fast<P: FastPacket>(
    globals: &Globals,
    key: &FlowKey,
    own: *mut u32,
    state: &mut FlowState,
    packet: &P,
) -> FastFind<RuleSlot> {
    let places = key.places(&globals.hash_key);
    let tag = FlowKind::Assured.tag(places.tag);
    let Some(bucket) = FLOWS.get_ptr_mut(places.first & globals.flow_mask) else {
        return FastFind::Unsure;
    };
    let mut slot = Slot {
        bucket,
        slot: FlowBucket::home(tag),
    };
    // SAFETY: array elements live as long as the program; what is read may change meanwhile.
    if unsafe { slot.tag().read_volatile() } != tag {
        let place = sg_place_with(places.first, places.second, u32::from(tag));
        if place >= UNSURE {
            return match place {
                NOWHERE => FastFind::Absent,
                _ => FastFind::Unsure,
            };
        }
        let Some(bucket) = FLOWS.get_ptr_mut(place / SLOTS) else {
            return FastFind::Unsure;
        };
        slot = Slot {
            bucket,
            slot: place,
        };
    }
    let now = globals::now();
    let entry = slot.entry();
    // The words that were hashed would be kept on the stack.
    let key = if P::KEY_IN_MEMORY { hidden(key) } else { key };
    // SAFETY: as in `sg_search_flow`.
    unsafe {
        let shared = slot.shared(own);
        let stamp = slot::begin_read(shared);
        if slot.tag().read_volatile() != tag
            || slot::is_moving_in(stamp)
            || slot.deadline().read_volatile().has_passed(now)
            || !is_keyed(entry, key)
        {
            return FastFind::Unsure;
        }
        // Read as late as it is needed: there are few registers.
        let held = &raw const (*entry).state;
        state.generation = (&raw const (*held).generation).read_volatile();
        state.owner = (&raw const (*held).owner).read_volatile();
        state.phase = (&raw const (*held).phase).read_volatile();
        state.initiator = (&raw const (*held).initiator).read_volatile();
        state.marks = (&raw const (*held).marks).read_volatile();
        if !packet.is_simple(state) {
            return FastFind::Unsure;
        }
        state.end = (&raw const (*held).end).read_volatile();
        state.ack = (&raw const (*held).ack).read_volatile();
        state.window = (&raw const (*held).window).read_volatile();
        state.scales = (&raw const (*held).scales).read_volatile();
        let fast_update = packet.fast_update(state);
        let rule = (&raw const (*held).rule).read_volatile();
        if !slot::is_same(shared, stamp) {
            return FastFind::Unsure;
        }
        if fast_update.has_moved {
            advance_entry(entry, fast_update.leg, state);
        }
        extend_slot(slot, now.after(fast_update.timeout));
        let (packets, bytes) = packet.size();
        count_entry(entry, fast_update.leg, packets, bytes);
        FastFind::Found(rule)
    }
}

/// A number of no place: there may be one.
pub(super) const UNSURE: u32 = NOWHERE - 1;

/// The number of the first place of a flow's two buckets with the tag of an assured flow, or
/// [`NOWHERE`]. That of an embryonic flow will do: the tag is looked at again.
///
/// A function of its own: few flows are away from home. Flows stay where they are, but for those that
/// are migrated from a table of another size: whether there is one is asked before any place is looked at,
/// so that a flow which is found nowhere is in neither table.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn sg_place_with(first: u32, second: u32, tag: u32) -> u32 {
    let (Some(globals), Some(own)) = (GLOBALS.get(0), SEARCHES.get_ptr_mut(0)) else {
        return UNSURE;
    };
    // SAFETY: a reference is good to read from, and the word is this CPU's.
    let migrated_from = unsafe {
        let mask = (&raw const globals.other_flow_mask).read_volatile();
        keep_order(&raw mut (*own).stamp);
        mask
    };
    for index in [first, second] {
        let index = index & globals.flow_mask;
        let Some(bucket) = FLOWS.get_ptr(index) else {
            return UNSURE;
        };
        let slots = slots_with(bucket, tag as u16);
        if slots != 0 {
            return place_number(index, bit_number(slots & slots.wrapping_neg()));
        }
    }
    match migrated_from {
        0 => NOWHERE,
        _ => UNSURE,
    }
}

/// Which places of a bucket have the tag of an assured flow, or that of an embryonic one which is else
/// alike.
#[inline(always)]
pub(super) fn slots_with(bucket: *const FlowBucket, tag: u16) -> u32 {
    // The bit that tells the tables apart is set in all of them, so that embryonic flows match.
    let unseen = u64::from(tag_in(ASSURED_FLOWS, 0)) * ONES;
    // SAFETY: array elements live as long as the program; what is read may change meanwhile.
    unsafe {
        let words = (&raw const (*bucket).tags).cast::<u64>();
        matching(words.read_volatile() | unseen, tag)
            | matching(words.add(1).read_volatile() | unseen, tag) << 4
    }
}

/// Whether a entry has this key, by whole words of the processor.
///
/// # Safety
/// The entry must lie in a bucket.
#[inline(always)]
pub(super) unsafe fn is_keyed(entry: *const FlowSlot, key: &FlowKey) -> bool {
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
    // SAFETY: the key lies in the entry, at an address that eight divides.
    unsafe {
        let held = (&raw const (*entry).key).cast::<u64>();
        let mut difference = 0;
        for (place, expected) in expected.into_iter().enumerate() {
            difference |= held.add(place).read_volatile() ^ expected;
        }
        let rest = held.add(expected.len()).cast::<u32>().read_volatile();
        let kind = u32::from(key.protocol) | u32::from(key.asker) << 8;
        difference | u64::from(rest ^ kind) == 0
    }
}
