//! The names and ids of the model, parsed into what cannot be wrong.
//!
//! A name that exists is spelt with the characters AWS allows and is short enough for every place
//! it is shown or stored. Whether it refers to anything is for [`super::change`] to know.

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest name or description, in characters; all of them are ASCII.
pub const MAX_TEXT: usize = 255;

/// AWS's set for the names of groups and for descriptions, besides letters and digits.
const PUNCTUATION: &str = " ._-:/()#,@[]+=&;{}!$*";

/// A prefix that AWS's ids own, so that an id is never mistaken for a name.
const GROUP_ID_PREFIX: &str = "sg-";
const RULE_ID_PREFIX: &str = "sgr-";
const PREFIX_LIST_ID_PREFIX: &str = "pl-";

/// Hexadecimal digits of an id.
const ID_DIGITS: usize = 17;

/// The longest name that Linux gives a device: `IFNAMSIZ` without its zero.
const MAX_DEVICE: usize = 15;

/// The longest name of an entry that says which devices it matches.
const MAX_ENTRY: usize = 63;

/// Why a text is no name, id or description.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is left after trimming.
    #[error("a {what} may not be empty; give it 1 to {MAX_TEXT} characters")]
    Empty {
        /// What was to be named.
        what: &'static str,
    },
    /// More characters than AWS takes.
    #[error("a {what} of {length} characters is too long; use at most {MAX_TEXT}")]
    TooLong {
        /// What was to be named.
        what: &'static str,
        /// Its length in characters.
        length: usize,
    },
    /// A character outside AWS's set.
    #[error(
        "a {what} may not contain {character:?}; use letters a-z and A-Z, digits, spaces and \
         ._-:/()#,@[]+=&;{{}}!$*"
    )]
    Character {
        /// What was to be named.
        what: &'static str,
        /// The first character that is refused.
        character: char,
    },
    /// The start is that of an id.
    #[error("a {what} may not start with \"{prefix}\", which is how ids start; choose another")]
    LooksLikeId {
        /// What was to be named.
        what: &'static str,
        /// The reserved start.
        prefix: &'static str,
    },
    /// Not an id.
    #[error("{text:?} is not a {what}; it is \"{prefix}\" and {ID_DIGITS} hexadecimal digits")]
    Id {
        /// What was to be identified.
        what: &'static str,
        /// How such ids start.
        prefix: &'static str,
        /// The text as given.
        text: String,
    },
    /// Not a name that Linux gives an interface.
    #[error(
        "{text:?} is not an interface name; Linux names have 1 to 15 bytes and no \"/\", \
         \":\", spaces or control characters"
    )]
    Interface {
        /// The text as given.
        text: String,
    },
    /// Not a name for an entry that matches devices.
    #[error(
        "{text:?} is not the name of an entry with match; give it 1 to {MAX_ENTRY} bytes and no \"/\", \
         \":\", spaces or control characters"
    )]
    Entry {
        /// The text as given.
        text: String,
    },
    /// The loopback interface.
    #[error(
        "\"lo\" cannot be protected, because local services talk over it; name the interface that \
         faces the network"
    )]
    Loopback,
}

/// Says whether a text may describe a group or a rule; the empty text may.
pub fn check_description(text: &str) -> Result<(), NameError> {
    check_text("description", text)
}

/// Says whether a character may stand in a name or a description.
pub fn is_text(character: char) -> bool {
    character.is_ascii_alphanumeric() || PUNCTUATION.contains(character)
}

fn check_text(what: &'static str, text: &str) -> Result<(), NameError> {
    if let Some(character) = text.chars().find(|character| !is_text(*character)) {
        return Err(NameError::Character { what, character });
    }
    match text.len() {
        length if length > MAX_TEXT => Err(NameError::TooLong { what, length }),
        _ => Ok(()),
    }
}

fn parse_name(
    what: &'static str,
    reserved: Option<&'static str>,
    text: &str,
) -> Result<Box<str>, NameError> {
    let name = text.trim_matches(' ');
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    check_text(what, name)?;
    if let Some(prefix) = reserved
        && name
            .get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    {
        return Err(NameError::LooksLikeId { what, prefix });
    }
    Ok(name.into())
}

fn compare_ignoring_case(a: &str, b: &str) -> Ordering {
    a.bytes()
        .map(|b| b.to_ascii_lowercase())
        .cmp(b.bytes().map(|b| b.to_ascii_lowercase()))
}

macro_rules! written_as_text {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $reserved:expr) => {
        $(#[$doc])*
        ///
        /// Compared without regard to ASCII case; the spelling given first is kept.
        #[derive(Clone)]
        pub struct $type(Box<str>);

        impl $type {
            /// The name as it was spelt.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                parse_name($what, $reserved, text).map(Self)
            }
        }

        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.0.eq_ignore_ascii_case(&other.0)
            }
        }

        impl Eq for $type {}

        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                compare_ignoring_case(&self.0, &other.0)
            }
        }

        impl Hash for $type {
            fn hash<H: Hasher>(&self, state: &mut H) {
                for byte in self.0.bytes() {
                    state.write_u8(byte.to_ascii_lowercase());
                }
                state.write_u8(0xff);
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        written_as_text!($type);
    };
}

name!(
    /// Names a security group within its VPC.
    GroupName, "group name", Some(GROUP_ID_PREFIX)
);
name!(
    /// Names a policy domain.
    VpcName, "VPC name", None
);
name!(
    /// Names a prefix list within its VPC.
    PrefixListName, "prefix list name", Some(PREFIX_LIST_ID_PREFIX)
);

impl GroupName {
    /// `default`, the group that every VPC has.
    pub fn default_group() -> Self {
        Self("default".into())
    }

    /// Says whether this is the group that every VPC has.
    pub fn is_default(&self) -> bool {
        self.0.eq_ignore_ascii_case("default")
    }
}

impl Default for VpcName {
    /// `default`, the VPC meant where none is named.
    fn default() -> Self {
        Self("default".into())
    }
}

/// Names a protected interface.
///
/// An entry of a policy without `match` has the name of its device, case and all; never `lo`. An entry
/// that matches devices has a name of its own, and each of its devices is an interface called
/// `ENTRY/DEVICE`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(Box<str>);

impl InterfaceName {
    /// The name of a device that an entry matches. What no name may have is shown as `?`.
    pub fn of_device(entry: &Self, device: &str) -> Self {
        let device = device.replace(is_refused, "?");
        Self(format!("{}/{device}", entry.entry()).into())
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the policy's entry.
    pub fn entry(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(entry, _)| entry)
    }

    /// The name of the device, where the entry matches devices.
    pub fn device(&self) -> Option<&str> {
        self.0.split_once('/').map(|(_, device)| device)
    }

    /// Whether it is what a user means by a name: the whole, the entry with all its devices, or the
    /// device alone.
    pub fn is_meant_by(&self, asked: &Self) -> bool {
        let asked = asked.as_str();
        self.as_str() == asked || self.entry() == asked || self.device() == Some(asked)
    }

    /// Says whether a device can have this name.
    pub fn check_device(&self) -> Result<(), NameError> {
        match is_device(&self.0) {
            true => Ok(()),
            false => Err(NameError::interface(&self.0)),
        }
    }

    /// Says whether an entry that matches devices can have this name.
    pub fn check_entry(&self) -> Result<(), NameError> {
        match is_entry(&self.0) {
            true => Ok(()),
            false => Err(NameError::Entry {
                text: self.0.as_ref().to_owned(),
            }),
        }
    }
}

/// Entries are found by their names' text.
impl Borrow<str> for InterfaceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Follows the kernel's `dev_valid_name`, which also refuses `:`.
fn is_device(text: &str) -> bool {
    text.len() <= MAX_DEVICE && is_entry(text)
}

fn is_entry(text: &str) -> bool {
    (1..=MAX_ENTRY).contains(&text.len())
        && !matches!(text, "." | "..")
        && !text.contains(is_refused)
}

fn is_refused(c: char) -> bool {
    c == '/' || c == ':' || c.is_whitespace() || c.is_control()
}

impl NameError {
    fn interface(text: &str) -> Self {
        Self::Interface {
            text: text.chars().take(MAX_TEXT).collect(),
        }
    }
}

impl FromStr for InterfaceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_name = match text.split_once('/') {
            Some((entry, device)) => is_entry(entry) && is_device(device),
            None => is_entry(text),
        };
        match (is_name, text) {
            (false, _) => Err(NameError::interface(text)),
            (true, "lo") => Err(NameError::Loopback),
            (true, text) => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

written_as_text!(InterfaceName);

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $what:literal, $prefix:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(u128);

        impl $type {
            /// A fresh id; 68 random bits make a clash implausible.
            pub fn random() -> Self {
                Self(rand::random::<u128>() >> (128 - 4 * ID_DIGITS))
            }

            /// The 68 bits.
            pub fn number(self) -> u128 {
                self.0
            }

            /// The id of these bits; `None` for more than 68.
            pub fn from_number(number: u128) -> Option<Self> {
                (number >> (4 * ID_DIGITS) == 0).then_some(Self(number))
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                parse_id($prefix, text).map(Self).ok_or_else(|| NameError::Id {
                    what: $what,
                    prefix: $prefix,
                    text: text.chars().take(MAX_TEXT).collect(),
                })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!("{}{:0width$x}", $prefix, self.0, width = ID_DIGITS))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        /// Text for people's formats; a bare number where a million of them are stored.
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = Cow::<str>::deserialize(deserializer)?;
                    return text.parse().map_err(de::Error::custom);
                }
                let number = u128::deserialize(deserializer)?;
                Self::from_number(number).ok_or_else(|| de::Error::custom("an id has 68 bits"))
            }
        }
    };
}

id!(
    /// Identifies a group for as long as it lives: `sg-` and 17 hexadecimal digits.
    GroupId, "group id", GROUP_ID_PREFIX
);
id!(
    /// Identifies a rule for as long as it lives: `sgr-` and 17 hexadecimal digits.
    RuleId, "rule id", RULE_ID_PREFIX
);

id!(
    /// Identifies a VPC for as long as it lives: `vpc-` and 17 hexadecimal digits.
    VpcId, "VPC id", "vpc-"
);
id!(
    /// Identifies a prefix list for as long as it lives: `pl-` and 17 hexadecimal digits.
    PrefixListId, "prefix list id", PREFIX_LIST_ID_PREFIX
);
id!(
    /// Identifies an interface for as long as it is attached: `eni-` and 17 hexadecimal digits.
    InterfaceId, "interface id", "eni-"
);
id!(
    /// Identifies a subnet for as long as it lives: `subnet-` and 17 hexadecimal digits.
    SubnetId, "subnet id", "subnet-"
);

fn parse_id(prefix: &str, text: &str) -> Option<u128> {
    let digits = text.strip_prefix(prefix)?;
    // `from_str_radix` alone would take a sign.
    if digits.len() != ID_DIGITS || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    fn sentence<T: FromStr<Err = NameError> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().expect_err("refused").to_string()
    }

    #[test]
    fn names_differ_by_more_than_case_and_keep_their_spelling() {
        let web: GroupName = " Web ".parse().unwrap();
        assert_eq!(web.as_str(), "Web");
        assert_eq!(web, "wEB".parse().unwrap());
        assert_ne!(web, "Web2".parse().unwrap());
        assert!(HashSet::from([web.clone()]).contains(&"WEB".parse::<GroupName>().unwrap()));
        assert!(BTreeSet::from([web]).contains(&"WEB".parse::<GroupName>().unwrap()));
    }

    #[test]
    fn names_sort_by_their_lower_case_form() {
        let sorted: BTreeSet<GroupName> = ["b", "A", "a1", "B2", "_"]
            .iter()
            .map(|n| n.parse().unwrap())
            .collect();
        let sorted: Vec<_> = sorted.iter().map(GroupName::as_str).collect();
        assert_eq!(sorted, ["_", "A", "a1", "b", "B2"]);
    }

    #[test]
    fn each_refused_name_is_told_what_would_be_right() {
        assert_eq!(
            sentence::<GroupName>("  "),
            "a group name may not be empty; give it 1 to 255 characters"
        );
        assert_eq!(
            sentence::<GroupName>(&"x".repeat(256)),
            "a group name of 256 characters is too long; use at most 255"
        );
        assert_eq!(
            sentence::<VpcName>("büro"),
            "a VPC name may not contain 'ü'; use letters a-z and A-Z, digits, spaces and \
             ._-:/()#,@[]+=&;{}!$*"
        );
        assert_eq!(
            sentence::<GroupName>("SG-1"),
            "a group name may not start with \"sg-\", which is how ids start; choose another"
        );
        assert_eq!(
            sentence::<PrefixListName>("pl-office"),
            "a prefix list name may not start with \"pl-\", which is how ids start; choose another"
        );
        let long: InterfaceName = "enp0s31f6.10000x".parse().unwrap();
        assert_eq!(
            long.check_device().unwrap_err().to_string(),
            "\"enp0s31f6.10000x\" is not an interface name; Linux names have 1 to 15 bytes and no \
             \"/\", \":\", spaces or control characters"
        );
        assert_eq!(
            sentence::<InterfaceName>("lo"),
            "\"lo\" cannot be protected, because local services talk over it; name the interface \
             that faces the network"
        );
        assert_eq!(
            sentence::<RuleId>("sgr-+123456789abcdef0"),
            "\"sgr-+123456789abcdef0\" is not a rule id; it is \"sgr-\" and 17 hexadecimal digits"
        );
    }

    #[test]
    fn the_longest_name_is_taken() {
        let name: GroupName = "x".repeat(255).parse().unwrap();
        assert_eq!(name.as_str().len(), 255);
    }

    #[test]
    fn interface_names_follow_the_kernel() {
        for good in ["eth0", "a", "wg-office.1234", "Ünï", "enp0s31f6.10000"] {
            assert!(good.parse::<InterfaceName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a b",
            "a\tb",
            "a:1",
            "a\u{7f}",
            "a/",
            "/a",
            "a/b/c",
            "a/0123456789abcdef",
            &"e".repeat(64),
        ] {
            assert!(bad.parse::<InterfaceName>().is_err(), "{bad:?}");
        }
        let (lower, upper): (InterfaceName, InterfaceName) =
            ("eth0".parse().unwrap(), "ETH0".parse().unwrap());
        assert_ne!(lower, upper);
    }

    #[test]
    fn a_matched_device_is_named_behind_its_entry() {
        let entry: InterfaceName = "eni-0123456789abcdef0".parse().unwrap();
        let name = InterfaceName::of_device(&entry, "vnet3");
        assert_eq!(name.as_str(), "eni-0123456789abcdef0/vnet3");
        assert_eq!(
            (name.entry(), name.device()),
            (entry.as_str(), Some("vnet3"))
        );
        assert_eq!((entry.entry(), entry.device()), (entry.as_str(), None));
        let renamed = InterfaceName::of_device(&name, "vnet4");
        assert_eq!(renamed.as_str(), "eni-0123456789abcdef0/vnet4");
    }

    #[test]
    fn an_id_reads_back_as_it_prints() {
        let id = RuleId::random();
        assert_eq!(id.to_string().len(), "sgr-".len() + 17);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(
            "sg-0000000000000000f"
                .parse::<GroupId>()
                .unwrap()
                .to_string()
                .len(),
            20
        );
        assert!("sgr-0123456789abcdef0".parse::<GroupId>().is_err());
        assert_ne!(RuleId::random(), RuleId::random());
    }

    #[test]
    fn a_description_may_be_empty_but_not_multi_line() {
        assert_eq!(check_description(""), Ok(()));
        assert_eq!(
            check_description("SSH (port 22): office & home; {x}!"),
            Ok(())
        );
        assert!(check_description("a\nb").is_err());
        assert!(check_description(&"y".repeat(256)).is_err());
    }
}
