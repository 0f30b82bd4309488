//! Port tables: from what rules admit to sorted intervals, each table kept once.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};
use sg_common::tables::{PortEntry, PortTable, RuleSlot, Service};

use super::image::PortArena;
use crate::policy::model::Traffic;

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
    hasher: DefaultHashBuilder,
    previous: &'a PortArena,
    /// The tables that the previous image does not have, one behind the other.
    entries: Vec<PortEntry>,
    /// By content: the tables of this image and of the previous one.
    known: HashTable<Known>,
    /// Those of this image, in the order of their first use.
    used: Vec<Placed>,
    places: Places,
    /// Entries of tables that found no place.
    beyond: u64,
    scratch: Vec<PortEntry>,
}

struct Known {
    hash: u64,
    placed: Placed,
    is_used: bool,
}

/// A table with its place, and where its content is.
#[derive(Clone, Copy)]
struct Placed {
    table: PortTable,
    /// Where it lies in [`PortTables::entries`]; `None`: in the previous image.
    first: Option<usize>,
}

impl Placed {
    fn content<'e>(self, previous: &'e PortArena, entries: &'e [PortEntry]) -> &'e [PortEntry] {
        match self.first {
            None => previous.entries(self.table),
            Some(first) => {
                let last = first + self.table.length as usize;
                entries.get(first..last).unwrap_or_default()
            }
        }
    }
}

/// A table of so many entries that the search would not reach its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong(pub(super) usize);

impl<'a> PortTables<'a> {
    /// No tables yet, and room for as many as are expected. Those that the previous image has too
    /// will keep their places.
    pub(super) fn new(previous: &'a PortArena, limit: u32, expected: usize) -> Self {
        let hasher = DefaultHashBuilder::default();
        let mut known = HashTable::with_capacity(expected.max(previous.tables().len()));
        for &table in previous.tables() {
            let hash = hash_of(&hasher, previous.entries(table));
            let placed = Placed { table, first: None };
            let of_previous = Known {
                hash,
                placed,
                is_used: false,
            };
            known.insert_unique(hash, of_previous, |known| known.hash);
        }
        Self {
            hasher,
            previous,
            entries: Vec::new(),
            known,
            used: Vec::new(),
            places: Places::around(previous.tables(), limit),
            beyond: 0,
            scratch: Vec::new(),
        }
    }

    /// The table of what these rules admit together. Leaves the admissions in another order. Once
    /// the map is full the answer means nothing, see [`Self::overflow`].
    pub(super) fn table(&mut self, admissions: &mut [Admission]) -> Result<PortTable, TooLong> {
        let mut scratch = std::mem::take(&mut self.scratch);
        write_table(admissions, &mut scratch);
        let placed = self.placed(&scratch);
        self.scratch = scratch;
        placed
    }

    fn placed(&mut self, wanted: &[PortEntry]) -> Result<PortTable, TooLong> {
        let length = match u32::try_from(wanted.len()) {
            Ok(0) => return Ok(PortTable::EMPTY),
            Ok(length) if length <= PortTable::MAX_LENGTH => length,
            _ => return Err(TooLong(wanted.len())),
        };
        let hash = hash_of(&self.hasher, wanted);
        let is_wanted = |known: &Known| {
            known.hash == hash && known.placed.content(self.previous, &self.entries) == wanted
        };
        if let Some(known) = self.known.find_mut(hash, is_wanted) {
            if !known.is_used {
                known.is_used = true;
                self.used.push(known.placed);
            }
            return Ok(known.placed.table);
        }
        let offset = match self.places.take(length) {
            Some(offset) => offset,
            // There will be no image; what it would need is counted, each table once while that
            // is not hopeless.
            None => {
                self.beyond += u64::from(length);
                if self.beyond > u64::from(self.places.limit) {
                    return Ok(PortTable::EMPTY);
                }
                u32::MAX - length
            }
        };
        let table = PortTable { offset, length };
        let placed = Placed {
            table,
            first: Some(self.entries.len()),
        };
        let new = Known {
            hash,
            placed,
            is_used: true,
        };
        self.used.push(placed);
        self.entries.extend_from_slice(wanted);
        self.known.insert_unique(hash, new, |known| known.hash);
        Ok(table)
    }

    /// How many entries the map would need, if that is more than it has.
    pub(super) fn overflow(&self) -> Option<u64> {
        (self.beyond > 0).then(|| u64::from(self.places.end) + self.beyond)
    }

    /// All tables in their places.
    pub(super) fn into_arena(mut self) -> PortArena {
        self.used.sort_by_key(|placed| placed.table.offset);
        let content = |placed: &Placed| placed.content(self.previous, &self.entries);
        PortArena::from_tables(
            self.used
                .iter()
                .map(|placed| (placed.table, content(placed))),
        )
    }
}

fn hash_of(hasher: &DefaultHashBuilder, entries: &[PortEntry]) -> u64 {
    let mut state = hasher.build_hasher();
    for entry in entries {
        state.write_u64(u64::from(entry.start.0) << 32 | u64::from(entry.rule.0));
    }
    state.finish()
}

/// The places of the port map that the previous image leaves free.
struct Places {
    /// (length, offset) of the gaps between tables.
    gaps: BTreeSet<(u32, u32)>,
    end: u32,
    limit: u32,
}

impl Places {
    fn around(tables: &[PortTable], limit: u32) -> Self {
        let mut places = Self {
            gaps: BTreeSet::new(),
            end: 0,
            limit,
        };
        for table in tables {
            if table.offset > places.end {
                places.gaps.insert((table.offset - places.end, places.end));
            }
            places.end = table.offset + table.length;
        }
        places
    }

    /// The tightest gap that fits, or the end.
    fn take(&mut self, length: u32) -> Option<u32> {
        if let Some(&(size, offset)) = self.gaps.range((length, 0)..).next() {
            self.gaps.remove(&(size, offset));
            if size > length {
                self.gaps.insert((size - length, offset + length));
            }
            return Some(offset);
        }
        let offset = self.end;
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= self.limit)?;
        self.end = end;
        Some(offset)
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
    fn new_tables_keep_clear_of_the_previous_ones() {
        let before = PortArena::default();
        let mut first = PortTables::new(&before, 100, 0);
        let kept = first.table(&mut [admission(0, 10, 20)]).unwrap();
        let gone = first.table(&mut [admission(1, 10, 20)]).unwrap();
        let last = first.table(&mut [admission(2, 10, 20)]).unwrap();
        let first = first.into_arena();

        let mut second = PortTables::new(&first, 100, 0);
        assert_eq!(second.table(&mut [admission(0, 10, 20)]), Ok(kept));
        assert_eq!(second.table(&mut [admission(2, 10, 20)]), Ok(last));
        let new = second.table(&mut [admission(3, 10, 20)]).unwrap();
        assert_eq!(
            new,
            PortTable {
                offset: 6,
                length: 2
            }
        );
        let second = second.into_arena();

        let mut third = PortTables::new(&second, 100, 0);
        let newest = third.table(&mut [admission(4, 10, 20)]).unwrap();
        assert_eq!(
            newest, gone,
            "a place freed before the previous image is used again"
        );
    }

    #[test]
    fn a_table_that_fits_nowhere_is_refused() {
        let before = PortArena::default();
        let mut tables = PortTables::new(&before, 3, 0);
        tables.table(&mut [admission(0, 10, 20)]).unwrap();
        assert_eq!(tables.overflow(), None);
        tables.table(&mut [admission(1, 10, 20)]).unwrap();
        assert_eq!(tables.overflow(), Some(4));
        let scattered = 0..=PortTable::MAX_LENGTH / 2;
        let mut scattered: Vec<_> = scattered.map(|n| admission(n, n * 2, n * 2)).collect();
        let length = scattered.len() * 2;
        assert_eq!(tables.table(&mut scattered), Err(TooLong(length)));
    }
}
