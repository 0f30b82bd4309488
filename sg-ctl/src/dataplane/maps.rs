//! The pinned maps, opened by name.
//!
//! The maps of one *layout* hold a policy and are made anew when they are too small or their making
//! was interrupted; the maps of the *flows* outlive them, and so do the tables that flows are in,
//! which have a folder for each size they have had.

use std::path::{Path, PathBuf};

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError};
use sg_common::event::EVENT_READERS;

use sg_common::abi::{
    DoubleBuffer, Globals, GrantKey, GroupSetEntry, InterfaceEntry, MemberKey, PrefixKey,
    ReasonCounters, RuleCounter,
};
use sg_common::ids::Identity;
use sg_common::ports::{PortEntry, PortTable};
use sg_common::ranges::{IntervalV4, IntervalV6, RangeSlot, RangeTable};

use super::Error;
use super::wire::Wire;
use crate::compile::image::ScopedPrefix;

/// Maps of a layout.
pub(super) const LAYOUT_MAPS: [&str; 21] = [
    "MIGRATION",
    "CLOCK",
    "GLOBALS",
    "GRANTED",
    "GRANTS",
    "IDENTITIES",
    "INTERFACES",
    "INTERVALS_V4",
    "INTERVALS_V6",
    "CONTEXTS",
    "LIST_RANGES",
    "MEMBERS",
    "NESTED_RANGES",
    "POLICIES",
    "POLICY_RANGES",
    "PORTS",
    "PORT_TABLES",
    "RANGE_SLOTS",
    "REASONS",
    "RULES",
    "SETS",
];
/// Maps that outlive layouts.
pub(super) const FLOW_MAPS: [&str; 14] = [
    "AWAITING",
    "EVENTS_0",
    "EVENTS_1",
    "EVENTS_2",
    "EVENTS_3",
    "EVENT_SCRATCHES",
    "FRAGMENTS",
    "OPENINGS",
    "OWNED",
    "READERS",
    "SEARCHES",
    "STRAYS",
    "SWEEP",
    "WANTED",
];
/// Each reader's ring of events.
pub(super) const RINGS: [&str; EVENT_READERS] = ["EVENTS_0", "EVENTS_1", "EVENTS_2", "EVENTS_3"];

/// The table of flows.
pub(super) const FLOW_TABLE: &str = "FLOWS";

type Word = u32;

/// The maps of a layout.
pub(super) struct LayoutMaps {
    pub(super) globals: Array<MapData, Wire<Globals>>,
    pub(super) interfaces: Array<MapData, Wire<InterfaceEntry>>,
    pub(super) policies: Array<MapData, Wire<DoubleBuffer<GroupSetEntry>>>,
    pub(super) ports: Array<MapData, Wire<PortEntry>>,
    pub(super) policy_ranges: Array<MapData, Wire<DoubleBuffer<RangeTable>>>,
    pub(super) list_ranges: Array<MapData, Wire<DoubleBuffer<RangeTable>>>,
    pub(super) range_slots: Array<MapData, Wire<RangeSlot>>,
    pub(super) intervals_v4: Array<MapData, Wire<IntervalV4>>,
    pub(super) intervals_v6: Array<MapData, Wire<IntervalV6>>,
    pub(super) nested_ranges: Array<MapData, Wire<RangeTable>>,
    pub(super) port_tables: Array<MapData, Wire<PortTable>>,
    pub(super) sets: LpmTrie<MapData, Wire<PrefixKey>, Wire<DoubleBuffer<Identity>>>,
    pub(super) members: HashMap<MapData, Wire<MemberKey>, Word>,
    pub(super) identities: Array<MapData, Wire<DoubleBuffer<Identity>>>,
    pub(super) grants: HashMap<MapData, Wire<GrantKey>, Word>,
    pub(super) granted: Array<MapData, Wire<DoubleBuffer<PortTable>>>,
    pub(super) reasons: Array<MapData, Wire<ReasonCounters>>,
    pub(super) rules: Array<MapData, Wire<RuleCounter>>,
}

impl LayoutMaps {
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        Ok(Self {
            globals: open(folder, "GLOBALS")?,
            interfaces: open(folder, "INTERFACES")?,
            policies: open(folder, "POLICIES")?,
            ports: open(folder, "PORTS")?,
            policy_ranges: open(folder, "POLICY_RANGES")?,
            list_ranges: open(folder, "LIST_RANGES")?,
            range_slots: open(folder, "RANGE_SLOTS")?,
            intervals_v4: open(folder, "INTERVALS_V4")?,
            intervals_v6: open(folder, "INTERVALS_V6")?,
            nested_ranges: open(folder, "NESTED_RANGES")?,
            port_tables: open(folder, "PORT_TABLES")?,
            sets: open(folder, "SETS")?,
            members: open(folder, "MEMBERS")?,
            identities: open(folder, "IDENTITIES")?,
            grants: open(folder, "GRANTS")?,
            granted: open(folder, "GRANTED")?,
            reasons: open_reasons(folder)?,
            rules: open(folder, "RULES")?,
        })
    }
}

/// Opens the counters of reasons in a layout's folder. An earlier version had them beside the flows.
pub(super) fn open_reasons(layout: &Path) -> Result<Array<MapData, Wire<ReasonCounters>>, Error> {
    const NAME: &str = "REASONS";
    let is_earlier = layout
        .parent()
        .is_some_and(|bpffs| flows_folder(bpffs).join(NAME).exists());
    open(layout, NAME).map_err(|error| {
        if is_earlier {
            Error::EarlierVersion
        } else {
            error
        }
    })
}

/// Opens one pinned map as what it is.
pub(super) fn open<M: TryFrom<Map, Error = MapError>>(
    folder: &Path,
    name: &'static str,
) -> Result<M, Error> {
    let path = folder.join(name);
    let wrong = |source| Error::Map {
        name,
        path: path.clone(),
        source,
    };
    let data = MapData::from_pin(&path).map_err(wrong)?;
    Map::from_map_data(data)
        .and_then(M::try_from)
        .map_err(wrong)
}

/// The key of a longest-prefix map.
pub(super) fn prefix_key(prefix: &ScopedPrefix) -> Key<Wire<PrefixKey>> {
    Key::new(prefix.bits, Wire(prefix.key))
}

/// Where a layout's maps are pinned.
pub(super) fn layout_folder(bpffs: &Path, layout: u32) -> PathBuf {
    bpffs.join(format!("{LAYOUT_FOLDER}{layout}"))
}

/// What the names of the layouts' folders begin with.
pub(super) const LAYOUT_FOLDER: &str = "layout-";

/// Where the flows' maps are pinned.
pub(super) fn flows_folder(bpffs: &Path) -> PathBuf {
    bpffs.join("flows")
}
