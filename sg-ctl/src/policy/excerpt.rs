//! The part of a policy that small changes speak of, so that a few rules among a hundred thousand are
//! checked and made at the cost of the few.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashSet;

use super::change::{Change, Edit, sort};
use super::model::{Group, Permission, Policy, Rule, Vpc};
use super::names::{GroupName, PrefixListName, RuleId, VpcName};

/// So many rules are looked for and sorted in one by one; more are together.
const FEW: usize = 8;

/// What changes of one VPC speak of.
#[derive(Default)]
struct Spoken<'a> {
    lists: BTreeSet<&'a PrefixListName>,
    groups: BTreeMap<&'a GroupName, SpokenGroup<'a>>,
}

#[derive(Default)]
struct SpokenGroup<'a> {
    ids: HashSet<RuleId>,
    permissions: HashSet<&'a Permission>,
}

impl SpokenGroup<'_> {
    /// Where the rules are that are spoken of.
    fn rules_of(&self, group: &Group) -> BTreeSet<usize> {
        let rules = &group.rules;
        let few: Vec<RuleId> = self.ids.iter().copied().take(FEW + 1).collect();
        let has_id = |rule: &Rule| match few.len() > FEW {
            true => self.ids.contains(&rule.id),
            false => few.contains(&rule.id),
        };
        let by_id = rules.iter().enumerate().filter(|(_, rule)| has_id(rule));
        let mut found: BTreeSet<usize> = by_id.map(|(at, _)| at).collect();
        for permission in &self.permissions {
            let first = rules.partition_point(|rule| rule.permission < **permission);
            let same = rules.iter().enumerate().skip(first);
            let same = same.take_while(|(_, rule)| rule.permission == **permission);
            found.extend(same.map(|(at, _)| at));
        }
        found
    }
}

impl Policy {
    /// What is needed of this policy to apply changes: applied to the excerpt they are refused as
    /// they would be here, and what differs then is what would differ here. It has all names, the
    /// rules, members and prefixes that the changes speak of, and no interfaces. None where the
    /// changes are of anything but rules, members and prefixes.
    pub fn excerpt(&self, changes: &[Change]) -> Option<Self> {
        let mut spoken: BTreeMap<&VpcName, Spoken<'_>> = BTreeMap::new();
        for Change { vpc, edit } in changes {
            let spoken = spoken.entry(vpc).or_default();
            match edit {
                Edit::AddRule(group, rule) => {
                    let group = spoken.groups.entry(group).or_default();
                    group.ids.insert(rule.id);
                    group.permissions.insert(&rule.permission);
                }
                Edit::RemoveRule(group, id) => {
                    spoken.groups.entry(group).or_default().ids.insert(*id);
                }
                Edit::SetMembers(group, _) => {
                    spoken.groups.entry(group).or_default();
                }
                Edit::PutPrefixList(list, _) => {
                    spoken.lists.insert(list);
                }
                _ => return None,
            }
        }
        let nothing = Spoken::default();
        let vpcs = self.vpcs.iter().map(|(name, vpc)| {
            let spoken = spoken.get(name).unwrap_or(&nothing);
            (name.clone(), excerpt_of(vpc, spoken))
        });
        Some(Self {
            vpcs: vpcs.collect(),
        })
    }

    /// Makes changes in place that were found sound on an excerpt of this policy. Others than those of
    /// an excerpt are not made.
    pub fn make(&mut self, changes: &[Change]) {
        let mut removed: BTreeMap<(&VpcName, &GroupName), HashSet<RuleId>> = BTreeMap::new();
        let mut added: BTreeMap<(&VpcName, &GroupName), Vec<Rule>> = BTreeMap::new();
        for Change { vpc: name, edit } in changes {
            let Some(vpc) = self.vpcs.get_mut(name) else {
                continue;
            };
            match edit {
                Edit::AddRule(group, rule) => {
                    added.entry((name, group)).or_default().push(rule.clone());
                }
                Edit::RemoveRule(group, id) => {
                    removed.entry((name, group)).or_default().insert(*id);
                }
                Edit::SetMembers(group, members) => {
                    if let Some(group) = vpc.groups.get_mut(group) {
                        group.members.clone_from(members);
                    }
                }
                Edit::PutPrefixList(list, prefixes) => {
                    vpc.prefix_lists.insert(list.clone(), prefixes.clone());
                }
                _ => {}
            }
        }
        for ((vpc, group), ids) in removed {
            if let Some(rules) = self.rules_mut(vpc, group) {
                rules.retain(|rule| !ids.contains(&rule.id));
            }
        }
        for ((vpc, group), come) in added {
            let Some(rules) = self.rules_mut(vpc, group) else {
                continue;
            };
            if come.len() > FEW {
                rules.extend(come);
                sort(rules);
                continue;
            }
            for rule in come {
                let key = (&rule.permission, rule.id);
                let at = rules.partition_point(|known| (&known.permission, known.id) < key);
                rules.insert(at, rule);
            }
        }
    }

    fn rules_mut(&mut self, vpc: &VpcName, group: &GroupName) -> Option<&mut Vec<Rule>> {
        let vpc = self.vpcs.get_mut(vpc)?;
        Some(&mut vpc.groups.get_mut(group)?.rules)
    }
}

fn excerpt_of(vpc: &Vpc, spoken: &Spoken<'_>) -> Vpc {
    let lists = vpc.prefix_lists.iter().map(|(name, prefixes)| {
        let prefixes = match spoken.lists.contains(name) {
            true => prefixes.clone(),
            false => BTreeSet::new(),
        };
        (name.clone(), prefixes)
    });
    let groups = vpc.groups.iter().map(|(name, group)| {
        let Some(spoken) = spoken.groups.get(name) else {
            return (name.clone(), Group::bare(group.id, String::new()));
        };
        let rules = spoken.rules_of(group).into_iter();
        let group = Group {
            id: group.id,
            description: group.description.clone(),
            rules: rules
                .filter_map(|at| group.rules.get(at).cloned())
                .collect(),
            members: group.members.clone(),
        };
        (name.clone(), group)
    });
    Vpc {
        prefix_lists: lists.collect(),
        groups: groups.collect(),
        interfaces: BTreeMap::new(),
        link_local_services: vpc.link_local_services.clone(),
        on_rule_removal: vpc.on_rule_removal,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::arbitrary;
    use super::super::diff::diff;
    use super::*;

    /// The changes among these that an excerpt can be asked about.
    fn small(changes: Vec<Change>) -> Vec<Change> {
        let is_small = |change: &Change| {
            matches!(
                change.edit,
                Edit::AddRule(..)
                    | Edit::RemoveRule(..)
                    | Edit::SetMembers(..)
                    | Edit::PutPrefixList(..)
            )
        };
        changes.into_iter().filter(is_small).collect()
    }

    /// What applying to the whole and applying to the excerpt come to.
    fn check(policy: &Policy, changes: &[Change]) {
        let excerpt = policy.excerpt(changes).unwrap();
        let whole = policy.clone().apply(changes);
        let part = excerpt.clone().apply(changes);
        match (whole, part) {
            (Ok(whole), Ok(part)) => {
                let found = diff(&excerpt, &part);
                assert_eq!(found, diff(policy, &whole));
                if small(found.clone()) != found {
                    return;
                }
                let mut made = policy.clone();
                made.make(&found);
                assert_eq!(made, whole);
            }
            (Err(whole), Err(part)) => assert_eq!(whole.to_string(), part.to_string()),
            (whole, part) => panic!("{changes:?}: {:?}, {:?}", whole.err(), part.err()),
        }
    }

    proptest! {
        #[test]
        fn an_excerpt_answers_for_the_whole(
            (old, new) in arbitrary::two_policies(),
            skipped in any::<prop::sample::Index>(),
        ) {
            let mut changes = small(diff(&old, &new));
            check(&old, &changes);
            // Some of them speak of what is not there.
            if !changes.is_empty() {
                let again = changes[skipped.index(changes.len())].clone();
                changes.push(again);
                check(&old, &changes);
                changes.remove(skipped.index(changes.len()));
                check(&old, &changes);
            }
        }
    }

    #[test]
    fn what_gives_the_policy_another_shape_has_no_excerpt() {
        let change = Change {
            vpc: "default".parse().unwrap(),
            edit: Edit::DeleteVpc,
        };
        assert!(Policy::default().excerpt(&[change]).is_none());
    }
}
