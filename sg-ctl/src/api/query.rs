//! A form's fields as a tree: `IpPermissions.1.IpRanges.2.CidrIp=…`.
//!
//! An operation takes the fields that it knows; what is left then is refused, so that no misspelt
//! field is ignored. A field without a value counts as absent, as clients mean it.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::fault::{Fault, Result};
use crate::policy::suggest::closest;

/// The most fields that a request may have.
const MOST_FIELDS: usize = 50_000;

/// The most steps that the name of a field may have, and the length of each.
const MOST_STEPS: usize = 8;
const LONGEST_STEP: usize = 64;

/// Digits of the largest index.
const MOST_DIGITS: usize = 6;

/// One step of a field's name. Numbers sort as numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Index(u32),
    Name(String),
}

#[derive(Debug, Default)]
struct Node {
    value: Option<String>,
    members: BTreeMap<Step, Node>,
}

/// Fields that are not taken yet.
#[derive(Debug, Default)]
pub(super) struct Params {
    path: String,
    members: BTreeMap<Step, Node>,
    asked: Vec<&'static str>,
}

fn malformed(why: impl Into<String>) -> Fault {
    Fault::new("MalformedQueryString", why)
}

impl Params {
    /// Reads a form, whatever it holds.
    pub(super) fn parse(form: &[u8]) -> Result<Self> {
        let mut params = Self::default();
        if std::str::from_utf8(form).is_err() {
            return Err(malformed("The query string is not UTF-8"));
        }
        for (count, field) in form.split(|byte| *byte == b'&').enumerate() {
            if count >= MOST_FIELDS {
                let why = format!("The query string has more than {MOST_FIELDS} parameters");
                return Err(malformed(why));
            }
            if !field.is_empty() {
                let mut halves = field.splitn(2, |byte| *byte == b'=');
                let name = decode(halves.next().unwrap_or_default())?;
                let value = decode(halves.next().unwrap_or_default())?;
                params.put(&name, value)?;
            }
        }
        Ok(params)
    }

    fn put(&mut self, name: &str, value: String) -> Result<()> {
        let mut steps = Vec::new();
        for step in name.split('.') {
            if steps.len() == MOST_STEPS {
                let why = format!("A parameter's name has more than {MOST_STEPS} parts");
                return Err(malformed(why));
            }
            steps.push(read_step(step)?);
        }
        let Some(last) = steps.pop() else {
            return Err(malformed("A parameter has no name"));
        };
        let mut members = &mut self.members;
        for step in steps {
            members = &mut members.entry(step).or_default().members;
        }
        let node = members.entry(last).or_default();
        if node.value.replace(value).is_some() {
            let why = format!("The parameter {name} is given more than once");
            return Err(malformed(why));
        }
        Ok(())
    }

    fn take(&mut self, name: &'static str) -> Option<Node> {
        self.asked.push(name);
        self.members.remove(&Step::Name(name.to_owned()))
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    /// Whether there is a field of a name, or anything below it.
    pub(super) fn has(&self, name: &str) -> bool {
        let found = self.members.get(&Step::Name(name.to_owned()));
        found.is_some_and(|node| !is_blank(node))
    }

    /// A text, even an empty one.
    pub(super) fn text_or_empty(&mut self, name: &'static str) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(node) if node.members.is_empty() => Ok(node.value),
            Some(_) => {
                let name = self.full(name);
                Err(Fault::new(
                    "UnknownParameter",
                    format!("The parameter {name} is one value; leave out what is behind its name"),
                ))
            }
        }
    }

    /// A text that is not empty.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>> {
        Ok(self.text_or_empty(name)?.filter(|text| !text.is_empty()))
    }

    pub(super) fn needed(&mut self, name: &'static str) -> Result<String> {
        let full = self.full(name);
        self.text(name)?.ok_or_else(|| Fault::missing(&full))
    }

    pub(super) fn flag(&mut self, name: &'static str) -> Result<Option<bool>> {
        let full = self.full(name);
        let read = |text: String| match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(Fault::value(format!(
                "Invalid value '{text}' for {full}; use true or false"
            ))),
        };
        self.text(name)?.map(read).transpose()
    }

    pub(super) fn number(&mut self, name: &'static str) -> Result<Option<i64>> {
        let full = self.full(name);
        let read = |text: String| {
            text.parse().map_err(|_| {
                Fault::value(format!("Invalid value '{text}' for {full}; use a number"))
            })
        };
        self.text(name)?.map(read).transpose()
    }

    /// The texts of `Name.1`, `Name.2`, …; empty ones too.
    pub(super) fn texts_or_empty(&mut self, name: &'static str) -> Result<Vec<String>> {
        let full = self.full(name);
        let Some(node) = self.take(name) else {
            return Ok(Vec::new());
        };
        let refuse = || {
            let why = format!("The parameter {full} is a list: write {full}.1, {full}.2 and so on");
            Fault::new("InvalidParameterValue", why)
        };
        if node.value.is_some_and(|value| !value.is_empty()) {
            return Err(refuse());
        }
        let texts = node.members.into_iter().map(|(step, node)| match step {
            Step::Index(_) if node.members.is_empty() => Ok(node.value.unwrap_or_default()),
            _ => Err(refuse()),
        });
        texts.collect()
    }

    pub(super) fn texts(&mut self, name: &'static str) -> Result<Vec<String>> {
        let mut texts = self.texts_or_empty(name)?;
        texts.retain(|text| !text.is_empty());
        Ok(texts)
    }

    /// What is read of each of `Name.1.…`, `Name.2.…`.
    pub(super) fn each<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let full = self.full(name);
        let Some(node) = self.take(name) else {
            return Ok(Vec::new());
        };
        let refuse = || {
            let why = format!("The parameter {full} is a list: write {full}.1.… and so on");
            Fault::new("InvalidParameterValue", why)
        };
        if node.value.is_some_and(|value| !value.is_empty()) {
            return Err(refuse());
        }
        let mut all = Vec::new();
        for (step, node) in node.members {
            let Step::Index(index) = step else {
                return Err(refuse());
            };
            let mut below = Self {
                path: format!("{full}.{index}."),
                members: node.members,
                asked: Vec::new(),
            };
            all.push(read(&mut below)?);
            below.done()?;
        }
        Ok(all)
    }

    /// What is read of `Name.…`, if anything is there.
    pub(super) fn below<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<Option<T>> {
        let full = self.full(name);
        let Some(node) = self.take(name).filter(|node| !is_blank(node)) else {
            return Ok(None);
        };
        let mut below = Self {
            path: format!("{full}."),
            members: node.members,
            asked: Vec::new(),
        };
        let read = read(&mut below)?;
        below.done()?;
        Ok(Some(read))
    }

    /// Removes fields that this server ignores.
    pub(super) fn ignore(&mut self, names: &[&'static str]) {
        for name in names {
            self.take(name);
        }
    }

    /// What tells these fields from others.
    pub(super) fn digest(&self) -> String {
        let mut said: Vec<(String, &str)> = Vec::new();
        collect(&self.members, "", &mut said);
        let hash = Sha256::digest(format!("{said:?}"));
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Takes all there is.
    pub(super) fn clear(&mut self) {
        self.members.clear();
    }

    /// Refuses what was not taken.
    pub(super) fn done(&self) -> Result<()> {
        let Some((step, node)) = self.members.iter().find(|(_, node)| !is_blank(node)) else {
            return Ok(());
        };
        let mut name = self.full(&spell(step));
        let mut below = node;
        while below.value.is_none()
            && let Some((step, node)) = below.members.first_key_value()
        {
            name = format!("{name}.{}", spell(step));
            below = node;
        }
        let known = closest(&spell(step), self.asked.iter().copied());
        let hint = match known {
            Some(known) => format!("; {}{known} is", self.path),
            None => String::new(),
        };
        let message = format!("The parameter {name} is not recognized{hint}");
        Err(Fault::new("UnknownParameter", message))
    }
}

/// All values with their names, in order. Blank ones are as good as none.
fn collect<'a>(members: &'a BTreeMap<Step, Node>, path: &str, said: &mut Vec<(String, &'a str)>) {
    for (step, node) in members {
        let name = format!("{path}.{}", spell(step));
        if let Some(value) = node.value.as_deref().filter(|value| !value.is_empty()) {
            said.push((name.clone(), value));
        }
        collect(&node.members, &name, said);
    }
}

/// Whether nothing is said there.
fn is_blank(node: &Node) -> bool {
    node.value.as_ref().is_none_or(String::is_empty) && node.members.values().all(is_blank)
}

fn spell(step: &Step) -> String {
    match step {
        Step::Index(index) => index.to_string(),
        Step::Name(name) => name.clone(),
    }
}

fn read_step(step: &str) -> Result<Step> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if step.is_empty() || step.len() > LONGEST_STEP || !step.bytes().all(known) {
        let shown: String = step.chars().take(LONGEST_STEP).collect();
        return Err(malformed(format!(
            "{shown:?} is no part of a parameter's name"
        )));
    }
    if !step.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Step::Name(step.to_owned()));
    }
    match step.parse() {
        Ok(index) if step.len() <= MOST_DIGITS => Ok(Step::Index(index)),
        _ => Err(malformed(format!(
            "The index {step} of a parameter is too large"
        ))),
    }
}

/// Decodes one half of a field, or says that it is no text.
fn decode(half: &[u8]) -> Result<String> {
    let spaced: Vec<u8> = half
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    let decoded = percent_encoding::percent_decode(&spaced).decode_utf8();
    let decoded = decoded.map_err(|_| malformed("A parameter is not UTF-8"))?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(form: &str) -> Params {
        Params::parse(form.as_bytes()).unwrap()
    }

    fn refused(form: &[u8]) -> Fault {
        Params::parse(form).unwrap_err()
    }

    #[test]
    fn lists_and_structures_are_taken_in_the_order_of_their_numbers() {
        let mut params = parse("P.10.C=z&P.2.C=a%2Fb&P.2.D=x+y&G.1=one&G.3=three&Flag=true&N=-1");
        let read = params.each("P", |p| Ok((p.text("C")?, p.text("D")?)));
        let text = |text: &str| Some(text.to_owned());
        let wanted = vec![(text("a/b"), text("x y")), (text("z"), None)];
        assert_eq!(read.unwrap(), wanted);
        assert_eq!(params.texts("G").unwrap(), ["one", "three"]);
        assert_eq!(params.flag("Flag"), Ok(Some(true)));
        assert_eq!(params.number("N"), Ok(Some(-1)));
        assert_eq!(params.done(), Ok(()));
    }

    #[test]
    fn an_empty_value_is_none() {
        let mut params = parse("A=&B.1=&C.1.D=&Left=");
        assert_eq!(params.text("A"), Ok(None));
        assert_eq!(params.texts("B"), Ok(vec![]));
        assert_eq!(params.each("C", |p| p.text("D")), Ok(vec![None]));
        assert_eq!(params.done(), Ok(()));
    }

    #[test]
    fn what_nobody_takes_is_refused_with_what_was_perhaps_meant() {
        let mut params = parse("GroupNam=a");
        assert_eq!(params.text("GroupName"), Ok(None));
        let fault = params.done().unwrap_err();
        assert_eq!(fault.code, "UnknownParameter");
        let wanted = "The parameter GroupNam is not recognized; GroupName is";
        assert_eq!(fault.message, wanted);
        let mut params = parse("P.1.Q.2.X=1");
        let fault = params.each("P", |_| Ok(())).unwrap_err();
        assert_eq!(fault.message, "The parameter P.1.Q.2.X is not recognized");
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for form in [
            &b"a=\xff"[..],
            b"a=%ff",
            b"a..b=1",
            b"=1",
            b"a.1.2.3.4.5.6.7.8=1",
            b"a.9999999=1",
            b"a=1&a=2",
            b"a b=1",
        ] {
            assert_eq!(refused(form).code, "MalformedQueryString");
        }
        let many = "a.1=&".repeat(MOST_FIELDS + 1);
        assert_eq!(refused(many.as_bytes()).code, "MalformedQueryString");
    }

    #[test]
    fn a_list_is_no_value_and_a_value_no_list() {
        assert!(parse("A.1=x").text("A").is_err());
        assert!(parse("A=x").texts("A").is_err());
        assert!(parse("A.B=x").texts("A").is_err());
        assert!(parse("A=x").each("A", |_| Ok(())).is_err());
        assert!(parse("A=maybe").flag("A").is_err());
        assert!(parse("A=1x").number("A").is_err());
    }
}
