//! What earlier versions have recorded, so that it is taken over without losing flows.
//!
//! They kept all tables in an image beside the record, and one before them the changes of an image
//! behind it. Of those only the numbers are needed: the tables are in the maps. The earliest did not
//! seal its files, and its interfaces were counted by the place that their entry had.

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
use super::seal::{self, Opened, checksum};
use super::sizes::Sizes;
use super::state::{DeviceRecord, NetnsRecord, Record, damaged, read_file, remove, unreadable};
use crate::compile::image::{
    Arena, Grant, GroupSet, IdentitySet, Ids, Member, RangeArenas, ScopedPrefix,
};
use crate::policy::names::{InterfaceName, RuleId, VpcName};

/// The layout of the maps that they speak of.
const FORMER_ABI: u32 = 4;
/// The record of the version that sealed its files.
pub(super) const SEALED_FORMAT: u32 = 4 << 16 | FORMER_ABI;
const UNSEALED_FORMAT: u32 = 2 << 16 | FORMER_ABI;
const IMAGE: seal::Kind = *b"sgIm";
/// What a sealed image begins with.
const SEALED_IMAGE: u64 = (FORMER_ABI as u64) << 32 | 4;
const UNSEALED_IMAGE: u64 = (FORMER_ABI as u64) << 32 | 3;

/// How the record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// In a sealed file.
    Sealed,
    /// As it was.
    Unsealed,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
struct SealedRecord {
    fingerprint: u64,
    layout: u32,
    sizes: Sizes,
    flows: FlowRoom,
    other_flows: Option<FlowRoom>,
    interface_places: u32,
    generation: u32,
    jiffies_per_second: u32,
    hash_key: [u32; 10],
    netns: Vec<NetnsRecord>,
    devices: Vec<SealedDevice>,
    next_incarnation: u32,
}

/// A device as the earliest version had it, and how its programs at TC are attached.
#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
struct SealedDevice {
    vpc: VpcName,
    name: InterfaceName,
    netns: u32,
    netns_inode: u64,
    ifindex: u32,
    guest: bool,
    hook: ReceiveHook,
    tc: TcHook,
    incarnation: u32,
}

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
struct SealedImage {
    _tables: Tables,
    interfaces: BTreeMap<u32, SealedInterface>,
    _interface_places: u32,
    ids: FormerIds,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
struct UnsealedImage {
    _tables: Tables,
    interfaces: BTreeMap<u32, UnsealedInterface>,
    ids: FormerIds,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
struct SealedInterface {
    _place: u32,
    interface: UnsealedInterface,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
struct UnsealedInterface {
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
    fn read(written: Written, bytes: &[u8]) -> Option<Self> {
        Some(match written {
            Written::Sealed => {
                let SealedImage {
                    interfaces, ids, ..
                } = whole(bytes)?;
                let interfaces = interfaces.into_iter();
                Self::of(interfaces.map(|(slot, found)| (slot, found.interface)), ids)
            }
            Written::Unsealed => {
                let UnsealedImage {
                    interfaces, ids, ..
                } = whole(bytes)?;
                Self::of(interfaces.into_iter(), ids)
            }
        })
    }

    fn of(interfaces: impl Iterator<Item = (u32, UnsealedInterface)>, ids: FormerIds) -> Self {
        let slots = interfaces.map(|(slot, found)| ((found.netns, found.ifindex), slot));
        Self {
            slots: slots.collect(),
            ids,
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

/// Whether bytes are a record of the earliest version, for maps that this one knows.
pub(super) fn is_record(bytes: &[u8]) -> bool {
    let format = bytes
        .first_chunk()
        .map(|format| u32::from_le_bytes(*format));
    FORMER_ABI == ABI && format == Some(UNSEALED_FORMAT)
}

/// Reads such a record; `None` where it is damaged.
pub(super) fn record(bytes: &[u8]) -> Option<Record> {
    let (_, content) = bytes.split_first_chunk::<4>()?;
    whole(content).map(|record: FormerRecord| record.into())
}

/// Reads the content of a sealed record; `None` where it is none.
pub(super) fn sealed_record(content: &[u8]) -> Option<Record> {
    whole(content).map(|record: SealedRecord| record.into())
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

    /// Gives a record the numbers of its image; tells whether there is one. An image that was written
    /// before files were sealed is only right beside a record of that time, so that damage never makes
    /// one look like it.
    ///
    /// Of an image that was changed since, the maps that lead to what was changed are unknown, so that
    /// the record is made one of another build, whose tables are made anew.
    pub(super) fn complete(
        &self,
        record: &mut Record,
        written: Written,
        is_marked: bool,
    ) -> Result<bool, Error> {
        let Some(bytes) = read_file(&self.image)? else {
            return Ok(false);
        };
        let damaged = || damaged(&self.image);
        let (written, content) = match seal::open(IMAGE, &bytes) {
            Opened::Whole { content, .. } => (Written::Sealed, content),
            Opened::Unsealed if written == Written::Unsealed => (written, &bytes[..]),
            Opened::Unsealed | Opened::Damaged => return Err(damaged()),
        };
        let (number, content) = content.split_first_chunk().ok_or_else(damaged)?;
        let (format, content) = content.split_first_chunk().ok_or_else(damaged)?;
        match (written, u64::from_le_bytes(*format)) {
            (Written::Sealed, SEALED_IMAGE) | (Written::Unsealed, UNSEALED_IMAGE) => {}
            (Written::Sealed, _) => return Err(unreadable(&self.image)),
            (Written::Unsealed, _) => return Err(damaged()),
        }
        let mut known = Known::read(written, content).ok_or_else(damaged)?;
        if let Some(amendments) = read_file(&self.amendments)? {
            for (gone, new) in self.pairs(*number, &amendments, written, is_marked)? {
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
        written: Written,
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
        while let Some((pair, behind)) = first_pair(rest, written) {
            let pair = pair.and_then(|pair| read_pair(written, pair));
            pairs.push(pair.ok_or_else(|| damaged(&self.amendments))?);
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

/// The first pair of what was changed, none where it is not what was written, and what follows it.
/// `None` where the pair is not complete.
fn first_pair(bytes: &[u8], written: Written) -> Option<(Option<&[u8]>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    if written == Written::Unsealed {
        let (pair, rest) = rest.split_at_checked(length)?;
        return Some((Some(pair), rest));
    }
    let (sum, rest) = rest.split_first_chunk()?;
    let (pair, rest) = rest.split_at_checked(length)?;
    let is_whole = checksum(&[pair]) == u64::from_le_bytes(*sum);
    Some((is_whole.then_some(pair), rest))
}

fn read_pair(written: Written, bytes: &[u8]) -> Option<(Known, Known)> {
    Some(match written {
        Written::Sealed => {
            let (gone, new): (SealedImage, SealedImage) = whole(bytes)?;
            let known = |image: SealedImage| Known::of([].into_iter(), image.ids);
            (known(gone), known(new))
        }
        Written::Unsealed => {
            let (gone, new): (UnsealedImage, UnsealedImage) = whole(bytes)?;
            let known = |image: UnsealedImage| Known::of([].into_iter(), image.ids);
            (known(gone), known(new))
        }
    })
}

impl From<SealedRecord> for Record {
    fn from(former: SealedRecord) -> Self {
        let devices = former.devices.into_iter();
        Self {
            fingerprint: former.fingerprint,
            layout: former.layout,
            sizes: former.sizes,
            flows: former.flows,
            other_flows: former.other_flows,
            interface_places: former.interface_places,
            generation: former.generation,
            jiffies_per_second: former.jiffies_per_second,
            hash_key: former.hash_key,
            netns: former.netns,
            devices: devices
                .map(|former| DeviceRecord {
                    vpc: former.vpc,
                    name: former.name,
                    netns: former.netns,
                    netns_inode: former.netns_inode,
                    ifindex: former.ifindex,
                    guest: former.guest,
                    hook: former.hook,
                    tc: former.tc,
                    incarnation: former.incarnation,
                    slot: None,
                })
                .collect(),
            next_incarnation: former.next_incarnation,
            numbers: Numbers::default(),
        }
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

    fn interface() -> UnsealedInterface {
        UnsealedInterface {
            netns: 1,
            ifindex: 7,
            _vpc: VpcName::default(),
            _name: "eth0".parse().unwrap(),
            _interface: Interface::default(),
        }
    }

    fn sealed(ids: FormerIds) -> SealedImage {
        let interface = SealedInterface {
            _place: 3,
            interface: interface(),
        };
        SealedImage {
            _tables: Tables::default(),
            interfaces: [(2, interface)].into(),
            _interface_places: 64,
            ids,
        }
    }

    fn unsealed(ids: FormerIds) -> UnsealedImage {
        UnsealedImage {
            _tables: Tables::default(),
            interfaces: [(2, interface())].into(),
            ids,
        }
    }

    /// A pair of what went and what came, as it lies in a file.
    fn written_pair(written: Written, [gone, new]: [u32; 2]) -> Vec<u8> {
        let (gone, new) = (rule(gone), rule(new));
        let pair = match written {
            Written::Sealed => postcard::to_allocvec(&(sealed(gone), sealed(new))),
            Written::Unsealed => postcard::to_allocvec(&(unsealed(gone), unsealed(new))),
        };
        let pair = pair.unwrap();
        let length = (pair.len() as u64).to_le_bytes();
        let sum = checksum(&[&pair]).to_le_bytes();
        match written {
            Written::Sealed => [&length[..], &sum, &pair].concat(),
            Written::Unsealed => [&length[..], &pair].concat(),
        }
    }

    /// The files of a version: a record, and an image with one rule, with what replaced it by a second
    /// one and that one by a third.
    fn write(folder: &Path, written: Written) {
        let put = |name, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
        let Record {
            sizes,
            flows,
            hash_key,
            ..
        } = record();
        let number = [7; 8];
        match written {
            Written::Sealed => {
                let record = SealedRecord {
                    fingerprint: 5,
                    layout: 1,
                    sizes,
                    flows,
                    other_flows: None,
                    interface_places: 64,
                    generation: 9,
                    jiffies_per_second: 250,
                    hash_key,
                    netns: Vec::new(),
                    devices: vec![SealedDevice {
                        vpc: VpcName::default(),
                        name: "eth0".parse().unwrap(),
                        netns: 1,
                        netns_inode: 4,
                        ifindex: 7,
                        guest: false,
                        hook: ReceiveHook::Tc,
                        tc: TcHook::Clsact,
                        incarnation: 1,
                    }],
                    next_incarnation: 2,
                };
                let record = postcard::to_allocvec(&record).unwrap();
                let header = seal::header(*b"sgIn", SEALED_FORMAT, &record);
                put("installed", &[&header[..], &record].concat());
                let image = postcard::to_allocvec(&sealed(rule(1))).unwrap();
                let content = [&number[..], &SEALED_IMAGE.to_le_bytes(), &image].concat();
                let header = seal::header(IMAGE, 1, &content);
                put("image", &[&header[..], &content].concat());
            }
            Written::Unsealed => {
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
                put(
                    "installed",
                    &[&UNSEALED_FORMAT.to_le_bytes()[..], &record].concat(),
                );
                let image = postcard::to_allocvec(&unsealed(rule(1))).unwrap();
                let content = [&number[..], &UNSEALED_IMAGE.to_le_bytes(), &image].concat();
                put("image", &content);
            }
        }
    }

    fn write_amendments(folder: &Path, written: Written) {
        let pairs = [[1, 2], [2, 3]].map(|pair| written_pair(written, pair));
        let amendments = [&[7; 8][..], &pairs.concat()].concat();
        fs::write(folder.join("amendments"), amendments).unwrap();
    }

    #[test]
    fn a_record_of_an_earlier_version_has_the_numbers_of_its_image() {
        for written in [Written::Sealed, Written::Unsealed] {
            let folder = tempfile::tempdir().unwrap();
            let files = state::Files::in_folder(folder.path());
            write(folder.path(), written);
            let read = files.read().unwrap().unwrap();
            assert_eq!(read.numbers.ids().rules, rule(1).rules, "{written:?}");
            assert_eq!(read.devices[0].slot, Some(2), "{written:?}");
            assert_eq!((read.fingerprint, read.generation), (5, 9), "{written:?}");
            assert_eq!(read.hash_key, record().hash_key);

            write_amendments(folder.path(), written);
            let read = files.read().unwrap().unwrap();
            assert_eq!(read.numbers.ids().rules, rule(3).rules, "{written:?}");
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
            assert_eq!(read.numbers.ids().rules, rule(3).rules, "{written:?}");

            // What this version writes is one file.
            files.write_record(&read).unwrap();
            assert!(!path.exists());
            assert!(!folder.path().join("image").exists());
            let again = files.read().unwrap().unwrap();
            assert_eq!(again.numbers.ids(), read.numbers.ids());
        }
    }

    #[test]
    fn each_bit_that_differs_in_a_sealed_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let files = state::Files::in_folder(folder.path());
        write(folder.path(), Written::Sealed);
        write_amendments(folder.path(), Written::Sealed);
        for name in ["installed", "image", "amendments"] {
            let path = folder.path().join(name);
            let bytes = fs::read(&path).unwrap();
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, damaged).unwrap();
                let told = files.read().map(drop).unwrap_err().to_string();
                let wanted = format!("{} is damaged", path.display());
                assert!(told.starts_with(&wanted), "{name}, bit {bit}: {told}");
            }
            fs::write(&path, &bytes).unwrap();
        }
        files.read().unwrap().unwrap();
    }
}
