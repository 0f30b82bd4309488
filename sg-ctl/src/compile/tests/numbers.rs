//! What stays keeps its numbers, and what is new takes none that a packet may still follow.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;

use sg_common::ids::RuleSlot;

use super::super::image::{Arena, Image, Slice};
use super::super::{CompileError, Limits, Settings, compile};
use super::{attached, compiled, policy, settings};
use crate::policy::model::Policy;

const WEB: &str = "
prefix_lists: {office: [203.0.113.0/24]}
groups:
  web: {ingress: [{protocol: tcp, ports: 80, from: 10.0.0.0/8}, {protocol: tcp, ports: 22, from: pl:office}]}
  app: {ingress: [{protocol: tcp, ports: 8080, from: sg:web}], members: [192.0.2.20]}
interfaces:
  eth0: {groups: web}
  eth1: {groups: [web, app]}
  tap0: {groups: app, side: guest, addresses: [10.9.0.5]}
";

/// Panics when installing `next` beside `previous` would change what packets of `previous` follow.
pub(super) fn assert_apart(previous: &Image, next: &Image) {
    fn fresh<K: Debug + Ord, V: Copy + Debug + Ord>(
        what: &str,
        previous: impl Iterator<Item = (K, V)>,
        next: impl Iterator<Item = (K, V)>,
    ) {
        let previous: BTreeMap<K, V> = previous.collect();
        let taken: BTreeSet<V> = previous.values().copied().collect();
        let mut given = BTreeSet::new();
        for (key, value) in next {
            match previous.get(&key) {
                Some(before) => assert_eq!(*before, value, "{what}: {key:?} keeps its number"),
                None => assert!(!taken.contains(&value), "{what}: {key:?} takes {value:?}"),
            }
            assert!(given.insert(value), "{what}: {value:?} is given twice");
        }
    }
    let (p, n) = (&previous.ids, &next.ids);
    fresh(
        "rules",
        p.rules.iter().map(|(k, v)| (k, v.0)),
        n.rules.iter().map(|(k, v)| (k, v.0)),
    );
    fresh(
        "policies",
        p.policies.iter().map(|(k, v)| (k, *v)),
        n.policies.iter().map(|(k, v)| (k, *v)),
    );
    fresh(
        "vpcs",
        p.vpcs.iter().map(|(k, v)| (k, *v)),
        n.vpcs.iter().map(|(k, v)| (k, *v)),
    );
    fresh(
        "identities",
        p.identities.iter().map(|(k, v)| (k, *v)),
        n.identities.iter().map(|(k, v)| (k, *v)),
    );
    fresh(
        "members",
        previous.members.iter().map(|(k, v)| (k, v.index)),
        next.members.iter().map(|(k, v)| (k, v.index)),
    );
    fresh(
        "grants",
        previous.grants.iter().map(|(k, v)| (k, v.index)),
        next.grants.iter().map(|(k, v)| (k, v.index)),
    );
    if previous.interface_places == next.interface_places {
        let places = |image: &Image| -> Vec<_> {
            let interfaces = image.interfaces.values();
            interfaces
                .map(|i| ((i.netns, i.ifindex), i.place))
                .collect()
        };
        let (previous, next) = (places(previous), places(next));
        fresh("places", previous.into_iter(), next.into_iter());
    }
    fresh(
        "interfaces",
        previous
            .interfaces
            .iter()
            .map(|(slot, i)| ((i.netns, i.ifindex), *slot)),
        next.interfaces
            .iter()
            .map(|(slot, i)| ((i.netns, i.ifindex), *slot)),
    );
    assert_slices_apart(&previous.ports, &next.ports);
    assert_slices_apart(&previous.port_tables, &next.port_tables);
    let (p, n) = (&previous.ranges, &next.ranges);
    assert_slices_apart(&p.slots, &n.slots);
    assert_slices_apart(&p.intervals_v4, &n.intervals_v4);
    assert_slices_apart(&p.intervals_v6, &n.intervals_v6);
    assert_slices_apart(&p.nested, &n.nested);
}

fn assert_slices_apart<E>(previous: &Arena<E>, next: &Arena<E>)
where
    E: Copy + Default + Debug + PartialEq,
{
    let mut owners: HashMap<u32, Slice> = HashMap::new();
    for slice in previous.slices() {
        owners.extend((slice.offset..slice.offset + slice.length).map(|index| (index, *slice)));
    }
    let mut laid = BTreeSet::new();
    for slice in next.slices() {
        for index in slice.offset..slice.offset + slice.length {
            assert!(laid.insert(index), "two slices have the place {index}");
            match owners.get(&index) {
                Some(owner) => {
                    assert_eq!(owner, slice, "a new slice lies over one that is in force");
                    assert_eq!(previous.entry(index), next.entry(index));
                }
                None => assert!(next.entry(index).is_some()),
            }
        }
    }
}

#[test]
fn equal_inputs_give_equal_images_in_any_order() {
    let policy = policy(WEB, &Policy::default());
    let mut attached = attached(&policy);
    let image = compile(&policy, &attached, None, &settings()).unwrap();
    attached.reverse();
    assert_eq!(
        compile(&policy, &attached, None, &settings()).unwrap(),
        image
    );
}

#[test]
fn an_unchanged_policy_compiles_to_the_image_in_force() {
    let policy = policy(WEB, &Policy::default());
    let image = compiled(&policy, None);
    assert_eq!(compiled(&policy, Some(&image)), image);
}

#[test]
fn new_things_take_no_number_of_the_image_in_force() {
    let before = policy(WEB, &Policy::default());
    let changed = WEB
        .replace("8080", "9090")
        .replace("10.0.0.0/8", "10.0.0.0/9");
    let after = policy(&changed, &before);
    let first = compiled(&before, None);
    let second = compiled(&after, Some(&first));
    assert_apart(&first, &second);
    let slots = |image: &Image| {
        image
            .ids
            .rules
            .values()
            .copied()
            .collect::<BTreeSet<RuleSlot>>()
    };
    let new: Vec<_> = slots(&second)
        .difference(&slots(&first))
        .map(|slot| slot.0)
        .collect();
    assert_eq!(new.len(), 2);

    let third = compiled(&before, Some(&second));
    assert_apart(&second, &third);
    assert!(
        third.ports.reach() <= second.ports.reach(),
        "freed places are used again"
    );
}

#[test]
fn one_prefix_more_in_a_list_changes_its_table_and_no_group() {
    let mut text = "prefix_lists: {many: [".to_owned();
    text.extend((0..500).map(|n| format!("10.{}.{}.0/24, ", n / 250, n % 250)));
    text.push_str("NEW]}\ngroups:\n");
    text.extend(
        (0..20).map(|n| {
            format!("  g{n}: {{ingress: [{{protocol: tcp, ports: {n}, from: pl:many}}]}}\n")
        }),
    );
    text.push_str("interfaces:\n");
    text.extend((0..20).map(|n| format!("  eth{n}: {{groups: g{n}}}\n")));
    let before = policy(&text.replace("NEW", "192.0.2.0/24"), &Policy::default());
    let after = policy(
        &text.replace("NEW", "192.0.2.0/24, 198.51.100.0/24"),
        &before,
    );
    let first = compiled(&before, None);
    let mut second = compiled(&after, Some(&first));
    assert_apart(&first, &second);
    assert_eq!(second.list_ranges.len(), 1);
    assert_ne!(second.list_ranges, first.list_ranges);
    // Nothing but the table, and where it lies.
    second.list_ranges.clone_from(&first.list_ranges);
    second.ranges.clone_from(&first.ranges);
    assert_eq!(second, first);
}

#[test]
fn a_vpc_that_comes_again_has_another_zone() {
    let policy = policy(WEB, &Policy::default());
    let zone = |image: &Image| {
        let eth0 = image
            .interfaces
            .values()
            .find(|i| i.name.as_str() == "eth0")
            .unwrap();
        eth0.interface.zone
    };
    let first = compiled(&policy, None);
    let gone = compile(&policy, &[], Some(&first), &settings()).unwrap();
    let again = compiled(&policy, Some(&gone));
    assert_ne!(zone(&first), zone(&again));
}

#[test]
fn guests_and_hosts_never_share_a_zone() {
    let image = compiled(&policy(WEB, &Policy::default()), None);
    let zones = image
        .interfaces
        .values()
        .map(|i| (i.name.as_str(), i.interface.zone));
    let zones: Vec<_> = zones.collect();
    assert_eq!(zones, [("eth0", 2), ("eth1", 2), ("tap0", 9)]);
}

#[test]
fn each_limit_names_who_crossed_it() {
    let policy = policy(WEB, &Policy::default());
    let refused = |limits: Limits| {
        let settings = Settings {
            limits,
            ..settings()
        };
        match compile(&policy, &attached(&policy), None, &settings) {
            Err(CompileError::Full {
                map,
                limit,
                allowed,
                needs,
                subject,
            }) => {
                format!("{map} {limit} {allowed} {needs} {subject}")
            }
            other => panic!("{other:?}"),
        }
    };
    let all = Limits::default();
    assert_eq!(
        refused(Limits { rules: 4, ..all }),
        format!(
            "RULES rules 4 7 VPC \"default\", group \"{}\"",
            first_beyond(&policy, 4)
        )
    );
    assert_eq!(
        refused(Limits { policies: 2, ..all }),
        "POLICIES policies 2 3 VPC \"default\", group \"web\""
    );
    assert_eq!(
        refused(Limits {
            intervals: 2,
            ..all
        }),
        "RANGE_SLOTS intervals 2 9 VPC \"default\""
    );
    assert_eq!(
        refused(Limits { sets: 2, ..all }),
        "SETS sets 2 10 VPC \"default\""
    );
    assert_eq!(
        refused(Limits { members: 1, ..all }),
        "MEMBERS members 1 2 VPC \"default\""
    );
    assert_eq!(
        refused(Limits {
            interfaces: 2,
            ..all
        }),
        "INTERFACES interfaces 2 3 VPC \"default\", interface \"tap0\""
    );
    assert_eq!(
        refused(Limits { grants: 1, ..all }),
        "GRANTS grants 1 4 VPC \"default\", interface \"eth1\""
    );
    assert_eq!(
        refused(Limits {
            port_entries: 4,
            ..all
        }),
        "PORTS port_entries 4 10 VPC \"default\", interface \"eth1\""
    );
}

/// Slots follow the ids of rules, which are random: the group of the first rule whose slot is
/// beyond the limit.
fn first_beyond(policy: &Policy, limit: usize) -> String {
    let groups = &policy.vpcs.values().next().unwrap().groups;
    let rules: Vec<_> = groups
        .iter()
        .filter(|(name, _)| !name.is_default())
        .flat_map(|(name, group)| group.rules.iter().map(move |rule| (rule.id, name)))
        .collect();
    let mut sorted: Vec<_> = rules.iter().map(|(id, _)| *id).collect();
    sorted.sort_unstable();
    let beyond: BTreeSet<_> = sorted.split_off(limit).into_iter().collect();
    let (_, name) = rules.iter().find(|(id, _)| beyond.contains(id)).unwrap();
    name.to_string()
}

#[test]
fn tables_of_interfaces_grow_and_each_interface_keeps_its_slot() {
    let text = |interfaces: std::ops::Range<u32>| {
        let names = interfaces.map(|n| format!("  eth{n}: {{groups: g}}\n"));
        format!(
            "groups: {{g: }}\ninterfaces:\n{}",
            names.collect::<String>()
        )
    };
    let first = compiled(&policy(&text(0..3), &Policy::default()), None);
    assert_eq!(first.interfaces.keys().max(), Some(&2));
    assert_eq!(first.interface_places, 64);
    let mut image = first;
    for interfaces in [0..40, 0..200, 20..21, 0..200] {
        let next = compiled(&policy(&text(interfaces), &Policy::default()), Some(&image));
        assert_apart(&image, &next);
        assert!(next.interface_places as usize >= next.interfaces.len() * 2);
        assert!(next.interface_places >= image.interface_places);
        let places: BTreeSet<_> = next.interfaces.values().map(|i| i.place).collect();
        assert_eq!(places.len(), next.interfaces.len());
        image = next;
    }
    assert_eq!(
        image.interfaces.keys().max(),
        Some(&199),
        "the lowest free slots are given"
    );
}
