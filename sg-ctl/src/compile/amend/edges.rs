//! Tables of prefixes taken apart into where their values change, and changed in one region.

use std::collections::{BTreeMap, BTreeSet};

use sg_common::addr::Family;
use sg_common::ranges::{IntervalV4, IntervalV6, RangeSlot, RangeTable};
use sg_common::tables::{PortEntry, PortTable};

use super::ground::{Answer, ArenaKind, Segments, Whole};
use crate::compile::arena::{Arena, Slice};
use crate::compile::image::Image;
use crate::compile::ranges::{Edge, RangeArenas, push_edge};

/// Slices of the tables in force by their places, as far as they have been looked at.
#[derive(Default)]
pub(crate) struct Seen {
    pub(super) slots: BTreeMap<Slice, Vec<RangeSlot>>,
    pub(super) intervals_v4: BTreeMap<Slice, Vec<IntervalV4>>,
    pub(super) intervals_v6: BTreeMap<Slice, Vec<IntervalV6>>,
    pub(super) nested: BTreeMap<Slice, Vec<RangeTable>>,
    pub(super) port_tables: BTreeMap<Slice, Vec<PortTable>>,
    pub(super) ports: BTreeMap<Slice, Vec<PortEntry>>,
}

/// What a table lies in.
pub(crate) type Footprint = BTreeSet<(ArenaKind, Slice)>;

/// Slices with their entries, by offset.
pub(super) fn slices<E>(seen: &BTreeMap<Slice, Vec<E>>) -> impl Iterator<Item = (Slice, &[E])> {
    seen.iter()
        .map(|(slice, entries)| (*slice, entries.as_slice()))
}

impl Seen {
    /// Where the values of a table change, in order, and what it lies in.
    pub(crate) fn take_apart(
        &mut self,
        ground: &mut impl Segments,
        table: &RangeTable,
        family: Family,
    ) -> Answer<(Vec<Edge>, Footprint)> {
        let mut footprint = Footprint::new();
        let mut edges = Vec::new();
        match family {
            Family::V4 => {
                let slots = self.slots_of(ground, table, &mut footprint)?;
                let mut pieces = Pieces {
                    seen: &mut self.intervals_v4,
                    kind: ArenaKind::IntervalsV4,
                    fetch: |index| ground.intervals_v4(index),
                    entry: |interval: &IntervalV4| (u64::from(interval.start), interval.value),
                };
                pieces.walk(table, &slots, &mut footprint, |at, value| {
                    push_edge(&mut edges, 0xffff_0000_0000 | u128::from(at), value);
                })?;
            }
            Family::V6 => {
                let upper = self.halves(ground, table, &mut footprint)?;
                let behind = upper.iter().skip(1).map(|(half, _)| *half);
                let behind = behind.chain(std::iter::once(u64::MAX));
                for (&(half, value), behind) in upper.iter().zip(behind) {
                    if value & RangeTable::NESTED == 0 {
                        push_edge(&mut edges, u128::from(half) << 64, value);
                        continue;
                    }
                    let index = value & !RangeTable::NESTED;
                    let nested = ground.nested(index)?;
                    let slice = Slice {
                        offset: index,
                        length: 1,
                    };
                    self.nested.insert(slice, vec![nested]);
                    footprint.insert((ArenaKind::NestedRanges, slice));
                    let lower = self.halves(ground, &nested, &mut footprint)?;
                    // Neighbours that say the same have one nested table. There are no more of them
                    // than have edges of their own.
                    let last = behind.max(half + 1) - 1;
                    for half in half..=last {
                        let at = u128::from(half) << 64;
                        push_edge(&mut edges, at, 0);
                        for &(lower, value) in &lower {
                            push_edge(&mut edges, at | u128::from(lower), value);
                        }
                    }
                }
            }
        }
        Ok((edges, footprint))
    }

    fn halves(
        &mut self,
        ground: &mut impl Segments,
        table: &RangeTable,
        footprint: &mut Footprint,
    ) -> Answer<Vec<(u64, u32)>> {
        let slots = self.slots_of(ground, table, footprint)?;
        let mut pieces = Pieces {
            seen: &mut self.intervals_v6,
            kind: ArenaKind::IntervalsV6,
            fetch: |index| ground.intervals_v6(index),
            entry: |interval: &IntervalV6| (interval.start, interval.value),
        };
        let mut edges = Vec::new();
        pieces.walk(table, &slots, footprint, |at, value| {
            push_edge(&mut edges, at, value);
        })?;
        Ok(edges)
    }

    fn slots_of(
        &mut self,
        ground: &mut impl Segments,
        table: &RangeTable,
        footprint: &mut Footprint,
    ) -> Answer<Vec<RangeSlot>> {
        if table.slots == 0 {
            return Ok(Vec::new());
        }
        let slice = Slice {
            offset: table.first_slot,
            length: table.slots,
        };
        footprint.insert((ArenaKind::RangeSlots, slice));
        let slots = ground.range_slots(slice)?;
        self.slots.insert(slice, slots.clone());
        Ok(slots)
    }
}

/// The segments of one level of a table.
struct Pieces<'a, I, F, E> {
    seen: &'a mut BTreeMap<Slice, Vec<I>>,
    kind: ArenaKind,
    /// The segment that an index lies in.
    fetch: F,
    /// Where an interval begins, and its value.
    entry: E,
}

impl<I, F, E> Pieces<'_, I, F, E>
where
    F: FnMut(u32) -> Answer<(Slice, Vec<I>)>,
    E: Fn(&I) -> (u64, u32),
{
    /// Visits where values may change, in order.
    fn walk(
        &mut self,
        table: &RangeTable,
        slots: &[RangeSlot],
        footprint: &mut Footprint,
        mut visit: impl FnMut(u64, u32),
    ) -> Answer<()> {
        for (slot, number) in slots.iter().zip(0_u64..) {
            // The last slot may reach up to the end of all addresses, but begins before it.
            let start = table.base + (number << table.shift);
            if slot.length == 0 {
                visit(start, slot.offset);
                continue;
            }
            let segment = self.segment(slot.offset)?;
            footprint.insert((self.kind, segment));
            let first = (slot.offset - segment.offset) as usize;
            let intervals = self.seen.get(&segment).map_or(&[][..], Vec::as_slice);
            let within = intervals.get(first..first + slot.length as usize);
            let within = within.ok_or(Whole::because("a table of prefixes has a hole"))?;
            for interval in within {
                let (at, value) = (self.entry)(interval);
                // The first one is open where the slot begins.
                visit(at.max(start), value);
            }
        }
        Ok(())
    }

    fn segment(&mut self, index: u32) -> Answer<Slice> {
        let beyond = Slice {
            offset: index,
            length: u32::MAX,
        };
        let before = self.seen.range(..=beyond).next_back();
        if let Some((slice, _)) = before
            && index < slice.end()
        {
            return Ok(*slice);
        }
        let (slice, intervals) = (self.fetch)(index)?;
        self.seen.insert(slice, intervals);
        Ok(slice)
    }
}

/// How many tables of an image have each slice.
pub fn uses(image: &Image) -> BTreeMap<(ArenaKind, Slice), u32> {
    let ranges = &image.ranges;
    let mut uses = BTreeMap::new();
    for (index, table) in image.policy_ranges.iter().chain(&image.list_ranges) {
        let mut footprint = Footprint::new();
        // The lowest bit of an index tells the family.
        match index & 1 == Family::V4 as u32 {
            true => {
                let intervals = (&ranges.intervals_v4, ArenaKind::IntervalsV4);
                walk(ranges, intervals, table, &mut footprint);
            }
            false => walk_halves(ranges, table, &mut footprint),
        }
        for slice in footprint {
            *uses.entry(slice).or_default() += 1;
        }
    }
    uses
}

fn walk_halves(ranges: &RangeArenas, table: &RangeTable, footprint: &mut Footprint) {
    let intervals = (&ranges.intervals_v6, ArenaKind::IntervalsV6);
    let (direct, segments) = walk(ranges, intervals, table, footprint);
    let within = segments.iter().flat_map(|(_, intervals)| intervals.iter());
    let values = direct
        .into_iter()
        .chain(within.map(|interval| interval.value));
    for value in values.filter(|value| value & RangeTable::NESTED != 0) {
        let index = value & !RangeTable::NESTED;
        let slice = Slice {
            offset: index,
            length: 1,
        };
        let is_new = footprint.insert((ArenaKind::NestedRanges, slice));
        if let Some(nested) = ranges.nested.entry(index).filter(|_| is_new) {
            walk_halves(ranges, nested, footprint);
        }
    }
}

type Segment<'a, I> = (Slice, &'a [I]);

/// The values of slots that have one value, and the segments of the others.
fn walk<'a, I: Copy>(
    ranges: &RangeArenas,
    (intervals, kind): (&'a Arena<I>, ArenaKind),
    table: &RangeTable,
    footprint: &mut Footprint,
) -> (Vec<u32>, Vec<Segment<'a, I>>) {
    let slice = Slice {
        offset: table.first_slot,
        length: table.slots,
    };
    footprint.insert((ArenaKind::RangeSlots, slice));
    let mut direct = Vec::new();
    let mut segments: Vec<Segment<'a, I>> = Vec::new();
    for slot in ranges.slots.entries(slice) {
        if slot.length == 0 {
            direct.push(slot.offset);
            continue;
        }
        let is_last = |(last, _): &Segment<'a, I>| (last.offset..last.end()).contains(&slot.offset);
        // Slots of one segment are neighbours.
        if !segments.last().is_some_and(is_last)
            && let Some(segment) = intervals.slice_at(slot.offset)
        {
            footprint.insert((kind, segment.0));
            segments.push(segment);
        }
    }
    (direct, segments)
}

/// The value at an address.
pub(super) fn value_at(edges: &[Edge], at: u128) -> u32 {
    let behind = edges.partition_point(|(start, _)| *start <= at);
    let before = behind.checked_sub(1).and_then(|before| edges.get(before));
    before.map_or(0, |(_, value)| *value)
}

/// The part of a table within a region: the value where it begins, and where that changes.
pub(super) fn within(edges: &[Edge], (first, last): (u128, u128)) -> Vec<Edge> {
    let begins = edges.partition_point(|(at, _)| *at <= first);
    let ends = edges.partition_point(|(at, _)| *at <= last);
    let inner = edges.get(begins..ends).unwrap_or_default();
    let mut part = vec![(first, value_at(edges, first))];
    part.extend_from_slice(inner);
    part
}

/// Puts another part in the place of the one that the region has.
pub(super) fn splice(edges: &[Edge], (first, last): (u128, u128), part: &[Edge]) -> Vec<Edge> {
    let begins = edges.partition_point(|(at, _)| *at < first);
    let mut spliced = edges.get(..begins).unwrap_or_default().to_vec();
    for &(at, value) in part {
        push_edge(&mut spliced, at, value);
    }
    if let Some(behind) = last.checked_add(1) {
        push_edge(&mut spliced, behind, value_at(edges, behind));
        let rest = edges.partition_point(|(at, _)| *at <= behind);
        for &(at, value) in edges.get(rest..).unwrap_or_default() {
            push_edge(&mut spliced, at, value);
        }
    }
    spliced
}
