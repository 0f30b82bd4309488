//! The policy that is kept beside the store: a copy of the whole file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{SqliteStore, Store as _, StoreError};
use crate::dirs::open_file;
use crate::policy::model::Policy;

/// Its name, beside the store's file.
const FILE: &str = "before-unconfirmed.db";

pub(super) fn path(store: &SqliteStore) -> PathBuf {
    store.path.with_file_name(FILE)
}

pub(super) fn keep(store: &SqliteStore) -> Result<(), StoreError> {
    let path = path(store);
    remove(&path)?;
    let failed = |source: io::Error| StoreError::System {
        doing: "copy the policy to",
        path: path.clone(),
        source: source.into(),
    };
    // SQLite fills an empty file and leaves its mode as it is.
    open_file(&path).map_err(failed)?;
    let name = path
        .to_str()
        .ok_or_else(|| failed(io::Error::other("the path is not UTF-8")))?;
    store
        .db
        .execute("VACUUM INTO ?", [name])
        .map_err(store.reading())?;
    // What SQLite writes there it does not wait for.
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::File::open(&path)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::File::open(folder)?.sync_all())
        .map_err(failed)
}

pub(super) fn read(store: &SqliteStore) -> Result<Option<Policy>, StoreError> {
    let path = path(store);
    match fs::exists(&path) {
        Ok(false) => Ok(None),
        _ => Ok(Some(SqliteStore::open_file(path)?.snapshot()?.1)),
    }
}

pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    // A log that an interrupted command left would be taken for one of the next copy.
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        match fs::remove_file(&file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::System {
                    doing: "remove",
                    path: file.into(),
                    source: source.into(),
                });
            }
            _ => {}
        }
    }
    Ok(())
}
