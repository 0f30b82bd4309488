//! Whose policy is in force, so that a lost store, or another one, never opens a machine.
//!
//! A store has an identity that was made with it, and a run folder knows the store whose policy is
//! installed. Where the two do not fit, what is installed stays until a command says that it may go.

use super::error::{Error, Result};
use crate::dataplane::{self, Dataplane, Owner};
use crate::dirs::Dirs;
use crate::policy::model::Policy;
use crate::store::{SqliteStore, StoreId};

/// Refuses a state folder without a store while a policy is in force.
pub(super) fn refuse_lost(dirs: &Dirs) -> Result<()> {
    let is_there = SqliteStore::is_in(dirs.state()).map_err(|source| Error::Hidden {
        path: dirs.state().to_owned(),
        source,
    })?;
    if is_there || !is_in_force(dirs)? {
        return Ok(());
    }
    match Dataplane::owner(dirs.run())? {
        Some(owner) if owner.state_dir != dirs.state() => Err(foreign(dirs, owner)),
        _ => Err(Error::Lost {
            path: dirs.state().join(SqliteStore::FILE),
        }),
    }
}

/// Refuses a store while the policy of another one is in force.
pub(super) fn refuse_foreign(dirs: &Dirs, store: Option<StoreId>, policy: &Policy) -> Result<()> {
    if !is_in_force(dirs)? {
        return Ok(());
    }
    match Dataplane::owner(dirs.run())? {
        Some(owner) if Some(owner.store) == store => Ok(()),
        Some(owner) => Err(foreign(dirs, owner)),
        None => refuse_to_adopt(dirs, policy),
    }
}

/// Earlier versions did not say whose policy they installed. It is this store's if the store has all
/// of its interfaces.
fn refuse_to_adopt(dirs: &Dirs, policy: &Policy) -> Result<()> {
    let Some(bpffs) = dirs.find_bpffs()? else {
        return Ok(());
    };
    let attachments = match Dataplane::open(dirs.run(), &bpffs.path) {
        Ok(dataplane) => dataplane.attachments()?,
        // What cannot be read is refused, or replaced, where it is needed.
        Err(dataplane::Error::Record { .. } | dataplane::Error::Damaged { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let is_known = |vpc, name| {
        let vpc = policy.vpcs.get(vpc);
        vpc.is_some_and(|vpc| vpc.interface(name).is_some())
    };
    let mut attached = attachments.iter().filter(|attachment| attachment.attached);
    match attached.find(|attached| !is_known(&attached.vpc, &attached.name)) {
        Some(unknown) => Err(Error::Unknown {
            state: dirs.state().to_owned(),
            interface: unknown.name.clone(),
        }),
        None => Ok(()),
    }
}

/// The owner that this store is.
pub(super) fn owner(dirs: &Dirs, store: Option<StoreId>) -> Option<Owner> {
    store.map(|store| Owner {
        store,
        state_dir: dirs.state().to_owned(),
    })
}

fn is_in_force(dirs: &Dirs) -> Result<bool> {
    let bpffs = dirs.find_bpffs()?;
    Ok(bpffs.is_some_and(|bpffs| Dataplane::is_in_force(&bpffs.path)))
}

fn foreign(dirs: &Dirs, owner: Owner) -> Error {
    Error::Foreign {
        theirs: owner.state_dir,
        ours: dirs.state().to_owned(),
    }
}
