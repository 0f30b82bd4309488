//! From AWS's groups and prefix lists to the model, VPC by VPC.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use ipnet::IpNet;
use sg_common::packet::Direction;

use super::answers::{Answers, IpPermission, SecurityGroup};
use super::spelling::{Names, as_description};
use crate::policy::defaults::create_vpc;
use crate::policy::export::export_without_interfaces;
use crate::policy::findings::Findings;
use crate::policy::model::{
    Group, IcmpMatch, Peer, Permission, Policy, PortRange, Rule, Traffic, Vpc,
};
use crate::policy::names::{GroupId, GroupName, NameError, PrefixListName, RuleId, VpcName};
use crate::policy::prefix::{PrefixError, parse_prefix};

/// Why an answer cannot become a policy.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// There are none.
    #[error(
        "the files have no security groups; give what `aws ec2 describe-security-groups` prints"
    )]
    NoGroups,
    /// Several, and it is not said which.
    #[error("the groups are of several VPCs: {0}; choose one with --vpc")]
    SeveralVpcs(String),
    /// Not among them.
    #[error("no group is of VPC {asked}; there are {known}")]
    NoSuchVpc {
        /// What was asked.
        asked: String,
        /// What there is.
        known: String,
    },
    /// A text that AWS would not have given out.
    #[error("{place}: {source}")]
    Name {
        /// Where.
        place: String,
        /// What is wrong.
        source: NameError,
    },
    /// As above.
    #[error("{place}: {source}")]
    Prefix {
        /// Where.
        place: String,
        /// What is wrong.
        source: PrefixError,
    },
    /// Protocol, ports, type or code are not what AWS documents.
    #[error("{place}: protocol {protocol:?} from {from} to {to} is nothing that AWS documents")]
    Traffic {
        /// Where.
        place: String,
        /// As given.
        protocol: String,
        /// As given.
        from: String,
        /// As given.
        to: String,
    },
    /// The parts do not make a policy.
    #[error(transparent)]
    Findings(#[from] Findings),
}

/// What is otherwise in the policy than at AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What became of it.
    pub fate: Fate,
    text: String,
}

/// What became of something at AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is allowed at AWS, and the policy does not allow it.
    Lost,
    /// It has no place in a policy, and allows nothing.
    LeftOut,
    /// It is there under another name, or in other words.
    Changed,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One VPC as a policy.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The policy file.
    pub text: String,
    /// What it does not carry.
    pub notes: Vec<Note>,
}

impl Imported {
    /// Converts the groups of one VPC; `asked` need only be given where there are several.
    /// `name` is what the policy calls it; AWS's id unless given.
    pub fn from_answers(
        answers: &Answers,
        asked: Option<&str>,
        name: Option<&VpcName>,
    ) -> Result<Self, ImportError> {
        let by_rules = answers.groups_by_rules();
        let groups = || answers.groups.iter().chain(&by_rules);
        let id = choose_vpc(groups(), asked)?;
        let name = match name {
            Some(name) => name.clone(),
            None => id.parse().map_err(named("VPC", id))?,
        };
        let mut conversion = Conversion::new(answers, groups(), id)?;
        let vpc = conversion.vpc(&name)?;
        let policy = Policy {
            vpcs: BTreeMap::from([(name.clone(), vpc)]),
        };
        let policy = policy.checked()?;
        let exported = policy
            .vpcs
            .get(&name)
            .map(|vpc| export_without_interfaces(&name, vpc));
        let text = conversion.heading() + &exported.unwrap_or_default();
        Ok(Self {
            text,
            notes: conversion.notes,
        })
    }
}

fn choose_vpc<'a>(
    groups: impl Iterator<Item = &'a SecurityGroup>,
    asked: Option<&str>,
) -> Result<&'a str, ImportError> {
    let known: BTreeSet<&str> = groups.map(SecurityGroup::vpc).collect();
    let list = || known.iter().copied().collect::<Vec<_>>().join(", ");
    match (asked, known.len()) {
        (_, 0) => Err(ImportError::NoGroups),
        (Some(asked), _) => known
            .get(asked)
            .copied()
            .ok_or_else(|| ImportError::NoSuchVpc {
                asked: asked.to_owned(),
                known: list(),
            }),
        (None, 1) => known.first().copied().ok_or(ImportError::NoGroups),
        (None, _) => Err(ImportError::SeveralVpcs(list())),
    }
}

fn named(what: &str, id: &str) -> impl FnOnce(NameError) -> ImportError {
    let place = format!("{what} {id}");
    move |source| ImportError::Name { place, source }
}

impl SecurityGroup {
    /// Groups of the time before VPCs have none.
    fn vpc(&self) -> &str {
        self.vpc_id.as_deref().unwrap_or("default")
    }

    fn place(&self) -> String {
        match self.group_name.as_str() {
            "" => format!("group {}", self.group_id),
            name => format!("group {name} ({})", self.group_id),
        }
    }
}

struct Conversion<'a> {
    groups: Vec<&'a SecurityGroup>,
    names: BTreeMap<&'a str, GroupName>,
    /// The VPC of every other group that the files have.
    elsewhere: BTreeMap<&'a str, &'a str>,
    /// Rules that are told one by one, by their group.
    rules: BTreeMap<&'a str, Vec<(Direction, &'a IpPermission)>>,
    answers: &'a Answers,
    lists: BTreeMap<&'a str, PrefixListName>,
    list_names: Names<PrefixListName>,
    notes: Vec<Note>,
}

impl<'a> Conversion<'a> {
    fn new(
        answers: &'a Answers,
        groups: impl Iterator<Item = &'a SecurityGroup>,
        vpc: &'a str,
    ) -> Result<Self, ImportError> {
        let (groups, others): (Vec<_>, Vec<_>) = groups.partition(|group| group.vpc() == vpc);
        let mut rules: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for rule in &answers.rules {
            let direction = match rule.is_egress {
                true => Direction::Egress,
                false => Direction::Ingress,
            };
            let of_group = rules.entry(rule.group_id.as_str()).or_default();
            of_group.push((direction, &rule.permission));
        }
        let elsewhere = others.into_iter();
        let mut conversion = Self {
            groups,
            names: BTreeMap::new(),
            elsewhere: elsewhere
                .map(|group| (group.group_id.as_str(), group.vpc()))
                .collect(),
            rules,
            answers,
            lists: BTreeMap::new(),
            list_names: Names::default(),
            notes: Vec::new(),
        };
        conversion.name_groups()?;
        conversion.note_rules_of_nobody();
        Ok(conversion)
    }

    /// References follow the ids. In a VPC that accounts share, each may have a group of the same
    /// name.
    fn name_groups(&mut self) -> Result<(), ImportError> {
        let mut names = Names::default();
        for group in self.groups.clone() {
            let (id, given) = (group.group_id.as_str(), group.group_name.as_str());
            let name: GroupName = names.give(given, id).map_err(named("group", id))?;
            if name.as_str() != given.trim_matches(' ') {
                let why = match names.owner(given) {
                    Some(other) => format!("group {other} has that name here"),
                    None if given.is_empty() => "no file has its name; give what `aws ec2 \
                                                 describe-security-groups` prints, too"
                        .to_owned(),
                    None => "sg takes no such name".to_owned(),
                };
                let text = format!("{} is called {name}, because {why}", group.place());
                self.note(Fate::Changed, text);
            }
            self.names.insert(id, name);
        }
        Ok(())
    }

    fn note_rules_of_nobody(&mut self) {
        let mut left_out = Vec::new();
        for (id, rules) in &self.rules {
            if !self.names.contains_key(id) && !self.elsewhere.contains_key(id) {
                left_out.push(format!(
                    "the {} rules of group {id} are left out, because no file has that group; give \
                     what `aws ec2 describe-security-groups --group-ids {id}` prints, too",
                    rules.len()
                ));
            }
        }
        for text in left_out {
            self.note(Fate::Lost, text);
        }
    }

    /// AWS's ids, which nothing else in the file tells.
    fn heading(&self) -> String {
        let lists = self
            .lists
            .iter()
            .map(|(id, name)| format!("# {id}: {name}\n"));
        let groups = self
            .names
            .iter()
            .map(|(id, name)| format!("# {id}: {name}\n"));
        groups.chain(lists).collect()
    }

    fn note(&mut self, fate: Fate, text: String) {
        self.notes.push(Note { fate, text });
    }

    fn vpc(&mut self, name: &VpcName) -> Result<Vpc, ImportError> {
        let mut policy = Policy::default().apply(&create_vpc(name))?;
        let vpc = policy.vpcs.remove(name);
        let mut vpc = vpc.unwrap_or_else(|| Vpc::bare(GroupId::random()));
        for source in self.groups.clone() {
            let group = self.group(source)?;
            if let Some(name) = self.names.get(source.group_id.as_str()) {
                vpc.groups.insert(name.clone(), group);
            }
        }
        for (id, name) in self.lists.clone() {
            let prefixes = self.entries(id, &name)?;
            vpc.prefix_lists.insert(name, prefixes);
        }
        if self.groups.iter().any(|group| group.owner_id.is_some()) {
            self.note(
                Fate::LeftOut,
                "ids, owners and ARNs are AWS's: sg gives ids of its own".to_owned(),
            );
        }
        Ok(vpc)
    }

    fn group(&mut self, source: &'a SecurityGroup) -> Result<Group, ImportError> {
        let place = source.place();
        if !source.tags.is_empty() {
            let keys: Vec<&str> = source.tags.iter().map(|tag| tag.key.as_str()).collect();
            let text = format!("{place}: sg has no tags ({})", keys.join(", "));
            self.note(Fate::LeftOut, text);
        }
        let description = self.description(&place, &source.description);
        let mut group = Group::bare(GroupId::random(), description);
        let ingress = source.ip_permissions.as_deref();
        let egress = source.ip_permissions_egress.as_deref();
        let alone = self.rules.remove(source.group_id.as_str());
        if ingress.is_none() && egress.is_none() && alone.is_none() {
            let text = format!("{place}: no file has its rules");
            self.note(Fate::Lost, text);
        }
        let of = |direction, permissions: Option<&'a [IpPermission]>| {
            let permissions = permissions.unwrap_or_default().iter();
            permissions.map(move |permission| (direction, permission))
        };
        let permissions = of(Direction::Ingress, ingress).chain(of(Direction::Egress, egress));
        // A rule that is told alone is often told with its group, too.
        let mut seen = HashSet::new();
        for (direction, permission) in permissions.chain(alone.into_iter().flatten()) {
            let traffic = traffic(&place, permission)?;
            for (peer, description) in self.peers(source, permission, traffic)? {
                let permission = Permission {
                    direction,
                    traffic,
                    peer,
                };
                if !seen.insert(permission.clone()) {
                    continue;
                }
                let description = self.description(&place, &description);
                group.rules.push(Rule {
                    id: RuleId::random(),
                    permission,
                    description,
                });
            }
        }
        Ok(group)
    }

    fn description(&mut self, place: &str, given: &str) -> String {
        let description = as_description(given);
        if description != given {
            let text = format!(
                "{place}: the description {given:?} is written as {description:?}, because sg takes \
                 255 characters of AWS's set"
            );
            self.note(Fate::Changed, text);
        }
        description.into_owned()
    }

    fn peers(
        &mut self,
        group: &'a SecurityGroup,
        permission: &'a IpPermission,
        traffic: Traffic,
    ) -> Result<Vec<(Peer, String)>, ImportError> {
        let mut peers = Vec::new();
        let v4 = permission.ip_ranges.iter();
        let v4 = v4.map(|range| (&range.cidr_ip, &range.description));
        let v6 = permission.ipv6_ranges.iter();
        let v6 = v6.map(|range| (&range.cidr_ipv6, &range.description));
        for (prefix, description) in v4.chain(v6) {
            let prefix = parse_prefix(prefix).map_err(|source| ImportError::Prefix {
                place: group.place(),
                source,
            })?;
            peers.push((Peer::Prefix(prefix), description.clone()));
        }
        for list in &permission.prefix_list_ids {
            let name = self.list_name(&list.prefix_list_id)?;
            peers.push((Peer::PrefixList(name), list.description.clone()));
        }
        for pair in &permission.user_id_group_pairs {
            let id = pair.group_id.as_deref().unwrap_or("without an id");
            if let Some(name) = self.names.get(id) {
                peers.push((Peer::Group(name.clone()), pair.description.clone()));
                continue;
            }
            let vpc = pair
                .vpc_id
                .as_deref()
                .or_else(|| self.elsewhere.get(id).copied());
            let owner = pair
                .user_id
                .as_ref()
                .filter(|user| group.owner_id.as_ref() != Some(user));
            let why = match (vpc, owner) {
                (Some(vpc), Some(owner)) => format!("in VPC {vpc} of account {owner}"),
                (Some(vpc), None) => format!("in VPC {vpc}"),
                (None, Some(owner)) => format!("of account {owner}"),
                (None, None) => "not in these files".to_owned(),
            };
            let place = group.place();
            self.note(
                Fate::Lost,
                format!(
                    "{place}: the rule for {traffic} and group {id} is left out, because that \
                     group is {why}; add one with the prefixes of its members"
                ),
            );
        }
        Ok(peers)
    }

    /// The name of a list, which is noted down as one that the policy needs.
    fn list_name(&mut self, id: &'a str) -> Result<PrefixListName, ImportError> {
        if let Some(name) = self.lists.get(id) {
            return Ok(name.clone());
        }
        let given = self.answers.list_names.get(id);
        let name = match given {
            Some(given) => self.list_names.give(given, id),
            None => self.list_names.give("", id),
        };
        let name = name.map_err(named("prefix list", id))?;
        if let Some(given) = given
            && name.as_str() != given
        {
            let text = format!("prefix list {given} ({id}) is called {name}");
            self.note(Fate::Changed, text);
        }
        self.lists.insert(id, name.clone());
        Ok(name)
    }

    fn entries(&mut self, id: &str, name: &PrefixListName) -> Result<BTreeSet<IpNet>, ImportError> {
        let Some(entries) = self.answers.entries.get(id) else {
            self.note(
                Fate::Lost,
                format!(
                    "prefix list {name} ({id}) is empty, because no file has its entries; save them \
                     with `aws ec2 get-managed-prefix-list-entries --prefix-list-id {id} >{id}.json`"
                ),
            );
            return Ok(BTreeSet::new());
        };
        let described = entries.iter().filter(|entry| !entry.description.is_empty());
        let described = described.count();
        if described > 0 {
            let text = format!("prefix list {name} ({id}): {described} entries have descriptions");
            self.note(Fate::LeftOut, text);
        }
        let prefixes = entries.iter().map(|entry| {
            parse_prefix(&entry.cidr).map_err(|source| ImportError::Prefix {
                place: format!("prefix list {name} ({id})"),
                source,
            })
        });
        prefixes.collect()
    }
}

/// What a permission allows, as AWS says it: `-1` is all, and ports are types and codes for ICMP.
fn traffic(place: &str, permission: &IpPermission) -> Result<Traffic, ImportError> {
    let (from, to) = (permission.from_port, permission.to_port);
    let ports = || match (from, to) {
        (None, None) => Some(PortRange::ALL),
        (from, to) => PortRange::new(u16::try_from(from?).ok()?, u16::try_from(to?).ok()?),
    };
    let icmp = || match (from.unwrap_or(-1), to.unwrap_or(-1)) {
        (-1, _) => Some(IcmpMatch::Any),
        (kind, -1) => Some(IcmpMatch::Type(u8::try_from(kind).ok()?)),
        (kind, code) => {
            let (kind, code) = (u8::try_from(kind).ok()?, u8::try_from(code).ok()?);
            Some(IcmpMatch::TypeCode(kind, code))
        }
    };
    let protocol = permission.ip_protocol.to_ascii_lowercase();
    let traffic = match protocol.as_str() {
        "-1" => Some(Traffic::All),
        "tcp" | "6" => ports().map(Traffic::Tcp),
        "udp" | "17" => ports().map(Traffic::Udp),
        "icmp" | "1" => icmp().map(Traffic::Icmp),
        "icmpv6" | "58" => icmp().map(Traffic::Icmpv6),
        number => number.parse().ok().map(Traffic::Protocol),
    };
    let spelt = |port: Option<i32>| port.map_or("nothing".to_owned(), |port| port.to_string());
    traffic.ok_or_else(|| ImportError::Traffic {
        place: place.to_owned(),
        protocol: permission.ip_protocol.clone(),
        from: spelt(from),
        to: spelt(to),
    })
}

#[cfg(test)]
mod tests;
