//! Tables of prefixes: from folded prefixes to sorted intervals under a direct table.
//!
//! The intervals of a table are laid in segments that begin at round addresses, each a slice of
//! its own. So a prefix that comes or goes makes one new segment and a new direct table, and the
//! rest is what the previous image has. The search is [`sg_common::ranges`].

use std::hash::Hash;

use serde::{Deserialize, Serialize};
use sg_common::addr::Family;
use sg_common::ports::PortTable;
use sg_common::ranges::{Interval, IntervalV4, IntervalV6, RangeSlot, RangeTable, Ranges};

use super::arena::{Arena, Slice, Slices, Which};
use super::fold::Prefix;
use super::image::Image;
use super::limits::{CompileError, Limits, Subject};

/// Tables up to so many intervals have twice as many slots, so that most slots have one value and
/// the lookup ends there. Larger ones have a slot for four to eight intervals, which keeps an IPv4
/// prefix below 24 bytes and takes three halvings in one or two cache lines, or wider ones where
/// bits tell the values.
const DENSE: usize = 64;
/// One in so many intervals may be none that bits can tell, and is then halved for in a wide slot.
const ODD_ONES: usize = 16;
/// One in so many addresses may lie far above the others.
const STRAGGLERS: usize = 256;
/// Slots of a segment, as a power of two: some thousand intervals, so that a change writes a few
/// kilobytes, and what segments repeat at their seams is nothing.
pub(super) const SEGMENT_BITS: u32 = 8;

/// What the tables of prefixes lie in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeArenas {
    /// RANGE_SLOTS.
    pub slots: Arena<RangeSlot>,
    /// INTERVALS_V4.
    pub intervals_v4: Arena<IntervalV4>,
    /// INTERVALS_V6.
    pub intervals_v6: Arena<IntervalV6>,
    /// NESTED_RANGES.
    pub nested: Arena<RangeTable>,
}

impl Ranges for RangeArenas {
    fn slot(&self, index: u32) -> Option<RangeSlot> {
        self.slots.entry(index).copied()
    }

    fn interval_v4(&self, index: u32) -> Option<IntervalV4> {
        self.intervals_v4.entry(index).copied()
    }

    fn interval_v6(&self, index: u32) -> Option<IntervalV6> {
        self.intervals_v6.entry(index).copied()
    }

    fn nested(&self, index: u32) -> Option<RangeTable> {
        self.nested.entry(index).copied()
    }
}

/// What the tables of prefixes lie in, in the making.
pub(super) struct RangeTables {
    slots: Slices<RangeSlot>,
    intervals_v4: Slices<IntervalV4>,
    intervals_v6: Slices<IntervalV6>,
    nested: Slices<RangeTable>,
    numbers: Slices<PortTable>,
}

/// A table of prefixes and where its values change.
///
/// Those of IPv6 have two levels: one over the first halves of addresses, and for each first half
/// within which the value changes, a nested one over the second halves. The edges are of the upper one.
#[derive(Default)]
pub(super) struct Laid {
    edges: Vec<(u64, u32)>,
    aligned: Aligned,
    extent: Option<Extent>,
    pub(super) table: RangeTable,
}

/// How many edges have so many zeros at the end of their addresses.
#[derive(Clone, Copy)]
struct Aligned([u32; u64::BITS as usize + 1]);

impl Default for Aligned {
    fn default() -> Self {
        Self([0; u64::BITS as usize + 1])
    }
}

impl Aligned {
    fn of(edges: Edges<'_>) -> Self {
        let mut aligned = Self::default();
        for (at, _) in edges {
            aligned.0[at.trailing_zeros() as usize] += 1;
        }
        aligned
    }

    /// Counts edges that were replaced by others.
    fn replace(&mut self, gone: Edges<'_>, come: Edges<'_>) {
        let (gone, come) = (Self::of(gone), Self::of(come));
        for ((count, gone), come) in self.0.iter_mut().zip(gone.0).zip(come.0) {
            *count = count.saturating_add(come).saturating_sub(gone);
        }
    }
}

impl RangeTables {
    /// No tables yet, beside those of the image in force, and room for the port tables of so many rules.
    pub(super) fn new(previous: &Image, limits: &Limits, rules: usize) -> Self {
        let intervals = limits.intervals.min(RangeTable::MAX_INTERVALS);
        let ranges = &previous.ranges;
        let names = |map| (map, "intervals", intervals);
        Self {
            slots: Slices::new(names("RANGE_SLOTS"), &ranges.slots, 0),
            intervals_v4: Slices::new(names("INTERVALS_V4"), &ranges.intervals_v4, 0),
            intervals_v6: Slices::new(names("INTERVALS_V6"), &ranges.intervals_v6, 0),
            nested: Slices::new(names("NESTED_RANGES"), &ranges.nested, 0),
            numbers: Slices::new(
                ("PORT_TABLES", "port_entries", limits.port_entries),
                &previous.port_tables,
                rules,
            ),
        }
    }

    /// Says whose tables come next.
    pub(super) fn begin(&mut self, subject: &Subject) {
        self.slots.begin(subject);
        self.intervals_v4.begin(subject);
        self.intervals_v6.begin(subject);
        self.nested.begin(subject);
        self.numbers.begin(subject);
    }

    /// What a prefix of a policy has for a value where it admits by this table.
    pub(super) fn value(&mut self, table: PortTable) -> u32 {
        match table {
            PortTable::EMPTY => 0,
            table => self.numbers.place(&[table]).offset + 1,
        }
    }

    /// Lays a table of where its values change.
    pub(super) fn lay(&mut self, family: Family, edges: &[Edge]) -> Laid {
        match family {
            Family::V4 => lay(v4_edges(edges), &mut self.intervals_v4, &mut self.slots),
            Family::V6 => {
                let upper = self.upper_edges(edges);
                lay(upper, &mut self.intervals_v6, &mut self.slots)
            }
        }
    }

    /// Lays a table anew where its values change within a region. `part` is what the region has, from
    /// its first address on; of IPv6, the region is no smaller than what has one first half.
    pub(super) fn change(
        &mut self,
        laid: &mut Laid,
        family: Family,
        region: (u128, u128),
        part: &[Edge],
    ) {
        let (first, last, part) = match family {
            Family::V4 => (low_v4(region.0), low_v4(region.1), v4_edges(part)),
            Family::V6 => (high(region.0), high(region.1), self.upper_edges(part)),
        };
        let end = match family {
            Family::V4 => IntervalV4::LAST,
            Family::V6 => IntervalV6::LAST,
        };
        let Replaced { gone, come, behind } = replace(&mut laid.edges, (first, last, end), &part);
        laid.aligned.replace(&gone, &come);
        // The edges that there are have the nested tables, each once.
        for index in nested(&come) {
            if let Some(table) = self.nested.entry(index) {
                self.nested.place(&[table]);
            }
        }
        for index in nested(&gone).chain(nested(&part)) {
            self.give_up_nested(index);
        }
        let (slots, within) = (&mut self.slots, (first, behind));
        match family {
            Family::V4 => lay_within(laid, within, &mut self.intervals_v4, slots),
            Family::V6 => lay_within(laid, within, &mut self.intervals_v6, slots),
        }
    }

    /// Where the values over first halves change. Each edge to a nested table is a user of it.
    fn upper_edges(&mut self, edges: &[Edge]) -> Vec<(u64, u32)> {
        let mut upper: Vec<(u64, u32)> = Vec::with_capacity(edges.len());
        let mut before = 0;
        for within in edges.chunk_by(|(a, _), (b, _)| high(*a) == high(*b)) {
            let (Some(&(first, value)), Some(&(_, last))) = (within.first(), within.last()) else {
                continue;
            };
            let half = high(first);
            if within.len() == 1 && low(first) == 0 {
                push_edge(&mut upper, half, value);
            } else {
                let mut lower = Vec::with_capacity(within.len() + 1);
                push_edge(&mut lower, 0, before);
                for &(start, value) in within {
                    push_edge(&mut lower, low(start), value);
                }
                let nested = RangeTable::NESTED | self.nest(lower);
                push_edge(&mut upper, half, nested);
                // Neighbours that say the same are one edge.
                if upper.last() != Some(&(half, nested)) {
                    self.give_up_nested(nested & !RangeTable::NESTED);
                }
                if let Some(next) = half.checked_add(1) {
                    push_edge(&mut upper, next, last);
                }
            }
            before = last;
        }
        upper
    }

    /// The index of a nested table, which has one user more. A nested table is one user of what it lies
    /// in, by however many it is used.
    fn nest(&mut self, edges: Vec<(u64, u32)>) -> u32 {
        let laid = lay(edges, &mut self.intervals_v6, &mut self.slots);
        let (slice, is_first) = self.nested.place_counted(&[laid.table]);
        if !is_first {
            give_up(&laid.table, &mut self.intervals_v6, &mut self.slots);
        }
        slice.offset
    }

    fn give_up_nested(&mut self, index: u32) {
        let table = self.nested.entry(index);
        let slice = Slice {
            offset: index,
            length: 1,
        };
        if let Some(table) = table
            && self.nested.release(slice)
        {
            give_up(&table, &mut self.intervals_v6, &mut self.slots);
        }
    }

    /// Whether everything has found a place.
    pub(super) fn check(&self) -> Result<(), CompileError> {
        self.intervals_v4.check()?;
        self.intervals_v6.check()?;
        self.nested.check()?;
        self.slots.check()?;
        self.numbers.check()
    }

    /// Puts these slices into an image.
    pub(super) fn put(&self, image: &mut Image, which: Which) {
        image.ranges = RangeArenas {
            slots: self.slots.arena(which),
            intervals_v4: self.intervals_v4.arena(which),
            intervals_v6: self.intervals_v6.arena(which),
            nested: self.nested.arena(which),
        };
        image.port_tables = self.numbers.arena(which);
    }

    /// What was made is in force, and no packet follows what was before.
    pub(super) fn settle(&mut self) {
        self.slots.settle();
        self.intervals_v4.settle();
        self.intervals_v6.settle();
        self.nested.settle();
        self.numbers.settle();
    }
}

/// The nested tables that edges lead to.
fn nested(edges: &[(u64, u32)]) -> impl Iterator<Item = u32> {
    edges.iter().filter_map(|(_, value)| nested_index(*value))
}

/// The nested table that a value stands for.
pub(super) fn nested_index(value: u32) -> Option<u32> {
    (value & RangeTable::NESTED != 0).then_some(value & !RangeTable::NESTED)
}

fn v4_edges(edges: &[Edge]) -> Vec<(u64, u32)> {
    let edges = edges.iter();
    edges
        .filter_map(|&(start, value)| Some((v4_key(start)?, value)))
        .collect()
}

/// What was done to edges.
struct Replaced {
    gone: Vec<(u64, u32)>,
    come: Vec<(u64, u32)>,
    /// The highest address of those.
    behind: u64,
}

/// Puts `part` in the place of the edges from `first` to `last`. Behind it, values are what they were.
fn replace(
    edges: &mut Vec<(u64, u32)>,
    (first, last, end): (u64, u64, u64),
    part: &[(u64, u32)],
) -> Replaced {
    let begins = edges.partition_point(|(at, _)| *at < first);
    let before = value_before(edges, begins);
    let mut come = vec![(first, 0)];
    for &(at, value) in part.iter().filter(|(at, _)| *at <= last) {
        if come.last().is_some_and(|(last, _)| *last == at) {
            come.pop();
        }
        come.push((at, value));
    }
    let behind = last.checked_add(1).filter(|behind| *behind <= end);
    let ends = edges.partition_point(|(at, _)| *at <= behind.unwrap_or(last));
    if let Some(behind) = behind {
        come.push((behind, value_before(edges, ends)));
    }
    let mut value = before;
    come.retain(|(_, next)| std::mem::replace(&mut value, *next) != *next);
    let gone = edges.splice(begins..ends, come.iter().copied()).collect();
    Replaced {
        gone,
        come,
        behind: behind.unwrap_or(last),
    }
}

/// The value just before the edge of this number.
fn value_before(edges: &[(u64, u32)], number: usize) -> u32 {
    let before = number.checked_sub(1).and_then(|before| edges.get(before));
    before.map_or(0, |(_, value)| *value)
}

/// The part of a table within a region: the value where it begins, and where that changes.
pub(super) fn within(edges: &[Edge], (first, last): (u128, u128)) -> Vec<Edge> {
    let begins = edges.partition_point(|(at, _)| *at <= first);
    let ends = edges.partition_point(|(at, _)| *at <= last);
    let before = begins.checked_sub(1).and_then(|before| edges.get(before));
    let mut part = vec![(first, before.map_or(0, |(_, value)| *value))];
    part.extend_from_slice(edges.get(begins..ends).unwrap_or_default());
    part
}

fn high(address: u128) -> u64 {
    (address >> 64) as u64
}

fn low(address: u128) -> u64 {
    address as u64
}

fn low_v4(address: u128) -> u64 {
    low(address) & IntervalV4::LAST
}

/// The IPv4 address as a number; `None` one past the last.
fn v4_key(address: u128) -> Option<u64> {
    let key = low(address);
    (key >> 32 == 0xffff).then_some(key & 0xffff_ffff)
}

/// From an address on, tables have a value.
pub(super) type Edge = (u128, u32);

/// Adds where the value changes, behind all others; the last word on an address counts, and what
/// changes nothing is left out.
pub(super) fn push_edge<A: PartialEq, V: PartialEq + Default>(
    edges: &mut Vec<(A, V)>,
    at: A,
    value: V,
) {
    if edges.last().is_some_and(|(last, _)| *last == at) {
        edges.pop();
    }
    let is_other = match edges.last() {
        Some((_, before)) => *before != value,
        None => value != V::default(),
    };
    if is_other {
        edges.push((at, value));
    }
}

/// Folded prefixes as they come, in order, each with its value.
#[derive(Default)]
pub(super) struct Spans {
    edges: Vec<Edge>,
    /// The last addresses of the prefixes around the current one, and their values.
    open: Vec<(u128, u32)>,
}

impl Spans {
    /// Adds a prefix. It comes behind those that cover it, and behind those that lie before it.
    pub(super) fn add(&mut self, prefix: Prefix, value: u32) {
        let (first, last) = prefix.span();
        while let Some((end, _)) = self.open.pop_if(|(end, _)| *end < first) {
            self.close(end);
        }
        push_edge(&mut self.edges, first, value);
        self.open.push((last, value));
    }

    /// Behind a prefix what is around it counts again.
    fn close(&mut self, end: u128) {
        if let Some(next) = end.checked_add(1) {
            let around = self.open.last().map_or(0, |(_, value)| *value);
            push_edge(&mut self.edges, next, around);
        }
    }

    /// Where the value changes, in order. Before the first there is none.
    pub(super) fn into_edges(mut self) -> Vec<Edge> {
        while let Some((end, _)) = self.open.pop() {
            self.close(end);
        }
        self.edges
    }
}

/// Where values change within one half of an address, in order.
type Edges<'a> = &'a [(u64, u32)];

/// The slots of a table, by their numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Extent {
    /// Slots are as wide as this power of two.
    shift: u32,
    first: u64,
    /// What lies behind it belongs to it.
    last: u64,
}

impl Extent {
    fn of<I: Interval>(edges: Edges<'_>, aligned: &Aligned) -> Option<Self> {
        let (&(first, _), &(last, _)) = (edges.first()?, edges.last()?);
        let (shift, last) = extent::<I>(edges, aligned, first, last);
        Some(Self {
            shift,
            first: first >> shift,
            last: last >> shift,
        })
    }

    fn segment_of(self, address: u64) -> u64 {
        (address >> self.shift).clamp(self.first, self.last) >> SEGMENT_BITS
    }

    fn segments(self) -> std::ops::RangeInclusive<u64> {
        self.first >> SEGMENT_BITS..=self.last >> SEGMENT_BITS
    }

    /// The slots of a segment.
    fn slots_of(self, segment: u64) -> std::ops::RangeInclusive<u64> {
        let first = segment << SEGMENT_BITS;
        let last = first | ((1 << SEGMENT_BITS) - 1);
        first.max(self.first)..=last.min(self.last)
    }
}

/// Lays one table.
fn lay<I: Interval + Default + Eq + Hash>(
    edges: Vec<(u64, u32)>,
    intervals: &mut Slices<I>,
    slots: &mut Slices<RangeSlot>,
) -> Laid {
    let aligned = Aligned::of(&edges);
    let Some(extent) = Extent::of::<I>(&edges, &aligned) else {
        return Laid::default();
    };
    let mut direct = Vec::new();
    for segment in extent.segments() {
        lay_segment(&edges, extent, segment, intervals, &mut direct);
    }
    let table = table_of::<I>(&edges, extent, direct, slots);
    Laid {
        edges,
        aligned,
        extent: Some(extent),
        table,
    }
}

/// Lays the segments of a table anew in which values have changed, or all if that changes its shape.
fn lay_within<I: Interval + Default + Eq + Hash>(
    laid: &mut Laid,
    (first, last): (u64, u64),
    intervals: &mut Slices<I>,
    slots: &mut Slices<RangeSlot>,
) {
    let edges = std::mem::take(&mut laid.edges);
    let old = laid.table;
    let extent = Extent::of::<I>(&edges, &laid.aligned).filter(|_| laid.extent.is_some());
    let Some(extent) = extent.filter(|extent| laid.extent == Some(*extent)) else {
        *laid = lay(edges, intervals, slots);
        give_up(&old, intervals, slots);
        return;
    };
    let before = slots.entries(slots_of(&old)).to_vec();
    let mut direct = Vec::with_capacity(before.len());
    let mut gone = Vec::new();
    let changed = extent.segment_of(first)..=extent.segment_of(last);
    for segment in extent.segments() {
        let of_segment = extent.slots_of(segment);
        let [begins, ends] = [*of_segment.start(), *of_segment.end() + 1];
        let [begins, ends] = [begins, ends].map(|slot| (slot - extent.first) as usize);
        let of_segment = before.get(begins..ends).unwrap_or_default();
        if changed.contains(&segment) {
            lay_segment(&edges, extent, segment, intervals, &mut direct);
            gone.extend(intervals_of::<I>(of_segment));
        } else {
            direct.extend_from_slice(of_segment);
        }
    }
    laid.table = table_of::<I>(&edges, extent, direct, slots);
    laid.edges = edges;
    for slice in gone {
        intervals.release(slice);
    }
    slots.release(slots_of(&old));
}

/// Takes a table away as a user of what it lies in.
fn give_up<I: Interval + Default + Eq + Hash>(
    table: &RangeTable,
    intervals: &mut Slices<I>,
    slots: &mut Slices<RangeSlot>,
) {
    let place = slots_of(table);
    let first = table.base >> table.shift;
    let numbered: Vec<_> = (first..)
        .zip(slots.entries(place).iter().copied())
        .collect();
    let segment = |number: u64| number >> SEGMENT_BITS;
    for of_segment in numbered.chunk_by(|(a, _), (b, _)| segment(*a) == segment(*b)) {
        let of_segment: Vec<_> = of_segment.iter().map(|(_, slot)| *slot).collect();
        if let Some(slice) = intervals_of::<I>(&of_segment) {
            intervals.release(slice);
        }
    }
    slots.release(place);
}

pub(super) fn slots_of(table: &RangeTable) -> Slice {
    Slice {
        offset: table.first_slot,
        length: table.slots,
    }
}

/// Where the intervals of a segment lie. The first slot that leads anywhere leads to the first of them.
pub(super) fn intervals_of<I: Interval>(slots: &[RangeSlot]) -> Option<Slice> {
    let lead = || slots.iter().filter(|slot| slot.length > 0);
    let offset = lead().map(|slot| slot.offset).min()?;
    let ends = lead().map(|slot| match slot.length {
        RangeSlot::BITS => slot.offset + entries_of_bits::<I>() as u32,
        length => slot.offset + length,
    });
    let length = ends.max()? - offset;
    Some(Slice {
        offset,
        length: length.next_multiple_of(entries_of_line::<I>() as u32),
    })
}

fn lay_segment<I: Interval + Default + Eq + Hash>(
    edges: Edges<'_>,
    extent: Extent,
    segment: u64,
    intervals: &mut Slices<I>,
    slots: &mut Vec<RangeSlot>,
) {
    let of_segment = extent.slots_of(segment);
    let shift = extent.shift;
    let begins = edges.partition_point(|(at, _)| at >> shift < *of_segment.start());
    let mut coming = edges.get(begins..).unwrap_or_default();
    let mut value = value_before(edges, begins);
    let mut segment = Segment::<I>::default();
    for number in of_segment {
        let within = coming
            .iter()
            .take_while(|(at, _)| at >> shift == number || number == extent.last);
        let (within, rest) = coming.split_at(within.count());
        coming = rest;
        segment.add(number, shift, value, within);
        value = within.last().map_or(value, |(_, last)| *last);
    }
    segment.place(intervals, slots);
}

/// The table that has these slots.
fn table_of<I: Interval>(
    edges: Edges<'_>,
    extent: Extent,
    mut direct: Vec<RangeSlot>,
    slots: &mut Slices<RangeSlot>,
) -> RangeTable {
    // What lies behind the last slot belongs to it, and bits say nothing of that.
    let is_told = direct
        .last()
        .is_some_and(|slot| slot.length == RangeSlot::BITS);
    if is_told && extent.last < I::LAST >> extent.shift {
        direct.push(RangeSlot {
            offset: value_before(edges, edges.len()),
            length: 0,
        });
    }
    let placed = slots.place(&direct);
    RangeTable {
        base: extent.first << extent.shift,
        first_slot: placed.offset,
        slots: placed.length,
        shift: extent.shift,
        padding: [0; 3],
    }
}

/// How wide the slots of a table are, as a power of two, and an address in the last one.
fn extent<I: Interval>(edges: Edges<'_>, aligned: &Aligned, first: u64, last: u64) -> (u32, u64) {
    let wanted = if edges.len() <= DENSE {
        edges.len() * 2
    } else {
        edges.len() / 4
    };
    let wanted = (wanted as u64).max(2);
    // With slots of half the address space there are two, and more are always wanted.
    let shift_up_to = |last: u64| {
        (0..u64::BITS - 1)
            .find(|shift| (last >> shift) - (first >> shift) < wanted)
            .unwrap_or(u64::BITS - 1)
    };
    // A few addresses far above the others shall not make the slots of all coarse, nor lay the table
    // anew when they come: they share the last slot.
    let stragglers = edges.len() / STRAGGLERS;
    let core = edges.get(edges.len() - 1 - stragglers);
    let core = core.map_or(last, |(at, _)| *at);
    let last = match shift_up_to(core) < shift_up_to(last) {
        true => core,
        false => last,
    };
    let narrow = shift_up_to(last);
    if edges.len() <= DENSE {
        return (narrow, last);
    }
    let odd_ones = edges.len() / ODD_ONES;
    let mut of_at_least = 0;
    let unit = aligned.0.iter().rposition(|count| {
        of_at_least += *count as usize;
        of_at_least >= edges.len() - odd_ones
    });
    let wide = (unit.unwrap_or(0) as u32 + I::UNIT_BITS).min(u64::BITS - 1);
    if wide <= narrow {
        return (narrow, last);
    }
    let (mut value, mut untold) = (0, 0);
    for within in edges.chunk_by(|(a, _), (b, _)| a >> wide == b >> wide) {
        let number = within.first().map_or(0, |(at, _)| at >> wide);
        if two_values::<I>(number, wide, value, within).is_none() {
            untold += within.len();
            if untold > odd_ones {
                return (narrow, last);
            }
        }
        value = within.last().map_or(value, |(_, last)| *last);
    }
    (wide, last)
}

/// Where a slot's value changes, and which two values it has, if bits can tell them. `before` is the
/// value just before the slot.
fn two_values<I: Interval>(
    number: u64,
    shift: u32,
    before: u32,
    within: Edges<'_>,
) -> Option<([u32; 2], Edges<'_>)> {
    let unit = shift.checked_sub(I::UNIT_BITS)?;
    let is_aligned = |at: u64, to: u32| at >> to << to == at;
    // What begins with the slot leaves nothing of what was before.
    let (first, changes) = match within {
        [(at, value), changes @ ..] if is_aligned(*at, shift) => (*value, changes),
        changes => (before, changes),
    };
    let second = changes.first().map_or(first, |(_, value)| *value);
    let is_told = |&(at, value): &(u64, u32)| {
        at >> shift == number && is_aligned(at, unit) && (value == first || value == second)
    };
    // What is nested has but one address.
    let is_one_level = (first | second) & RangeTable::NESTED == 0;
    (is_one_level && changes.iter().all(is_told)).then_some(([first, second], changes))
}

/// Entries in a cache line.
const fn entries_of_line<I>() -> usize {
    64 / size_of::<I>()
}

/// Entries that the bits of a slot take, with the two values before them.
pub(super) const fn entries_of_bits<I: Interval>() -> usize {
    1 + (1 << I::UNIT_BITS) / u64::BITS as usize
}

/// Some slots that follow one another, and what they lead to.
struct Segment<I> {
    /// Offsets count from the segment's first entry.
    slots: Vec<RangeSlot>,
    entries: Vec<I>,
    /// Which entry is the interval that is open where the next slot begins.
    open: Option<usize>,
}

impl<I> Default for Segment<I> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            entries: Vec::new(),
            open: None,
        }
    }
}

impl<I: Interval + Default + Eq + Hash> Segment<I> {
    const LINE: usize = entries_of_line::<I>();
    const UNITS: usize = 1 << I::UNIT_BITS;
    const BITS: usize = entries_of_bits::<I>();

    /// Adds the slot with this number. `before` is the value just before it.
    fn add(&mut self, number: u64, shift: u32, before: u32, within: Edges<'_>) {
        let is_replaced = within.first().is_some_and(|(at, _)| *at == number << shift);
        let length = within.len() + usize::from(!is_replaced);
        if length == 1 {
            if is_replaced {
                self.open = None;
            }
            self.slots.push(RangeSlot {
                offset: within.last().map_or(before, |(_, last)| *last),
                length: 0,
            });
        } else if length > Self::BITS
            && let Some((values, changes)) = two_values::<I>(number, shift, before, within)
        {
            self.add_bits(shift, values, changes);
        } else {
            let first = match self.open {
                Some(open) if !is_replaced => open,
                _ => {
                    let first = self.entries.len();
                    if !is_replaced {
                        self.entries.push(I::new(number << shift, before));
                    }
                    first
                }
            };
            let starts = within.iter().map(|&(at, value)| I::new(at, value));
            self.entries.extend(starts);
            self.open = self.entries.len().checked_sub(1);
            self.slots.push(RangeSlot {
                offset: first as u32,
                length: length as u32,
            });
        }
    }

    fn add_bits(&mut self, shift: u32, values: [u32; 2], changes: Edges<'_>) {
        if self.entries.len() % Self::LINE + Self::BITS > Self::LINE {
            self.fill_line();
        }
        self.slots.push(RangeSlot {
            offset: self.entries.len() as u32,
            length: RangeSlot::BITS,
        });
        let [first, _] = values;
        let unit = |at: u64| (at >> (shift - I::UNIT_BITS)) as usize % Self::UNITS;
        let mut bits = vec![0_u64; Self::BITS - 1];
        let ends = changes.iter().skip(1).map(|(at, _)| unit(*at));
        for (&(at, value), end) in changes.iter().zip(ends.chain([Self::UNITS])) {
            if value == first {
                continue;
            }
            for unit in unit(at)..end {
                if let Some(word) = bits.get_mut(unit / u64::BITS as usize) {
                    *word |= 1 << (unit % u64::BITS as usize);
                }
            }
        }
        self.entries.push(I::of_values(values));
        self.entries.extend(bits.into_iter().map(I::of_bits));
        self.open = None;
    }

    fn fill_line(&mut self) {
        let lines = self.entries.len().next_multiple_of(Self::LINE);
        self.entries.resize(lines, I::default());
    }

    /// Finds a place for the entries, and says which slots lead there. Whole lines are placed, and so
    /// each begins with one.
    fn place(&mut self, intervals: &mut Slices<I>, slots: &mut Vec<RangeSlot>) {
        self.fill_line();
        let placed = intervals.place(&self.entries);
        // What counts from the first entry is less than the slice's length.
        slots.extend(self.slots.iter().map(|slot| match slot.length {
            0 => *slot,
            length => RangeSlot {
                offset: placed.offset.wrapping_add(slot.offset),
                length,
            },
        }));
        self.slots.clear();
        self.entries.clear();
        self.open = None;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use ipnet::IpNet;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};
    use sg_common::addr::Addr;
    use sg_common::ranges::search_ranges;

    use super::*;
    use crate::compile::fold::{family_of, fold};
    use crate::compile::in_use::Arrays;

    /// The tables of both families, built of prefixes with values.
    struct Built {
        ranges: RangeArenas,
        tables: BTreeMap<u32, RangeTable>,
    }

    fn spans(prefixes: impl Iterator<Item = (IpNet, u32)>) -> Spans {
        let mut items: Vec<_> = prefixes
            .map(|(net, value)| (Prefix::from(net), value))
            .collect();
        items.sort_by_key(|(prefix, _)| *prefix);
        let mut spans = Spans::default();
        // The last one named counts, as the naive search has it.
        fold(items.into_iter(), |prefix, values| {
            spans.add(prefix, values.last().copied().unwrap_or(0));
        });
        spans
    }

    fn build_beside(previous: &Image, prefixes: &[(IpNet, u32)]) -> Image {
        let mut tables = RangeTables::new(previous, &Limits::default(), 0);
        let mut image = Image::default();
        for family in Family::ALL {
            let of_family = prefixes.iter().filter(|(net, _)| family_of(net) == family);
            let laid = tables.lay(family, &spans(of_family.copied()).into_edges());
            image.list_ranges.insert(family as u32, laid.table);
        }
        tables.check().unwrap();
        image
            .list_ranges
            .retain(|_, table| *table != RangeTable::default());
        tables.put(&mut image, Which::Used);
        image
    }

    impl Built {
        fn of(prefixes: &[(IpNet, u32)]) -> Self {
            Self::from(build_beside(&Image::default(), prefixes))
        }

        fn value(&self, address: IpAddr) -> u32 {
            let address = Addr::from(address);
            let table = self.tables.get(&(address.family() as u32));
            table.map_or(0, |table| search_ranges(&self.ranges, table, &address))
        }
    }

    impl From<Image> for Built {
        fn from(image: Image) -> Self {
            Self {
                ranges: image.ranges,
                tables: image.list_ranges,
            }
        }
    }

    fn naive(prefixes: &[(IpNet, u32)], address: IpAddr) -> u32 {
        let covering = prefixes.iter().filter(|(net, _)| net.contains(&address));
        covering
            .max_by_key(|(net, _)| net.prefix_len())
            .map_or(0, |(_, value)| *value)
    }

    fn step(address: IpAddr, by: i8) -> IpAddr {
        match address {
            IpAddr::V4(address) => u32::from(address)
                .wrapping_add_signed(i32::from(by))
                .to_be_bytes()
                .into(),
            IpAddr::V6(address) => u128::from(address)
                .wrapping_add_signed(i128::from(by))
                .to_be_bytes()
                .into(),
        }
    }

    /// The ends of every prefix and what is beside them, and the ends of both families.
    fn edges(prefixes: &[(IpNet, u32)]) -> Vec<IpAddr> {
        let ends = ["0.0.0.0/0", "::/0"].map(|all| (all.parse::<IpNet>().unwrap(), 0));
        let nets = prefixes.iter().chain(&ends);
        let ends = nets.flat_map(|(net, _)| [net.network(), net.broadcast()]);
        let around = ends.flat_map(|end| [step(end, -1), end, step(end, 1)]);
        // A mapped address is IPv4's, and no packet of IPv6 has one.
        around
            .filter(|address| address.is_ipv4() == Addr::from(*address).is_v4())
            .collect()
    }

    fn check(prefixes: &[(IpNet, u32)], built: &Built, addresses: &[IpAddr]) {
        for address in edges(prefixes).iter().chain(addresses) {
            assert_eq!(
                built.value(*address),
                naive(prefixes, *address),
                "{address} in {prefixes:?}"
            );
        }
    }

    fn check_text(prefixes: &[&str]) {
        let nets = prefixes.iter().map(|text| text.parse().unwrap());
        let prefixes: Vec<(IpNet, u32)> = nets.zip(1..).collect();
        check(&prefixes, &Built::of(&prefixes), &[]);
    }

    #[test]
    fn every_length_has_its_ends() {
        let all = |address: &str, lengths: std::ops::RangeInclusive<u8>| -> Vec<(IpNet, u32)> {
            let address: IpAddr = address.parse().unwrap();
            let nets = lengths.map(|length| IpNet::new(address, length).unwrap().trunc());
            nets.zip(1..).collect()
        };
        let everywhere = [
            all("0.0.0.0", 0..=32),
            all("255.255.255.255", 0..=32),
            all("10.170.85.3", 1..=32),
            all("::", 0..=128),
            all("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 0..=128),
            all("2001:db8:5555:aaaa:5555:aaaa:5555:aaaa", 1..=128),
        ];
        for prefixes in everywhere {
            check(&prefixes, &Built::of(&prefixes), &[]);
            for prefix in &prefixes {
                let alone = std::slice::from_ref(prefix);
                check(alone, &Built::of(alone), &[]);
            }
        }
    }

    #[test]
    fn nested_overlapping_and_adjacent_prefixes_are_told_apart() {
        check_text(&["10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9", "11.0.0.0/8"]);
        check_text(&["10.0.0.0/8", "10.255.255.255/32", "11.0.0.0/32"]);
        check_text(&["0.0.0.0/0", "255.255.255.255/32", "0.0.0.0/32"]);
        check_text(&["2001:db8::/64", "2001:db8::/128", "2001:db8:0:1::/64"]);
        check_text(&["2001:db8::/64", "2001:db8::ffff:ffff:ffff:ffff/128"]);
        check_text(&["2001:db8::5/128", "2001:db8::6/127", "2001:db8:0:1::/128"]);
        check_text(&["::/0", "ffff:ffff:ffff:ffff::/65", "2001:db8::/65"]);
    }

    #[test]
    fn no_prefix_has_no_table() {
        let built = Built::of(&[]);
        assert!(built.tables.is_empty());
        assert_eq!(built.value("10.0.0.1".parse().unwrap()), 0);
    }

    #[test]
    fn neighbours_of_one_value_are_one_interval() {
        let nets = ["10.0.0.0/9", "10.128.0.0/9", "10.3.0.0/16"].map(|net| net.parse().unwrap());
        let prefixes = nets.map(|net: IpNet| (net, 7));
        let built = Built::of(&prefixes);
        check(&prefixes, &built, &[]);
        // Each slot has one value: before the prefixes, theirs, and behind them.
        assert_eq!(built.ranges.slots.reach(), 3);
        assert_eq!(built.ranges.intervals_v4.reach(), 0);
    }

    /// Three of four neighbouring prefixes, by their number.
    fn most(numbers: std::ops::Range<u32>) -> impl Iterator<Item = u32> {
        numbers.filter(|number| number.wrapping_mul(0x9e37_79b1) >> 30 != 0)
    }

    #[test]
    fn side_by_side_prefixes_are_told_by_bits() {
        let v4 = most(0..5_000).map(|number| {
            IpNet::new((0x1400_0100 + (number << 8)).to_be_bytes().into(), 24).unwrap()
        });
        let v6 = most(0..5_000).map(|number| {
            let address = 0x2001_0db8_0000_0001_u128 << 64 | u128::from(number) << 80;
            IpNet::new(address.to_be_bytes().into(), 48).unwrap()
        });
        // One within a unit, and one of a third value, both in one slot.
        let odd_ones = [
            "20.3.7.7/32",
            "20.3.5.0/24",
            "2001:db8:75:77::/64",
            "2001:db8:77::/48",
        ];
        let odd_ones = odd_ones.map(|net| (net.parse().unwrap(), 9));
        let mut prefixes: BTreeMap<IpNet, u32> = v4.chain(v6).map(|net| (net, 7)).collect();
        for with_odd_ones in [false, true] {
            if with_odd_ones {
                prefixes.extend(odd_ones);
            }
            let prefixes: Vec<_> = prefixes.clone().into_iter().collect();
            let built = Built::of(&prefixes);
            let odd_ones = odd_ones.map(|(net, _)| (net, 0));
            let some = edges(&prefixes).into_iter().step_by(5);
            // Where the bits of the last slot would be if they went on.
            let behind = (0..600_u32).flat_map(|unit| {
                let v4 = (0x1413_0000 + (unit << 8)).to_be_bytes();
                let v6 = 0x2001_0db8_1380_u128 << 80 | u128::from(unit) << 80;
                [IpAddr::from(v4), IpAddr::from(v6.to_be_bytes())]
            });
            for address in some.chain(behind).chain(edges(&odd_ones)) {
                assert_eq!(built.value(address), naive(&prefixes, address), "{address}");
            }
            let slots: Vec<_> = (0..built.ranges.slots.reach())
                .filter_map(|index| built.ranges.slots.entry(index))
                .collect();
            let told = slots.iter().filter(|slot| slot.length == RangeSlot::BITS);
            let told = told.count();
            assert!(told * 4 > slots.len() * 3, "{told} of {}", slots.len());
        }
    }

    #[test]
    fn a_change_leaves_most_of_a_large_table_in_its_place() {
        let scattered = |skip: u32| -> Vec<(IpNet, u32)> {
            let numbers = (0..20_000_u32).filter(|number| *number != skip);
            let nets = numbers.map(|number| {
                let address = number.wrapping_mul(0x9e37_79b1) & 0xffff_ff00;
                IpNet::new(address.to_be_bytes().into(), 24).unwrap()
            });
            nets.zip(1..).map(|(net, _)| (net, 7)).collect()
        };
        let (before, after) = (scattered(u32::MAX), scattered(1_234));
        let first = build_beside(&Image::default(), &before);
        let second = build_beside(&first, &after);
        let kept: Vec<_> = first.ranges.intervals_v4.slices().to_vec();
        let new = second.ranges.intervals_v4.slices().iter();
        let new = new.filter(|slice| !kept.contains(slice)).count();
        assert!(kept.len() > 20, "{} segments", kept.len());
        assert_eq!(new, 1, "of {} segments", kept.len());
        check(&after[..200], &Built::of(&after[..200]), &[]);
        let built = Built::from(second);
        for address in edges(&after[..200]) {
            assert_eq!(built.value(address), naive(&after, address), "{address}");
        }
    }

    #[test]
    fn a_prefix_far_above_the_others_leaves_them_in_their_places() {
        let numbers = (0..20_000_u32).map(|number| 0x0a00_0000 | number << 9);
        let nets = numbers.map(|address| IpNet::new(IpAddr::V4(address.into()), 24).unwrap());
        let before: Vec<_> = nets.map(|net| (net, 7)).collect();
        let mut after = before.clone();
        after.push(("203.0.113.0/24".parse().unwrap(), 8));
        after.push(("203.0.113.77/32".parse().unwrap(), 9));
        let first = build_beside(&Image::default(), &before);
        let second = build_beside(&first, &after);
        let kept: Vec<_> = first.ranges.intervals_v4.slices().to_vec();
        let new = second.ranges.intervals_v4.slices().iter();
        let new = new.filter(|slice| !kept.contains(slice)).count();
        assert_eq!(new, 1, "of {} segments", kept.len());
        let built = Built::from(second);
        let few: Vec<_> = after
            .iter()
            .step_by(999)
            .chain(&after[19_990..])
            .copied()
            .collect();
        for address in edges(&few) {
            assert_eq!(built.value(address), naive(&after, address), "{address}");
        }
    }

    #[test]
    fn a_large_table_knows_the_ends_of_each_of_its_prefixes() {
        let block = |number: u32| 0x1400_0000 + (number << 14);
        let nets =
            (0..100_000).map(|number| IpNet::new(IpAddr::V4(block(number).into()), 19).unwrap());
        let prefixes: Vec<_> = nets.map(|net| (net, 7)).collect();
        let built = Built::of(&prefixes);
        for number in 0..100_000 {
            let (first, last) = (block(number), block(number) + (1 << 13) - 1);
            for (address, value) in [(first - 1, 0), (first, 7), (last, 7), (last + 1, 0)] {
                let address = IpAddr::V4(address.into());
                assert_eq!(built.value(address), value, "{address}");
            }
        }
    }

    #[test]
    fn a_large_ipv4_table_takes_less_than_24_bytes_a_prefix() {
        let count = 100_000_u32;
        let nets = (0..count).map(|number| {
            let address = number.wrapping_mul(0x9e37_79b1) & 0xffff_fff0;
            IpNet::new(address.to_be_bytes().into(), 28).unwrap()
        });
        let prefixes: Vec<_> = nets.map(|net| (net, 7)).collect();
        let image = build_beside(&Image::default(), &prefixes);
        let ranges = &image.ranges;
        let bytes = ranges.intervals_v4.reach() * 8 + ranges.slots.reach() * 8;
        assert!(bytes < 24 * count, "{} bytes a prefix", bytes / count);
    }

    /// Addresses that share long and short beginnings, so that prefixes meet.
    fn address() -> impl Strategy<Value = IpAddr> {
        let word = || select(&[0_u16, 1, 2, 0x7fff, 0x8000, 0xfffe, 0xffff, 0x2001, 0xdb8][..]);
        let v4 = (word(), word())
            .prop_map(|(a, b)| (u32::from(a) << 16 | u32::from(b)).to_be_bytes().into());
        let v6 = vec(word(), 8).prop_map(|words| {
            let words: [u16; 8] = words.try_into().unwrap_or_default();
            IpAddr::V6(words.into())
        });
        // A mapped address is IPv4's.
        let v6 = v6.prop_filter("mapped", |address: &IpAddr| !Addr::from(*address).is_v4());
        let near = any::<u16>().prop_map(|low| {
            IpAddr::V6(
                (0x2001_0db8_u128 << 96 | u128::from(low))
                    .to_be_bytes()
                    .into(),
            )
        });
        prop_oneof![3 => v4, 2 => v6, 1 => near, 1 => any::<u32>().prop_map(|a| a.to_be_bytes().into())]
    }

    fn prefix() -> impl Strategy<Value = IpNet> {
        (address(), any::<Index>()).prop_map(|(address, length)| {
            let longest = if address.is_ipv4() { 32 } else { 128 };
            IpNet::new(address, length.index(longest + 1) as u8)
                .unwrap()
                .trunc()
        })
    }

    /// Tables of several segments: prefixes that are scattered, and some side by side that are told by bits.
    fn many() -> BTreeMap<IpNet, u32> {
        let scattered = (0..3_000_u32).map(|number| {
            let address = number.wrapping_mul(0x9e37_79b1) & 0xffff_fff0;
            (IpAddr::from(address.to_be_bytes()), 28, number % 7 + 1)
        });
        let v6 = (0..3_000_u32).map(|number| {
            let high = number.wrapping_mul(0x9e37_79b1) & 0xffff_fffe;
            let low = u64::from(number % 3) << 40;
            let address = u128::from(high) << 64 | u128::from(low) | 0x2001_0db8_u128 << 96;
            let length = if low == 0 { 64 } else { 100 };
            (IpAddr::from(address.to_be_bytes()), length, number % 5 + 1)
        });
        let all = scattered.chain(v6);
        all.map(|(address, length, value)| (IpNet::new(address, length).unwrap().trunc(), value))
            .collect()
    }

    fn region(prefix: IpNet) -> (u128, u128) {
        match family_of(&prefix) {
            Family::V4 => Prefix::from(prefix).span(),
            Family::V6 => Prefix::from(prefix).within(64).span(),
        }
    }

    /// Changes tables by regions, and compares each with the one that is laid anew.
    fn check_changes(mut items: BTreeMap<IpNet, u32>, edits: &[(IpNet, u32)]) {
        let edges = |items: &BTreeMap<IpNet, u32>, family: Family| {
            let of_family = items.iter().filter(|(net, _)| family_of(net) == family);
            spans(of_family.map(|(net, value)| (*net, *value))).into_edges()
        };
        let mut tables = RangeTables::new(&Image::default(), &Limits::default(), 0);
        let mut laid = Family::ALL.map(|family| tables.lay(family, &edges(&items, family)));
        tables.settle();
        for (prefix, value) in edits {
            match value {
                0 => items.remove(prefix),
                value => items.insert(*prefix, *value),
            };
            let family = family_of(prefix);
            let edges_now = edges(&items, family);
            let region = region(*prefix);
            let laid = &mut laid[family as usize];
            tables.change(laid, family, region, &within(&edges_now, region));
            let anew = tables.lay(family, &edges_now);
            assert_eq!(anew.table, laid.table, "{prefix} is {value}");
            assert_eq!(anew.edges, laid.edges, "{prefix} is {value}");
            assert_eq!(anew.aligned.0, laid.aligned.0, "{prefix} is {value}");
            for index in nested(&anew.edges) {
                tables.give_up_nested(index);
            }
            let slots = &mut tables.slots;
            match family {
                Family::V4 => give_up(&anew.table, &mut tables.intervals_v4, slots),
                Family::V6 => give_up(&anew.table, &mut tables.intervals_v6, slots),
            }
            tables.settle();
        }
        // Nothing is left behind.
        let mut alone = RangeTables::new(&Image::default(), &Limits::default(), 0);
        for family in Family::ALL {
            alone.lay(family, &edges(&items, family));
        }
        let [changed, alone] = [&tables, &alone].map(|tables| {
            let mut image = Image::default();
            tables.put(&mut image, Which::Used);
            let ranges = image.ranges;
            [
                ranges.slots.slices().len(),
                ranges.intervals_v4.slices().len(),
                ranges.intervals_v6.slices().len(),
                ranges.nested.slices().len(),
            ]
        });
        assert_eq!(changed, alone);
    }

    /// What is read from where the tables lead to is what lies there.
    fn check_read(image: &Image) {
        let ranges = &image.ranges;
        let arrays = Arrays {
            slots: ranges.slots.whole(),
            intervals_v4: ranges.intervals_v4.whole(),
            intervals_v6: ranges.intervals_v6.whole(),
            nested: ranges.nested.whole(),
            ..Arrays::default()
        };
        let mut read = Image {
            ranges: RangeArenas::default(),
            ..image.clone()
        };
        arrays.put_used(&mut read).unwrap();
        assert!(read.ranges == *ranges);
    }

    #[test]
    fn large_tables_are_read_from_where_they_lie() {
        let few: Vec<_> = many().into_iter().collect();
        // Side by side, scattered, and within one another, in both families.
        let v4 = (0..50_000_u32).map(|number| {
            let address = 0x1400_0000 + (number << 14);
            (IpNet::new(IpAddr::V4(address.into()), 19).unwrap(), 7)
        });
        let v6 = (0..50_000_u32).map(|number| {
            let high = 0x2001_0db8_0000_0000_u64 + (u64::from(number) << 16);
            let (low, length) = match number % 4 {
                0 => (number.wrapping_mul(0x9e37_79b1), 128),
                _ => (0, 64),
            };
            let address = u128::from(high) << 64 | u128::from(low);
            (IpNet::new(IpAddr::V6(address.into()), length).unwrap(), 8)
        });
        for prefixes in [few, v4.chain(v6).collect()] {
            let first = build_beside(&Image::default(), &prefixes);
            check_read(&first);
            check_read(&build_beside(&first, &prefixes[100..]));
        }
    }

    #[test]
    fn a_table_of_many_segments_is_changed_where_a_prefix_is() {
        let items = many();
        let some: Vec<IpNet> = items.keys().copied().step_by(37).collect();
        let gone = some.iter().map(|prefix| (*prefix, 0));
        let back = some.iter().map(|prefix| (*prefix, 9));
        let wide = [
            "0.0.0.0/1",
            "128.0.0.0/3",
            "2001:db8::/32",
            "2001:db8:0:1::/63",
        ];
        let wide = wide.map(|net| net.parse::<IpNet>().unwrap());
        let wide = wide.iter().flat_map(|net| [(*net, 3), (*net, 0)]);
        let edits: Vec<_> = gone.chain(back).chain(wide).collect();
        check_changes(items, &edits);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_search_finds_what_a_naive_one_finds(
            prefixes in vec((prefix(), 0_u32..5), 0..80),
            addresses in vec(address(), 60),
        ) {
            // Of one prefix named twice, one value.
            let prefixes: BTreeMap<IpNet, u32> = prefixes.into_iter().collect();
            let prefixes: Vec<_> = prefixes.into_iter().collect();
            check(&prefixes, &Built::of(&prefixes), &addresses);
        }

        #[test]
        fn a_changed_table_is_the_one_that_is_laid_anew(
            items in vec((prefix(), 1_u32..5), 0..80),
            edits in vec((prefix(), 0_u32..4), 1..30),
        ) {
            check_changes(items.into_iter().collect(), &edits);
        }

        #[test]
        fn it_finds_it_beside_an_older_table(
            older in vec((prefix(), 0_u32..5), 0..60),
            newer in vec((prefix(), 0_u32..5), 0..60),
        ) {
            let apart = |prefixes: Vec<(IpNet, u32)>| -> Vec<_> {
                prefixes.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect()
            };
            let (older, newer) = (apart(older), apart(newer));
            let first = build_beside(&Image::default(), &older);
            let second = build_beside(&first, &newer);
            check(&older, &Built::from(first), &[]);
            check(&newer, &Built::from(second), &[]);
        }
    }
}
