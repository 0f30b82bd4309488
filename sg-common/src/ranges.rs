//! Searches among sorted intervals: prefixes by address.
//!
//! The longest prefix that covers an address depends only on between which two neighbouring ends
//! of prefixes the address lies. So a table of prefixes is a sorted list of the addresses where
//! the answer changes. A direct table over the first bits of the address leaves a few of them to
//! halve; where many prefixes of one value lie side by side, bits tell them from what is between
//! them, and a million of them stay within half a megabyte. All of it lies in plain arrays, whose
//! lookup the kernel inlines: no call is made, and the cost hardly grows with the number of prefixes.
//!
//! The searches know nothing of what the values mean. A table is immutable from when something
//! points to it until a grace period after nothing does.

use crate::addr::Addr;

/// Where the intervals of one table of prefixes are. The default holds none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct RangeTable {
    /// Addresses below have no value.
    pub base: u64,
    /// Index of the first [`RangeSlot`].
    pub first_slot: u32,
    /// How many slots; what lies behind the last one belongs to it.
    pub slots: u32,
    /// A slot is `1 << shift` addresses wide; less than 64.
    pub shift: u32,
    /// Always zero: two buffers take a cache line.
    pub padding: [u32; 3],
}

impl RangeTable {
    /// The most intervals one slot may have: what the halvings of a search reach.
    pub const MAX_INTERVALS: u32 = 1 << RANGE_SEARCH_STEPS;
    /// In a value of IPv6: the rest is the index of a nested table, which the address's second
    /// half is looked up in.
    pub const NESTED: u32 = 1 << 31;
}

/// Halvings of one search within a slot.
const RANGE_SEARCH_STEPS: u64 = 24;

/// The values of the addresses of one slot: one value, the intervals that begin within it behind the
/// one that is open where it begins, or two values and bits that tell between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct RangeSlot {
    /// Index of the first interval; where there is none, the value of the whole slot.
    pub offset: u32,
    /// How many intervals, or [`RangeSlot::BITS`].
    pub length: u32,
}

impl RangeSlot {
    /// In a length: at the offset lie two values and behind them a bit for each unit of the slot, as
    /// [`Interval`] has them.
    pub const BITS: u32 = 1 << 31;
}

/// From `start` on, up to the next one's start, addresses have this value. Zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct IntervalV4 {
    /// The address as a number.
    pub start: u32,
    /// What the table was built of.
    pub value: u32,
}

/// The same for one half of an IPv6 address. Few prefixes are longer than 64 bits, and so few
/// tables are nested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct IntervalV6 {
    /// The half as a number.
    pub start: u64,
    /// What the table was built of, or [`RangeTable::NESTED`] with an index.
    pub value: u32,
    /// Always zero: the kernel's arrays round their entries up to eight bytes.
    pub padding: u32,
}

/// An entry of the intervals of one family, and what else may lie in its place: two values, or 64 bits.
pub trait Interval: Copy {
    /// Units of a slot whose values are told by bits, as a power of two. The bits and the two values
    /// before them lie within 64 bytes.
    const UNIT_BITS: u32;
    /// The last address, or half of one.
    const LAST: u64;

    /// From here on this value.
    fn new(start: u64, value: u32) -> Self;
    /// Where it begins, and its value.
    fn parts(self) -> (u64, u32);
    /// The values of units without a bit and of units with one.
    fn of_values(values: [u32; 2]) -> Self;
    /// As above.
    fn values(self) -> [u32; 2];
    /// The bits of 64 units, the first one lowest.
    fn of_bits(bits: u64) -> Self;
    /// As above.
    fn bits(self) -> u64;
}

impl Interval for IntervalV4 {
    const UNIT_BITS: u32 = 8;
    const LAST: u64 = u32::MAX as u64;

    #[inline(always)]
    fn new(start: u64, value: u32) -> Self {
        let start = start as u32;
        Self { start, value }
    }

    #[inline(always)]
    fn parts(self) -> (u64, u32) {
        (u64::from(self.start), self.value)
    }

    #[inline(always)]
    fn of_values([start, value]: [u32; 2]) -> Self {
        Self { start, value }
    }

    #[inline(always)]
    fn values(self) -> [u32; 2] {
        [self.start, self.value]
    }

    #[inline(always)]
    fn of_bits(bits: u64) -> Self {
        Self::new(bits, (bits >> 32) as u32)
    }

    #[inline(always)]
    fn bits(self) -> u64 {
        u64::from(self.start) | u64::from(self.value) << 32
    }
}

impl Interval for IntervalV6 {
    const UNIT_BITS: u32 = 7;
    const LAST: u64 = u64::MAX;

    #[inline(always)]
    fn new(start: u64, value: u32) -> Self {
        Self {
            start,
            value,
            padding: 0,
        }
    }

    #[inline(always)]
    fn parts(self) -> (u64, u32) {
        (self.start, self.value)
    }

    #[inline(always)]
    fn of_values([without, with]: [u32; 2]) -> Self {
        Self::new(u64::from(without), with)
    }

    #[inline(always)]
    fn values(self) -> [u32; 2] {
        [self.start as u32, self.value]
    }

    #[inline(always)]
    fn of_bits(bits: u64) -> Self {
        Self::new(bits, 0)
    }

    #[inline(always)]
    fn bits(self) -> u64 {
        self.start
    }
}

/// The arrays that tables of prefixes lie in.
pub trait Ranges {
    /// One slot.
    fn slot(&self, index: u32) -> Option<RangeSlot>;
    /// One interval.
    fn interval_v4(&self, index: u32) -> Option<IntervalV4>;
    /// One interval.
    fn interval_v6(&self, index: u32) -> Option<IntervalV6>;
    /// One nested table.
    fn nested(&self, index: u32) -> Option<RangeTable>;
    /// The value of the slot's last interval that begins at or before the key; the first one does.
    #[inline(always)]
    fn value_v4(&self, slot: RangeSlot, key: u32) -> u32
    where
        Self: Sized,
    {
        halve_v4(self, slot, key)
    }
}

/// The value of the longest prefix that covers the address. Zero: none does.
#[inline(always)]
pub fn search_ranges<R: Ranges>(ranges: &R, table: &RangeTable, address: &Addr) -> u32 {
    if address.is_v4() {
        let [.., d] = address.words();
        search_v4(ranges, table, d)
    } else {
        let (upper, lower) = address.halves();
        search_v6(ranges, table, upper, lower)
    }
}

/// The same for an IPv4 address as a number.
#[inline(always)]
pub fn search_v4<R: Ranges>(ranges: &R, table: &RangeTable, key: u32) -> u32 {
    search(
        ranges,
        table,
        u64::from(key),
        |index| ranges.interval_v4(index),
        |slot| ranges.value_v4(slot, key),
    )
}

/// The same for the halves of an IPv6 address.
#[inline(always)]
pub fn search_v6<R: Ranges>(ranges: &R, table: &RangeTable, upper: u64, lower: u64) -> u32 {
    let value = search_half(ranges, table, upper);
    if value & RangeTable::NESTED == 0 {
        return value;
    }
    match ranges.nested(value & !RangeTable::NESTED) {
        Some(nested) => search_half(ranges, &nested, lower),
        None => 0,
    }
}

#[inline(always)]
fn search_half<R: Ranges>(ranges: &R, table: &RangeTable, half: u64) -> u32 {
    let interval = |index| ranges.interval_v6(index);
    search(ranges, table, half, interval, |slot| {
        halve(slot, half, interval)
    })
}

#[inline(always)]
fn search<R: Ranges, I: Interval>(
    ranges: &R,
    table: &RangeTable,
    key: u64,
    interval: impl Fn(u32) -> Option<I>,
    halve: impl Fn(RangeSlot) -> u32,
) -> u32 {
    if table.slots == 0 || key < table.base {
        return 0;
    }
    let slot = (key - table.base) >> (table.shift & 63);
    let last = u64::from(table.slots - 1);
    let slot = if slot < last { slot } else { last };
    match ranges.slot(table.first_slot.wrapping_add(slot as u32)) {
        Some(RangeSlot { offset, length: 0 }) => offset,
        Some(RangeSlot {
            offset,
            length: RangeSlot::BITS,
        }) => {
            let unit = key >> (table.shift.wrapping_sub(I::UNIT_BITS) & 63);
            told_by_bits(offset, unit as u32, interval)
        }
        Some(slot) => halve(slot),
        None => 0,
    }
}

#[inline(always)]
fn told_by_bits<I: Interval>(offset: u32, unit: u32, interval: impl Fn(u32) -> Option<I>) -> u32 {
    let unit = unit & ((1 << I::UNIT_BITS) - 1);
    let Some(bits) = interval(offset.wrapping_add(1 + unit / u64::BITS)) else {
        return 0;
    };
    let is_set = bits.bits() >> (unit % u64::BITS) & 1 != 0;
    let Some(values) = interval(offset) else {
        return 0;
    };
    let [without, with] = values.values();
    if is_set { with } else { without }
}

/// [`Ranges::value_v4`], by halving.
#[inline(always)]
pub fn halve_v4<R: Ranges>(ranges: &R, slot: RangeSlot, key: u32) -> u32 {
    halve(slot, u64::from(key), |index| ranges.interval_v4(index))
}

#[inline(always)]
fn halve<I: Interval>(
    RangeSlot { offset, length }: RangeSlot,
    key: u64,
    interval: impl Fn(u32) -> Option<I>,
) -> u32 {
    let mut at = offset;
    let mut left = length;
    for _ in 0..RANGE_SEARCH_STEPS {
        if left <= 1 {
            break;
        }
        let half = left / 2;
        let Some(middle) = interval(at.wrapping_add(half)) else {
            return 0;
        };
        let (start, _) = middle.parts();
        if start <= key {
            at = at.wrapping_add(half);
        }
        left -= half;
    }
    interval(at).map_or(0, |last| last.parts().1)
}

const _: () = {
    assert!(size_of::<RangeTable>() == 32);
    assert!(size_of::<RangeSlot>() == 8);
    assert!(size_of::<IntervalV4>() == 8);
    assert!(size_of::<IntervalV6>() == 16);
};
