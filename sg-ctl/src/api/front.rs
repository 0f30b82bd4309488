//! The way to the controller: the only place that reads and changes what is stored.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fault::Result;
use super::query::Params;
use super::world::World;
use crate::controller::{Controller, Needed, Plan};
use crate::dirs::DirOptions;
use crate::policy::change::Change;
use crate::store::{Annotation, SqliteStore, Store as _};

/// What a call would do, and what it answers when that is done.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) changes: Vec<Change>,
    pub(super) annotations: Vec<Annotation>,
    pub(super) answer: String,
}

impl Draft {
    /// Nothing to do, because it was done and answered so.
    pub(super) fn again(params: &mut Params, answer: &str) -> Self {
        params.clear();
        Self {
            answer: answer.to_owned(),
            ..Self::default()
        }
    }
}

/// Reads and changes what is stored.
#[derive(Debug)]
pub(super) struct Front {
    options: DirOptions,
    read: Mutex<Read>,
}

#[derive(Default)]
struct Read {
    store: Option<SqliteStore>,
    world: Option<Arc<World>>,
}

impl std::fmt::Debug for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Read")
    }
}

impl Front {
    pub(super) fn new(options: DirOptions) -> Self {
        Self {
            options,
            read: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        // What a panic left half done is read again.
        self.read.lock().unwrap_or_else(|poisoned| {
            let mut read = PoisonError::into_inner(poisoned);
            *read = Read::default();
            read
        })
    }

    /// Everything as it is stored. Blocks.
    pub(super) fn world(&self) -> Result<Arc<World>> {
        let mut read = self.lock();
        let looked = self.look(&mut read);
        if looked.is_err() {
            // The file may have been replaced.
            *read = Read::default();
        }
        looked
    }

    fn look(&self, read: &mut Read) -> Result<Arc<World>> {
        let store = match read.store.take() {
            Some(store) => store,
            None => SqliteStore::open(&self.options.state_dir)?,
        };
        let store = read.store.insert(store);
        let revision = store.revision()?;
        if let Some(world) = &read.world
            && world.revision == revision
        {
            return Ok(Arc::clone(world));
        }
        let (revision, policy, annotated) = store.annotated()?;
        let world = Arc::new(World::new(revision, policy, annotated));
        read.world = Some(Arc::clone(&world));
        Ok(world)
    }

    /// Does what `plan` makes of everything as it is, whole or not at all. Blocks.
    pub(super) fn change(&self, plan: impl FnOnce(&World) -> Result<Draft>) -> Result<String> {
        // Nobody else changes anything meanwhile.
        let mut controller = Controller::open(&self.options)?;
        let draft = plan(&*self.world()?)?;
        match (draft.changes.is_empty(), draft.annotations.is_empty()) {
            (true, true) => {}
            (true, false) => {
                controller.annotate(&draft.annotations)?;
            }
            (false, _) => {
                let policy = controller.policy().clone().apply(&draft.changes);
                let policy = policy.map_err(crate::controller::Error::from)?;
                controller.annotate_next(draft.annotations);
                controller.install(Plan {
                    policy,
                    needed: Needed::None,
                    terminate: false,
                })?;
            }
        }
        Ok(draft.answer)
    }
}
