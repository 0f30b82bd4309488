//! Writes a VPC as a policy file that means the same.
//!
//! Rules that differ by their ports or peers alone share an item where the item fans out into
//! exactly them. Ids are not written: a file that is applied keeps those it finds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use sg_common::packet::Direction;

use super::defaults::{self, DEFAULT_GROUP_DESCRIPTION};
use super::fan_out;
use super::matching::DeviceMatch;
use super::model::{
    EgressDrops, Group, Hook, IcmpMatch, Interface, Macs, OnRuleRemoval, Peer, Permission,
    PortRange, Rule, Side, Timeouts, Traffic, Vpc,
};
use super::names::{GroupId, GroupName, RuleId, VpcName};

/// Longer lists take a line for each item.
const MAX_INLINE: usize = 8;

/// Writes the whole VPC, its interfaces included.
pub fn export(name: &VpcName, vpc: &Vpc) -> String {
    write(name, vpc, true)
}

/// Writes the VPC as a file that leaves its interfaces as they are.
pub fn export_without_interfaces(name: &VpcName, vpc: &Vpc) -> String {
    write(name, vpc, false)
}

fn write(name: &VpcName, vpc: &Vpc, with_interfaces: bool) -> String {
    let mut text = String::new();
    line(&mut text, 0, "vpc", &scalar(name.as_str()));
    if !vpc.prefix_lists.is_empty() {
        text.push_str("prefix_lists:\n");
        for (name, prefixes) in &vpc.prefix_lists {
            list(
                &mut text,
                1,
                name.as_str(),
                prefixes.iter().map(|prefix| scalar(&prefix.to_string())),
            );
        }
    }
    let groups = vpc
        .groups
        .iter()
        .filter(|(name, group)| !is_standard(name, group));
    let groups: Vec<_> = groups.collect();
    if !groups.is_empty() {
        let mut room = fan_out::MOST;
        text.push_str("groups:\n");
        for (name, group) in groups {
            export_group(&mut text, name, group, &mut room);
        }
    }
    if with_interfaces && vpc.interfaces.is_empty() {
        text.push_str("interfaces: {}\n");
    } else if with_interfaces {
        text.push_str("interfaces:\n");
        for (name, interface) in &vpc.interfaces {
            line(
                &mut text,
                1,
                &scalar(name.as_str()),
                &interface_item(interface),
            );
        }
    }
    if vpc.link_local_services != defaults::link_local_services() {
        let services = vpc
            .link_local_services
            .iter()
            .map(|address| scalar(&address.to_string()));
        list(&mut text, 0, "link_local_services", services);
    }
    if vpc.on_rule_removal == OnRuleRemoval::Terminate {
        text.push_str("on_rule_removal: terminate\n");
    }
    text
}

/// Says whether the group is what a VPC starts with, so that a file need not name it.
fn is_standard(name: &GroupName, group: &Group) -> bool {
    let plain = group.members.is_empty() && group.description == DEFAULT_GROUP_DESCRIPTION;
    let directions = [Direction::Ingress, Direction::Egress];
    name.is_default() && plain && directions.iter().all(|d| is_default(name, group, *d))
}

fn rules_of(group: &Group, direction: Direction) -> impl Iterator<Item = &Rule> {
    group
        .rules
        .iter()
        .filter(move |rule| rule.permission.direction == direction)
}

/// Says whether a direction is what its absence from a file means.
fn is_default(name: &GroupName, group: &Group, direction: Direction) -> bool {
    let standard: BTreeSet<Permission> = match direction {
        Direction::Ingress if name.is_default() => [defaults::ingress_of_default_group()].into(),
        Direction::Ingress => BTreeSet::new(),
        Direction::Egress => defaults::egress().into(),
    };
    let plain = rules_of(group, direction).all(|rule| rule.description.is_empty());
    let permissions = rules_of(group, direction).map(|rule| rule.permission.clone());
    plain && permissions.collect::<BTreeSet<_>>() == standard
}

fn export_group(text: &mut String, name: &GroupName, group: &Group, room: &mut usize) {
    let _ = write!(text, "  {}:", scalar(name.as_str()));
    let start = text.len();
    text.push('\n');
    let standard = if name.is_default() {
        DEFAULT_GROUP_DESCRIPTION
    } else {
        ""
    };
    if group.description != standard {
        line(text, 2, "description", &scalar(&group.description));
    }
    for (key, direction) in [
        ("ingress", Direction::Ingress),
        ("egress", Direction::Egress),
    ] {
        if is_default(name, group, direction) {
            continue;
        }
        let items = rule_items(group, direction, room);
        if items.is_empty() {
            line(text, 2, key, "[]");
        } else {
            let _ = writeln!(text, "    {key}:");
            for item in items {
                let _ = writeln!(text, "      - {item}");
            }
        }
    }
    if !group.members.is_empty() {
        list(
            text,
            2,
            "members",
            group
                .members
                .iter()
                .map(|address| scalar(&address.to_string())),
        );
    }
    if text.len() == start + 1 {
        text.insert_str(start, " {}");
    }
}

/// One rule as the item of a file that stands for it.
pub fn rule_item(permission: &Permission) -> String {
    let mut group = Group::bare(GroupId::random(), String::new());
    group.rules.push(Rule {
        id: RuleId::random(),
        permission: permission.clone(),
        description: String::new(),
    });
    let mut room = usize::MAX;
    rule_items(&group, permission.direction, &mut room).concat()
}

/// The rules of one direction as items in flow style. `room` is what lists may still stand for.
fn rule_items(group: &Group, direction: Direction, room: &mut usize) -> Vec<String> {
    // Description and traffic to peers, then the traffic that has the same peers together.
    let mut peers: BTreeMap<(&str, Traffic), BTreeSet<&Peer>> = BTreeMap::new();
    for rule in rules_of(group, direction) {
        let key = (rule.description.as_str(), rule.permission.traffic);
        peers.entry(key).or_default().insert(&rule.permission.peer);
    }
    let mut items: BTreeMap<(Kind, BTreeSet<&Peer>, &str), Vec<PortRange>> = BTreeMap::new();
    for ((description, traffic), peers) in peers {
        let (kind, ports) = Kind::of(traffic);
        items
            .entry((kind, peers, description))
            .or_default()
            .extend(ports);
    }
    let key = if direction == Direction::Ingress {
        "from"
    } else {
        "to"
    };
    let mut texts = Vec::with_capacity(items.len());
    for ((kind, peers, description), ports) in items {
        let peers: Vec<_> = peers.iter().map(|peer| scalar(&peer.to_string())).collect();
        let rules = fan_out::product(ports.len(), peers.len());
        let peers = peers.join(", ");
        let mut add = |ports: &[PortRange]| {
            let mut item = format!("{{{}", kind.text());
            if !ports.is_empty() {
                let _ = write!(
                    item,
                    ", ports: {}",
                    inline(ports.iter().map(|ports| ports_text(*ports)))
                );
            }
            let _ = write!(item, ", {key}: [{peers}]");
            if !description.is_empty() {
                let _ = write!(item, ", description: {}", scalar(description));
            }
            item.push('}');
            texts.push(item);
        };
        match room.checked_sub(rules) {
            Some(left) => {
                *room = left;
                add(&ports);
            }
            // What would be refused when it is read is written as lists that do not multiply.
            None => ports.chunks(2).for_each(add),
        }
    }
    texts
}

/// What an item says before its ports and peers.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    All,
    Tcp,
    Udp,
    Icmp(IcmpMatch),
    Icmpv6(IcmpMatch),
    Protocol(u8),
}

impl Kind {
    fn of(traffic: Traffic) -> (Self, Option<PortRange>) {
        match traffic {
            Traffic::All => (Self::All, None),
            Traffic::Tcp(ports) => (Self::Tcp, Some(ports)),
            Traffic::Udp(ports) => (Self::Udp, Some(ports)),
            Traffic::Icmp(icmp) => (Self::Icmp(icmp), None),
            Traffic::Icmpv6(icmp) => (Self::Icmpv6(icmp), None),
            Traffic::Protocol(number) => (Self::Protocol(number), None),
        }
    }

    fn text(&self) -> String {
        let icmp = |protocol: &str, icmp: &IcmpMatch| match icmp {
            IcmpMatch::Any => format!("protocol: {protocol}"),
            IcmpMatch::Type(kind) => format!("protocol: {protocol}, type: {kind}"),
            IcmpMatch::TypeCode(kind, code) => {
                format!("protocol: {protocol}, type: {kind}, code: {code}")
            }
        };
        match self {
            Self::All => "protocol: all".to_owned(),
            Self::Tcp => "protocol: tcp".to_owned(),
            Self::Udp => "protocol: udp".to_owned(),
            Self::Icmp(part) => icmp("icmp", part),
            Self::Icmpv6(part) => icmp("icmpv6", part),
            Self::Protocol(number) => format!("protocol: {number}"),
        }
    }
}

fn ports_text(ports: PortRange) -> String {
    if ports == PortRange::ALL {
        "0-65535".to_owned()
    } else {
        ports.to_string()
    }
}

fn interface_item(interface: &Interface) -> String {
    let standard = Interface::default();
    let groups = interface.groups.iter().map(|name| scalar(name.as_str()));
    let mut parts: Vec<String> = interface
        .matching
        .as_deref()
        .map(match_item)
        .into_iter()
        .collect();
    parts.push(format!(
        "groups: [{}]",
        groups.collect::<Vec<_>>().join(", ")
    ));
    if interface.side == Side::Guest {
        parts.push("side: guest".to_owned());
    }
    match interface.hook {
        Hook::Auto => {}
        Hook::Xdp => parts.push("hook: xdp".to_owned()),
        Hook::Tc => parts.push("hook: tc".to_owned()),
        Hook::XdpGeneric => parts.push("hook: xdp-generic".to_owned()),
    }
    if let Some(netns) = &interface.netns {
        parts.push(format!("netns: {}", scalar(netns)));
    }
    if !interface.addresses.is_empty() {
        let addresses = interface
            .addresses
            .iter()
            .map(|address| scalar(&address.to_string()));
        parts.push(format!(
            "addresses: [{}]",
            addresses.collect::<Vec<_>>().join(", ")
        ));
    }
    match &interface.macs {
        Macs::Peer => {}
        Macs::Any => parts.push("macs: any".to_owned()),
        Macs::Listed(macs) => {
            let macs = macs.iter().map(|mac| scalar(&mac.to_string()));
            parts.push(format!("macs: [{}]", macs.collect::<Vec<_>>().join(", ")));
        }
    }
    if !interface.vlans.is_empty() {
        let vlans = interface.vlans.iter().map(u16::to_string);
        parts.push(format!("vlans: [{}]", vlans.collect::<Vec<_>>().join(", ")));
    }
    if !interface.ethertypes.is_empty() {
        let ethertypes = interface
            .ethertypes
            .iter()
            .map(|number| format!("{number:#06x}"));
        parts.push(format!(
            "ethertypes: [{}]",
            ethertypes.collect::<Vec<_>>().join(", ")
        ));
    }
    if interface.replace_xdp {
        parts.push("replace_xdp: true".to_owned());
    }
    if !interface.tcp_pickup {
        parts.push("tcp_pickup: false".to_owned());
    }
    if interface.strict_fragments {
        parts.push("fragments: strict".to_owned());
    }
    if interface.egress_drops == EgressDrops::Told {
        parts.push("egress_drops: told".to_owned());
    }
    if interface.audit {
        parts.push("audit: true".to_owned());
    }
    parts.extend(timeouts(interface.timeouts, standard.timeouts));
    if let Some(max_flows) = interface.max_flows {
        parts.push(format!("max_flows: {max_flows}"));
    }
    format!("{{{}}}", parts.join(", "))
}

fn match_item(matching: &DeviceMatch) -> String {
    let name = matching
        .name
        .as_ref()
        .map(|name| ("name", name.to_string()));
    let mac = matching.mac.as_ref().map(|mac| ("mac", mac.to_string()));
    let alias = matching
        .alias
        .as_ref()
        .map(|alias| ("alias", alias.to_string()));
    let parts = [name, mac, alias].into_iter().flatten();
    let parts: Vec<_> = parts
        .map(|(key, text)| format!("{key}: {}", scalar(&text)))
        .collect();
    format!("match: {{{}}}", parts.join(", "))
}

fn timeouts(given: Timeouts, standard: Timeouts) -> Option<String> {
    let parts = [
        (
            "tcp_established",
            given.tcp_established_s,
            standard.tcp_established_s,
        ),
        ("udp", given.udp_s, standard.udp_s),
        ("udp_stream", given.udp_stream_s, standard.udp_stream_s),
    ];
    let changed = parts
        .iter()
        .filter(|(_, given, standard)| given != standard);
    let changed: Vec<_> = changed
        .map(|(name, given, _)| format!("{name}: {given}"))
        .collect();
    (!changed.is_empty()).then(|| format!("timeouts: {{{}}}", changed.join(", ")))
}

fn line(text: &mut String, depth: usize, key: &str, value: &str) {
    let _ = writeln!(text, "{:indent$}{key}: {value}", "", indent = 2 * depth);
}

fn list(text: &mut String, depth: usize, key: &str, items: impl Iterator<Item = String>) {
    let items: Vec<_> = items.collect();
    let key = scalar(key);
    if items.len() <= MAX_INLINE {
        line(text, depth, &key, &format!("[{}]", items.join(", ")));
        return;
    }
    let indent = 2 * depth;
    let _ = writeln!(text, "{:indent$}{key}:", "");
    for item in items {
        let _ = writeln!(text, "{:indent$}  - {item}", "");
    }
}

/// One item alone needs no brackets.
fn inline(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    match items.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

/// A text as any YAML reader takes it for that text, in quotes where it needs them.
pub(crate) fn scalar(text: &str) -> String {
    let after_mark = text
        .strip_prefix("sg:")
        .or_else(|| text.strip_prefix("pl:"));
    let body = after_mark.unwrap_or(text);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
    let words = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    // A word of dashes alone would begin a list, or break one off.
    let begins = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let safe = body
        .split(' ')
        .all(|word| word.starts_with(begins) && word.chars().all(plain))
        && !words.iter().any(|word| word.eq_ignore_ascii_case(text))
        && !looks_like_number(text);
    if safe {
        return text.to_owned();
    }
    // A JSON string is a YAML scalar in double quotes.
    serde_json::Value::from(text).to_string()
}

fn looks_like_number(text: &str) -> bool {
    let digit = text.starts_with(|c: char| c.is_ascii_digit());
    digit && (text.parse::<f64>().is_ok() || text.starts_with("0x") || text.starts_with("0o"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::arbitrary;
    use super::super::file::PolicyFile;
    use super::*;

    /// The VPC without what a file does not hold.
    fn without_ids(vpc: &Vpc) -> Vpc {
        let mut vpc = vpc.clone();
        for group in vpc.groups.values_mut() {
            group.id = "sg-00000000000000000".parse().unwrap();
            for rule in &mut group.rules {
                rule.id = "sgr-00000000000000000".parse().unwrap();
            }
        }
        vpc
    }

    proptest! {
        #[test]
        fn an_exported_vpc_reads_back_as_it_was(vpc in arbitrary::vpc("eth")) {
            let name = "Prod: 1".parse().unwrap();
            let text = export(&name, &vpc);
            let file = PolicyFile::parse("export", &text);
            let file = file.map_err(|findings| TestCaseError::fail(format!("{findings}\n{text}")))?;
            prop_assert_eq!(file.vpc_name().as_str(), name.as_str());
            let read = file.to_vpc(None).unwrap();
            prop_assert_eq!(without_ids(&read), without_ids(&vpc), "\n{}", text);
            // With the ids it had, nothing is left to change.
            prop_assert_eq!(file.to_vpc(Some(&vpc)).unwrap(), vpc);
            prop_assert_eq!(export(&name, &read), text);
        }
    }

    #[test]
    fn an_export_reads_like_a_file_by_hand() {
        let text = "\
vpc: prod
prefix_lists:
  office: [203.0.113.0/24, \"2001:db8:aa::/48\"]
groups:
  app:
    ingress:
      - {protocol: all, from: [sg:app]}
      - {protocol: tcp, ports: [8000-8080, 9000], from: [sg:web]}
      - {protocol: icmp, type: 8, from: [10.0.0.0/8]}
    egress: []
    members: [192.0.2.20]
  idle: {}
  ssh:
    description: SSH from the office
    ingress:
      - {protocol: tcp, ports: 22, from: [pl:office]}
  web:
    ingress:
      - {protocol: tcp, ports: [80, 443], from: [0.0.0.0/0, \"::/0\"], description: public}
interfaces:
  eth0: {groups: [ssh, web], hook: xdp}
  tap3: {groups: [app], side: guest, addresses: [10.0.3.7, \"2001:db8::7\"]}
on_rule_removal: terminate
";
        let file = PolicyFile::parse("prod.yaml", text).unwrap();
        assert_eq!(export(file.vpc_name(), &file.to_vpc(None).unwrap()), text);
    }

    #[test]
    fn more_rules_than_lists_may_stand_for_are_exported_as_a_file_that_is_read() {
        let listed = |count: usize, item: &dyn Fn(usize) -> String| {
            (0..count).map(item).collect::<Vec<_>>().join(", ")
        };
        let peers = listed(400, &|n| format!("10.0.{}.{}", n >> 8, n & 255));
        let rules = |first: usize| {
            let ports = listed(200, &|n| (first + 2 * n).to_string());
            format!("{{protocol: tcp, ports: [{ports}], from: [{peers}]}}")
        };
        let vpc = |rules: &str| {
            let text = format!("{{groups: {{g: {{ingress: [{rules}]}}}}}}");
            PolicyFile::parse("x", &text).unwrap().to_vpc(None).unwrap()
        };
        let group: GroupName = "g".parse().unwrap();
        // Two files with a half each.
        let (mut both, other) = (vpc(&rules(0)), vpc(&rules(1000)));
        let rules = &mut both.groups.get_mut(&group).unwrap().rules;
        let others = other.groups[&group].rules.iter();
        let others = others.filter(|rule| rule.permission.direction == Direction::Ingress);
        rules.extend(others.cloned());
        super::super::change::sort(rules);
        let text = export(&VpcName::default(), &both);
        let read = PolicyFile::parse("export", &text).unwrap();
        let read = read.to_vpc(Some(&both)).unwrap();
        assert_eq!(read.groups[&group], both.groups[&group]);
    }

    #[test]
    fn a_vpc_with_defaults_alone_needs_no_groups() {
        let file = PolicyFile::parse("x", "interfaces: {}").unwrap();
        let text = export(file.vpc_name(), &file.to_vpc(None).unwrap());
        assert_eq!(text, "vpc: default\ninterfaces: {}\n");
    }

    #[test]
    fn a_long_list_takes_a_line_an_item() {
        let prefixes = (0..9)
            .map(|n| format!("10.{n}.0.0/16"))
            .collect::<Vec<_>>()
            .join(", ");
        let text = format!("prefix_lists: {{many: [{prefixes}]}}");
        let file = PolicyFile::parse("x", &text).unwrap();
        let text = export(file.vpc_name(), &file.to_vpc(None).unwrap());
        assert!(
            text.contains("  many:\n    - 10.0.0.0/16\n    - 10.1.0.0/16\n"),
            "{text}"
        );
    }
}
