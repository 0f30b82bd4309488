//! Whether two images say the same, wherever their slices lie.

use std::collections::{BTreeMap, BTreeSet};

use sg_common::ports::{PortEntry, PortTable};
use sg_common::ranges::RangeTable;

use super::arena::Slice;
use super::image::Image;
use super::in_use::{Astray, edges};
use super::ranges::push_edge;

/// How many entries of each map say something else than in a compiled image of the same numbers. What
/// is granted to sets that the compiled one does not know says nothing: no address is in them.
pub fn differing(image: &Image, compiled: &Image) -> Result<Vec<(&'static str, usize)>, Astray> {
    let met: BTreeSet<_> = compiled.ids.identities.values().collect();
    let grants = |of: &Image| -> BTreeMap<_, _> {
        let grants = of.grants.iter();
        let grants = grants.filter(|(key, _)| met.contains(&key.identity));
        grants
            .map(|(key, grant)| (*key, ports(of, grant.table).to_vec()))
            .collect()
    };
    let counts = [
        ("POLICIES", unequal(&policies(image), &policies(compiled))),
        (
            "POLICY_RANGES",
            unequal(
                &prefixes(image, &image.policy_ranges, by_ports)?,
                &prefixes(compiled, &compiled.policy_ranges, by_ports)?,
            ),
        ),
        (
            "LIST_RANGES",
            unequal(
                &prefixes(image, &image.list_ranges, |_, identity| identity)?,
                &prefixes(compiled, &compiled.list_ranges, |_, identity| identity)?,
            ),
        ),
        ("SETS", unequal(&image.sets, &compiled.sets)),
        ("GRANTS", unequal(&grants(image), &grants(compiled))),
    ];
    Ok(counts.into_iter().filter(|(_, count)| *count > 0).collect())
}

fn ports(image: &Image, PortTable { offset, length }: PortTable) -> &[PortEntry] {
    image.ports.entries(Slice { offset, length })
}

/// What the value of a policy's prefix stands for.
fn by_ports(image: &Image, value: u32) -> &[PortEntry] {
    let index = value.checked_sub(1);
    let table = index.and_then(|index| image.port_tables.entry(index));
    table.map_or(&[], |table| ports(image, *table))
}

/// The flags of a policy's direction, and what it opens to everyone by family.
type Opened<'i> = (u32, [&'i [PortEntry]; 2]);

/// What policies say in both directions.
fn policies(image: &Image) -> BTreeMap<u32, Vec<Opened<'_>>> {
    let policies = image.policies.iter().map(|(id, policy)| {
        let directions = policy.directions.iter().map(|direction| {
            let open = direction.open.map(|table| ports(image, table));
            (direction.flags.0, open)
        });
        (*id, directions.collect())
    });
    policies.collect()
}

/// Where the values of tables of prefixes change, and to what.
fn prefixes<'i, V: PartialEq + Default + Copy>(
    image: &'i Image,
    tables: &BTreeMap<u32, RangeTable>,
    meaning: impl Fn(&'i Image, u32) -> V,
) -> Result<BTreeMap<u32, Vec<(u128, V)>>, Astray> {
    let mut found = BTreeMap::new();
    for (index, table) in tables {
        let mut said = Vec::new();
        for (at, value) in edges(&image.ranges, *index, table)? {
            push_edge(&mut said, at, meaning(image, value));
        }
        found.insert(*index, said);
    }
    Ok(found)
}

fn unequal<K: Ord, T: PartialEq>(one: &BTreeMap<K, T>, other: &BTreeMap<K, T>) -> usize {
    let changed = one
        .iter()
        .filter(|(key, value)| other.get(key) != Some(value));
    let added = other.keys().filter(|key| !one.contains_key(key));
    changed.count() + added.count()
}
