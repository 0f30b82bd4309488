//! What changes of a policy mean to its tables, where they leave its shape as it is.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::policy::change::{Change, Edit};
use crate::policy::model::{OnRuleRemoval, Policy, Rule};
use crate::policy::names::{GroupName, PrefixListName, VpcName};

/// What changes in one VPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edits {
    /// Which one.
    pub vpc: VpcName,
    /// Rules that come.
    pub rules_added: Vec<(GroupName, Rule)>,
    /// Rules that go.
    pub rules_removed: Vec<(GroupName, Rule)>,
    /// Static members that come.
    pub members_added: Vec<(GroupName, IpAddr)>,
    /// Static members that go.
    pub members_removed: Vec<(GroupName, IpAddr)>,
    /// Prefixes of lists that come.
    pub prefixes_added: Vec<(PrefixListName, IpNet)>,
    /// Prefixes of lists that go.
    pub prefixes_removed: Vec<(PrefixListName, IpNet)>,
}

impl Edits {
    /// None yet.
    pub fn of(vpc: VpcName) -> Self {
        Self {
            vpc,
            rules_added: Vec::new(),
            rules_removed: Vec::new(),
            members_added: Vec::new(),
            members_removed: Vec::new(),
            prefixes_added: Vec::new(),
            prefixes_removed: Vec::new(),
        }
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = (&GroupName, &Rule, bool)> {
        let going = self
            .rules_removed
            .iter()
            .map(|(group, rule)| (group, rule, false));
        let coming = self
            .rules_added
            .iter()
            .map(|(group, rule)| (group, rule, true));
        going.chain(coming)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (&GroupName, IpAddr, bool)> {
        let going = self
            .members_removed
            .iter()
            .map(|(group, it)| (group, *it, false));
        let coming = self
            .members_added
            .iter()
            .map(|(group, it)| (group, *it, true));
        going.chain(coming)
    }

    pub(super) fn prefixes(&self) -> impl Iterator<Item = (&PrefixListName, IpNet, bool)> {
        let going = self
            .prefixes_removed
            .iter()
            .map(|(list, it)| (list, *it, false));
        let coming = self
            .prefixes_added
            .iter()
            .map(|(list, it)| (list, *it, true));
        going.chain(coming)
    }
}

/// Changes of rules, members and prefixes, and those that take them back.
#[derive(Debug)]
pub struct Reversible {
    /// What they mean to the tables.
    pub edits: Edits,
    /// What makes the policy the one before, in order.
    pub inverse: Vec<Change>,
}

impl Reversible {
    /// Finds what changes of this policy mean. None where they are of several VPCs, of anything but
    /// rules, members and prefixes, or of one thing twice; and where flows are judged again by them.
    pub fn of(policy: &Policy, changes: &[Change]) -> Option<Self> {
        let name = &changes.first()?.vpc;
        let vpc = policy.vpcs.get(name)?;
        if vpc.on_rule_removal == OnRuleRemoval::Terminate {
            return None;
        }
        let mut edits = Edits::of(name.clone());
        let mut inverse = Vec::new();
        let (mut rules, mut groups, mut lists) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for Change { vpc: of, edit } in changes {
            let back = match edit {
                _ if of != name => return None,
                Edit::AddRule(group, rule) if rules.insert(rule.id) => {
                    edits.rules_added.push((group.clone(), rule.clone()));
                    Edit::RemoveRule(group.clone(), rule.id)
                }
                Edit::RemoveRule(group, id) if rules.insert(*id) => {
                    let mut known = vpc.groups.get(group)?.rules.iter();
                    let rule = known.find(|rule| rule.id == *id)?;
                    edits.rules_removed.push((group.clone(), rule.clone()));
                    Edit::AddRule(group.clone(), rule.clone())
                }
                Edit::SetMembers(group, members) if groups.insert(group) => {
                    let before = &vpc.groups.get(group)?.members;
                    let come = members.difference(before).copied();
                    edits
                        .members_added
                        .extend(come.map(|it| (group.clone(), it)));
                    let go = before.difference(members).copied();
                    edits
                        .members_removed
                        .extend(go.map(|it| (group.clone(), it)));
                    Edit::SetMembers(group.clone(), before.clone())
                }
                Edit::PutPrefixList(list, prefixes) if lists.insert(list) => {
                    let before = vpc.prefix_lists.get(list)?;
                    let come = prefixes.difference(before).copied();
                    edits
                        .prefixes_added
                        .extend(come.map(|it| (list.clone(), it)));
                    let go = before.difference(prefixes).copied();
                    edits
                        .prefixes_removed
                        .extend(go.map(|it| (list.clone(), it)));
                    Edit::PutPrefixList(list.clone(), before.clone())
                }
                _ => return None,
            };
            inverse.push(Change {
                vpc: name.clone(),
                edit: back,
            });
        }
        inverse.reverse();
        Some(Self { edits, inverse })
    }
}
