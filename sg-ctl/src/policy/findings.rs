//! What is wrong with a policy: every finding at once, each with what would be right.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use super::file::TextProblem;
use super::names::{GroupId, GroupName, InterfaceName, NameError, PrefixListName, RuleId, VpcName};
use super::prefix::PrefixError;

/// More findings than anyone reads; the rest is counted.
const MAX_FINDINGS: usize = 1_000;

/// How many findings may look at all names for the one that was meant: a file may have as many names
/// as findings, and each look compares with every one of them.
const MAX_SUGGESTIONS: usize = 20;

/// All that is wrong with a policy, a change or a file; never empty as an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    list: Vec<Finding>,
    omitted: usize,
    source: Option<String>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where in the text it was found, if it came from one.
    pub place: Option<Place>,
    /// What it is about.
    pub subject: Subject,
    /// What is wrong, and what would be right.
    pub problem: Problem,
}

/// A place in a text, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The text itself.
    Text,
    /// A VPC as a whole.
    Vpc(VpcName),
    /// A prefix list.
    PrefixList(VpcName, PrefixListName),
    /// A group as a whole.
    Group(VpcName, GroupName),
    /// One rule of a group.
    Rule(VpcName, GroupName, RuleId),
    /// An interface.
    Interface(VpcName, InterfaceName),
}

/// What a policy may not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The edit is about a VPC that is not there.
    #[error("does not exist; create it first")]
    NoVpc,
    /// The VPC to create is there.
    #[error("exists already; choose another name")]
    VpcExists,
    /// The VPC to delete protects interfaces.
    #[error("is used by {}; detach what uses it first", list("interface", .0))]
    VpcInUse(BTreeSet<InterfaceName>),
    /// The edit is about a group that is not there.
    #[error("does not exist{}", hint(.suggestion, "; create it first"))]
    NoGroup {
        /// A name that was perhaps meant.
        suggestion: Option<GroupName>,
    },
    /// The group to create is there; names do not differ by case alone.
    #[error("exists already (spelt \"{existing}\"); choose another name")]
    GroupExists {
        /// The name as it is spelt.
        existing: GroupName,
    },
    /// Another group has the id.
    #[error("has the id {id} of group \"{other}\"; each group has its own")]
    GroupIdTwice {
        /// The id of both.
        id: GroupId,
        /// The group that has it too.
        other: GroupName,
    },
    /// A VPC without the group that every VPC has.
    #[error("has no group \"default\", which every VPC has; create it")]
    NoDefaultGroup,
    /// `default` was to be deleted.
    #[error("cannot be deleted, because every VPC has it; remove its rules instead")]
    DefaultGroup,
    /// The group to delete has dependents.
    #[error("is still used by {0}; change what uses it first")]
    GroupInUse(Dependents),
    /// The edit is about a rule that is not there.
    #[error("has no rule {0}; list its rules to see their ids")]
    NoRule(RuleId),
    /// Two rules say the same.
    #[error("allows \"{permission}\" twice ({first} and {second}); keep one")]
    RuleTwice {
        /// What both allow.
        permission: String,
        /// One of the two.
        first: RuleId,
        /// The other.
        second: RuleId,
    },
    /// Two rules have one id.
    #[error("has two rules with the id {0}; each rule has its own")]
    RuleIdTwice(RuleId),
    /// A rule or interface names a group that is nowhere.
    #[error("names group \"{name}\", which does not exist{}", hint(.suggestion, "; create it or correct the name"))]
    UnknownGroup {
        /// The name as given.
        name: GroupName,
        /// A name that was perhaps meant.
        suggestion: Option<GroupName>,
    },
    /// A rule or interface names a group of another VPC.
    #[error(
        "names group \"{name}\", which is in VPC \"{other}\"; references never leave a VPC, so \
         create the group here or name its prefixes"
    )]
    GroupElsewhere {
        /// The name as given.
        name: GroupName,
        /// The VPC that has such a group.
        other: VpcName,
    },
    /// A rule names a prefix list that is nowhere.
    #[error("names prefix list \"{name}\", which does not exist{}", hint(.suggestion, "; create it or correct the name"))]
    UnknownPrefixList {
        /// The name as given.
        name: PrefixListName,
        /// A name that was perhaps meant.
        suggestion: Option<PrefixListName>,
    },
    /// A rule names a prefix list of another VPC.
    #[error(
        "names prefix list \"{name}\", which is in VPC \"{other}\"; references never leave a VPC, \
         so create the list here"
    )]
    PrefixListElsewhere {
        /// The name as given.
        name: PrefixListName,
        /// The VPC that has such a list.
        other: VpcName,
    },
    /// The edit is about a prefix list that is not there.
    #[error("does not exist{}", hint(.suggestion, "; create it first"))]
    NoPrefixList {
        /// A name that was perhaps meant.
        suggestion: Option<PrefixListName>,
    },
    /// The prefix list to remove has dependents.
    #[error("is still named by rules of {}; remove those rules first", list("group", .0))]
    PrefixListInUse(BTreeSet<GroupName>),
    /// The edit is about an interface that is not there.
    #[error("is not attached; attach it first")]
    NoInterface,
    /// An interface without groups would have no rules and no place in a VPC.
    #[error("has no group; give it at least one, like \"default\"")]
    NoGroups,
    /// An interface belongs to one VPC at a time.
    #[error("is attached in VPC \"{first}\" and in VPC \"{second}\"; detach it from one of them")]
    InTwoVpcs {
        /// One of the two.
        first: VpcName,
        /// The other.
        second: VpcName,
    },
    /// Nothing says what the guest may send from.
    #[error("protects a guest but has no addresses; list the addresses of the guest")]
    GuestWithoutAddresses,
    /// A VPC knows a guest by its address.
    #[error(
        "has the address {address} of interface \"{other}\"; each guest of a VPC has addresses of its \
         own"
    )]
    AddressTwice {
        /// The address of both.
        address: IpAddr,
        /// The other interface.
        other: InterfaceName,
    },
    /// A host's addresses are read from it.
    #[error(
        "protects this machine, whose addresses are read from the interface; leave addresses out, \
         or set side to guest"
    )]
    AddressesOnHost,
    /// Only guests have link-layer addresses and VLANs of their own.
    #[error(
        "protects this machine and lists {0}, which guests have; leave them out, or set side to guest"
    )]
    GuestOnly(&'static str),
    /// A number that no tag has.
    #[error("lists VLAN {0}; use numbers from 1 to 4094")]
    Vlan(u16),
    /// An entry for every device.
    #[error("has a match that says nothing; give it a name, a mac or an alias")]
    EmptyMatch,
    /// Two entries for the same devices.
    #[error(
        "matches the same devices as entry \"{other}\" of VPC \"{vpc}\"; leave one of the two out"
    )]
    MatchTwice {
        /// The other entry.
        other: InterfaceName,
        /// Its VPC.
        vpc: VpcName,
    },
    /// No pattern for devices.
    #[error(transparent)]
    Match(#[from] super::matching::MatchError),
    /// No link-layer address of a device.
    #[error(transparent)]
    Mac(#[from] super::mac::MacError),
    /// A timeout outside AWS's bounds.
    #[error("has {name} at {seconds} s; use {least} to {most} s")]
    Timeout {
        /// As files spell it.
        name: &'static str,
        /// As given.
        seconds: u32,
        /// The lower bound.
        least: u32,
        /// The upper bound.
        most: u32,
    },
    /// A flow limit that lets nothing through.
    #[error("has max_flows at 0, which admits no tracked flow; use 1 or more, or leave it out")]
    NoFlows,
    /// More EtherTypes than an interface has room for.
    #[error("lists {0} EtherTypes; list at most eight")]
    EthertypeCount(usize),
    /// An EtherType that would carry packets around the rules.
    #[error("lets EtherType {ethertype:#06x} pass unjudged, which is {name}; leave it out{why}")]
    Ethertype {
        /// As given.
        ethertype: u16,
        /// What it is.
        name: &'static str,
        /// Why it may not pass.
        why: &'static str,
    },
    /// A network namespace that cannot be named so.
    #[error("has {0:?} as its network namespace; give a name of `ip netns` or an absolute path")]
    Netns(String),
    /// One of the protocols that have their own kind of rule.
    #[error("has a rule for protocol {number} without its {parts}; call the protocol {name}")]
    ProtocolByNumber {
        /// 1, 6, 17 or 58.
        number: u8,
        /// Its name in files.
        name: &'static str,
        /// What the named kind discriminates by.
        parts: &'static str,
    },
    /// A fault of the text that the policy is read from.
    #[error(transparent)]
    Text(#[from] TextProblem),
    /// A prefix or address that cannot stand there.
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    /// A description or name that cannot be.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Who would be left with nothing if a group went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dependents {
    /// Interfaces in the group.
    pub interfaces: BTreeSet<InterfaceName>,
    /// Other groups with a rule that names it.
    pub groups: BTreeSet<GroupName>,
}

impl Dependents {
    /// Says whether nothing depends on the group.
    pub fn is_empty(&self) -> bool {
        self.interfaces.is_empty() && self.groups.is_empty()
    }
}

impl fmt::Display for Dependents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interfaces = (!self.interfaces.is_empty()).then(|| list("interface", &self.interfaces));
        let groups =
            (!self.groups.is_empty()).then(|| format!("rules of {}", list("group", &self.groups)));
        let parts: Vec<_> = interfaces.into_iter().chain(groups).collect();
        f.write_str(&parts.join(" and "))
    }
}

/// How many names a sentence holds before it says "and N more".
const MAX_LISTED: usize = 10;

fn list<T: fmt::Display>(kind: &str, names: &BTreeSet<T>) -> String {
    let plural = if names.len() == 1 { "" } else { "s" };
    let listed: Vec<_> = names
        .iter()
        .take(MAX_LISTED)
        .map(|name| format!("\"{name}\""))
        .collect();
    let more = match names.len().saturating_sub(MAX_LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{kind}{plural} {}{more}", listed.join(", "))
}

fn hint<T: fmt::Display>(meant: &Option<T>, otherwise: &str) -> String {
    match meant {
        Some(name) => format!("; did you mean \"{name}\"?"),
        None => otherwise.to_owned(),
    }
}

impl Findings {
    /// The findings, in the order of the text if there is one.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.list.iter()
    }

    /// How many there are, those that are not listed included.
    pub fn count(&self) -> usize {
        self.list.len() + self.omitted
    }

    /// Says whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Says whether another finding is worth a look at all names for the one that was meant.
    pub(crate) fn has_few(&self) -> bool {
        self.list.len() < MAX_SUGGESTIONS
    }

    pub(crate) fn add(&mut self, subject: Subject, problem: impl Into<Problem>) {
        self.push(Finding {
            place: None,
            subject,
            problem: problem.into(),
        });
    }

    pub(crate) fn push(&mut self, finding: Finding) {
        if self.list.len() >= MAX_FINDINGS {
            self.omitted += 1;
        } else {
            self.list.push(finding);
        }
    }

    /// Adds what was found in what comes behind.
    pub(crate) fn append(&mut self, behind: Self) {
        behind
            .list
            .into_iter()
            .for_each(|finding| self.push(finding));
        self.omitted += behind.omitted;
    }

    /// Puts the findings of a text into its order, and says which text it is.
    pub(crate) fn of_source(mut self, source: &str) -> Self {
        self.list.sort_by_key(|finding| finding.place);
        self.source = Some(source.to_owned());
        self
    }

    /// Gives a place to the findings that have none, where one is known.
    pub(crate) fn locate(&mut self, place: impl Fn(&Finding) -> Option<Place>) {
        for finding in self
            .list
            .iter_mut()
            .filter(|finding| finding.place.is_none())
        {
            finding.place = place(finding);
        }
    }

    pub(crate) fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }
}

impl std::error::Error for Findings {}

/// One finding a line, without a line's end after the last.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            if let Some(source) = &self.source {
                f.write_str(source)?;
                f.write_str(if finding.place.is_some() { ":" } else { ": " })?;
            }
            write!(f, "{finding}")?;
        }
        match self.omitted {
            0 => Ok(()),
            omitted => write!(f, "\nand {omitted} more"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place {
            write!(f, "{place}: ")?;
        }
        // A text speaks of one VPC only, so that naming it in each line would be noise.
        match (self.place, self.subject.vpc()) {
            (None, Some(vpc)) if !matches!(self.subject, Subject::Vpc(_)) => {
                write!(f, "VPC \"{vpc}\", ")?;
            }
            _ => {}
        }
        match &self.subject {
            Subject::Text => {}
            Subject::Vpc(name) => write!(f, "VPC \"{name}\" ")?,
            Subject::PrefixList(_, name) => write!(f, "prefix list \"{name}\" ")?,
            Subject::Group(_, name) | Subject::Rule(_, name, _) => write!(f, "group \"{name}\" ")?,
            Subject::Interface(_, name) => write!(f, "interface \"{name}\" ")?,
        }
        match self.problem {
            // These tell of a value and not of what holds it.
            Problem::Prefix(_) | Problem::Name(_) if self.subject != Subject::Text => {
                write!(f, "has a fault: {}", self.problem)
            }
            _ => write!(f, "{}", self.problem),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl Subject {
    fn vpc(&self) -> Option<&VpcName> {
        match self {
            Self::Text => None,
            Self::Vpc(vpc)
            | Self::PrefixList(vpc, _)
            | Self::Group(vpc, _)
            | Self::Rule(vpc, _, _)
            | Self::Interface(vpc, _) => Some(vpc),
        }
    }
}
