//! Why the daemon cannot start or go on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::config::ConfigError;
use crate::dirs::DirError;
use crate::privileges::Unprivileged;

/// A result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the daemon cannot start, go on or be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process may not change what is enforced.
    #[error(transparent)]
    Unprivileged(#[from] Unprivileged),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The folders cannot be worked in.
    #[error(transparent)]
    Dirs(#[from] DirError),
    /// Another daemon works in the run folder.
    #[error(
        "a daemon{} runs in {} already; one is enough for a machine, and a second one needs a run \
         folder of its own (--run-dir)",
        .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), run.display()
    )]
    Running {
        /// The run folder.
        run: PathBuf,
        /// The other's process, as far as can be known.
        pid: Option<u32>,
    },
    /// No daemon answers.
    #[error("no daemon runs in {}; start one with `systemctl start sg` or `sg-ctl daemon`", run.display())]
    NotRunning {
        /// The run folder.
        run: PathBuf,
    },
    /// The unix socket cannot be made.
    #[error("cannot listen on {}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {what}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The key of the configuration that has it.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The daemon's answer makes no sense.
    #[error("the daemon at {} did not answer as it should: {why}", path.display())]
    Answer {
        /// Its socket.
        path: PathBuf,
        /// What is wrong with the answer.
        why: String,
    },
    /// No answer came, and nothing was changed.
    #[error("{why}; nothing was changed, so run the command again")]
    NotDone {
        /// What is wrong with the answer.
        why: String,
    },
    /// No answer came, and something was changed.
    #[error(
        "{why}; the policy was at revision {before} and is at {now}, so that this change or another \
         one was made: look before you run the command again, and run `sg-ctl restore`, which makes \
         the kernel hold what is stored"
    )]
    PerhapsDone {
        /// What is wrong with the answer.
        why: String,
        /// The revision before the daemon was asked.
        before: u64,
        /// The revision there is.
        now: u64,
    },
    /// No answer came, and what is stored cannot be read.
    #[error(
        "{why}; whether the change was made cannot be told: look before you run the command again"
    )]
    Unanswered {
        /// What is wrong with the answer.
        why: String,
    },
    /// The system refused.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was attempted.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl Error {
    pub(super) fn system(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }
}
