//! What has happened so far, and what of it should not have.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use serde_json::{Value, json};

/// After so many complaints more of them tell nothing new.
const ENOUGH: usize = 20;

/// Counts, and complaints.
pub(crate) struct Tally {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    complaints: Mutex<Vec<String>>,
    /// Set when all should end.
    pub(crate) is_over: AtomicBool,
    /// Set when one could not go on.
    pub(crate) has_failed: AtomicBool,
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            counts: Mutex::default(),
            complaints: Mutex::default(),
            is_over: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
        }
    }

    pub(crate) fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    /// One more of these.
    pub(crate) fn count(&self, what: &'static str) {
        *locked(&self.counts).entry(what).or_default() += 1;
    }

    /// The most that was seen of something.
    pub(crate) fn most(&self, what: &'static str, seen: u64) {
        let mut counts = locked(&self.counts);
        let most = counts.entry(what).or_default();
        *most = (*most).max(seen);
    }

    pub(crate) fn complain(&self, who: &str, what: impl fmt::Display) {
        let mut complaints = locked(&self.complaints);
        if complaints.len() < ENOUGH {
            complaints.push(format!("{who}: {what}"));
        }
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        locked(&self.complaints).clone()
    }

    /// Lets an actor act to its end; one that cannot go on ends everything.
    pub(crate) fn watch(&self, who: &str, act: impl FnOnce() -> Result<()>) {
        if let Err(error) = act() {
            self.complain(who, format!("{error:#}"));
            self.has_failed.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!(*locked(&self.counts))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in locked(&self.counts).iter() {
            writeln!(f, "{count:>10}  {what}")?;
        }
        Ok(())
    }
}
