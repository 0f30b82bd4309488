//! Answers as the cloud writes them: elements in a given order, lists as `<xSet><item>…`.

use std::fmt::Display;

use quick_xml::escape::escape;

use crate::store::Notes;

/// The part of an answer inside its root.
#[derive(Debug, Default)]
pub(super) struct Xml(String);

impl Xml {
    pub(super) fn into_string(self) -> String {
        self.0
    }

    /// An element with a text.
    pub(super) fn text(&mut self, name: &str, text: impl Display) {
        self.open(name);
        self.raw(text);
        self.close(name);
    }

    /// A text without an element of its own.
    pub(super) fn raw(&mut self, text: impl Display) {
        let text = text.to_string();
        match text.chars().all(is_char) {
            true => self.0.push_str(&escape(&text)),
            false => {
                let shown: String = text
                    .chars()
                    .map(|c| {
                        if is_char(c) {
                            c
                        } else {
                            char::REPLACEMENT_CHARACTER
                        }
                    })
                    .collect();
                self.0.push_str(&escape(&shown));
            }
        }
    }

    pub(super) fn text_if(&mut self, name: &str, text: Option<impl Display>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// An element with others.
    pub(super) fn element(&mut self, name: &str, inner: impl FnOnce(&mut Self)) {
        self.open(name);
        inner(self);
        self.close(name);
    }

    /// A list of items; an empty one too, which clients read as such.
    pub(super) fn set<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        let mut items = items.into_iter().peekable();
        if items.peek().is_none() {
            self.0.push('<');
            self.0.push_str(name);
            self.0.push_str("/>");
            return;
        }
        self.open(name);
        for item in items {
            self.open("item");
            write(self, item);
            self.close("item");
        }
        self.close(name);
    }

    /// The tags of an object.
    pub(super) fn tags(&mut self, notes: Option<&Notes>) {
        self.set("tagSet", super::tags::of(notes), |xml, (key, value)| {
            xml.text("key", key);
            xml.text("value", value);
        });
    }

    /// What most changes answer.
    pub(super) fn done() -> Self {
        let mut xml = Self::default();
        xml.text("return", true);
        xml
    }

    fn open(&mut self, name: &str) {
        self.0.push('<');
        self.0.push_str(name);
        self.0.push('>');
    }

    fn close(&mut self, name: &str) {
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
    }
}

/// Whether XML 1.0 has the character.
fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_written_in_order_and_escaped() {
        let mut xml = Xml::default();
        xml.text("a", "<&>\u{1}\"");
        xml.set("emptySet", [] as [&str; 0], |_, _| ());
        xml.set("bSet", [1, 2], |xml, number| xml.text("n", number));
        let wanted = "<a>&lt;&amp;&gt;\u{fffd}&quot;</a><emptySet/>\
             <bSet><item><n>1</n></item><item><n>2</n></item></bSet>";
        assert_eq!(xml.into_string(), wanted);
    }
}
