//! What was installed, remembered beside the maps for the next command.
//!
//! The record says where the maps are and whom the numbers in them mean; the tables are in the maps
//! alone. It lives in the run folder, which a reboot empties together with the maps. A mark is set
//! before maps are written and taken away when the record is true again; finding it means that a
//! command was interrupted. The files are sealed: what damage has done to them is never taken for
//! what was installed.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sg_common::abi::ABI;

use super::audited::AuditMarks;
use super::flow_tables::FlowRoom;
use super::numbers::Numbers;
use super::report::{ReceiveHook, TcHook};
use super::seal::{self, Opened};
use super::sizes::Sizes;
use super::verify::Way;
use super::{Dataplane, Error, former};
use crate::crash::{self, Point};
use crate::dirs::create_file;
use crate::interfaces::NetnsId;
use crate::policy::model::Side;
use crate::policy::names::{InterfaceName, VpcName};
use crate::store::StoreId;

/// The layout of the record, with that of the maps it speaks of.
const FORMAT: u32 = 5 << 16 | ABI;

const RECORD: seal::Kind = *b"sgIn";
const OWNER: seal::Kind = *b"sgOw";
const OWNER_FORMAT: u32 = 1;
const AUDITED: seal::Kind = *b"sgAu";
const AUDITED_FORMAT: u32 = 1;

/// The record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// The build of the object whose programs are attached.
    pub(super) fingerprint: u64,
    /// The number of the maps' folder.
    pub(super) layout: u32,
    pub(super) sizes: Sizes,
    /// Where flows open.
    pub(super) flows: FlowRoom,
    /// Where flows may still be as well, while they are migrated.
    pub(super) other_flows: Option<FlowRoom>,
    /// Places of INTERFACES.
    pub(super) interface_places: u32,
    pub(super) generation: u32,
    pub(super) jiffies_per_second: u32,
    pub(super) hash_key: [u32; 10],
    pub(super) netns: Vec<NetnsRecord>,
    pub(super) devices: Vec<DeviceRecord>,
    /// The lowest incarnation never given to a guest.
    pub(super) next_incarnation: u32,
    /// Whom numbers in the maps mean.
    pub(super) numbers: Numbers,
}

impl Record {
    /// The same, to be given other numbers.
    pub(super) fn without_numbers(&self) -> Self {
        Self {
            sizes: self.sizes,
            netns: self.netns.clone(),
            devices: self.devices.clone(),
            numbers: Numbers::default(),
            ..*self
        }
    }
}

/// A network namespace and its number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NetnsRecord {
    pub(super) number: u32,
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl NetnsRecord {
    pub(super) fn is(&self, id: NetnsId) -> bool {
        (self.device, self.inode) == (id.device, id.inode)
    }
}

/// A device that programs are attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DeviceRecord {
    pub(super) vpc: VpcName,
    pub(super) name: InterfaceName,
    pub(super) netns: u32,
    /// The namespace's inode: unlike the number, it can be found again without the record.
    pub(super) netns_inode: u64,
    pub(super) ifindex: u32,
    pub(super) guest: bool,
    pub(super) hook: ReceiveHook,
    /// How the programs at TC are attached.
    pub(super) tc: TcHook,
    pub(super) incarnation: u32,
    /// The slot by which it is counted; none where nothing is in force on it.
    pub(super) slot: Option<u32>,
}

/// What a folder among the pins of links marks, since it is held by no descriptor. The order is that
/// in which they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FilterMark {
    /// A filter, where a kernel with TCX has a link.
    Filter(Way),
    /// A clsact that sg has added.
    Clsact,
}

impl FilterMark {
    const ALL: [Self; 3] = [
        Self::Filter(Way::Received),
        Self::Filter(Way::Sent),
        Self::Clsact,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Filter(Way::Received) => "receive-clsact",
            Self::Filter(Way::Sent) => "send-clsact",
            Self::Clsact => "clsact",
        }
    }

    /// What a name marks: the inode number of the namespace, the device, and what it has there.
    pub(super) fn of_name(name: &str) -> Option<(u64, u32, Self)> {
        let mut parts = name.splitn(3, '-');
        let netns_inode = parts.next()?.parse().ok()?;
        let ifindex = parts.next()?.parse().ok()?;
        let rest = parts.next()?;
        let mark = Self::ALL.into_iter().find(|mark| mark.name() == rest)?;
        Some((netns_inode, ifindex, mark))
    }
}

impl DeviceRecord {
    pub(super) fn side(&self) -> Side {
        if self.guest { Side::Guest } else { Side::Host }
    }

    /// What the names of its links' pins begin with.
    pub(super) fn link_prefix(&self) -> String {
        format!("{}-{}-", self.netns_inode, self.ifindex)
    }

    /// The name of a link's pin, or of what marks a filter. XDP, TCX and clsact have different ones,
    /// so that a device that changes hooks has both for a moment, and never none.
    pub(super) fn link(&self, way: Way) -> String {
        let name = match (way, self.hook, self.tc) {
            (Way::Received, ReceiveHook::XdpNative | ReceiveHook::XdpGeneric, _) => "receive-xdp",
            (Way::Received, ReceiveHook::Tc, TcHook::Tcx) => "receive-tc",
            (Way::Sent, _, TcHook::Tcx) => "send",
            (_, _, TcHook::Clsact) => FilterMark::Filter(way).name(),
        };
        format!("{}{name}", self.link_prefix())
    }

    /// The name of what marks something that this device has.
    pub(super) fn filter_mark(&self, mark: FilterMark) -> String {
        format!("{}{}", self.link_prefix(), mark.name())
    }

    /// Whether a filter judges, and no link.
    pub(super) fn has_filter(&self, way: Way) -> bool {
        self.tc == TcHook::Clsact && (way == Way::Sent || self.hook == ReceiveHook::Tc)
    }

    /// The names of everything that it may have among the links. A clsact that sg has added stays
    /// while the device is protected, be it by links meanwhile: the kernel loses packets that are
    /// sent while it is added or removed.
    pub(super) fn links(&self) -> [String; 3] {
        [
            self.link(Way::Received),
            self.link(Way::Sent),
            self.filter_mark(FilterMark::Clsact),
        ]
    }

    /// Whether both are of one device, at the same hooks.
    pub(super) fn has_links_of(&self, other: &Self) -> bool {
        self.links() == other.links()
    }
}

/// The files of one run folder.
#[derive(Clone, Debug)]
pub(super) struct Files {
    record: PathBuf,
    /// What earlier versions kept beside the record.
    former: former::Files,
    mark: PathBuf,
    owner: PathBuf,
    /// What was counted while interfaces were audited.
    audited: PathBuf,
}

/// Whose policy is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The store.
    pub store: StoreId,
    /// The state folder that it was in.
    pub state_dir: PathBuf,
}

impl Files {
    pub(super) fn in_folder(run: &Path) -> Self {
        Self {
            record: run.join(Dataplane::RECORD),
            former: former::Files::in_folder(run),
            mark: run.join("updating"),
            owner: run.join("owner"),
            audited: run.join("audited"),
        }
    }

    /// What was installed; `None` when nothing was.
    pub(super) fn read(&self) -> Result<Option<Record>, Error> {
        // A reader without the lock may meet a record that is just replaced by one of this version.
        for _ in 0..2 {
            let Some((mut record, is_former)) = self.read_any_record()? else {
                return Ok(None);
            };
            if !is_former || self.former.complete(&mut record, self.is_marked())? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// What was installed, without the numbers where an earlier version kept them elsewhere.
    pub(super) fn read_record(&self) -> Result<Option<Record>, Error> {
        Ok(self.read_any_record()?.map(|(record, _)| record))
    }

    /// What was installed, and whether the earlier version has written it.
    fn read_any_record(&self) -> Result<Option<(Record, bool)>, Error> {
        let Some(bytes) = read_file(&self.record)? else {
            return Ok(None);
        };
        // Another layout of the record or of the maps is another build's: it is never guessed at.
        let (record, is_former) = match seal::open(RECORD, &bytes) {
            Opened::Whole { format, content } if format == FORMAT => {
                (postcard::from_bytes(content).ok(), false)
            }
            Opened::Whole { .. } => return Err(unreadable(&self.record)),
            Opened::Unsealed if former::is_record(&bytes) => (former::record(&bytes), true),
            // Versions were counted from one before files were sealed.
            Opened::Unsealed if matches!(bytes[..], [_, _, 1..=2, 0, ..]) => {
                return Err(unreadable(&self.record));
            }
            Opened::Unsealed | Opened::Damaged => (None, false),
        };
        let record = record.ok_or_else(|| damaged(&self.record))?;
        Ok(Some((record, is_former)))
    }

    /// Whether a command was interrupted while it wrote maps.
    pub(super) fn is_marked(&self) -> bool {
        self.mark.exists()
    }

    pub(super) fn mark(&self) -> Result<(), Error> {
        self.replace(&self.mark, &[], &[])
    }

    pub(super) fn write_record(&self, record: &Record) -> Result<(), Error> {
        self.write_next_record(record)?;
        self.put_next_record()
    }

    /// Writes a record beside the one that holds.
    pub(super) fn write_next_record(&self, record: &Record) -> Result<(), Error> {
        let bytes = postcard::to_allocvec(record).map_err(|error| Error::Folder {
            path: self.record.clone(),
            source: io::Error::other(error),
        })?;
        let header = seal::header(RECORD, FORMAT, &bytes);
        self.write_beside(&self.record, &header, &bytes)
    }

    /// The record that was written last holds from here on.
    pub(super) fn put_next_record(&self) -> Result<(), Error> {
        self.put_beside(&self.record)?;
        self.former.remove()
    }

    pub(super) fn unmark(&self) -> Result<(), Error> {
        remove(&self.mark)
    }

    /// Whose policy is installed; `None` where an earlier version has installed it.
    pub(super) fn read_owner(&self) -> Result<Option<Owner>, Error> {
        let Some(bytes) = read_file(&self.owner)? else {
            return Ok(None);
        };
        match seal::open(OWNER, &bytes) {
            Opened::Whole { format, content } if format == OWNER_FORMAT => {
                let owner = postcard::from_bytes(content);
                owner.map(Some).map_err(|_| damaged(&self.owner))
            }
            Opened::Whole { .. } => Err(unreadable(&self.owner)),
            Opened::Damaged | Opened::Unsealed => Err(damaged(&self.owner)),
        }
    }

    pub(super) fn write_owner(&self, owner: &Owner) -> Result<(), Error> {
        if self
            .read_owner()
            .is_ok_and(|known| known.as_ref() == Some(owner))
        {
            return Ok(());
        }
        let bytes = postcard::to_allocvec(owner).map_err(|error| Error::Folder {
            path: self.owner.clone(),
            source: io::Error::other(error),
        })?;
        self.replace(
            &self.owner,
            &seal::header(OWNER, OWNER_FORMAT, &bytes),
            &bytes,
        )
    }

    /// What was counted when interfaces last began or ended to be audited. Where that cannot be read
    /// it is as if none ever had: packets depend on it in nothing.
    pub(super) fn read_audit_marks(&self) -> AuditMarks {
        let bytes = read_file(&self.audited).ok().flatten();
        let marks = bytes.and_then(|bytes| match seal::open(AUDITED, &bytes) {
            Opened::Whole { format, content } if format == AUDITED_FORMAT => {
                postcard::from_bytes(content).ok()
            }
            _ => None,
        });
        marks.unwrap_or_default()
    }

    pub(super) fn write_audit_marks(&self, marks: &AuditMarks) -> Result<(), Error> {
        let bytes = postcard::to_allocvec(marks).map_err(|error| Error::Folder {
            path: self.audited.clone(),
            source: io::Error::other(error),
        })?;
        let header = seal::header(AUDITED, AUDITED_FORMAT, &bytes);
        self.replace(&self.audited, &header, &bytes)
    }

    /// Forgets everything.
    pub(super) fn clear(&self) -> Result<(), Error> {
        self.forget()?;
        remove(&self.owner)
    }

    /// Forgets everything but whose policy is installed.
    pub(super) fn forget(&self) -> Result<(), Error> {
        remove(&self.record)?;
        crash::at(Point::RecordRemoved);
        self.former.remove()?;
        remove(&self.audited)?;
        self.unmark()
    }

    fn replace(&self, path: &Path, header: &[u8], content: &[u8]) -> Result<(), Error> {
        self.write_beside(path, header, content)?;
        self.put_beside(path)
    }

    fn write_beside(&self, path: &Path, header: &[u8], content: &[u8]) -> Result<(), Error> {
        let written = create_file(&path.with_extension("new")).and_then(|mut file| {
            file.write_all(header)?;
            file.write_all(content)
        });
        written.map_err(|source| Error::Folder {
            path: path.to_path_buf(),
            source,
        })
    }

    fn put_beside(&self, path: &Path) -> Result<(), Error> {
        let put = fs::rename(path.with_extension("new"), path);
        put.map_err(|source| Error::Folder {
            path: path.to_path_buf(),
            source,
        })
    }
}

/// The bytes of a file; `None` where there is none.
pub(super) fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Folder {
            path: path.to_path_buf(),
            source,
        }),
    }
}

pub(super) fn unreadable(path: &Path) -> Error {
    Error::Record {
        path: path.to_path_buf(),
    }
}

pub(super) fn damaged(path: &Path) -> Error {
    Error::Damaged {
        path: path.to_path_buf(),
    }
}

pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Folder {
            path: path.to_path_buf(),
            source,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use sg_common::ids::RuleSlot;

    use super::*;
    use crate::compile::image::{Ids, Image};
    use crate::policy::names::RuleId;

    #[test]
    fn each_bit_that_differs_is_noticed_and_the_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::in_folder(folder.path());
        files.write_record(&record()).unwrap();
        let path = folder.path().join("installed");
        let bytes = fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, damaged).unwrap();
            let told = files.read().map(drop).unwrap_err().to_string();
            let wanted = format!("{} is damaged", path.display());
            assert!(told.starts_with(&wanted), "bit {bit}: {told}");
        }
        fs::write(&path, &bytes).unwrap();
        let read = files.read().unwrap().unwrap();
        assert_eq!(read.numbers.ids(), record().numbers.ids());
    }

    #[test]
    fn what_another_version_has_sealed_is_not_called_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::in_folder(folder.path());
        let path = folder.path().join("installed");
        let content = b"of another layout";
        let header = seal::header(RECORD, FORMAT + 1, content);
        for bytes in [
            [&header[..], content].concat(),
            [&(1_u32 << 16 | ABI).to_le_bytes()[..], content].concat(),
        ] {
            fs::write(&path, bytes).unwrap();
            let told = files.read_record().map(drop).unwrap_err();
            assert!(matches!(told, Error::Record { .. }), "{told}");
        }
    }

    #[test]
    fn a_mark_says_whose_it_is() {
        let device = DeviceRecord {
            vpc: VpcName::default(),
            name: "eth0".parse().unwrap(),
            netns: 1,
            netns_inode: 4_026_531_840,
            ifindex: 7,
            guest: false,
            hook: ReceiveHook::Tc,
            tc: TcHook::Clsact,
            incarnation: 1,
            slot: None,
        };
        let marks = device.links().into_iter();
        let read: Vec<_> = marks
            .map(|name| FilterMark::of_name(&name).unwrap())
            .collect();
        let marked = FilterMark::ALL.map(|mark| (4_026_531_840, 7, mark));
        assert_eq!(read, marked);
        let tcx = DeviceRecord {
            tc: TcHook::Tcx,
            ..device
        };
        let [receive, send, clsact] = tcx.links();
        assert_eq!(receive, "4026531840-7-receive-tc");
        assert_eq!(send, "4026531840-7-send");
        assert!(
            [receive, send]
                .iter()
                .all(|name| FilterMark::of_name(name).is_none())
        );
        assert!(FilterMark::of_name(&clsact).is_some());
    }

    pub(in super::super) fn record() -> Record {
        let rules = [1, 2].map(|number| (RuleId::from_number(number).unwrap(), RuleSlot(7)));
        Record {
            fingerprint: 1,
            layout: 1,
            sizes: Sizes::roomy(&Image::default()),
            flows: FlowRoom {
                number: 1,
                size: super::super::FlowSize::for_capacity(1),
            },
            other_flows: None,
            interface_places: 8,
            generation: 1,
            jiffies_per_second: 250,
            hash_key: [0; 10],
            netns: Vec::new(),
            devices: Vec::new(),
            next_incarnation: 1,
            numbers: Numbers::of(&Ids {
                rules: rules.into(),
                last_rule: 7,
                ..Ids::default()
            }),
        }
    }
}
