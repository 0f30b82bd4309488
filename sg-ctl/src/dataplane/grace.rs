//! Grace periods that are waited for beside other work.

use std::io;
use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};

use super::{Error, sys};

/// One grace period: at its end every program has ended that was running when it began.
pub(super) struct Grace(JoinHandle<io::Result<()>>);

impl Grace {
    /// From now on.
    pub(super) fn begin() -> Self {
        Self(thread::spawn(sys::wait_for_readers))
    }

    /// Waits for what is left of it.
    pub(super) fn end(self) -> Result<(), Error> {
        let Self(waiting) = self;
        let waited = waiting.join();
        let waited = waited.unwrap_or_else(|panicked| resume_unwind(panicked));
        waited.map_err(Error::Grace)
    }
}
