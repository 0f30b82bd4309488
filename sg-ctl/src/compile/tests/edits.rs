//! After any edits, the tables are those that the whole policy compiles to, and what an edit tells of
//! its changes is all that is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::image::{Arena, Image};
use super::super::{Arrays, Change, Edits, Live, differing};
use super::agreement::{GROUPS, LISTS, first_packet, peer, permission, prefix, vpc_name, world};
use super::numbers::assert_apart;
use super::settings;
use crate::policy::change::{self, Edit};
use crate::policy::model::{Permission, Policy, Rule, Vpc};
use crate::policy::names::{GroupName, PrefixListName};

/// Something that a person may do to a policy.
#[derive(Clone, Debug)]
enum Step {
    Add(usize, Permission),
    Remove(usize, Index),
    Join(usize, IpAddr),
    Leave(usize, Index),
    List(usize, IpNet),
    Unlist(usize, Index),
}

fn step() -> impl Strategy<Value = Step> {
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
    /// What the step does to a VPC, as an edit of the model and as one of the tables; none if nothing.
    fn edits(&self, vpc: &Vpc, number: usize) -> Option<(Edit, Edits)> {
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

/// What is written to maps.
#[derive(Default)]
struct Maps {
    entries: Image,
    ports: BTreeMap<u32, String>,
    port_tables: BTreeMap<u32, String>,
    slots: BTreeMap<u32, String>,
    intervals_v4: BTreeMap<u32, String>,
    intervals_v6: BTreeMap<u32, String>,
    nested: BTreeMap<u32, String>,
}

/// Replaces entries; what they were must be what there was.
fn replace<K: Debug + Ord + Clone, V: Debug + PartialEq + Clone>(
    entries: &mut BTreeMap<K, V>,
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) {
    for (key, value) in old {
        assert_eq!(entries.remove(key).as_ref(), Some(value), "{key:?}");
    }
    for (key, value) in new {
        assert_eq!(entries.insert(key.clone(), value.clone()), None, "{key:?}");
    }
}

fn write<E: Copy + Debug>(entries: &mut BTreeMap<u32, String>, arena: &Arena<E>) {
    for (slice, content) in arena.iter() {
        entries.extend((slice.offset..).zip(content.iter().map(|entry| format!("{entry:?}"))));
    }
}

fn holds<E: Copy + Debug>(entries: &BTreeMap<u32, String>, arena: &Arena<E>) {
    for (slice, content) in arena.iter() {
        for (index, entry) in (slice.offset..).zip(content) {
            assert_eq!(entries.get(&index), Some(&format!("{entry:?}")), "{index}");
        }
    }
}

impl Maps {
    fn install(&mut self, Change { old, new }: &Change) {
        let entries = &mut self.entries;
        replace(&mut entries.policies, &old.policies, &new.policies);
        replace(
            &mut entries.policy_ranges,
            &old.policy_ranges,
            &new.policy_ranges,
        );
        replace(&mut entries.list_ranges, &old.list_ranges, &new.list_ranges);
        replace(&mut entries.sets, &old.sets, &new.sets);
        replace(&mut entries.members, &old.members, &new.members);
        replace(&mut entries.grants, &old.grants, &new.grants);
        replace(&mut entries.interfaces, &old.interfaces, &new.interfaces);
        replace(&mut entries.ids.rules, &old.ids.rules, &new.ids.rules);
        write(&mut self.ports, &new.ports);
        write(&mut self.port_tables, &new.port_tables);
        write(&mut self.slots, &new.ranges.slots);
        write(&mut self.intervals_v4, &new.ranges.intervals_v4);
        write(&mut self.intervals_v6, &new.ranges.intervals_v6);
        write(&mut self.nested, &new.ranges.nested);
    }

    fn hold(&self, image: &Image) {
        let entries = &self.entries;
        assert_eq!(entries.policies, image.policies);
        assert_eq!(entries.policy_ranges, image.policy_ranges);
        assert_eq!(entries.list_ranges, image.list_ranges);
        assert_eq!(entries.sets, image.sets);
        assert_eq!(entries.members, image.members);
        assert_eq!(entries.grants, image.grants);
        assert_eq!(entries.interfaces, image.interfaces);
        assert_eq!(entries.ids.rules, image.ids.rules);
        holds(&self.ports, &image.ports);
        holds(&self.port_tables, &image.port_tables);
        holds(&self.slots, &image.ranges.slots);
        holds(&self.intervals_v4, &image.ranges.intervals_v4);
        holds(&self.intervals_v6, &image.ranges.intervals_v6);
        holds(&self.nested, &image.ranges.nested);
    }
}

/// What is read of the arrays is what entries lead to, each slice where it lies.
fn assert_read_back(image: &Image) {
    let arrays = Arrays {
        ports: image.ports.whole(),
        port_tables: image.port_tables.whole(),
        slots: image.ranges.slots.whole(),
        intervals_v4: image.ranges.intervals_v4.whole(),
        intervals_v6: image.ranges.intervals_v6.whole(),
        nested: image.ranges.nested.whole(),
    };
    let mut read = Image {
        ports: Arena::default(),
        port_tables: Arena::default(),
        ranges: Default::default(),
        ..image.clone()
    };
    arrays.put_used(&mut read).unwrap();
    // Of tables that a longer prefix hides whole nothing is read.
    let known: BTreeSet<_> = image.ports.slices().iter().collect();
    assert!(
        read.ports
            .slices()
            .iter()
            .all(|slice| known.contains(slice))
    );
    assert_eq!(read.ranges, image.ranges);
    assert_eq!(differing(&read, image), Ok(Vec::new()));
}

/// Where equal contents lie at the same places, tables that say the same are the same. An edit leaves
/// sets that no address is in any more, with what they are granted, and port tables that nothing
/// leads to; compiling leaves them out.
fn assert_compiled(image: &Image, whole: &Image) {
    assert_eq!(image.policies, whole.policies);
    assert_eq!(image.policy_ranges, whole.policy_ranges);
    assert_eq!(image.list_ranges, whole.list_ranges);
    assert_eq!(image.ranges, whole.ranges);
    assert_eq!(image.sets, whole.sets);
    assert_eq!(image.members, whole.members);
    assert_eq!(image.interfaces, whole.interfaces);
    assert_eq!(image.ids.rules, whole.ids.rules);
    let met: BTreeSet<_> = whole.ids.identities.values().collect();
    let granted = image.grants.iter();
    let granted: BTreeMap<_, _> = granted
        .filter(|(key, _)| met.contains(&key.identity))
        .map(|(key, grant)| (*key, *grant))
        .collect();
    assert_eq!(granted, whole.grants);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn edited_tables_are_those_that_the_whole_policy_compiles_to(
        world in world(),
        steps in vec((step(), prop::bool::weighted(0.9)), 14),
        packets in vec(first_packet(), 12),
    ) {
        let mut world = world;
        let mut live = Live::begin(&world.policy, &world.attached(), None, &settings()).unwrap();
        let mut maps = Maps::default();
        let mut before = live.image();
        maps.install(&Change { old: Image::default(), new: before.clone() });
        live.settle();
        for (number, (step, is_installed)) in steps.iter().enumerate() {
            let Some((edit, edits)) = step.edits(&world.policy.vpcs[&vpc_name()], number) else {
                continue;
            };
            let edit = change::Change { vpc: vpc_name(), edit };
            let policy: Policy = world.policy.clone().apply(&[edit]).unwrap();
            if *is_installed {
                world.policy = policy;
            }
            let change = match live.edit(&edits) {
                Ok(change) if *is_installed => change,
                // Everything is compiled beside what the maps hold.
                _ => {
                    live = Live::begin(&world.policy, &world.attached(), Some(&before), &settings())
                        .unwrap();
                    Change { old: before.clone(), new: live.image() }
                }
            };
            maps.install(&change);
            let after = live.image();
            maps.hold(&after);
            assert_apart(&before, &after);
            live.settle();
            assert_compiled(&after, &world.compile(Some(&after)));
            // And they say what the policy compiles to where nothing is in force but numbers.
            let numbers = Image {
                ids: after.ids.clone(),
                interfaces: after.interfaces.clone(),
                ..Image::default()
            };
            assert_eq!(differing(&after, &world.compile(Some(&numbers))), Ok(Vec::new()));
            assert_read_back(&after);
            for packet in &packets {
                world.check(&after, *packet);
            }
            before = after;
        }
    }
}
