//! The one owner of the policy that the daemon keeps compiled in memory.
//!
//! Everything in the daemon that changes something goes through it, one after the other. The right to
//! change is taken for each change and given back, so that commands work beside the daemon; what they
//! have changed meanwhile is noticed and read anew.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::edits::Waiting;
use crate::controller::{Controller, Done, Error, Resting, Result, View};
use crate::dirs::DirOptions;
use crate::policy::change::Change;
use crate::policy::model::Policy;

/// Keeps the stored policy, and what is compiled of it, from one change to the next.
///
/// Each call blocks: for another call, for commands that change something at the moment (half a minute
/// at most, then it is an error), for the disk and for the kernel. In tasks, call it within
/// `tokio::task::spawn_blocking`.
pub struct Keeper {
    options: DirOptions,
    resting: Mutex<Option<Resting>>,
    /// Edits that wait for whoever comes next.
    queue: Mutex<Vec<Waiting>>,
    /// Whoever has it makes all that wait.
    turn: Mutex<()>,
    /// As far as is known without waiting.
    revision: AtomicU64,
}

impl Keeper {
    pub(super) fn new(options: DirOptions) -> Self {
        Self {
            options,
            resting: Mutex::default(),
            queue: Mutex::default(),
            turn: Mutex::default(),
            revision: AtomicU64::new(0),
        }
    }

    /// Lets `look` see the policy as it is stored, with the number of its revision: 0, and no VPCs,
    /// before there is a store. The policy is not copied, and no change is made while it is looked at,
    /// so `look` should not take long.
    pub fn read<T>(&self, look: impl FnOnce(&Policy, u64) -> T) -> Result<T> {
        let resting = self.resting();
        if let Some(resting) = &*resting
            && resting.is_stored()?
        {
            return Ok(look(resting.policy(), resting.revision().number()));
        }
        drop(resting);
        let view = View::open(&self.options)?;
        Ok(look(&view.policy, view.revision))
    }

    /// Makes changes that follow from the policy as it is: `changes` says which, and the policy does not
    /// change before they are made. All are stored under one revision and in force when this returns,
    /// or none is made. Rules, members and prefixes cost what they change; anything else costs a
    /// compilation of the whole policy.
    pub fn change<E: From<Error>>(
        &self,
        changes: impl FnOnce(&Policy) -> Result<Vec<Change>, E>,
    ) -> Result<Done, E> {
        self.with(Controller::open, |controller| {
            let changes = changes(controller.policy())?;
            Ok(controller.change(&changes)?)
        })
    }

    /// Does something with the right to change: what is kept is gone on from, or `open` reads all.
    pub fn with<T, E: From<Error>>(
        &self,
        open: impl FnOnce(&DirOptions) -> Result<Controller>,
        work: impl FnOnce(&mut Controller) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut resting = self.resting();
        let woken = match resting.take() {
            Some(resting) => resting.wake()?,
            None => None,
        };
        let mut controller = match woken {
            Some(controller) => controller,
            None => {
                let mut controller = open(&self.options)?;
                controller.keep_compiled();
                controller
            }
        };
        let done = work(&mut controller);
        *resting = controller.rest();
        if let Some(resting) = &*resting {
            self.saw(resting.revision().number());
        }
        done
    }

    /// Where pins and locks are.
    pub fn run_dir(&self) -> &Path {
        &self.options.run_dir
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A revision that was stored, and no later one was seen.
    pub(super) fn last_revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    pub(super) fn saw(&self, revision: u64) {
        self.revision.store(revision, Ordering::Relaxed);
    }

    /// What is kept, without the right to change.
    pub(super) fn resting(&self) -> MutexGuard<'_, Option<Resting>> {
        // While something is done nothing is kept: after a panic everything is read anew.
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
