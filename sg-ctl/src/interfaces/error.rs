//! Why the machine's interfaces could not be read, in a sentence that names the next step.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::policy::suggest::closest;

/// The result of asking the machine about its interfaces.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kept an answer from being given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No interface has this name.
    #[error("no interface `{name}` in {netns}{hint}")]
    InterfaceMissing {
        /// The name asked for.
        name: String,
        /// The namespace that was searched, in words.
        netns: String,
        /// What there is instead.
        hint: Hint,
    },
    /// No namespace has this name or path.
    #[error("no network namespace `{asked}`: {} does not exist{hint}", path.display())]
    NetnsMissing {
        /// The name or path asked for.
        asked: String,
        /// Where it was looked for.
        path: PathBuf,
        /// What there is instead.
        hint: Hint,
    },
    /// The file is there and is no network namespace.
    #[error(
        "`{asked}` is no network namespace: the file is of another kind, or the namespace is not \
         mounted there as seen from this process"
    )]
    NotNetns {
        /// The name or path asked for.
        asked: String,
    },
    /// The name could not be that of a namespace.
    #[error("`{0}` is no name of a network namespace: give a name under /run/netns or a path")]
    BadNetnsName(String),
    /// The kernel refused for want of privilege.
    #[error("not permitted to {doing}: run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN")]
    NotPermitted {
        /// What was attempted.
        doing: String,
    },
    /// The system failed in another way.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was attempted.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel's answer over netlink was an error.
    #[error("cannot {doing}: {source}")]
    Netlink {
        /// What was attempted.
        doing: &'static str,
        /// What netlink said.
        source: rtnetlink::Error,
    },
}

impl Error {
    pub(super) fn system(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let (doing, source) = (doing.into(), source.into());
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::NotPermitted { doing },
            _ => Self::System { doing, source },
        }
    }
}

/// Names that exist, to go with one that does not: the close one, else a few of them all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    near: Option<String>,
    known: Vec<String>,
}

impl Hint {
    /// A list longer than this would bury the sentence it belongs to.
    const LISTED: usize = 8;

    pub(super) fn new(asked: &str, known: impl IntoIterator<Item = String>) -> Self {
        let mut known: Vec<String> = known.into_iter().collect();
        known.sort();
        let near = closest(asked, known.iter().map(String::as_str)).map(str::to_owned);
        Self { near, known }
    }

    /// The name close enough to be what was meant.
    pub fn near(&self) -> Option<&str> {
        self.near.as_deref()
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(near) = &self.near {
            return write!(f, "; did you mean `{near}`?");
        }
        let listed: Vec<String> = self
            .known
            .iter()
            .take(Self::LISTED)
            .map(|name| format!("`{name}`"))
            .collect();
        match self.known.len() - listed.len() {
            _ if listed.is_empty() => Ok(()),
            0 => write!(f, "; there are {}", listed.join(", ")),
            more => write!(f, "; there are {} and {more} more", listed.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(asked: &str, known: &[&str]) -> String {
        Hint::new(asked, known.iter().map(|name| (*name).to_owned())).to_string()
    }

    #[test]
    fn a_mistyped_name_is_met_with_the_close_ones() {
        assert_eq!(
            hint("eht0", &["lo", "eth0", "wlan0"]),
            "; did you mean `eth0`?"
        );
    }

    #[test]
    fn a_name_like_no_other_is_met_with_what_there_is() {
        assert_eq!(hint("tap3", &["lo", "eth0"]), "; there are `eth0`, `lo`");
        assert_eq!(hint("tap3", &[]), "");
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let names: Vec<String> = (0..20).map(|i| format!("interface{i:02}")).collect();
        let text = Hint::new("x", names).to_string();
        assert!(text.ends_with("`interface07` and 12 more"), "{text}");
    }
}
