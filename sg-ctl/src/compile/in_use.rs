//! What the kernel's arrays hold, read from where entries point.
//!
//! An array says nothing of which of its slices are in use: what leads to a slice does. Anything
//! may have been written to the maps meanwhile, so every index is checked.

use sg_common::addr::Family;
use sg_common::ports::{PortEntry, PortTable};
use sg_common::ranges::{Interval, IntervalV4, IntervalV6, RangeSlot, RangeTable, Ranges};

use super::arena::{Arena, Slice};
use super::image::{Image, RangeArenas};
use super::ranges::{
    Edge, SEGMENT_BITS, entries_of_bits, intervals_of, nested_index, push_edge, slots_of,
};

/// Whole arrays, as they lie in the kernel.
#[derive(Debug, Default)]
pub struct Arrays {
    /// PORTS.
    pub ports: Vec<PortEntry>,
    /// PORT_TABLES.
    pub port_tables: Vec<PortTable>,
    /// RANGE_SLOTS.
    pub slots: Vec<RangeSlot>,
    /// INTERVALS_V4.
    pub intervals_v4: Vec<IntervalV4>,
    /// INTERVALS_V6.
    pub intervals_v6: Vec<IntervalV6>,
    /// NESTED_RANGES.
    pub nested: Vec<RangeTable>,
}

/// An array in which something leads to a place that no compiler has given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Astray {
    /// The kernel map.
    pub map: &'static str,
    /// Index of the entry that is led to.
    pub index: u32,
}

impl Ranges for Arrays {
    fn slot(&self, index: u32) -> Option<RangeSlot> {
        self.slots.get(index as usize).copied()
    }

    fn interval_v4(&self, index: u32) -> Option<IntervalV4> {
        self.intervals_v4.get(index as usize).copied()
    }

    fn interval_v6(&self, index: u32) -> Option<IntervalV6> {
        self.intervals_v6.get(index as usize).copied()
    }

    fn nested(&self, index: u32) -> Option<RangeTable> {
        self.nested.get(index as usize).copied()
    }
}

/// The slices that something leads to.
#[derive(Default)]
struct Used {
    ports: Vec<Slice>,
    port_tables: Vec<Slice>,
    slots: Vec<Slice>,
    intervals_v4: Vec<Slice>,
    intervals_v6: Vec<Slice>,
    nested: Vec<Slice>,
}

impl Arrays {
    /// Puts the slices into an image that its entries lead to.
    pub fn put_used(&self, image: &mut Image) -> Result<(), Astray> {
        let mut used = Used::default();
        let mut values = Vec::new();
        // Values of prefix lists are identities, which lead to nothing here.
        for (is_policy, tables) in [(true, &image.policy_ranges), (false, &image.list_ranges)] {
            for (index, table) in tables {
                let found = match family_of_table(*index) {
                    Family::V4 => self.use_table::<IntervalV4>(table, &mut used),
                    Family::V6 => self.use_upper(table, &mut used),
                };
                let found = found?;
                values.extend(found.into_iter().filter(|_| is_policy));
            }
        }
        values.sort_unstable();
        values.dedup();
        let directions = image.policies.values().flat_map(|policy| policy.directions);
        let open = directions.flat_map(|direction| direction.open);
        let granted = image.grants.values().map(|grant| grant.table);
        used.ports.extend(open.chain(granted).map(slice_of));
        for index in values.into_iter().filter_map(|value| value.checked_sub(1)) {
            let table = self.port_tables.get(index as usize);
            used.ports.push(slice_of(*table.ok_or(Astray {
                map: "PORT_TABLES",
                index,
            })?));
            used.port_tables.push(single(index));
        }
        image.ports = arena("PORTS", used.ports, &self.ports)?;
        image.port_tables = arena("PORT_TABLES", used.port_tables, &self.port_tables)?;
        image.ranges = RangeArenas {
            slots: arena("RANGE_SLOTS", used.slots, &self.slots)?,
            intervals_v4: arena("INTERVALS_V4", used.intervals_v4, &self.intervals_v4)?,
            intervals_v6: arena("INTERVALS_V6", used.intervals_v6, &self.intervals_v6)?,
            nested: arena("NESTED_RANGES", used.nested, &self.nested)?,
        };
        Ok(())
    }

    /// Uses a table of IPv6, and those that are nested in it.
    fn use_upper(&self, table: &RangeTable, used: &mut Used) -> Result<Vec<u32>, Astray> {
        let mut values = self.use_table::<IntervalV6>(table, used)?;
        let indexes: Vec<u32> = values.iter().copied().filter_map(nested_index).collect();
        values.retain(|value| nested_index(*value).is_none());
        for index in indexes {
            let map = "NESTED_RANGES";
            let nested = self.nested(index).ok_or(Astray { map, index })?;
            used.nested.push(single(index));
            let lower = self.use_table::<IntervalV6>(&nested, used)?;
            if lower.iter().any(|value| nested_index(*value).is_some()) {
                return Err(Astray { map, index });
            }
            values.extend(lower);
        }
        Ok(values)
    }

    /// Uses what a table lies in, and returns its values.
    fn use_table<I: Lain>(&self, table: &RangeTable, used: &mut Used) -> Result<Vec<u32>, Astray> {
        let mut values = Vec::new();
        let mut before = None;
        each_change::<I, _>(self, table, |_, value| {
            // Most neighbours differ, and of those that do not one is enough.
            if before.replace(value) != Some(value) {
                values.push(value);
            }
        })?;
        let place = slots_of(table);
        used.slots.push(place);
        let slots = self.slots.get(place.range()).unwrap_or_default();
        let first = table.base >> table.shift;
        let segment = |at: usize| first.wrapping_add(at as u64) >> SEGMENT_BITS;
        let mut begins = 0;
        while begins < slots.len() {
            let length = (begins..slots.len()).take_while(|at| segment(*at) == segment(begins));
            let ends = begins + length.count();
            I::slices(used).extend(intervals_of::<I>(&slots[begins..ends]));
            begins = ends;
        }
        Ok(values)
    }
}

/// Intervals of a family, and the array that they lie in.
trait Lain: Interval {
    const MAP: &'static str;

    fn of<R: Ranges>(ranges: &R, index: u32) -> Option<Self>;
    fn slices(used: &mut Used) -> &mut Vec<Slice>;
}

impl Lain for IntervalV4 {
    const MAP: &'static str = "INTERVALS_V4";

    fn of<R: Ranges>(ranges: &R, index: u32) -> Option<Self> {
        ranges.interval_v4(index)
    }

    fn slices(used: &mut Used) -> &mut Vec<Slice> {
        &mut used.intervals_v4
    }
}

impl Lain for IntervalV6 {
    const MAP: &'static str = "INTERVALS_V6";

    fn of<R: Ranges>(ranges: &R, index: u32) -> Option<Self> {
        ranges.interval_v6(index)
    }

    fn slices(used: &mut Used) -> &mut Vec<Slice> {
        &mut used.intervals_v6
    }
}

/// The tables of prefixes lie by family, the number of which is the lowest bit of their index.
fn family_of_table(index: u32) -> Family {
    match index & 1 {
        0 => Family::V4,
        _ => Family::V6,
    }
}

fn slice_of(table: PortTable) -> Slice {
    Slice {
        offset: table.offset,
        length: table.length,
    }
}

fn single(offset: u32) -> Slice {
    Slice { offset, length: 1 }
}

/// Slices as the compiler gives them: none reaches beyond the array, and no two overlap.
fn arena<E: Copy>(
    map: &'static str,
    mut slices: Vec<Slice>,
    entries: &[E],
) -> Result<Arena<E>, Astray> {
    slices.retain(|slice| slice.length > 0);
    slices.sort_unstable();
    slices.dedup();
    let mut end = 0;
    let mut found = Vec::with_capacity(slices.len());
    for slice in slices {
        let index = slice.offset;
        let ends = slice.offset.checked_add(slice.length);
        let ends = ends.filter(|_| slice.offset >= end);
        end = ends.ok_or(Astray { map, index })?;
        let within = entries.get(slice.range()).ok_or(Astray { map, index })?;
        found.push((slice, within));
    }
    Ok(Arena::from_slices(found.into_iter()))
}

/// Calls `each` with every address, or half of one, from which on a table may have another value.
fn each_change<I: Lain, R: Ranges>(
    ranges: &R,
    table: &RangeTable,
    mut each: impl FnMut(u64, u32),
) -> Result<(), Astray> {
    let shift = table.shift;
    let astray = |index| Astray {
        map: "RANGE_SLOTS",
        index,
    };
    if shift >= u64::BITS {
        return Err(astray(table.first_slot));
    }
    for number in 0..table.slots {
        let index = table.first_slot.wrapping_add(number);
        let slot = ranges.slot(index).ok_or(astray(index))?;
        let begin = u64::from(number).checked_shl(shift);
        let begin = begin.and_then(|offset| table.base.checked_add(offset));
        let begin = begin.ok_or(astray(index))?;
        let at = |ahead: u32| {
            let index = slot.offset.checked_add(ahead);
            let entry = index.and_then(|index| I::of(ranges, index));
            entry.ok_or(Astray {
                map: I::MAP,
                index: slot.offset,
            })
        };
        match slot.length {
            0 => each(begin, slot.offset),
            RangeSlot::BITS => {
                let unit = shift.checked_sub(I::UNIT_BITS).ok_or(astray(index))?;
                let [without, with] = at(0)?.values();
                for word in 0..entries_of_bits::<I>() as u32 - 1 {
                    let bits = at(1 + word)?.bits();
                    for bit in 0..u64::BITS {
                        let ahead = u64::from(word * u64::BITS + bit) << unit;
                        let value = if bits >> bit & 1 != 0 { with } else { without };
                        each(begin.saturating_add(ahead), value);
                    }
                }
            }
            length => {
                let (_, value) = at(0)?.parts();
                each(begin, value);
                let mut before = begin;
                for ahead in 1..length {
                    let (start, value) = at(ahead)?.parts();
                    // The search halves, and finds nothing among those that are not in order.
                    if start < before {
                        return Err(Astray {
                            map: I::MAP,
                            index: slot.offset + ahead,
                        });
                    }
                    each(start, value);
                    before = start;
                }
            }
        }
    }
    Ok(())
}

/// The addresses of a table from which on the value is another one, of the family that its index
/// tells.
pub fn edges<R: Ranges>(ranges: &R, index: u32, table: &RangeTable) -> Result<Vec<Edge>, Astray> {
    let mut edges = Vec::new();
    if family_of_table(index) == Family::V4 {
        each_change::<IntervalV4, _>(ranges, table, |at, value| {
            push_edge(&mut edges, u128::from(at), value);
        })?;
        return Ok(edges);
    }
    let mut upper = Vec::new();
    each_change::<IntervalV6, _>(ranges, table, |half, value| {
        push_edge(&mut upper, half, value)
    })?;
    for (half, value) in upper {
        let high = u128::from(half) << u64::BITS;
        let Some(index) = nested_index(value) else {
            push_edge(&mut edges, high, value);
            continue;
        };
        let map = "NESTED_RANGES";
        let nested = ranges.nested(index).ok_or(Astray { map, index })?;
        push_edge(&mut edges, high, 0);
        each_change::<IntervalV6, _>(ranges, &nested, |low, value| {
            push_edge(&mut edges, high | u128::from(low), value);
        })?;
    }
    Ok(edges)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Small numbers, so that most lead somewhere, and any.
    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![6 => 0_u32..12, 1 => any::<u32>(), 1 => Just(RangeTable::NESTED | 1)]
    }

    fn table() -> impl Strategy<Value = RangeTable> {
        let base = prop_oneof![0_u64..64, any::<u64>()];
        let shift = prop_oneof![0_u32..10, any::<u32>()];
        (base, number(), 0_u32..6, shift).prop_map(|(base, first_slot, slots, shift)| RangeTable {
            base,
            first_slot,
            slots,
            shift,
            padding: [0; 3],
        })
    }

    fn arrays() -> impl Strategy<Value = Arrays> {
        let length = prop_oneof![4 => 0_u32..4, 1 => Just(RangeSlot::BITS), 1 => any::<u32>()];
        let slot = (number(), length).prop_map(|(offset, length)| RangeSlot { offset, length });
        let table_of_ports =
            (number(), number()).prop_map(|(offset, length)| PortTable { offset, length });
        let v4 = (number(), number()).prop_map(|(start, value)| IntervalV4 { start, value });
        let v6 = (any::<u64>(), number()).prop_map(|(start, value)| IntervalV6 {
            start,
            value,
            padding: 0,
        });
        let ranges = (vec(slot, 12), vec(v4, 16), vec(v6, 16), vec(table(), 4));
        (vec(table_of_ports, 8), ranges).prop_map(|(port_tables, (slots, v4, v6, nested))| Arrays {
            ports: vec![PortEntry::default(); 16],
            port_tables,
            slots,
            intervals_v4: v4,
            intervals_v6: v6,
            nested,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_the_arrays_hold_is_read_or_told(
            arrays in arrays(),
            tables in vec(table(), 4),
            lists in vec(table(), 2),
        ) {
            let mut image = Image {
                policy_ranges: (0..).zip(tables).collect(),
                list_ranges: (0..).zip(lists).collect(),
                ..Image::default()
            };
            if arrays.put_used(&mut image).is_ok() {
                for (index, table) in image.policy_ranges.iter().chain(&image.list_ranges) {
                    prop_assert_eq!(
                        edges(&image.ranges, *index, table),
                        edges(&arrays, *index, table)
                    );
                }
            }
        }
    }
}
