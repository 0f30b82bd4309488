//! Identities: which sets of groups addresses are in, and which sets of prefix lists.
//!
//! A rule that names a group or a list is looked up by the set that the peer's address has, so
//! that an address that moves, or a prefix that comes, changes its own entry and no rule's. Sets
//! hold only what some compiled rule names, so that there are few of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hashbrown::HashMap;
use ipnet::IpNet;
use sg_common::addr::{Addr, Family};
use sg_common::ids::Identity;

use super::domain::Domain;
use super::fold::{Prefix, family_of, fold, overlapping};
use super::image::{IdentitySet, Image, MembersOf};
use super::interfaces::Protected;
use super::limits::{CompileError, Subject};
use super::numbers::Numbers;
use super::ranges::{Edge, Spans, within};
use super::rules;
use crate::policy::model::{Side, Vpc};
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
    places: HashMap<u32, usize>,
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
            places: HashMap::new(),
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
        self.places.insert(identity.0, at);
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

    /// The set of an identity.
    pub(super) fn set(&self, identity: Identity) -> Option<&[u32]> {
        let at = self.places.get(&identity.0)?;
        self.sets.get(*at).map(|(_, set)| set.as_slice())
    }

    /// How many sets there are.
    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }

    /// The sets that came when there were so many.
    pub(super) fn since(&self, count: usize) -> &[(Identity, Vec<u32>)] {
        self.sets.get(count..).unwrap_or_default()
    }
}

/// Gives identities their numbers.
pub(super) struct IdentityNumbers {
    previous: BTreeMap<IdentitySet, Identity>,
    numbers: Numbers,
    given: BTreeMap<IdentitySet, Identity>,
}

impl IdentityNumbers {
    /// A set that the previous image has keeps its number.
    pub(super) fn new(previous: &Image) -> Self {
        let taken = previous.ids.identities.values().map(|identity| identity.0);
        Self {
            previous: previous.ids.identities.clone(),
            numbers: Numbers::new(1, taken),
            given: BTreeMap::new(),
        }
    }

    fn give(&mut self, set: IdentitySet) -> Identity {
        let known = self.given.get(&set).or_else(|| self.previous.get(&set));
        let identity = known.copied();
        let identity = identity.unwrap_or_else(|| Identity(self.numbers.fresh()));
        self.given.insert(set, identity);
        identity
    }

    /// All that were given.
    pub(super) fn given(&self) -> &BTreeMap<IdentitySet, Identity> {
        &self.given
    }
}

/// The prefix lists of a VPC that compiled rules name.
pub(super) struct Lists {
    pub(super) sets: Sets,
    /// By family, each prefix with the list that holds it.
    prefixes: [Vec<(Prefix, u32)>; 2],
}

impl Lists {
    pub(super) fn of(domain: &Domain, vpc: &Vpc) -> Self {
        let mut prefixes = [Vec::new(), Vec::new()];
        for (list, number) in vpc.prefix_lists.values().zip(0_u32..) {
            if domain.lists.is_peer(number) {
                for prefix in list {
                    prefixes[family_of(prefix) as usize].push((Prefix::from(*prefix), number));
                }
            }
        }
        prefixes.iter_mut().for_each(|prefixes| prefixes.sort());
        Self {
            sets: Sets::new(domain.lists.len()),
            prefixes,
        }
    }

    /// Adds or removes a prefix of a list.
    pub(super) fn edit(&mut self, list: u32, prefix: IpNet, comes: bool) {
        let prefixes = &mut self.prefixes[family_of(&prefix) as usize];
        rules::put(prefixes, (Prefix::from(prefix), list), comes);
    }

    /// Where the sets of lists that hold an address change.
    pub(super) fn edges(
        &mut self,
        domain: &Domain,
        family: Family,
        identities: &mut IdentityNumbers,
    ) -> Result<Vec<Edge>, CompileError> {
        let items = std::mem::take(&mut self.prefixes[family as usize]);
        let edges = self.fold(domain, items.iter().copied(), identities);
        self.prefixes[family as usize] = items;
        edges
    }

    /// The same within a region, from where it begins.
    pub(super) fn edges_within(
        &mut self,
        domain: &Domain,
        family: Family,
        region: Prefix,
        identities: &mut IdentityNumbers,
    ) -> Result<Vec<Edge>, CompileError> {
        let items: Vec<_> = overlapping(&self.prefixes[family as usize], region).collect();
        let edges = self.fold(domain, items.into_iter(), identities)?;
        Ok(within(&edges, region.span()))
    }

    fn fold(
        &mut self,
        domain: &Domain,
        items: impl Iterator<Item = (Prefix, u32)>,
        identities: &mut IdentityNumbers,
    ) -> Result<Vec<Edge>, CompileError> {
        let mut give = |set: &[u32]| {
            let names = set
                .iter()
                .filter_map(|list| domain.lists.name(*list))
                .cloned();
            identities.give(IdentitySet {
                vpc: domain.name.clone(),
                members_of: MembersOf::PrefixLists(names.collect()),
            })
        };
        let sets = &mut self.sets;
        let mut overlaps = 0;
        let mut spans = Spans::default();
        let mut set = Vec::new();
        fold(items, |prefix, lists| {
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
        match overlaps {
            0 => Ok(spans.into_edges()),
            overlaps => Err(CompileError::TooManyOverlaps {
                subject: Subject::Vpc(domain.name.clone()),
                overlaps,
                most: MOST_OVERLAPS,
            }),
        }
    }
}

/// The addresses of the groups of a VPC that compiled rules name.
pub(super) struct Members {
    pub(super) sets: Sets,
    sources: Sources,
}

impl Members {
    pub(super) fn of(domain: &Domain, vpc: &Vpc, protected: &[Protected<'_>]) -> Self {
        Self {
            sets: Sets::new(domain.groups.len()),
            sources: Sources::of(domain, vpc, protected),
        }
    }

    /// Adds or removes a static member of a group.
    pub(super) fn edit(&mut self, group: u32, address: IpAddr, comes: bool) {
        let item = (Addr::from(address), group as usize);
        rules::put(&mut self.sources.addresses, item, comes);
    }

    /// Gives each address its identity, in order.
    pub(super) fn all(
        &mut self,
        domain: &Domain,
        identities: &mut IdentityNumbers,
        mut each: impl FnMut(Addr, Identity),
    ) {
        let addresses = std::mem::take(&mut self.sources.addresses);
        // An interface of many groups has one identity for all of its addresses.
        let mut of_source = vec![None; self.sources.groups.len()];
        for found in addresses.chunk_by(|(a, _), (b, _)| a == b) {
            let Some(&(address, first)) = found.first() else {
                continue;
            };
            let known = match found {
                [_] => of_source.get(first).copied().flatten(),
                _ => None,
            };
            let identity = known.unwrap_or_else(|| self.identity(domain, found, identities));
            if let ([_], Some(of_source)) = (found, of_source.get_mut(first)) {
                *of_source = Some(identity);
            }
            each(address, identity);
        }
        self.sources.addresses = addresses;
    }

    /// The identity of one address; none where no group has it.
    pub(super) fn one(
        &mut self,
        domain: &Domain,
        address: Addr,
        identities: &mut IdentityNumbers,
    ) -> Option<Identity> {
        let addresses = &self.sources.addresses;
        let begins = addresses.partition_point(|(other, _)| *other < address);
        let ends = addresses.partition_point(|(other, _)| *other <= address);
        let found = addresses.get(begins..ends).unwrap_or_default().to_vec();
        (!found.is_empty()).then(|| self.identity(domain, &found, identities))
    }

    fn identity(
        &mut self,
        domain: &Domain,
        found: &[(Addr, usize)],
        identities: &mut IdentityNumbers,
    ) -> Identity {
        let groups = found
            .iter()
            .filter_map(|(_, source)| self.sources.groups.get(*source));
        let mut set: Vec<u32> = groups.flatten().copied().collect();
        set.sort_unstable();
        set.dedup();
        self.sets.identity(&set, |set| {
            identities.give(IdentitySet {
                vpc: domain.name.clone(),
                members_of: MembersOf::Groups(domain.group_set(set).groups),
            })
        })
    }
}

/// Where addresses have their groups from: static members, the declared addresses of guests, and
/// those read from this machine's interfaces.
///
/// An address points to its source and has no list of its own, because an interface may have as
/// many groups as addresses.
struct Sources {
    /// What each source gives, in order: groups that a compiled rule names. Those of static members
    /// have the numbers of their groups.
    groups: Vec<Vec<u32>>,
    /// In order, each source of an address once.
    addresses: Vec<(Addr, usize)>,
}

impl Sources {
    fn of(domain: &Domain, vpc: &Vpc, protected: &[Protected<'_>]) -> Self {
        let mut sources = Self {
            groups: Vec::new(),
            addresses: Vec::new(),
        };
        for (group, number) in vpc.groups.values().zip(0_u32..) {
            sources.groups.push(vec![number]);
            if domain.groups.is_peer(number) {
                let addresses = group.members.iter().map(|address| Addr::from(*address));
                sources
                    .addresses
                    .extend(addresses.map(|address| (address, number as usize)));
            }
        }
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
        let interfaces = vpc.interfaces.values();
        for guest in interfaces.filter(|interface| interface.side == Side::Guest) {
            let groups = domain.group_numbers(&guest.groups);
            add(groups, &mut guest.addresses.iter().copied());
        }
        let own = protected
            .iter()
            .filter(|protected| *protected.vpc_name == domain.name);
        for host in own.filter(|protected| protected.interface.side == Side::Host) {
            let groups = domain.group_numbers(&host.interface.groups);
            let addresses = host.attached.addresses.iter().copied();
            add(groups, &mut addresses.filter(names_one_machine));
        }
        sources.addresses.sort_unstable();
        sources.addresses.dedup();
        sources
    }
}
