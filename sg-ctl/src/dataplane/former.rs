//! What the version before this one has recorded, so that it is taken over without losing flows.
//!
//! Its files were not sealed, and its interfaces were counted by the place that their entry had.

use std::collections::BTreeMap;

use serde::Deserialize;
use sg_common::abi::{ABI, GrantKey, GroupSetEntry, Interface, MemberKey};
use sg_common::ids::Identity;
use sg_common::ports::{PortEntry, PortTable};
use sg_common::ranges::RangeTable;

use super::flow_tables::FlowRoom;
use super::report::{ReceiveHook, TcHook};
use super::sizes::Sizes;
use super::state::{DeviceRecord, NetnsRecord, Record};
use crate::compile::image::{
    Arena, Grant, Ids, Image, InstalledInterface, Member, RangeArenas, ScopedPrefix,
};
use crate::policy::names::{InterfaceName, VpcName};

/// The layout of the maps that it speaks of.
const FORMER_ABI: u32 = 4;
const RECORD_FORMAT: u32 = 2 << 16 | FORMER_ABI;
const IMAGE_FORMAT: u64 = (FORMER_ABI as u64) << 32 | 3;

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
struct FormerRecord {
    fingerprint: u64,
    layout: u32,
    sizes: [u32; 14],
    flows: FlowRoom,
    other_flows: Option<FlowRoom>,
    interface_slots: u32,
    generation: u32,
    jiffies_per_second: u32,
    hash_key: [u32; 10],
    netns: Vec<NetnsRecord>,
    devices: Vec<FormerDevice>,
    next_incarnation: u32,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
struct FormerDevice {
    vpc: VpcName,
    name: InterfaceName,
    netns: u32,
    netns_inode: u64,
    ifindex: u32,
    guest: bool,
    hook: ReceiveHook,
    incarnation: u32,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
struct FormerImage {
    policies: BTreeMap<u32, GroupSetEntry>,
    ports: Arena<PortEntry>,
    policy_ranges: BTreeMap<u32, RangeTable>,
    list_ranges: BTreeMap<u32, RangeTable>,
    ranges: RangeArenas,
    port_tables: Arena<PortTable>,
    sets: BTreeMap<ScopedPrefix, Identity>,
    members: BTreeMap<MemberKey, Member>,
    grants: BTreeMap<GrantKey, Grant>,
    interfaces: BTreeMap<u32, FormerInterface>,
    ids: Ids,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
struct FormerInterface {
    netns: u32,
    ifindex: u32,
    vpc: VpcName,
    name: InterfaceName,
    interface: Interface,
}

/// Whether bytes are a record of that version, for maps that this one knows.
pub(super) fn is_record(bytes: &[u8]) -> bool {
    let format = bytes
        .first_chunk()
        .map(|format| u32::from_le_bytes(*format));
    FORMER_ABI == ABI && format == Some(RECORD_FORMAT)
}

/// Reads such a record; `None` where it is damaged.
pub(super) fn record(bytes: &[u8]) -> Option<Record> {
    let (_, content) = bytes.split_first_chunk::<4>()?;
    let (record, rest): (FormerRecord, _) = postcard::take_from_bytes(content).ok()?;
    rest.is_empty().then(|| record.into())
}

/// Reads an image that is beside such a record; `None` where it is damaged.
pub(super) fn image(bytes: &[u8]) -> Option<Image> {
    let (format, content) = bytes.split_first_chunk()?;
    if u64::from_le_bytes(*format) != IMAGE_FORMAT {
        return None;
    }
    let (image, rest): (FormerImage, _) = postcard::take_from_bytes(content).ok()?;
    rest.is_empty().then(|| image.into())
}

/// Reads what was changed of such an image: what went and what came.
pub(super) fn pair(bytes: &[u8]) -> Option<(Image, Image)> {
    let (gone, new): (FormerImage, FormerImage) = postcard::from_bytes(bytes).ok()?;
    Some((gone.into(), new.into()))
}

/// Makes the numbers and members of an image those that it has after a change.
pub(super) fn follow(image: &mut Image, gone: &Image, new: Image) {
    image
        .members
        .retain(|key, _| !gone.members.contains_key(key));
    image.members.extend(new.members);
    let (ids, gone, new) = (&mut image.ids, &gone.ids, new.ids);
    ids.rules.retain(|rule, _| !gone.rules.contains_key(rule));
    ids.rules.extend(new.rules);
    ids.identities.extend(new.identities);
    // Numbers that were given stay given.
    if new.last_rule != 0 {
        ids.last_rule = new.last_rule;
    }
}

impl From<FormerRecord> for Record {
    fn from(former: FormerRecord) -> Self {
        let [
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
        ] = former.sizes;
        Self {
            fingerprint: former.fingerprint,
            layout: former.layout,
            sizes: Sizes {
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
                slots: former.interface_slots,
            },
            flows: former.flows,
            other_flows: former.other_flows,
            interface_places: former.interface_slots,
            generation: former.generation,
            jiffies_per_second: former.jiffies_per_second,
            hash_key: former.hash_key,
            netns: former.netns,
            devices: former.devices.into_iter().map(DeviceRecord::from).collect(),
            next_incarnation: former.next_incarnation,
        }
    }
}

impl From<FormerDevice> for DeviceRecord {
    fn from(former: FormerDevice) -> Self {
        Self {
            vpc: former.vpc,
            name: former.name,
            netns: former.netns,
            netns_inode: former.netns_inode,
            ifindex: former.ifindex,
            guest: former.guest,
            hook: former.hook,
            tc: TcHook::Tcx,
            incarnation: former.incarnation,
        }
    }
}

impl From<FormerImage> for Image {
    fn from(former: FormerImage) -> Self {
        let FormerImage {
            policies,
            ports,
            policy_ranges,
            list_ranges,
            ranges,
            port_tables,
            sets,
            members,
            grants,
            interfaces,
            ids,
        } = former;
        let interfaces = interfaces.into_iter().map(|(slot, former)| {
            let installed = InstalledInterface {
                place: 0,
                netns: former.netns,
                ifindex: former.ifindex,
                vpc: former.vpc,
                name: former.name,
                interface: former.interface,
            };
            (slot, installed)
        });
        Self {
            policies,
            ports,
            policy_ranges,
            list_ranges,
            ranges,
            port_tables,
            sets,
            members,
            grants,
            interfaces: interfaces.collect(),
            // Their places were found in another way, so that all of them get new ones.
            interface_places: 0,
            ids,
        }
    }
}

/// The files as that version wrote them, for tests.
#[cfg(test)]
pub(super) mod written {
    use super::*;

    pub(in super::super) fn record(record: &Record) -> Vec<u8> {
        let sizes = &record.sizes;
        let former = FormerRecord {
            fingerprint: record.fingerprint,
            layout: record.layout,
            sizes: [
                sizes.policies,
                sizes.ports,
                sizes.list_ranges,
                sizes.range_slots,
                sizes.intervals_v4,
                sizes.intervals_v6,
                sizes.nested_ranges,
                sizes.port_tables,
                sizes.sets,
                sizes.members,
                sizes.identities,
                sizes.grants,
                sizes.granted,
                sizes.rules,
            ],
            flows: record.flows,
            other_flows: record.other_flows,
            interface_slots: record.interface_places,
            generation: record.generation,
            jiffies_per_second: record.jiffies_per_second,
            hash_key: record.hash_key,
            netns: record.netns.clone(),
            devices: Vec::new(),
            next_incarnation: record.next_incarnation,
        };
        let mut bytes = RECORD_FORMAT.to_le_bytes().to_vec();
        bytes.extend(postcard::to_allocvec(&former).unwrap());
        bytes
    }

    fn former(image: &Image) -> FormerImage {
        let Image {
            policies,
            ports,
            policy_ranges,
            list_ranges,
            ranges,
            port_tables,
            sets,
            members,
            grants,
            interfaces: _,
            interface_places: _,
            ids,
        } = image.clone();
        FormerImage {
            policies,
            ports,
            policy_ranges,
            list_ranges,
            ranges,
            port_tables,
            sets,
            members,
            grants,
            interfaces: BTreeMap::new(),
            ids,
        }
    }

    pub(in super::super) fn image(image: &Image) -> Vec<u8> {
        let bytes = postcard::to_extend(&former(image), IMAGE_FORMAT.to_le_bytes().to_vec());
        bytes.unwrap()
    }

    pub(in super::super) fn pair(gone: &Image, new: &Image) -> Vec<u8> {
        postcard::to_allocvec(&(former(gone), former(new))).unwrap()
    }
}
