//! One VPC as the compiler sees it: names become numbers, and only what attached interfaces can
//! reach is looked at.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use ipnet::IpNet;
use sg_common::addr::Family;
use sg_common::tables::RuleSlot;

use super::image::{GroupSet, Image};
use super::interfaces::Protected;
use super::limits::{CompileError, Limits, Subject};
use super::numbers::{Circle, Numbers};
use crate::policy::defaults::everywhere;
use crate::policy::model::{Peer, Rule, Vpc};
use crate::policy::names::{GroupName, PrefixListName, RuleId, VpcName};

/// A VPC that has attached interfaces.
pub(super) struct Domain<'a> {
    pub(super) name: &'a VpcName,
    pub(super) number: u32,
    pub(super) vpc: &'a Vpc,
    pub(super) groups: Named<'a, GroupName>,
    pub(super) lists: Named<'a, PrefixListName>,
    /// Whether a list, by its number, holds every address of a family.
    pub(super) lists_everyone: Vec<[bool; 2]>,
    /// The groups of attached interfaces, by number.
    pub(super) compiled: BTreeMap<u32, CompiledGroup<'a>>,
    /// The policies of attached interfaces: the sets of their groups, and what numbers they have.
    pub(super) policies: BTreeMap<Vec<u32>, AttachedPolicy>,
}

/// A set of groups that some interface has.
pub(super) struct AttachedPolicy {
    pub(super) id: u32,
    /// Whom to name when it asks for too much.
    pub(super) subject: Subject,
}

/// A group whose rules are compiled.
pub(super) struct CompiledGroup<'a> {
    pub(super) rules: &'a [Rule],
    /// One for each rule.
    pub(super) numbers: Vec<RuleNumbers>,
}

/// What the names in a rule became.
#[derive(Clone, Copy)]
pub(super) struct RuleNumbers {
    pub(super) slot: RuleSlot,
    /// The number of the group or prefix list that is the peer.
    pub(super) peer: Option<u32>,
}

/// Names of one kind with their numbers, in order.
pub(super) struct Named<'a, N> {
    names: Vec<&'a N>,
    numbers: HashMap<&'a N, u32>,
    /// Whether a compiled rule has it as its peer.
    is_peer: Vec<bool>,
}

impl<'a, N: Eq + std::hash::Hash> Named<'a, N> {
    fn new(names: impl Iterator<Item = &'a N>) -> Self {
        let names: Vec<_> = names.collect();
        let numbers = names
            .iter()
            .zip(0..)
            .map(|(name, number)| (*name, number))
            .collect();
        Self {
            is_peer: vec![false; names.len()],
            names,
            numbers,
        }
    }

    pub(super) fn number(&self, name: &N) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    pub(super) fn name(&self, number: u32) -> Option<&'a N> {
        self.names.get(number as usize).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn is_peer(&self, number: u32) -> bool {
        self.is_peer
            .get(number as usize)
            .is_some_and(|is_peer| *is_peer)
    }

    fn note_peer(&mut self, name: &N) -> Option<u32> {
        let number = self.number(name)?;
        *self.is_peer.get_mut(number as usize)? = true;
        Some(number)
    }
}

impl<'a> Domain<'a> {
    fn new(name: &'a VpcName, number: u32, vpc: &'a Vpc) -> Self {
        let holds = |prefixes: &BTreeSet<IpNet>| everywhere().map(|all| prefixes.contains(&all));
        Self {
            name,
            number,
            vpc,
            groups: Named::new(vpc.groups.keys()),
            lists: Named::new(vpc.prefix_lists.keys()),
            lists_everyone: vpc.prefix_lists.values().map(holds).collect(),
            compiled: BTreeMap::new(),
            policies: BTreeMap::new(),
        }
    }

    pub(super) fn list_holds_everyone(&self, list: u32, family: Family) -> bool {
        let holds = self.lists_everyone.get(list as usize);
        holds.is_some_and(|[v4, v6]| match family {
            Family::V4 => *v4,
            Family::V6 => *v6,
        })
    }

    /// The numbers of an interface's groups.
    pub(super) fn group_numbers(&self, groups: &BTreeSet<GroupName>) -> Vec<u32> {
        // Names sort as their numbers do.
        groups
            .iter()
            .filter_map(|name| self.groups.number(name))
            .collect()
    }

    pub(super) fn group_set(&self, numbers: &[u32]) -> GroupSet {
        let names = numbers
            .iter()
            .filter_map(|number| self.groups.name(*number));
        GroupSet {
            vpc: self.name.clone(),
            groups: names.cloned().collect(),
        }
    }

    fn take_rules(&mut self, number: u32, ids: &mut Vec<RuleId>) {
        let group = self
            .groups
            .name(number)
            .and_then(|name| self.vpc.groups.get(name));
        let Some(group) = group else { return };
        let mut numbers = Vec::with_capacity(group.rules.len());
        for rule in &group.rules {
            let peer = match &rule.permission.peer {
                Peer::Prefix(_) => None,
                Peer::PrefixList(name) => self.lists.note_peer(name),
                Peer::Group(name) => self.groups.note_peer(name),
            };
            numbers.push(RuleNumbers {
                slot: RuleSlot::NONE,
                peer,
            });
            ids.push(rule.id);
        }
        self.compiled.insert(
            number,
            CompiledGroup {
                rules: &group.rules,
                numbers,
            },
        );
    }
}

/// The VPCs of the protected interfaces, with every number but those of identities, and what the
/// next image must know of the numbers.
pub(super) fn domains<'a>(
    protected: &[Protected<'a>],
    previous: &Image,
    limits: &Limits,
    image: &mut Image,
) -> Result<Vec<Domain<'a>>, CompileError> {
    let mut domains = BTreeMap::new();
    image.ids.next_vpc = previous.ids.next_vpc.max(1);
    let by_vpc: BTreeMap<_, _> = protected.iter().map(|p| (p.vpc_name, p.vpc)).collect();
    for (name, vpc) in by_vpc {
        let number = previous.ids.vpcs.get(name).copied().unwrap_or_else(|| {
            let fresh = image.ids.next_vpc;
            image.ids.next_vpc = fresh.saturating_add(1);
            fresh
        });
        image.ids.vpcs.insert(name.clone(), number);
        domains.insert(name, Domain::new(name, number, vpc));
    }
    for Protected {
        vpc_name,
        name,
        interface,
        ..
    } in protected
    {
        let Some(domain) = domains.get_mut(vpc_name) else {
            continue;
        };
        let groups = domain.group_numbers(&interface.groups);
        let alone = match *groups.as_slice() {
            [only] => domain.groups.name(only),
            _ => None,
        };
        let subject = match alone {
            Some(group) => Subject::Group((*vpc_name).clone(), group.clone()),
            None => Subject::Interface((*vpc_name).clone(), (*name).clone()),
        };
        domain
            .policies
            .entry(groups)
            .or_insert(AttachedPolicy { id: 0, subject });
    }
    let mut domains: Vec<_> = domains.into_values().collect();
    number_policies(&mut domains, previous, limits, image)?;
    number_rules(&mut domains, previous, limits, image)?;
    Ok(domains)
}

fn number_policies(
    domains: &mut [Domain<'_>],
    previous: &Image,
    limits: &Limits,
    image: &mut Image,
) -> Result<(), CompileError> {
    let mut numbers = Numbers::new(1, previous.policies.keys().copied());
    let mut crossed = None;
    let mut needs = previous.policies.len() as u64;
    for domain in domains {
        let keys: Vec<_> = domain.policies.keys().cloned().collect();
        for key in keys {
            let set = domain.group_set(&key);
            let known = previous.ids.policies.get(&set).copied();
            needs += u64::from(known.is_none());
            let id = known.unwrap_or_else(|| numbers.fresh());
            if let Some(policy) = domain.policies.get_mut(&key) {
                policy.id = id;
                if id > limits.policies {
                    crossed.get_or_insert_with(|| policy.subject.clone());
                }
            }
            image.ids.policies.insert(set, id);
        }
    }
    match crossed {
        Some(subject) => Err(CompileError::Full {
            map: "POLICIES",
            limit: "policies",
            allowed: limits.policies,
            needs,
            subject,
        }),
        None => Ok(()),
    }
}

/// Gives each rule of an attached group its counters.
fn number_rules(
    domains: &mut [Domain<'_>],
    previous: &Image,
    limits: &Limits,
    image: &mut Image,
) -> Result<(), CompileError> {
    let mut ids = Vec::new();
    let mut origins = Vec::new();
    for domain in &mut *domains {
        let used: BTreeSet<_> = domain.policies.keys().flatten().copied().collect();
        for group in used {
            origins.push((ids.len(), domain.number, group));
            domain.take_rules(group, &mut ids);
        }
    }
    let mut sorted: Vec<_> = ids
        .iter()
        .zip(0_usize..)
        .map(|(id, at)| (*id, at))
        .collect();
    sorted.sort_unstable();

    // Flows that outlive their rule go on counting to its slot.
    let mut numbers = Circle::new(
        previous.ids.last_rule,
        previous.ids.rules.values().map(|slot| slot.0),
        previous.ids.rules.len() + ids.len(),
        limits.rules,
    );
    let mut known = previous.ids.rules.iter().peekable();
    let mut given = Vec::with_capacity(sorted.len());
    let mut slots = vec![RuleSlot::NONE; ids.len()];
    let mut needs = previous.ids.rules.len() as u64;
    let mut first_beyond = None;
    for run in sorted.chunk_by(|(a, _), (b, _)| a == b) {
        let Some(&(id, at)) = run.first() else {
            continue;
        };
        while known.next_if(|(other, _)| **other < id).is_some() {}
        let slot = match known.next_if(|(other, _)| **other == id) {
            Some((_, slot)) => *slot,
            None => {
                needs += 1;
                RuleSlot(numbers.fresh())
            }
        };
        if slot.0 > limits.rules {
            first_beyond = Some(first_beyond.map_or(at, |first: usize| first.min(at)));
        }
        given.push((id, slot));
        for &(_, at) in run {
            if let Some(place) = slots.get_mut(at) {
                *place = slot;
            }
        }
    }
    if let Some(at) = first_beyond {
        let origin = origins
            .partition_point(|(first, ..)| *first <= at)
            .saturating_sub(1);
        let subject = origins.get(origin).and_then(|&(_, number, group)| {
            let domain = domains.iter().find(|domain| domain.number == number)?;
            Some(Subject::Group(
                domain.name.clone(),
                domain.groups.name(group)?.clone(),
            ))
        });
        return Err(CompileError::Full {
            map: "RULES",
            limit: "rules",
            allowed: limits.rules,
            needs,
            subject: subject.unwrap_or(Subject::Policy),
        });
    }
    let last_rule = numbers.last();
    let groups = domains
        .iter_mut()
        .flat_map(|domain| domain.compiled.values_mut());
    let numbers = groups.flat_map(|group| &mut group.numbers);
    for (number, slot) in numbers.zip(slots) {
        number.slot = slot;
    }
    image.ids.rules = given.into_iter().collect();
    image.ids.last_rule = last_rule;
    Ok(())
}
