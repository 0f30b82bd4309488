//! What sets of groups allow: the entries that rules are found by.

use crate::addr::{Addr, Family};
use crate::ids::Identity;
use crate::packet::Direction;
use crate::ports::PortTable;
use crate::protocol::TCP;

/// What a set of groups allows: both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct GroupSetEntry {
    /// By [`Direction::number`].
    pub directions: [DirectionPolicy; 2],
}

impl GroupSetEntry {
    /// One direction's part.
    #[inline(always)]
    pub const fn direction(&self, direction: Direction) -> &DirectionPolicy {
        let [ingress, egress] = &self.directions;
        match direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
        }
    }
}

/// What a set of groups allows in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct DirectionPolicy {
    /// Rules whose peer is every address of the family, by [`Family`].
    pub open: [PortTable; 2],
    /// Which further lookups can find anything, and which protocols are open whole.
    pub flags: PolicyFlags,
    /// Always zero: both directions take a cache line.
    pub padding: [u32; 3],
}

/// The number of one direction of a policy.
#[inline(always)]
pub const fn direction_policy(policy: u32, direction: Direction) -> u32 {
    policy << 1 | direction.number()
}

impl DirectionPolicy {
    /// The table of rules open to every address of the family.
    #[inline(always)]
    pub const fn open_to(&self, family: Family) -> PortTable {
        let [v4, v6] = self.open;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }
}

/// Properties of one direction of a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(transparent)]
pub struct PolicyFlags(pub u32);

impl PolicyFlags {
    /// Some rule's peer is a group.
    pub const GROUPS: Self = Self(1);
    /// Some rule's peer is a prefix list.
    pub const PREFIX_LISTS: Self = Self(2);
    /// Some rule's peer is an IPv4 prefix longer than zero; for IPv6 the next bit.
    const PREFIXES_V4: u32 = 4;
    /// One rule admits all of TCP from or to every IPv4 address; IPv6 and UDP in the next bits.
    const OPEN_TCP_V4: u32 = 16;
    const OPEN_UDP_V4: u32 = 64;

    /// Some rule's peer is a prefix of this family.
    pub const fn prefixes(family: Family) -> Self {
        Self(Self::PREFIXES_V4 << family as u32)
    }

    /// One rule admits every port of the protocol (6 or 17) for every address of the family.
    #[inline(always)]
    pub const fn open(family: Family, protocol: u8) -> Self {
        let bit = if protocol == TCP {
            Self::OPEN_TCP_V4
        } else {
            Self::OPEN_UDP_V4
        };
        Self(bit << family as u32)
    }

    /// Whether all of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These with `other`, or without.
    #[must_use]
    pub const fn with(self, other: Self, on: bool) -> Self {
        Self(if on {
            self.0 | other.0
        } else {
            self.0 & !other.0
        })
    }
}

/// Whose prefixes a longest-prefix lookup searches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Scope(pub u32);

impl Scope {
    /// The prefixes that one direction of a policy names; the number is the index of their table.
    #[inline(always)]
    pub const fn policy(direction_policy: u32, family: Family) -> Self {
        Self(direction_policy << 1 | family as u32)
    }

    const KIND_BITS: u32 = 2;
    const KINDS: u32 = (1 << Self::KIND_BITS) - 1;

    /// The prefix lists of a VPC.
    #[inline(always)]
    pub const fn prefix_lists(vpc: u32, family: Family) -> Self {
        Self((vpc << 1 | family as u32) << Self::KIND_BITS)
    }

    /// The index of the table, where this is [`Scope::prefix_lists`].
    #[inline(always)]
    pub const fn list_table(self) -> Option<u32> {
        if self.0 & Self::KINDS == 0 {
            Some(self.0 >> Self::KIND_BITS)
        } else {
            None
        }
    }

    /// The addresses of the guest behind an interface.
    #[inline(always)]
    pub const fn guest(interface_slot: u32, family: Family) -> Self {
        Self((interface_slot << 1 | family as u32) << Self::KIND_BITS | 1)
    }

    /// The link-layer addresses and VLANs of the guest behind an interface.
    #[inline(always)]
    pub const fn guest_link(interface_slot: u32) -> Self {
        Self((interface_slot << 1) << Self::KIND_BITS | 3)
    }

    /// The link-local services of a VPC.
    #[inline(always)]
    pub const fn services(vpc: u32, family: Family) -> Self {
        Self((vpc << 1 | family as u32) << Self::KIND_BITS | 2)
    }
}

/// Key of a longest-prefix map: the scope, whole, and then the address's bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct PrefixKey {
    /// Network order, so that its bits come first.
    pub scope: [u8; 4],
    /// The address; IPv4 as a mapped one.
    pub address: Addr,
}

impl PrefixKey {
    /// Bits of the scope, which every prefix includes.
    pub const SCOPE_BITS: u32 = 32;
    /// Bits of a whole key.
    pub const BITS: u32 = Self::SCOPE_BITS + 128;

    /// Builds the key.
    #[inline(always)]
    pub const fn new(scope: Scope, address: Addr) -> Self {
        Self {
            scope: scope.0.to_be_bytes(),
            address,
        }
    }
}

/// Key of the exact-address map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct MemberKey {
    /// The VPC.
    pub vpc: u32,
    /// The address.
    pub address: Addr,
}

/// Key of what an identity is granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct GrantKey {
    /// [`direction_policy`].
    pub direction_policy: u32,
    /// A set of groups, or of prefix lists, as the compiler numbers them from 1.
    pub identity: Identity,
}

const _: () = {
    assert!(size_of::<GroupSetEntry>() == 64);
    assert!(size_of::<PrefixKey>() == 20);
    assert!(size_of::<MemberKey>() == 20);
    assert!(size_of::<GrantKey>() == 8);
};
