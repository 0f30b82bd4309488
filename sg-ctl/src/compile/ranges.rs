//! Tables of prefixes: from folded prefixes to sorted intervals under a direct table.
//!
//! The intervals of a table are laid in segments that begin at round addresses, each a slice of
//! its own. So a prefix that comes or goes makes one new segment and a new direct table, and the
//! rest is what the previous image has. The search is [`sg_common::ranges`].

use std::collections::BTreeMap;
use std::hash::Hash;

use serde::{Deserialize, Serialize};
use sg_common::addr::Family;
use sg_common::ranges::{Interval, IntervalV4, IntervalV6, RangeSlot, RangeTable, Ranges};
use sg_common::tables::{PortTable, Scope};

use super::arena::{Arena, Slices};
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
const SEGMENT_BITS: u32 = 8;

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

/// The tables of prefixes of an image in the making.
pub(super) struct RangeTables<'a> {
    pub(super) slots: Slices<'a, RangeSlot>,
    pub(super) intervals_v4: Slices<'a, IntervalV4>,
    pub(super) intervals_v6: Slices<'a, IntervalV6>,
    pub(super) nested: Slices<'a, RangeTable>,
    pub(super) numbers: Slices<'a, PortTable>,
    pub(super) of_policies: BTreeMap<u32, RangeTable>,
    pub(super) of_lists: BTreeMap<u32, RangeTable>,
}

impl<'a> RangeTables<'a> {
    /// No tables yet.
    pub(super) fn new(previous: &'a Image, limits: &Limits) -> Self {
        let intervals = limits.intervals.min(RangeTable::MAX_INTERVALS);
        let ranges = &previous.ranges;
        Self {
            slots: Slices::new(("RANGE_SLOTS", "intervals", intervals), &ranges.slots, 0),
            intervals_v4: Slices::new(
                ("INTERVALS_V4", "intervals", intervals),
                &ranges.intervals_v4,
                0,
            ),
            intervals_v6: Slices::new(
                ("INTERVALS_V6", "intervals", intervals),
                &ranges.intervals_v6,
                0,
            ),
            nested: Slices::new(("NESTED_RANGES", "intervals", intervals), &ranges.nested, 0),
            numbers: Slices::new(
                ("PORT_TABLES", "port_entries", limits.port_entries),
                &previous.port_tables,
                0,
            ),
            of_policies: BTreeMap::new(),
            of_lists: BTreeMap::new(),
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

    /// Writes the prefixes of a direction of a policy.
    pub(super) fn add_policy(&mut self, direction_policy: u32, family: Family, spans: Spans) {
        let table = self.table(family, &spans.into_edges());
        if table != RangeTable::default() {
            let index = Scope::policy(direction_policy, family).0;
            self.of_policies.insert(index, table);
        }
    }

    /// Writes the prefixes of a VPC's lists.
    pub(super) fn add_lists(&mut self, vpc: u32, family: Family, spans: Spans) {
        let table = self.table(family, &spans.into_edges());
        if let Some(index) = Scope::prefix_lists(vpc, family).list_table()
            && table != RangeTable::default()
        {
            self.of_lists.insert(index, table);
        }
    }

    /// Lays a table of where its values change.
    pub(super) fn table(&mut self, family: Family, edges: &[Edge]) -> RangeTable {
        match family {
            Family::V4 => {
                let edges: Vec<_> = edges
                    .iter()
                    .filter_map(|&(start, value)| Some((v4_key(start)?, value)))
                    .collect();
                lay(&edges, &mut self.intervals_v4, &mut self.slots)
            }
            Family::V6 => self.table_v6(edges),
        }
    }

    /// Two levels: tables over the first half of the address, and for each first half within which
    /// the value changes, one over the second half.
    fn table_v6(&mut self, edges: &[Edge]) -> RangeTable {
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
                let nested = lay(&lower, &mut self.intervals_v6, &mut self.slots);
                let index = self.nested.place(&[nested]).offset;
                push_edge(&mut upper, half, RangeTable::NESTED | index);
                if let Some(next) = half.checked_add(1) {
                    push_edge(&mut upper, next, last);
                }
            }
            before = last;
        }
        lay(&upper, &mut self.intervals_v6, &mut self.slots)
    }

    /// All tables in their places, if they have found some.
    pub(super) fn finish(self, image: &mut Image) -> Result<(), CompileError> {
        image.ranges = RangeArenas {
            intervals_v4: self.intervals_v4.finish()?,
            intervals_v6: self.intervals_v6.finish()?,
            nested: self.nested.finish()?,
            slots: self.slots.finish()?,
        };
        image.port_tables = self.numbers.finish()?;
        image.policy_ranges = self.of_policies;
        image.list_ranges = self.of_lists;
        Ok(())
    }
}

fn high(address: u128) -> u64 {
    (address >> 64) as u64
}

fn low(address: u128) -> u64 {
    address as u64
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
pub(super) fn push_edge<A: Copy + PartialEq>(edges: &mut Vec<(A, u32)>, at: A, value: u32) {
    if edges.last().is_some_and(|(last, _)| *last == at) {
        edges.pop();
    }
    if edges.last().map_or(0, |(_, before)| *before) != value {
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

/// Lays one table.
fn lay<I: Interval + Default + Eq + Hash>(
    edges: Edges<'_>,
    intervals: &mut Slices<'_, I>,
    slots: &mut Slices<'_, RangeSlot>,
) -> RangeTable {
    let (Some(&(first, _)), Some(&(last, _))) = (edges.first(), edges.last()) else {
        return RangeTable::default();
    };
    let (shift, last) = extent::<I>(edges, first, last);
    let mut direct = Vec::new();
    let mut segment = Segment::<I>::default();
    let mut coming = edges;
    let mut value = 0;
    let (begin, end) = (first >> shift, last >> shift);
    for segment_number in begin >> SEGMENT_BITS..=end >> SEGMENT_BITS {
        let first_slot = segment_number << SEGMENT_BITS;
        let last_slot = first_slot | ((1 << SEGMENT_BITS) - 1);
        for number in first_slot.max(begin)..=last_slot.min(end) {
            let within = coming
                .iter()
                .take_while(|(at, _)| at >> shift == number || number == end);
            let (within, rest) = coming.split_at(within.count());
            coming = rest;
            segment.add(number, shift, value, within);
            value = within.last().map_or(value, |(_, last)| *last);
        }
        segment.place(intervals, &mut direct);
    }
    // What lies behind the last slot belongs to it, and bits say nothing of that.
    let is_told = direct
        .last()
        .is_some_and(|slot| slot.length == RangeSlot::BITS);
    if is_told && end < I::LAST >> shift {
        direct.push(RangeSlot {
            offset: value,
            length: 0,
        });
    }
    let placed = slots.place(&direct);
    RangeTable {
        base: first >> shift << shift,
        first_slot: placed.offset,
        slots: placed.length,
        shift,
        padding: [0; 3],
    }
}

/// How wide the slots of a table are, as a power of two, and an address in the last one.
fn extent<I: Interval>(edges: Edges<'_>, first: u64, last: u64) -> (u32, u64) {
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
    let is_most = |count: usize| count >= edges.len() - edges.len() / ODD_ONES;
    let mut aligned = [0; u64::BITS as usize + 1];
    for (at, _) in edges {
        aligned[at.trailing_zeros() as usize] += 1;
    }
    let mut of_at_least = 0;
    let unit = aligned.iter().rposition(|count| {
        of_at_least += count;
        is_most(of_at_least)
    });
    let wide = (unit.unwrap_or(0) as u32 + I::UNIT_BITS).min(u64::BITS - 1);
    if wide <= narrow {
        return (narrow, last);
    }
    let (mut value, mut told) = (0, 0);
    for within in edges.chunk_by(|(a, _), (b, _)| a >> wide == b >> wide) {
        let number = within.first().map_or(0, |(at, _)| at >> wide);
        if two_values::<I>(number, wide, value, within).is_some() {
            told += within.len();
        }
        value = within.last().map_or(value, |(_, last)| *last);
    }
    (if is_most(told) { wide } else { narrow }, last)
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

/// Entries that the bits of a slot take, with the two values before them.
const fn entries_of_bits<I: Interval>() -> usize {
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
    /// Entries in a cache line.
    const LINE: usize = 64 / size_of::<I>();
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
    fn place(&mut self, intervals: &mut Slices<'_, I>, slots: &mut Vec<RangeSlot>) {
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
    use std::net::IpAddr;

    use ipnet::IpNet;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};
    use sg_common::addr::Addr;
    use sg_common::ranges::search_ranges;

    use super::*;
    use crate::compile::fold::{family_of, fold};

    /// The tables of both families, built of prefixes with values.
    struct Built {
        ranges: RangeArenas,
        tables: BTreeMap<u32, RangeTable>,
    }

    fn spans(prefixes: impl Iterator<Item = (IpNet, u32)>) -> Spans {
        let mut items: Vec<_> = prefixes
            .map(|(net, value)| (Prefix::from(net), value))
            .collect();
        let mut spans = Spans::default();
        // The last one named counts, as the naive search has it.
        fold(&mut items, |prefix, values| {
            spans.add(prefix, values.last().copied().unwrap_or(0));
        });
        spans
    }

    fn build_beside(previous: &Image, prefixes: &[(IpNet, u32)]) -> Image {
        let mut tables = RangeTables::new(previous, &Limits::default());
        for family in Family::ALL {
            let of_family = prefixes.iter().filter(|(net, _)| family_of(net) == family);
            tables.add_lists(0, family, spans(of_family.copied()));
        }
        let mut image = Image::default();
        tables.finish(&mut image).unwrap();
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
