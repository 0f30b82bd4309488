//! One daemon in a run folder.

use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::process;

use super::error::{Error, Result};
use crate::dirs::{Dirs, create_file, open_file};

/// Held by the daemon for as long as it runs; the kernel drops the lock however it ends.
pub(super) struct Instance {
    _file: File,
}

impl Instance {
    /// Refuses where another daemon runs.
    pub(super) fn take(dirs: &Dirs) -> Result<Self> {
        let path = dirs.run().join("daemon.lock");
        let file = match path.exists() {
            true => open_file(&path),
            false => create_file(&path),
        };
        let mut file = file.map_err(Error::system("open the daemon's lock"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&path);
                return Err(Error::Running {
                    run: dirs.run().to_owned(),
                    pid: pid.ok().and_then(|pid| pid.trim().parse().ok()),
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(Error::system("lock the run folder for the daemon")(source));
            }
        }
        let signed = file.set_len(0);
        let signed = signed.and_then(|()| writeln!(file, "{}", process::id()));
        signed.map_err(Error::system("write the daemon's lock"))?;
        Ok(Self { _file: file })
    }
}
