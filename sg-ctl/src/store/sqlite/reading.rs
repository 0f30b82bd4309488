//! Reading a store that cannot be written to: on a read-only or a full filesystem.
//!
//! SQLite writes even to read: it makes the index of the write-ahead log. Without one it would have
//! to ignore the log, and with it what was committed last. So the file and its log are copied to
//! where they can be written to, and are read there. The copies are gone before anything is done
//! with what they say.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::{SqliteStore, StoreError, explain};
use crate::dirs::create_file;

/// How often a copy is begun again because a writer was at work.
const ATTEMPTS: u32 = 100;

/// What the write-ahead log is called behind the file's name.
const LOG: &str = "-wal";

impl SqliteStore {
    /// Opens the store in a state folder to read it, whether it can be written to or not. `scratch`
    /// is where copies are made; there must be a store.
    pub fn open_to_read(state_dir: &Path, scratch: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join(Self::FILE);
        let refused = match Self::open_file(path.clone()) {
            Err(refused @ StoreError::System { .. }) => refused,
            opened => return opened,
        };
        match Copy::make(&path, &[scratch, &env::temp_dir()]) {
            Ok(copy) => Self::open_copy(path, &copy, &refused),
            // Where it cannot be read either, that is what stands in the way.
            Err(_) => Err(refused),
        }
    }

    fn open_copy(path: PathBuf, copy: &Copy, refused: &StoreError) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(copy.file(), flags);
        let db = db.map_err(|error| explain(&path, "open a copy of", error))?;
        // Nobody else has it, so that the log's index can stay in memory.
        db.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))
            .map_err(|error| explain(&path, "open a copy of", error))?;
        let mut store = Self {
            db,
            path,
            read_only: Some(refused.to_string()),
        };
        store.set_up()?;
        Ok(store)
    }
}

/// A folder with a copy of a store, which goes when this is dropped.
struct Copy(PathBuf);

impl Copy {
    /// In the first folder in which it can be made.
    fn make(path: &Path, folders: &[&Path]) -> io::Result<Self> {
        let mut made = Err(io::ErrorKind::NotFound.into());
        for folder in folders {
            made = Self::make_in(path, folder);
            if made.is_ok() {
                break;
            }
        }
        made
    }

    fn make_in(path: &Path, folder: &Path) -> io::Result<Self> {
        let own = folder.join(format!("reading-{:016x}", rand::random::<u64>()));
        DirBuilder::new().mode(0o700).create(&own)?;
        let copy = Self(own);
        for _ in 0..ATTEMPTS {
            let before = stamps(path)?;
            // The log first: what is moved from it into the file meanwhile is in both.
            copy_if_there(&with(path, LOG), &with(&copy.file(), LOG))?;
            copy_if_there(path, &copy.file())?;
            if stamps(path)? == before {
                return Ok(copy);
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    fn file(&self) -> PathBuf {
        self.0.join(SqliteStore::FILE)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // It is in a folder that goes with the machine's next boot.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What changes when a file does.
type Stamp = (u64, u64, i64, i64);

/// The stamps of the file and its log, where they are there.
fn stamps(path: &Path) -> io::Result<[Option<Stamp>; 2]> {
    let stamp = |path: &Path| match fs::metadata(path) {
        Ok(found) => Ok(Some((
            found.ino(),
            found.len(),
            found.mtime(),
            found.mtime_nsec(),
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    Ok([stamp(path)?, stamp(&with(path, LOG))?])
}

fn copy_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match File::open(from) {
        Ok(mut from) => io::copy(&mut from, &mut create_file(to)?).map(drop),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::remove_file(to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
        Err(error) => Err(error),
    }
}
