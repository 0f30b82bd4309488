//! What amending asks of the tables in force and of the policy as it is to be.
//!
//! Both are answered piece by piece, from wherever the pieces are: nobody needs to have read the
//! whole of either.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sg_common::addr::Family;
use sg_common::packet::Direction;
use sg_common::ranges::{IntervalV4, IntervalV6, RangeSlot, RangeTable};
use sg_common::tables::{GrantKey, Identity, MemberKey, Policy, PortEntry, PortTable, RuleSlot};

use crate::compile::arena::{Arena, FreePlaces, Slice};
use crate::compile::image::{Grant, IdentitySet, Image, Member};
use crate::compile::ranges::RangeArenas;
use crate::policy::model::{Peer, Rule};
use crate::policy::names::{GroupName, PrefixListName, RuleId, VpcName};

/// Why a change has to be compiled with the whole policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Whole(Cow<'static, str>);

impl Whole {
    /// Says why.
    pub fn because(why: impl Into<Cow<'static, str>>) -> Self {
        Self(why.into())
    }
}

impl From<postcard::Error> for Whole {
    fn from(error: postcard::Error) -> Self {
        Self::because(format!("a part cannot be read: {error}"))
    }
}

/// A piece, or why it cannot be had. What cannot be amended is compiled, and if that fails too its
/// errors say what is wrong.
pub type Answer<T> = Result<T, Whole>;

/// The arrays whose places are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ArenaKind {
    /// PORTS.
    Ports,
    /// PORT_TABLES.
    PortTables,
    /// RANGE_SLOTS.
    RangeSlots,
    /// INTERVALS_V4.
    IntervalsV4,
    /// INTERVALS_V6.
    IntervalsV6,
    /// NESTED_RANGES.
    NestedRanges,
}

impl ArenaKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Ports,
        Self::PortTables,
        Self::RangeSlots,
        Self::IntervalsV4,
        Self::IntervalsV6,
        Self::NestedRanges,
    ];

    /// The slices of an image in this array, by offset.
    pub fn slices(self, image: &Image) -> &[Slice] {
        match self {
            Self::Ports => image.ports.slices(),
            Self::PortTables => image.port_tables.slices(),
            Self::RangeSlots => image.ranges.slots.slices(),
            Self::IntervalsV4 => image.ranges.intervals_v4.slices(),
            Self::IntervalsV6 => image.ranges.intervals_v6.slices(),
            Self::NestedRanges => image.ranges.nested.slices(),
        }
    }
}

/// Which tables of prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RangeTableKey {
    /// By the index in POLICY_RANGES.
    Policy(u32),
    /// By the index in LIST_RANGES.
    List(u32),
}

/// A set of groups that an attached interface has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstalledPolicy {
    /// Its number.
    pub id: u32,
    /// The groups.
    pub groups: BTreeSet<GroupName>,
}

/// The numbers that new things get: none that is taken lies above them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextNumbers {
    /// The next identity.
    pub identity: u32,
    /// The next index of a member.
    pub member: u32,
    /// The next index of a grant.
    pub grant: u32,
}

impl NextNumbers {
    /// Those behind all that an image has given.
    pub fn behind(image: &Image) -> Self {
        let behind =
            |numbers: &mut dyn Iterator<Item = u32>| numbers.max().map_or(0, |highest| highest + 1);
        let identities = &mut image.ids.identities.values().map(|identity| identity.0);
        Self {
            // Zero is nobody's.
            identity: behind(identities).max(1),
            member: behind(&mut image.members.values().map(|member| member.index)),
            grant: behind(&mut image.grants.values().map(|grant| grant.index)),
        }
    }
}

/// How far the maps that are there may be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Entries of PORTS.
    pub ports: u32,
    /// Entries of PORT_TABLES.
    pub port_tables: u32,
    /// Entries of RANGE_SLOTS.
    pub range_slots: u32,
    /// Entries of INTERVALS_V4.
    pub intervals_v4: u32,
    /// Entries of INTERVALS_V6.
    pub intervals_v6: u32,
    /// Entries of NESTED_RANGES.
    pub nested_ranges: u32,
    /// The highest slot of RULES.
    pub rules: u32,
    /// Entries of MEMBERS, and of IDENTITIES.
    pub members: u32,
    /// Entries of GRANTS, and of GRANTED.
    pub grants: u32,
}

impl Room {
    /// That of one array.
    pub fn of(&self, arena: ArenaKind) -> u32 {
        match arena {
            ArenaKind::Ports => self.ports,
            ArenaKind::PortTables => self.port_tables,
            ArenaKind::RangeSlots => self.range_slots,
            ArenaKind::IntervalsV4 => self.intervals_v4,
            ArenaKind::IntervalsV6 => self.intervals_v6,
            ArenaKind::NestedRanges => self.nested_ranges,
        }
    }
}

/// The arrays that tables of prefixes lie in.
pub trait Segments {
    /// A whole slice of RANGE_SLOTS.
    fn range_slots(&mut self, slice: Slice) -> Answer<Vec<RangeSlot>>;
    /// The slice of INTERVALS_V4 that an index lies in.
    fn intervals_v4(&mut self, index: u32) -> Answer<(Slice, Vec<IntervalV4>)>;
    /// The slice of INTERVALS_V6 that an index lies in.
    fn intervals_v6(&mut self, index: u32) -> Answer<(Slice, Vec<IntervalV6>)>;
    /// NESTED_RANGES.
    fn nested(&mut self, index: u32) -> Answer<RangeTable>;
}

impl Segments for &RangeArenas {
    fn range_slots(&mut self, slice: Slice) -> Answer<Vec<RangeSlot>> {
        Ok(self.slots.entries(slice).to_vec())
    }

    fn intervals_v4(&mut self, index: u32) -> Answer<(Slice, Vec<IntervalV4>)> {
        segment(&self.intervals_v4, index)
    }

    fn intervals_v6(&mut self, index: u32) -> Answer<(Slice, Vec<IntervalV6>)> {
        segment(&self.intervals_v6, index)
    }

    fn nested(&mut self, index: u32) -> Answer<RangeTable> {
        Ok(self.nested.entry(index).copied().unwrap_or_default())
    }
}

fn segment<E: Copy>(arena: &Arena<E>, index: u32) -> Answer<(Slice, Vec<E>)> {
    let found = arena.slice_at(index);
    let (slice, entries) = found.ok_or(Whole::because("a table of prefixes has a hole"))?;
    Ok((slice, entries.to_vec()))
}

/// The tables in force. Entries that are not there read as their defaults.
pub trait Ground: Segments {
    /// How far the maps may be filled.
    fn room(&self) -> Room;
    /// The number of a VPC that has an attached interface.
    fn vpc(&mut self, name: &VpcName) -> Answer<Option<u32>>;
    /// The policies that a group is in.
    fn policies_with(&mut self, vpc: &VpcName, group: &GroupName) -> Answer<Vec<InstalledPolicy>>;
    /// POLICIES.
    fn policy(&mut self, id: u32) -> Answer<Policy>;
    /// POLICY_RANGES or LIST_RANGES.
    fn range_table(&mut self, key: RangeTableKey) -> Answer<RangeTable>;
    /// How many tables of prefixes have a slice. Those of ports are nobody's to count: a port table may
    /// be anybody's, is small, and its place comes back when an image is compiled whole.
    fn uses(&mut self, arena: ArenaKind, slice: Slice) -> Answer<u32>;
    /// PORT_TABLES.
    fn port_table(&mut self, index: u32) -> Answer<PortTable>;
    /// A whole slice of PORTS.
    fn ports(&mut self, table: PortTable) -> Answer<Vec<PortEntry>>;
    /// GRANTS, with GRANTED.
    fn grant(&mut self, key: GrantKey) -> Answer<Option<Grant>>;
    /// MEMBERS, with IDENTITIES.
    fn member(&mut self, key: MemberKey) -> Answer<Option<Member>>;
    /// The identity of a set.
    fn identity(&mut self, set: &IdentitySet) -> Answer<Option<Identity>>;
    /// What an identity stands for.
    fn identity_set(&mut self, identity: Identity) -> Answer<Option<IdentitySet>>;
    /// The identities whose sets hold a group or prefix list.
    fn identities_with(
        &mut self,
        vpc: &VpcName,
        peer: &Peer,
    ) -> Answer<Vec<(Identity, IdentitySet)>>;
    /// Whether an address was read from an attached interface.
    fn is_own_address(&mut self, vpc: &VpcName, address: IpAddr) -> Answer<bool>;
    /// Where the rules of a group are counted.
    fn slots_of(
        &mut self,
        vpc: &VpcName,
        group: &GroupName,
        rules: &[RuleId],
    ) -> Answer<Vec<Option<RuleSlot>>>;
    /// The slots that are taken, and the one that was given last.
    fn slots_taken(&mut self) -> Answer<(Vec<u32>, u32)>;
    /// Numbers that are not taken, nor any above them.
    fn next_numbers(&mut self) -> Answer<NextNumbers>;
    /// The places that are not taken.
    fn free_places(&mut self, arena: ArenaKind) -> Answer<FreePlaces>;
}

/// The policy as it is to be.
pub trait Rules {
    /// The rules of groups in one direction whose prefix overlaps a region, with their groups.
    /// Rules for everyone may be left out.
    fn with_prefix_over(
        &mut self,
        vpc: &VpcName,
        groups: &BTreeSet<GroupName>,
        direction: Direction,
        region: IpNet,
    ) -> Answer<Vec<(GroupName, Rule)>>;
    /// The rules of groups in one direction that have this prefix and no other.
    fn with_prefix(
        &mut self,
        vpc: &VpcName,
        groups: &BTreeSet<GroupName>,
        direction: Direction,
        prefix: IpNet,
    ) -> Answer<Vec<(GroupName, Rule)>>;
    /// The rules of groups in one direction that name any of these groups or prefix lists.
    fn naming(
        &mut self,
        vpc: &VpcName,
        groups: &BTreeSet<GroupName>,
        direction: Direction,
        peers: &[Peer],
    ) -> Answer<Vec<(GroupName, Rule)>>;
    /// Whether any rule of these groups in one direction names a peer of the same kind: any group,
    /// or any prefix list.
    fn names_any_like(
        &mut self,
        vpc: &VpcName,
        groups: &BTreeSet<GroupName>,
        direction: Direction,
        peer: &Peer,
    ) -> Answer<bool>;
    /// The groups that have a rule which names a group or prefix list.
    fn groups_naming(&mut self, vpc: &VpcName, peer: &Peer) -> Answer<Vec<GroupName>>;
    /// The prefixes of a list that overlap a region.
    fn of_list_over(
        &mut self,
        vpc: &VpcName,
        list: &PrefixListName,
        region: IpNet,
    ) -> Answer<Vec<IpNet>>;
    /// The prefix lists that hold every address of a family.
    fn lists_of_everyone(&mut self, vpc: &VpcName, family: Family) -> Answer<Vec<PrefixListName>>;
    /// Whether a guest has declared an address as its own.
    fn is_guests_address(&mut self, vpc: &VpcName, address: IpAddr) -> Answer<bool>;
}
