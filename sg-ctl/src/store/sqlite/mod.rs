//! The store in one SQLite file, for one machine; command line and daemon both open it.
//!
//! A commit returns when the write-ahead log is on disk. Several processes may read while one
//! writes; what they read is one revision, never a mixture.

mod column;
mod draft;
mod edit;
mod load;
mod notes;
mod reading;
mod rule_rows;
mod watch;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::FromSqlError;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, ffi,
};

use super::{Annotated, Annotation, Notes, Owned, Revision, Store, StoreError, StoreId};
use crate::crash::{self, Point};
use crate::dirs::open_file;
use crate::policy::change::Change;
use crate::policy::defaults::create_vpc;
use crate::policy::model::{Group, Policy};
use crate::policy::names::{GroupName, RuleId, VpcName};
use edit::Failure;

/// Marks the file as this program's: "sgst" in ASCII.
const APPLICATION_ID: i64 = 0x7367_7374;

/// Version of `schema.sql`. A newer program migrates an older file; an older one refuses a newer.
const SCHEMA_VERSION: i64 = 9;
const SCHEMA: &str = include_str!("schema.sql");
/// What makes a file of each earlier version one of the next, from version 1 on.
const MIGRATIONS: [&str; SCHEMA_VERSION as usize - 1] = [
    "ALTER TABLE interface ADD COLUMN audit INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE revision ADD COLUMN stamp INTEGER NOT NULL DEFAULT 0;
     UPDATE revision SET stamp = random();
     CREATE INDEX rule_by_prefix ON rule (security_group, peer_address, peer_length)
         WHERE peer_address IS NOT NULL;",
    "ALTER TABLE interface ADD COLUMN strict_fragments INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE interface ADD COLUMN egress_drops INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE interface ADD COLUMN any_mac INTEGER NOT NULL DEFAULT 0;
     CREATE TABLE guest_mac (
         interface INTEGER NOT NULL REFERENCES interface ON DELETE CASCADE,
         mac BLOB NOT NULL,
         PRIMARY KEY (interface, mac)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE guest_vlan (
         interface INTEGER NOT NULL REFERENCES interface ON DELETE CASCADE,
         number INTEGER NOT NULL,
         PRIMARY KEY (interface, number)
     ) STRICT, WITHOUT ROWID;",
    "DROP INDEX rule_by_prefix;
     ALTER TABLE revision DROP COLUMN stamp;",
    "ALTER TABLE interface ADD COLUMN match_name TEXT;
     ALTER TABLE interface ADD COLUMN match_mac TEXT;
     ALTER TABLE interface ADD COLUMN match_alias TEXT;",
    "ALTER TABLE vpc ADD COLUMN object_id TEXT NOT NULL DEFAULT '';
     UPDATE vpc SET object_id = 'vpc-' || substr(lower(hex(randomblob(9))), 1, 17);
     ALTER TABLE prefix_list ADD COLUMN object_id TEXT NOT NULL DEFAULT '';
     UPDATE prefix_list SET object_id = 'pl-' || substr(lower(hex(randomblob(9))), 1, 17);
     ALTER TABLE interface ADD COLUMN object_id TEXT NOT NULL DEFAULT '';
     UPDATE interface SET object_id = 'eni-' || substr(lower(hex(randomblob(9))), 1, 17);
     CREATE TABLE note (
         object TEXT NOT NULL,
         name TEXT NOT NULL,
         value TEXT NOT NULL,
         PRIMARY KEY (object, name)
     ) STRICT, WITHOUT ROWID;
     CREATE TRIGGER rule_has_no_notes AFTER DELETE ON rule BEGIN
         DELETE FROM note WHERE object = OLD.rule_id;
     END;
     CREATE TRIGGER group_has_no_notes AFTER DELETE ON security_group BEGIN
         DELETE FROM note WHERE object = OLD.group_id;
     END;
     CREATE TRIGGER vpc_has_no_notes AFTER DELETE ON vpc BEGIN
         DELETE FROM note WHERE object = OLD.object_id;
     END;
     CREATE TRIGGER interface_has_no_notes AFTER DELETE ON interface BEGIN
         DELETE FROM note WHERE object = OLD.object_id;
     END;
     CREATE TRIGGER prefix_list_has_no_notes AFTER DELETE ON prefix_list BEGIN
         DELETE FROM note WHERE object = OLD.object_id
             AND NOT EXISTS (SELECT 1 FROM prefix_list WHERE object_id = OLD.object_id);
     END;",
];

/// How long to wait for another process's commit.
const PATIENCE: Duration = Duration::from_secs(10);

/// Changes of a commit that may touch more pages than SQLite holds by itself. What it cannot hold it
/// writes before its time, and often again.
const MANY: usize = 10_000;
const MOST_CACHED_KIB: i64 = 128 << 10;

/// Every statement of a commit stays prepared.
const STATEMENTS: usize = 64;

/// A store in a file.
pub struct SqliteStore {
    db: Connection,
    path: PathBuf,
    /// Why only a copy is open, where the file cannot be written to.
    read_only: Option<String>,
}

/// The setting that holds the store's [`StoreId`].
const IDENTITY: &str = "identity";

impl SqliteStore {
    /// The file's name within the state folder.
    pub const FILE: &str = "policy.db";

    /// The files that a commit writes to.
    pub const FILES: &[&str] = &[Self::FILE, "policy.db-wal"];

    /// Opens the store in a state folder, making one with the VPC `default` if there is none.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join(Self::FILE);
        open_file(&path).map_err(|source| StoreError::System {
            doing: "write to",
            path: path.clone(),
            source: source.into(),
        })?;
        Self::open_file(path)
    }

    fn open_file(path: PathBuf) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&path, flags)
            .map_err(|error| explain(&path, "open", error))?;
        let mut store = Self {
            db,
            path,
            read_only: None,
        };
        store.set_up()?;
        Ok(store)
    }

    /// Whether there is a store in a state folder.
    pub fn is_in(state_dir: &Path) -> std::io::Result<bool> {
        fs::exists(state_dir.join(Self::FILE))
    }

    fn refuse_if_read_only(&self) -> Result<(), StoreError> {
        match &self.read_only {
            Some(why) => Err(StoreError::ReadOnly {
                path: self.path.clone(),
                why: why.clone(),
            }),
            None => Ok(()),
        }
    }

    fn set_up(&mut self) -> Result<(), StoreError> {
        self.db.busy_timeout(PATIENCE).map_err(self.reading())?;
        // Before anything is written: the file may be someone else's.
        let is_new = self.is_new()?;
        self.configure()?;
        match is_new {
            true => self.create(),
            false => self.migrate(),
        }
    }

    /// Whether the file is empty; an error when it is no file of ours.
    fn is_new(&self) -> Result<bool, StoreError> {
        let number = |sql| self.db.query_row(sql, [], |row| row.get::<_, i64>(0));
        let reading = self.reading();
        let application = number("PRAGMA application_id").map_err(&reading)?;
        let version = number("PRAGMA user_version").map_err(&reading)?;
        let tables = number("SELECT count(*) FROM sqlite_schema").map_err(&reading)?;
        match (application, version) {
            (0, 0) if tables == 0 => Ok(true),
            (APPLICATION_ID, 1..=SCHEMA_VERSION) => Ok(false),
            (APPLICATION_ID, found) if found > SCHEMA_VERSION => Err(StoreError::Newer {
                path: self.path.clone(),
                found,
                known: SCHEMA_VERSION,
            }),
            (APPLICATION_ID, found) => Err(StoreError::Damaged {
                path: self.path.clone(),
                why: format!("there never was a schema {found}"),
            }),
            _ => Err(StoreError::Foreign {
                path: self.path.clone(),
            }),
        }
    }

    fn configure(&self) -> Result<(), StoreError> {
        let set = |name, value: &str| {
            self.db
                .pragma_update_and_check(None, name, value, |_| Ok(()))
                .or_else(|error| {
                    // Most answer with nothing when they are set.
                    if error == rusqlite::Error::QueryReturnedNoRows {
                        Ok(())
                    } else {
                        Err(error)
                    }
                })
        };
        set("journal_mode", "WAL")
            .and_then(|()| set("synchronous", "FULL"))
            .and_then(|()| set("foreign_keys", "ON"))
            .and_then(|()| set("trusted_schema", "OFF"))
            .map_err(self.writing())?;
        self.db.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(())
    }

    fn create(&mut self) -> Result<(), StoreError> {
        let writing = writing(self.path.clone());
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&writing)?;
        let tables = "SELECT count(*) FROM sqlite_schema";
        let tables: i64 = transaction
            .query_row(tables, [], |row| row.get(0))
            .map_err(&writing)?;
        // Another process may have been first.
        if tables > 0 {
            return Ok(());
        }
        transaction
            .execute_batch(SCHEMA)
            .and_then(|()| transaction.pragma_update(None, "application_id", APPLICATION_ID))
            .and_then(|()| transaction.pragma_update(None, "user_version", SCHEMA_VERSION))
            .and_then(|()| {
                transaction.execute("INSERT INTO revision (only_row, number) VALUES (0, 1)", [])
            })
            .map_err(&writing)?;
        let id = StoreId::random().to_string();
        transaction
            .execute(
                "INSERT INTO setting (name, value) VALUES (?1, ?2)",
                (IDENTITY, id),
            )
            .map_err(&writing)?;
        edit::make(&transaction, &create_vpc(&VpcName::default()))
            .map_err(|failure| explain_failure(&self.path, failure))?;
        transaction.commit().map_err(&writing)
    }

    /// Brings a file of an earlier version up to date, whole or not at all.
    fn migrate(&mut self) -> Result<(), StoreError> {
        let writing = writing(self.path.clone());
        let version =
            |db: &Connection| db.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
        if version(&self.db).map_err(&writing)? == SCHEMA_VERSION {
            return Ok(());
        }
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&writing)?;
        // Another process may have been first.
        let found = version(&transaction).map_err(&writing)?;
        for (version, migration) in (1..).zip(MIGRATIONS) {
            if version >= found {
                transaction.execute_batch(migration).map_err(&writing)?;
            }
        }
        transaction
            .pragma_update(None, "user_version", SCHEMA_VERSION)
            .and_then(|()| transaction.commit())
            .map_err(&writing)
    }

    fn read(&self, db: &Transaction<'_>) -> Result<(Revision, Policy), StoreError> {
        let revision = revision(db).map_err(self.reading())?;
        let policy = load::policy(db).map_err(self.reading())?;
        let policy = policy.checked().map_err(|findings| StoreError::Damaged {
            path: self.path.clone(),
            why: findings.to_string(),
        })?;
        Ok((revision, policy))
    }

    fn reading(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        let path = self.path.clone();
        move |error| explain(&path, "read", error)
    }

    fn writing(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        writing(self.path.clone())
    }
}

fn writing(path: PathBuf) -> impl Fn(rusqlite::Error) -> StoreError {
    move |error| explain(&path, "write to", error)
}

impl Store for SqliteStore {
    fn snapshot(&self) -> Result<(Revision, Policy), StoreError> {
        // Reading within one transaction is what makes it one revision.
        let transaction = self.db.unchecked_transaction().map_err(self.reading())?;
        self.read(&transaction)
    }

    fn annotated(&self) -> Result<(Revision, Policy, Annotated), StoreError> {
        let transaction = self.db.unchecked_transaction().map_err(self.reading())?;
        let (revision, policy) = self.read(&transaction)?;
        let annotated = notes::read(&transaction).map_err(self.reading())?;
        Ok((revision, policy, annotated))
    }

    fn notes(&self, object: &str) -> Result<Notes, StoreError> {
        notes::of(&self.db, object).map_err(self.reading())
    }

    fn revision(&self) -> Result<Revision, StoreError> {
        let transaction = self.db.unchecked_transaction().map_err(self.reading())?;
        revision(&transaction).map_err(self.reading())
    }

    fn commit_annotated(
        &mut self,
        expected: Revision,
        changes: &[Change],
        annotations: &[Annotation],
    ) -> Result<Revision, StoreError> {
        let writing = self.writing();
        let nothing = changes.is_empty() && annotations.is_empty();
        if !nothing {
            self.refuse_if_read_only()?;
        }
        if changes.len() > MANY {
            let pages = self.db.pragma_update(None, "cache_size", -MOST_CACHED_KIB);
            pages.map_err(&writing)?;
        }
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&writing)?;
        let found = revision(&transaction).map_err(&writing)?;
        if found != expected {
            return Err(StoreError::Conflict { expected, found });
        }
        if nothing {
            return Ok(found);
        }
        edit::make(&transaction, changes)
            .and_then(|()| notes::write(&transaction, annotations))
            .map_err(|failure| explain_failure(&self.path, failure))?;
        let revision = count_up(&transaction).map_err(&writing)?;
        crash::at(Point::StoreWritten);
        transaction.commit().map_err(&writing)?;
        crash::at(Point::StoreCommitted);
        Ok(revision)
    }

    fn group(
        &self,
        vpc: &VpcName,
        group: &GroupName,
    ) -> Result<(Revision, Option<Group>), StoreError> {
        let transaction = self.db.unchecked_transaction().map_err(self.reading())?;
        let revision = revision(&transaction).map_err(self.reading())?;
        let found = load::group(&transaction, vpc, group).map_err(self.reading())?;
        Ok((revision, found))
    }

    fn rule(&self, rule: RuleId) -> Result<(Revision, Option<Owned>), StoreError> {
        let transaction = self.db.unchecked_transaction().map_err(self.reading())?;
        let revision = revision(&transaction).map_err(self.reading())?;
        let found = load::owned_rule(&transaction, rule).map_err(self.reading())?;
        Ok((revision, found))
    }

    fn watch(&self, seen: Revision, within: Duration) -> Result<Revision, StoreError> {
        watch::until(self, seen, within)
    }

    fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.db
            .query_row("SELECT value FROM setting WHERE name = ?", [name], |row| {
                row.get(0)
            })
            .optional()
            .map_err(self.reading())
    }

    fn set_setting(&mut self, name: &str, value: Option<&str>) -> Result<(), StoreError> {
        self.refuse_if_read_only()?;
        match value {
            Some(value) => self.db.execute(
                "INSERT INTO setting (name, value) VALUES (?1, ?2) \
                 ON CONFLICT (name) DO UPDATE SET value = ?2",
                (name, value),
            ),
            None => self
                .db
                .execute("DELETE FROM setting WHERE name = ?", [name]),
        }
        .map(drop)
        .map_err(self.writing())
    }

    fn id(&self) -> Result<Option<StoreId>, StoreError> {
        let text = self.setting(IDENTITY)?;
        let id = text.map(|text| {
            text.parse().map_err(|error| StoreError::Damaged {
                path: self.path.clone(),
                why: format!("its identity {text:?} is not a number: {error}"),
            })
        });
        id.transpose()
    }

    fn give_id(&mut self) -> Result<Option<StoreId>, StoreError> {
        if let Some(id) = self.id()? {
            return Ok(Some(id));
        }
        if self.read_only.is_some() {
            return Ok(None);
        }
        let id = StoreId::random();
        self.set_setting(IDENTITY, Some(&id.to_string()))?;
        Ok(Some(id))
    }

    fn read_only(&self) -> Option<&str> {
        self.read_only.as_deref()
    }

    fn keep_draft(&mut self) -> Result<(), StoreError> {
        draft::keep(self)
    }

    fn draft(&self) -> Result<Option<Policy>, StoreError> {
        draft::read(self)
    }

    fn drop_draft(&mut self) -> Result<(), StoreError> {
        draft::remove(&draft::path(self))
    }
}

fn count_up(db: &Transaction<'_>) -> rusqlite::Result<Revision> {
    db.execute("UPDATE revision SET number = number + 1", [])?;
    revision(db)
}

fn revision(db: &Transaction<'_>) -> rusqlite::Result<Revision> {
    let number: i64 = db.query_row("SELECT number FROM revision", [], |row| row.get(0))?;
    let number = u64::try_from(number).map_err(|_| FromSqlError::OutOfRange(number))?;
    Ok(Revision(number))
}

fn explain_failure(path: &Path, failure: Failure) -> StoreError {
    match failure {
        Failure::Missing(what) => StoreError::Misfit(what),
        Failure::Sqlite(error) => explain(path, "write to", error),
    }
}

fn explain(path: &Path, doing: &'static str, error: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    let Some(code) = error.sqlite_error_code() else {
        // Everything else is a value that this program never writes.
        return StoreError::Damaged {
            path,
            why: error.to_string(),
        };
    };
    match code {
        ErrorCode::NotADatabase => StoreError::Foreign { path },
        ErrorCode::DatabaseCorrupt => StoreError::Damaged {
            path,
            why: error.to_string(),
        },
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Busy { path },
        ErrorCode::ConstraintViolation => StoreError::Misfit(
            match error.sqlite_error().map(|error| error.extended_code) {
                Some(ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => {
                    "a rule or an interface would name a group or prefix list that is not there"
                        .to_owned()
                }
                _ => error.to_string(),
            },
        ),
        _ => StoreError::System {
            doing,
            path,
            source: error.into(),
        },
    }
}

#[cfg(test)]
mod tests;
