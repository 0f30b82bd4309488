//! The rules of a group by where their peers are looked up, sorted so that those which share a cell of
//! the tables are found without looking at the others.

use sg_common::addr::Family;
use sg_common::ids::RuleSlot;
use sg_common::packet::Direction;

use super::cells::Kind;
use super::domain::Domain;
use super::fold::{Prefix, family_of};
use super::ports::Admission;
use crate::policy::model::{Peer, Rule};

/// What a rule admits, and where it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Admitted {
    first: u32,
    last: u32,
    slot: RuleSlot,
}

impl Admitted {
    pub(super) fn of(rule: &Rule, slot: RuleSlot) -> Self {
        let (first, last) = rule.permission.traffic.services();
        Self { first, last, slot }
    }

    /// The same as a rule of a group.
    pub(super) fn by(self, group: u32) -> Admission {
        Admission {
            group,
            first: self.first,
            last: self.last,
            rule: self.slot,
        }
    }
}

/// The rules of one group.
#[derive(Default)]
pub(super) struct GroupRules([DirectionRules; 2]);

/// Those of one direction.
#[derive(Default)]
pub(super) struct DirectionRules {
    /// For everyone, by family.
    open: [Vec<Admitted>; 2],
    /// By family and prefix, those for everyone not among them.
    prefixes: [Vec<(Prefix, Admitted)>; 2],
    /// By the number of the prefix list.
    pub(super) lists: Vec<(u32, Admitted)>,
    /// By the number of the group that is the peer.
    groups: Vec<(u32, Admitted)>,
}

impl GroupRules {
    /// Sorts rules by their peers.
    pub(super) fn of<'r>(
        domain: &Domain,
        rules: impl Iterator<Item = (&'r Rule, RuleSlot)>,
    ) -> Self {
        let mut sorted = Self::default();
        for (rule, slot) in rules {
            let direction = sorted.of_mut(rule.permission.direction);
            let admitted = Admitted::of(rule, slot);
            match (
                &rule.permission.peer,
                domain.peer_number(&rule.permission.peer),
            ) {
                (Peer::Prefix(prefix), _) => {
                    let family = family_of(prefix) as usize;
                    match prefix.prefix_len() {
                        0 => direction.open[family].push(admitted),
                        _ => direction.prefixes[family].push((Prefix::from(*prefix), admitted)),
                    }
                }
                (Peer::PrefixList(_), Some(list)) => direction.lists.push((list, admitted)),
                (Peer::Group(_), Some(group)) => direction.groups.push((group, admitted)),
                // A group or list without an address.
                (Peer::PrefixList(_) | Peer::Group(_), None) => {}
            }
        }
        for direction in &mut sorted.0 {
            direction.open.iter_mut().for_each(|rules| rules.sort());
            direction.prefixes.iter_mut().for_each(|rules| rules.sort());
            direction.lists.sort();
            direction.groups.sort();
        }
        sorted
    }

    pub(super) fn of_direction(&self, direction: Direction) -> &DirectionRules {
        &self.0[direction.number() as usize]
    }

    fn of_mut(&mut self, direction: Direction) -> &mut DirectionRules {
        &mut self.0[direction.number() as usize]
    }

    /// Adds or removes a rule.
    pub(super) fn edit(
        &mut self,
        domain_peer: Option<u32>,
        rule: &Rule,
        slot: RuleSlot,
        comes: bool,
    ) {
        let direction = self.of_mut(rule.permission.direction);
        let admitted = Admitted::of(rule, slot);
        match (&rule.permission.peer, domain_peer) {
            (Peer::Prefix(prefix), _) => {
                let family = family_of(prefix) as usize;
                match prefix.prefix_len() {
                    0 => put(&mut direction.open[family], admitted, comes),
                    _ => {
                        let item = (Prefix::from(*prefix), admitted);
                        put(&mut direction.prefixes[family], item, comes);
                    }
                }
            }
            (Peer::PrefixList(_), Some(list)) => put(&mut direction.lists, (list, admitted), comes),
            (Peer::Group(_), Some(group)) => put(&mut direction.groups, (group, admitted), comes),
            (Peer::PrefixList(_) | Peer::Group(_), None) => {}
        }
    }
}

impl DirectionRules {
    /// The rules for everyone of a family.
    pub(super) fn open(&self, family: Family) -> &[Admitted] {
        &self.open[family as usize]
    }

    /// The rules that name a peer of a kind, by its number.
    pub(super) fn of_kind(&self, kind: Kind) -> &[(u32, Admitted)] {
        match kind {
            Kind::PrefixLists => &self.lists,
            Kind::Groups => &self.groups,
        }
    }

    /// The rules for prefixes of a family.
    pub(super) fn prefixes(&self, family: Family) -> &[(Prefix, Admitted)] {
        &self.prefixes[family as usize]
    }
}

/// The rules that name a peer, of those of one kind.
pub(super) fn naming(rules: &[(u32, Admitted)], peer: u32) -> &[(u32, Admitted)] {
    let begins = rules.partition_point(|(other, _)| *other < peer);
    let ends = rules.partition_point(|(other, _)| *other <= peer);
    rules.get(begins..ends).unwrap_or_default()
}

/// Puts an item into sorted ones, or takes it out.
pub(super) fn put<T: Ord>(items: &mut Vec<T>, item: T, comes: bool) {
    match (items.binary_search(&item), comes) {
        (Err(place), true) => items.insert(place, item),
        (Ok(place), false) => drop(items.remove(place)),
        // It is as it is to be.
        (Ok(_), true) | (Err(_), false) => {}
    }
}
