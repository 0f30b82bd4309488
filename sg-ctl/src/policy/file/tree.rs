//! YAML as a tree in which every node knows its place, however hostile the text.
//!
//! Text, depth, number of nodes and what aliases repeat are bounded before anything is built, so
//! that no file takes more memory than its own size explains. What the nodes mean is for the
//! readers.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use super::super::findings::Place;
use super::plain;
use super::problem::TextProblem;

const MAX_BYTES: usize = 128 << 20;
pub(super) const MAX_NODES: usize = 16_000_000;
const MAX_ALIASED_NODES: usize = 100_000;
pub(super) const MAX_DEPTH: usize = 32;

/// A value and where it starts.
#[derive(Clone, Debug)]
pub(super) struct Node<'t> {
    pub(super) place: Place,
    pub(super) value: Value<'t>,
}

#[derive(Clone, Debug)]
pub(super) enum Value<'t> {
    /// No value, `~` or `null`.
    Null,
    /// Any scalar, as it was spelt.
    Text(Cow<'t, str>),
    List(Vec<Node<'t>>),
    Map(Vec<(Node<'t>, Node<'t>)>),
}

impl Value<'_> {
    /// The kind of value, with its article.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "empty",
            Self::Text(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

impl From<Value<'_>> for serde_json::Value {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Text(text) => Self::String(text.into_owned()),
            Value::List(items) => items
                .into_iter()
                .map(|item| Self::from(item.value))
                .collect(),
            Value::Map(entries) => {
                let named = |(key, value): (Node<'_>, Node<'_>)| match key.value {
                    Value::Text(name) => Some((name.into_owned(), Self::from(value.value))),
                    _ => None,
                };
                Self::Object(entries.into_iter().filter_map(named).collect())
            }
        }
    }
}

impl Node<'_> {
    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Null | Value::Text(_) => 0,
            Value::List(items) => items.iter().map(Node::count).sum(),
            Value::Map(entries) => entries.iter().map(|(k, v)| k.count() + v.count()).sum(),
        }
    }
}

/// Reads the one document of a text.
pub(super) fn parse(text: &str) -> Result<Node<'_>, (Place, TextProblem)> {
    let start = Place { line: 1, column: 1 };
    if text.len() > MAX_BYTES {
        return Err((
            start,
            TextProblem::TooLarge {
                bytes: text.len(),
                most: MAX_BYTES,
            },
        ));
    }
    if let Some(found) = control_character(text) {
        return Err(found);
    }
    match plain::parse(text) {
        Some(root) => Ok(root),
        None => parse_whole(text),
    }
}

/// Reads all of YAML.
pub(super) fn parse_whole(text: &str) -> Result<Node<'_>, (Place, TextProblem)> {
    let start = Place { line: 1, column: 1 };
    let mut builder = Builder::default();
    // Unlike the parser, editors do not count a byte order mark as a column.
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) = event.map_err(|error| {
            (
                place(*error.marker()),
                TextProblem::Syntax(error.info().to_owned()),
            )
        })?;
        builder
            .take(event, span)
            .map_err(|problem| (place(span.start), problem))?;
    }
    builder.root.ok_or((start, TextProblem::Empty))
}

/// The parser ends at a NUL, and what follows must not be lost without a word.
fn control_character(text: &str) -> Option<(Place, TextProblem)> {
    let refused = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    let (before, after) = text.split_at(text.find(refused)?);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    Some((
        Place { line, column },
        TextProblem::Control(after.chars().next()?),
    ))
}

fn place(marker: Marker) -> Place {
    Place {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

/// A list or map that has not ended.
struct Open<'t> {
    node: Node<'t>,
    /// A key that waits for its value.
    key: Option<Node<'t>>,
    anchor: usize,
}

#[derive(Default)]
struct Builder<'t> {
    open: Vec<Open<'t>>,
    root: Option<Node<'t>>,
    anchors: HashMap<usize, Node<'t>>,
    documents: usize,
    nodes: usize,
    aliased: usize,
}

impl<'t> Builder<'t> {
    fn take(&mut self, event: Event<'t>, span: Span) -> Result<(), TextProblem> {
        let place = place(span.start);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(TextProblem::SecondDocument);
                }
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => return Err(TextProblem::Tag),
            Event::Scalar(text, style, anchor, None) => {
                let null = style == ScalarStyle::Plain
                    && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                let value = if null { Value::Null } else { Value::Text(text) };
                self.close(Node { place, value }, anchor)?;
            }
            Event::SequenceStart(anchor, None) => {
                self.enter(
                    Node {
                        place,
                        value: Value::List(Vec::new()),
                    },
                    anchor,
                )?;
            }
            Event::MappingStart(anchor, None) => {
                self.enter(
                    Node {
                        place,
                        value: Value::Map(Vec::new()),
                    },
                    anchor,
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    self.close(open.node, open.anchor)?;
                }
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).ok_or(TextProblem::UnknownAlias)?;
                self.aliased += node.count();
                if self.aliased > MAX_ALIASED_NODES {
                    return Err(TextProblem::Aliases(MAX_ALIASED_NODES));
                }
                let node = Node {
                    place,
                    ..node.clone()
                };
                self.close(node, 0)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn enter(&mut self, node: Node<'t>, anchor: usize) -> Result<(), TextProblem> {
        if self.open.len() >= MAX_DEPTH {
            return Err(TextProblem::TooDeep(MAX_DEPTH));
        }
        self.open.push(Open {
            node,
            key: None,
            anchor,
        });
        Ok(())
    }

    fn close(&mut self, node: Node<'t>, anchor: usize) -> Result<(), TextProblem> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(TextProblem::TooMany(MAX_NODES));
        }
        if anchor > 0 {
            self.aliased += node.count();
            if self.aliased > MAX_ALIASED_NODES {
                return Err(TextProblem::Aliases(MAX_ALIASED_NODES));
            }
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open {
                node:
                    Node {
                        value: Value::List(items),
                        ..
                    },
                ..
            }) => items.push(node),
            Some(Open {
                node:
                    Node {
                        value: Value::Map(entries),
                        ..
                    },
                key,
                ..
            }) => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push((key, node)),
            },
            Some(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let (place, problem) = parse(text).expect_err("refused");
        format!("{place}: {problem}")
    }

    #[test]
    fn every_node_knows_its_place() {
        let root = parse("a:\n  - {b: c}\n").unwrap();
        let Value::Map(entries) = &root.value else {
            panic!("{root:?}")
        };
        let Value::List(items) = &entries[0].1.value else {
            panic!("{root:?}")
        };
        let Value::Map(inner) = &items[0].value else {
            panic!("{root:?}")
        };
        assert_eq!(entries[0].0.place, Place { line: 1, column: 1 });
        assert_eq!(inner[0].1.place, Place { line: 2, column: 9 });
    }

    #[test]
    fn a_text_that_grows_or_digs_without_bound_is_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb += &format!("a{level}: &a{level} [{aliases}]\n");
        }
        assert!(refusal(&bomb).contains("aliases repeat more than 100000 values"));
        assert!(refusal(&"[".repeat(100)).contains("nested more than 32 deep"));
        assert!(refusal(&"- ".repeat(100)).contains("nested more than 32 deep"));
        assert!(
            refusal("a: &a [*a]").contains("stands for nothing"),
            "{}",
            refusal("a: &a [*a]")
        );
    }

    #[test]
    fn what_is_not_one_plain_document_is_refused() {
        assert_eq!(
            refusal("# nothing\n"),
            "1:1: the file says nothing; write at least \"groups: {}\""
        );
        assert_eq!(
            refusal("a: 1\n---\nb: 2\n"),
            "2:1: a second document starts here; keep one a file"
        );
        assert_eq!(
            refusal("a: !!set {}\n"),
            "1:4: tags mean nothing in a policy; leave it out"
        );
        assert!(refusal("a: [1, 2\nb: 3\n").contains("not readable as YAML"));
        assert_eq!(
            refusal("a: 1\nb\0: 2\n"),
            "2:2: the character '\\0' is no text; remove it"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_brings_the_reader_down(text in "[-a-c0-1 \n\t:,&*?!|>'\"%@`{}\\[\\]#~.\u{feff}\u{85}]{0,60}") {
            let _ = parse(&text);
        }
    }
}
