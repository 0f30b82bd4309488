//! What was installed, remembered beside the maps for the next command.
//!
//! The record lives in the run folder, which a reboot empties together with the maps. A mark is set
//! before maps are written and taken away when the record is true again; finding it means that a
//! command was interrupted.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sg_common::tables::ABI;

use super::Error;
use super::flow_tables::FlowRoom;
use super::report::ReceiveHook;
use super::sizes::Sizes;
use crate::compile::image::Image;
use crate::interfaces::NetnsId;
use crate::policy::model::Side;
use crate::policy::names::{InterfaceName, VpcName};

/// The layout of the record, with that of the maps it speaks of.
const FORMAT: u32 = 2 << 16 | ABI;

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
    /// Where flows may still be as well, while they are carried over.
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
    /// The namespace's inode: unlike the number, it is the same for whoever lost the record.
    pub(super) netns_inode: u64,
    pub(super) ifindex: u32,
    pub(super) guest: bool,
    pub(super) hook: ReceiveHook,
    pub(super) incarnation: u32,
}

impl DeviceRecord {
    pub(super) fn side(&self) -> Side {
        if self.guest { Side::Guest } else { Side::Host }
    }

    /// What the names of its links' pins begin with.
    pub(super) fn link_prefix(&self) -> String {
        format!("{}-{}-", self.netns_inode, self.ifindex)
    }

    /// The name of the receiving link's pin. XDP and TC have different ones, so that a device that
    /// changes hooks has both for a moment, and never none.
    pub(super) fn receive_link(&self) -> String {
        let hook = match self.hook {
            ReceiveHook::XdpNative | ReceiveHook::XdpGeneric => "xdp",
            ReceiveHook::Tc => "tc",
        };
        format!("{}receive-{hook}", self.link_prefix())
    }

    /// Whether both are of one device, at one hook.
    pub(super) fn has_links_of(&self, other: &Self) -> bool {
        self.receive_link() == other.receive_link()
    }

    /// The name of the sending link's pin.
    pub(super) fn send_link(&self) -> String {
        format!("{}send", self.link_prefix())
    }
}

/// The files of one run folder.
#[derive(Clone, Debug)]
pub(super) struct Files {
    record: PathBuf,
    /// The last image that was compiled whole, behind a number that no other image has.
    image: PathBuf,
    /// What was changed since: the number of that image, and pairs of what went and what came,
    /// each behind its length.
    amendments: PathBuf,
    mark: PathBuf,
}

/// How often a reader begins again.
const ATTEMPTS: u32 = 16;

type ImageNumber = [u8; size_of::<u64>()];

impl Files {
    pub(super) fn in_folder(run: &Path) -> Self {
        Self {
            record: run.join("installed"),
            image: run.join("image"),
            amendments: run.join("amendments"),
            mark: run.join("updating"),
        }
    }

    /// What was installed, and the image; `None` when nothing was.
    pub(super) fn read(&self) -> Result<Option<(Record, Image)>, Error> {
        // Whoever reads without the lock may meet an image that is just replaced. Its amendments
        // are gone then, and it is read again.
        for _ in 0..ATTEMPTS {
            let Some(record) = self.read_record()? else {
                return Ok(None);
            };
            let Some(bytes) = self.read_file(&self.image)? else {
                return Ok(None);
            };
            let amendments = self.read_file(&self.amendments)?;
            let (number, bytes) = bytes.split_first_chunk().ok_or_else(|| self.unreadable())?;
            if self.image_number().ok() != Some(*number) {
                continue;
            }
            let mut image = Image::from_bytes(bytes).map_err(|_| self.unreadable())?;
            if let Some(amendments) = amendments {
                image.amend(&self.pairs(*number, &amendments)?);
            }
            return Ok(Some((record, image)));
        }
        Err(self.unreadable())
    }

    fn image_number(&self) -> io::Result<ImageNumber> {
        let mut number = ImageNumber::default();
        fs::File::open(&self.image)?.read_exact(&mut number)?;
        Ok(number)
    }

    /// What was installed, without the image.
    pub(super) fn read_record(&self) -> Result<Option<Record>, Error> {
        let Some(record) = self.read_file(&self.record)? else {
            return Ok(None);
        };
        // Another layout of the record or of the maps is another build's: it is never guessed at.
        let (format, record) = record
            .split_first_chunk()
            .ok_or_else(|| self.unreadable())?;
        if u32::from_le_bytes(*format) != FORMAT {
            return Err(self.unreadable());
        }
        let record = postcard::from_bytes(record).map_err(|_| self.unreadable())?;
        Ok(Some(record))
    }

    fn unreadable(&self) -> Error {
        Error::Record {
            path: self.record.clone(),
        }
    }

    /// What was changed since an image was written. What an interrupted command has half written is
    /// left out: it is not in force, or the mark tells of it.
    fn pairs(&self, image: ImageNumber, bytes: &[u8]) -> Result<Vec<(Image, Image)>, Error> {
        let mut pairs = Vec::new();
        let Some((number, mut rest)) = bytes.split_first_chunk() else {
            return Ok(pairs);
        };
        if *number != image {
            return Ok(pairs);
        }
        while let Some((length, behind)) = rest.split_first_chunk()
            && let Some((pair, behind)) = usize::try_from(u64::from_le_bytes(*length))
                .ok()
                .and_then(|length| behind.split_at_checked(length))
        {
            pairs.push(postcard::from_bytes(pair).map_err(|_| self.unreadable())?);
            rest = behind;
        }
        Ok(pairs)
    }

    /// Adds what goes and what comes to what was changed since the image was written.
    pub(super) fn amend(&self, gone: &Image, new: &Image) -> Result<(), Error> {
        let failed = |source| Error::Folder {
            path: self.amendments.clone(),
            source,
        };
        let pair = postcard::to_allocvec(&(gone, new));
        let pair = pair.map_err(|error| failed(io::Error::other(error)))?;
        let write = || -> io::Result<()> {
            let image = self.image_number()?;
            let mut file = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.amendments)?;
            let mut bytes = Vec::new();
            if file.metadata()?.len() == 0 {
                bytes.extend(image);
            }
            bytes.extend((pair.len() as u64).to_le_bytes());
            bytes.extend(&pair);
            file.write_all(&bytes)
        };
        write().map_err(failed)
    }

    /// Bytes of the image, and of what was changed since.
    pub(super) fn lengths(&self) -> (u64, u64) {
        let length = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        (length(&self.image), length(&self.amendments))
    }

    fn read_file(&self, path: &Path) -> Result<Option<Vec<u8>>, Error> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Folder {
                path: path.to_path_buf(),
                source,
            }),
        }
    }

    /// Whether a command was interrupted while it wrote maps.
    pub(super) fn is_marked(&self) -> bool {
        self.mark.exists()
    }

    pub(super) fn mark(&self) -> Result<(), Error> {
        self.replace(&self.mark, &[])
    }

    pub(super) fn write_image(&self, image: &Image) -> Result<(), Error> {
        let image = image.to_bytes().map_err(|error| Error::Folder {
            path: self.image.clone(),
            source: io::Error::other(error),
        })?;
        let number: ImageNumber = rand::random();
        self.replace(&self.image, &[&number, &image])?;
        remove(&self.amendments)
    }

    pub(super) fn write_record(&self, record: &Record) -> Result<(), Error> {
        let bytes = postcard::to_allocvec(record).map_err(|error| Error::Folder {
            path: self.record.clone(),
            source: io::Error::other(error),
        })?;
        self.replace(&self.record, &[&FORMAT.to_le_bytes(), &bytes])
    }

    pub(super) fn unmark(&self) -> Result<(), Error> {
        remove(&self.mark)
    }

    /// Forgets everything.
    pub(super) fn clear(&self) -> Result<(), Error> {
        remove(&self.record)?;
        remove(&self.image)?;
        remove(&self.amendments)?;
        self.unmark()
    }

    fn replace(&self, path: &Path, parts: &[&[u8]]) -> Result<(), Error> {
        let beside = path.with_extension("new");
        let written = fs::File::create(&beside)
            .and_then(|mut file| parts.iter().try_for_each(|part| file.write_all(part)))
            .and_then(|()| fs::rename(&beside, path));
        written.map_err(|source| Error::Folder {
            path: path.to_path_buf(),
            source,
        })
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Folder {
            path: path.to_path_buf(),
            source,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tests::amendments::pairs;

    #[test]
    fn an_image_is_read_with_what_was_changed_since() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::in_folder(folder.path());
        files.write_record(&record()).unwrap();
        let read = || files.read().unwrap().unwrap().1;
        let (mut image, pairs) = pairs();
        files.write_image(&image).unwrap();
        for (gone, new) in &pairs {
            files.amend(gone, new).unwrap();
        }
        let whole = read();
        image.amend(&pairs);
        assert_eq!(whole, image);

        // What a killed command has half written is left out.
        let path = folder.path().join("amendments");
        let bytes = fs::read(&path).unwrap();
        fs::write(
            &path,
            [&bytes[..], &9_u64.to_le_bytes(), &[1, 2, 3]].concat(),
        )
        .unwrap();
        assert_eq!(read(), whole);

        // And so is what was changed of another image.
        files.write_image(&whole).unwrap();
        fs::write(&path, &bytes).unwrap();
        assert_eq!(read(), whole);
    }

    fn record() -> Record {
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
        }
    }
}
