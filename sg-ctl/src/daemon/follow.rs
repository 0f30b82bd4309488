//! Following the machine: when a device or an address comes, goes or moves, what is stored is made to
//! hold again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::error::Result;
use super::state::{Followed, State};
use super::watches::{Watches, Woken};
use crate::controller::{self, Installation, Machine, Seen, View};
use crate::interfaces::Netns;
use crate::policy::names::{InterfaceName, VpcName};
use crate::store::SqliteStore;

/// What is tried again after a failure, at first and at last.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// How often something is looked at that others replace meanwhile.
const MOST_LOOKS: u32 = 10;

/// A device that moves to another namespace is nowhere for a moment, and may come to where nobody
/// looks: it is looked for once more.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// Makes what is stored hold, again and again.
pub(super) struct Follower {
    state: Arc<State>,
    held: Option<Held>,
    /// Open for as long as the daemon runs: whoever closes the last connection to a store folds its
    /// write-ahead log, which is a change of its files.
    store: Option<SqliteStore>,
    namespaces: Vec<Netns>,
    followed: Followed,
    patience: Duration,
}

/// What everything was installed for.
struct Held {
    revision: u64,
    devices: Vec<Seen>,
    /// What is not protected nevertheless, because it cannot be.
    open: BTreeSet<(VpcName, InterfaceName)>,
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
            held: None,
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
        let mut before = Installation::of(&self.state.options);
        let mut looked = self.try_to_look(news);
        // What a command replaces while it is looked at is no failure.
        for _ in 0..MOST_LOOKS {
            if looked.is_ok() || !before.is_over(&self.state.options) {
                break;
            }
            before = Installation::of(&self.state.options);
            looked = self.try_to_look(news);
        }
        match looked {
            Ok(is_changed) => {
                if self.followed.failure.take().is_some() {
                    info!("what is stored is in force again");
                }
                self.patience = RETRY[0];
                match is_changed {
                    true => Next::In(SECOND_LOOK),
                    false => Next::Never,
                }
            }
            Err(failed) => {
                self.store = None;
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
        let mut view = View::open(&self.state.options)?;
        if let Some(mismatch) = view.mismatch.take() {
            return Err(mismatch);
        }
        if self.store.is_none() && view.revision > 0 {
            let options = &self.state.options;
            self.store = SqliteStore::open_to_read(&options.state_dir, &options.run_dir).ok();
        }
        self.followed.revision = view.revision;
        let machine = view.machine()?;
        self.namespaces.clone_from(&machine.namespaces);
        if machine.is_idle() || self.holds(view.revision, &machine) {
            return Ok(false);
        }
        debug!("something differs from what was installed");
        self.held = None;
        let done = controller::restore(&self.state.options)?;
        let took = news.elapsed();
        let after = View::open(&self.state.options)?.machine()?;
        self.namespaces.extend(after.namespaces);
        self.say(&done, took);
        self.held = Some(Held {
            revision: done.revision.number(),
            // As they were before: what came meanwhile is found at the next look.
            devices: machine.devices,
            open: after.open,
        });
        self.followed.changes += 1;
        self.followed.last_change_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.followed.revision = done.revision.number();
        Ok(true)
    }

    fn holds(&self, revision: u64, machine: &Machine) -> bool {
        self.held.as_ref().is_some_and(|held| {
            held.revision == revision
                && held.devices == machine.devices
                && held.open == machine.open
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
