//! What is in force: the record, and what is read of the maps as far as it is asked for.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::object;
use super::read_back::{self, Interfaces};
use super::state::Record;
use crate::compile::image::Image;

/// What an earlier command, or this one, has installed.
pub(super) struct InForce {
    bpffs: PathBuf,
    pub(super) record: Record,
    names: OnceLock<Image>,
    /// None where the maps are not as they were left.
    tables: OnceLock<Option<Image>>,
}

impl InForce {
    /// What an earlier command has recorded.
    pub(super) fn recorded(bpffs: &Path, record: Record) -> Self {
        Self {
            bpffs: bpffs.to_path_buf(),
            record,
            names: OnceLock::new(),
            tables: OnceLock::new(),
        }
    }

    /// What was installed just now.
    pub(super) fn installed(bpffs: &Path, record: Record, image: Image) -> Self {
        Self {
            tables: OnceLock::from(Some(image)),
            ..Self::recorded(bpffs, record)
        }
    }

    /// The names behind numbers, and the interfaces; no tables.
    pub(super) fn names(&self) -> &Image {
        if let Some(Some(image)) = self.tables.get() {
            return image;
        }
        self.names.get_or_init(|| {
            let record = &self.record;
            let interfaces = read_back::interfaces(&self.bpffs, record);
            // Where there is no map, an interface has its slot and nothing else.
            let interfaces = interfaces.unwrap_or_else(|_| Interfaces::unread(record));
            Image {
                interfaces: interfaces.found,
                interface_places: record.interface_places,
                ids: record.numbers.ids(),
                ..Image::default()
            }
        })
    }

    /// Everything that the maps hold; none where they are another build's, or where an update by
    /// differences would leave something in them that no compiler has put there.
    pub(super) fn tables(&self) -> Option<&Image> {
        let read = || {
            if self.record.fingerprint != object::fingerprint() {
                return None;
            }
            let (image, faults) =
                read_back::tables(&self.bpffs, &self.record, self.names()).ok()?;
            faults.is_empty().then_some(image)
        };
        self.tables.get_or_init(read).as_ref()
    }
}
