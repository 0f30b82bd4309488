//! The policy as the API looks at it: objects by their ids, and what is noted about them.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use crate::policy::change::{Change, Edit};
use crate::policy::model::{Group, Interface, Policy, Rule, Vpc};
use crate::policy::names::{
    GroupId, GroupName, InterfaceId, InterfaceName, PrefixListId, PrefixListName, RuleId, VpcId,
    VpcName,
};
use crate::store::{Annotated, Annotation, Notes, Revision};

/// One revision of everything.
#[derive(Debug)]
pub(super) struct World {
    pub(super) revision: Revision,
    pub(super) policy: Policy,
    annotated: Annotated,
    groups: BTreeMap<GroupId, (VpcName, GroupName)>,
    rules: BTreeMap<RuleId, GroupId>,
    vpcs: BTreeMap<VpcId, VpcName>,
    prefix_lists: BTreeMap<PrefixListId, Vec<(VpcName, PrefixListName)>>,
    interfaces: BTreeMap<InterfaceId, (VpcName, InterfaceName)>,
}

/// A VPC with what it is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct VpcRef<'a> {
    pub(super) id: VpcId,
    pub(super) name: &'a VpcName,
    pub(super) vpc: &'a Vpc,
}

/// A group with where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupRef<'a> {
    pub(super) id: GroupId,
    pub(super) name: &'a GroupName,
    pub(super) group: &'a Group,
    pub(super) vpc: VpcRef<'a>,
}

/// A rule with where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct RuleRef<'a> {
    pub(super) rule: &'a Rule,
    pub(super) group: GroupRef<'a>,
}

/// An interface with where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct InterfaceRef<'a> {
    pub(super) id: InterfaceId,
    pub(super) name: &'a InterfaceName,
    pub(super) interface: &'a Interface,
    pub(super) vpc: VpcRef<'a>,
}

impl World {
    pub(super) fn new(revision: Revision, policy: Policy, annotated: Annotated) -> Self {
        let mut groups = BTreeMap::new();
        let mut rules = Vec::new();
        for (vpc_name, vpc) in &policy.vpcs {
            for (name, group) in &vpc.groups {
                groups.insert(group.id, (vpc_name.clone(), name.clone()));
                rules.extend(group.rules.iter().map(|rule| (rule.id, group.id)));
            }
        }
        let mut prefix_lists: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (place, id) in &annotated.prefix_lists {
            prefix_lists.entry(*id).or_default().push(place.clone());
        }
        // The default VPC has the list where it has been first.
        for places in prefix_lists.values_mut() {
            places.sort_by_key(|(vpc, _)| *vpc != VpcName::default());
        }
        let vpcs = annotated.vpcs.iter().map(|(name, id)| (*id, name.clone()));
        let interfaces = annotated.interfaces.iter();
        Self {
            revision,
            vpcs: vpcs.collect(),
            interfaces: interfaces.map(|(place, id)| (*id, place.clone())).collect(),
            policy,
            annotated,
            groups,
            rules: rules.into_iter().collect(),
            prefix_lists,
        }
    }

    /// Goes on to the revision that changes and annotations have made; false, with nothing to be relied
    /// on any more, where that takes reading everything again.
    pub(super) fn advance(
        &mut self,
        revision: Revision,
        changes: &[Change],
        annotations: &[Annotation],
    ) -> bool {
        let is_known = |change: &Change| {
            matches!(
                change.edit,
                Edit::CreateGroup { .. }
                    | Edit::DeleteGroup(_)
                    | Edit::AddRule(..)
                    | Edit::RemoveRule(..)
                    | Edit::DescribeRule(..)
            )
        };
        if !changes.iter().all(is_known) {
            return false;
        }
        for Change { vpc, edit } in changes {
            if let Edit::CreateGroup {
                name,
                id,
                description,
            } = edit
            {
                let group = Group::bare(*id, description.clone());
                self.groups.insert(*id, (vpc.clone(), name.clone()));
                match self.policy.vpcs.get_mut(vpc) {
                    Some(vpc) => drop(vpc.groups.insert(name.clone(), group)),
                    None => return false,
                }
            }
        }
        for Change { vpc, edit } in changes {
            let group = |name: &GroupName| {
                let vpc = self.policy.vpcs.get(vpc)?;
                vpc.groups.get(name).map(|group| group.id)
            };
            match edit {
                Edit::AddRule(name, rule) => match group(name) {
                    Some(group) => drop(self.rules.insert(rule.id, group)),
                    None => return false,
                },
                Edit::RemoveRule(_, rule) => {
                    self.rules.remove(rule);
                    self.annotated.notes.remove(&rule.to_string());
                }
                _ => {}
            }
        }
        self.policy.make(changes);
        for Change { vpc, edit } in changes {
            if let Edit::DeleteGroup(name) = edit {
                let vpc = self.policy.vpcs.get_mut(vpc);
                let Some(group) = vpc.and_then(|vpc| vpc.groups.remove(name)) else {
                    return false;
                };
                self.groups.remove(&group.id);
                self.annotated.notes.remove(&group.id.to_string());
                for rule in &group.rules {
                    self.rules.remove(&rule.id);
                    self.annotated.notes.remove(&rule.id.to_string());
                }
            }
        }
        for annotation in annotations {
            match annotation {
                Annotation::Note { .. } | Annotation::Forget { .. } => {
                    self.annotated.make(annotation);
                }
                _ => return false,
            }
        }
        self.revision = revision;
        true
    }

    pub(super) fn notes(&self, object: impl ToString) -> Option<&Notes> {
        self.annotated.notes.get(&object.to_string())
    }

    /// One note of an object.
    pub(super) fn note(&self, object: impl ToString, name: &str) -> Option<&str> {
        self.notes(object)?.get(name).map(String::as_str)
    }

    /// The objects with notes whose ids start so, in order.
    pub(super) fn noted<'a>(
        &'a self,
        start: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Notes)> + 'a {
        let range = self.annotated.notes.range(start.to_owned()..);
        range
            .map(|(object, notes)| (object.as_str(), notes))
            .take_while(move |(object, _)| object.starts_with(start))
    }

    pub(super) fn default_vpc(&self) -> Option<VpcRef<'_>> {
        self.named_vpc(&VpcName::default())
    }

    pub(super) fn named_vpc(&self, name: &VpcName) -> Option<VpcRef<'_>> {
        let (name, vpc) = self.policy.vpcs.get_key_value(name)?;
        let id = *self.annotated.vpcs.get(name)?;
        Some(VpcRef { id, name, vpc })
    }

    pub(super) fn vpc(&self, id: VpcId) -> Option<VpcRef<'_>> {
        self.named_vpc(self.vpcs.get(&id)?)
    }

    /// In the order of their ids.
    pub(super) fn vpcs(&self) -> impl Iterator<Item = VpcRef<'_>> {
        self.vpcs.values().filter_map(|name| self.named_vpc(name))
    }

    pub(super) fn group(&self, id: GroupId) -> Option<GroupRef<'_>> {
        let (vpc, name) = self.groups.get(&id)?;
        self.named_vpc(vpc)?.group(name)
    }

    /// In the order of their ids, behind one.
    pub(super) fn groups(&self, behind: Option<GroupId>) -> impl Iterator<Item = GroupRef<'_>> {
        let range = match behind {
            Some(id) => self.groups.range(after(id)),
            None => self.groups.range(..),
        };
        range.filter_map(|(id, _)| self.group(*id))
    }

    pub(super) fn rule(&self, id: RuleId) -> Option<RuleRef<'_>> {
        let group = self.group(*self.rules.get(&id)?)?;
        group.rule(id)
    }

    /// In the order of their ids, behind one.
    pub(super) fn rules(&self, behind: Option<RuleId>) -> impl Iterator<Item = RuleRef<'_>> {
        let range = match behind {
            Some(id) => self.rules.range(after(id)),
            None => self.rules.range(..),
        };
        // A group's rules are looked through once, not once for each.
        let mut found: HashMap<GroupId, HashMap<RuleId, &Rule>> = HashMap::new();
        range.filter_map(move |(id, group)| {
            let group = self.group(*group)?;
            let rules = found.entry(group.id).or_insert_with(|| {
                let rules = group.group.rules.iter();
                rules.map(|rule| (rule.id, rule)).collect()
            });
            let rule = rules.get(id)?;
            Some(RuleRef { rule, group })
        })
    }

    /// Where a prefix list is: in each VPC whose rules name it, and where it was made.
    pub(super) fn prefix_list_places(&self, id: PrefixListId) -> &[(VpcName, PrefixListName)] {
        self.prefix_lists.get(&id).map_or(&[], Vec::as_slice)
    }

    pub(super) fn prefix_lists(&self) -> impl Iterator<Item = PrefixListId> {
        self.prefix_lists.keys().copied()
    }

    pub(super) fn prefix_list_id(
        &self,
        vpc: &VpcName,
        name: &PrefixListName,
    ) -> Option<PrefixListId> {
        let place = (vpc.clone(), name.clone());
        self.annotated.prefix_lists.get(&place).copied()
    }

    pub(super) fn interface(&self, id: InterfaceId) -> Option<InterfaceRef<'_>> {
        let (vpc, name) = self.interfaces.get(&id)?;
        let vpc = self.named_vpc(vpc)?;
        let (name, interface) = vpc.vpc.interfaces.get_key_value(name)?;
        Some(InterfaceRef {
            id,
            name,
            interface,
            vpc,
        })
    }

    pub(super) fn interfaces(&self) -> impl Iterator<Item = InterfaceRef<'_>> {
        self.interfaces.keys().filter_map(|id| self.interface(*id))
    }

    pub(super) fn interface_id(&self, vpc: &VpcName, name: &InterfaceName) -> Option<InterfaceId> {
        let place = (vpc.clone(), name.clone());
        self.annotated.interfaces.get(&place).copied()
    }
}

fn after<T: Ord>(id: T) -> (std::ops::Bound<T>, std::ops::Bound<T>) {
    (std::ops::Bound::Excluded(id), std::ops::Bound::Unbounded)
}

impl<'a> VpcRef<'a> {
    pub(super) fn group(self, name: &GroupName) -> Option<GroupRef<'a>> {
        let (name, group) = self.vpc.groups.get_key_value(name)?;
        Some(GroupRef {
            id: group.id,
            name,
            group,
            vpc: self,
        })
    }
}

impl<'a> GroupRef<'a> {
    pub(super) fn rule(self, id: RuleId) -> Option<RuleRef<'a>> {
        let rule = self.group.rules.iter().find(|rule| rule.id == id)?;
        Some(RuleRef { rule, group: self })
    }

    pub(super) fn rules(self) -> impl Iterator<Item = RuleRef<'a>> {
        let rules = self.group.rules.iter();
        rules.map(move |rule| RuleRef { rule, group: self })
    }
}

/// What a text in the place of an id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named<T> {
    /// An id.
    Id(T),
    /// An id of 8 digits, as old objects of the cloud have. Nothing here has one.
    Old,
    /// No id.
    Malformed,
}

impl<T: FromStr> Named<T> {
    pub(super) fn read(text: &str, prefix: &str) -> Self {
        if let Ok(id) = text.parse() {
            return Self::Id(id);
        }
        let digits = text.strip_prefix(prefix);
        let is_old = digits.is_some_and(|digits| {
            digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        match is_old {
            true => Self::Old,
            false => Self::Malformed,
        }
    }
}
