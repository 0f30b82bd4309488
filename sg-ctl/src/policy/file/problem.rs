//! What can be wrong with the text of a policy file, apart from what it means.

use super::super::findings::Place;
use super::super::rule_text::RuleError;
use super::super::services::UnknownService;
use super::super::time::TimeError;

/// What a policy file may not say, or not say so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextProblem {
    /// More text than a policy can need.
    #[error("the file has {bytes} bytes; split the policy into VPCs of at most {most} bytes")]
    TooLarge {
        /// The size of the file.
        bytes: usize,
        /// The bound.
        most: usize,
    },
    /// A character that YAML does not have; a reader could take it for the end.
    #[error("the character {0:?} is no text; remove it")]
    Control(char),
    /// The text is not YAML.
    #[error("not readable as YAML: {0}; check indentation, quotes and brackets here")]
    Syntax(String),
    /// Nothing but comments.
    #[error("the file says nothing; write at least \"groups: {{}}\"")]
    Empty,
    /// More than one document.
    #[error("a second document starts here; keep one a file")]
    SecondDocument,
    /// Deeper than the format goes.
    #[error("lists and maps are nested more than {0} deep; the format needs six")]
    TooDeep(usize),
    /// More values than a policy can need.
    #[error("the file has more than {0} values; split the policy into several VPCs")]
    TooMany(usize),
    /// Aliases that would grow without bound.
    #[error("aliases repeat more than {0} values; write a prefix list or a group instead")]
    Aliases(usize),
    /// An alias to nothing, or to what holds it.
    #[error("the alias stands for nothing that is complete; define its anchor before it")]
    UnknownAlias,
    /// A tag such as `!!set`.
    #[error("tags mean nothing in a policy; leave it out")]
    Tag,
    /// A value of the wrong kind.
    #[error("{what} is {found}; write {wanted}")]
    Kind {
        /// What was read.
        what: String,
        /// The kind of value it is.
        found: &'static str,
        /// What would be right.
        wanted: &'static str,
    },
    /// A key that means nothing here.
    #[error(
        "{holder} has no key {key:?}; {}",
        match suggestion {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => format!("use {known}"),
        }
    )]
    UnknownKey {
        /// What holds the key.
        holder: String,
        /// The key as given.
        key: String,
        /// The key that was perhaps meant.
        suggestion: Option<&'static str>,
        /// All keys that it has.
        known: String,
    },
    /// A key or name that is there already.
    #[error("{key:?} is here for the second time (first in line {}, column {}); keep one", .first.line, .first.column)]
    KeyTwice {
        /// The key as given.
        key: String,
        /// Where it was first.
        first: Place,
    },
    /// A key that has to be there.
    #[error("{holder} has no {key}; write {wanted}")]
    MissingKey {
        /// What should hold the key.
        holder: &'static str,
        /// The key.
        key: &'static str,
        /// What would be right.
        wanted: &'static str,
    },
    /// `to` in ingress or `from` in egress.
    #[error("an {direction} rule has no \"{given}\"; its peers are under \"{wanted}\"")]
    PeerKey {
        /// ingress or egress.
        direction: &'static str,
        /// As given.
        given: &'static str,
        /// What would be right.
        wanted: &'static str,
    },
    /// A service and its parts.
    #[error("a service brings its own protocol and ports; leave \"{0}\" out, or the service")]
    ServiceAndPart(&'static str),
    /// Two rules of one group that allow the same.
    #[error(
        "the group allows \"{permission}\" already (line {}, column {}); keep one", .first.line, .first.column
    )]
    RuleTwice {
        /// What both allow.
        permission: String,
        /// Where it was first.
        first: Place,
    },
    /// Lists of ports and peers that stand for more rules than a file may have by them.
    #[error(
        "the lists of ports and peers of the rules up to this one stand for {rules} rules, and those \
         of a file may stand for {most}; put the peers into a prefix list, or write port ranges"
    )]
    FanOut {
        /// Each port with each peer.
        rules: usize,
        /// The bound.
        most: usize,
    },
    /// A value that is not one of a few words.
    #[error("{what} is {given:?}; use {wanted}")]
    Word {
        /// What was read.
        what: String,
        /// As given.
        given: String,
        /// What would be right.
        wanted: &'static str,
    },
    /// A value that is no time.
    #[error("{what}: {error}")]
    Time {
        /// What was read.
        what: &'static str,
        /// Why it is none.
        error: TimeError,
    },
    /// A part of a rule.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// A service that nobody knows.
    #[error(transparent)]
    Service(#[from] UnknownService),
}
