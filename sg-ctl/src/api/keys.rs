//! Access keys: who may use the API, and with what secret a request is signed.
//!
//! The signature is a keyed hash, so checking one takes the secret itself, not a digest of it. The file
//! is therefore as secret as a private key: mode 0600, in the state folder that only root can enter.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::dirs::create_file;

/// The file's name in the state folder.
const FILE: &str = "api-keys.json";

/// How ids of keys start, so that they are told from those of a cloud.
const ID_PREFIX: &str = "SGKA";
const ID_LENGTH: usize = 20;
const SECRET_LENGTH: usize = 40;

const LONGEST_NAME: usize = 64;

/// An access key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// What a request names it by.
    pub id: String,
    /// What people name it by.
    pub name: String,
    /// What requests are signed with.
    pub secret: String,
    /// Whether it may only look.
    pub read_only: bool,
    /// When it was made, in seconds since 1970.
    pub created_unix_time_s: u64,
}

impl fmt::Debug for Key {
    /// All fields but the secret, which must not be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Stored {
    keys: Vec<Key>,
}

/// Why keys cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was attempted.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{} is damaged: {why}; delete it, and make the keys again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A name that cannot be.
    #[error(
        "{0:?} cannot name an access key; use 1 to {LONGEST_NAME} letters, digits and the characters \
         . _ - @"
    )]
    Name(String),
    /// Another key has the name.
    #[error("there is an access key {0:?} already; choose another name, or delete that one first")]
    Exists(String),
    /// No key has the name or id.
    #[error("there is no access key {0:?}; `sg-ctl api key list` shows those there are")]
    Unknown(String),
}

/// The keys of a state folder.
#[derive(Clone, Debug)]
pub struct Keys {
    path: PathBuf,
}

impl Keys {
    /// The keys of a state folder. A caller that changes them holds the lock of the run folder.
    pub fn of(state: &Path) -> Self {
        Self {
            path: state.join(FILE),
        }
    }

    fn failed(&self, doing: &'static str) -> impl Fn(io::Error) -> KeyError + '_ {
        move |source| KeyError::File {
            doing,
            path: self.path.clone(),
            source,
        }
    }

    /// All keys, in the order of their making.
    pub fn list(&self) -> Result<Vec<Key>, KeyError> {
        let text = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(self.failed("read"))?,
        };
        let stored: Stored = serde_json::from_slice(&text).map_err(|error| KeyError::Damaged {
            path: self.path.clone(),
            why: error.to_string(),
        })?;
        Ok(stored.keys)
    }

    /// Makes a key.
    pub fn create(&self, name: &str, read_only: bool) -> Result<Key, KeyError> {
        let known = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(known) {
            return Err(KeyError::Name(name.chars().take(LONGEST_NAME).collect()));
        }
        let mut keys = self.list()?;
        if keys.iter().any(|key| key.name == name) {
            return Err(KeyError::Exists(name.to_owned()));
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let id = random(
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
            ID_LENGTH - ID_PREFIX.len(),
        );
        let secret = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let key = Key {
            id: format!("{ID_PREFIX}{id}"),
            name: name.to_owned(),
            secret: random(secret, SECRET_LENGTH),
            read_only,
            created_unix_time_s: since.map_or(0, |since| since.as_secs()),
        };
        keys.push(key.clone());
        self.write(keys)?;
        Ok(key)
    }

    /// Deletes the key of a name or id, and returns it.
    pub fn delete(&self, given: &str) -> Result<Key, KeyError> {
        let mut keys = self.list()?;
        let found = keys
            .iter()
            .position(|key| key.name == given || key.id == given);
        let found = found.ok_or_else(|| KeyError::Unknown(given.to_owned()))?;
        let key = keys.remove(found);
        self.write(keys)?;
        Ok(key)
    }

    /// Replaces the file as a whole, so that a reader sees the old one or the new one.
    fn write(&self, keys: Vec<Key>) -> Result<(), KeyError> {
        let new = self.path.with_extension("json.new");
        let failed = self.failed("write");
        let mut file = create_file(&new).map_err(&failed)?;
        let text = serde_json::to_vec_pretty(&Stored { keys });
        let text = text.map_err(io::Error::from).map_err(&failed)?;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&new, &self.path))
            .and_then(|()| fs::File::open(folder)?.sync_all())
            .map_err(&failed)
    }
}

fn random(alphabet: &[u8], length: usize) -> String {
    let one = |_| {
        let place = usize::from(rand::random::<u8>()) % alphabet.len();
        char::from(alphabet.get(place).copied().unwrap_or_default())
    };
    (0..length).map(one).collect()
}

/// The keys as they are at each request: a key that is made or deleted counts at once.
#[derive(Debug)]
pub(super) struct KeyRing {
    keys: Keys,
    read: Mutex<Read>,
}

#[derive(Debug, Default)]
struct Read {
    stamp: Option<Stamp>,
    keys: Arc<HashMap<String, Key>>,
}

/// What changes when the file is replaced.
type Stamp = (u64, i64, i64);

impl KeyRing {
    pub(super) fn new(keys: Keys) -> Self {
        Self {
            keys,
            read: Mutex::default(),
        }
    }

    /// The keys by id.
    pub(super) fn current(&self) -> Result<Arc<HashMap<String, Key>>, KeyError> {
        let stamp = match fs::metadata(&self.keys.path) {
            Ok(found) => Some((found.ino(), found.mtime(), found.mtime_nsec())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(self.keys.failed("look at")(error)),
        };
        // What a panic left half done is read again.
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.stamp != stamp || stamp.is_none() {
            let keys = self.keys.list()?.into_iter();
            *read = Read {
                stamp,
                keys: Arc::new(keys.map(|key| (key.id.clone(), key)).collect()),
            };
        }
        Ok(Arc::clone(&read.keys))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_made_listed_and_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::of(folder.path());
        let ring = KeyRing::new(keys.clone());
        assert!(ring.current().unwrap().is_empty());
        let made = keys.create("terraform", false).unwrap();
        assert_eq!((made.id.len(), made.secret.len()), (20, 40));
        assert!(!format!("{made:?}").contains(&made.secret));
        let mode = fs::metadata(&keys.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(ring.current().unwrap().get(&made.id), Some(&made));
        let again = keys.create("terraform", true).unwrap_err().to_string();
        assert!(again.contains("already"), "{again}");
        assert!(keys.create("a b", true).is_err());
        let looks = keys.create("looks", true).unwrap();
        assert_eq!(keys.list().unwrap(), [made.clone(), looks.clone()]);
        assert_eq!(keys.delete("terraform").unwrap(), made);
        assert_eq!(keys.delete(&looks.id).unwrap(), looks);
        assert!(keys.delete("looks").is_err());
        assert!(ring.current().unwrap().is_empty());
    }
}
