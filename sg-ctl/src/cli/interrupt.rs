//! Ending on request: Ctrl-C, SIGTERM, SIGHUP.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

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

/// Told by SIGHUP that files were moved.
pub(super) struct Hangups(SignalFd);

impl Hangups {
    /// From here on the signal ends nothing. To be called before [`Interrupt::catch`], which would
    /// take it for a request to end, and while there is one thread.
    pub(super) fn catch() -> Result<Self> {
        let wrong = |errno| Error::Signals(ctrlc::Error::System(io::Error::from(errno)));
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGHUP);
        signals.thread_block().map_err(wrong)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        SignalFd::with_flags(&signals, flags)
            .map(Self)
            .map_err(wrong)
    }

    /// Whether one has come since the last time.
    pub(super) fn has_come(&self) -> bool {
        let mut has_come = false;
        while let Ok(Some(_)) = self.0.read_signal() {
            has_come = true;
        }
        has_come
    }
}
