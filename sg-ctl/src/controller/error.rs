//! Why a change was not made, or a question not answered.

use std::io;
use std::path::PathBuf;

use crate::dataplane;
use crate::dirs::DirError;
use crate::interfaces;
use crate::policy::findings::Findings;
use crate::policy::names::InterfaceName;
use crate::privileges::Unprivileged;
use crate::store::StoreError;

/// The result of changing or looking at an instance.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kept a command from being done; the policy and what is enforced are as they were, but for
/// [`Error::Stuck`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Changing what is enforced takes privileges.
    #[error(transparent)]
    Unprivileged(#[from] Unprivileged),
    /// The folders of the instance.
    #[error(transparent)]
    Dirs(#[from] DirError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The policy would not be sound.
    #[error(transparent)]
    Findings(#[from] Findings),
    /// An interface or network namespace.
    #[error(transparent)]
    Interfaces(#[from] interfaces::Error),
    /// The kernel.
    #[error(transparent)]
    Dataplane(#[from] dataplane::Error),
    /// The folders may not be looked at.
    #[error("cannot look at {}: {source}; run this as root", path.display())]
    Hidden {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store is gone, and what was installed from it is in force.
    #[error(
        "{} is gone, and what was installed from it still protects this machine; bring the file \
         back from a backup, or apply the policy again with `sg-ctl apply FILE --take-over`; \
         `sg-ctl detach --all` ends the protection", path.display()
    )]
    Lost {
        /// The store's file.
        path: PathBuf,
    },
    /// What is in force was installed from another store.
    #[error(
        "what protects this machine was installed from {}{}; choose that state folder with \
         --state-dir, or let the policy in {} replace what is installed with `sg-ctl restore \
         --take-over`; `sg-ctl detach --all` ends the protection",
        theirs.display(),
        if theirs == ours { ", from another store than the one there now" } else { "" },
        ours.display()
    )]
    Foreign {
        /// The state folder that it was installed from.
        theirs: PathBuf,
        /// The state folder that was given.
        ours: PathBuf,
    },
    /// An earlier version has installed what this store does not have.
    #[error(
        "interface {interface} is protected, and the policy in {} does not have it; choose the \
         state folder that it was installed from with --state-dir, or let this policy replace what \
         is installed with `sg-ctl restore --take-over`; `sg-ctl detach --all` ends the protection",
        state.display()
    )]
    Unknown {
        /// The state folder.
        state: PathBuf,
        /// The interface.
        interface: InterfaceName,
    },
    /// What is to replace the installed policy leaves devices open.
    #[error(
        "{} would not be protected any more, so nothing was changed; the policy that takes over \
         must have every interface that is protected now; `sg-ctl detach --all` ends all protection",
        interfaces.join(", ")
    )]
    WouldOpen {
        /// The devices, in words.
        interfaces: Vec<String>,
    },
    /// There is no policy that could take over.
    #[error(
        "{} does not exist, so there is no policy to take over with; `sg-ctl apply FILE \
         --take-over` makes one of a file", path.display()
    )]
    NothingStored {
        /// The store's file.
        path: PathBuf,
    },
    /// One change at a time can wait for its confirmation.
    #[error(
        "an earlier change waits for its confirmation ({0} s left): run `sg-ctl confirm` to keep it \
         or `sg-ctl rollback` to undo it, then try again"
    )]
    Unconfirmed(u64),
    /// There is nothing to confirm or to take back.
    #[error("no change waits for a confirmation; make one with `--confirm 60s`")]
    NothingUnconfirmed,
    /// It has been taken back.
    #[error(
        "too late: the change was not confirmed in time and was rolled back; the policy of revision \
         {0} is in force again"
    )]
    TooLate(u64),
    /// The copy is gone.
    #[error(
        "the policy before the unconfirmed change is not there any more, so the change stays; \
         apply the policy that you want"
    )]
    NothingToReturnTo,
    /// The process that would take a change back.
    #[error("cannot start the process that rolls the change back: {0}; nothing was changed")]
    Waiter(io::Error),
    /// The process that would end a trace.
    #[error("cannot start the process that ends the trace: {0}; nothing was changed")]
    Guard(io::Error),
    /// The kernel refused half-way, and everything is as it was before.
    #[error(
        "{why}; the change was rolled back, and {}",
        match protected {
            true => "the old policy is in force",
            false => "no interface is protected, as before",
        }
    )]
    TakenBack {
        /// Why the change failed.
        why: dataplane::Error,
        /// Whether the old policy protects any interface.
        protected: bool,
    },
    /// The kernel refused half-way, and so it did the way back.
    #[error(
        "{first}; rolling the change back failed too: {second}; what is stored will be enforced \
         when `sg-ctl restore` succeeds"
    )]
    Stuck {
        /// Why the change failed.
        first: Box<dataplane::Error>,
        /// Why the old policy could not be installed again.
        second: Box<Error>,
    },
}

impl Error {
    /// What the kernel has refused, if it has.
    pub fn dataplane(&self) -> Option<&dataplane::Error> {
        match self {
            Self::Dataplane(error) | Self::TakenBack { why: error, .. } => Some(error),
            Self::Stuck { first, .. } => Some(first),
            _ => None,
        }
    }
}
