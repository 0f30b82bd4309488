//! Identities: which sets of groups addresses are in, and which sets of prefix lists.
//!
//! A rule that names a group or a list is looked up by the set that the peer's address has, so
//! that an address that moves, or a prefix that comes, changes its own entry and no rule's. Sets
//! hold only what some compiled rule names, so that there are few of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hashbrown::HashMap;
use sg_common::addr::{Addr, Family};
use sg_common::tables::{Identity, MemberKey};

use super::domain::Domain;
use super::fold::{Prefix, family_of, fold};
use super::image::{IdentitySet, Image, Member, MembersOf};
use super::interfaces::Protected;
use super::limits::{CompileError, Entries, Subject};
use super::numbers::Numbers;
use super::ranges::{RangeTables, Spans};
use crate::policy::model::Side;
use crate::policy::prefix::names_one_machine;

/// The identity of whatever is in a set that is asked by yes or no.
pub(super) const PRESENT: Identity = Identity(1);

/// How many lists the prefixes of a VPC's lists may be in, counted once for each set of lists that
/// some prefix is in. Ten thousand lists of everyone beside ten thousand prefixes are a hundred
/// million, and say no more than one list does.
const MOST_OVERLAPS: usize = 1 << 21;

/// The sets of one kind in one VPC.
pub(super) struct Sets {
    sets: Vec<(Identity, Vec<u32>)>,
    numbers: HashMap<Vec<u32>, usize>,
    /// By group or list, the sets that hold it.
    holding: Vec<Vec<usize>>,
    /// How many groups or lists the sets have together.
    size: usize,
}

impl Sets {
    fn new(targets: usize) -> Self {
        Self {
            sets: Vec::new(),
            numbers: HashMap::new(),
            holding: vec![Vec::new(); targets],
            size: 0,
        }
    }

    /// The identity of a set, given when it is first met.
    fn identity(&mut self, set: &[u32], give: impl FnOnce(&[u32]) -> Identity) -> Identity {
        if let Some((identity, _)) = self.numbers.get(set).and_then(|at| self.sets.get(*at)) {
            return *identity;
        }
        let identity = give(set);
        let at = self.sets.len();
        self.size += set.len();
        for target in set {
            if let Some(holding) = self.holding.get_mut(*target as usize) {
                holding.push(at);
            }
        }
        self.sets.push((identity, set.to_vec()));
        self.numbers.insert(set.to_vec(), at);
        identity
    }

    /// The sets that hold any of these, in order.
    pub(super) fn holding_any(
        &self,
        targets: impl Iterator<Item = u32>,
    ) -> impl Iterator<Item = &(Identity, Vec<u32>)> {
        let holding = targets.filter_map(|target| self.holding.get(target as usize));
        let found: BTreeSet<usize> = holding.flatten().copied().collect();
        found.into_iter().filter_map(|at| self.sets.get(at))
    }
}

/// Gives identities their numbers.
pub(super) struct IdentityNumbers<'a> {
    previous: &'a BTreeMap<IdentitySet, Identity>,
    numbers: Numbers,
    given: BTreeMap<IdentitySet, Identity>,
}

impl<'a> IdentityNumbers<'a> {
    /// A set that the previous image has keeps its number.
    pub(super) fn new(previous: &'a Image) -> Self {
        let taken = previous.ids.identities.values().map(|identity| identity.0);
        Self {
            previous: &previous.ids.identities,
            numbers: Numbers::new(1, taken),
            given: BTreeMap::new(),
        }
    }

    fn give(&mut self, set: IdentitySet) -> Identity {
        let known = self.previous.get(&set).copied();
        let identity = known.unwrap_or_else(|| Identity(self.numbers.fresh()));
        self.given.insert(set, identity);
        identity
    }

    /// All that were given.
    pub(super) fn into_given(self) -> BTreeMap<IdentitySet, Identity> {
        self.given
    }
}

/// Writes the prefix lists of a VPC that compiled rules name.
pub(super) fn prefix_list_sets(
    domain: &Domain<'_>,
    identities: &mut IdentityNumbers<'_>,
    ranges: &mut RangeTables<'_>,
) -> Result<Sets, CompileError> {
    let mut sets = Sets::new(domain.lists.len());
    let mut give = |set: &[u32]| {
        let names = set
            .iter()
            .filter_map(|list| domain.lists.name(*list))
            .cloned();
        let members_of = MembersOf::PrefixLists(names.collect());
        identities.give(IdentitySet {
            vpc: domain.name.clone(),
            members_of,
        })
    };
    ranges.begin(&Subject::Vpc(domain.name.clone()));
    let mut overlaps = 0;
    for family in Family::ALL {
        let mut spans = Spans::default();
        let lists = domain.vpc.prefix_lists.values().zip(0_u32..);
        let mut items: Vec<_> = lists
            .filter(|(_, list)| domain.lists.is_peer(*list))
            .flat_map(|(prefixes, list)| prefixes.iter().map(move |prefix| (prefix, list)))
            .filter(|(prefix, _)| family_of(prefix) == family)
            .map(|(prefix, list)| (Prefix::from(*prefix), list))
            .collect();
        let mut set = Vec::new();
        fold(&mut items, |prefix, lists| {
            // What is beyond is counted and not kept.
            if overlaps > 0 {
                overlaps += lists.len();
                return;
            }
            set.clear();
            set.extend_from_slice(lists);
            set.sort_unstable();
            set.dedup();
            match sets.size + set.len() > MOST_OVERLAPS {
                true => overlaps = sets.size + set.len(),
                false => spans.add(prefix, sets.identity(&set, &mut give).0),
            }
        });
        ranges.add_lists(domain.number, family, spans);
    }
    match overlaps {
        0 => Ok(sets),
        overlaps => Err(CompileError::TooManyOverlaps {
            subject: Subject::Vpc(domain.name.clone()),
            overlaps,
            most: MOST_OVERLAPS,
        }),
    }
}

/// The keys that MEMBERS gives an index, new ones clear of the previous image.
pub(super) struct MemberEntries<'a> {
    previous: &'a BTreeMap<MemberKey, Member>,
    numbers: Numbers,
    pub(super) entries: Entries<MemberKey, Member>,
}

impl<'a> MemberEntries<'a> {
    pub(super) fn new(previous: &'a Image, limit: u32) -> Self {
        Self {
            previous: &previous.members,
            numbers: Numbers::new(0, previous.members.values().map(|member| member.index)),
            entries: Entries::new("MEMBERS", "members", limit),
        }
    }

    fn add(&mut self, key: MemberKey, identity: Identity) {
        let known = self.previous.get(&key).map(|member| member.index);
        let index = known.unwrap_or_else(|| self.numbers.fresh());
        self.entries.add(key, Member { index, identity });
    }
}

/// Writes the addresses of the groups of a VPC that compiled rules name.
pub(super) fn group_sets(
    domain: &Domain<'_>,
    protected: &[Protected<'_>],
    identities: &mut IdentityNumbers<'_>,
    members: &mut MemberEntries<'_>,
) -> Sets {
    let mut sets = Sets::new(domain.groups.len());
    let mut give = |set: &[u32]| {
        let members_of = MembersOf::Groups(domain.group_set(set).groups);
        identities.give(IdentitySet {
            vpc: domain.name.clone(),
            members_of,
        })
    };
    members.entries.begin(Subject::Vpc(domain.name.clone()));
    let mut sources = Sources::of(domain, protected);
    // An interface of many groups has one identity for all of its addresses.
    let mut of_source = vec![None; sources.groups.len()];
    let mut set = Vec::new();
    sources.addresses.sort_unstable();
    sources.addresses.dedup();
    for found in sources.addresses.chunk_by(|(a, _), (b, _)| a == b) {
        let Some(&(address, first)) = found.first() else {
            continue;
        };
        let known = match found {
            [_] => of_source.get(first).copied().flatten(),
            _ => None,
        };
        let identity = known.unwrap_or_else(|| {
            set.clear();
            let groups = found
                .iter()
                .filter_map(|(_, source)| sources.groups.get(*source));
            set.extend(groups.flatten());
            set.sort_unstable();
            set.dedup();
            sets.identity(&set, &mut give)
        });
        if let ([_], Some(of_source)) = (found, of_source.get_mut(first)) {
            *of_source = Some(identity);
        }
        members.add(
            MemberKey {
                vpc: domain.number,
                address,
            },
            identity,
        );
    }
    sets
}

/// Where addresses have their groups from: static members, the declared addresses of guests, and
/// those read from this machine's interfaces.
///
/// An address points to its source and has no list of its own, because an interface may have as
/// many groups as addresses.
#[derive(Default)]
struct Sources {
    /// What each source gives, in order: groups that a compiled rule names.
    groups: Vec<Vec<u32>>,
    addresses: Vec<(Addr, usize)>,
}

impl Sources {
    fn of(domain: &Domain<'_>, protected: &[Protected<'_>]) -> Self {
        let mut sources = Self::default();
        let mut add = |mut groups: Vec<u32>, addresses: &mut dyn Iterator<Item = IpAddr>| {
            groups.retain(|group| domain.groups.is_peer(*group));
            if groups.is_empty() {
                return;
            }
            let source = sources.groups.len();
            sources
                .addresses
                .extend(addresses.map(|address| (Addr::from(address), source)));
            sources.groups.push(groups);
        };
        for (group, number) in domain.vpc.groups.values().zip(0..) {
            add(vec![number], &mut group.members.iter().copied());
        }
        let interfaces = domain.vpc.interfaces.values();
        for guest in interfaces.filter(|interface| interface.side == Side::Guest) {
            let groups = domain.group_numbers(&guest.groups);
            add(groups, &mut guest.addresses.iter().copied());
        }
        let own = protected
            .iter()
            .filter(|protected| protected.vpc_name == domain.name);
        for host in own.filter(|protected| protected.interface.side == Side::Host) {
            let groups = domain.group_numbers(&host.interface.groups);
            let addresses = host.attached.addresses.iter().copied();
            add(groups, &mut addresses.filter(names_one_machine));
        }
        sources
    }
}
