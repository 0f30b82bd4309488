//! One VPC as the compiler sees it: names become numbers, and only what attached interfaces can
//! reach is looked at.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use ipnet::IpNet;
use sg_common::addr::Family;
use sg_common::ids::RuleSlot;

use super::image::{GroupSet, Image};
use super::interfaces::Protected;
use super::limits::{CompileError, Limits, Subject};
use super::numbers::{Circle, Numbers};
use super::rules::GroupRules;
use crate::policy::defaults::everywhere;
use crate::policy::model::{Peer, Vpc};
use crate::policy::names::{GroupName, PrefixListName, RuleId, VpcName};

/// A VPC that has attached interfaces.
pub(super) struct Domain {
    pub(super) name: VpcName,
    pub(super) number: u32,
    pub(super) groups: Named<GroupName>,
    pub(super) lists: Named<PrefixListName>,
    /// Whether a list, by its number, holds every address of a family.
    lists_everyone: Vec<[bool; 2]>,
    /// The rules of the groups of attached interfaces, by the groups' numbers.
    pub(super) compiled: BTreeMap<u32, GroupRules>,
    /// The policies of attached interfaces: the sets of their groups, and what numbers they have.
    pub(super) policies: BTreeMap<Vec<u32>, AttachedPolicy>,
}

/// A set of groups that some interface has.
pub(super) struct AttachedPolicy {
    pub(super) id: u32,
    /// Whom to name when it asks for too much.
    pub(super) subject: Subject,
}

/// Names of one kind with their numbers, in order.
pub(super) struct Named<N> {
    names: Vec<N>,
    numbers: HashMap<N, u32>,
    /// How many compiled rules have it as their peer.
    peers: Vec<u32>,
}

impl<N: Clone + Eq + std::hash::Hash> Named<N> {
    fn new<'n>(names: impl Iterator<Item = &'n N>) -> Self
    where
        N: 'n,
    {
        let names: Vec<N> = names.cloned().collect();
        let numbers = names.iter().cloned().zip(0..).collect();
        Self {
            peers: vec![0; names.len()],
            names,
            numbers,
        }
    }

    pub(super) fn number(&self, name: &N) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    pub(super) fn name(&self, number: u32) -> Option<&N> {
        self.names.get(number as usize)
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// How many compiled rules have it as their peer.
    pub(super) fn peers(&self, number: u32) -> u32 {
        self.peers.get(number as usize).copied().unwrap_or(0)
    }

    /// Whether a compiled rule has it as its peer.
    pub(super) fn is_peer(&self, number: u32) -> bool {
        self.peers(number) > 0
    }

    /// Counts rules that have it as their peer.
    pub(super) fn count(&mut self, number: u32, more: i32) {
        if let Some(peers) = self.peers.get_mut(number as usize) {
            *peers = peers.saturating_add_signed(more);
        }
    }
}

impl Domain {
    fn new(name: &VpcName, number: u32, vpc: &Vpc) -> Self {
        let holds = |prefixes: &BTreeSet<IpNet>| everywhere().map(|all| prefixes.contains(&all));
        Self {
            name: name.clone(),
            number,
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

    /// The number of a rule's peer; none for a prefix.
    pub(super) fn peer_number(&self, peer: &Peer) -> Option<u32> {
        match peer {
            Peer::Prefix(_) => None,
            Peer::PrefixList(name) => self.lists.number(name),
            Peer::Group(name) => self.groups.number(name),
        }
    }

    /// Counts rules that have this peer.
    pub(super) fn count_peer(&mut self, peer: &Peer, more: i32) {
        match (peer, self.peer_number(peer)) {
            (Peer::PrefixList(_), Some(number)) => self.lists.count(number, more),
            (Peer::Group(_), Some(number)) => self.groups.count(number, more),
            _ => {}
        }
    }

    /// The numbers of the policies that a group is in.
    pub(super) fn policies_with(&self, group: u32) -> impl Iterator<Item = u32> {
        let policies = self.policies.iter();
        let policies = policies.filter(move |(groups, _)| groups.binary_search(&group).is_ok());
        policies.map(|(_, policy)| policy.id)
    }
}

/// What was numbered.
pub(super) struct Numbered<'a> {
    pub(super) domains: Vec<Domain>,
    /// As the policy has them.
    pub(super) vpcs: Vec<&'a Vpc>,
    /// Gives rules that come their counters.
    pub(super) slots: Circle,
    /// How many rules have an id that more than one has.
    pub(super) shared: BTreeMap<RuleId, u32>,
}

/// The VPCs of the protected interfaces, with every number but those of identities, and what the
/// next image must know of the numbers.
pub(super) fn domains<'a>(
    protected: &[Protected<'a>],
    previous: &Image,
    limits: &Limits,
    image: &mut Image,
) -> Result<Numbered<'a>, CompileError> {
    let mut domains = BTreeMap::new();
    image.ids.next_vpc = previous.ids.next_vpc.max(1);
    let vpcs: BTreeMap<_, _> = protected.iter().map(|p| (p.vpc_name, p.vpc)).collect();
    for (&name, &vpc) in &vpcs {
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
    let vpcs: Vec<&Vpc> = vpcs.into_values().collect();
    let (slots, shared) = number_rules((&mut domains, &vpcs), previous, limits, image)?;
    Ok(Numbered {
        domains,
        vpcs,
        slots,
        shared,
    })
}

fn number_policies(
    domains: &mut [Domain],
    previous: &Image,
    limits: &Limits,
    image: &mut Image,
) -> Result<(), CompileError> {
    let mut numbers = Numbers::new(1, previous.ids.policies.values().copied());
    let mut crossed = None;
    let mut needs = previous.ids.policies.len() as u64;
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

/// Gives each rule of an attached group its counters, and sorts the rules by their peers.
fn number_rules(
    (domains, vpcs): (&mut [Domain], &[&Vpc]),
    previous: &Image,
    limits: &Limits,
    image: &mut Image,
) -> Result<(Circle, BTreeMap<RuleId, u32>), CompileError> {
    let mut ids = Vec::new();
    let mut origins = Vec::new();
    for (at, (domain, vpc)) in domains.iter().zip(vpcs).enumerate() {
        let used: BTreeSet<_> = domain.policies.keys().flatten().copied().collect();
        for group in used {
            let name = domain.groups.name(group);
            if let Some(compiled) = name.and_then(|name| vpc.groups.get(name)) {
                origins.push((ids.len(), at, group, compiled.rules.as_slice()));
                ids.extend(compiled.rules.iter().map(|rule| rule.id));
            }
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
    let mut shared = BTreeMap::new();
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
        if run.len() > 1 {
            shared.insert(id, u32::try_from(run.len()).unwrap_or(u32::MAX));
        }
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
        let subject = origins.get(origin).and_then(|&(_, at, group, _)| {
            let domain = domains.get(at)?;
            let group = domain.groups.name(group)?.clone();
            Some(Subject::Group(domain.name.clone(), group))
        });
        return Err(CompileError::Full {
            map: "RULES",
            limit: "rules",
            allowed: limits.rules,
            needs,
            subject: subject.unwrap_or(Subject::Policy),
        });
    }
    image.ids.rules = given.into_iter().collect();
    image.ids.last_rule = numbers.last();
    for (first, at, group, rules) in origins {
        let Some(domain) = domains.get_mut(at) else {
            continue;
        };
        for rule in rules {
            domain.count_peer(&rule.permission.peer, 1);
        }
        let slots = slots.get(first..).unwrap_or_default();
        let sorted = GroupRules::of(domain, rules.iter().zip(slots.iter().copied()));
        domain.compiled.insert(group, sorted);
    }
    Ok((numbers, shared))
}
