//! New slices beside those in force, and who has them.

use std::collections::BTreeMap;
use std::hash::Hash;

use sg_common::addr::Family;
use sg_common::ranges::RangeTable;

use super::Amendment;
use super::edges::{Footprint, Seen, slices, splice, within};
use super::ground::{Answer, ArenaKind, Ground, RangeTableKey, Whole};
use crate::compile::arena::{Arena, Places, Slice, Slices};
use crate::compile::fold::{Prefix, fold};
use crate::compile::image::Image;
use crate::compile::limits::CompileError;
use crate::compile::ports::{Admission, PortTables, TooMuch};
use crate::compile::ranges::{Edge, RangeArenas, RangeTables, Spans};

/// A table of prefixes taken apart.
pub(super) struct Apart {
    pub(super) old: RangeTable,
    pub(super) edges: Vec<Edge>,
    pub(super) footprint: Footprint,
}

/// A policy's table of prefixes, and the parts of it that change.
pub(super) struct Regions {
    pub(super) table: Apart,
    pub(super) parts: Vec<Region>,
}

/// A part of a table of prefixes: where what is admitted changes.
pub(super) struct Region {
    span: (u128, u128),
    /// Values are one more than indexes of `admitted`.
    edges: Vec<Edge>,
    admitted: Vec<Vec<Admission>>,
}

impl Region {
    pub(super) fn of(span: (u128, u128), mut rules: Vec<(Prefix, Admission)>) -> Self {
        let mut admitted: Vec<Vec<Admission>> = Vec::new();
        let mut spans = Spans::default();
        fold(&mut rules, |prefix, admissions| {
            admitted.push(admissions.to_vec());
            spans.add(prefix, admitted.len() as u32);
        });
        Self {
            span,
            edges: within(&spans.into_edges(), span),
            admitted,
        }
    }
}

/// Tables in the making.
pub(super) struct Work<'k> {
    pub(super) ports: PortTables<'k>,
    ranges: RangeTables<'k>,
    /// Those that were laid, as they were and as they are.
    laid: Vec<(RangeTableKey, RangeTable, RangeTable)>,
    /// How many tables more have a slice, or fewer.
    uses: BTreeMap<(ArenaKind, Slice), i64>,
}

impl From<TooMuch> for Whole {
    fn from(too_much: TooMuch) -> Self {
        Self::because(match too_much {
            TooMuch::Intervals(number) => format!("one peer is allowed {number} port intervals"),
            TooMuch::Overlaps(number) => format!("prefixes lie inside others {number} times"),
        })
    }
}

impl From<CompileError> for Whole {
    fn from(error: CompileError) -> Self {
        Self::because(error.to_string())
    }
}

impl<'k> Work<'k> {
    /// Nothing yet, with room where nothing in force is.
    pub(super) fn beside(seen: &'k Seen, ground: &mut impl Ground) -> Answer<Self> {
        let room = ground.room();
        let mut places = |arena: ArenaKind| -> Answer<Places> {
            Ok(Places::remembered(
                &ground.free_places(arena)?,
                room.of(arena),
            ))
        };
        Ok(Self {
            ports: PortTables::among(slices(&seen.ports), places(ArenaKind::Ports)?),
            ranges: RangeTables {
                slots: among(&seen.slots, places(ArenaKind::RangeSlots)?),
                intervals_v4: among(&seen.intervals_v4, places(ArenaKind::IntervalsV4)?),
                intervals_v6: among(&seen.intervals_v6, places(ArenaKind::IntervalsV6)?),
                nested: among(&seen.nested, places(ArenaKind::NestedRanges)?),
                numbers: among(&seen.port_tables, places(ArenaKind::PortTables)?),
                of_policies: BTreeMap::new(),
                of_lists: BTreeMap::new(),
            },
            laid: Vec::new(),
            uses: BTreeMap::new(),
        })
    }

    /// Puts the parts of a policy's table in.
    pub(super) fn values(&mut self, regions: &mut Regions) -> Answer<()> {
        for part in &regions.parts {
            let mut values = Vec::with_capacity(part.edges.len());
            for &(at, number) in &part.edges {
                let admitted = number.checked_sub(1);
                let admitted = admitted.and_then(|index| part.admitted.get(index as usize));
                let value = match admitted {
                    Some(admitted) => {
                        let table = self.ports.table(&mut admitted.clone())?;
                        self.ranges.value(table)
                    }
                    None => 0,
                };
                values.push((at, value));
            }
            let edges = &mut regions.table.edges;
            *edges = splice(edges, part.span, &values);
        }
        Ok(())
    }

    /// Lays a table in the place of another.
    pub(super) fn lay(&mut self, key: RangeTableKey, family: Family, apart: &Apart) -> RangeTable {
        // What was laid before is counted.
        self.take_footprint();
        let table = self.ranges.table(family, &apart.edges);
        for slice in self.take_footprint() {
            *self.uses.entry(slice).or_default() += 1;
        }
        for slice in &apart.footprint {
            *self.uses.entry(*slice).or_default() -= 1;
        }
        self.laid.push((key, apart.old, table));
        table
    }

    fn take_footprint(&mut self) -> Footprint {
        let ranges = &mut self.ranges;
        let trails = [
            (ArenaKind::RangeSlots, ranges.slots.take_trail()),
            (ArenaKind::IntervalsV4, ranges.intervals_v4.take_trail()),
            (ArenaKind::IntervalsV6, ranges.intervals_v6.take_trail()),
            (ArenaKind::NestedRanges, ranges.nested.take_trail()),
        ];
        let slices = trails
            .into_iter()
            .flat_map(|(kind, trail)| trail.into_iter().map(move |slice| (kind, slice)));
        slices.collect()
    }

    /// Puts everything where it was found to belong.
    pub(super) fn finish(
        self,
        seen: &Seen,
        ground: &mut impl Ground,
        mut amendment: Amendment,
    ) -> Answer<Amendment> {
        let Amendment {
            old,
            new,
            uses,
            free_places,
            ..
        } = &mut amendment;
        for (key, was, is) in self.laid {
            put(old, key, was);
            put(new, key, is);
        }
        let mut freed: BTreeMap<ArenaKind, Vec<Slice>> = BTreeMap::new();
        for ((kind, slice), change) in self.uses {
            if change == 0 {
                continue;
            }
            let count = i64::from(ground.uses(kind, slice)?) + change;
            let count = u32::try_from(count).map_err(|_| Whole::because("a slice has no table"))?;
            if count == 0 {
                freed.entry(kind).or_default().push(slice);
            }
            uses.push((kind, slice, count));
        }
        let freed = |kind: ArenaKind| freed.get(&kind).map_or(&[][..], Vec::as_slice);
        let mut keep = |kind: ArenaKind, places: &Places| {
            let free = places.with_freed(freed(kind));
            free_places.push((kind, free));
        };
        let ranges = self.ranges;
        let (ports, places) = self.ports.finish_with_places()?;
        keep(ArenaKind::Ports, &places);
        new.ports = unseen(&ports, &seen.ports);
        let (port_tables, places) = ranges.numbers.finish_with_places()?;
        keep(ArenaKind::PortTables, &places);
        new.port_tables = unseen(&port_tables, &seen.port_tables);
        let (slots, places) = ranges.slots.finish_with_places()?;
        keep(ArenaKind::RangeSlots, &places);
        new.ranges.slots = unseen(&slots, &seen.slots);
        let (intervals, places) = ranges.intervals_v4.finish_with_places()?;
        keep(ArenaKind::IntervalsV4, &places);
        new.ranges.intervals_v4 = unseen(&intervals, &seen.intervals_v4);
        let (intervals, places) = ranges.intervals_v6.finish_with_places()?;
        keep(ArenaKind::IntervalsV6, &places);
        new.ranges.intervals_v6 = unseen(&intervals, &seen.intervals_v6);
        let (nested, places) = ranges.nested.finish_with_places()?;
        keep(ArenaKind::NestedRanges, &places);
        new.ranges.nested = unseen(&nested, &seen.nested);
        old.ranges = RangeArenas {
            slots: Arena::of_places(freed(ArenaKind::RangeSlots)),
            intervals_v4: Arena::of_places(freed(ArenaKind::IntervalsV4)),
            intervals_v6: Arena::of_places(freed(ArenaKind::IntervalsV6)),
            nested: Arena::of_places(freed(ArenaKind::NestedRanges)),
        };
        Ok(amendment)
    }
}

fn among<E: Copy + Eq + Hash>(seen: &BTreeMap<Slice, Vec<E>>, places: Places) -> Slices<'_, E> {
    // What does not fit is compiled whole, and that says what is too small.
    Slices::among(("", ""), slices(seen), seen.len(), places)
}

fn put(image: &mut Image, key: RangeTableKey, table: RangeTable) {
    if table == RangeTable::default() {
        return;
    }
    match key {
        RangeTableKey::Policy(index) => image.policy_ranges.insert(index, table),
        RangeTableKey::List(index) => image.list_ranges.insert(index, table),
    };
}

/// The slices that are not in force yet.
fn unseen<E: Copy>(finished: &Arena<E>, seen: &BTreeMap<Slice, Vec<E>>) -> Arena<E> {
    Arena::from_slices(
        finished
            .iter()
            .filter(|(slice, _)| !seen.contains_key(slice)),
    )
}
