//! What a command is doing, for people who wait for it.
//!
//! Nothing is said in the first second, and nothing where no one looks.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::controller::{News, Step};
use crate::show;

use super::output::warn;

const PATIENCE: Duration = Duration::from_secs(1);

/// Puts the cursor at the start of the line and clears it.
const CLEAR: &str = "\r\x1b[K";

/// A line on the terminal that says which step is being made; it goes when this is dropped.
pub(super) struct Progress {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct State {
    step: Option<Step>,
    is_over: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        guard: MutexGuard<'a, State>,
        patience: Duration,
        is_boring: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let waited = self
            .changed
            .wait_timeout_while(guard, patience, |state| is_boring(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Shows each step that takes long enough to be read.
    fn show(&self) {
        let mut state = self.wait(self.state(), PATIENCE, |state| !state.is_over);
        while !state.is_over {
            let shown = state.step;
            if let Some(step) = shown {
                say(&format!("{CLEAR}sg-ctl: {} …", show::step(step)));
            }
            state = self.wait(state, Duration::MAX, |state| {
                !state.is_over && state.step == shown
            });
            if state.is_over && shown.is_some() {
                say(CLEAR);
            }
        }
    }
}

impl Progress {
    pub(super) fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let thread = io::stderr().is_terminal().then(|| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.show())
        });
        Self { shared, thread }
    }

    pub(super) fn tell(&self, news: &News<'_>) {
        match news {
            News::Step(step) => {
                self.shared.state().step = Some(*step);
                self.shared.changed.notify_all();
            }
            News::Warning(warning) => {
                if self.thread.is_some() {
                    say(CLEAR);
                }
                warn(warning);
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn say(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush());
}
