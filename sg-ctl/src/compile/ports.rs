//! Port tables: from what rules admit to sorted intervals, each table kept once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use sg_common::ids::RuleSlot;
use sg_common::ports::{PortEntry, PortTable, Service};
use sg_common::protocol::{ICMP, ICMPV6, TCP, UDP};

use super::arena::{Arena, Slice, Slices};
use super::limits::Subject;
use crate::policy::model::Traffic;

/// The map that tables lie in, and the limit, as people know them.
const MAP: &str = "PORTS";
const LIMIT: &str = "port_entries";

/// An interval of services that one rule admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admission {
    /// The group that the rule is of, by number. Where two rules admit one service, that of the lower
    /// group has it, and within a group that of the lower [`Self::rank`].
    pub(super) group: u32,
    /// The lowest service.
    pub(super) first: u32,
    /// The highest service, itself included.
    pub(super) last: u32,
    /// The rule.
    pub(super) rule: RuleSlot,
}

impl Admission {
    /// Orders the rules of a group that have like peers as [`Traffic`] does.
    fn rank(&self) -> u64 {
        let width = self.last - self.first;
        let protocol = (self.first >> 16) as u8;
        let kind = match protocol {
            _ if width > 0xffff => 0,
            TCP => 1,
            UDP => 2,
            ICMP => 3,
            ICMPV6 => 4,
            _ => 5,
        };
        let of_messages = match (kind, width) {
            (3 | 4, 0) => 2,
            (3 | 4, 0xff) => 1,
            _ => 0,
        };
        kind << 60 | of_messages << 56 | u64::from(self.first) << 24 | u64::from(self.last)
    }

    /// Whether every port of the protocol is admitted.
    pub(super) fn admits_whole(&self, protocol: u8) -> bool {
        let (first, last) = Traffic::Protocol(protocol).services();
        self.first <= first && last <= self.last
    }
}

/// The group, rank and place of an admission, its highest service, and its rule.
type Begun = ((u32, u64, usize), u32, RuleSlot);

/// Writes the table that finds, for every service, the rule that admits it. Of rules that are alike in
/// all else the first one is taken.
///
/// Sweeps over the intervals by their start; the heap holds those that have begun.
fn write_table(admissions: &[Admission], table: &mut Vec<PortEntry>) {
    table.clear();
    if let [only] = admissions {
        table.push(PortEntry {
            start: Service(only.first),
            rule: only.rule,
        });
        if only.last + 1 < Service::END {
            table.push(PortEntry {
                start: Service(only.last + 1),
                rule: RuleSlot::NONE,
            });
        }
        return;
    }
    let order = |(at, admission): (usize, &Admission)| (admission.group, admission.rank(), at);
    let mut coming: Vec<_> = admissions.iter().enumerate().collect();
    coming.sort_unstable_by_key(|(at, admission)| (admission.first, *at));
    let mut coming = coming.into_iter().peekable();
    let mut begun: BinaryHeap<Reverse<Begun>> = BinaryHeap::new();
    let mut at = 0;
    loop {
        while let Some(next) = coming.next_if(|(_, next)| next.first <= at) {
            begun.push(Reverse((order(next), next.1.last, next.1.rule)));
        }
        while begun.peek().is_some_and(|Reverse((_, last, _))| *last < at) {
            begun.pop();
        }
        let next_start = coming.peek().map(|(_, next)| next.first);
        let (rule, end) = match begun.peek() {
            Some(Reverse((_, last, rule))) => (*rule, Some(last + 1)),
            None => (RuleSlot::NONE, None),
        };
        // Before the first entry there is no rule, and neighbours of one rule are one interval.
        let before = table.last().map_or(RuleSlot::NONE, |entry| entry.rule);
        if rule != before && at < Service::END {
            table.push(PortEntry {
                start: Service(at),
                rule,
            });
        }
        at = match (end, next_start) {
            (Some(end), Some(start)) => end.min(start),
            (Some(end), None) => end,
            (None, Some(start)) => start,
            (None, None) => return,
        };
    }
}

/// The port tables of an image in the making.
pub(super) struct PortTables {
    tables: Slices<PortEntry>,
    scratch: Vec<PortEntry>,
}

/// Why the rules of a policy have no tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooMuch {
    /// A table of so many entries that the search would not reach its end.
    Intervals(usize),
    /// Prefixes that hold one another so often.
    Overlaps(usize),
}

impl PortTables {
    /// No tables yet, and room for as many as are expected.
    pub(super) fn new(previous: &Arena<PortEntry>, limit: u32, expected: usize) -> Self {
        Self {
            tables: Slices::new((MAP, LIMIT, limit), previous, expected),
            scratch: Vec::new(),
        }
    }

    /// Says whose tables come next.
    pub(super) fn begin(&mut self, subject: &Subject) {
        self.tables.begin(subject);
    }

    /// The table of what these rules admit together.
    pub(super) fn table(&mut self, admissions: &[Admission]) -> Result<PortTable, TooMuch> {
        write_table(admissions, &mut self.scratch);
        if self.scratch.len() > PortTable::MAX_LENGTH as usize {
            return Err(TooMuch::Intervals(self.scratch.len()));
        }
        let Slice { offset, length } = self.tables.place(&self.scratch);
        Ok(PortTable { offset, length })
    }

    /// Where the tables lie.
    pub(super) fn slices(&mut self) -> &mut Slices<PortEntry> {
        &mut self.tables
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::model::{IcmpMatch, PortRange};

    fn admission(group: u32, first: u32, last: u32) -> Admission {
        Admission {
            group,
            first,
            last,
            rule: RuleSlot(group + 1),
        }
    }

    fn check(admissions: &[(u32, u32, u32)], wanted: &[(u32, u32)]) {
        let admissions: Vec<_> = admissions
            .iter()
            .map(|&(o, f, l)| admission(o, f, l))
            .collect();
        let mut table = Vec::new();
        write_table(&admissions, &mut table);
        let found: Vec<_> = table
            .iter()
            .map(|entry| (entry.start.0, entry.rule.0))
            .collect();
        assert_eq!(found, wanted, "{admissions:?}");
    }

    #[test]
    fn gaps_are_intervals_of_no_rule() {
        check(&[(0, 10, 20)], &[(10, 1), (21, 0)]);
        check(
            &[(0, 10, 20), (1, 30, 30)],
            &[(10, 1), (21, 0), (30, 2), (31, 0)],
        );
        check(&[], &[]);
    }

    #[test]
    fn the_first_group_admits_where_rules_overlap() {
        check(&[(1, 10, 20), (0, 15, 30)], &[(10, 2), (15, 1), (31, 0)]);
        check(&[(0, 10, 20), (1, 15, 30)], &[(10, 1), (21, 2), (31, 0)]);
        check(
            &[(1, 10, 40), (0, 20, 30)],
            &[(10, 2), (20, 1), (31, 2), (41, 0)],
        );
    }

    #[test]
    fn rules_of_a_group_rank_as_their_traffic() {
        let icmp = [
            IcmpMatch::Any,
            IcmpMatch::Type(0),
            IcmpMatch::Type(8),
            IcmpMatch::TypeCode(0, 0),
            IcmpMatch::TypeCode(8, 1),
        ];
        let ports = [(0, 0), (0, 65_535), (22, 22), (22, 80), (443, 443)];
        let ports = ports.map(|(first, last)| PortRange::new(first, last).unwrap());
        let mut traffic = vec![Traffic::All, Traffic::Protocol(4), Traffic::Protocol(47)];
        traffic.extend(icmp.map(Traffic::Icmp));
        traffic.extend(icmp.map(Traffic::Icmpv6));
        traffic.extend(ports.map(Traffic::Tcp));
        traffic.extend(ports.map(Traffic::Udp));
        let rank = |traffic: &Traffic| {
            let (first, last) = traffic.services();
            admission(0, first, last).rank()
        };
        let mut ranked = traffic.clone();
        traffic.sort_unstable();
        ranked.sort_unstable_by_key(rank);
        assert_eq!(ranked, traffic);
    }

    #[test]
    fn neighbours_of_one_rule_are_one_interval() {
        let admissions = [(0, 10, 20), (1, 21, 30)].map(|(o, f, l)| Admission {
            rule: RuleSlot(9),
            ..admission(o, f, l)
        });
        let mut table = Vec::new();
        write_table(&admissions, &mut table);
        assert_eq!(table.len(), 2, "{table:?}");
    }

    #[test]
    fn every_service_up_to_the_last_is_one_entry() {
        let (first, last) = Traffic::All.services();
        check(&[(0, first, last)], &[(0, 1)]);
        let (first, last) = Traffic::Protocol(255).services();
        check(&[(0, first, last)], &[(0xff_0000, 1)]);
    }

    #[test]
    fn a_table_longer_than_the_search_is_refused() {
        let before = Arena::default();
        let mut tables = PortTables::new(&before, 1 << 20, 0);
        let scattered = 0..=PortTable::MAX_LENGTH / 2;
        let scattered: Vec<_> = scattered.map(|n| admission(n, n * 2, n * 2)).collect();
        let length = scattered.len() * 2;
        assert_eq!(tables.table(&scattered), Err(TooMuch::Intervals(length)));
    }
}
