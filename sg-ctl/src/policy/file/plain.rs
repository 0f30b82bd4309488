//! The plain part of YAML, read many times faster than the whole of it.
//!
//! Files of a million rules are written by programs, and in few of YAML's ways: maps and lists by
//! indentation or in brackets, JSON included, and values on one line. Whatever else a text has, or
//! whatever is wrong with it, this reader gives up and leaves the text to the library, which knows
//! everything; so what is read here must be what the library reads, places included, and nothing
//! here complains.

use std::borrow::Cow;

use super::super::findings::Place;
use super::tree::{MAX_DEPTH, MAX_NODES, Node, Value};

/// The tree of a text that is plain throughout.
pub(super) fn parse(text: &str) -> Option<Node<'_>> {
    // Columns are then bytes.
    if !text.is_ascii() {
        return None;
    }
    let mut reader = Plain {
        text,
        bytes: text.as_bytes(),
        at: 0,
        line: 1,
        line_start: 0,
        depth: 0,
        nodes: 0,
    };
    let indent = reader.next_content()?;
    let root = match reader.peek()? {
        b'{' | b'[' => {
            let root = reader.flow(Lines::Many)?;
            reader.end_of_line()?;
            root
        }
        _ if indent == 0 => reader.block(0)?,
        _ => return None,
    };
    match reader.next_content() {
        None if reader.at == reader.bytes.len() => Some(root),
        _ => None,
    }
}

/// Whether brackets may go on in further lines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    One,
    Many,
}

/// Where a scalar stands: within brackets a comma ends it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Block,
    Flow,
}

struct Plain<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    line: usize,
    line_start: usize,
    depth: usize,
    nodes: usize,
}

impl<'t> Plain<'t> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn place(&self) -> Place {
        Place {
            line: self.line,
            column: self.at - self.line_start + 1,
        }
    }

    fn node(&mut self, place: Place, value: Value<'t>) -> Option<Node<'t>> {
        self.nodes += 1;
        (self.nodes <= MAX_NODES).then_some(Node { place, value })
    }

    fn enter(&mut self) -> Option<()> {
        self.depth += 1;
        (self.depth <= MAX_DEPTH).then_some(())
    }

    fn skip_spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    fn take_line_end(&mut self) {
        self.at += 1;
        self.line += 1;
        self.line_start = self.at;
    }

    /// Goes to the first character of the next line that says something, and tells its indentation.
    /// `None` at the end of the text, or where a line is not plain.
    fn next_content(&mut self) -> Option<usize> {
        loop {
            self.skip_spaces();
            match self.peek()? {
                b'\n' => self.take_line_end(),
                b'#' => self.skip_comment(),
                // A document's end or the next one's start, or a directive.
                b'-' | b'.' | b'%' if self.at == self.line_start && !self.is_dash() => return None,
                _ => return Some(self.at - self.line_start),
            }
        }
    }

    fn skip_comment(&mut self) {
        while self.peek().is_some_and(|byte| byte != b'\n') {
            self.at += 1;
        }
    }

    /// Nothing but a comment may follow on this line.
    fn end_of_line(&mut self) -> Option<()> {
        let before = self.at;
        self.skip_spaces();
        match self.peek() {
            None => Some(()),
            Some(b'#') if self.at > before => {
                self.skip_comment();
                self.end_of_line()
            }
            Some(b'\n') => {
                self.take_line_end();
                Some(())
            }
            Some(_) => None,
        }
    }

    fn is_dash(&self) -> bool {
        self.bytes.get(self.at..self.at + 2) == Some(b"- ")
    }

    /// A map or list by indentation, from its first character on. Ends at the first character of a
    /// line that belongs to what is around it.
    fn block(&mut self, indent: usize) -> Option<Node<'t>> {
        self.enter()?;
        let place = self.place();
        let value = match self.is_dash() {
            true => {
                let items = self.block_list(indent)?;
                if self.is_at(indent) {
                    return None;
                }
                Value::List(items)
            }
            false => self.block_map(indent)?,
        };
        self.depth -= 1;
        self.node(place, value)
    }

    /// A list that stands no deeper than its key, as many programs write it. The library finds such
    /// a list where its first item is.
    fn list_below_key(&mut self, indent: usize) -> Option<Node<'t>> {
        self.enter()?;
        let items = self.block_list(indent)?;
        self.depth -= 1;
        let place = items.first()?.place;
        self.node(place, Value::List(items))
    }

    /// Ends at the first line that is no item.
    fn block_list(&mut self, indent: usize) -> Option<Vec<Node<'t>>> {
        let mut items = Vec::new();
        while self.is_dash() {
            self.at += 2;
            self.skip_spaces();
            let begin = self.at - self.line_start;
            let item = match self.is_key() {
                true => {
                    let item = self.block(begin)?;
                    self.is_next(indent)?;
                    item
                }
                false => self.line_value(indent)?,
            };
            items.push(item);
            if !self.is_at(indent) {
                break;
            }
        }
        Some(items)
    }

    fn block_map(&mut self, indent: usize) -> Option<Value<'t>> {
        let mut entries = Vec::new();
        loop {
            let key = self.scalar(Within::Block)?;
            self.take(b':')?;
            let value = match self.peek() {
                Some(b' ') => {
                    self.skip_spaces();
                    match self.peek()? {
                        b'#' | b'\n' => self.below(indent)?,
                        _ => self.line_value(indent)?,
                    }
                }
                Some(b'\n') => self.below(indent)?,
                _ => return None,
            };
            entries.push((key, value));
            if !self.is_at(indent) {
                return Some(Value::Map(entries));
            }
            if self.is_dash() {
                return None;
            }
        }
    }

    /// The value of a key that has none on its own line.
    fn below(&mut self, indent: usize) -> Option<Node<'t>> {
        if self.peek() == Some(b'#') {
            self.skip_comment();
        }
        if self.peek()? != b'\n' {
            return None;
        }
        self.take_line_end();
        let deeper = self.next_content()?;
        let value = match deeper == indent && self.is_dash() {
            true => self.list_below_key(indent)?,
            false if deeper > indent => self.block(deeper)?,
            false => return None,
        };
        self.is_next(indent)?;
        Some(value)
    }

    /// A value that ends with its line.
    fn line_value(&mut self, indent: usize) -> Option<Node<'t>> {
        let value = match self.peek()? {
            b'{' | b'[' => self.flow(Lines::One)?,
            _ => self.scalar(Within::Block)?,
        };
        self.end_of_line()?;
        if self.at < self.bytes.len() {
            // What is deeper would continue the value.
            let next = self.next_content();
            if next.is_none() && self.at < self.bytes.len()
                || next.is_some_and(|next| next > indent)
            {
                return None;
            }
        }
        Some(value)
    }

    /// Whether the next line belongs to what has this indentation, or to what is around it.
    fn is_next(&self, indent: usize) -> Option<()> {
        (self.at == self.bytes.len() || self.at - self.line_start <= indent).then_some(())
    }

    fn is_at(&self, indent: usize) -> bool {
        self.at < self.bytes.len() && self.at - self.line_start == indent
    }

    /// Whether a key with its colon is next.
    fn is_key(&self) -> bool {
        let rest = &self.bytes[self.at..];
        let length = match rest.first() {
            Some(quote @ (b'"' | b'\'')) => {
                let end = rest.iter().skip(1).position(|byte| byte == quote);
                end.map_or(0, |end| end + 2)
            }
            _ => {
                let is_end =
                    |at: &usize| !is_plain(rest[*at], Within::Block) && !is_inner_colon(rest, *at);
                (0..rest.len()).find(is_end).unwrap_or(rest.len())
            }
        };
        rest.get(length) == Some(&b':') && matches!(rest.get(length + 1), None | Some(b' ' | b'\n'))
    }

    /// A map or list in brackets.
    fn flow(&mut self, lines: Lines) -> Option<Node<'t>> {
        let place = self.place();
        match self.peek()? {
            b'{' => {
                self.enter()?;
                let entries = self.flow_items(b'}', lines, |reader| {
                    let is_quoted = matches!(reader.peek()?, b'"' | b'\'');
                    let key = reader.scalar(Within::Flow)?;
                    reader.take(b':')?;
                    if !is_quoted && !matches!(reader.peek()?, b' ' | b'\n') {
                        return None;
                    }
                    reader.skip_flow_space(lines);
                    Some((key, reader.flow(lines)?))
                })?;
                self.depth -= 1;
                self.node(place, Value::Map(entries))
            }
            b'[' => {
                self.enter()?;
                let items = self.flow_items(b']', lines, |reader| reader.flow(lines))?;
                self.depth -= 1;
                self.node(place, Value::List(items))
            }
            _ => self.scalar(Within::Flow),
        }
    }

    fn flow_items<T>(
        &mut self,
        end: u8,
        lines: Lines,
        mut item: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_flow_space(lines);
        if self.peek()? == end {
            self.at += 1;
            return Some(items);
        }
        loop {
            items.push(item(self)?);
            self.skip_flow_space(lines);
            match self.peek()? {
                b',' => self.at += 1,
                byte if byte == end => {
                    self.at += 1;
                    return Some(items);
                }
                _ => return None,
            }
            self.skip_flow_space(lines);
        }
    }

    fn skip_flow_space(&mut self, lines: Lines) {
        loop {
            match self.peek() {
                Some(b' ') => self.at += 1,
                Some(b'\n') if lines == Lines::Many => self.take_line_end(),
                _ => return,
            }
        }
    }

    fn scalar(&mut self, within: Within) -> Option<Node<'t>> {
        let place = self.place();
        let first = self.peek()?;
        let text = match first {
            b'"' | b'\'' => {
                let rest = self.text.get(self.at + 1..)?;
                let length = rest
                    .bytes()
                    .position(|byte| byte == first || matches!(byte, b'\\' | b'\n' | b'\t'))?;
                self.at += length + 2;
                // Escapes, line ends, and a quote that is doubled are for the library.
                if self.bytes.get(self.at - 1) != Some(&first) || self.peek() == Some(first) {
                    return None;
                }
                rest.get(..length)?
            }
            _ => self.plain_text(within)?,
        };
        if text.len() > MAX_KEY {
            return None;
        }
        let is_null = first != b'"' && first != b'\'' && matches!(text, "null" | "Null" | "NULL");
        let value = match is_null {
            true => Value::Null,
            false => Value::Text(Cow::Borrowed(text)),
        };
        self.node(place, value)
    }

    /// Words without quotes.
    fn plain_text(&mut self, within: Within) -> Option<&'t str> {
        let begin = self.at;
        let rest = &self.bytes[begin..];
        let first = *rest.first()?;
        let is_number = first == b'-' && rest.get(1).is_some_and(u8::is_ascii_digit);
        if !is_number && !first.is_ascii_alphanumeric() && !matches!(first, b'_' | b'/') {
            return None;
        }
        let is_part = |at: usize| match rest.get(at) {
            Some(b' ') => rest
                .get(at + 1)
                .is_some_and(|next| is_plain(*next, within) && *next != b' '),
            Some(byte) => is_plain(*byte, within) || is_inner_colon(rest, at),
            None => false,
        };
        let length = (1..).find(|at| !is_part(*at))?;
        self.at += length;
        self.text.get(begin..self.at)
    }
}

/// The library's bound for the keys of maps; longer values are rare enough.
const MAX_KEY: usize = 1_000;

/// Whether a byte within a word means nothing else.
fn is_plain(byte: u8, within: Within) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'_' | b'.' | b'/' | b'*' | b'+' | b'=' | b'-' | b'(' | b')' | b';'
        )
        || byte == b',' && within == Within::Block
}

/// A colon that ends no key, as in `sg:web`.
fn is_inner_colon(bytes: &[u8], at: usize) -> bool {
    bytes.get(at) == Some(&b':')
        && bytes
            .get(at + 1)
            .is_some_and(|next| is_plain(*next, Within::Flow))
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    /// What the library makes of a text, or nothing where it refuses it.
    fn whole(text: &str) -> Option<String> {
        tree::parse_whole(text).ok().map(|node| format!("{node:?}"))
    }

    fn check(text: &str) {
        let plain = parse(text).map(|node| format!("{node:?}"));
        assert!(plain.is_some(), "not plain: {text}");
        assert_eq!(plain, whole(text), "{text}");
    }

    #[test]
    fn a_policy_as_people_and_programs_write_it_is_plain() {
        check(
            "# the site
vpc: prod
prefix_lists:
  office: [203.0.113.0/24, '2001:db8:aa::/48']   # both families

groups:
  ssh:
    description: SSH, from the office (only)
    ingress:
      - {service: ssh, from: [pl:office]}
  app:
    ingress:
      - protocol: tcp
        ports: [8000-8080, 9000]
        from: [sg:web]
      - {protocol: icmp, type: -1, from: [10.0.0.0/8]}
    egress: []
    members:
      - 192.0.2.20
      - \"2001:db8::7\"
interfaces:
  eth0: {groups: [web, ssh], hook: auto}
",
        );
        check(
            "{\"groups\":{\"web\":{\"ingress\":[{\"protocol\":\"tcp\",\"ports\":[80,443],\"from\":[\"::/0\"]}]}}}",
        );
        check("{\n  \"groups\": {\n    \"a\": {},\n    \"b\": null\n  }\n}\n");
        check("a: 1");
        check("a:\n  b:\n    - c\nd: e\n");
        check("a:\n- b\n- c: d\n  e:\n  - f\n  g: h\ni:\n- j\n");
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_library() {
        for text in [
            "",
            "a",
            "a:\n",
            "a: |\n  b\n",
            "a: &x b\n",
            "a: *x\n",
            "a: !t b\n",
            "a: b\n  c\n",
            "a: \"\\n\"\n",
            "a: 'it''s'\n",
            "a:\n- b\n - c\n",
            "- a\nb: c\n",
            "a:#\n- b\n",
            "? a\n: b\n",
            "a: [b\n",
            "a: [b,]\n",
            "- a\n---\n",
            "a: é\n",
            "a: b\n c: d\n",
            "a: 1\n...\n",
            "a: b: c\n",
            "a: [b, # c\n d]\n",
        ] {
            assert!(parse(text).is_none(), "{text:?}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]
        #[test]
        fn what_is_plain_is_what_the_library_reads(
            text in "(( {0,3}|- ){0,2}([ab01.-]{1,3}|\"[ab: ]{0,2}\"|n(ull)?|[\\[\\]{},:#'?*])(: ?|, ?| |)){0,5}(\n|(: ?)?)(( {0,4}|- ){0,2}([ab01.-]{1,3}|\"[ab: ]{0,2}\"|[\\[\\]{},:#'?*])(: ?|, ?| |)\n?){0,6}"
        ) {
            if let Some(plain) = parse(&text) {
                proptest::prop_assert_eq!(Some(format!("{plain:?}")), whole(&text), "{:?}", text);
            }
        }

        #[test]
        fn lines_of_keys_and_items_are_read_alike(
            lines in proptest::collection::vec("( {0,6})(- )?([ab]:)?( )?([ab1]{0,2}|\\[a, b\\]|\\{a: b\\}|'x'|\"\")( #c)?", 0..8)
        ) {
            let text = lines.join("\n");
            if let Some(plain) = parse(&text) {
                proptest::prop_assert_eq!(Some(format!("{plain:?}")), whole(&text), "{:?}", text);
            }
        }
    }
}
