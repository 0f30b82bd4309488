//! What indexes find is what looking through the whole policy finds.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sg_common::addr::Family;
use sg_common::packet::Direction;

use super::SqliteStore;
use super::part::Asked;
use crate::compile::amend::{Edits, Rules};
use crate::compile::tests::agreement::{LISTS, World, peer, permission, prefix, vpc_name, world};
use crate::compile::tests::amendments::{OfVpc, step};
use crate::policy::change::{Change, Edit};
use crate::policy::diff::diff;
use crate::policy::model::{Peer, Rule, Vpc};
use crate::policy::names::{GroupName, PrefixListName};
use crate::store::{Revision, Store as _};

/// A store that holds a world.
fn stored(world: &World) -> (tempfile::TempDir, SqliteStore, Revision) {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    let (revision, empty) = store.snapshot().unwrap();
    let changes = diff(&empty, &world.policy);
    let revision = store.commit(revision, &changes).unwrap();
    (folder, store, revision)
}

fn sorted(mut rules: Vec<(GroupName, Rule)>) -> Vec<(GroupName, Rule)> {
    rules.sort_by(|(a, x), (b, y)| (a, x.id).cmp(&(b, y.id)));
    rules
}

/// Without the rules for everyone, which need not be found by a region.
fn narrow(rules: Vec<(GroupName, Rule)>) -> Vec<(GroupName, Rule)> {
    let is_narrow = |rule: &Rule| matches!(rule.permission.peer, Peer::Prefix(prefix) if prefix.prefix_len() > 0);
    let rules = sorted(rules).into_iter();
    rules.filter(|(_, rule)| is_narrow(rule)).collect()
}

/// The same edits, of a part of the VPC.
fn within(part: &Vpc, edits: &Edits) -> Change {
    let edit = if let Some((group, rule)) = edits.rules_added.first() {
        Edit::AddRule(group.clone(), rule.clone())
    } else if let Some((group, rule)) = edits.rules_removed.first() {
        Edit::RemoveRule(group.clone(), rule.id)
    } else if let Some((list, prefix)) = edits.prefixes_added.first() {
        let mut prefixes = part.prefix_lists[list].clone();
        prefixes.insert(*prefix);
        Edit::PutPrefixList(list.clone(), prefixes)
    } else if let Some((list, prefix)) = edits.prefixes_removed.first() {
        let mut prefixes = part.prefix_lists[list].clone();
        prefixes.remove(prefix);
        Edit::PutPrefixList(list.clone(), prefixes)
    } else {
        let moved = edits.members_added.iter().chain(&edits.members_removed);
        let (group, address) = moved.clone().next().unwrap();
        let mut members = part.groups[group].members.clone();
        match edits.members_added.is_empty() {
            true => members.remove(address),
            false => members.insert(*address),
        };
        Edit::SetMembers(group.clone(), members)
    };
    Change {
        vpc: vpc_name(),
        edit,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rules_and_prefixes_are_found_by_their_indexes(
        world in world(),
        regions in proptest::collection::vec(prefix(), 8),
        wanted in permission(),
        address in peer(),
    ) {
        let (_folder, mut store, revision) = stored(&world);
        let vpc = vpc_name();
        let mut draft = store.draft(revision, &[], &world.policy).unwrap();
        let mut naive = OfVpc(&world.policy.vpcs[&vpc]);
        let groups: BTreeSet<GroupName> = world.policy.vpcs[&vpc].groups.keys().cloned().collect();
        for direction in Direction::ALL {
            for region in &regions {
                prop_assert_eq!(
                    narrow(draft.with_prefix_over(&vpc, &groups, direction, *region).unwrap()),
                    narrow(naive.with_prefix_over(&vpc, &groups, direction, *region).unwrap())
                );
                prop_assert_eq!(
                    sorted(draft.with_prefix(&vpc, &groups, direction, *region).unwrap()),
                    sorted(naive.with_prefix(&vpc, &groups, direction, *region).unwrap())
                );
            }
            let peers = BTreeSet::from([wanted.peer.clone(), Peer::Group("g1".parse().unwrap())]);
            let peers: Vec<Peer> = peers.into_iter().collect();
            prop_assert_eq!(
                sorted(draft.naming(&vpc, &groups, direction, &peers).unwrap()),
                sorted(naive.naming(&vpc, &groups, direction, &peers).unwrap())
            );
            prop_assert_eq!(
                draft.names_any_like(&vpc, &groups, direction, &wanted.peer).unwrap(),
                naive.names_any_like(&vpc, &groups, direction, &wanted.peer).unwrap()
            );
        }
        if !matches!(wanted.peer, Peer::Prefix(_)) {
            let mut found = draft.groups_naming(&vpc, &wanted.peer).unwrap();
            found.sort();
            prop_assert_eq!(found, naive.groups_naming(&vpc, &wanted.peer).unwrap());
        }
        for list in 0..LISTS {
            let list: PrefixListName = format!("l{list}").parse().unwrap();
            for region in &regions {
                let mut found = draft.of_list_over(&vpc, &list, *region).unwrap();
                found.sort();
                prop_assert_eq!(found, naive.of_list_over(&vpc, &list, *region).unwrap());
            }
        }
        for family in Family::ALL {
            let mut found = draft.lists_of_everyone(&vpc, family).unwrap();
            found.sort();
            prop_assert_eq!(found, naive.lists_of_everyone(&vpc, family).unwrap());
        }
        prop_assert_eq!(
            draft.is_guests_address(&vpc, address).unwrap(),
            naive.is_guests_address(&vpc, address).unwrap()
        );
    }

    #[test]
    fn a_change_of_a_part_is_stored_as_one_of_the_whole_is(
        world in world(),
        steps in proptest::collection::vec(step(), 6),
    ) {
        let (_folder, mut store, mut revision) = stored(&world);
        let vpc = vpc_name();
        let mut policy = store.snapshot().unwrap().1;
        for (number, step) in steps.iter().enumerate() {
            let Some((edit, edits)) = step.edits(&policy.vpcs[&vpc], number) else {
                continue;
            };
            let change = Change { vpc: vpc.clone(), edit };
            policy = policy.apply(std::slice::from_ref(&change)).unwrap();
            // The part knows what it was asked for, and is changed alike.
            let rules: Vec<_> = edits.rules_added.iter().chain(&edits.rules_removed).collect();
            let members: Vec<_> = edits.members_added.iter().chain(&edits.members_removed).collect();
            let prefixes: Vec<_> =
                edits.prefixes_added.iter().chain(&edits.prefixes_removed).collect();
            let permissions: Vec<_> =
                rules.iter().map(|(_, rule)| rule.permission.clone()).collect();
            let addresses: Vec<_> = members.iter().map(|(_, address)| *address).collect();
            let nets: Vec<_> = prefixes.iter().map(|(_, prefix)| *prefix).collect();
            let asked = match (rules.first(), members.first(), prefixes.first()) {
                (Some((group, _)), ..) => {
                    Asked::Rules { group, permissions: &permissions, ids: &[] }
                }
                (_, Some((group, _)), _) => Asked::Members { group, addresses: &addresses },
                (_, _, Some((list, _))) => Asked::Prefixes { list, prefixes: &nets },
                _ => continue,
            };
            let (_, part) = store.part(asked).unwrap();
            let change = within(&part.vpcs[&vpc], &edits);
            prop_assert!(part.clone().apply(std::slice::from_ref(&change)).is_ok());
            let draft = store.draft(revision, std::slice::from_ref(&change), &part).unwrap();
            let stamp;
            (revision, stamp) = draft.commit().unwrap();
            prop_assert_eq!(store.stamp().unwrap(), stamp);
            prop_assert_eq!(&store.snapshot().unwrap().1, &policy);
        }
    }
}
