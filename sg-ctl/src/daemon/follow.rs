//! Following the machine: when a device or an address comes, goes or moves, what is stored is made to
//! hold again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::error::Result;
use super::state::{Followed, State};
use super::watches::{Watches, Woken};
use crate::controller::{self, Controller, Installation, Machine, Unconfirmed, View, note_failure};
use crate::interfaces::Netns;
use crate::store::SqliteStore;

/// What is tried again after a failure, at first and at last.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// A device that moves to another namespace is nowhere for a moment, and may come to where nobody
/// looks: it is looked for once more.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// Makes what is stored hold, again and again.
pub(super) struct Follower {
    state: Arc<State>,
    /// Open for as long as the daemon runs: whoever closes the last connection to a store folds its
    /// write-ahead log, which is a change of its files.
    store: Option<SqliteStore>,
    namespaces: Vec<Netns>,
    /// The change whose deadline is waited for.
    unconfirmed: Option<Unconfirmed>,
    followed: Followed,
    patience: Duration,
}

/// What a look has found.
struct Looked {
    revision: u64,
    machine: Machine,
    unconfirmed: Option<Unconfirmed>,
    /// Whether what is installed is what is stored, for the machine as it is.
    is_current: bool,
}

/// When the next look is due without any news.
enum Next {
    Never,
    In(Duration),
}

impl Follower {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self {
            state,
            unconfirmed: None,
            store: None,
            namespaces: Vec::new(),
            followed: Followed::default(),
            patience: RETRY[0],
        }
    }

    /// Follows until it is stopped; a look that has begun is finished.
    pub(super) fn run(mut self, mut watches: Watches) -> Result<()> {
        let mut news = Instant::now();
        loop {
            self.state.look_begins();
            let next = self.look(news);
            let is_new = watches.follow(&self.namespaces);
            self.followed.namespaces = watches.namespaces();
            self.state.look_ends(self.followed.clone());
            let due = match next {
                _ if is_new => Some(Instant::now()),
                Next::Never => None,
                Next::In(time) => Some(Instant::now() + time),
            };
            if watches.wait(due)? == Woken::Stop {
                return Ok(());
            }
            news = Instant::now();
        }
    }

    fn look(&mut self, news: Instant) -> Next {
        self.followed.looks += 1;
        let state = Arc::clone(&self.state);
        match Installation::look(&state.options, || self.try_to_look(news)) {
            Ok(is_changed) => {
                if self.followed.failure.take().is_some() {
                    info!("what is stored is in force again");
                }
                self.patience = RETRY[0];
                let deadline = self.unconfirmed.as_ref().map(Unconfirmed::left);
                let second = is_changed.then_some(SECOND_LOOK);
                let due = deadline.into_iter().chain(second).min();
                due.map_or(Next::Never, Next::In)
            }
            Err(failed) => {
                self.store = None;
                if let Some(overdue) = &self.unconfirmed
                    && overdue.left().is_zero()
                {
                    // Where nothing can be noted, the next attempt may still succeed.
                    let _ = note_failure(&self.state.options, overdue, &failed);
                }
                let why = failed.to_string();
                if self.followed.failure.as_ref() != Some(&why) {
                    error!("{why}; tried again when something changes, and at least every minute");
                }
                self.followed.failures += 1;
                self.followed.failure = Some(why);
                let wait = self.patience;
                self.patience = RETRY[1].min(2 * wait);
                Next::In(wait)
            }
        }
    }

    /// Makes what is stored hold if it may not, and says whether anything was installed.
    fn try_to_look(&mut self, news: Instant) -> controller::Result<bool> {
        let Looked {
            revision,
            machine,
            unconfirmed,
            is_current,
        } = match self.look_at_what_is_kept()? {
            Some(looked) => looked,
            None => self.look_at_what_is_stored()?,
        };
        self.followed.revision = revision;
        self.state.keeper.saw(revision);
        self.namespaces = machine.namespaces;
        self.unconfirmed = unconfirmed;
        let is_overdue = |change: &Unconfirmed| change.left().is_zero();
        if is_current && !self.unconfirmed.as_ref().is_some_and(is_overdue) {
            return Ok(false);
        }
        debug!("something differs from what was installed");
        let keeper = &self.state.keeper;
        let done = keeper.with(Controller::open_to_restore, Controller::hold)?;
        let took = news.elapsed();
        self.unconfirmed = None;
        self.say(&done, took);
        self.followed.changes += 1;
        self.followed.last_change_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.followed.revision = done.revision.number();
        Ok(true)
    }

    /// None where nothing is kept, or another writer has changed what is stored.
    fn look_at_what_is_kept(&mut self) -> controller::Result<Option<Looked>> {
        let resting = self.state.keeper.resting();
        let Some(resting) = &*resting else {
            return Ok(None);
        };
        if !resting.is_stored()? {
            return Ok(None);
        }
        let machine = resting.machine()?;
        Ok(Some(Looked {
            revision: resting.revision().number(),
            unconfirmed: resting.unconfirmed()?,
            is_current: resting.is_for(&machine),
            machine,
        }))
    }

    fn look_at_what_is_stored(&mut self) -> controller::Result<Looked> {
        let options = &self.state.options;
        let mut view = View::open(options)?;
        if let Some(mismatch) = view.mismatch.take() {
            return Err(mismatch);
        }
        if self.store.is_none() && view.revision > 0 {
            self.store = SqliteStore::open_to_read(&options.state_dir, &options.run_dir).ok();
        }
        let machine = view.machine()?;
        Ok(Looked {
            revision: view.revision,
            unconfirmed: view.unconfirmed.take(),
            is_current: machine.is_idle(),
            machine,
        })
    }

    fn say(&mut self, done: &controller::Done, took: Duration) {
        let warnings: BTreeSet<String> = done.warnings.iter().map(ToString::to_string).collect();
        for warning in &warnings {
            if !self.followed.warnings.contains(warning) {
                warn!("{warning}");
            }
        }
        self.followed.warnings = warnings.into_iter().collect();
        info!(
            revision = done.revision.number(),
            took_ms = took.as_millis(),
            "what is stored is in force for the machine as it is"
        );
    }
}
