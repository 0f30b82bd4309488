//! One writer at a time on a machine.
//!
//! The kernel drops the lock when its holder dies, however it dies; the pid in the file is only
//! for the sentence that a waiting command ends with.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use super::{DirError, private};

/// Longer than an update of a large policy takes, shorter than what makes people look.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(20);

/// The right to change what is enforced; given back when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(path: PathBuf, patience: Duration) -> Result<Self, DirError> {
        let started = Instant::now();
        let file = private::open_file(&path);
        let mut file = file.map_err(DirError::system("open", &path))?;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => {
                    return Err(DirError::System {
                        doing: "lock",
                        path,
                        source,
                    });
                }
                Err(TryLockError::WouldBlock) if started.elapsed() >= patience => {
                    return Err(DirError::Locked {
                        holder: holder(&path),
                        path,
                        waited: patience,
                    });
                }
                Err(TryLockError::WouldBlock) => thread::sleep(POLL),
            }
        }
        sign(&mut file).map_err(DirError::system("write to", &path))?;
        Ok(Self { _file: file })
    }
}

/// The file that the daemon of a run folder keeps locked.
pub(super) const DAEMON: &str = "daemon.lock";

/// Held by the daemon of a run folder for as long as it runs.
#[derive(Debug)]
pub struct DaemonLock {
    _file: File,
}

impl DaemonLock {
    pub(super) fn take(path: &Path, state: &Path) -> io::Result<Option<Self>> {
        let mut file = match path.exists() {
            true => private::open_file(path)?,
            false => private::create_file(path)?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(source),
        }
        sign(&mut file)?;
        writeln!(file, "{}", state.display())?;
        Ok(Some(Self { _file: file }))
    }
}

/// The daemon that keeps a file locked: its process and its state folder, as far as it says so.
pub(super) fn daemon(path: &Path) -> Option<(Option<u32>, PathBuf)> {
    let mut file = File::open(path).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Ok(()) | Err(TryLockError::Error(_)) => return None,
    }
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let (pid, state) = text.split_once('\n')?;
    Some((
        pid.parse().ok(),
        PathBuf::from(state.trim_end_matches('\n')),
    ))
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", process::id())
}

fn holder(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_waits_and_then_names_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::take(path.clone(), PATIENCE).unwrap();
        let error = Lock::take(path.clone(), Duration::from_millis(60))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("(pid {})", process::id())),
            "{error}"
        );
        drop(first);
        Lock::take(path, Duration::ZERO).unwrap();
    }

    #[test]
    fn a_waiting_writer_goes_on_when_the_first_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::take(path.clone(), PATIENCE).unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| Lock::take(path.clone(), PATIENCE).map(drop));
            thread::sleep(3 * POLL);
            assert!(!second.is_finished());
            drop(first);
            second.join().unwrap().unwrap();
        });
    }
}
