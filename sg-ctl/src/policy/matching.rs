//! Which devices an entry of the policy is for, where it does not name one.
//!
//! An entry may be there before its devices are. A device gets what an entry says for as long as it
//! matches the entry itself, so that one that comes later under the same name inherits nothing.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use super::mac::{MacAddress, MacError};

/// The longest text that the kernel keeps as the alias of a device: `IFALIASZ` without its zero.
const MAX_ALIAS: usize = 255;
/// The longest name of a device.
const MAX_NAME: usize = 15;

/// What a device must be like. At least one part is there, and all that are must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceMatch {
    /// What it is called.
    pub name: Option<TextPattern>,
    /// Its link-layer address.
    pub mac: Option<MacPattern>,
    /// The alias that an administrator or a manager of guests has given it (`ip link set alias`).
    pub alias: Option<TextPattern>,
}

/// A device as far as entries can match it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What it is called.
    pub name: &'a str,
    /// The link-layer addresses that it is known by.
    pub macs: &'a [[u8; 6]],
    /// The link-layer address of the guest behind it, as far as that can be told from its own: all
    /// but the first byte.
    pub guest: Option<[u8; 5]>,
    /// Its alias, if it has one.
    pub alias: Option<&'a str>,
}

/// How exact an entry is; where several match one device, it belongs to the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exactness {
    whole_mac: bool,
    whole_alias: bool,
    whole_name: bool,
    characters: usize,
}

/// A text with `*` for any characters and `?` for any one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TextPattern(Box<str>);

/// The first bytes of a link-layer address, or all of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacPattern(Vec<u8>);

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// No device has such a name.
    #[error(
        "{0:?} matches no name of a device; write one like vnet*, with 1 to {MAX_NAME} bytes and no \
         \"/\", \":\", spaces or control characters"
    )]
    Name(String),
    /// No device has such an alias.
    #[error(
        "{0:?} matches no alias of a device; write 1 to {MAX_ALIAS} bytes without control characters"
    )]
    Alias(String),
    /// Neither an address nor the beginning of one.
    #[error(
        "{0:?} is not a MAC address; write one like 52:54:00:12:34:56, or 52:54:00:* for all that \
         begin so"
    )]
    Mac(String),
    /// An address that no device has.
    #[error(transparent)]
    NoDevice(#[from] MacError),
    /// Not a criterion with a value.
    #[error("{0:?} is no criterion; write name=vnet*, mac=52:54:00:12:34:56 or alias=TEXT")]
    Criterion(String),
    /// One criterion twice.
    #[error("has {0} twice in its match; each may be there once")]
    Twice(&'static str),
}

impl DeviceMatch {
    /// Whether no part is there.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a device is such a one. The loopback device never is.
    pub fn matches(&self, device: Candidate<'_>) -> bool {
        let alias = self.alias.as_ref();
        self.may_be_called(device.name)
            && alias.is_none_or(|pattern| device.alias.is_some_and(|alias| pattern.matches(alias)))
            && self
                .mac
                .as_ref()
                .is_none_or(|pattern| pattern.matches(device))
    }

    /// Whether a device of this name may be such a one.
    pub fn may_be_called(&self, device: &str) -> bool {
        let name = self.name.as_ref();
        device != "lo" && name.is_none_or(|pattern| pattern.matches(device))
    }

    /// How exact it is.
    pub fn exactness(&self) -> Exactness {
        let whole =
            |pattern: &Option<TextPattern>| pattern.as_ref().is_some_and(TextPattern::is_whole);
        let characters = |pattern: &Option<TextPattern>| {
            let characters = pattern.iter().flat_map(|pattern| pattern.0.chars());
            characters.filter(|c| !is_wildcard(*c)).count()
        };
        let mac = self.mac.as_ref();
        Exactness {
            whole_mac: mac.is_some_and(MacPattern::is_whole),
            whole_alias: whole(&self.alias),
            whole_name: whole(&self.name),
            characters: characters(&self.name)
                + characters(&self.alias)
                + mac.map_or(0, |mac| 2 * mac.0.len()),
        }
    }

    /// Adds a criterion like `name=vnet*`.
    pub fn add(&mut self, criterion: &str) -> Result<(), MatchError> {
        let unknown = || MatchError::Criterion(criterion.to_owned());
        let (key, value) = criterion.split_once('=').ok_or_else(unknown)?;
        match key {
            "name" => put(&mut self.name, TextPattern::of_name(value)?, "name"),
            "mac" => put(&mut self.mac, value.parse()?, "mac"),
            "alias" => put(&mut self.alias, TextPattern::of_alias(value)?, "alias"),
            _ => Err(unknown()),
        }
    }
}

fn put<T>(to: &mut Option<T>, value: T, what: &'static str) -> Result<(), MatchError> {
    match to.replace(value) {
        None => Ok(()),
        Some(_) => Err(MatchError::Twice(what)),
    }
}

/// Orders entries that match one device: the most exact first, then by their names.
pub fn precedence<N: Ord>(matching: &DeviceMatch, name: N) -> (Reverse<Exactness>, N) {
    (Reverse(matching.exactness()), name)
}

/// As people read it.
impl fmt::Display for DeviceMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_ref().map(|name| format!("name {name}"));
        let mac = self.mac.as_ref().map(|mac| format!("mac {mac}"));
        let alias = self.alias.as_ref().map(|alias| format!("alias {alias}"));
        let parts: Vec<String> = [name, mac, alias].into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}

fn is_wildcard(c: char) -> bool {
    matches!(c, '*' | '?')
}

impl TextPattern {
    /// A pattern for names of devices.
    pub fn of_name(text: &str) -> Result<Self, MatchError> {
        let refused = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        match (1..=MAX_NAME).contains(&text.len()) && !text.contains(refused) && text != "lo" {
            true => Ok(Self(text.into())),
            false => Err(MatchError::Name(shortened(text))),
        }
    }

    /// A pattern for aliases.
    pub fn of_alias(text: &str) -> Result<Self, MatchError> {
        match (1..=MAX_ALIAS).contains(&text.len()) && !text.contains(char::is_control) {
            true => Ok(Self(text.into())),
            false => Err(MatchError::Alias(shortened(text))),
        }
    }

    /// The pattern as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_whole(&self) -> bool {
        !self.0.contains(is_wildcard)
    }

    /// Whether all of a text is so. Takes as many steps as the product of both lengths at most.
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text): (Vec<char>, Vec<char>) =
            (self.0.chars().collect(), text.chars().collect());
        let (mut at, mut in_text) = (0, 0);
        // Where the last `*` is, and the text that it has taken until now.
        let mut star: Option<(usize, usize)> = None;
        while let Some(c) = text.get(in_text) {
            match (pattern.get(at), star) {
                (Some('*'), _) => {
                    star = Some((at, in_text));
                    at += 1;
                }
                (Some(wanted), _) if *wanted == '?' || wanted == c => {
                    at += 1;
                    in_text += 1;
                }
                (_, Some((before, taken))) => {
                    star = Some((before, taken + 1));
                    at = before + 1;
                    in_text = taken + 1;
                }
                (_, None) => return false,
            }
        }
        pattern.iter().skip(at).all(|rest| *rest == '*')
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

impl fmt::Display for TextPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl MacPattern {
    fn is_whole(&self) -> bool {
        self.0.len() == 6
    }

    fn matches(&self, device: Candidate<'_>) -> bool {
        let is_behind = |guest: [u8; 5]| match self.0.as_slice() {
            [_, rest @ ..] if !rest.is_empty() => guest.starts_with(rest),
            _ => false,
        };
        device.macs.iter().any(|mac| mac.starts_with(&self.0))
            || device.guest.is_some_and(is_behind)
    }
}

impl FromStr for MacPattern {
    type Err = MatchError;

    fn from_str(text: &str) -> Result<Self, MatchError> {
        let wrong = || MatchError::Mac(shortened(text));
        let mut parts: Vec<&str> = text.split([':', '-']).collect();
        let has_rest = parts.last() == Some(&"*");
        while parts.last() == Some(&"*") {
            parts.pop();
        }
        if !has_rest {
            return Ok(Self(
                text.parse::<MacAddress>()
                    .map_err(|error| match error {
                        MacError::Form { .. } => wrong(),
                        no_device @ MacError::NoDevice(_) => no_device.into(),
                    })?
                    .bytes()
                    .to_vec(),
            ));
        }
        let byte =
            |part: &&str| match part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()) {
                true => u8::from_str_radix(part, 16).ok(),
                false => None,
            };
        let bytes: Option<Vec<u8>> = parts.iter().map(byte).collect();
        let is_prefix = |bytes: &Vec<u8>| {
            (1..6).contains(&bytes.len()) && bytes.first().is_some_and(|first| first & 1 == 0)
        };
        bytes.filter(is_prefix).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for MacPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (byte, separator) in self.0.iter().zip(["", ":", ":", ":", ":", ":"]) {
            write!(f, "{separator}{byte:02x}")?;
        }
        match self.is_whole() {
            true => Ok(()),
            false => f.write_str(":*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(criteria: &[&str]) -> DeviceMatch {
        let mut matching = DeviceMatch::default();
        for criterion in criteria {
            matching.add(criterion).unwrap();
        }
        matching
    }

    const DEVICE: Candidate<'_> = Candidate {
        name: "vnet3",
        macs: &[[0xfe, 0x54, 0, 1, 2, 3]],
        guest: Some([0x54, 0, 1, 2, 3]),
        alias: Some("web 1"),
    };

    #[test]
    fn all_criteria_must_hold() {
        for matching in [
            &["name=vnet*"][..],
            &["name=vnet3"],
            &["name=v?et*3"],
            &["name=*"],
            &["mac=52:54:00:01:02:03"],
            &["mac=52-54-00-*"],
            &["mac=52:54:00:*:*:*"],
            &["alias=web 1"],
            &["alias=web*", "name=vnet*", "mac=fe:*"],
        ] {
            assert!(of(matching).matches(DEVICE), "{matching:?}");
        }
        for other in [
            &["name=vnet"][..],
            &["name=vnet?3"],
            &["name=net*"],
            &["name=*vnet33"],
            &["mac=52:54:00:01:02:04"],
            &["mac=52:54:01:*"],
            &["mac=52:*"],
            &["alias=web"],
            &["alias=web*", "name=tap*"],
        ] {
            assert!(!of(other).matches(DEVICE), "{other:?}");
        }
        let unnamed = Candidate {
            alias: None,
            ..DEVICE
        };
        assert!(!of(&["alias=*"]).matches(unnamed));
        let loopback = Candidate {
            name: "lo",
            ..DEVICE
        };
        assert!(!of(&["name=*"]).matches(loopback));
    }

    #[test]
    fn a_pattern_of_many_stars_takes_no_time() {
        let pattern = TextPattern::of_alias(&"*a".repeat(100)).unwrap();
        assert!(!pattern.matches(&format!("{}b", "a".repeat(200))));
    }

    #[test]
    fn the_more_exact_entry_comes_first() {
        let order = [
            &["mac=52:54:00:01:02:03", "name=vnet*"][..],
            &["mac=52:54:00:01:02:03"],
            &["alias=web 1"],
            &["name=vnet3"],
            &["mac=52:54:00:*"],
            &["name=vnet*"],
            &["name=v*"],
            &["name=*"],
        ];
        let exactness: Vec<_> = order.map(|each| of(each).exactness()).into();
        let mut sorted = exactness.clone();
        sorted.sort_by_key(|each| Reverse(*each));
        assert_eq!(exactness, sorted);
        assert!(precedence(&of(&["name=a*"]), "a") < precedence(&of(&["name=b*"]), "b"));
    }

    #[test]
    fn a_mac_pattern_prints_as_it_is_written() {
        for text in ["52:54:00:*", "52:54:00:01:02:03", "00:*"] {
            assert_eq!(text.parse::<MacPattern>().unwrap().to_string(), text);
        }
        let told = |text: &str| text.parse::<MacPattern>().unwrap_err().to_string();
        for wrong in [
            "*",
            "",
            "52:54",
            "5:*",
            "52:*:00:*",
            "01:*",
            "52:54:00:01:02:03:*",
        ] {
            assert!(told(wrong).contains("is not a MAC address"), "{wrong}");
        }
        assert!(told("ff:ff:ff:ff:ff:ff").contains("no device sends from it"));
    }

    #[test]
    fn what_matches_nothing_is_refused() {
        let told = |criterion: &str| {
            DeviceMatch::default()
                .add(criterion)
                .unwrap_err()
                .to_string()
        };
        for wrong in [
            "name=",
            "name=a b",
            "name=vnet/3",
            "name=0123456789abcdef",
            "name=lo",
        ] {
            assert!(
                told(wrong).contains("matches no name of a device"),
                "{wrong}"
            );
        }
        assert!(told("alias=").contains("matches no alias"));
        assert!(told("vnet*").contains("is no criterion"));
        assert!(told("kind=tap").contains("is no criterion"));
        let twice = of(&["name=a*"]).add("name=b*").unwrap_err();
        assert_eq!(twice, MatchError::Twice("name"));
    }
}
