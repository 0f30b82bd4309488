//! The answers of the AWS command line, put together from any number of files.
//!
//! A file is JSON or YAML: an answer, a list of answers (one a page), or what `--query` takes out
//! of one. What an object is, its fields tell.

mod fields;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::policy::file::{TextProblem, yaml};
use crate::policy::findings;

pub(super) use fields::{Entry, IpPermission, PrefixList, SecurityGroup, SecurityGroupRule};

/// Why a file is no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Not JSON.
    #[error("{file}: {source}")]
    Json {
        /// The file.
        file: String,
        /// Where and what.
        source: serde_json::Error,
    },
    /// Not YAML.
    #[error("{file}:{place}: {source}")]
    Yaml {
        /// The file.
        file: String,
        /// Where.
        place: findings::Place,
        /// What.
        source: TextProblem,
    },
    /// Not of the shape that AWS documents.
    #[error("{file}: {kind}, item {number}: {source}")]
    Shape {
        /// The file.
        file: String,
        /// What the item should be.
        kind: &'static str,
        /// Which of them it is, from 1 on.
        number: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// About something else.
    #[error(
        "{file} has no security groups, rules, prefix lists or entries of one; save what `aws ec2 \
         describe-security-groups` prints, or describe-security-group-rules, \
         describe-managed-prefix-lists or get-managed-prefix-list-entries"
    )]
    Other {
        /// The file.
        file: String,
    },
    /// Entries do not say whose they are.
    #[error(
        "{file} has the entries of a prefix list but does not say of which; put the list's id into \
         the file's name, like pl-0123456789abcdef0.json"
    )]
    WhoseEntries {
        /// The file.
        file: String,
    },
    /// One page of several.
    #[error(
        "{file} is one page of several (it has a NextToken); ask again without --max-items and \
         --no-paginate"
    )]
    Page {
        /// The file.
        file: String,
    },
    /// One group, told differently.
    #[error(
        "{file} has group {id} otherwise than a file before it; give only the newer of the two files"
    )]
    GroupTwice {
        /// The file.
        file: String,
        /// The group.
        id: String,
    },
}

/// Everything that the files say.
#[derive(Debug, Default)]
pub struct Answers {
    /// In the order of the files.
    pub(super) groups: Vec<SecurityGroup>,
    /// Where each group is among them, by its id.
    places: BTreeMap<String, usize>,
    pub(super) rules: Vec<SecurityGroupRule>,
    /// By their ids.
    pub(super) list_names: BTreeMap<String, String>,
    /// By the id of their list.
    pub(super) entries: BTreeMap<String, Vec<Entry>>,
}

/// The parts of an answer, by the name of the field that holds them, and a field that their items
/// have and no others.
const PARTS: [(&str, &str); 4] = [
    ("SecurityGroups", "GroupName"),
    ("SecurityGroupRules", "IsEgress"),
    ("PrefixLists", "PrefixListName"),
    ("Entries", "Cidr"),
];

impl Answers {
    /// Adds what one file says.
    pub fn read(&mut self, file: &str, text: &str) -> Result<(), AnswerError> {
        // Some shells write a byte order mark before what a program prints.
        let text = text.trim_start_matches('\u{feff}').trim_start();
        let value = match text.starts_with(['{', '[']) || text.is_empty() {
            true => serde_json::from_str(text).map_err(|source| AnswerError::Json {
                file: file.to_owned(),
                source,
            })?,
            false => yaml(text).map_err(|(place, source)| AnswerError::Yaml {
                file: file.to_owned(),
                place,
                source,
            })?,
        };
        self.value(file, value)
    }

    fn value(&mut self, file: &str, value: Value) -> Result<(), AnswerError> {
        let other = || AnswerError::Other {
            file: file.to_owned(),
        };
        match value {
            Value::Object(fields) => self.object(file, fields),
            Value::Array(items) => match items.first() {
                Some(Value::Object(first)) => match kind_of_item(first) {
                    Some(kind) => self.items(file, kind, items),
                    None => items
                        .into_iter()
                        .try_for_each(|item| self.value(file, item)),
                },
                // What `--query` finds nothing for.
                None => Ok(()),
                Some(_) => Err(other()),
            },
            _ => Err(other()),
        }
    }

    fn object(&mut self, file: &str, mut fields: Map<String, Value>) -> Result<(), AnswerError> {
        if matches!(fields.get("NextToken"), Some(Value::String(token)) if !token.is_empty()) {
            return Err(AnswerError::Page {
                file: file.to_owned(),
            });
        }
        if let Some(kind) = kind_of_item(&fields) {
            return self.items(file, kind, vec![Value::Object(fields)]);
        }
        let mut has_any = false;
        for (kind, _) in PARTS {
            if let Some(part) = fields.remove(kind) {
                has_any = true;
                let items = match part {
                    Value::Array(items) => items,
                    Value::Null => Vec::new(),
                    one => vec![one],
                };
                self.items(file, kind, items)?;
            }
        }
        match has_any {
            true => Ok(()),
            false => Err(AnswerError::Other {
                file: file.to_owned(),
            }),
        }
    }

    fn items(
        &mut self,
        file: &str,
        kind: &'static str,
        items: Vec<Value>,
    ) -> Result<(), AnswerError> {
        match kind {
            "SecurityGroups" => {
                for group in read_items(file, kind, items)? {
                    self.group(file, group)?;
                }
            }
            "SecurityGroupRules" => self.rules.extend(read_items(file, kind, items)?),
            "PrefixLists" => {
                let lists = read_items::<PrefixList>(file, kind, items)?.into_iter();
                let named = lists.map(|list| (list.prefix_list_id, list.prefix_list_name));
                self.list_names.extend(named);
            }
            _ => {
                let entries = read_items(file, kind, items)?;
                let whose = list_id(file).ok_or_else(|| AnswerError::WhoseEntries {
                    file: file.to_owned(),
                })?;
                self.entries.entry(whose).or_default().extend(entries);
            }
        }
        Ok(())
    }

    /// Where no file has groups: those that rules are of, by which alone they are known.
    pub(super) fn groups_by_rules(&self) -> Vec<SecurityGroup> {
        if !self.groups.is_empty() {
            return Vec::new();
        }
        let groups: BTreeMap<_, _> = self
            .rules
            .iter()
            .map(|rule| (&rule.group_id, &rule.group_owner_id))
            .collect();
        let groups = groups.into_iter().map(|(id, owner)| SecurityGroup {
            group_id: id.clone(),
            group_name: String::new(),
            owner_id: owner.clone(),
            ..SecurityGroup::default()
        });
        groups.collect()
    }

    /// A group that is there already is the same one, or one of the two is out of date.
    fn group(&mut self, file: &str, group: SecurityGroup) -> Result<(), AnswerError> {
        match self.places.entry(group.group_id.clone()) {
            Place::Vacant(place) => {
                place.insert(self.groups.len());
                self.groups.push(group);
            }
            Place::Occupied(place) if self.groups.get(*place.get()) != Some(&group) => {
                return Err(AnswerError::GroupTwice {
                    file: file.to_owned(),
                    id: group.group_id,
                });
            }
            Place::Occupied(_) => {}
        }
        Ok(())
    }
}

/// What an object is by itself, outside of an answer.
fn kind_of_item(fields: &Map<String, Value>) -> Option<&'static str> {
    let found = PARTS.iter().find(|(_, field)| fields.contains_key(*field));
    found.map(|(kind, _)| *kind)
}

fn read_items<T: DeserializeOwned>(
    file: &str,
    kind: &'static str,
    items: Vec<Value>,
) -> Result<Vec<T>, AnswerError> {
    let items = items.into_iter().zip(1..);
    let items = items.map(|(item, number)| {
        serde_json::from_value(item).map_err(|source| AnswerError::Shape {
            file: file.to_owned(),
            kind,
            number,
            source,
        })
    });
    items.collect()
}

/// The id of a prefix list in the last part of a file's name.
fn list_id(file: &str) -> Option<String> {
    let name = file.rsplit('/').next()?;
    let start = name.find("pl-")?;
    let digits = name.get(start + 3..)?;
    let length = digits.bytes().take_while(u8::is_ascii_hexdigit).count();
    (length >= 8).then(|| name.get(start..start + 3 + length).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_those_of_the_list_that_names_their_file() {
        assert_eq!(
            list_id("a/pl-63a5400a.json").as_deref(),
            Some("pl-63a5400a")
        );
        assert_eq!(
            list_id("entries-pl-0123456789abcdef0.json").as_deref(),
            Some("pl-0123456789abcdef0")
        );
        assert_eq!(list_id("pl-12.json"), None);
        assert_eq!(list_id("entries.json"), None);
    }

    #[test]
    fn what_is_no_answer_is_told_what_would_be_one() {
        let read = |text| {
            Answers::default()
                .read("a.json", text)
                .unwrap_err()
                .to_string()
        };
        assert!(read("{").starts_with("a.json: EOF"), "{}", read("{"));
        assert!(read("").starts_with("a.json: EOF"));
        assert!(read("{}").contains("describe-security-groups"));
        assert!(read("[1]").contains("describe-security-groups"));
        assert!(read("nonsense").contains("describe-security-groups"));
        assert!(read("a: [").starts_with("a.json:2:1: not readable as YAML"));
        assert!(read("{\"Entries\": []}").contains("pl-0123456789abcdef0.json"));
        assert!(read("{\"SecurityGroups\": [], \"NextToken\": \"x\"}").contains("one page"));
        assert_eq!(
            read("{\"SecurityGroups\": [{}]}"),
            "a.json: SecurityGroups, item 1: missing field `GroupId`"
        );
        assert!(
            read(r#"{"SecurityGroupRules": [{"GroupId": "sg-1", "IsEgress": 7}]}"#)
                .contains("item 1: 7 is neither true nor false")
        );
    }

    #[test]
    fn a_group_is_one_group_however_often_it_is_told() {
        let mut answers = Answers::default();
        let group = r#"{"SecurityGroups": [{"GroupId": "sg-1", "GroupName": "a"}]}"#;
        answers.read("a.json", group).unwrap();
        answers.read("b.json", group).unwrap();
        assert_eq!(answers.groups.len(), 1);
        let other = group.replace("\"a\"", "\"b\"");
        let told = answers.read("c.json", &other).unwrap_err().to_string();
        assert!(
            told.starts_with("c.json has group sg-1 otherwise"),
            "{told}"
        );
    }
}
