//! Protected interfaces.

use super::double_buffer::DoubleBuffer;
use super::group_set::direction_policy;
use crate::flow::TimeoutTicks;
use crate::ids::Generation;
use crate::packet::Direction;
use crate::report::{Reason, Verdict};

/// A protected interface: who it is, and what is in force on it.
///
/// The maps that every packet reads begin on a page, and their entries have sizes that divide into
/// cache lines: who it is and what a refused SYN needs of either buffer lie in the first two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct InterfaceEntry {
    /// The network namespace, as the controller numbers them from 1. Zero is a free place.
    pub netns: u32,
    /// The kernel's number in that namespace.
    pub ifindex: u32,
    /// What is in force.
    pub buffers: DoubleBuffer<Interface>,
    /// Always zero.
    pub padding: [u32; 4],
}

impl InterfaceEntry {
    /// The entry of an interface.
    pub const fn new(netns: u32, ifindex: u32, buffers: DoubleBuffer<Interface>) -> Self {
        Self {
            netns,
            ifindex,
            buffers,
            padding: [0; 4],
        }
    }
}

/// What is in force on one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct Interface {
    /// The set of its groups, as the compiler numbers them from 1. Zero drops everything.
    pub policy: u32,
    /// Where identities are looked up.
    pub vpc: u32,
    /// Whose flows it shares: one zone for the host-side interfaces of a VPC, one a guest.
    pub zone: u32,
    /// Bits of [`InterfaceFlags`].
    pub flags: InterfaceFlags,
    /// The most assured flows it may hold.
    pub max_flows: u32,
    /// Flows admitted before this generation are judged again at their next packet.
    pub judge_again_before: Generation,
    /// Idle timeouts.
    pub timeouts: TimeoutTicks,
    /// EtherTypes that pass besides the usual ones; zero is an unused place.
    pub ethertypes: [u16; 8],
    /// A number of its own as long as it is attached: it owns the flows that the interface opens, and
    /// its counters are found by it.
    pub slot: u32,
}

impl Interface {
    /// The number of one direction of its policy, as `Scope` and `GrantKey` use it. It is reckoned
    /// and not looked up, so that tables by this number are read while the policy is still coming.
    #[inline(always)]
    pub const fn direction_policy(&self, direction: Direction) -> u32 {
        direction_policy(self.policy, direction)
    }

    /// The same for a packet of which no link-layer address is known.
    #[must_use]
    pub const fn without_macs(&self) -> Self {
        let InterfaceFlags(flags) = self.flags;
        Self {
            flags: InterfaceFlags(flags & !InterfaceFlags::MACS_KNOWN.0),
            ..*self
        }
    }

    /// What happens to a packet that was judged: its verdict, unless the interface is only audited.
    #[inline(always)]
    pub const fn enforce(&self, reason: Reason) -> Verdict {
        if self.flags.has(InterfaceFlags::AUDIT) {
            Verdict::Pass
        } else {
            reason.verdict()
        }
    }
}

/// Yes-or-no properties of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(transparent)]
pub struct InterfaceFlags(pub u32);

impl InterfaceFlags {
    /// What is behind the interface is protected, not the machine that has it.
    pub const GUEST: Self = Self(1);
    /// Frames have no Ethernet header.
    pub const BARE: Self = Self(2);
    /// Packets in the middle of an unknown TCP connection are judged as a new flow.
    pub const TCP_PICKUP: Self = Self(4);
    /// Everything passes; it is judged, counted and told all the same.
    pub const AUDIT: Self = Self(8);
    /// A later fragment passes only behind the first one.
    pub const STRICT_FRAGMENTS: Self = Self(256);
    /// The guest's own addresses have its link-local one among them, so that any other is not its own.
    pub const LINK_LOCAL_KNOWN: Self = Self(16);
    /// The guest's link-layer addresses are known: it sends from no others.
    pub const MACS_KNOWN: Self = Self(64);
    /// The guest is in VLANs.
    pub const VLANS: Self = Self(128);
    /// A sender on this machine is told that its packet was dropped.
    pub const TOLD: Self = Self(32);

    /// Whether all of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`, if `on`.
    #[must_use]
    pub const fn with(self, other: Self, on: bool) -> Self {
        if on { Self(self.0 | other.0) } else { self }
    }
}

/// How many places from its home on an interface may lie in the table.
pub const INTERFACE_PROBES: u32 = 8;

/// The place where the search for an interface begins.
#[inline(always)]
pub const fn interface_home(netns: u32, ifindex: u32) -> u32 {
    // Consecutive ifindexes take consecutive places, and namespaces start apart, whatever the size.
    netns.wrapping_mul(0x9e37_79b1).wrapping_add(ifindex)
}

const _: () = {
    assert!(size_of::<Interface>() == 84);
    assert!(size_of::<InterfaceEntry>() == 192);
};
