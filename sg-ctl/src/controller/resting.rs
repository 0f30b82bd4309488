//! A controller that has given the right to change back, and keeps what it knows for the next change.
//!
//! Others may change everything meanwhile. Whether anybody has is found by the revision, the limits and
//! the record of what is installed; what another writer has touched is read anew.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::confirmation::Unconfirmed;
use super::edit::Held;
use super::error::Result;
use super::machine::{InstalledFor, Machine};
use super::view::{self, Installation};
use super::{Controller, Warning};
use crate::dirs::Dirs;
use crate::limits::Limits;
use crate::policy::model::Policy;
use crate::store::{Revision, SqliteStore, Store};

/// What is kept of a controller between two changes.
pub struct Resting {
    dirs: Dirs,
    store: Box<dyn Store + Send>,
    store_file: FileId,
    revision: Revision,
    policy: Policy,
    limits: Limits,
    news: Vec<Warning>,
    held: Option<Held>,
    installed_for: Option<InstalledFor>,
    installation: Installation,
}

/// Which file a path leads to.
#[derive(PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self(found.dev(), found.ino()))
    }
}

impl Controller {
    /// Gives the right to change back; none where nothing is worth keeping: a store that can only be read
    /// is a copy, and what is about to be taken over is another's.
    pub fn rest(self) -> Option<Resting> {
        let store_file = FileId::of(&store_path(&self.dirs)).ok()?;
        if self.takes_over || self.store.read_only().is_some() {
            return None;
        }
        Some(Resting {
            store_file,
            installation: Installation::in_folder(self.dirs.run()),
            dirs: self.dirs,
            store: self.store,
            revision: self.revision,
            policy: self.policy,
            limits: self.limits,
            news: self.news,
            held: self.held,
            installed_for: self.installed_for,
        })
    }
}

impl Resting {
    /// The policy as it was last known.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Its revision.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The change that waits for its confirmation.
    pub fn unconfirmed(&self) -> Result<Option<Unconfirmed>> {
        Unconfirmed::find(&*self.store)
    }

    /// Whether the stored policy is the one that is kept.
    pub fn is_stored(&self) -> Result<bool> {
        let is_same = FileId::of(&store_path(&self.dirs)).is_ok_and(|file| file == self.store_file);
        Ok(is_same
            && self.store.revision()? == self.revision
            && Limits::read(&*self.store)? == self.limits)
    }

    /// The machine as far as the policy that is kept speaks of it.
    pub fn machine(&self) -> Result<Machine> {
        let attachments = match &self.held {
            Some(held) => held.dataplane.attachments()?,
            None => view::attachments(&self.dirs)?,
        };
        Machine::of(&self.policy, attachments)
    }

    /// Whether what is installed was installed for what is kept and for this machine.
    pub fn is_for(&self, machine: &Machine) -> bool {
        let installed_for = self.installed_for.as_ref();
        let is_same = installed_for.is_some_and(|installed_for| installed_for.is(machine));
        self.is_installed() && (is_same || machine.is_idle())
    }

    fn is_installed(&self) -> bool {
        Installation::in_folder(self.dirs.run()) == self.installation
    }

    /// Waits for other writers, and goes on from what is kept; none where another writer has changed what
    /// is stored, and everything is to be read.
    pub fn wake(self) -> Result<Option<Controller>> {
        let lock = self.dirs.lock()?;
        if !self.is_stored()? {
            return Ok(None);
        }
        let held = match self.is_installed() {
            true => self.held,
            false => None,
        };
        let mut controller = Controller {
            unconfirmed: Unconfirmed::find(&*self.store)?,
            dirs: self.dirs,
            store: self.store,
            revision: self.revision,
            policy: self.policy,
            limits: self.limits,
            takes_over: false,
            news: self.news,
            holds: true,
            held,
            installed_for: self.installed_for,
            annotations: Vec::new(),
            annotations_before: Vec::new(),
            lock,
        };
        controller.claim()?;
        controller.complete_overdue()?;
        Ok(Some(controller))
    }
}

fn store_path(dirs: &Dirs) -> PathBuf {
    dirs.state().join(SqliteStore::FILE)
}
