//! One daemon in a run folder.

use super::error::{Error, Result};
use crate::dirs::{DaemonLock, Dirs};

/// Refuses where another daemon runs. The kernel drops the lock however this one ends.
pub(super) fn take(dirs: &Dirs) -> Result<DaemonLock> {
    let locked = dirs.lock_for_daemon();
    let locked = locked.map_err(Error::system("lock the run folder for the daemon"))?;
    locked.ok_or_else(|| Error::Running {
        run: dirs.run().to_owned(),
        pid: dirs.daemon_pid(),
    })
}
