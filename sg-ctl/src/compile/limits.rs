//! How much the maps hold, and what is said when a policy needs more.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sg_common::ranges::RangeTable;

use crate::policy::names::{GroupName, InterfaceName, VpcName};

/// The slots that interfaces can have. One that was just freed is not given again at once, so half as
/// many can be attached.
pub const INTERFACE_SLOTS: u32 = 1 << 16;

/// The most entries of each kind; the maps are made as large when they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Rules with counters. Their slots count from 1, so RULES has one entry more.
    pub rules: u32,
    /// Sets of groups. They count from 1, so POLICIES has one entry more.
    pub policies: u32,
    /// Entries of PORTS, and of PORT_TABLES.
    pub port_entries: u32,
    /// Entries of INTERVALS_V4 and of INTERVALS_V6, of which a prefix takes up to two in each table
    /// that has it; there are never more slots and nested tables than intervals.
    pub intervals: u32,
    /// Entries of SETS: addresses of guests, link-local services.
    pub sets: u32,
    /// Entries of MEMBERS, and of IDENTITIES.
    pub members: u32,
    /// Entries of GRANTS, and of GRANTED.
    pub grants: u32,
    /// Attached interfaces.
    pub interfaces: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rules: 1 << 20,
            policies: 1 << 16,
            port_entries: 1 << 23,
            intervals: 1 << 24,
            sets: 1 << 22,
            members: 1 << 20,
            grants: 1 << 22,
            interfaces: 1 << 12,
        }
    }
}

/// The limits by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::rules`].
    Rules,
    /// [`Limits::policies`].
    Policies,
    /// [`Limits::port_entries`].
    PortEntries,
    /// [`Limits::intervals`].
    Intervals,
    /// [`Limits::sets`].
    Sets,
    /// [`Limits::members`].
    Members,
    /// [`Limits::grants`].
    Grants,
    /// [`Limits::interfaces`].
    Interfaces,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Rules,
        Self::Policies,
        Self::PortEntries,
        Self::Intervals,
        Self::Sets,
        Self::Members,
        Self::Grants,
        Self::Interfaces,
    ];

    /// As people set it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Policies => "policies",
            Self::PortEntries => "port_entries",
            Self::Intervals => "intervals",
            Self::Sets => "sets",
            Self::Members => "members",
            Self::Grants => "grants",
            Self::Interfaces => "interfaces",
        }
    }

    /// What it limits.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Rules => "rules of groups that attached interfaces are in",
            Self::Policies => "different sets of groups that attached interfaces have",
            Self::PortEntries => "port intervals of all rules that share a peer",
            Self::Intervals => "intervals of addresses that prefixes make, about two each",
            Self::Sets => "addresses of guests, and link-local services",
            Self::Members => "addresses of groups that rules name",
            Self::Grants => "pairs of a policy and a set of groups or lists that it names",
            Self::Interfaces => "attached interfaces",
        }
    }

    /// The lowest and the highest value there can be.
    pub fn bounds(self) -> (u32, u32) {
        match self {
            // Flows are counted by interface in a map that does not grow.
            Self::Interfaces => (1, INTERFACE_SLOTS / 2),
            // Scopes of prefixes need two bits more, and identifiers of policies one.
            Self::Policies => (1, 1 << 24),
            // What one search reaches.
            Self::Intervals => (1, RangeTable::MAX_INTERVALS),
            _ => (1, 1 << 26),
        }
    }
}

impl Limits {
    /// The value of a limit.
    pub fn value(&self, limit: Limit) -> u32 {
        match limit {
            Limit::Rules => self.rules,
            Limit::Policies => self.policies,
            Limit::PortEntries => self.port_entries,
            Limit::Intervals => self.intervals,
            Limit::Sets => self.sets,
            Limit::Members => self.members,
            Limit::Grants => self.grants,
            Limit::Interfaces => self.interfaces,
        }
    }

    /// Changes a limit.
    pub fn set(&mut self, limit: Limit, value: u32) {
        *match limit {
            Limit::Rules => &mut self.rules,
            Limit::Policies => &mut self.policies,
            Limit::PortEntries => &mut self.port_entries,
            Limit::Intervals => &mut self.intervals,
            Limit::Sets => &mut self.sets,
            Limit::Members => &mut self.members,
            Limit::Grants => &mut self.grants,
            Limit::Interfaces => &mut self.interfaces,
        } = value;
    }
}

/// What the fault of an error lies with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The policy as a whole.
    Policy,
    /// A VPC.
    Vpc(VpcName),
    /// A group.
    Group(VpcName, GroupName),
    /// An interface, with all its groups.
    Interface(VpcName, InterfaceName),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy => f.write_str("the policy"),
            Self::Vpc(vpc) => write!(f, "VPC \"{vpc}\""),
            Self::Group(vpc, group) => write!(f, "VPC \"{vpc}\", group \"{group}\""),
            Self::Interface(vpc, name) => write!(f, "VPC \"{vpc}\", interface \"{name}\""),
        }
    }
}

/// Why a policy has no tables. Nothing has been written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A map is too small.
    #[error(
        "{subject} goes beyond what {map} holds: {needs} entries are needed, with those that stay \
         until the old policy has gone, and the limit `{limit}` is {allowed}; raise it with \
         `sg-ctl limits set {limit}={}`, or make the policy smaller",
        room(*needs)
    )]
    Full {
        /// The kernel map.
        map: &'static str,
        /// The field of [`Limits`].
        limit: &'static str,
        /// Its value.
        allowed: u32,
        /// What would be enough.
        needs: u64,
        /// Who crossed the limit.
        subject: Subject,
    },
    /// One peer's rules have more port intervals than a search covers.
    #[error(
        "{subject} allows one peer {intervals} separate port intervals, and the most is {}; join \
         port ranges",
        sg_common::ports::PortTable::MAX_LENGTH
    )]
    TooManyPorts {
        /// Whose rules they are.
        subject: Subject,
        /// How many there are.
        intervals: usize,
    },
    /// Prefixes or prefix lists that hold one another.
    #[error(
        "the prefixes of {subject} lie inside others of its rules or lists more than {most} times \
         ({overlaps} were counted); leave out prefixes that a wider one holds"
    )]
    TooManyOverlaps {
        /// Whose prefixes they are.
        subject: Subject,
        /// How many rules or lists hold for the prefixes that were counted.
        overlaps: usize,
        /// The bound.
        most: usize,
    },
    /// Devices with like numbers have taken every place that this one may have.
    #[error(
        "{subject} finds no free place in the kernel's table of interfaces, because too many devices \
         have numbers (ifindex) like its own; make the device again so that it gets another number"
    )]
    NoInterfacePlace {
        /// The interface.
        subject: Subject,
    },
    /// The interface to compile for is not in the policy.
    #[error("{subject} is attached, but the policy does not have it; attach it anew or detach it")]
    UnknownInterface {
        /// The interface.
        subject: Subject,
    },
    /// One device is attached under two names.
    #[error("{subject} and {other} are one device (ifindex {ifindex}); detach one of them")]
    DeviceTwice {
        /// One of the two.
        subject: Subject,
        /// The other.
        other: Subject,
        /// The kernel's number of the device.
        ifindex: u32,
    },
    /// Every zone has been given to a guest.
    #[error(
        "{subject} has incarnation {incarnation}, and the highest is {}; load the dataplane anew",
        u32::MAX >> 1
    )]
    NoZone {
        /// The interface.
        subject: Subject,
        /// The number as given.
        incarnation: u32,
    },
}

/// A limit that leaves as much room again.
fn room(needs: u64) -> u64 {
    needs.saturating_mul(2).next_power_of_two()
}

/// Entries of one map in the making, never stored beyond their limit but counted.
pub(super) struct Entries<K, V> {
    map: &'static str,
    limit: &'static str,
    allowed: u32,
    rows: Vec<(K, V)>,
    beyond: u64,
    /// Whose rows begin where.
    origins: Vec<(u64, Subject)>,
}

impl<K: Ord, V> Entries<K, V> {
    /// Names the map and the limit as people know them.
    pub(super) fn new(map: &'static str, limit: &'static str, allowed: u32) -> Self {
        Self {
            map,
            limit,
            allowed,
            rows: Vec::new(),
            beyond: 0,
            origins: Vec::new(),
        }
    }

    /// Says whose entries come next.
    pub(super) fn begin(&mut self, subject: Subject) {
        self.origins
            .push((self.rows.len() as u64 + self.beyond, subject));
    }

    /// Adds an entry; its key must be new.
    pub(super) fn add(&mut self, key: K, value: V) {
        if self.rows.len() < self.allowed as usize {
            self.rows.push((key, value));
        } else {
            self.beyond += 1;
        }
    }

    /// The finished map, if it fits together with the previous one, whose entries go last.
    pub(super) fn finish<W>(
        self,
        previous: &BTreeMap<K, W>,
    ) -> Result<BTreeMap<K, V>, CompileError> {
        let allowed = u64::from(self.allowed);
        let stored = self.rows.len() as u64;
        if stored + self.beyond + previous.len() as u64 <= allowed {
            return Ok(self.rows.into_iter().collect());
        }
        let mut needs = previous.len() as u64;
        let mut crossed = None;
        for ((key, _), row) in self.rows.iter().zip(0_u64..) {
            needs += u64::from(!previous.contains_key(key));
            if needs > allowed {
                crossed.get_or_insert(row);
            }
        }
        needs += self.beyond;
        if needs <= allowed {
            return Ok(self.rows.into_iter().collect());
        }
        let row = crossed.unwrap_or(stored);
        let origin = self.origins.partition_point(|(first, _)| *first <= row);
        let subject = self.origins.get(origin.saturating_sub(1));
        Err(CompileError::Full {
            map: self.map,
            limit: self.limit,
            allowed: self.allowed,
            needs,
            subject: subject.map_or(Subject::Policy, |(_, subject)| subject.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(allowed: u32, previous: &[u32], new: &[u32]) -> Result<Vec<u32>, String> {
        let mut entries = Entries::new("SETS", "sets", allowed);
        for key in new {
            entries.begin(Subject::Vpc(format!("vpc{key}").parse().unwrap()));
            entries.add(*key, ());
        }
        let previous = previous.iter().map(|key| (*key, ())).collect();
        let finished = entries
            .finish(&previous)
            .map_err(|error| error.to_string())?;
        Ok(finished.into_keys().collect())
    }

    #[test]
    fn old_and_new_must_fit_together() {
        assert_eq!(fill(3, &[1, 2, 3], &[2, 3]), Ok(vec![2, 3]));
        assert_eq!(fill(4, &[1, 2, 3], &[3, 4]), Ok(vec![3, 4]));
        let refused = fill(3, &[1, 2, 3], &[3, 4, 5]).unwrap_err();
        assert_eq!(
            refused,
            "VPC \"vpc4\" goes beyond what SETS holds: 5 entries are needed, with those that \
             stay until the old policy has gone, and the limit `sets` is 3; raise it with \
             `sg-ctl limits set sets=16`, or make the policy smaller"
        );
    }

    #[test]
    fn all_that_is_needed_is_counted() {
        let refused = fill(2, &[], &[1, 2, 3, 4]).unwrap_err();
        assert!(refused.starts_with("VPC \"vpc3\" goes beyond"), "{refused}");
        assert!(refused.contains(": 4 entries are needed"), "{refused}");
    }
}
