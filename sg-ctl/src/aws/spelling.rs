//! Names and descriptions of AWS as sg takes them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hash;
use std::str::FromStr;

use crate::policy::names::{MAX_TEXT, NameError, is_text};

/// What stands for a character that sg does not take.
const STAND_IN: char = '-';

/// The text with other characters for those that sg does not take, and no longer than it may be.
pub(super) fn as_description(text: &str) -> Cow<'_, str> {
    match text.chars().all(is_text) && text.len() <= MAX_TEXT {
        true => Cow::Borrowed(text),
        false => Cow::Owned(within(text, MAX_TEXT)),
    }
}

fn within(text: &str, most: usize) -> String {
    let taken = text.chars().map(|character| match is_text(character) {
        true => character,
        false => STAND_IN,
    });
    taken.take(most).collect()
}

/// The names of one kind, each given once.
pub(super) struct Names<N> {
    owners: HashMap<N, String>,
}

impl<N> Default for Names<N> {
    fn default() -> Self {
        Self {
            owners: HashMap::new(),
        }
    }
}

impl<N: FromStr<Err = NameError> + Hash + Eq + Clone> Names<N> {
    /// The name that AWS gives, or one that comes near and has the id in it.
    pub(super) fn give(&mut self, given: &str, id: &str) -> Result<N, NameError> {
        let near = within(given, MAX_TEXT);
        // Room for the id and a number.
        let id = within(id, 64);
        let start = within(given, MAX_TEXT - 80);
        let start = match start.trim_matches(' ') {
            "" => "aws",
            start => start,
        };
        // Nothing that is called as an id is ever a name.
        let (apart, last_resort) = (format!("{start}-{id}"), format!("aws-{id}"));
        let numbered = (2..).map(|number| format!("{last_resort}-{number}"));
        let candidates = [near, apart, last_resort.clone()]
            .into_iter()
            .chain(numbered);
        let mut refused = None;
        for candidate in candidates.take(Self::ATTEMPTS + self.owners.len()) {
            match candidate.parse::<N>() {
                Ok(name) if !self.owners.contains_key(&name) => {
                    self.owners.insert(name.clone(), id);
                    return Ok(name);
                }
                Ok(_) => {}
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or(NameError::Empty { what: "name" }))
    }

    /// More than there are ways to spell a name.
    const ATTEMPTS: usize = 4;

    /// The id of what has a name.
    pub(super) fn owner(&self, name: &str) -> Option<&str> {
        let name = name.parse::<N>().ok()?;
        self.owners.get(&name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::names::GroupName;

    #[test]
    fn a_name_is_given_once_and_the_next_one_has_its_id() {
        let mut names: Names<GroupName> = Names::default();
        let mut give = |given: &str, id: &str| names.give(given, id).unwrap().to_string();
        assert_eq!(give("web", "sg-1"), "web");
        assert_eq!(give("Web", "sg-2"), "Web-sg-2");
        assert_eq!(give("web-sg-3", "sg-9"), "web-sg-3");
        assert_eq!(give("web", "sg-3"), "aws-sg-3");
        assert_eq!(give("sg-web", "sg-4"), "aws-sg-4");
        assert_eq!(give("", "sg-5"), "aws-sg-5");
        assert_eq!(give("r\u{e9}seau", "sg-6"), "r-seau");
        let long = "n".repeat(300);
        assert_eq!(give(&long, "sg-7").len(), MAX_TEXT);
        assert!(give(&long, "sg-8").ends_with("nn-sg-8"));
        assert_eq!(names.owner("WEB"), Some("sg-1"));
    }

    #[test]
    fn a_description_keeps_what_it_can() {
        assert_eq!(as_description("[k8s] Managed; a=b"), "[k8s] Managed; a=b");
        assert_eq!(as_description("caf\u{e9}"), "caf-");
        assert_eq!(as_description(&"x".repeat(999)).len(), MAX_TEXT);
    }
}
