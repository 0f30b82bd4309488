//! The maps of the policy, and the interfaces.
//!
//! Sizes here are placeholders of one entry: the controller sets each map's size when it loads the
//! object, from the policy and its settings.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap};
use aya_ebpf::macros::btf_map;
use sg_common::abi::{
    Awaiting, DoubleBuffer, FragmentKey, FragmentVerdict, Globals, GrantKey, GroupSetEntry,
    INTERFACE_PROBES, Interface, InterfaceEntry, MemberKey, PrefixKey, interface_home,
};
use sg_common::ids::{Generation, Identity};
use sg_common::ports::{PortEntry, PortTable};
use sg_common::ranges::{IntervalV4, IntervalV6, RangeSlot, RangeTable};

use crate::globals::{GLOBALS, NETNS};
use crate::opaque::hidden;

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
/// What the controller writes much of at once: a system call an entry would take a microsecond. Also
/// what every packet reads: the kernel begins only these arrays on a page, and others eight bytes
/// before the end of a cache line, which each entry would then cross.
pub(crate) const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

#[btf_map]
pub(crate) static INTERFACES: Array<InterfaceEntry, 1, MMAPABLE> = Array::new();
#[btf_map]
pub(crate) static POLICIES: Array<DoubleBuffer<GroupSetEntry>, 1, MMAPABLE> = Array::new();
#[btf_map]
pub(crate) static PORTS: Array<PortEntry, 1, MMAPABLE> = Array::new();
// Tables of prefixes by [`Scope`]. They point into the arrays below, which many of them share.
#[btf_map]
pub(crate) static POLICY_RANGES: Array<DoubleBuffer<RangeTable>, 1, MMAPABLE> = Array::new();
#[btf_map]
pub(crate) static LIST_RANGES: Array<DoubleBuffer<RangeTable>, 1, MMAPABLE> = Array::new();
#[btf_map]
pub(crate) static RANGE_SLOTS: Array<RangeSlot, 1, MMAPABLE> = Array::new();
#[btf_map]
pub(crate) static INTERVALS_V4: Array<IntervalV4, 1, MMAPABLE> = Array::new();
#[btf_map]
pub(crate) static INTERVALS_V6: Array<IntervalV6, 1, MMAPABLE> = Array::new();
#[btf_map]
pub(crate) static NESTED_RANGES: Array<RangeTable, 1, MMAPABLE> = Array::new();
// What the intervals of policies stand for: their value is the index and one more.
#[btf_map]
pub(crate) static PORT_TABLES: Array<PortTable, 1, MMAPABLE> = Array::new();
// Few keys that come and go one by one: a trie is quicker to change than a table of ranges.
#[btf_map]
pub(crate) static SETS: LpmTrie<PrefixKey, DoubleBuffer<Identity>, 1, NO_PREALLOC> = LpmTrie::new();
// A hash map may hand a freed element to the next key while a reader still looks at it. So what a
// key of these two maps leads to never changes, and is an index into an array that changes in
// place; keys are freed a grace period after the last packet could find them.
#[btf_map]
pub(crate) static MEMBERS: HashMap<MemberKey, u32, 1, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub(crate) static IDENTITIES: Array<DoubleBuffer<Identity>, 1> = Array::new();
#[btf_map]
pub(crate) static GRANTS: HashMap<GrantKey, u32, 1, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub(crate) static GRANTED: Array<DoubleBuffer<PortTable>, 1> = Array::new();
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentVerdict, 1> = LruHashMap::new();
// By interface slot.
#[btf_map]
pub(crate) static AWAITING: Array<Awaiting, 1> = Array::new();

/// The value that packets of this generation see.
///
/// Hidden from LLVM, which otherwise adds the offset before the lookup's result is compared
/// with null; the verifier refuses that.
#[inline(always)]
pub(crate) fn visible<T>(buffers: &'static DoubleBuffer<T>, generation: Generation) -> &'static T {
    hidden(buffers).at(generation)
}

/// The interface's entry there.
#[inline(always)]
pub(crate) fn interface_entry(place: u32) -> Option<&'static InterfaceEntry> {
    INTERFACES.get(place)
}

/// What is in force of it; a buffer that packets of this generation see is not written.
#[inline(always)]
pub(crate) fn in_force(
    entry: &'static InterfaceEntry,
    generation: Generation,
) -> Option<&'static Interface> {
    let interface = visible(&entry.buffers, generation);
    (interface.policy != 0).then_some(interface)
}

/// The interface's entry and its place: at home, nearly always.
#[inline(always)]
pub(crate) fn find_interface(
    globals: &Globals,
    ifindex: u32,
) -> Option<(u32, &'static InterfaceEntry)> {
    let netns = NETNS.load();
    let place = interface_home(netns, ifindex) & globals.interface_mask;
    let entry = INTERFACES.get(place)?;
    if entry.ifindex == ifindex && entry.netns == netns {
        return Some((place, entry));
    }
    match sg_probe_interface(ifindex) {
        NOWHERE => None,
        place => Some((place, INTERFACES.get(place)?)),
    }
}

/// No place.
const NOWHERE: u32 = u32::MAX;

/// Finds an interface's entry away from home.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_probe_interface(ifindex: u32) -> u32 {
    let Some(globals) = GLOBALS.get(0) else {
        return NOWHERE;
    };
    let netns = NETNS.load();
    let home = interface_home(netns, ifindex);
    for probe in 1..INTERFACE_PROBES {
        let place = home.wrapping_add(probe) & globals.interface_mask;
        let Some(entry) = INTERFACES.get(place) else {
            return NOWHERE;
        };
        if entry.ifindex == ifindex && entry.netns == netns {
            return place;
        }
    }
    NOWHERE
}
