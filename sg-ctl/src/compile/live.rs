//! A compiled policy that is kept in memory, so that an edit costs what it changes.
//!
//! Compiling is to compute every cell, an edit is to compute those that it touches; both find the same
//! content at the same place. What an edit changes is two images that hold the changed entries
//! alone, as they were and as they are to be; what installs images installs the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use sg_common::abi::{GrantKey, GroupSetEntry, MemberKey, Scope};
use sg_common::addr::{Addr, Family};
use sg_common::ids::{Identity, RuleSlot};
use sg_common::packet::Direction;
use sg_common::ranges::RangeTable;

use super::Settings;
use super::arena::Which;
use super::cells::{Course, Kind, Space, grant};
use super::domain::{Domain, Numbered, domains};
use super::edits::Edits;
use super::fold::{Prefix, family_of};
use super::identities::{IdentityNumbers, Lists, Members, PRESENT};
use super::image::{Grant, Ids, Image, Member, ScopedPrefix};
use super::interfaces::{self, AttachedInterface, Protected};
use super::limits::{CompileError, Entries, Subject};
use super::numbers::{Circle, Numbers};
use super::ports::TooMuch;
use super::ranges::Laid;
use crate::policy::model::{Peer, Policy, Vpc};
use crate::policy::names::{GroupName, RuleId};

/// After so many edits everything is to be compiled: that gives back what they leave behind, port tables
/// that nothing leads to and sets that no address is in.
const MOST_EDITS: u32 = 1 << 10;

/// A compiled policy.
pub struct Live {
    settings: Settings,
    /// What the maps hold, but for the slices of arrays.
    image: Image,
    space: Space,
    vpcs: Vec<LiveVpc>,
    /// By the index in POLICY_RANGES.
    policy_tables: BTreeMap<u32, Laid>,
    /// By the index in LIST_RANGES.
    list_tables: BTreeMap<u32, Laid>,
    identities: IdentityNumbers,
    members: Numbers,
    grants: Numbers,
    slots: Circle,
    /// How many rules have an id that more than one has.
    shared: BTreeMap<RuleId, u32>,
    edits: u32,
    /// What was changed since the last time that everything was in force.
    change: Change,
    is_settled: bool,
}

/// A VPC that has attached interfaces.
struct LiveVpc {
    domain: Domain,
    lists: Lists,
    members: Members,
}

/// What an edit changes in the maps.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The entries as they are, with no others.
    pub old: Image,
    /// The entries as they are to be. Of arrays, only what is not there yet.
    pub new: Image,
}

/// The cells that edits touch. Policies are told by their numbers.
#[derive(Default)]
struct Dirty {
    /// What directions of policies open to everyone, and their flags.
    entries: BTreeSet<(u32, Direction)>,
    /// Regions of their prefixes.
    regions: BTreeSet<(u32, Direction, Family, Prefix)>,
    /// What they grant to the addresses of a group or list.
    peers: BTreeSet<(u32, Direction, Kind, u32)>,
    addresses: BTreeSet<Addr>,
    /// Regions of the prefixes of lists.
    lists: BTreeSet<(Family, Prefix)>,
}

/// An edit changes the shape of many cells, or finds no room: everything is to be compiled.
#[derive(Debug)]
pub struct NeedsFullCompile;

impl From<TooMuch> for NeedsFullCompile {
    fn from(_: TooMuch) -> Self {
        Self
    }
}

impl From<CompileError> for NeedsFullCompile {
    fn from(_: CompileError) -> Self {
        Self
    }
}

impl Live {
    /// Compiles a policy beside the image in force, and keeps what an edit needs.
    pub fn begin(
        policy: &Policy,
        attached: &[AttachedInterface],
        previous: Option<&Image>,
        settings: &Settings,
    ) -> Result<Self, CompileError> {
        let nothing = Image::default();
        let previous = previous.unwrap_or(&nothing);
        Self::compile(policy, attached, previous, settings, true)
    }

    /// Computes every cell.
    pub(super) fn compile(
        policy: &Policy,
        attached: &[AttachedInterface],
        previous: &Image,
        settings: &Settings,
        keeps_edges: bool,
    ) -> Result<Self, CompileError> {
        let limits = &settings.limits;
        let mut image = Image::default();
        let protected = interfaces::protected(policy, attached)?;
        let Numbered {
            domains,
            vpcs,
            slots,
            shared,
        } = domains(&protected, previous, limits, &mut image)?;
        let policy_of = |protected: &Protected<'_>| {
            let mut domains = domains.iter();
            let domain = domains.find(|domain| domain.name == *protected.vpc_name);
            let policy = domain.and_then(|domain| {
                let groups = domain.group_numbers(&protected.interface.groups);
                Some((domain.number, domain.policies.get(&groups)?.id))
            });
            // Policy 0 drops everything.
            policy.unwrap_or_default()
        };
        image.interfaces = interfaces::install(&protected, policy_of, previous, settings)?;
        image.interface_places = interfaces::place(&mut image.interfaces, previous)?;
        let mut sets = Entries::new("SETS", "sets", limits.sets);
        interfaces::guest_addresses(&protected, &image.interfaces, &mut sets);

        let mut live = Self {
            settings: *settings,
            space: Space::new(previous, limits, image.ids.rules.len()),
            image,
            vpcs: Vec::new(),
            policy_tables: BTreeMap::new(),
            list_tables: BTreeMap::new(),
            identities: IdentityNumbers::new(previous),
            members: Numbers::new(0, previous.members.values().map(|member| member.index)),
            grants: Numbers::new(0, previous.grants.values().map(|grant| grant.index)),
            slots,
            shared,
            edits: 0,
            change: Change::default(),
            is_settled: false,
        };
        let mut members = Entries::new("MEMBERS", "members", limits.members);
        let mut grants = Entries::new("GRANTS", "grants", limits.grants);
        for (domain, vpc) in domains.into_iter().zip(vpcs) {
            add_services(&domain, vpc, &mut sets);
            let subject = Subject::Vpc(domain.name.clone());
            live.space.begin(&subject);
            members.begin(subject);
            let mut of_vpc = LiveVpc {
                lists: Lists::of(&domain, vpc),
                members: Members::of(&domain, vpc, &protected),
                domain,
            };
            live.add_lists(&mut of_vpc, keeps_edges)?;
            live.add_members(&mut of_vpc, previous, &mut members);
            live.add_policies(&of_vpc, previous, &mut grants, keeps_edges)?;
            live.vpcs.push(of_vpc);
        }
        live.space.check()?;
        live.image.sets = sets.finish(&previous.sets)?;
        live.image.members = members.finish(&previous.members)?;
        live.image.grants = grants.finish(&previous.grants)?;
        Ok(live)
    }

    fn add_lists(&mut self, vpc: &mut LiveVpc, keeps_edges: bool) -> Result<(), CompileError> {
        for family in Family::ALL {
            let edges = vpc.lists.edges(&vpc.domain, family, &mut self.identities)?;
            let laid = self.space.ranges.lay(family, &edges);
            let Some(index) = list_table(&vpc.domain, family) else {
                continue;
            };
            if laid.table != RangeTable::default() {
                self.image.list_ranges.insert(index, laid.table);
            }
            if keeps_edges {
                self.list_tables.insert(index, laid);
            }
        }
        Ok(())
    }

    fn add_members(
        &mut self,
        vpc: &mut LiveVpc,
        previous: &Image,
        entries: &mut Entries<MemberKey, Member>,
    ) {
        let number = vpc.domain.number;
        let (members, identities) = (&mut self.members, &mut self.identities);
        vpc.members
            .all(&vpc.domain, identities, |address, identity| {
                let key = MemberKey {
                    vpc: number,
                    address,
                };
                let known = previous.members.get(&key).map(|member| member.index);
                let index = known.unwrap_or_else(|| members.fresh());
                entries.add(key, Member { index, identity });
            });
    }

    fn add_policies(
        &mut self,
        vpc: &LiveVpc,
        previous: &Image,
        entries: &mut Entries<GrantKey, Grant>,
        keeps_edges: bool,
    ) -> Result<(), CompileError> {
        for (groups, attached) in &vpc.domain.policies {
            let subject = &attached.subject;
            self.space.begin(subject);
            entries.begin(subject.clone());
            let mut entry = GroupSetEntry::default();
            for (direction, place) in Direction::ALL.into_iter().zip(&mut entry.directions) {
                let course = Course {
                    domain: &vpc.domain,
                    groups,
                    policy: attached.id,
                    direction,
                };
                let too_much = |too_much: TooMuch| too_much.of(subject);
                *place = course.entry(&mut self.space).map_err(too_much)?;
                for family in Family::ALL {
                    let edges = course.edges(family, &mut self.space).map_err(too_much)?;
                    let laid = self.space.ranges.lay(family, &edges);
                    let index = Scope::policy(course.number(), family).0;
                    if laid.table != RangeTable::default() {
                        self.image.policy_ranges.insert(index, laid.table);
                        if keeps_edges {
                            self.policy_tables.insert(index, laid);
                        }
                    }
                }
                for (kind, sets) in [
                    (Kind::PrefixLists, &vpc.lists.sets),
                    (Kind::Groups, &vpc.members.sets),
                ] {
                    let by_peer = course.by_peer(kind);
                    for (identity, set) in sets.holding_any(by_peer.keys().copied()) {
                        let table = grant(set, &by_peer, &mut self.space).map_err(too_much)?;
                        let key = grant_key(course, *identity);
                        let known = previous.grants.get(&key).map(|grant| grant.index);
                        let index = known.unwrap_or_else(|| self.grants.fresh());
                        entries.add(key, Grant { index, table });
                    }
                }
            }
            self.image.policies.insert(attached.id, entry);
        }
        Ok(())
    }

    /// Whether everything that was changed is in force.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Everything that is to be in force.
    pub fn image(&mut self) -> Image {
        let mut image = self.image.clone();
        self.put_slices(&mut image, Which::Used);
        image.ids.identities = self.identities.given().clone();
        image
    }

    /// The same as far as packets between these addresses meet it, without names.
    pub fn image_around(&mut self, addresses: &[IpAddr]) -> Image {
        let vpcs = self.vpcs.iter().map(|vpc| vpc.domain.number);
        let keys = vpcs.flat_map(|vpc| {
            addresses.iter().map(move |address| MemberKey {
                vpc,
                address: Addr::from(*address),
            })
        });
        let members = keys.filter_map(|key| Some((key, *self.image.members.get(&key)?)));
        let image = &self.image;
        let mut around = Image {
            interfaces: image.interfaces.clone(),
            interface_places: image.interface_places,
            policies: image.policies.clone(),
            policy_ranges: image.policy_ranges.clone(),
            list_ranges: image.list_ranges.clone(),
            sets: image.sets.clone(),
            members: members.collect(),
            grants: image.grants.clone(),
            ..Image::default()
        };
        self.put_slices(&mut around, Which::Used);
        around
    }

    /// The same, where nothing is edited any more.
    pub(super) fn into_image(mut self) -> Image {
        let mut image = std::mem::take(&mut self.image);
        self.put_slices(&mut image, Which::Used);
        image.ids.identities = self.identities.given().clone();
        image
    }

    /// The entries that are to be in force, without the arrays behind them.
    pub fn entries(&self) -> &Image {
        &self.image
    }

    /// By what names the numbers were given.
    pub fn ids(&mut self) -> &Ids {
        let given = self.identities.given();
        // None is given back.
        if self.image.ids.identities.len() != given.len() {
            self.image.ids.identities.clone_from(given);
        }
        &self.image.ids
    }

    fn put_slices(&mut self, image: &mut Image, which: Which) {
        image.ports = self.space.ports.slices().arena(which);
        self.space.ranges.put(image, which);
    }

    /// What the last change made is in force. What it has left is used again after the next one.
    pub fn settle(&mut self) {
        self.space.ports.slices().settle();
        self.space.ranges.settle();
        self.change = Change::default();
        self.is_settled = true;
    }

    /// Computes the cells that edits touch. What it returns is to be installed before [`Self::settle`] is
    /// called. Where it fails, some of them are computed and some are not: nothing here is of use any
    /// more, and everything is to be compiled beside what the maps hold.
    pub fn edit(&mut self, edits: &Edits) -> Result<Change, NeedsFullCompile> {
        self.edits += 1;
        if !std::mem::take(&mut self.is_settled) || self.edits > MOST_EDITS {
            return Err(NeedsFullCompile);
        }
        let mut vpcs = self.vpcs.iter();
        let Some(at) = vpcs.position(|vpc| vpc.domain.name == edits.vpc) else {
            // Nothing is attached there.
            return Ok(Change::default());
        };
        let mut vpc = self.vpcs.remove(at);
        let dirty = vpc.touch(edits)?;
        self.number(&mut vpc, edits)?;
        self.compute(&mut vpc, dirty)?;
        self.space.check()?;
        self.vpcs.insert(at, vpc);
        let mut change = self.change.clone();
        self.put_slices(&mut change.new, Which::New);
        Ok(change)
    }

    /// Gives rules of attached groups that come their counters, and sorts all in and out.
    fn number(&mut self, vpc: &mut LiveVpc, edits: &Edits) -> Result<(), NeedsFullCompile> {
        for (group, rule, comes) in edits.rules() {
            let Some(group) = vpc.compiled_group(group) else {
                continue;
            };
            let (image, change) = (&mut self.image, &mut self.change);
            let known = image.ids.rules.get(&rule.id).copied();
            let slot = match (known, comes) {
                (Some(slot), true) => {
                    *self.shared.entry(rule.id).or_insert(1) += 1;
                    slot
                }
                (None, true) => {
                    let slot = self
                        .slots
                        .next_within()
                        .map(RuleSlot)
                        .ok_or(NeedsFullCompile)?;
                    set(image, change, |it| &mut it.ids.rules, rule.id, Some(slot));
                    self.image.ids.last_rule = self.slots.last();
                    slot
                }
                (Some(slot), false) => {
                    match self.shared.get_mut(&rule.id) {
                        Some(uses) if *uses > 1 => *uses -= 1,
                        _ => set(image, change, |it| &mut it.ids.rules, rule.id, None),
                    }
                    slot
                }
                (None, false) => return Err(NeedsFullCompile),
            };
            let more = if comes { 1 } else { -1 };
            vpc.domain.count_peer(&rule.permission.peer, more);
            let peer = vpc.domain.peer_number(&rule.permission.peer);
            if let Some(rules) = vpc.domain.compiled.get_mut(&group) {
                rules.edit(peer, rule, slot, comes);
            }
        }
        Ok(())
    }

    fn compute(&mut self, vpc: &mut LiveVpc, dirty: Dirty) -> Result<(), NeedsFullCompile> {
        let known = (vpc.lists.sets.len(), vpc.members.sets.len());
        self.compute_lists(vpc, &dirty)?;
        self.compute_members(vpc, &dirty)?;
        let mut grants: BTreeSet<(u32, Direction, Kind, Identity)> = BTreeSet::new();
        for (policy, direction, kind, peer) in &dirty.peers {
            for (identity, _) in vpc.sets(*kind).holding_any([*peer].into_iter()) {
                grants.insert((*policy, *direction, *kind, *identity));
            }
        }
        // What comes into being is granted what rules allow it.
        let new_lists = vpc.lists.sets.since(known.0).iter();
        let new_lists = new_lists.map(|(identity, _)| (Kind::PrefixLists, *identity));
        let new_groups = vpc.members.sets.since(known.1).iter();
        let new_groups = new_groups.map(|(identity, _)| (Kind::Groups, *identity));
        for (kind, identity) in new_lists.chain(new_groups) {
            for policy in vpc.domain.policies.values() {
                for direction in Direction::ALL {
                    grants.insert((policy.id, direction, kind, identity));
                }
            }
        }
        let Self {
            space,
            image,
            change,
            policy_tables,
            ..
        } = self;
        for (policy, direction) in dirty.entries {
            let course = vpc.course(policy, direction)?;
            let entry = course.entry(space)?;
            let mut changed = image
                .policies
                .get(&policy)
                .copied()
                .ok_or(NeedsFullCompile)?;
            changed.directions[direction.number() as usize] = entry;
            set(image, change, |it| &mut it.policies, policy, Some(changed));
        }
        for (policy, direction, family, region) in dirty.regions {
            let course = vpc.course(policy, direction)?;
            let part = course.edges_within(family, region, space)?;
            let index = Scope::policy(course.number(), family).0;
            let laid = policy_tables.entry(index).or_default();
            space.ranges.change(laid, family, region.span(), &part);
            let table = Some(laid.table).filter(|table| *table != RangeTable::default());
            set(image, change, |it| &mut it.policy_ranges, index, table);
        }
        for (policy, direction, kind, identity) in grants {
            let course = vpc.course(policy, direction)?;
            self.compute_grant(course, kind, identity, vpc)?;
        }
        Ok(())
    }

    fn compute_grant(
        &mut self,
        course: Course<'_>,
        kind: Kind,
        identity: Identity,
        vpc: &LiveVpc,
    ) -> Result<(), NeedsFullCompile> {
        let set_of = vpc.sets(kind).set(identity).ok_or(NeedsFullCompile)?;
        let by_peer = course.by_peers(kind, set_of);
        let key = grant_key(course, identity);
        let known = self.image.grants.get(&key).map(|grant| grant.index);
        let granted = match by_peer.is_empty() {
            true => None,
            false => Some(Grant {
                table: grant(set_of, &by_peer, &mut self.space)?,
                index: known.unwrap_or_else(|| self.grants.fresh()),
            }),
        };
        let highest = self.settings.limits.grants;
        if granted.is_some_and(|granted| granted.index >= highest) {
            return Err(NeedsFullCompile);
        }
        let (image, change) = (&mut self.image, &mut self.change);
        set(image, change, |it| &mut it.grants, key, granted);
        Ok(())
    }

    fn compute_lists(&mut self, vpc: &mut LiveVpc, dirty: &Dirty) -> Result<(), NeedsFullCompile> {
        for (family, region) in &dirty.lists {
            let LiveVpc { domain, lists, .. } = vpc;
            let part = lists.edges_within(domain, *family, *region, &mut self.identities)?;
            let index = list_table(domain, *family).ok_or(NeedsFullCompile)?;
            let laid = self.list_tables.entry(index).or_default();
            self.space
                .ranges
                .change(laid, *family, region.span(), &part);
            let table = Some(laid.table).filter(|table| *table != RangeTable::default());
            let (image, change) = (&mut self.image, &mut self.change);
            set(image, change, |it| &mut it.list_ranges, index, table);
        }
        Ok(())
    }

    fn compute_members(
        &mut self,
        vpc: &mut LiveVpc,
        dirty: &Dirty,
    ) -> Result<(), NeedsFullCompile> {
        for address in &dirty.addresses {
            let LiveVpc {
                domain, members, ..
            } = vpc;
            let key = MemberKey {
                vpc: domain.number,
                address: *address,
            };
            let identity = members.one(domain, *address, &mut self.identities);
            let known = self.image.members.get(&key).map(|member| member.index);
            let member = identity.map(|identity| Member {
                index: known.unwrap_or_else(|| self.members.fresh()),
                identity,
            });
            let highest = self.settings.limits.members;
            if member.is_some_and(|member| member.index >= highest) {
                return Err(NeedsFullCompile);
            }
            let (image, change) = (&mut self.image, &mut self.change);
            set(image, change, |it| &mut it.members, key, member);
        }
        Ok(())
    }
}

impl LiveVpc {
    fn sets(&self, kind: Kind) -> &super::identities::Sets {
        match kind {
            Kind::PrefixLists => &self.lists.sets,
            Kind::Groups => &self.members.sets,
        }
    }

    /// The number of a group that attached interfaces are in.
    fn compiled_group(&self, name: &GroupName) -> Option<u32> {
        let number = self.domain.groups.number(name)?;
        self.domain.compiled.contains_key(&number).then_some(number)
    }

    fn course(&self, policy: u32, direction: Direction) -> Result<Course<'_>, NeedsFullCompile> {
        let mut policies = self.domain.policies.iter();
        let found = policies.find(|(_, attached)| attached.id == policy);
        let (groups, _) = found.ok_or(NeedsFullCompile)?;
        Ok(Course {
            domain: &self.domain,
            groups,
            policy,
            direction,
        })
    }

    /// The cells that edits touch; members and prefixes are sorted in and out. Nothing is changed where
    /// the edits give many cells another shape.
    fn touch(&mut self, edits: &Edits) -> Result<Dirty, NeedsFullCompile> {
        let mut dirty = Dirty::default();
        let mut named: BTreeMap<(Kind, u32), i64> = BTreeMap::new();
        for (group, rule, comes) in edits.rules() {
            let number = self.domain.groups.number(group).ok_or(NeedsFullCompile)?;
            if !self.domain.compiled.contains_key(&number) {
                continue;
            }
            let peer = &rule.permission.peer;
            let named_peer = match peer {
                Peer::Prefix(_) => None,
                Peer::PrefixList(_) => Some(Kind::PrefixLists),
                Peer::Group(_) => Some(Kind::Groups),
            };
            let named_peer = match named_peer {
                Some(kind) => Some((kind, self.domain.peer_number(peer).ok_or(NeedsFullCompile)?)),
                None => None,
            };
            if let Some(peer) = named_peer {
                *named.entry(peer).or_default() += if comes { 1 } else { -1 };
            }
            let direction = rule.permission.direction;
            for policy in self.domain.policies_with(number) {
                dirty.entries.insert((policy, direction));
                match (peer, named_peer) {
                    (Peer::Prefix(prefix), _) if prefix.prefix_len() > 0 => {
                        let family = family_of(prefix);
                        let region = region_of(*prefix);
                        dirty.regions.insert((policy, direction, family, region));
                    }
                    (_, Some((kind, peer))) => {
                        dirty.peers.insert((policy, direction, kind, peer));
                    }
                    _ => {}
                }
            }
        }
        // Who is in a group or list is only told while a rule names it.
        for ((kind, peer), more) in named {
            let before = match kind {
                Kind::PrefixLists => self.domain.lists.peers(peer),
                Kind::Groups => self.domain.groups.peers(peer),
            };
            if (before == 0) != (i64::from(before) + more <= 0) {
                return Err(NeedsFullCompile);
            }
        }
        let mut members = Vec::new();
        for (group, address, comes) in edits.members() {
            let number = self.domain.groups.number(group).ok_or(NeedsFullCompile)?;
            if self.domain.groups.is_peer(number) {
                dirty.addresses.insert(Addr::from(address));
                members.push((number, address, comes));
            }
        }
        let mut prefixes = Vec::new();
        for (list, prefix, comes) in edits.prefixes() {
            let number = self.domain.lists.number(list).ok_or(NeedsFullCompile)?;
            // Who is everyone is looked up elsewhere.
            if prefix.prefix_len() == 0 {
                return Err(NeedsFullCompile);
            }
            if self.domain.lists.is_peer(number) {
                dirty.lists.insert((family_of(&prefix), region_of(prefix)));
                prefixes.push((number, prefix, comes));
            }
        }
        for (number, address, comes) in members {
            self.members.edit(number, address, comes);
        }
        for (number, prefix, comes) in prefixes {
            self.lists.edit(number, prefix, comes);
        }
        Ok(dirty)
    }
}

/// What a prefix changes. Tables of IPv6 are changed by first halves of addresses.
fn region_of(prefix: IpNet) -> Prefix {
    match family_of(&prefix) {
        Family::V4 => Prefix::from(prefix),
        Family::V6 => Prefix::from(prefix).within(64),
    }
}

fn list_table(domain: &Domain, family: Family) -> Option<u32> {
    Scope::prefix_lists(domain.number, family).list_table()
}

fn grant_key(course: Course<'_>, identity: Identity) -> GrantKey {
    GrantKey {
        direction_policy: course.number(),
        identity,
    }
}

/// Writes the link-local services of a VPC.
fn add_services(domain: &Domain, vpc: &Vpc, sets: &mut Entries<ScopedPrefix, Identity>) {
    sets.begin(Subject::Vpc(domain.name.clone()));
    for service in &vpc.link_local_services {
        let scope = Scope::services(domain.number, Addr::from(*service).family());
        let whole = Prefix::from(*service);
        sets.add(
            ScopedPrefix::new(scope, whole.address(), whole.bits()),
            PRESENT,
        );
    }
}

/// Changes an entry of a map, and notes what it was and is.
fn set<K: Ord + Copy, V: Copy>(
    image: &mut Image,
    Change { old, new }: &mut Change,
    map: impl Fn(&mut Image) -> &mut BTreeMap<K, V>,
    key: K,
    value: Option<V>,
) {
    let put = |image: &mut Image, value: Option<V>| match value {
        Some(value) => map(image).insert(key, value),
        None => map(image).remove(&key),
    };
    let was = put(image, value);
    // What is changed twice was what it was before the first time.
    let is_first = !map(old).contains_key(&key) && !map(new).contains_key(&key);
    if is_first {
        put(old, was);
    }
    put(new, value);
}
