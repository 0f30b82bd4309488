//! An instance as it is, for commands that only look.

use std::fs;
use std::path::Path;

use super::confirmation::{TakenBack, Unconfirmed};
use super::devices::{Devices, Needed};
use super::error::{Error, Result};
use crate::consequences::{Consequences, foresee};
use crate::dataplane::{Dataplane, Device, Wanted};
use crate::dirs::{DirOptions, Dirs, Lock};
use crate::limits::Limits;
use crate::policy::model::Policy;
use crate::store::{SqliteStore, Store as _};

/// What is stored and what the kernel holds. Looking changes nothing, and makes no store.
#[derive(Debug)]
pub struct View {
    /// The revision that is stored; 0 before there is any.
    pub revision: u64,
    /// The policy as it is stored; without VPCs before there is a store.
    pub policy: Policy,
    /// How much the instance may hold.
    pub limits: Limits,
    /// The change that waits for its confirmation.
    pub unconfirmed: Option<Unconfirmed>,
    /// What was taken back last, unless something was changed since.
    pub taken_back: Option<TakenBack>,
    dirs: Option<Dirs>,
}

impl View {
    /// Reads what is stored.
    pub fn open(options: &DirOptions) -> Result<Self> {
        let store = exists(&options.state_dir.join(SqliteStore::FILE))?;
        let dirs = match store || exists(&options.run_dir)? {
            true => Some(Dirs::create(options)?),
            false => None,
        };
        let mut view = Self {
            revision: 0,
            policy: Policy::default(),
            limits: Limits::default(),
            unconfirmed: None,
            taken_back: None,
            dirs,
        };
        if let Some(dirs) = &view.dirs
            && store
        {
            let store = SqliteStore::open(dirs.state())?;
            let (revision, policy) = store.snapshot()?;
            view.limits = Limits::read(&store)?;
            view.unconfirmed = Unconfirmed::find(&store)?;
            view.taken_back = TakenBack::find(&store)?;
            (view.revision, view.policy) = (revision.number(), policy);
        }
        Ok(view)
    }

    /// Keeps writers away; `None` where there is nothing that they could write to.
    pub(super) fn lock(&self) -> Result<Option<Lock>> {
        Ok(self.dirs.as_ref().map(Dirs::lock).transpose()?)
    }

    /// The interfaces of the policy that this machine has.
    pub fn devices(&self) -> Result<Vec<Device>> {
        Ok(Devices::find(&self.policy, &Needed::None)?.found)
    }

    /// What making the policy another one would do to the connections there are; `None` where there
    /// are none.
    pub fn foresee(
        &self,
        policy: &Policy,
        needed: &Needed,
        terminate: bool,
    ) -> Result<Option<Consequences>> {
        let Some(dataplane) = self.dataplane()? else {
            return Ok(None);
        };
        let wanted = Wanted {
            policy,
            devices: Devices::find(policy, needed)?.found,
            terminate,
            capacity: self.limits.flows,
            limits: self.limits.tables,
        };
        Ok(foresee(&dataplane, &self.policy, &wanted)?)
    }

    /// What the kernel holds; `None` when it holds nothing of this instance.
    pub fn dataplane(&self) -> Result<Option<Dataplane>> {
        let Some(dirs) = &self.dirs else {
            return Ok(None);
        };
        let bpffs = dirs.find_bpffs()?;
        let opened = bpffs.map(|bpffs| Dataplane::open(dirs.run(), &bpffs.path));
        Ok(opened.transpose()?)
    }
}

fn exists(path: &Path) -> Result<bool> {
    fs::exists(path).map_err(|source| Error::Hidden {
        path: path.to_owned(),
        source,
    })
}
