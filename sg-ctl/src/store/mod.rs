//! The one durable source of truth: a policy and the number of its revision.
//!
//! A store keeps what it is given and knows nothing of what it means: callers make sure, with
//! [`Policy::apply`], that changes are sound. It does make sure that they were made against the
//! revision that is replaced, whole, and for good.

mod annotation;
#[cfg(test)]
mod contract;
mod sqlite;

use std::fmt;
use std::num::ParseIntError;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::change::Change;
use crate::policy::model::{Group, Policy, Rule};
use crate::policy::names::{GroupName, RuleId, VpcName};

pub use annotation::{Annotated, Annotation, Notes};
pub use sqlite::SqliteStore;

/// Keeps one policy, revision by revision, and the settings of the machine. The controller needs
/// nothing else of the place where a policy is kept.
pub trait Store {
    /// The policy as it is, with the number to give when changing it.
    fn snapshot(&self) -> Result<(Revision, Policy), StoreError>;

    /// The number alone.
    fn revision(&self) -> Result<Revision, StoreError>;

    /// Makes the changes, all or none, if nobody else has changed anything since `expected`.
    /// When this returns, they survive a loss of power. Without changes nothing is written.
    fn commit(&mut self, expected: Revision, changes: &[Change]) -> Result<Revision, StoreError> {
        self.commit_annotated(expected, changes, &[])
    }

    /// As [`Self::commit`], with annotations in the same transaction. They are made after the changes.
    fn commit_annotated(
        &mut self,
        expected: Revision,
        changes: &[Change],
        annotations: &[Annotation],
    ) -> Result<Revision, StoreError>;

    /// The policy and what is noted about its objects, of one revision.
    fn annotated(&self) -> Result<(Revision, Policy, Annotated), StoreError>;

    /// What is noted about one object.
    fn notes(&self, object: &str) -> Result<Notes, StoreError>;

    /// One group with its rules and static members, without the rest of the policy; none where there
    /// is none.
    fn group(
        &self,
        vpc: &VpcName,
        group: &GroupName,
    ) -> Result<(Revision, Option<Group>), StoreError>;

    /// One rule, and the VPC and the group that it is of; none where there is none.
    fn rule(&self, rule: RuleId) -> Result<(Revision, Option<Owned>), StoreError>;

    /// Waits until the revision is another than the one that was seen, or so long, and returns the
    /// revision there is then.
    fn watch(&self, seen: Revision, within: Duration) -> Result<Revision, StoreError>;

    /// A setting of this machine, which is not part of the policy and of no revision.
    fn setting(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Sets or removes a setting of this machine, durably.
    fn set_setting(&mut self, name: &str, value: Option<&str>) -> Result<(), StoreError>;

    /// What tells this store from every other; `None` for one of an earlier version that has not
    /// got one yet.
    fn id(&self) -> Result<Option<StoreId>, StoreError>;

    /// As [`Self::id`], and gives one to a store of an earlier version where it can be written to.
    fn give_id(&mut self) -> Result<Option<StoreId>, StoreError>;

    /// Why it cannot be written to, where it can only be read.
    fn read_only(&self) -> Option<&str>;

    /// Keeps the policy as it is beside the store, durably, whatever is committed later. One that is
    /// kept is replaced.
    fn keep_draft(&mut self) -> Result<(), StoreError>;

    /// The policy that is kept; none where there is none.
    fn draft(&self) -> Result<Option<Policy>, StoreError>;

    /// Forgets the policy that is kept, if there is one.
    fn drop_draft(&mut self) -> Result<(), StoreError>;
}

/// A rule of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The group's VPC.
    pub vpc: VpcName,
    /// The group.
    pub group: GroupName,
    /// The rule.
    pub rule: Rule,
}

/// The number of a stored state of the policy; each commit counts one up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// The number, for people and other programs.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What tells one store from every other, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreId(u128);

impl StoreId {
    fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for StoreId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// Why the store could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Someone else committed in between.
    #[error(
        "the policy was changed in the meantime: it is at revision {found}, and this change was \
         made for revision {expected}; look at it again and retry"
    )]
    Conflict {
        /// The revision that the changes were made for.
        expected: Revision,
        /// The revision that is stored.
        found: Revision,
    },
    /// The changes speak of what is not stored, or leave it unsound.
    #[error("the changes do not fit what is stored, so none was made: {0}")]
    Misfit(String),
    /// Written by a newer program.
    #[error(
        "{} was written by a newer sg-ctl (its schema is {found}, this one knows up to {known}); \
         use that one", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema's version.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// A file of something else.
    #[error(
        "{} is not a store of sg-ctl; move it away or choose another folder with --state-dir",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error(
        "{} is damaged: {why}; move it away and apply the policy file again, or bring the file \
         back from a backup", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another program keeps the file busy.
    #[error("{} is kept busy by another program; try again when it has finished", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// It was opened to be read, because it cannot be written to.
    #[error("{} can only be read, so nothing was changed: {why}", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// Why it could not be opened for writing.
        why: String,
    },
    /// The system refused: no space, no permission, and the like.
    #[error("cannot {doing} {}: {source}", path.display())]
    System {
        /// What was attempted.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What was said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
