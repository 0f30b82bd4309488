//! Policies: the rules of a set of groups, laid out by where their peers are looked up.

use std::collections::BTreeMap;

use sg_common::addr::Family;
use sg_common::packet::Direction;
use sg_common::parse::{TCP, UDP};
use sg_common::tables::{DirectionPolicy, GrantKey, Policy, PolicyFlags, direction_policy};

use super::domain::{AttachedPolicy, Domain};
use super::fold::{Prefix, family_of, fold};
use super::identities::Sets;
use super::image::{Grant, Image};
use super::limits::{CompileError, Entries, Limits, Subject};
use super::numbers::Numbers;
use super::ports::{Admission, PortTables, TooMuch};
use super::ranges::{RangeTables, Spans};
use crate::policy::model::Peer;

/// How many rules may hold for the prefixes of one family of a policy's direction, those of wider
/// prefixes included. Each of them is looked at: two lists of thirty thousand, one inside the other,
/// are a thousand million.
const MOST_OVERLAPS: usize = 1 << 24;

/// Where policies are written to.
pub(super) struct PolicyTables<'a> {
    previous: &'a Image,
    pub(super) ports: PortTables<'a>,
    pub(super) grants: Entries<GrantKey, Grant>,
    grant_numbers: Numbers,
}

impl TooMuch {
    fn of(self, subject: Subject) -> CompileError {
        match self {
            Self::Intervals(intervals) => CompileError::TooManyPorts { subject, intervals },
            Self::Overlaps(overlaps) => CompileError::TooManyOverlaps {
                subject,
                overlaps,
                most: MOST_OVERLAPS,
            },
        }
    }
}

/// The rules of one direction by where they are looked up.
#[derive(Default)]
struct Sorted {
    open: [Vec<Admission>; 2],
    prefixes: [Vec<(Prefix, Admission)>; 2],
    lists: Vec<(u32, Admission)>,
    groups: Vec<(u32, Admission)>,
}

impl<'a> PolicyTables<'a> {
    /// No policies yet. There are hardly more port tables than rules.
    pub(super) fn new(previous: &'a Image, limits: &Limits, rules: usize) -> Self {
        let indexes = previous.grants.values().map(|grant| grant.index);
        Self {
            previous,
            ports: PortTables::new(&previous.ports, limits.port_entries, rules),
            grants: Entries::new("GRANTS", "grants", limits.grants),
            grant_numbers: Numbers::new(0, indexes),
        }
    }

    /// Writes what the groups of one policy allow.
    pub(super) fn add(
        &mut self,
        domain: &Domain<'_>,
        groups: &[u32],
        attached: &AttachedPolicy,
        lists: &Sets,
        members: &Sets,
        ranges: &mut RangeTables<'_>,
    ) -> Result<Policy, CompileError> {
        self.ports.begin(&attached.subject);
        ranges.begin(&attached.subject);
        self.grants.begin(attached.subject.clone());
        let mut policy = Policy::default();
        for (direction, place) in Direction::ALL.into_iter().zip(&mut policy.directions) {
            let id = direction_policy(attached.id, direction);
            let rules = sort(domain, groups, direction);
            let direction = self.direction(id, rules, lists, members, ranges);
            *place = direction.map_err(|too_much| too_much.of(attached.subject.clone()))?;
        }
        Ok(policy)
    }

    fn direction(
        &mut self,
        id: u32,
        mut rules: Sorted,
        lists: &Sets,
        members: &Sets,
        ranges: &mut RangeTables<'_>,
    ) -> Result<DirectionPolicy, TooMuch> {
        let mut policy = DirectionPolicy::default();
        let families = Family::ALL
            .into_iter()
            .zip(&mut rules.open)
            .zip(&mut rules.prefixes);
        for (((family, open), prefixes), place) in families.zip(&mut policy.open) {
            for protocol in [TCP, UDP] {
                let whole = open
                    .iter()
                    .any(|admission| admission.admits_whole(protocol));
                policy.flags = policy
                    .flags
                    .with(PolicyFlags::open(family, protocol), whole);
            }
            *place = self.ports.table(open)?;
            policy.flags = policy
                .flags
                .with(PolicyFlags::prefixes(family), !prefixes.is_empty());
            let spans = self.spans(prefixes, ranges)?;
            ranges.add_policy(id, family, spans);
        }
        policy.flags = policy
            .flags
            .with(PolicyFlags::PREFIX_LISTS, !rules.lists.is_empty())
            .with(PolicyFlags::GROUPS, !rules.groups.is_empty());
        self.grants(id, &mut rules.lists, lists)?;
        self.grants(id, &mut rules.groups, members)?;
        Ok(policy)
    }

    fn spans(
        &mut self,
        rules: &mut [(Prefix, Admission)],
        ranges: &mut RangeTables<'_>,
    ) -> Result<Spans, TooMuch> {
        let mut spans = Spans::default();
        let mut scratch = Vec::new();
        let mut overlaps = 0_usize;
        fold(rules, |_, admissions| overlaps += admissions.len());
        if overlaps > MOST_OVERLAPS {
            return Err(TooMuch::Overlaps(overlaps));
        }
        let mut wrong = None;
        fold(rules, |prefix, admissions| {
            if wrong.is_some() {
                return;
            }
            scratch.clear();
            scratch.extend_from_slice(admissions);
            match self.ports.table(&mut scratch) {
                Ok(table) => spans.add(prefix, ranges.value(table)),
                Err(error) => wrong = Some(error),
            }
        });
        wrong.map_or(Ok(spans), Err)
    }

    /// Writes, for each set that holds any of the peers, what the rules that name them admit.
    fn grants(
        &mut self,
        direction_policy: u32,
        rules: &mut [(u32, Admission)],
        sets: &Sets,
    ) -> Result<(), TooMuch> {
        rules.sort_by_key(|(peer, _)| *peer);
        let by_peer: BTreeMap<u32, &[(u32, Admission)]> = rules
            .chunk_by(|(a, _), (b, _)| a == b)
            .filter_map(|rules| rules.first().map(|(peer, _)| (*peer, rules)))
            .collect();
        let mut scratch = Vec::new();
        for (identity, set) in sets.holding_any(by_peer.keys().copied()) {
            scratch.clear();
            let named = set.iter().filter_map(|peer| by_peer.get(peer));
            scratch.extend(named.copied().flatten().map(|(_, admission)| *admission));
            let table = self.ports.table(&mut scratch)?;
            let key = GrantKey {
                direction_policy,
                identity: *identity,
            };
            let known = self.previous.grants.get(&key).map(|grant| grant.index);
            let index = known.unwrap_or_else(|| self.grant_numbers.fresh());
            self.grants.add(key, Grant { index, table });
        }
        Ok(())
    }
}

/// The rules of the groups in one direction. Where two admit the same, the first in the order of
/// the groups' names, and then of the permissions, is the one that is counted.
fn sort(domain: &Domain<'_>, groups: &[u32], direction: Direction) -> Sorted {
    let mut sorted = Sorted::default();
    let [open_v4, open_v6] = &mut sorted.open;
    let [prefixes_v4, prefixes_v6] = &mut sorted.prefixes;
    let compiled = groups.iter().filter_map(|group| domain.compiled.get(group));
    let rules = compiled.flat_map(|group| group.rules.iter().zip(&group.numbers));
    let rules = rules.filter(|(rule, _)| rule.permission.direction == direction);
    for ((rule, numbers), order) in rules.zip(0_u32..) {
        let (first, last) = rule.permission.traffic.services();
        let admission = Admission {
            order,
            first,
            last,
            rule: numbers.slot,
        };
        match (&rule.permission.peer, numbers.peer) {
            (Peer::Prefix(prefix), _) => match (family_of(prefix), prefix.prefix_len()) {
                (Family::V4, 0) => open_v4.push(admission),
                (Family::V6, 0) => open_v6.push(admission),
                (Family::V4, _) => prefixes_v4.push((Prefix::from(*prefix), admission)),
                (Family::V6, _) => prefixes_v6.push((Prefix::from(*prefix), admission)),
            },
            (Peer::PrefixList(_), Some(list)) => {
                // A list that holds every address is as open as the prefix itself.
                for (family, open) in [(Family::V4, &mut *open_v4), (Family::V6, &mut *open_v6)] {
                    if domain.list_holds_everyone(list, family) {
                        open.push(admission);
                    }
                }
                sorted.lists.push((list, admission));
            }
            (Peer::Group(_), Some(group)) => sorted.groups.push((group, admission)),
            // A peer that nobody is in.
            (Peer::PrefixList(_) | Peer::Group(_), None) => {}
        }
    }
    sorted
}
