//! What leads from one policy to another.

use hashbrown::{HashMap, HashSet};

use super::change::{Change, Edit};
use super::model::{Group, Policy, Rule, Vpc};
use super::names::{GroupName, RuleId, VpcName};

/// The fewest edits that make `old` into `new`.
///
/// What others refer to is made before them and goes after them, and what is admitted comes before
/// what is cut, so that each edit finds what it speaks of. Names that differ by case alone are the
/// same, so that a new spelling is no change.
pub fn diff(old: &Policy, new: &Policy) -> Vec<Change> {
    let mut before = Vec::new();
    let mut between = Vec::new();
    let mut after = Vec::new();
    for (name, old_vpc) in &old.vpcs {
        let kept = new
            .vpcs
            .get(name)
            .filter(|new_vpc| is_same(old_vpc, new_vpc));
        // An interface is in one VPC at a time, so it leaves the old one first.
        let gone = old_vpc
            .interfaces
            .keys()
            .filter(|interface| kept.is_none_or(|vpc| !vpc.interfaces.contains_key(*interface)));
        let gone = gone.map(|interface| Edit::RemoveInterface(interface.clone()));
        before.extend(changes(name, gone));
        if kept.is_none() {
            before.push(Change {
                vpc: name.clone(),
                edit: Edit::DeleteVpc,
            });
        }
    }
    for (name, new_vpc) in &new.vpcs {
        let steps = match old
            .vpcs
            .get(name)
            .filter(|old_vpc| is_same(old_vpc, new_vpc))
        {
            Some(old_vpc) => Steps::between(old_vpc, new_vpc),
            None => {
                let Some(group) = new_vpc.groups.get(&GroupName::default_group()) else {
                    continue;
                };
                let create = Edit::CreateVpc {
                    default_group: group.id,
                };
                between.push(Change {
                    vpc: name.clone(),
                    edit: create,
                });
                Steps::between(&Vpc::bare(group.id), new_vpc)
            }
        };
        between.extend(changes(name, steps.additions));
        after.extend(changes(name, steps.removals));
    }
    before.extend(between);
    before.extend(after);
    before
}

/// The group `default` lives as long as its VPC.
fn is_same(old: &Vpc, new: &Vpc) -> bool {
    let id = |vpc: &Vpc| {
        vpc.groups
            .get(&GroupName::default_group())
            .map(|group| group.id)
    };
    id(old) == id(new)
}

fn changes(vpc: &VpcName, edits: impl IntoIterator<Item = Edit>) -> impl Iterator<Item = Change> {
    edits.into_iter().map(|edit| Change {
        vpc: vpc.clone(),
        edit,
    })
}

#[derive(Default)]
struct Steps {
    additions: Vec<Edit>,
    removals: Vec<Edit>,
}

impl Steps {
    fn between(old: &Vpc, new: &Vpc) -> Self {
        let mut steps = Self::default();
        if old.link_local_services != new.link_local_services {
            steps
                .additions
                .push(Edit::SetLinkLocalServices(new.link_local_services.clone()));
        }
        if old.on_rule_removal != new.on_rule_removal {
            steps
                .additions
                .push(Edit::SetOnRuleRemoval(new.on_rule_removal));
        }
        for (name, prefixes) in &new.prefix_lists {
            if old.prefix_lists.get(name) != Some(prefixes) {
                steps
                    .additions
                    .push(Edit::PutPrefixList(name.clone(), prefixes.clone()));
            }
        }
        steps.create_groups(old, new);
        for (name, group) in &new.groups {
            match old.groups.get(name).filter(|old| old.id == group.id) {
                Some(old) => steps.change_group(name, old, group),
                None => {
                    let bare = Group::bare(group.id, group.description.clone());
                    steps.change_group(name, &bare, group);
                }
            }
        }
        for (name, interface) in &new.interfaces {
            if old.interfaces.get(name) != Some(interface) {
                steps
                    .additions
                    .push(Edit::PutInterface(name.clone(), interface.clone()));
            }
        }
        let gone = old
            .groups
            .keys()
            .filter(|name| !new.groups.contains_key(*name));
        steps
            .removals
            .extend(gone.map(|name| Edit::DeleteGroup(name.clone())));
        let gone = old
            .prefix_lists
            .keys()
            .filter(|name| !new.prefix_lists.contains_key(*name));
        steps
            .removals
            .extend(gone.map(|name| Edit::RemovePrefixList(name.clone())));
        steps
    }

    fn create_groups(&mut self, old: &Vpc, new: &Vpc) {
        for (name, group) in &new.groups {
            let replaced = match old.groups.get(name) {
                Some(old) if old.id == group.id => continue,
                replaced => replaced.is_some(),
            };
            if replaced {
                self.additions.push(Edit::DeleteGroup(name.clone()));
            }
            let description = group.description.clone();
            self.additions.push(Edit::CreateGroup {
                name: name.clone(),
                id: group.id,
                description,
            });
        }
    }

    fn change_group(&mut self, name: &GroupName, old: &Group, new: &Group) {
        if old.description != new.description {
            self.additions
                .push(Edit::DescribeGroup(name.clone(), new.description.clone()));
        }
        if old.members != new.members {
            self.additions
                .push(Edit::SetMembers(name.clone(), new.members.clone()));
        }
        if old.rules != new.rules {
            self.change_rules(name, &old.rules, &new.rules);
        }
    }

    fn change_rules(&mut self, name: &GroupName, old: &[Rule], new: &[Rule]) {
        let (old, new) = without_equal(old, new);
        let (old_by_id, new_by_id) = (by_id(&old), by_id(&new));
        let is_in = |rules: &HashMap<RuleId, &Rule>, rule: &Rule| {
            rules
                .get(&rule.id)
                .is_some_and(|other| other.permission == rule.permission)
        };
        let (kept, added): (Vec<_>, Vec<_>) =
            new.into_iter().partition(|rule| is_in(&old_by_id, rule));
        let permissions: HashSet<_> = added.iter().map(|rule| &rule.permission).collect();
        for rule in old.iter().filter(|rule| !is_in(&new_by_id, rule)) {
            let edit = Edit::RemoveRule(name.clone(), rule.id);
            // Neither an id nor a permission is ever there twice.
            if new_by_id.contains_key(&rule.id) || permissions.contains(&rule.permission) {
                self.additions.push(edit);
            } else {
                self.removals.push(edit);
            }
        }
        for rule in kept {
            if old_by_id
                .get(&rule.id)
                .is_some_and(|old| old.description != rule.description)
            {
                let text = rule.description.clone();
                self.additions
                    .push(Edit::DescribeRule(name.clone(), rule.id, text));
            }
        }
        let added = added
            .into_iter()
            .map(|rule| Edit::AddRule(name.clone(), rule.clone()));
        self.additions.extend(added);
    }
}

/// The rules that only one side has. Both are sorted, so that equal ones meet.
fn without_equal<'a>(old: &'a [Rule], new: &'a [Rule]) -> (Vec<&'a Rule>, Vec<&'a Rule>) {
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    while let (Some(&was), Some(&is)) = (old.peek(), new.peek()) {
        if was == is {
            old.next();
            new.next();
        } else if (&was.permission, was.id) <= (&is.permission, is.id) {
            gone.extend(old.next());
        } else {
            come.extend(new.next());
        }
    }
    gone.extend(old);
    come.extend(new);
    (gone, come)
}

fn by_id<'a>(rules: &[&'a Rule]) -> HashMap<RuleId, &'a Rule> {
    rules.iter().map(|rule| (rule.id, *rule)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::arbitrary;
    use super::super::file::PolicyFile;
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn the_difference_leads_from_one_to_the_other((old, new) in arbitrary::two_policies()) {
            let changes = diff(&old, &new);
            let after = old.apply(&changes);
            prop_assert_eq!(after, Ok(new), "{:#?}", changes);
        }

        #[test]
        fn a_policy_does_not_differ_from_itself(policy in arbitrary::policy()) {
            prop_assert_eq!(diff(&policy, &policy), []);
        }

        /// A change can be left out only if the policy is then another one or unsound.
        #[test]
        fn no_change_is_idle((old, new) in arbitrary::two_policies()) {
            let changes = diff(&old, &new);
            for left_out in 0..changes.len() {
                let mut fewer = changes.clone();
                fewer.remove(left_out);
                let after = old.clone().apply(&fewer);
                prop_assert_ne!(after.as_ref(), Ok(&new), "{:?}", changes[left_out]);
            }
        }
    }

    /// What leads from one file to another, in short.
    fn check(old: &str, new: &str, wanted: &[&str]) {
        let old = PolicyFile::parse("old", old)
            .unwrap()
            .to_policy(&Policy::default())
            .unwrap();
        let new = PolicyFile::parse("new", new)
            .unwrap()
            .to_policy(&old)
            .unwrap();
        let changes = diff(&old, &new);
        let mut before = old.clone();
        for change in &changes {
            before = before.apply(std::slice::from_ref(change)).unwrap();
        }
        let short = |edit: &Edit| match edit {
            Edit::PutPrefixList(name, _) => format!("put pl:{name}"),
            Edit::RemovePrefixList(name) => format!("remove pl:{name}"),
            Edit::CreateGroup { name, .. } => format!("create sg:{name}"),
            Edit::DeleteGroup(name) => format!("delete sg:{name}"),
            Edit::AddRule(name, rule) => format!("add {} to {name}", rule.permission),
            Edit::RemoveRule(name, _) => format!("remove from {name}"),
            Edit::DescribeRule(name, _, text) => format!("describe in {name}: {text}"),
            Edit::PutInterface(name, _) => format!("put {name}"),
            Edit::RemoveInterface(name) => format!("remove {name}"),
            other => format!("{other:?}"),
        };
        let short: Vec<_> = changes.iter().map(|change| short(&change.edit)).collect();
        assert_eq!(short, wanted);
    }

    #[test]
    fn what_is_named_comes_first_and_goes_last() {
        check(
            "{prefix_lists: {old: [10.0.0.0/8]},
              groups: {a: {egress: [], ingress: [{protocol: tcp, ports: 1, from: pl:old}]}, gone: {egress: []}},
              interfaces: {eth0: {groups: [a, gone]}}}",
            "{prefix_lists: {new: [10.0.0.0/8]},
              groups: {a: {egress: [], ingress: [{protocol: tcp, ports: 1, from: [pl:new, sg:b]}]}, b: {egress: []}},
              interfaces: {eth0: {groups: [a, b]}}}",
            &[
                "put pl:new",
                "create sg:b",
                "add tcp 1 from pl:new to a",
                "add tcp 1 from sg:b to a",
                "put eth0",
                "remove from a",
                "delete sg:gone",
                "remove pl:old",
            ],
        );
    }

    #[test]
    fn a_new_description_is_not_a_new_rule() {
        check(
            "groups: {a: {ingress: [{service: ssh, from: 10.0.0.0/8}]}}",
            "groups: {a: {ingress: [{service: ssh, from: 10.0.0.0/8, description: x}]}}",
            &["describe in a: x"],
        );
    }

    #[test]
    fn a_name_in_another_case_is_no_change() {
        check("groups: {web: {}}", "groups: {WEB: {}}", &[]);
    }
}
