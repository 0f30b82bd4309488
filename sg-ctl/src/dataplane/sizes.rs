//! How large the maps of a layout are made.
//!
//! Maps cannot grow, so each is made with room to spare; when a policy no longer fits, the
//! dataplane makes a new layout and moves the programs over.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::compile::Change;
use crate::compile::image::Image;

/// Entries of each map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sizes {
    pub(super) policies: u32,
    pub(super) ports: u32,
    pub(super) list_ranges: u32,
    pub(super) range_slots: u32,
    pub(super) intervals_v4: u32,
    pub(super) intervals_v6: u32,
    pub(super) nested_ranges: u32,
    pub(super) port_tables: u32,
    pub(super) sets: u32,
    pub(super) members: u32,
    pub(super) identities: u32,
    pub(super) grants: u32,
    pub(super) granted: u32,
    pub(super) rules: u32,
    /// Slots of interfaces that are counted by.
    pub(super) slots: u32,
}

impl Sizes {
    /// What two images need together: during an update both are in the maps.
    fn needed(old: &Image, new: &Image) -> Self {
        let images = [old, new];
        let highest = |of: &dyn Fn(&Image) -> u32| images.map(of).into_iter().max().unwrap_or(0);
        Self {
            policies: highest(&|image| image.policies.keys().max().map_or(0, |id| id + 1)),
            ports: highest(&|image| image.ports.reach()),
            // Both families, by the VPC's number.
            list_ranges: highest(&|image| {
                let numbers = image.ids.vpcs.values();
                numbers.max().map_or(0, |vpc| (vpc + 1).saturating_mul(2))
            }),
            range_slots: highest(&|image| image.ranges.slots.reach()),
            intervals_v4: highest(&|image| image.ranges.intervals_v4.reach()),
            intervals_v6: highest(&|image| image.ranges.intervals_v6.reach()),
            nested_ranges: highest(&|image| image.ranges.nested.reach()),
            port_tables: highest(&|image| image.port_tables.reach()),
            sets: union(old.sets.keys(), new.sets.keys()),
            members: union(old.members.keys(), new.members.keys()),
            identities: highest(&|image| {
                image
                    .members
                    .values()
                    .map(|member| member.index + 1)
                    .max()
                    .unwrap_or(0)
            }),
            grants: union(old.grants.keys(), new.grants.keys()),
            granted: highest(&|image| {
                image
                    .grants
                    .values()
                    .map(|grant| grant.index + 1)
                    .max()
                    .unwrap_or(0)
            }),
            rules: highest(&|image| {
                image
                    .ids
                    .rules
                    .values()
                    .map(|slot| slot.0 + 1)
                    .max()
                    .unwrap_or(0)
            }),
            slots: highest(&|image| image.interfaces.keys().max().map_or(0, |slot| slot + 1)),
        }
    }

    /// Twice what is needed, and at least what a small policy grows to.
    pub(super) fn roomy(image: &Image) -> Self {
        let Self {
            policies,
            ports,
            list_ranges,
            range_slots,
            intervals_v4,
            intervals_v6,
            nested_ranges,
            port_tables,
            sets,
            members,
            identities,
            grants,
            granted,
            rules,
            slots,
        } = Self::needed(image, image);
        Self {
            policies: room(policies, 256),
            ports: room(ports, 16_384),
            list_ranges: room(list_ranges, 64),
            range_slots: room(range_slots, 8_192),
            intervals_v4: segments_room(intervals_v4),
            intervals_v6: segments_room(intervals_v6),
            nested_ranges: room(nested_ranges, 1_024),
            port_tables: room(port_tables, 4_096),
            sets: room(sets, 16_384),
            members: room(members, 4_096),
            identities: room(identities, 4_096),
            grants: room(grants, 4_096),
            granted: room(granted, 4_096),
            // Each CPU has room for so many.
            rules: room(rules, 2_048),
            slots: room(slots, 64),
        }
    }

    /// Whether there is room for an edit of what is in force; `entries` are those after it.
    pub(super) fn fit_edit(&self, change: &Change, entries: &Image) -> bool {
        let fit = |count: usize, gone: usize, room: u32| {
            u32::try_from(count + gone).is_ok_and(|count| count <= room)
        };
        let Change { old, new } = change;
        self.fit(old, new)
            && fit(entries.members.len(), old.members.len(), self.members)
            && fit(entries.grants.len(), old.grants.len(), self.grants)
    }

    /// Whether both images fit at once.
    pub(super) fn fit(&self, old: &Image, new: &Image) -> bool {
        let needed = Self::needed(old, new);
        needed.policies <= self.policies
            && needed.ports <= self.ports
            && needed.list_ranges <= self.list_ranges
            && needed.range_slots <= self.range_slots
            && needed.intervals_v4 <= self.intervals_v4
            && needed.intervals_v6 <= self.intervals_v6
            && needed.nested_ranges <= self.nested_ranges
            && needed.port_tables <= self.port_tables
            && needed.sets <= self.sets
            && needed.members <= self.members
            && needed.identities <= self.identities
            && needed.grants <= self.grants
            && needed.granted <= self.granted
            && needed.rules <= self.rules
            && needed.slots <= self.slots
    }
}

fn room(needed: u32, least: u32) -> u32 {
    needed
        .saturating_mul(2)
        .max(least)
        .checked_next_power_of_two()
        .unwrap_or(1 << 31)
}

/// Changes to prefixes write new segments, and most of the others stay. So an eighth more is room
/// for many, where twice as much would be what large tables cost.
fn segments_room(needed: u32) -> u32 {
    needed.saturating_add((needed / 8).max(16_384))
}

/// How many distinct keys two sorted runs have.
fn union<'a, K: Ord + 'a>(
    old: impl Iterator<Item = &'a K>,
    new: impl Iterator<Item = &'a K>,
) -> u32 {
    let keys: BTreeSet<&K> = old.chain(new).collect();
    u32::try_from(keys.len()).unwrap_or(u32::MAX)
}
