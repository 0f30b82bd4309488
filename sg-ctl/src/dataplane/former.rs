//! What the earlier version has recorded, so that it is taken over without losing flows.
//!
//! It kept all tables in an image beside the record, and the changes of an image behind it. Of those
//! only the numbers are needed: the tables are in the maps. It did not seal its files, and its
//! interfaces were counted by the place that their entry had.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sg_common::abi::{ABI, GrantKey, GroupSetEntry, Interface, MemberKey};
use sg_common::ids::{Identity, RuleSlot};
use sg_common::ports::{PortEntry, PortTable};
use sg_common::ranges::RangeTable;

use super::Error;
use super::flow_tables::FlowRoom;
use super::numbers::Numbers;
use super::report::{ReceiveHook, TcHook};
use super::sizes::Sizes;
use super::state::{DeviceRecord, NetnsRecord, Record, damaged, read_file, remove};
use crate::compile::image::{
    Arena, Grant, GroupSet, IdentitySet, Ids, Member, RangeArenas, ScopedPrefix,
};
use crate::policy::names::{InterfaceName, RuleId, VpcName};

/// The layout of the maps that they speak of.
const FORMER_ABI: u32 = 4;
const FORMAT: u32 = 2 << 16 | FORMER_ABI;
/// What an image begins with, behind its number.
const IMAGE: u64 = (FORMER_ABI as u64) << 32 | 3;

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

/// The tables of an image, which are nothing to this version.
#[derive(Deserialize)]
#[cfg_attr(test, derive(Default, serde::Serialize))]
struct Tables {
    _policies: BTreeMap<u32, GroupSetEntry>,
    _ports: Arena<PortEntry>,
    _policy_ranges: BTreeMap<u32, RangeTable>,
    _list_ranges: BTreeMap<u32, RangeTable>,
    _ranges: RangeArenas,
    _port_tables: Arena<PortTable>,
    _sets: BTreeMap<ScopedPrefix, Identity>,
    _members: BTreeMap<MemberKey, Member>,
    _grants: BTreeMap<GrantKey, Grant>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
struct FormerImage {
    _tables: Tables,
    interfaces: BTreeMap<u32, FormerInterface>,
    ids: FormerIds,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
struct FormerInterface {
    netns: u32,
    ifindex: u32,
    _vpc: VpcName,
    _name: InterfaceName,
    _interface: Interface,
}

#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(Clone, serde::Serialize))]
struct FormerIds {
    rules: BTreeMap<RuleId, RuleSlot>,
    last_rule: u32,
    policies: BTreeMap<GroupSet, u32>,
    vpcs: BTreeMap<VpcName, u32>,
    next_vpc: u32,
    identities: BTreeMap<IdentitySet, Identity>,
}

/// What is read of an image.
#[derive(Default)]
struct Known {
    /// The slots of interfaces, by their devices.
    slots: BTreeMap<(u32, u32), u32>,
    ids: FormerIds,
}

impl Known {
    fn of(image: FormerImage) -> Self {
        let interfaces = image.interfaces.into_iter();
        let slots = interfaces.map(|(slot, found)| ((found.netns, found.ifindex), slot));
        Self {
            slots: slots.collect(),
            ids: image.ids,
        }
    }

    /// Makes the numbers those after a change: what went and what came.
    fn follow(&mut self, gone: &Self, new: Self) {
        let (ids, gone, new) = (&mut self.ids, &gone.ids, new.ids);
        ids.rules.retain(|rule, _| !gone.rules.contains_key(rule));
        ids.rules.extend(new.rules);
        ids.identities.extend(new.identities);
        // Numbers that were given stay given.
        if new.last_rule != 0 {
            ids.last_rule = new.last_rule;
        }
    }
}

/// All bytes as one value.
fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(value)
}

/// Whether bytes are a record of the earlier version, for maps that this one knows.
pub(super) fn is_record(bytes: &[u8]) -> bool {
    let format = bytes
        .first_chunk()
        .map(|format| u32::from_le_bytes(*format));
    FORMER_ABI == ABI && format == Some(FORMAT)
}

/// Reads such a record; `None` where it is damaged.
pub(super) fn record(bytes: &[u8]) -> Option<Record> {
    let (_, content) = bytes.split_first_chunk::<4>()?;
    whole(content).map(|record: FormerRecord| record.into())
}

/// What was kept beside the record.
#[derive(Clone, Debug)]
pub(super) struct Files {
    /// The image, behind a number that no other image has.
    image: PathBuf,
    /// What was changed since: the number of that image, and pairs of what went and what came, each
    /// behind its length.
    amendments: PathBuf,
    /// Numbers and places by which the image was changed.
    ledger: PathBuf,
}

type ImageNumber = [u8; size_of::<u64>()];

impl Files {
    pub(super) fn in_folder(run: &Path) -> Self {
        Self {
            image: run.join("image"),
            amendments: run.join("amendments"),
            ledger: run.join("ledger"),
        }
    }

    /// Gives a record the numbers of its image; tells whether there is one.
    ///
    /// Of an image that was changed since, the maps that lead to what was changed are unknown, so that
    /// the record is made one of another build, whose tables are made anew.
    pub(super) fn complete(&self, record: &mut Record, is_marked: bool) -> Result<bool, Error> {
        let Some(bytes) = read_file(&self.image)? else {
            return Ok(false);
        };
        let damaged = || damaged(&self.image);
        let (number, content) = bytes.split_first_chunk().ok_or_else(damaged)?;
        let (format, content) = content.split_first_chunk().ok_or_else(damaged)?;
        if u64::from_le_bytes(*format) != IMAGE {
            return Err(damaged());
        }
        let mut known = whole(content).map(Known::of).ok_or_else(damaged)?;
        if let Some(amendments) = read_file(&self.amendments)? {
            for (gone, new) in self.pairs(*number, &amendments, is_marked)? {
                known.follow(&gone, new);
            }
            record.fingerprint = 0;
        }
        for device in &mut record.devices {
            device.slot = known.slots.get(&(device.netns, device.ifindex)).copied();
        }
        let FormerIds {
            rules,
            last_rule,
            policies,
            vpcs,
            next_vpc,
            identities,
        } = known.ids;
        record.numbers = Numbers::of(&Ids {
            rules,
            last_rule,
            policies,
            vpcs,
            next_vpc,
            identities,
        });
        Ok(true)
    }

    /// What was changed since an image was written. What an interrupted command has half written is
    /// left out: it is not in force, or the mark tells of it.
    fn pairs(
        &self,
        image: ImageNumber,
        bytes: &[u8],
        is_marked: bool,
    ) -> Result<Vec<(Known, Known)>, Error> {
        let mut pairs = Vec::new();
        let torn = || match is_marked {
            true => Ok(Vec::new()),
            false => Err(damaged(&self.amendments)),
        };
        let Some((number, mut rest)) = bytes.split_first_chunk() else {
            return torn();
        };
        if *number != image {
            return torn();
        }
        while let Some((pair, behind)) = first_pair(rest) {
            let (gone, new) = whole(pair).ok_or_else(|| damaged(&self.amendments))?;
            pairs.push((Known::of(gone), Known::of(new)));
            rest = behind;
        }
        if !rest.is_empty() {
            torn()?;
        }
        Ok(pairs)
    }

    pub(super) fn remove(&self) -> Result<(), Error> {
        remove(&self.image)?;
        remove(&self.amendments)?;
        remove(&self.ledger)
    }
}

/// The first pair of what was changed, and what follows it; `None` where the pair is not complete.
fn first_pair(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    rest.split_at_checked(length)
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
            // Their places were found in another way, so that all of them get new ones.
            interface_places: 0,
            generation: former.generation,
            jiffies_per_second: former.jiffies_per_second,
            hash_key: former.hash_key,
            netns: former.netns,
            devices: former.devices.into_iter().map(DeviceRecord::from).collect(),
            next_incarnation: former.next_incarnation,
            numbers: Numbers::default(),
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
            slot: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::state::{self, tests::record};
    use super::*;

    /// Numbers with one rule.
    fn rule(number: u32) -> FormerIds {
        let id = format!("sgr-{number:017x}").parse().unwrap();
        FormerIds {
            rules: [(id, RuleSlot(number))].into(),
            last_rule: number,
            ..FormerIds::default()
        }
    }

    fn image(ids: FormerIds) -> FormerImage {
        let interface = FormerInterface {
            netns: 1,
            ifindex: 7,
            _vpc: VpcName::default(),
            _name: "eth0".parse().unwrap(),
            _interface: Interface::default(),
        };
        FormerImage {
            _tables: Tables::default(),
            interfaces: [(2, interface)].into(),
            ids,
        }
    }

    /// A pair of what went and what came, as it lies in a file.
    fn written_pair([gone, new]: [u32; 2]) -> Vec<u8> {
        let pair = (image(rule(gone)), image(rule(new)));
        let pair = postcard::to_allocvec(&pair).unwrap();
        [&(pair.len() as u64).to_le_bytes()[..], &pair].concat()
    }

    /// A record, and an image with one rule.
    fn write(folder: &Path) {
        let put = |name, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
        let Record {
            flows, hash_key, ..
        } = record();
        let record = FormerRecord {
            fingerprint: 5,
            layout: 1,
            sizes: [1; 14],
            flows,
            other_flows: None,
            interface_slots: 64,
            generation: 9,
            jiffies_per_second: 250,
            hash_key,
            netns: Vec::new(),
            devices: vec![FormerDevice {
                vpc: VpcName::default(),
                name: "eth0".parse().unwrap(),
                netns: 1,
                netns_inode: 4,
                ifindex: 7,
                guest: false,
                hook: ReceiveHook::Tc,
                incarnation: 1,
            }],
            next_incarnation: 2,
        };
        let record = postcard::to_allocvec(&record).unwrap();
        put("installed", &[&FORMAT.to_le_bytes()[..], &record].concat());
        let image = postcard::to_allocvec(&image(rule(1))).unwrap();
        put(
            "image",
            &[&[7; 8][..], &IMAGE.to_le_bytes(), &image].concat(),
        );
    }

    /// What replaced that rule by a second one and that one by a third.
    fn write_amendments(folder: &Path) {
        let pairs = [[1, 2], [2, 3]].map(written_pair);
        let amendments = [&[7; 8][..], &pairs.concat()].concat();
        fs::write(folder.join("amendments"), amendments).unwrap();
    }

    #[test]
    fn a_record_of_the_earlier_version_has_the_numbers_of_its_image() {
        let folder = tempfile::tempdir().unwrap();
        let files = state::Files::in_folder(folder.path());
        write(folder.path());
        let read = files.read().unwrap().unwrap();
        assert_eq!(read.numbers.ids().rules, rule(1).rules);
        assert_eq!(read.devices[0].slot, Some(2));
        assert_eq!((read.fingerprint, read.generation), (5, 9));
        assert_eq!(read.hash_key, record().hash_key);

        write_amendments(folder.path());
        let read = files.read().unwrap().unwrap();
        assert_eq!(read.numbers.ids().rules, rule(3).rules);
        assert_eq!(read.fingerprint, 0, "the tables are made anew");

        // What a killed command has half written is left out.
        let path = folder.path().join("amendments");
        let bytes = fs::read(&path).unwrap();
        let torn = [&bytes[..], &9_u64.to_le_bytes(), &[1, 2, 3]].concat();
        fs::write(&path, torn).unwrap();
        let told = files.read().map(drop).unwrap_err().to_string();
        assert!(told.contains("amendments is damaged"), "{told}");
        files.mark().unwrap();
        let read = files.read().unwrap().unwrap();
        assert_eq!(read.numbers.ids().rules, rule(3).rules);

        // What this version writes is one file.
        files.write_record(&read).unwrap();
        assert!(!path.exists());
        assert!(!folder.path().join("image").exists());
        let again = files.read().unwrap().unwrap();
        assert_eq!(again.numbers.ids(), read.numbers.ids());
    }
}
