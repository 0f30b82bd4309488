//! Reads nodes into values, and collects what is wrong instead of stopping at it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::str::FromStr;

use super::super::findings::{Finding, Findings, Place, Problem, Subject};
use super::super::names::{NameError, check_description};
use super::super::prefix::{PrefixError, parse_address};
use super::super::suggest::closest;
use super::super::time::whole_seconds;
use super::problem::TextProblem;
use super::schema::{Table, other_spelling};
use super::tree::{Node, Value};

/// Collects findings on the way through a tree.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) findings: Findings,
}

/// The entries of a map whose keys are known words.
pub(super) struct Fields<'n, 't> {
    entries: BTreeMap<&'static str, (Place, &'n Node<'t>)>,
}

impl<'n, 't> Fields<'n, 't> {
    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node<'t>> {
        self.entries.get(key).map(|(_, node)| *node)
    }

    /// Where a key stands.
    pub(super) fn place(&self, key: &str) -> Option<Place> {
        self.entries.get(key).map(|(place, _)| *place)
    }
}

impl Reader {
    pub(super) fn fault(&mut self, place: Place, problem: impl Into<Problem>) {
        let problem = problem.into();
        self.findings.push(Finding {
            place: Some(place),
            subject: Subject::Text,
            problem,
        });
    }

    pub(super) fn wrong_kind(&mut self, node: &Node<'_>, what: &str, wanted: &'static str) {
        let found = node.value.kind();
        self.fault(
            node.place,
            TextProblem::Kind {
                what: what.to_owned(),
                found,
                wanted,
            },
        );
    }

    /// The entries of a map, unless the node is none.
    pub(super) fn map<'n, 't>(
        &mut self,
        node: &'n Node<'t>,
        what: &str,
        wanted: &'static str,
    ) -> Option<&'n [(Node<'t>, Node<'t>)]> {
        match &node.value {
            Value::Map(entries) => Some(entries),
            _ => {
                self.wrong_kind(node, what, wanted);
                None
            }
        }
    }

    /// The entries of a map whose keys a table names; each other key is a finding.
    pub(super) fn fields<'n, 't>(
        &mut self,
        node: &'n Node<'t>,
        table: &Table,
    ) -> Option<Fields<'n, 't>> {
        let entries = self.map(node, table.holder, table.wanted)?;
        let mut fields = Fields {
            entries: BTreeMap::new(),
        };
        for (key, value) in entries {
            let Some(text) = self.text(key, "a key", "a word") else {
                continue;
            };
            let is_it = |name: &&str| *name == text || other_spelling(name) == Some(text);
            let Some(name) = table.names().find(is_it) else {
                let suggestion = closest(text, table.names());
                let (holder, key_text) = (table.holder.to_owned(), shown(text));
                let known = table.names().collect::<Vec<_>>().join(", ");
                let problem = TextProblem::UnknownKey {
                    holder,
                    key: key_text,
                    suggestion,
                    known,
                };
                self.fault(key.place, problem);
                continue;
            };
            if let Some((first, _)) = fields.entries.get(name) {
                let problem = TextProblem::KeyTwice {
                    key: shown(text),
                    first: *first,
                };
                self.fault(key.place, problem);
                continue;
            }
            fields.entries.insert(name, (key.place, value));
        }
        Some(fields)
    }

    /// The entries of a map whose keys are names, each once.
    pub(super) fn named<'n, 't, N: FromStr<Err = NameError> + Eq + std::hash::Hash + Clone>(
        &mut self,
        node: &'n Node<'t>,
        what: &str,
        wanted: &'static str,
    ) -> Vec<(N, Place, &'n Node<'t>)> {
        let entries = self.map(node, what, wanted).unwrap_or_default();
        let mut first_places: HashMap<N, Place> = HashMap::with_capacity(entries.len());
        let mut named = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let Some(text) = self.text(key, "a name", "a single word or phrase") else {
                continue;
            };
            let Some(name) = self.parsed(key.place, text.parse::<N>()) else {
                continue;
            };
            if let Some(first) = first_places.get(&name) {
                let problem = TextProblem::KeyTwice {
                    key: shown(text),
                    first: *first,
                };
                self.fault(key.place, problem);
                continue;
            }
            first_places.insert(name.clone(), key.place);
            named.push((name, key.place, value));
        }
        named
    }

    /// Any scalar, as it was spelt.
    pub(super) fn text<'n>(
        &mut self,
        node: &'n Node<'_>,
        what: &str,
        wanted: &'static str,
    ) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            _ => {
                self.wrong_kind(node, what, wanted);
                None
            }
        }
    }

    pub(super) fn list<'n, 't>(
        &mut self,
        node: &'n Node<'t>,
        what: &str,
        wanted: &'static str,
    ) -> &'n [Node<'t>] {
        match &node.value {
            Value::List(items) => items,
            _ => {
                self.wrong_kind(node, what, wanted);
                &[]
            }
        }
    }

    /// A list, or a single value in place of a list of one.
    pub(super) fn one_or_more<'n, 't>(
        &mut self,
        node: &'n Node<'t>,
        what: &str,
        wanted: &'static str,
    ) -> &'n [Node<'t>] {
        match &node.value {
            Value::Text(_) => std::slice::from_ref(node),
            _ => self.list(node, what, wanted),
        }
    }

    pub(super) fn parsed<T, E: Into<Problem>>(
        &mut self,
        place: Place,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|error| self.fault(place, error)).ok()
    }

    pub(super) fn boolean(&mut self, node: &Node<'_>, what: &str) -> Option<bool> {
        match &node.value {
            Value::Text(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::Text(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => {
                self.unexpected(node, what, "true or false");
                None
            }
        }
    }

    /// A number, in hexadecimal after `0x`.
    pub(super) fn number<T: TryFrom<u32>>(
        &mut self,
        node: &Node<'_>,
        what: &str,
        wanted: &'static str,
    ) -> Option<T> {
        let number = match &node.value {
            Value::Text(text) => parse_number(text).and_then(|number| T::try_from(number).ok()),
            _ => None,
        };
        if number.is_none() {
            self.unexpected(node, what, wanted);
        }
        number
    }

    /// A time of whole seconds.
    pub(super) fn seconds(&mut self, node: &Node<'_>, what: &'static str) -> Option<u32> {
        let text = self.text(node, what, "a time like 90, 30s, 5m or 1h")?;
        let seconds = whole_seconds(text).map_err(|error| TextProblem::Time { what, error });
        self.parsed(node.place, seconds)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        node: &Node<'_>,
        what: &str,
        words: &[(&str, T)],
        wanted: &'static str,
    ) -> Option<T> {
        let found = match &node.value {
            Value::Text(text) => words
                .iter()
                .find(|(word, _)| text.eq_ignore_ascii_case(word)),
            _ => None,
        };
        if found.is_none() {
            self.unexpected(node, what, wanted);
        }
        found.map(|(_, value)| *value)
    }

    fn unexpected(&mut self, node: &Node<'_>, what: &str, wanted: &'static str) {
        match &node.value {
            Value::Text(text) => {
                let (what, given) = (what.to_owned(), shown(text));
                self.fault(
                    node.place,
                    TextProblem::Word {
                        what,
                        given,
                        wanted,
                    },
                );
            }
            _ => self.wrong_kind(node, what, wanted),
        }
    }

    pub(super) fn description(&mut self, node: Option<&Node<'_>>) -> Option<String> {
        let node = node?;
        let text = self.text(node, "description", "one line of text")?;
        self.parsed(
            node.place,
            check_description(text).map(|()| text.to_owned()),
        )
    }

    /// A list of addresses, each of which has to pass a check.
    pub(super) fn addresses(
        &mut self,
        node: &Node<'_>,
        what: &str,
        check: fn(IpAddr) -> Result<(), PrefixError>,
    ) -> BTreeSet<IpAddr> {
        let mut addresses = BTreeSet::new();
        let items = self.one_or_more(node, what, "a list of addresses like [192.0.2.1]");
        for item in items {
            let Some(text) = self.text(item, "an address", "one like 192.0.2.1") else {
                continue;
            };
            let address = parse_address(text).and_then(|address| check(address).map(|()| address));
            addresses.extend(self.parsed(item.place, address));
        }
        addresses
    }
}

fn parse_number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
    u32::from_str_radix(digits, radix).ok().filter(|_| plain)
}

pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
