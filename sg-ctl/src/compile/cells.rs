//! What each cell of the tables says: the only place that knows what a rule means.
//!
//! A cell is one independent piece of the tables: what a direction of a policy opens to everyone, its
//! prefixes of a family or those within a region, and what one set of groups or lists is granted. It is
//! computed from the rules that share it, whether the whole policy is compiled or one rule is edited.

use std::collections::BTreeMap;

use sg_common::abi::{DirectionPolicy, PolicyFlags, direction_policy};
use sg_common::addr::Family;
use sg_common::packet::Direction;
use sg_common::ports::PortTable;
use sg_common::protocol::{TCP, UDP};

use super::domain::Domain;
use super::fold::{Prefix, fold, overlapping};
use super::image::Image;
use super::limits::{CompileError, Limits, Subject};
use super::ports::{Admission, PortTables, TooMuch};
use super::ranges::{Edge, RangeTables, Spans, within};
use super::rules::{Admitted, DirectionRules, naming};

/// How many rules may hold for the prefixes of one family of a policy's direction, those of wider
/// prefixes included. Each of them is looked at: two lists of thirty thousand, one inside the other,
/// are a thousand million.
const MOST_OVERLAPS: usize = 1 << 24;

impl TooMuch {
    pub(super) fn of(self, subject: &Subject) -> CompileError {
        let subject = subject.clone();
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

/// Where what cells lead to lies.
pub(super) struct Space {
    pub(super) ports: PortTables,
    pub(super) ranges: RangeTables,
}

impl Space {
    /// Beside the image in force. There are hardly more port tables than rules.
    pub(super) fn new(previous: &Image, limits: &Limits, rules: usize) -> Self {
        Self {
            ports: PortTables::new(&previous.ports, limits.port_entries, rules),
            ranges: RangeTables::new(previous, limits, rules),
        }
    }

    /// Says whose cells come next.
    pub(super) fn begin(&mut self, subject: &Subject) {
        self.ports.begin(subject);
        self.ranges.begin(subject);
    }

    /// Whether everything has found a place.
    pub(super) fn check(&mut self) -> Result<(), CompileError> {
        self.ports.slices().check()?;
        self.ranges.check()
    }
}

/// One direction of a policy.
#[derive(Clone, Copy)]
pub(super) struct Course<'d> {
    pub(super) domain: &'d Domain,
    /// The numbers of the policy's groups, in order.
    pub(super) groups: &'d [u32],
    pub(super) policy: u32,
    pub(super) direction: Direction,
}

/// The kinds of peers that are looked up by the sets that their addresses are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    PrefixLists,
    Groups,
}

/// What rules admit, by the number of the peer that they name.
pub(super) type ByPeer = BTreeMap<u32, Vec<Admission>>;

impl<'d> Course<'d> {
    /// As keys of the tables have it.
    pub(super) fn number(self) -> u32 {
        direction_policy(self.policy, self.direction)
    }

    fn rules(self) -> impl Iterator<Item = (u32, &'d DirectionRules)> {
        let groups = self.groups.iter();
        let compiled =
            groups.filter_map(move |group| Some((*group, self.domain.compiled.get(group)?)));
        compiled.map(move |(group, rules)| (group, rules.of_direction(self.direction)))
    }

    /// What everyone of a family is admitted to. A list that holds every address is as open as the
    /// prefix itself.
    fn open(self, family: Family) -> Vec<Admission> {
        let mut open = Vec::new();
        for (group, rules) in self.rules() {
            open.extend(rules.open(family).iter().map(|admitted| admitted.by(group)));
        }
        for (group, rules) in self.rules() {
            let lists = rules.lists.iter();
            let lists = lists.filter(|(list, _)| self.domain.list_holds_everyone(*list, family));
            open.extend(lists.map(|(_, admitted)| admitted.by(group)));
        }
        open
    }

    /// What is opened to everyone, and which other tables say something.
    pub(super) fn entry(self, space: &mut Space) -> Result<DirectionPolicy, TooMuch> {
        let mut policy = DirectionPolicy::default();
        for (family, place) in Family::ALL.into_iter().zip(&mut policy.open) {
            let open = self.open(family);
            for protocol in [TCP, UDP] {
                let whole = open
                    .iter()
                    .any(|admission| admission.admits_whole(protocol));
                let flag = PolicyFlags::open(family, protocol);
                policy.flags = policy.flags.with(flag, whole);
            }
            *place = space.ports.table(&open)?;
            let has_prefixes = self
                .rules()
                .any(|(_, rules)| !rules.prefixes(family).is_empty());
            let flag = PolicyFlags::prefixes(family);
            policy.flags = policy.flags.with(flag, has_prefixes);
        }
        for (kind, flag) in [
            (Kind::PrefixLists, PolicyFlags::PREFIX_LISTS),
            (Kind::Groups, PolicyFlags::GROUPS),
        ] {
            let is_named = self
                .rules()
                .any(|(_, rules)| !rules.of_kind(kind).is_empty());
            policy.flags = policy.flags.with(flag, is_named);
        }
        Ok(policy)
    }

    /// Where the values of its prefixes change.
    pub(super) fn edges(self, family: Family, space: &mut Space) -> Result<Vec<Edge>, TooMuch> {
        if let [group] = self.groups
            && let Some((_, rules)) = self.rules().next()
        {
            let by = |(prefix, admitted): &(Prefix, Admitted)| (*prefix, admitted.by(*group));
            return edges(rules.prefixes(family).iter().map(by), space);
        }
        let mut items = Vec::new();
        for (group, rules) in self.rules() {
            let prefixes = rules.prefixes(family).iter();
            items.extend(prefixes.map(|(prefix, admitted)| (*prefix, admitted.by(group))));
        }
        // A stable sort is quick where most are in order.
        items.sort_by_key(|(prefix, _)| *prefix);
        edges(items.iter().copied(), space)
    }

    /// The same within a region, from where it begins.
    pub(super) fn edges_within(
        self,
        family: Family,
        region: Prefix,
        space: &mut Space,
    ) -> Result<Vec<Edge>, TooMuch> {
        let mut items = Vec::new();
        for (group, rules) in self.rules() {
            let prefixes = overlapping(rules.prefixes(family), region);
            items.extend(prefixes.map(|(prefix, admitted)| (prefix, admitted.by(group))));
        }
        items.sort_by_key(|(prefix, _)| *prefix);
        let edges = edges(items.iter().copied(), space)?;
        Ok(within(&edges, region.span()))
    }

    /// What rules that name a peer of a kind admit, by that peer.
    pub(super) fn by_peer(self, kind: Kind) -> ByPeer {
        let mut by_peer = ByPeer::new();
        for (group, rules) in self.rules() {
            for (peer, admitted) in rules.of_kind(kind) {
                by_peer.entry(*peer).or_default().push(admitted.by(group));
            }
        }
        by_peer
    }

    /// The same of these peers alone.
    pub(super) fn by_peers(self, kind: Kind, peers: &[u32]) -> ByPeer {
        let mut by_peer = ByPeer::new();
        for (group, rules) in self.rules() {
            for peer in peers {
                for (peer, admitted) in naming(rules.of_kind(kind), *peer) {
                    by_peer.entry(*peer).or_default().push(admitted.by(group));
                }
            }
        }
        by_peer
    }
}

/// Folds prefixes that come sorted.
fn edges(
    items: impl Iterator<Item = (Prefix, Admission)>,
    space: &mut Space,
) -> Result<Vec<Edge>, TooMuch> {
    let mut overlaps = 0_usize;
    let mut spans = Spans::default();
    let mut wrong = None;
    fold(items, |prefix, admissions| {
        overlaps += admissions.len();
        // What is beyond is counted and not kept.
        if wrong.is_some() || overlaps > MOST_OVERLAPS {
            return;
        }
        match space.ports.table(admissions) {
            Ok(table) => spans.add(prefix, space.ranges.value(table)),
            Err(error) => wrong = Some(error),
        }
    });
    match wrong {
        _ if overlaps > MOST_OVERLAPS => Err(TooMuch::Overlaps(overlaps)),
        Some(error) => Err(error),
        None => Ok(spans.into_edges()),
    }
}

/// What a set of groups or lists is granted by the rules that name any of them.
pub(super) fn grant(
    set: &[u32],
    by_peer: &ByPeer,
    space: &mut Space,
) -> Result<PortTable, TooMuch> {
    let named = set.iter().filter_map(|peer| by_peer.get(peer));
    let admissions: Vec<Admission> = named.flatten().copied().collect();
    space.ports.table(&admissions)
}
