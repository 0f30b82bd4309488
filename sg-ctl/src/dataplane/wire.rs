//! The map entries of `sg-common` as aya accepts them.
#![expect(
    unsafe_code,
    reason = "aya asks for an unsafe promise about each type it copies"
)]

use aya::Pod;
use sg_common::abi::{
    Awaiting, DoubleBuffer, FragmentKey, FragmentVerdict, Globals, GrantKey, GroupSetEntry,
    InterfaceEntry, MemberKey, PrefixKey, ReasonCounters, RuleCounter,
};
use sg_common::event::{Event, EventReader, EventScratch};
use sg_common::flow::{FlowBucket, Migration};
use sg_common::ids::Identity;
use sg_common::ports::{PortEntry, PortTable};
use sg_common::ranges::{IntervalV4, IntervalV6, RangeSlot, RangeTable};
use sg_common::trace::{TraceFilter, TraceRecord};

/// A map's key or value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Wire<T>(pub(super) T);

/// Types whose every byte is theirs, and for which every pattern of bytes is a value.
pub(super) trait Entry: Copy + 'static {}

macro_rules! entries {
    ($($entry:ty),* $(,)?) => { $(impl Entry for $entry {})* };
}

entries!(
    u32,
    Globals,
    InterfaceEntry,
    DoubleBuffer<GroupSetEntry>,
    DoubleBuffer<PortTable>,
    DoubleBuffer<Identity>,
    DoubleBuffer<RangeTable>,
    PortEntry,
    PortTable,
    RangeTable,
    RangeSlot,
    IntervalV4,
    IntervalV6,
    PrefixKey,
    MemberKey,
    GrantKey,
    ReasonCounters,
    RuleCounter,
    Migration,
    FlowBucket,
    Event,
    EventScratch,
    EventReader,
    FragmentKey,
    FragmentVerdict,
    Awaiting,
    TraceFilter,
    TraceRecord,
);

/// The memory of these entries.
pub(super) fn bytes_of<T: Entry>(entries: &[T]) -> &[u8] {
    // SAFETY: every byte of an `Entry` is its own, and so is initialised.
    unsafe { std::slice::from_raw_parts(entries.as_ptr().cast(), size_of_val(entries)) }
}

// SAFETY: `Entry` is implemented above only for `repr(C)` structs of integers without padding,
// whose sizes sg-common asserts.
unsafe impl<T: Entry> Pod for Wire<T> {}

/// Reads an entry that the kernel has written; `None` when the bytes are not as many as it has.
pub(super) fn read<T: Entry>(bytes: &[u8]) -> Option<T> {
    if bytes.len() != size_of::<T>() {
        return None;
    }
    // SAFETY: there are as many bytes as just compared, and `Entry` promises that any will do.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
