//! Groups, rules and prefix lists as they are.

use std::collections::BTreeSet;

use ipnet::IpNet;
use sg_common::packet::Direction;

use super::columns::{Align, Columns};
use super::style::Style;
use super::words::{list, number};
use crate::observe::Members;
use crate::policy::findings::Dependents;
use crate::policy::model::{Group, Peer, Policy, Rule, Vpc};
use crate::policy::names::{GroupName, PrefixListName, VpcName};

/// A line for each group.
pub fn groups<'a>(
    groups: impl IntoIterator<Item = (&'a VpcName, &'a Vpc, &'a GroupName, &'a Group)>,
    style: Style,
) -> String {
    let (left, right) = (Align::Left, Align::Right);
    let mut columns = Columns::titles(
        [left, left, left, right, right, left],
        ["GROUP", "ID", "VPC", "INGRESS", "EGRESS", "INTERFACES"],
    );
    let mut is_empty = true;
    for (vpc_name, vpc, name, group) in groups {
        is_empty = false;
        let rules = |direction| rules_of(group, direction).count() as u64;
        let interfaces = vpc.interfaces.iter();
        let interfaces = interfaces.filter(|(_, interface)| interface.groups.contains(name));
        columns.line([
            name.to_string(),
            group.id.to_string(),
            vpc_name.to_string(),
            number(rules(Direction::Ingress)),
            number(rules(Direction::Egress)),
            list(interfaces.map(|(name, _)| name)),
        ]);
    }
    match is_empty {
        true => "there is no group; create one with `sg-ctl group create NAME`\n".to_owned(),
        false => columns.finish(style, 0),
    }
}

/// One group with all that it has.
pub fn group(
    vpc_name: &VpcName,
    vpc: &Vpc,
    name: &GroupName,
    group: &Group,
    style: Style,
) -> String {
    let title = format!("group {name}  {}  VPC {vpc_name}", group.id);
    let mut text = format!("{}\n", style.title(&title));
    if !group.description.is_empty() {
        text.push_str(&format!("{}\n", group.description));
    }
    for direction in Direction::ALL {
        text.push_str(&format!("{}\n", direction.name()));
        let rules: Vec<_> = rules_of(group, direction).collect();
        match rules.is_empty() {
            true => text.push_str("  nothing is allowed\n"),
            false => text.push_str(&rule_lines(&rules, style, 2)),
        }
    }
    let interfaces = vpc.interfaces.iter();
    let interfaces: Vec<_> = interfaces
        .filter(|(_, interface)| interface.groups.contains(name))
        .map(|(name, _)| name)
        .collect();
    if !interfaces.is_empty() {
        text.push_str(&format!("interfaces\n  {}\n", list(interfaces)));
    }
    if !group.members.is_empty() {
        text.push_str(&format!("static members\n  {}\n", list(&group.members)));
    }
    text
}

/// The rules of groups, with their ids.
pub fn rules<'a>(
    rules: impl IntoIterator<Item = (&'a VpcName, &'a GroupName, &'a Rule)>,
    style: Style,
) -> String {
    let mut columns = Columns::titles(
        [Align::Left; 6],
        ["GROUP", "VPC", "RULE", "DIRECTION", "ALLOWS", "DESCRIPTION"],
    );
    let mut is_empty = true;
    for (vpc, group, rule) in rules {
        is_empty = false;
        columns.line([
            group.to_string(),
            vpc.to_string(),
            rule.id.to_string(),
            rule.permission.direction.name().to_owned(),
            rule.permission.to_string(),
            rule.description.clone(),
        ]);
    }
    match is_empty {
        true => {
            "there is no rule, so nothing is allowed; add one with `sg-ctl rule add`\n".to_owned()
        }
        false => columns.finish(style, 0),
    }
}

fn rules_of(group: &Group, direction: Direction) -> impl Iterator<Item = &Rule> {
    let rules = group.rules.iter();
    rules.filter(move |rule| rule.permission.direction == direction)
}

fn rule_lines(rules: &[&Rule], style: Style, indent: usize) -> String {
    let mut columns = Columns::new([Align::Left; 3]);
    for rule in rules {
        columns.line([
            rule.permission.to_string(),
            rule.id.to_string(),
            rule.description.clone(),
        ]);
    }
    columns.finish(style, indent)
}

/// Who would be left with nothing if the group went.
pub fn dependents(group: &GroupName, dependents: &Dependents) -> String {
    match dependents.is_empty() {
        true => format!("nothing depends on {group}\n"),
        false => format!("{group} is used by {dependents}\n"),
    }
}

/// The members of a group, with where each comes from.
pub fn members(found: &Members, style: Style) -> String {
    let group = &found.group;
    let mut columns = Columns::titles([Align::Left; 2], ["ADDRESS", "FROM"]);
    for member in &found.addresses {
        let from = match (&member.interface, member.from) {
            (Some(interface), "guest") => format!("the guest behind {interface}"),
            (Some(interface), _) => format!("interface {interface}"),
            (None, _) => "static".to_owned(),
        };
        columns.line([member.address.to_string(), from]);
    }
    let mut text = match found.addresses.is_empty() {
        true => format!(
            "{group} has no members; attach an interface with `sg-ctl attach IFACE --add-group \
             {group}`, or add an address with `sg-ctl group members {group} --add ADDRESS`\n"
        ),
        false => columns.finish(style, 0),
    };
    for interface in &found.without_address {
        text.push_str(&format!(
            "interface {interface} is in the group, but has no address on this machine\n"
        ));
    }
    text
}

/// A line for each VPC.
pub fn vpcs(policy: &Policy, style: Style) -> String {
    let (left, right) = (Align::Left, Align::Right);
    let mut columns = Columns::titles(
        [left, right, right, left],
        ["VPC", "GROUPS", "PREFIX LISTS", "INTERFACES"],
    );
    for (name, vpc) in &policy.vpcs {
        columns.line([
            name.to_string(),
            number(vpc.groups.len() as u64),
            number(vpc.prefix_lists.len() as u64),
            list(vpc.interfaces.keys()),
        ]);
    }
    match policy.vpcs.is_empty() {
        true => "there is no VPC yet; the first `apply`, `attach` or `group create` makes one\n"
            .to_owned(),
        false => columns.finish(style, 0),
    }
}

/// A line for each prefix list.
pub fn prefix_lists(policy: &Policy, only: Option<&VpcName>, style: Style) -> String {
    let mut columns = Columns::titles(
        [Align::Left, Align::Left, Align::Right, Align::Left],
        ["PREFIX LIST", "VPC", "PREFIXES", "NAMED BY"],
    );
    let mut is_empty = true;
    let vpcs = policy.vpcs.iter();
    for (vpc_name, vpc) in vpcs.filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        for (name, prefixes) in &vpc.prefix_lists {
            is_empty = false;
            columns.line([
                name.to_string(),
                vpc_name.to_string(),
                number(prefixes.len() as u64),
                list(naming(vpc, name)),
            ]);
        }
    }
    match is_empty {
        true => "there is no prefix list; make one with `sg-ctl prefix-list set NAME PREFIX…`\n"
            .to_owned(),
        false => columns.finish(style, 0),
    }
}

/// The prefixes of one list.
pub fn prefix_list(name: &PrefixListName, prefixes: &BTreeSet<IpNet>) -> String {
    match prefixes.is_empty() {
        true => format!("{name} is empty, so rules that name it allow nothing\n"),
        false => prefixes
            .iter()
            .map(|prefix| format!("{prefix}\n"))
            .collect(),
    }
}

/// The groups with a rule that names the prefix list.
fn naming<'a>(vpc: &'a Vpc, list: &'a PrefixListName) -> impl Iterator<Item = &'a GroupName> {
    let names =
        move |rule: &Rule| matches!(&rule.permission.peer, Peer::PrefixList(l) if l == list);
    let groups = vpc.groups.iter();
    groups
        .filter(move |(_, group)| group.rules.iter().any(names))
        .map(|(name, _)| name)
}
