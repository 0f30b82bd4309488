//! What a change does, in the words of the policy file.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::style::Style;
use super::words::{list, number};
use crate::policy::change::{Change, Edit};
use crate::policy::model::{
    EgressDrops, Hook, Interface, Macs, OnRuleRemoval, Policy, Rule, Side, Vpc,
};
use crate::policy::names::{GroupName, RuleId, VpcName};

/// One line a change, `+` for what comes, `-` for what goes and `~` for what becomes another.
pub fn changes(before: &Policy, changes: &[Change], style: Style) -> String {
    lines(before, changes, style, false)
}

/// The same, with the ids of rules.
pub fn changes_with_ids(before: &Policy, changes: &[Change], style: Style) -> String {
    lines(before, changes, style, true)
}

fn lines(before: &Policy, changes: &[Change], style: Style, ids: bool) -> String {
    let mut text = String::new();
    let mut shown = &VpcName::default();
    for Change { vpc, edit } in changes {
        if vpc != shown {
            text.push_str(&style.title(&format!("VPC {vpc}")));
            text.push('\n');
            shown = vpc;
        }
        let old = before.vpcs.get(vpc);
        let (sign, line) = Line { vpc, old, ids }.of(edit);
        let symbol = sign.symbol();
        if style.is_coloured() {
            let line = format!("{symbol} {line}");
            text.push_str(&match sign {
                Sign::Comes => style.good(&line),
                Sign::Goes => style.bad(&line),
                Sign::Becomes => style.changed(&line),
            });
        } else {
            text.extend([symbol, ' ']);
            text.push_str(&line);
        }
        text.push('\n');
    }
    text
}

#[derive(Clone, Copy)]
enum Sign {
    Comes,
    Goes,
    Becomes,
}

impl Sign {
    fn symbol(self) -> char {
        match self {
            Self::Comes => '+',
            Self::Goes => '-',
            Self::Becomes => '~',
        }
    }
}

struct Line<'a> {
    vpc: &'a VpcName,
    old: Option<&'a Vpc>,
    ids: bool,
}

impl Line<'_> {
    fn of(&self, edit: &Edit) -> (Sign, String) {
        match edit {
            Edit::CreateVpc { .. } => (Sign::Comes, format!("vpc {}", self.vpc)),
            Edit::DeleteVpc => (Sign::Goes, format!("vpc {}", self.vpc)),
            Edit::SetLinkLocalServices(services) => {
                let old = self.old.map(|vpc| &vpc.link_local_services);
                let change = difference(old, services);
                (Sign::Becomes, format!("link-local services: {change}"))
            }
            Edit::SetOnRuleRemoval(choice) => {
                let word = match choice {
                    OnRuleRemoval::Keep => "keep",
                    OnRuleRemoval::Terminate => "terminate",
                };
                (Sign::Becomes, format!("on rule removal: {word}"))
            }
            Edit::PutPrefixList(name, prefixes) => {
                match self.old.and_then(|vpc| vpc.prefix_lists.get(name)) {
                    Some(old) => {
                        let change = difference(Some(old), prefixes);
                        (Sign::Becomes, format!("prefix list {name}: {change}"))
                    }
                    None => (
                        Sign::Comes,
                        format!("prefix list {name}: {}", shortened(prefixes, "")),
                    ),
                }
            }
            Edit::RemovePrefixList(name) => (Sign::Goes, format!("prefix list {name}")),
            Edit::CreateGroup { name, .. } => (Sign::Comes, format!("group {name}")),
            Edit::DeleteGroup(name) => (Sign::Goes, format!("group {name}")),
            Edit::DescribeGroup(name, text) => (
                Sign::Becomes,
                format!("group {name}: described as \"{text}\""),
            ),
            Edit::SetMembers(name, members) => {
                let old = self.old.and_then(|vpc| vpc.groups.get(name));
                let change = difference(old.map(|group| &group.members), members);
                (Sign::Becomes, format!("group {name}: members {change}"))
            }
            Edit::AddRule(group, rule) => (Sign::Comes, self.rule(group, rule)),
            Edit::RemoveRule(group, id) => (Sign::Goes, self.old_rule(group, *id)),
            Edit::DescribeRule(group, id, text) => {
                let rule = self.old_rule(group, *id);
                (Sign::Becomes, format!("{rule}: described as \"{text}\""))
            }
            Edit::PutInterface(name, interface) => {
                match self.old.and_then(|vpc| vpc.interfaces.get(name)) {
                    Some(old) => {
                        let change = interface_change(old, interface);
                        (Sign::Becomes, format!("interface {name}: {change}"))
                    }
                    None => (
                        Sign::Comes,
                        format!("interface {name}: {}", new_interface(interface)),
                    ),
                }
            }
            Edit::RemoveInterface(name) => (Sign::Goes, format!("interface {name}")),
        }
    }

    fn rule(&self, group: &GroupName, rule: &Rule) -> String {
        let permission = &rule.permission;
        let text = format!("rule {group}: {} {permission}", permission.direction.name());
        match self.ids {
            true => format!("{text}  {}", rule.id),
            false => text,
        }
    }

    fn old_rule(&self, group: &GroupName, id: RuleId) -> String {
        let old = self.old.and_then(|vpc| vpc.groups.get(group));
        let rule = old.and_then(|group| group.rules.iter().find(|rule| rule.id == id));
        match rule {
            Some(rule) => self.rule(group, rule),
            None => format!("rule {group}: {id}"),
        }
    }
}

/// What an interface is in, then what differs from the defaults.
fn new_interface(interface: &Interface) -> String {
    let defaults = settings(&Interface::default());
    let differing = settings(interface).into_iter().zip(defaults);
    let differing = differing.filter(|(setting, default)| setting != default);
    let parts = differing.map(|((name, value), _)| match name {
        "groups" => value.in_words(),
        _ => format!("{name} {}", value.in_words()),
    });
    parts.collect::<Vec<_>>().join("; ")
}

/// What differs of an interface that was attached before.
fn interface_change(old: &Interface, new: &Interface) -> String {
    let differing = settings(old).into_iter().zip(settings(new));
    let differing = differing.filter(|(old, new)| old != new);
    let parts = differing.map(|((name, old), (_, new))| match (&old, &new) {
        (Setting::List(old), Setting::List(new)) => {
            format!("{name} {}", difference(Some(old), new))
        }
        _ => format!("{name} {} → {}", old.in_words(), new.in_words()),
    });
    parts.collect::<Vec<_>>().join("; ")
}

/// One setting of an interface.
#[derive(PartialEq, Eq)]
enum Setting {
    Word(String),
    List(BTreeSet<String>),
}

impl Setting {
    fn list<T: Display>(items: impl IntoIterator<Item = T>) -> Self {
        Self::List(items.into_iter().map(|item| item.to_string()).collect())
    }

    fn yes(yes: bool) -> Self {
        Self::Word(if yes { "yes" } else { "no" }.to_owned())
    }

    fn in_words(&self) -> String {
        match self {
            Self::Word(word) => word.clone(),
            Self::List(items) => list(items),
        }
    }
}

/// Everything that is set of an interface, in an order that is always the same.
fn settings(interface: &Interface) -> Vec<(&'static str, Setting)> {
    let word = |word: &str| Setting::Word(word.to_owned());
    let seconds = |seconds: u32| Setting::Word(format!("{seconds} s"));
    let timeouts = interface.timeouts;
    vec![
        (
            "match",
            match &interface.matching {
                Some(matching) => Setting::Word(matching.to_string()),
                None => word("the device of its name"),
            },
        ),
        ("groups", Setting::list(&interface.groups)),
        (
            "side",
            word(match interface.side {
                Side::Host => "host",
                Side::Guest => "guest",
            }),
        ),
        ("addresses", Setting::list(&interface.addresses)),
        (
            "MAC",
            match &interface.macs {
                Macs::Peer => word("that of the other end"),
                Macs::Any => word("any"),
                Macs::Listed(macs) => Setting::Word(list(macs)),
            },
        ),
        ("VLANs", Setting::list(&interface.vlans)),
        (
            "hook",
            word(match interface.hook {
                Hook::Auto => "auto",
                Hook::Xdp => "xdp",
                Hook::Tc => "tc",
                Hook::XdpGeneric => "xdp-generic",
            }),
        ),
        (
            "netns",
            word(interface.netns.as_deref().unwrap_or("that of the machine")),
        ),
        (
            "ethertypes",
            Setting::list(
                interface
                    .ethertypes
                    .iter()
                    .map(|number| format!("{number:#06x}")),
            ),
        ),
        ("replace XDP programs", Setting::yes(interface.replace_xdp)),
        ("TCP pickup", Setting::yes(interface.tcp_pickup)),
        (
            "fragments",
            word(if interface.strict_fragments {
                "strict"
            } else {
                "early"
            }),
        ),
        (
            "egress drops",
            word(match interface.egress_drops {
                EgressDrops::Silent => "silent",
                EgressDrops::Told => "told",
            }),
        ),
        ("audit", Setting::yes(interface.audit)),
        ("tcp_established", seconds(timeouts.tcp_established_s)),
        ("udp", seconds(timeouts.udp_s)),
        ("udp_stream", seconds(timeouts.udp_stream_s)),
        (
            "max_flows",
            match interface.max_flows {
                Some(flows) => Setting::Word(number(flows.into())),
                None => word("the default share"),
            },
        ),
    ]
}

/// More items than this would bury the line they stand in.
const MAX_ITEMS: usize = 8;

fn shortened<T: Display>(items: impl IntoIterator<Item = T>, sign: &str) -> String {
    let items: Vec<_> = items.into_iter().collect();
    let shown = items
        .iter()
        .take(MAX_ITEMS)
        .map(|item| format!("{sign}{item}"));
    match items.len().saturating_sub(MAX_ITEMS) {
        0 if items.is_empty() => "nothing".to_owned(),
        0 => list(shown),
        more => format!("{} and {sign}{more} more", list(shown)),
    }
}

fn difference<T: Ord + Display>(old: Option<&BTreeSet<T>>, new: &BTreeSet<T>) -> String {
    let nothing = BTreeSet::new();
    let old = old.unwrap_or(&nothing);
    let (added, removed): (Vec<_>, Vec<_>) =
        (new.difference(old).collect(), old.difference(new).collect());
    let mut parts = Vec::new();
    if !added.is_empty() {
        parts.push(shortened(added, "+"));
    }
    if !removed.is_empty() {
        parts.push(shortened(removed, "-"));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::diff::diff;
    use crate::policy::file::PolicyFile;

    fn check(old: &str, new: &str, wanted: &str) {
        let read = |text, before: &Policy| {
            PolicyFile::parse("test", text)
                .unwrap()
                .to_policy(before)
                .unwrap()
        };
        let old = read(old, &Policy::default());
        let new = read(new, &old);
        assert_eq!(changes(&old, &diff(&old, &new), Style::PLAIN), wanted);
    }

    #[test]
    fn a_change_reads_as_the_file_is_written() {
        check(
            "{prefix_lists: {office: [10.0.0.0/8]},
              groups: {web: {ingress: [{service: https, from: pl:office}]}, old: {egress: []}},
              interfaces: {eth0: {groups: [web]}, eth1: {groups: [old]}}}",
            "{prefix_lists: {office: [10.0.0.0/8, 192.0.2.0/24]},
              groups: {web: {ingress: [{service: ssh, from: pl:office}], members: [192.0.2.7]}},
              interfaces: {eth0: {groups: [web], hook: tc}}}",
            "\
- interface eth1
~ prefix list office: +192.0.2.0/24
~ group web: members +192.0.2.7
+ rule web: ingress tcp 22 from pl:office
~ interface eth0: hook auto → tc
- rule web: ingress tcp 443 from pl:office
- group old
",
        );
    }

    #[test]
    fn a_vpc_that_is_not_the_default_is_named_once() {
        check(
            "{vpc: prod, groups: {}, interfaces: {}}",
            "{vpc: prod, groups: {a: {egress: []}, b: {egress: []}}, interfaces: {}}",
            "VPC prod\n+ group a\n+ group b\n",
        );
    }

    #[test]
    fn long_lists_are_cut_and_say_so() {
        let many: Vec<_> = (0..20).collect();
        assert_eq!(shortened(&many, "+").matches('+').count(), MAX_ITEMS + 1);
        assert!(shortened(&many, "+").ends_with("and +12 more"));
    }

    #[test]
    fn ids_are_shown_where_they_are_asked_for() {
        let policy = PolicyFile::parse("test", "groups: {web: {}}")
            .unwrap()
            .to_policy(&Policy::default())
            .unwrap();
        let group: GroupName = "web".parse().unwrap();
        let id = policy.vpcs[&VpcName::default()].groups[&group].rules[0].id;
        let change = Change {
            vpc: VpcName::default(),
            edit: Edit::RemoveRule(group, id),
        };
        let shown = changes_with_ids(&policy, &[change], Style::PLAIN);
        assert_eq!(
            shown,
            format!("- rule web: egress all to 0.0.0.0/0  {id}\n")
        );
    }
}
