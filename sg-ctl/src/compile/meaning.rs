//! What an image says, whatever places and numbers its parts have.
//!
//! An image that was amended lies otherwise than one that was compiled from the same policy: slices
//! are elsewhere, and sets that no address is in any more keep their numbers. Both say the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sg_common::addr::Family;
use sg_common::ranges::RangeTable;
use sg_common::tables::{GrantKey, Policy, PolicyFlags, PortTable};

use super::amend::{Answer, Seen};
use super::arena::Slice;
use super::image::Image;
use crate::policy::names::RuleId;

/// From each service on, the rule that admits it.
pub type Admitted = Vec<(u32, Option<RuleId>)>;

/// From each address on, what is said of it.
pub type Said<T> = Vec<(u128, T)>;

/// What the tables of an image say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// By a policy's number, for each direction.
    pub policies: BTreeMap<u32, [Opened; 2]>,
    /// By the index in POLICY_RANGES.
    pub policy_ranges: BTreeMap<u32, Said<Admitted>>,
    /// By the index in LIST_RANGES: identities.
    pub list_ranges: BTreeMap<u32, Said<u32>>,
    /// Of identities that some address has.
    pub grants: BTreeMap<GrantKey, Admitted>,
}

/// What one direction of a policy opens to everyone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// By family.
    pub open: [Admitted; 2],
    /// Which other tables say something.
    pub flags: PolicyFlags,
}

impl Meaning {
    /// Reads an image; an error where its parts do not fit together.
    pub fn of(image: &Image) -> Answer<Self> {
        let rules = image.ids.rules.iter();
        let reading = Reading {
            image,
            rules: rules.map(|(rule, slot)| (slot.0, *rule)).collect(),
        };
        let policies = image.policies.iter();
        let policies = policies.map(|(id, policy)| (*id, reading.opened(policy)));
        let mut policy_ranges = BTreeMap::new();
        for (index, table) in &image.policy_ranges {
            let edges = reading.edges(*index, table)?;
            let said = edges.into_iter().map(|(at, value)| {
                let table = value.checked_sub(1);
                let table = table.and_then(|index| image.port_tables.entry(index));
                (at, reading.admitted(table.copied().unwrap_or_default()))
            });
            let mut said: Said<Admitted> = said.collect();
            // One content may have several numbers.
            said.dedup_by(|(_, after), (_, before)| after == before);
            policy_ranges.insert(*index, said);
        }
        let mut list_ranges = BTreeMap::new();
        let members = image.members.values();
        let mut met: BTreeSet<u32> = members.map(|member| member.identity.0).collect();
        for (index, table) in &image.list_ranges {
            let edges = reading.edges(*index, table)?;
            met.extend(edges.iter().map(|(_, identity)| *identity));
            list_ranges.insert(*index, edges);
        }
        let grants = image.grants.iter();
        let grants = grants
            .filter(|(key, _)| met.contains(&key.identity.0))
            .map(|(key, grant)| (*key, reading.admitted(grant.table)));
        Ok(Self {
            policies: policies.collect(),
            policy_ranges,
            list_ranges,
            grants: grants.collect(),
        })
    }
}

struct Reading<'a> {
    image: &'a Image,
    rules: HashMap<u32, RuleId>,
}

impl Reading<'_> {
    fn opened(&self, policy: &Policy) -> [Opened; 2] {
        policy.directions.map(|direction| Opened {
            open: direction.open.map(|table| self.admitted(table)),
            flags: direction.flags,
        })
    }

    fn admitted(&self, PortTable { offset, length }: PortTable) -> Admitted {
        let entries = self.image.ports.entries(Slice { offset, length });
        let entries = entries.iter();
        entries
            .map(|entry| (entry.start.0, self.rules.get(&entry.rule.0).copied()))
            .collect()
    }

    /// The lowest bit of an index tells the family.
    fn edges(&self, index: u32, table: &RangeTable) -> Answer<Said<u32>> {
        let family = match index & 1 {
            0 => Family::V4,
            _ => Family::V6,
        };
        let (edges, _) = Seen::default().take_apart(&mut &self.image.ranges, table, family)?;
        Ok(edges)
    }
}
