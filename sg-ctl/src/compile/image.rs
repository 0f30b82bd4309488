//! What the kernel's maps hold for one generation, with every number settled.
//!
//! An image knows no maps: the dataplane writes it into the buffers that no packet reads, and reads
//! it back from those in force. It also keeps by what names its numbers were given, because the next
//! image must give the same things the same numbers, and new things none that a packet of this
//! generation may still follow.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sg_common::abi::{GrantKey, GroupSetEntry, Interface, MemberKey, PrefixKey, Scope};
use sg_common::addr::Addr;
use sg_common::ids::{Identity, RuleSlot};
use sg_common::ports::{PortEntry, PortTable};
use sg_common::ranges::RangeTable;

pub use super::arena::{Arena, Slice};
pub use super::ranges::RangeArenas;
use crate::policy::names::{GroupName, InterfaceName, PrefixListName, RuleId, VpcName};

/// One compiled policy, ready to be installed. The default holds nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// POLICIES by index, from 1.
    pub policies: BTreeMap<u32, GroupSetEntry>,
    /// PORTS.
    pub ports: Arena<PortEntry>,
    /// POLICY_RANGES by [`Scope::policy`]. Values are one more than an index of PORT_TABLES.
    pub policy_ranges: BTreeMap<u32, RangeTable>,
    /// LIST_RANGES by [`Scope::list_table`]. Values are identities.
    pub list_ranges: BTreeMap<u32, RangeTable>,
    /// Where both lie.
    pub ranges: RangeArenas,
    /// PORT_TABLES.
    pub port_tables: Arena<PortTable>,
    /// SETS.
    pub sets: BTreeMap<ScopedPrefix, Identity>,
    /// MEMBERS, and IDENTITIES by [`Member::index`].
    pub members: BTreeMap<MemberKey, Member>,
    /// GRANTS, and GRANTED by [`Grant::index`].
    pub grants: BTreeMap<GrantKey, Grant>,
    /// INTERFACES by slot, each at its [`InstalledInterface::place`].
    pub interfaces: BTreeMap<u32, InstalledInterface>,
    /// How many places INTERFACES has: a power of two, or zero for no interface.
    pub interface_places: u32,
    /// By what names the numbers were given.
    pub ids: Ids,
}

/// The names behind an image's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Where each rule's counters are.
    pub rules: BTreeMap<RuleId, RuleSlot>,
    /// The slot that was given last. Those behind it come next: flows that outlive their rule go on
    /// counting where it was.
    pub last_rule: u32,
    /// The number of each set of groups that an interface has.
    pub policies: BTreeMap<GroupSet, u32>,
    /// The number of each VPC that has an attached interface.
    pub vpcs: BTreeMap<VpcName, u32>,
    /// The lowest VPC number never given. A VPC that comes again gets a new one, and so a zone
    /// whose flows nobody has.
    pub next_vpc: u32,
    /// What each identity stands for.
    pub identities: BTreeMap<IdentitySet, Identity>,
}

/// The groups of an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupSet {
    /// Where the names mean something.
    pub vpc: VpcName,
    /// Never empty.
    pub groups: BTreeSet<GroupName>,
}

/// What an address can be in, as far as any compiled rule can tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IdentitySet {
    /// Where the names mean something.
    pub vpc: VpcName,
    /// Never empty.
    pub members_of: MembersOf,
}

/// A set of groups or of prefix lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MembersOf {
    /// All these groups, and no other that a compiled rule names.
    Groups(BTreeSet<GroupName>),
    /// All these prefix lists, and no other that a compiled rule names.
    PrefixLists(BTreeSet<PrefixListName>),
}

/// Key of a longest-prefix map with its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScopedPrefix {
    /// Scope and address; bits behind the length are zero.
    pub key: PrefixKey,
    /// Bits that count, those of the scope included, as the kernel's key says it.
    pub bits: u32,
}

impl ScopedPrefix {
    /// The first `bits` of an address within a scope; IPv4 has 96 bits more than its own.
    pub(super) fn new(scope: Scope, address: Addr, bits: u32) -> Self {
        Self {
            key: PrefixKey::new(scope, address),
            bits: PrefixKey::SCOPE_BITS + bits,
        }
    }

    /// The address and how much of it counts, without the scope.
    pub fn words(&self) -> String {
        let address = self.key.address;
        let family_bits = if address.is_v4() { 96 } else { 0 };
        let bits = self
            .bits
            .saturating_sub(PrefixKey::SCOPE_BITS + family_bits);
        format!("{address}/{bits}")
    }
}

/// An address that groups hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The value of the key in MEMBERS; never changes while the key is there.
    pub index: u32,
    /// The value in IDENTITIES.
    pub identity: Identity,
}

/// What an identity is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The value of the key in GRANTS; never changes while the key is there.
    pub index: u32,
    /// The value in GRANTED.
    pub table: PortTable,
}

/// An interface in its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledInterface {
    /// Where its entry is among [`Image::interface_places`].
    pub place: u32,
    /// The network namespace, as the controller numbers them.
    pub netns: u32,
    /// The kernel's number in that namespace.
    pub ifindex: u32,
    /// Where its groups mean something.
    pub vpc: VpcName,
    /// Its name in the policy.
    pub name: InterfaceName,
    /// What is in force on it.
    pub interface: Interface,
}

impl InstalledInterface {
    /// Whether both are of one device.
    pub fn is_device_of(&self, other: &Self) -> bool {
        (self.netns, self.ifindex) == (other.netns, other.ifindex)
    }
}
