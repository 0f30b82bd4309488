//! Ending on request: Ctrl-C, SIGTERM, SIGHUP.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use super::error::{Error, Result};

/// Told when the user, or whoever supervises the command, asks it to end.
pub(super) struct Interrupt {
    asked: Receiver<()>,
}

impl Interrupt {
    /// From here on the signals end nothing by themselves. Once a process.
    pub(super) fn catch() -> Result<Self> {
        let (tell, asked) = mpsc::channel();
        ctrlc::set_handler(move || {
            let _ = tell.send(());
        })
        .map_err(Error::Signals)?;
        Ok(Self { asked })
    }

    /// Sleeps, and says whether the command is to end.
    pub(super) fn comes_within(&self, time: Duration) -> bool {
        !matches!(
            self.asked.recv_timeout(time),
            Err(RecvTimeoutError::Timeout)
        )
    }
}
