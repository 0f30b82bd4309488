//! Port tables: from what rules admit to sorted intervals, each table kept once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use sg_common::tables::{PortEntry, PortTable, RuleSlot, Service};

use super::arena::{Arena, Slice, Slices};
use super::limits::{CompileError, Subject};
use crate::policy::model::Traffic;

/// The map that tables lie in, and the limit, as people know them.
const MAP: &str = "PORTS";
const LIMIT: &str = "port_entries";

/// An interval of services that one rule admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admission {
    /// Where two admit one service, the lower order has it.
    pub(super) order: u32,
    /// The lowest service.
    pub(super) first: u32,
    /// The highest service, itself included.
    pub(super) last: u32,
    /// The rule.
    pub(super) rule: RuleSlot,
}

impl Admission {
    /// Whether every port of the protocol is admitted.
    pub(super) fn admits_whole(&self, protocol: u8) -> bool {
        let (first, last) = Traffic::Protocol(protocol).services();
        self.first <= first && last <= self.last
    }
}

/// Writes the table that finds, for every service, the lowest order that admits it.
///
/// Sweeps over the intervals by their start; the heap holds those that have begun.
fn write_table(admissions: &mut [Admission], table: &mut Vec<PortEntry>) {
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
    admissions.sort_unstable_by_key(|admission| (admission.first, admission.order));
    let mut begun: BinaryHeap<Reverse<(u32, u32, RuleSlot)>> = BinaryHeap::new();
    let mut coming = admissions.iter().peekable();
    let mut at = 0;
    loop {
        while let Some(next) = coming.next_if(|next| next.first <= at) {
            begun.push(Reverse((next.order, next.last, next.rule)));
        }
        while begun.peek().is_some_and(|Reverse((_, last, _))| *last < at) {
            begun.pop();
        }
        let next_start = coming.peek().map(|next| next.first);
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
pub(super) struct PortTables<'a> {
    tables: Slices<'a, PortEntry>,
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

impl<'a> PortTables<'a> {
    /// No tables yet, and room for as many as are expected.
    pub(super) fn new(previous: &'a Arena<PortEntry>, limit: u32, expected: usize) -> Self {
        Self {
            tables: Slices::new((MAP, LIMIT, limit), previous, expected),
            scratch: Vec::new(),
        }
    }

    /// Says whose tables come next.
    pub(super) fn begin(&mut self, subject: &Subject) {
        self.tables.begin(subject);
    }

    /// The table of what these rules admit together. Leaves the admissions in another order.
    pub(super) fn table(&mut self, admissions: &mut [Admission]) -> Result<PortTable, TooMuch> {
        write_table(admissions, &mut self.scratch);
        if self.scratch.len() > PortTable::MAX_LENGTH as usize {
            return Err(TooMuch::Intervals(self.scratch.len()));
        }
        let Slice { offset, length } = self.tables.place(&self.scratch);
        Ok(PortTable { offset, length })
    }

    /// All tables in their places, if they have found some.
    pub(super) fn finish(self) -> Result<Arena<PortEntry>, CompileError> {
        self.tables.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(order: u32, first: u32, last: u32) -> Admission {
        Admission {
            order,
            first,
            last,
            rule: RuleSlot(order + 1),
        }
    }

    fn check(admissions: &[(u32, u32, u32)], wanted: &[(u32, u32)]) {
        let mut admissions: Vec<_> = admissions
            .iter()
            .map(|&(o, f, l)| admission(o, f, l))
            .collect();
        let mut table = Vec::new();
        write_table(&mut admissions, &mut table);
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
    fn the_lowest_order_admits_where_rules_overlap() {
        check(&[(1, 10, 20), (0, 15, 30)], &[(10, 2), (15, 1), (31, 0)]);
        check(&[(0, 10, 20), (1, 15, 30)], &[(10, 1), (21, 2), (31, 0)]);
        check(
            &[(1, 10, 40), (0, 20, 30)],
            &[(10, 2), (20, 1), (31, 2), (41, 0)],
        );
    }

    #[test]
    fn neighbours_of_one_rule_are_one_interval() {
        let mut admissions = [(0, 10, 20), (1, 21, 30)].map(|(o, f, l)| Admission {
            rule: RuleSlot(9),
            ..admission(o, f, l)
        });
        let mut table = Vec::new();
        write_table(&mut admissions, &mut table);
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
        let mut scattered: Vec<_> = scattered.map(|n| admission(n, n * 2, n * 2)).collect();
        let length = scattered.len() * 2;
        assert_eq!(
            tables.table(&mut scattered),
            Err(TooMuch::Intervals(length))
        );
    }
}
