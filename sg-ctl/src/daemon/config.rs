//! The daemon's configuration file: what it listens on, and how much it says.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::CONFIG;
use crate::api::Quotas;

/// More than anybody writes into it.
const MOST_BYTES: u64 = 1 << 20;

/// What an administrator chose. A key that is absent has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is written to the journal.
    pub log: Log,
    /// What Prometheus reads.
    pub metrics: Metrics,
    /// What clients of the cloud's API drive.
    pub api: Api,
}

/// `[api]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Where the API is served; nowhere by default.
    pub listen: Vec<SocketAddr>,
    /// The account that everything belongs to: 12 digits.
    pub account: Account,
    /// How much clients may make; by default as much as there is room for.
    pub quotas: Quotas,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            account: Account("0".repeat(Account::DIGITS)),
            quotas: Quotas::default(),
        }
    }
}

/// An account's number, as text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Account(String);

impl Account {
    const DIGITS: usize = 12;

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Account {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_digit = |byte: u8| byte.is_ascii_digit();
        match text.len() == Self::DIGITS && text.bytes().all(is_digit) {
            true => Ok(Self(text)),
            false => Err(format!(
                "{text:?} is no account; write {} digits",
                Self::DIGITS
            )),
        }
    }
}

/// `[log]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The least important messages that are written.
    pub level: Level,
}

/// `[metrics]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Where `/metrics` is served besides the unix socket; nowhere by default.
    pub listen: Vec<SocketAddr>,
    /// Whether the counters of rules are served; by default where they are few.
    pub rules: Option<bool>,
}

/// How important a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What failed.
    Error,
    /// What somebody should look at.
    Warn,
    /// What was done.
    #[default]
    Info,
    /// What was looked at.
    Debug,
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not what a configuration looks like.
    #[error("{}:{place}: {}{why}", path.display(), Key(key))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where in it.
        place: Place,
        /// The key that the line has, if it has one.
        key: Option<String>,
        /// What is wrong there.
        why: String,
    },
}

/// A place in a file; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    line: usize,
    column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

struct Key<'a>(&'a Option<String>);

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(key) => write!(f, "{key}: "),
            None => Ok(()),
        }
    }
}

impl Config {
    /// Reads a file that was asked for, or the one at the usual place if there is one.
    pub(super) fn read(asked: Option<&Path>) -> Result<Self, ConfigError> {
        let path = asked.unwrap_or(Path::new(CONFIG));
        let text = match read(path) {
            Ok(text) => text,
            Err(source) if asked.is_none() && source.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(source) => {
                return Err(ConfigError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let before = text.get(..at).unwrap_or_default();
            let line = before.matches('\n').count();
            let start = before.rfind('\n').map_or(0, |newline| newline + 1);
            let key = text.lines().nth(line).and_then(|line| line.split_once('='));
            ConfigError::Wrong {
                path: path.to_owned(),
                place: Place {
                    line: line + 1,
                    column: before.get(start..).map_or(0, |line| line.chars().count()) + 1,
                },
                key: key.map(|(key, _)| key.trim().to_owned()),
                why: error.message().to_owned(),
            }
        })
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = fs::File::open(path)?;
    file.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    match u64::try_from(text.len()) {
        Ok(length) if length <= MOST_BYTES => Ok(text),
        _ => Err(io::Error::other("it has more than 1 MiB")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, wanted: &str) {
        let read = Config::parse(Path::new("daemon.toml"), text);
        let told = match read {
            Ok(config) => format!("{config:?}"),
            Err(error) => error.to_string(),
        };
        assert!(told.contains(wanted), "{text:?}: {told}");
    }

    #[test]
    fn what_is_absent_has_its_default() {
        let config = Config::parse(Path::new("daemon.toml"), "").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.log.level, Level::Info);
        assert!(config.metrics.listen.is_empty());
    }

    #[test]
    fn a_mistake_has_file_line_and_key() {
        check(
            "[log]\nlevel = \"loud\"\n",
            "daemon.toml:2:9: level: unknown variant `loud`",
        );
        check(
            "[metrics]\n\nlisten = [\"localhost\"]\n",
            "daemon.toml:3:11: listen: invalid socket address",
        );
        check(
            "[metrics]\nlistn = []\n",
            "daemon.toml:2:1: listn: unknown field `listn`, expected `listen` or `rules`",
        );
        check(
            "[api]\naccount = \"12\"\n",
            "daemon.toml:2:11: account: \"12\" is no account; write 12 digits",
        );
        check(
            "[api.quotas]\nawss = true\n",
            "daemon.toml:2:1: awss: unknown field `awss`",
        );
        check("[logs]\n", "daemon.toml:1:2: unknown field `logs`");
        check("[log\n", "daemon.toml:1:5: ");
    }
}
