//! What the daemon knows of itself, for those who ask.

use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::commands::Serve;
use super::keeper::Keeper;
use crate::dirs::DirOptions;

/// The longest that one look at the machine may take before the daemon counts as stuck. The lock is
/// waited for within it.
const LONGEST_LOOK: Duration = Duration::from_secs(120);

/// Shared by everything in the daemon.
pub struct State {
    /// The folders that it works in.
    pub options: DirOptions,
    /// The policy, and the way to change it.
    pub keeper: Keeper,
    pub(super) serve: Serve,
    pub(super) commands: AtomicU64,
    began: SystemTime,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    /// Whether the counters of rules are served, where the configuration says so.
    rules: Option<bool>,
    look_began: Option<Instant>,
    followed: Followed,
}

/// What following the machine has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// The revision that was in force at the last look.
    pub revision: u64,
    /// Network namespaces whose devices and addresses are watched.
    pub namespaces: usize,
    /// Looks at the machine.
    pub looks: u64,
    /// Looks after which something was installed.
    pub changes: u64,
    /// How long the last installation took, from the news of a change, in microseconds.
    pub last_change_us: u64,
    /// Looks that failed.
    pub failures: u64,
    /// Why the last look failed, if it did.
    pub failure: Option<String>,
    /// What the user should know of interfaces that are not protected as stored.
    pub warnings: Vec<String>,
}

/// What `daemon status` tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The version and commit of the program that runs.
    pub daemon_version: String,
    /// Its process.
    pub pid: u32,
    /// When it began, in seconds since 1970.
    pub began_unix_time_s: u64,
    /// Commands that it has made for those who gave them.
    pub commands: u64,
    /// What following the machine has come to.
    #[serde(flatten)]
    pub followed: Followed,
}

impl State {
    pub(super) fn new(options: DirOptions, serve: Serve) -> Self {
        Self {
            keeper: Keeper::new(options.clone()),
            options,
            serve,
            commands: AtomicU64::new(0),
            began: SystemTime::now(),
            now: Mutex::default(),
        }
    }

    /// What is told of the daemon.
    pub(super) fn report(&self) -> Report {
        let began = self.began.duration_since(UNIX_EPOCH);
        Report {
            daemon_version: env!("SG_VERSION").to_owned(),
            pid: process::id(),
            began_unix_time_s: began.map_or(0, |since| since.as_secs()),
            commands: self.commands.load(Ordering::Relaxed),
            followed: self.now().followed.clone(),
        }
    }

    pub(super) fn set_rules(&self, rules: Option<bool>) {
        self.now().rules = rules;
    }

    pub(super) fn rules(&self) -> Option<bool> {
        self.now().rules
    }

    /// A look begins, or ends with what it has come to.
    pub(super) fn look_begins(&self) {
        self.now().look_began = Some(Instant::now());
    }

    pub(super) fn look_ends(&self, followed: Followed) {
        let mut now = self.now();
        now.look_began = None;
        now.followed = followed;
    }

    /// Whether no look takes longer than any should.
    pub(super) fn is_alive(&self, now: Instant) -> bool {
        let began = self.now().look_began;
        began.is_none_or(|began| now.duration_since(began) < LONGEST_LOOK)
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        // What a panic left half done are numbers to show.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
