//! An amended image says what compiling the whole policy says, and takes nothing from a packet that
//! still follows the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use sg_common::addr::Family;
use sg_common::packet::Direction;
use sg_common::ranges::{IntervalV4, IntervalV6, RangeSlot, RangeTable};
use sg_common::tables::{
    GrantKey, Identity, MemberKey, Policy as Entry, PortEntry, PortTable, RuleSlot,
};

use super::super::amend::{
    self, Amendment, Answer, ArenaKind, Edits, Ground, InstalledPolicy, NextNumbers, RangeTableKey,
    Room, Rules, Seen, Segments, Whole,
};
use super::super::image::{FreePlaces, Grant, IdentitySet, Image, Member, MembersOf, Slice};
use super::super::meaning::Meaning;
use super::agreement::{
    GROUPS, LISTS, World, first_packet, peer, permission, prefix, vpc_name, world,
};
use super::numbers::assert_apart;
use crate::policy::change::{Change, Edit};
use crate::policy::model::{Peer, Permission, Rule, Side, Vpc};
use crate::policy::names::{GroupName, PrefixListName, RuleId, VpcName};

/// An image, asked piece by piece.
pub(crate) struct OfImage<'a> {
    pub(crate) image: &'a Image,
    pub(crate) world: &'a World,
}

/// The same as [`super::super::amend::uses`], by taking each table apart.
fn uses(image: &Image) -> BTreeMap<(ArenaKind, Slice), u32> {
    let mut uses = BTreeMap::new();
    let tables = image.policy_ranges.iter().chain(&image.list_ranges);
    for (index, table) in tables {
        let family = Family::ALL[(index & 1) as usize];
        let mut seen = Seen::default();
        let (_, footprint) = seen.take_apart(&mut &image.ranges, table, family).unwrap();
        for slice in footprint {
            *uses.entry(slice).or_default() += 1;
        }
    }
    assert_eq!(uses, amend::uses(image));
    uses
}

fn free_places(image: &Image, arena: ArenaKind) -> FreePlaces {
    FreePlaces::around(arena.slices(image))
}

impl Segments for OfImage<'_> {
    fn range_slots(&mut self, slice: Slice) -> Answer<Vec<RangeSlot>> {
        (&self.image.ranges).range_slots(slice)
    }

    fn intervals_v4(&mut self, index: u32) -> Answer<(Slice, Vec<IntervalV4>)> {
        (&self.image.ranges).intervals_v4(index)
    }

    fn intervals_v6(&mut self, index: u32) -> Answer<(Slice, Vec<IntervalV6>)> {
        (&self.image.ranges).intervals_v6(index)
    }

    fn nested(&mut self, index: u32) -> Answer<RangeTable> {
        (&self.image.ranges).nested(index)
    }
}

impl Ground for OfImage<'_> {
    fn room(&self) -> Room {
        let much = 1 << 20;
        Room {
            ports: much,
            port_tables: much,
            range_slots: much,
            intervals_v4: much,
            intervals_v6: much,
            nested_ranges: much,
            rules: much,
            members: much,
            grants: much,
        }
    }

    fn vpc(&mut self, name: &VpcName) -> Answer<Option<u32>> {
        Ok(self.image.ids.vpcs.get(name).copied())
    }

    fn policies_with(&mut self, vpc: &VpcName, group: &GroupName) -> Answer<Vec<InstalledPolicy>> {
        let policies = self.image.ids.policies.iter();
        let policies = policies.filter(|(set, _)| set.vpc == *vpc && set.groups.contains(group));
        Ok(policies
            .map(|(set, id)| InstalledPolicy {
                id: *id,
                groups: set.groups.clone(),
            })
            .collect())
    }

    fn policy(&mut self, id: u32) -> Answer<Entry> {
        Ok(self.image.policies[&id])
    }

    fn range_table(&mut self, key: RangeTableKey) -> Answer<RangeTable> {
        let found = match key {
            RangeTableKey::Policy(index) => self.image.policy_ranges.get(&index),
            RangeTableKey::List(index) => self.image.list_ranges.get(&index),
        };
        Ok(found.copied().unwrap_or_default())
    }

    fn uses(&mut self, arena: ArenaKind, slice: Slice) -> Answer<u32> {
        Ok(uses(self.image).get(&(arena, slice)).copied().unwrap_or(0))
    }

    fn port_table(&mut self, index: u32) -> Answer<PortTable> {
        Ok(*self.image.port_tables.entry(index).unwrap())
    }

    fn ports(&mut self, PortTable { offset, length }: PortTable) -> Answer<Vec<PortEntry>> {
        let entries = self.image.ports.entries(Slice { offset, length });
        assert_eq!(entries.len(), length as usize);
        Ok(entries.to_vec())
    }

    fn grant(&mut self, key: GrantKey) -> Answer<Option<Grant>> {
        Ok(self.image.grants.get(&key).copied())
    }

    fn member(&mut self, key: MemberKey) -> Answer<Option<Member>> {
        Ok(self.image.members.get(&key).copied())
    }

    fn identity(&mut self, set: &IdentitySet) -> Answer<Option<Identity>> {
        Ok(self.image.ids.identities.get(set).copied())
    }

    fn identity_set(&mut self, identity: Identity) -> Answer<Option<IdentitySet>> {
        let mut identities = self.image.ids.identities.iter();
        let found = identities.find(|(_, number)| **number == identity);
        Ok(found.map(|(set, _)| set.clone()))
    }

    fn identities_with(
        &mut self,
        vpc: &VpcName,
        peer: &Peer,
    ) -> Answer<Vec<(Identity, IdentitySet)>> {
        let holds = |set: &IdentitySet| match (&set.members_of, peer) {
            (MembersOf::Groups(groups), Peer::Group(group)) => groups.contains(group),
            (MembersOf::PrefixLists(lists), Peer::PrefixList(list)) => lists.contains(list),
            _ => false,
        };
        let identities = self.image.ids.identities.iter();
        let found = identities.filter(|(set, _)| set.vpc == *vpc && holds(set));
        Ok(found.map(|(set, number)| (*number, set.clone())).collect())
    }

    fn is_own_address(&mut self, vpc: &VpcName, address: IpAddr) -> Answer<bool> {
        let read = self.world.read.iter();
        let interfaces = &self.world.policy.vpcs[vpc].interfaces;
        let mut of_hosts = read.filter(|(name, _)| interfaces[*name].side == Side::Host);
        Ok(of_hosts.any(|(_, addresses)| addresses.contains(&address)))
    }

    fn slots_of(
        &mut self,
        _vpc: &VpcName,
        _group: &GroupName,
        rules: &[RuleId],
    ) -> Answer<Vec<Option<RuleSlot>>> {
        let slots = &self.image.ids.rules;
        Ok(rules.iter().map(|rule| slots.get(rule).copied()).collect())
    }

    fn slots_taken(&mut self) -> Answer<(Vec<u32>, u32)> {
        let slots = self.image.ids.rules.values().map(|slot| slot.0);
        Ok((slots.collect(), self.image.ids.last_rule))
    }

    fn next_numbers(&mut self) -> Answer<NextNumbers> {
        Ok(NextNumbers::behind(self.image))
    }

    fn free_places(&mut self, arena: ArenaKind) -> Answer<FreePlaces> {
        Ok(free_places(self.image, arena))
    }
}

/// A VPC, asked piece by piece.
pub(crate) struct OfVpc<'a>(pub(crate) &'a Vpc);

impl OfVpc<'_> {
    fn rules(
        &self,
        groups: &BTreeSet<GroupName>,
        wanted: impl Fn(&Permission) -> bool,
    ) -> Answer<Vec<(GroupName, Rule)>> {
        let groups = groups
            .iter()
            .filter_map(|name| self.0.groups.get_key_value(name));
        let rules =
            groups.flat_map(|(name, group)| group.rules.iter().map(move |rule| (name, rule)));
        let rules = rules.filter(|(_, rule)| wanted(&rule.permission));
        let mut rules: Vec<_> = rules
            .map(|(name, rule)| (name.clone(), rule.clone()))
            .collect();
        // Whoever asks must not rely on an order.
        rules.reverse();
        Ok(rules)
    }
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

impl Rules for OfVpc<'_> {
    fn with_prefix_over(
        &mut self,
        _vpc: &VpcName,
        groups: &BTreeSet<GroupName>,
        direction: Direction,
        region: IpNet,
    ) -> Answer<Vec<(GroupName, Rule)>> {
        self.rules(groups, |permission| {
            permission.direction == direction
                && matches!(permission.peer, Peer::Prefix(prefix) if overlap(prefix, region))
        })
    }

    fn with_prefix(
        &mut self,
        _vpc: &VpcName,
        groups: &BTreeSet<GroupName>,
        direction: Direction,
        wanted: IpNet,
    ) -> Answer<Vec<(GroupName, Rule)>> {
        self.rules(groups, |permission| {
            permission.direction == direction && permission.peer == Peer::Prefix(wanted)
        })
    }

    fn naming(
        &mut self,
        _vpc: &VpcName,
        groups: &BTreeSet<GroupName>,
        direction: Direction,
        peers: &[Peer],
    ) -> Answer<Vec<(GroupName, Rule)>> {
        self.rules(groups, |permission| {
            permission.direction == direction && peers.contains(&permission.peer)
        })
    }

    fn names_any_like(
        &mut self,
        _vpc: &VpcName,
        groups: &BTreeSet<GroupName>,
        direction: Direction,
        peer: &Peer,
    ) -> Answer<bool> {
        let kind = std::mem::discriminant(peer);
        let found = self.rules(groups, |permission| {
            permission.direction == direction && std::mem::discriminant(&permission.peer) == kind
        })?;
        Ok(!found.is_empty())
    }

    fn groups_naming(&mut self, _vpc: &VpcName, peer: &Peer) -> Answer<Vec<GroupName>> {
        let groups = self.0.groups.iter().filter(|(_, group)| {
            let mut rules = group.rules.iter();
            rules.any(|rule| rule.permission.peer == *peer)
        });
        Ok(groups.map(|(name, _)| name.clone()).collect())
    }

    fn of_list_over(
        &mut self,
        _vpc: &VpcName,
        list: &PrefixListName,
        region: IpNet,
    ) -> Answer<Vec<IpNet>> {
        let prefixes = self.0.prefix_lists[list].iter().copied();
        Ok(prefixes.filter(|prefix| overlap(*prefix, region)).collect())
    }

    fn lists_of_everyone(&mut self, _vpc: &VpcName, family: Family) -> Answer<Vec<PrefixListName>> {
        let everyone: IpNet = ["0.0.0.0/0", "::/0"][family as usize].parse().unwrap();
        let lists = self.0.prefix_lists.iter();
        let lists = lists.filter(|(_, prefixes)| prefixes.contains(&everyone));
        Ok(lists.map(|(name, _)| name.clone()).collect())
    }

    fn is_guests_address(&mut self, _vpc: &VpcName, address: IpAddr) -> Answer<bool> {
        let mut interfaces = self.0.interfaces.values();
        Ok(interfaces.any(|interface| interface.addresses.contains(&address)))
    }
}

/// Something that a person may do to a policy.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Add(usize, Permission),
    Remove(usize, Index),
    Join(usize, IpAddr),
    Leave(usize, Index),
    List(usize, IpNet),
    Unlist(usize, Index),
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let stranger = select(&["10.0.0.77", "192.0.2.77", "2001:db8::77", "2001:db8::78"][..]);
    let stranger = stranger.prop_map(|text| text.parse().unwrap());
    let member = prop_oneof![3 => stranger, 1 => peer()];
    prop_oneof![
        6 => (0..GROUPS, permission()).prop_map(|(group, rule)| Step::Add(group, rule)),
        4 => (0..GROUPS, any::<Index>()).prop_map(|(group, rule)| Step::Remove(group, rule)),
        3 => (0..GROUPS, member).prop_map(|(group, address)| Step::Join(group, address)),
        2 => (0..GROUPS, any::<Index>()).prop_map(|(group, which)| Step::Leave(group, which)),
        3 => (0..LISTS, prefix()).prop_map(|(list, prefix)| Step::List(list, prefix)),
        2 => (0..LISTS, any::<Index>()).prop_map(|(list, which)| Step::Unlist(list, which)),
    ]
}

fn pick<'a, T>(which: &Index, of: impl ExactSizeIterator<Item = &'a T>) -> Option<&'a T> {
    let mut of = of;
    match of.len() {
        0 => None,
        length => of.nth(which.index(length)),
    }
}

impl Step {
    /// What the step does to a VPC, as an edit of the model and as one to amend by; none if nothing.
    pub(crate) fn edits(&self, vpc: &Vpc, number: usize) -> Option<(Edit, Edits)> {
        let mut edits = Edits::of(vpc_name());
        let group = |group: &usize| -> GroupName { format!("g{group}").parse().unwrap() };
        let list = |list: &usize| -> PrefixListName { format!("l{list}").parse().unwrap() };
        let edit = match self {
            Self::Add(at, permission) => {
                let name = group(at);
                let mut rules = vpc.groups[&name].rules.iter();
                if rules.any(|rule| rule.permission == *permission) {
                    return None;
                }
                let rule = Rule {
                    id: format!("sgr-{:017x}", 10_000 + number).parse().unwrap(),
                    permission: permission.clone(),
                    description: String::new(),
                };
                edits.rules_added.push((name.clone(), rule.clone()));
                Edit::AddRule(name, rule)
            }
            Self::Remove(at, which) => {
                let name = group(at);
                let rule = pick(which, vpc.groups[&name].rules.iter())?;
                edits.rules_removed.push((name.clone(), rule.clone()));
                Edit::RemoveRule(name, rule.id)
            }
            Self::Join(at, address) => {
                let name = group(at);
                let mut members = vpc.groups[&name].members.clone();
                if !members.insert(*address) {
                    return None;
                }
                edits.members_added.push((name.clone(), *address));
                Edit::SetMembers(name, members)
            }
            Self::Leave(at, which) => {
                let name = group(at);
                let mut members = vpc.groups[&name].members.clone();
                let address = *pick(which, members.iter())?;
                members.remove(&address);
                edits.members_removed.push((name.clone(), address));
                Edit::SetMembers(name, members)
            }
            Self::List(at, prefix) => {
                let name = list(at);
                let mut prefixes = vpc.prefix_lists[&name].clone();
                if !prefixes.insert(*prefix) {
                    return None;
                }
                edits.prefixes_added.push((name.clone(), *prefix));
                Edit::PutPrefixList(name, prefixes)
            }
            Self::Unlist(at, which) => {
                let name = list(at);
                let mut prefixes = vpc.prefix_lists[&name].clone();
                let prefix = *pick(which, prefixes.iter())?;
                prefixes.remove(&prefix);
                edits.prefixes_removed.push((name.clone(), prefix));
                Edit::PutPrefixList(name, prefixes)
            }
        };
        Some((edit, edits))
    }
}

/// What an amendment says of before must be what there was: writers rely on it.
fn assert_part_of(part: &Image, whole: &Image) {
    fn within<K: Debug + Ord, V: Debug + PartialEq>(part: &BTreeMap<K, V>, whole: &BTreeMap<K, V>) {
        for (key, value) in part {
            assert_eq!(whole.get(key), Some(value), "{key:?}");
        }
    }
    within(&part.policies, &whole.policies);
    within(&part.policy_ranges, &whole.policy_ranges);
    within(&part.list_ranges, &whole.list_ranges);
    within(&part.members, &whole.members);
    within(&part.grants, &whole.grants);
    within(&part.ids.rules, &whole.ids.rules);
    for (slice, _) in part.ranges.intervals_v4.iter() {
        assert!(whole.ranges.intervals_v4.slices().contains(&slice));
    }
    assert_eq!(part.interfaces, BTreeMap::new());
    assert_eq!(part.sets, BTreeMap::new());
}

/// The books that an amendment leads must be those that the image it makes would begin.
fn assert_kept(amendment: &Amendment, before: &Image, after: &Image) {
    let mut kept = uses(before);
    for (kind, slice, count) in &amendment.uses {
        match count {
            0 => kept.remove(&(*kind, *slice)),
            count => kept.insert((*kind, *slice), *count),
        };
    }
    assert_eq!(kept, uses(after));
    for (arena, places) in &amendment.free_places {
        assert_eq!(places, &free_places(after, *arena), "{arena:?}");
    }
}

impl World {
    /// The image after one more edit, amended where that is possible.
    fn amend(&mut self, image: &Image, (edit, edits): (Edit, Edits)) -> Result<Image, Whole> {
        let change = Change {
            vpc: vpc_name(),
            edit,
        };
        let before = self.clone();
        self.policy = self.policy.clone().apply(&[change]).unwrap();
        let mut ground = OfImage {
            image,
            world: &before,
        };
        let mut rules = OfVpc(&self.policy.vpcs[&vpc_name()]);
        let amendment = amend::amend(&edits, &mut ground, &mut rules)?;
        assert_part_of(&amendment.old, image);
        let mut amended = image.clone();
        amended.amend(&[(amendment.old.clone(), amendment.new.clone())]);
        assert_kept(&amendment, image, &amended);
        assert_apart(image, &amended);
        let whole = self.compile(Some(&amended));
        assert_eq!(Meaning::of(&amended).unwrap(), Meaning::of(&whole).unwrap());
        Ok(amended)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_amended_image_says_what_the_whole_policy_compiles_to(
        world in world(),
        steps in vec(step(), 12),
        packets in vec(first_packet(), 12),
    ) {
        let mut world = world;
        let mut image = world.compile(None);
        for (number, step) in steps.iter().enumerate() {
            let Some(edits) = step.edits(&world.policy.vpcs[&vpc_name()], number) else {
                continue;
            };
            image = match world.amend(&image, edits) {
                Ok(amended) => amended,
                Err(_) => world.compile(Some(&image)),
            };
            for packet in &packets {
                world.check(&image, *packet);
            }
        }
    }
}

/// An image, and what two edits change of it.
pub(crate) fn pairs() -> (Image, Vec<(Image, Image)>) {
    let text = "
groups:
  g: {ingress: [{protocol: tcp, ports: 22, from: [10.0.0.0/8, 2001:db8::/32]}]}
interfaces:
  eth0: {groups: [g]}
";
    let policy = super::policy(text, &crate::policy::model::Policy::default());
    let vpc = VpcName::default();
    let image = super::compiled(&policy, None);
    let mut world = World {
        policy,
        read: BTreeMap::new(),
    };
    let mut pairs = Vec::new();
    let mut latest = image.clone();
    for (number, prefix) in ["10.1.0.0/16", "2001:db8:1::/48"].into_iter().enumerate() {
        let group: GroupName = "g".parse().unwrap();
        let rule = Rule {
            id: format!("sgr-{number:017x}").parse().unwrap(),
            permission: Permission {
                direction: Direction::Ingress,
                traffic: crate::policy::model::Traffic::All,
                peer: Peer::Prefix(prefix.parse().unwrap()),
            },
            description: String::new(),
        };
        let mut edits = Edits::of(vpc.clone());
        edits.rules_added.push((group.clone(), rule.clone()));
        let change = Change {
            vpc: vpc.clone(),
            edit: Edit::AddRule(group, rule),
        };
        world.policy = world.policy.apply(&[change]).unwrap();
        let mut ground = OfImage {
            image: &latest,
            world: &world,
        };
        let mut rules = OfVpc(&world.policy.vpcs[&vpc]);
        let Amendment { old, new, .. } = amend::amend(&edits, &mut ground, &mut rules).unwrap();
        pairs.push((old, new));
        latest.amend(&pairs[number..]);
    }
    (image, pairs)
}

#[test]
fn neighbours_that_say_the_same_are_taken_apart_as_two() {
    let text = "
prefix_lists: {gateways: ['2001:db8:0:1::1/128', '2001:db8:0:2::1/128']}
groups:
  g: {ingress: [{protocol: tcp, ports: 22, from: 'pl:gateways'}]}
interfaces:
  eth0: {groups: [g]}
";
    let policy = super::policy(text, &crate::policy::model::Policy::default());
    let image = super::compiled(&policy, None);
    let meaning = Meaning::of(&image).unwrap();
    let said: Vec<_> = meaning.list_ranges.values().flatten().collect();
    assert_eq!(said.len(), 4, "each begins and ends: {said:x?}");
}
