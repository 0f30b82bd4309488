//! An instance as it is, for commands that only look.

use std::fs;
use std::path::Path;

use super::error::{Error, Result};
use crate::dataplane::Dataplane;
use crate::dirs::{DirOptions, Dirs};
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
        let (revision, policy, limits) = match &dirs {
            Some(dirs) if store => {
                let store = SqliteStore::open(dirs.state())?;
                let (revision, policy) = store.snapshot()?;
                (revision.number(), policy, Limits::read(&store)?)
            }
            _ => (0, Policy::default(), Limits::default()),
        };
        Ok(Self {
            revision,
            policy,
            limits,
            dirs,
        })
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
