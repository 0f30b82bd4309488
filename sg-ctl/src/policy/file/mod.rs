//! The policy file: one VPC as text.
//!
//! Reading finds everything that is wrong at once, each with its line and column. What a file
//! leaves out has its default, so that a file means the same whatever was applied before it; only
//! `interfaces`, when left out as a whole, leaves them as they are.

mod interfaces;
mod plain;
mod problem;
mod read;
mod rules;
pub mod schema;
mod tree;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::iter;
use std::panic::resume_unwind;
use std::thread;

use ipnet::IpNet;
use sg_common::packet::Direction;

pub use self::problem::TextProblem;

use self::interfaces::{FileInterface, read_interfaces};
use self::read::Reader;
use self::rules::{Lists, RulePlace, read_rules, refuse_twice};
use self::tree::{Node, Value};
use super::change::Touched;
use super::check;
use super::defaults::{self, DEFAULT_GROUP_DESCRIPTION};
use super::findings::{Finding, Findings, Place, Problem, Subject};
use super::model::{Group, OnRuleRemoval, Permission, Policy, Rule, Vpc};
use super::names::{GroupId, GroupName, InterfaceName, PrefixListName, RuleId, VpcName};
use super::prefix::{check_link_local_service, parse_prefix};

/// A policy file that is sound in itself.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    source: String,
    name: VpcName,
    /// What the file says, with fresh ids.
    vpc: Vpc,
    has_interfaces: bool,
    places: Places,
}

/// Where the parts of a file stand.
#[derive(Clone, Debug, Default)]
struct Places {
    prefix_lists: HashMap<PrefixListName, Place>,
    groups: HashMap<GroupName, Place>,
    rules: Vec<(RuleId, Place)>,
    interfaces: HashMap<InterfaceName, Place>,
    groups_of_interfaces: HashMap<(InterfaceName, GroupName), Place>,
}

impl PolicyFile {
    /// Reads a file; `name` is how the findings call it.
    pub fn parse(name: &str, text: &str) -> Result<Self, Findings> {
        let mut reader = Reader::default();
        let (mut file, mut unsound) = (None, BTreeSet::new());
        match tree::parse(text) {
            Ok(root) => (file, unsound) = read_file(&mut reader, name, &root),
            Err((place, problem)) => reader.fault(place, problem),
        }
        let mut findings = reader.findings;
        let Some(mut file) = file else {
            return Err(findings.of_source(name));
        };
        let mut policy = Policy {
            vpcs: BTreeMap::from([(file.name.clone(), file.vpc)]),
        };
        file.places
            .check(&policy, &file.name, &unsound, &mut findings);
        match policy.vpcs.remove(&file.name) {
            Some(vpc) if findings.is_empty() => {
                file.vpc = vpc;
                Ok(file)
            }
            _ => Err(findings.of_source(name)),
        }
    }

    /// The VPC that the file is about.
    pub fn vpc_name(&self) -> &VpcName {
        &self.name
    }

    /// Says whether the file decides which interfaces are attached.
    pub fn has_interfaces(&self) -> bool {
        self.has_interfaces
    }

    /// The VPC as the file has it, with ids of its own.
    pub fn vpc(&self) -> &Vpc {
        &self.vpc
    }

    /// Where rules stand.
    pub fn places_of_rules(&self) -> HashMap<RuleId, Place> {
        self.places.rules.iter().copied().collect()
    }

    /// Where a group stands.
    pub fn place_of_group(&self, name: &GroupName) -> Option<Place> {
        self.places.groups.get(name).copied()
    }

    /// What the VPC becomes; groups and rules that stay keep their ids.
    ///
    /// Fails when interfaces that the file leaves as they are name groups that it no longer has.
    pub fn to_vpc(&self, existing: Option<&Vpc>) -> Result<Vpc, Findings> {
        let mut policy = Policy::default();
        policy.vpcs.insert(self.name.clone(), self.merged(existing));
        self.check(&policy)?;
        Ok(policy
            .vpcs
            .remove(&self.name)
            .unwrap_or_else(|| self.vpc.clone()))
    }

    /// What the policy becomes when its VPC matches the file.
    ///
    /// Finds what [`Self::to_vpc`] cannot: interfaces that another VPC has, and references that
    /// only another VPC could satisfy.
    pub fn to_policy(&self, existing: &Policy) -> Result<Policy, Findings> {
        let mut policy = existing.clone();
        let merged = self.merged(existing.vpcs.get(&self.name));
        policy.vpcs.insert(self.name.clone(), merged);
        self.check(&policy)?;
        Ok(policy)
    }

    fn check(&self, policy: &Policy) -> Result<(), Findings> {
        let mut findings = Findings::default();
        self.places
            .check(policy, &self.name, &BTreeSet::new(), &mut findings);
        if findings.is_empty() {
            Ok(())
        } else {
            Err(findings.of_source(&self.source))
        }
    }

    fn merged(&self, existing: Option<&Vpc>) -> Vpc {
        let mut vpc = self.vpc.clone();
        let Some(existing) = existing else { return vpc };
        for (name, group) in &mut vpc.groups {
            let Some(old) = existing.groups.get(name) else {
                continue;
            };
            group.id = old.id;
            let ids: HashMap<&Permission, RuleId> = old
                .rules
                .iter()
                .map(|rule| (&rule.permission, rule.id))
                .collect();
            for rule in &mut group.rules {
                rule.id = ids.get(&rule.permission).copied().unwrap_or(rule.id);
            }
        }
        if !self.has_interfaces {
            vpc.interfaces.clone_from(&existing.interfaces);
        }
        vpc
    }
}

impl Places {
    /// Checks the VPC as a whole, but for interfaces that could not be read whole.
    fn check(
        &self,
        policy: &Policy,
        name: &VpcName,
        unsound: &BTreeSet<InterfaceName>,
        findings: &mut Findings,
    ) {
        let Some(vpc) = policy.vpcs.get(name) else {
            return;
        };
        let mut touched = Touched::everything(vpc);
        touched
            .interfaces
            .retain(|interface| !unsound.contains(interface));
        let touched = BTreeMap::from([(name.clone(), touched)]);
        check::check(policy, &touched, findings);
        check::check_guests_apart(policy, &touched, findings);
        // A sound file has no findings, so that its million rules are looked up for none.
        let rules: HashMap<RuleId, Place> = match findings.is_empty() {
            true => HashMap::new(),
            false => self.rules.iter().copied().collect(),
        };
        findings.locate(|finding| self.place(&rules, finding));
    }

    fn place(&self, rules: &HashMap<RuleId, Place>, finding: &Finding) -> Option<Place> {
        match (&finding.subject, &finding.problem) {
            (Subject::Text | Subject::Vpc(_), _) => None,
            (Subject::PrefixList(_, name), _) => self.prefix_lists.get(name).copied(),
            (Subject::Group(_, name), _) => self.groups.get(name).copied(),
            (Subject::Rule(_, group, id), _) => {
                rules.get(id).or_else(|| self.groups.get(group)).copied()
            }
            (
                Subject::Interface(_, name),
                Problem::UnknownGroup { name: group, .. }
                | Problem::GroupElsewhere { name: group, .. },
            ) => {
                let place = self
                    .groups_of_interfaces
                    .get(&(name.clone(), group.clone()));
                place.or_else(|| self.interfaces.get(name)).copied()
            }
            (Subject::Interface(_, name), _) => self.interfaces.get(name).copied(),
        }
    }
}

/// A text of YAML as JSON has it, every scalar as it was spelt; for files that are no policy.
pub(crate) fn yaml(text: &str) -> Result<serde_json::Value, (Place, TextProblem)> {
    tree::parse(text).map(|root| root.value.into())
}

/// Reads what can be read, and names the interfaces that could not be read whole.
fn read_file(
    reader: &mut Reader,
    source: &str,
    root: &Node<'_>,
) -> (Option<PolicyFile>, BTreeSet<InterfaceName>) {
    let mut unsound = BTreeSet::new();
    let Some(fields) = reader.fields(root, &schema::FILE) else {
        return (None, unsound);
    };
    let mut places = Places::default();
    let name = fields.get("vpc").and_then(|node| {
        let text = reader.text(node, "vpc", "the name of a VPC")?;
        reader.parsed(node.place, text.parse())
    });
    let mut vpc = Vpc::bare(GroupId::random());
    if let Some(node) = fields.get("prefix_lists") {
        vpc.prefix_lists = read_prefix_lists(reader, node, &mut places);
    }
    let groups = fields
        .get("groups")
        .map(|node| read_groups(reader, node, &mut places));
    vpc.groups = groups.unwrap_or_default();
    let default_group = vpc.groups.entry(GroupName::default_group());
    default_group.or_insert_with(standard_default_group);
    let interfaces = fields
        .get("interfaces")
        .map(|node| read_interfaces(reader, node));
    let has_interfaces = interfaces.is_some();
    for interface in interfaces.into_iter().flatten() {
        let FileInterface {
            name,
            interface,
            place,
            groups,
            sound,
        } = interface;
        places.interfaces.insert(name.clone(), place);
        let groups = groups
            .into_iter()
            .map(|(group, place)| ((name.clone(), group), place));
        places.groups_of_interfaces.extend(groups);
        if !sound {
            unsound.insert(name.clone());
        }
        vpc.interfaces.insert(name, interface);
    }
    if let Some(node) = fields.get("link_local_services") {
        let check = check_link_local_service;
        vpc.link_local_services = reader.addresses(node, "link_local_services", check);
    }
    if let Some(node) = fields.get("on_rule_removal") {
        let words = [
            ("keep", OnRuleRemoval::Keep),
            ("terminate", OnRuleRemoval::Terminate),
        ];
        let choice = reader.word(node, "on_rule_removal", &words, "keep or terminate");
        vpc.on_rule_removal = choice.unwrap_or_default();
    }
    let (name, source) = (name.unwrap_or_default(), source.to_owned());
    (
        Some(PolicyFile {
            source,
            name,
            vpc,
            has_interfaces,
            places,
        }),
        unsound,
    )
}

fn read_prefix_lists(
    reader: &mut Reader,
    node: &Node<'_>,
    places: &mut Places,
) -> BTreeMap<PrefixListName, BTreeSet<IpNet>> {
    let wanted = "a map from names to lists of prefixes";
    let mut lists = BTreeMap::new();
    for (name, place, node) in reader.named::<PrefixListName>(node, "prefix_lists", wanted) {
        let mut prefixes = BTreeSet::new();
        let wanted = "a list of prefixes like [10.0.0.0/8], or [] for none";
        for item in reader.one_or_more(node, "a prefix list", wanted) {
            let wanted = "one like 10.0.0.0/8 or 2001:db8::/32";
            let Some(text) = reader.text(item, "a prefix", wanted) else {
                continue;
            };
            prefixes.extend(reader.parsed(item.place, parse_prefix(text)));
        }
        places.prefix_lists.insert(name.clone(), place);
        lists.insert(name, prefixes);
    }
    lists
}

fn read_groups(
    reader: &mut Reader,
    node: &Node<'_>,
    places: &mut Places,
) -> BTreeMap<GroupName, Group> {
    let wanted = "a map from names to groups";
    let named = reader.named::<GroupName>(node, "groups", wanted);
    let lists = Lists::measure(reader, named.iter().map(|(_, _, node)| *node));
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let share = named.len().div_ceil(workers).max(LEAST_SHARE);
    let mut named = named.chunks(share);
    let first = named.next().unwrap_or_default();
    thread::scope(|scope| {
        let others: Vec<_> = named
            .map(|share| scope.spawn(move || ReadGroups::read(share, lists)))
            .collect();
        let first = ReadGroups::read(first, lists);
        let others = others.into_iter().map(|share| {
            share
                .join()
                .unwrap_or_else(|panicked| resume_unwind(panicked))
        });
        let mut groups = BTreeMap::new();
        for share in iter::once(first).chain(others) {
            reader.findings.append(share.findings);
            places.groups.extend(share.places.groups);
            places.rules.extend(share.places.rules);
            groups.extend(share.groups);
        }
        groups
    })
}

/// Fewer groups are not worth a thread.
const LEAST_SHARE: usize = 256;

/// A share of a file's groups.
struct ReadGroups {
    groups: Vec<(GroupName, Group)>,
    places: Places,
    findings: Findings,
}

impl ReadGroups {
    fn read(named: &[(GroupName, Place, &Node<'_>)], lists: Lists) -> Self {
        let (mut reader, mut places) = (Reader::default(), Places::default());
        let groups = named.iter().map(|(name, place, node)| {
            places.groups.insert(name.clone(), *place);
            (
                name.clone(),
                read_group(&mut reader, name, (node, lists), &mut places),
            )
        });
        Self {
            groups: groups.collect(),
            places,
            findings: reader.findings,
        }
    }
}

fn read_group(
    reader: &mut Reader,
    name: &GroupName,
    (node, lists): (&Node<'_>, Lists),
    places: &mut Places,
) -> Group {
    let standard = if name.is_default() {
        DEFAULT_GROUP_DESCRIPTION
    } else {
        ""
    };
    let mut group = Group::bare(GroupId::random(), standard.to_owned());
    // A name with nothing behind it is a group with nothing but defaults.
    let fields = match node.value {
        Value::Null => None,
        _ => reader.fields(node, &schema::GROUP),
    };
    let field = |key| fields.as_ref().and_then(|fields| fields.get(key));
    if let Some(description) = reader.description(field("description")) {
        group.description = description;
    }
    if let Some(node) = field("members") {
        group.members = reader.addresses(node, "members", super::prefix::check_member);
    }
    let mut rules: Vec<(Rule, RulePlace)> = Vec::new();
    for (key, direction) in [
        ("ingress", Direction::Ingress),
        ("egress", Direction::Egress),
    ] {
        match field(key) {
            Some(node) => rules.extend(read_rules(reader, name, direction, node, lists)),
            None => group.rules.extend(default_rules(name, direction)),
        }
    }
    for (rule, place) in refuse_twice(reader, rules) {
        places.rules.push((rule.id, place.peer));
        group.rules.push(rule);
    }
    super::change::sort(&mut group.rules);
    group
}

fn standard_default_group() -> Group {
    let name = GroupName::default_group();
    let mut group = Group::bare(GroupId::random(), DEFAULT_GROUP_DESCRIPTION.to_owned());
    let directions = [Direction::Ingress, Direction::Egress];
    group.rules = directions
        .map(|direction| default_rules(&name, direction))
        .concat();
    group
}

/// What a group allows in a direction that its file leaves out.
fn default_rules(name: &GroupName, direction: Direction) -> Vec<Rule> {
    let permissions: Vec<Permission> = match direction {
        Direction::Ingress if name.is_default() => vec![defaults::ingress_of_default_group()],
        Direction::Ingress => Vec::new(),
        Direction::Egress => defaults::egress().into(),
    };
    let rule = |permission| Rule {
        id: RuleId::random(),
        permission,
        description: String::new(),
    };
    permissions.into_iter().map(rule).collect()
}

#[cfg(test)]
mod tests;
