//! The entries of the kernel's maps, byte for byte: `repr(C)`, no implicit padding, sizes asserted. An
//! all-zero entry admits nothing.
//!
//! What an update may change lies in a [`DoubleBuffer`]: each packet reads the generation once, and that
//! number's parity picks the buffer it sees everywhere. An update writes the buffers that no packet
//! reads, raises the number, waits until no packet remembers the old one, and makes the other buffers
//! equal. So every packet sees the old policy or the new one, whole.
//!
//! Other entries stand where their meaning is: [`ports`](crate::ports), [`ranges`](crate::ranges),
//! [`flow`](crate::flow) and [`event`](crate::event).

mod counters;
mod double_buffer;
mod fragments;
mod group_set;
mod interface;

use crate::flow::HashKey;
use crate::ids::Generation;

pub use counters::{ReasonCounter, ReasonCounters, RuleCounter, reasons_index};
pub use double_buffer::DoubleBuffer;
pub use fragments::{Awaiting, FragmentKey, FragmentVerdict};
pub use group_set::{
    DirectionPolicy, GrantKey, GroupSetEntry, MemberKey, PolicyFlags, PrefixKey, Scope,
    direction_policy,
};
pub use interface::{INTERFACE_PROBES, Interface, InterfaceEntry, InterfaceFlags, interface_home};

/// The layout of the maps. A program never works on maps of another number.
pub const ABI: u32 = 4;

/// What every packet reads first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Globals {
    /// The policy in force.
    pub generation: Generation,
    /// The buckets of flows, less one; a power of two less one.
    pub flow_mask: u32,
    /// The same for the buckets that flows are migrated from; zero when there are none.
    pub other_flow_mask: u32,
    /// A random key: a peer cannot choose addresses and ports that fall into one bucket.
    pub hash_key: HashKey,
    /// The layout these maps have: [`ABI`].
    pub abi: u32,
    /// The places of [`InterfaceEntry`], less one; a power of two less one.
    pub interface_mask: u32,
    /// Kernel timer ticks a second (`CONFIG_HZ`), for readers of deadlines.
    pub jiffies_per_second: u32,
}

const _: () = assert!(size_of::<Globals>() == 64);
