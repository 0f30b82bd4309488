//! The way to the controller: the only place that reads and changes what is stored.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::fault::Result;
use super::query::Params;
use super::world::World;
use crate::controller::{self, Controller};
use crate::daemon::State;
use crate::dataplane::Dataplane;
use crate::dirs::Dirs;
use crate::policy::change::Change;
use crate::policy::names::InterfaceName;
use crate::store::{Annotation, Revision, SqliteStore, Store as _};

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

/// How the policy calls a network namespace, or the one that the daemon is in.
pub(super) fn namespace(asked: Option<&str>) -> Result<Option<String>> {
    let name = controller::recorded_namespace(asked);
    Ok(name.map_err(controller::Error::from)?)
}

/// Reads and changes what is stored.
pub(super) struct Front {
    state: Arc<State>,
    world: RwLock<Option<World>>,
    /// Open for as long as the API is: opening takes longer than asking.
    store: Mutex<Option<SqliteStore>>,
    /// Held during a change, until the indexed copy of the policy is up to date.
    turn: Mutex<()>,
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").finish_non_exhaustive()
    }
}

/// What a panic left half done is read again: nothing here is changed in steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Front {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self {
            state,
            world: RwLock::default(),
            store: Mutex::default(),
            turn: Mutex::default(),
        }
    }

    /// Lets `look` see everything as it is stored. Blocks; no change is made known meanwhile.
    pub(super) fn look<T>(&self, look: impl FnOnce(&World) -> Result<T>) -> Result<T> {
        let revision = self.revision()?;
        if let Some(world) = &*self.world()
            && world.revision == revision
        {
            return look(world);
        }
        // Another change of the API has perhaps been stored, and is about to be known.
        let _turn = lock(&self.turn);
        self.look_in_turn(self.revision()?, look)
    }

    fn look_in_turn<T>(
        &self,
        revision: Revision,
        look: impl FnOnce(&World) -> Result<T>,
    ) -> Result<T> {
        if let Some(world) = &*self.world()
            && world.revision == revision
        {
            return look(world);
        }
        let (revision, policy, annotated) = self.with_store(|store| store.annotated())?;
        let world = World::new(revision, policy, annotated);
        self.replace(Some(world));
        match &*self.world() {
            Some(world) => look(world),
            None => Err(super::fault::Fault::overload("everything is being read")),
        }
    }

    fn world(&self) -> RwLockReadGuard<'_, Option<World>> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, world: Option<World>) {
        *self.world.write().unwrap_or_else(PoisonError::into_inner) = world;
    }

    fn revision(&self) -> Result<Revision> {
        self.with_store(|store| store.revision())
    }

    fn with_store<T>(
        &self,
        ask: impl FnOnce(&SqliteStore) -> Result<T, crate::store::StoreError>,
    ) -> Result<T> {
        let mut kept = lock(&self.store);
        // A file that could not be read may have been replaced.
        let store = match kept.take() {
            Some(store) => store,
            None => SqliteStore::open(&self.state.options.state_dir)?,
        };
        let answer = ask(&store)?;
        *kept = Some(store);
        Ok(answer)
    }

    /// The entries of the policy that judge a device of this machine.
    pub(super) fn attached(&self) -> Result<BTreeSet<InterfaceName>> {
        let dirs = Dirs::create(&self.state.options).map_err(controller::Error::from)?;
        let bpffs = dirs.find_bpffs().map_err(controller::Error::from)?;
        let Some(bpffs) = bpffs else {
            return Ok(BTreeSet::new());
        };
        let attachments = Dataplane::attachments_in(dirs.run(), &bpffs.path);
        let attachments = attachments.map_err(controller::Error::from)?;
        let names = attachments.iter().filter(|attachment| attachment.attached);
        Ok(names
            .filter_map(|attachment| attachment.name.entry().parse().ok())
            .collect())
    }

    /// Does what `plan` makes of everything as it is, whole or not at all. Blocks.
    pub(super) fn change(&self, plan: impl FnOnce(&World) -> Result<Draft>) -> Result<String> {
        let _turn = lock(&self.turn);
        let keeper = &self.state.keeper;
        // The lock keeps other changes out.
        keeper.with(Controller::open, |controller| {
            let draft = self.look_in_turn(controller.revision(), plan)?;
            if draft.changes.is_empty() {
                if !draft.annotations.is_empty() {
                    let revision = controller.annotate(&draft.annotations)?;
                    self.know(revision, &[], &draft.annotations);
                }
                return Ok(draft.answer);
            }
            controller.annotate_next(draft.annotations.clone());
            let done = controller.change(&draft.changes)?;
            self.know(done.revision, &done.changes, &draft.annotations);
            Ok(draft.answer)
        })
    }

    /// Makes known what was changed. What takes ids that the store gives is read again when it is next
    /// looked at.
    fn know(&self, revision: Revision, changes: &[Change], annotations: &[Annotation]) {
        let world = &mut *self.world.write().unwrap_or_else(PoisonError::into_inner);
        if !world
            .as_mut()
            .is_some_and(|world| world.advance(revision, changes, annotations))
        {
            *world = None;
        }
    }
}
