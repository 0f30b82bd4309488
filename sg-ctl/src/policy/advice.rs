//! What is sound in a policy and still probably not meant: each finding with advice.
//!
//! It judges what rules say, not what the machine is; what the kernel has counted is given by
//! whoever knows.

use std::collections::{BTreeSet, HashMap, HashSet};

use ipnet::IpNet;
use sg_common::packet::Direction;

use super::defaults;
use super::model::{Group, Peer, Permission, PortRange, Rule, Traffic, Vpc};
use super::names::{GroupName, PrefixListName, RuleId};
use super::services::service;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Worth knowing.
    Notice,
    /// Probably a mistake.
    Warning,
    /// The policy cannot be applied.
    Error,
}

impl Level {
    /// The word people and JSON use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing to think about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The group it is about.
    pub group: GroupName,
    /// The rule, if it is about one.
    pub rule: Option<RuleId>,
    /// What it is.
    pub matter: Matter,
}

/// What is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Matter {
    /// SSH or remote desktop for everyone.
    #[error("\"{0}\" lets everyone administer the machine; name the prefixes it is done from")]
    OpenAdministration(Permission),
    /// A database for everyone.
    #[error("\"{0}\" opens a database to everyone; name the group or the prefixes that use it")]
    OpenDatabase(Permission),
    /// Every port, for everyone.
    #[error("\"{0}\" opens everything to everyone; name the protocol and the ports")]
    OpensEverything(Permission),
    /// Every port, for some.
    #[error("\"{0}\" opens every port; name those that are used")]
    OpensEveryPort(Permission),
    /// Another rule admits all that this one does.
    #[error("\"{rule}\" adds nothing to \"{by}\" ({id}); remove one of them")]
    Shadowed {
        /// The narrower.
        rule: Permission,
        /// The wider.
        by: Permission,
        /// The wider one's id.
        id: RuleId,
    },
    /// No packet is like that.
    #[error("\"{0}\" can never match: {1}")]
    NeverMatches(Permission, &'static str),
    /// The group in the rule has no member.
    #[error("\"{0}\" matches nobody: that group has no interface and no members")]
    EmptyPeer(Permission),
    /// SSH beside the application's rules.
    #[error("has rules for administration among others; keep them in a group of their own")]
    MixedAdministration,
    /// Nothing uses the group.
    #[error("is used by no interface and no rule; delete it, or attach it")]
    UnusedGroup,
    /// In force, and nothing has come by it.
    #[error("\"{0}\" has admitted nothing yet; is it needed?")]
    NeverHit(Permission),
}

impl Matter {
    /// How much it matters.
    pub fn level(&self) -> Level {
        match self {
            Self::OpenAdministration(_)
            | Self::OpenDatabase(_)
            | Self::OpensEverything(_)
            | Self::NeverMatches(..)
            | Self::EmptyPeer(_) => Level::Warning,
            Self::OpensEveryPort(_)
            | Self::Shadowed { .. }
            | Self::MixedAdministration
            | Self::UnusedGroup
            | Self::NeverHit(_) => Level::Notice,
        }
    }

    /// The word JSON uses.
    pub fn name(&self) -> &'static str {
        match self {
            Self::OpenAdministration(_) => "open-administration",
            Self::OpenDatabase(_) => "open-database",
            Self::OpensEverything(_) => "opens-everything",
            Self::OpensEveryPort(_) => "opens-every-port",
            Self::Shadowed { .. } => "shadowed",
            Self::NeverMatches(..) => "never-matches",
            Self::EmptyPeer(_) => "empty-peer",
            Self::MixedAdministration => "mixed-administration",
            Self::UnusedGroup => "unused-group",
            Self::NeverHit(_) => "never-hit",
        }
    }
}

/// The services that hold data, by their names.
const DATABASES: [&str; 7] = [
    "memcached",
    "mongodb",
    "mssql",
    "mysql",
    "oracle",
    "postgres",
    "redis",
];

/// Everything that is worth thinking about in a VPC, by group and rule. `has_interfaces` tells that
/// the interfaces are known, and so who uses a group; `unhit` are the rules in force that have
/// admitted nothing.
pub fn advise(vpc: &Vpc, has_interfaces: bool, unhit: &HashSet<RuleId>) -> Vec<Advice> {
    let used = Used::of(vpc);
    let mut found = Vec::new();
    for (name, group) in &vpc.groups {
        let mut add = |rule: Option<RuleId>, matter| {
            found.push(Advice {
                group: name.clone(),
                rule,
                matter,
            });
        };
        if has_interfaces && !used.contains(name) {
            add(None, Matter::UnusedGroup);
        }
        if is_mixed(group) {
            add(None, Matter::MixedAdministration);
        }
        let wider = Wider::of(group);
        for rule in &group.rules {
            let permission = &rule.permission;
            let matters = [
                too_open(vpc, permission),
                never_matches(vpc, permission),
                (has_interfaces && is_held(vpc, name))
                    .then(|| empty_peer(vpc, permission))
                    .flatten(),
                wider.shadow(vpc, rule),
                (unhit.contains(&rule.id) && !defaults::egress().contains(permission))
                    .then(|| Matter::NeverHit(permission.clone())),
            ];
            for matter in matters.into_iter().flatten() {
                add(Some(rule.id), matter);
            }
        }
    }
    found
}

/// The groups that an interface is in or a rule names; every VPC has `default`.
struct Used<'a>(BTreeSet<&'a GroupName>);

impl<'a> Used<'a> {
    fn of(vpc: &'a Vpc) -> Self {
        let interfaces = vpc.interfaces.values();
        let mut used: BTreeSet<_> = interfaces.flat_map(|i| &i.groups).collect();
        for (name, group) in &vpc.groups {
            let peers = group.rules.iter().map(|rule| &rule.permission.peer);
            used.extend(peers.filter_map(|peer| match peer {
                Peer::Group(other) if other != name => Some(other),
                _ => None,
            }));
        }
        Self(used)
    }

    fn contains(&self, name: &GroupName) -> bool {
        self.0.contains(name) || *name == GroupName::default_group()
    }
}

/// Whether the peer is every address of a family.
fn is_everyone(vpc: &Vpc, peer: &Peer) -> bool {
    let whole = |prefix: &IpNet| prefix.prefix_len() == 0;
    match peer {
        Peer::Prefix(prefix) => whole(prefix),
        Peer::PrefixList(name) => prefixes(vpc, name).iter().any(whole),
        Peer::Group(_) => false,
    }
}

fn prefixes<'a>(vpc: &'a Vpc, name: &PrefixListName) -> &'a BTreeSet<IpNet> {
    static NONE: BTreeSet<IpNet> = BTreeSet::new();
    vpc.prefix_lists.get(name).unwrap_or(&NONE)
}

fn too_open(vpc: &Vpc, permission: &Permission) -> Option<Matter> {
    if permission.direction == Direction::Egress {
        return None;
    }
    let traffic = permission.traffic;
    // Port 0 is no service, and is left out as often as not.
    let most = PortRange::new(1, u16::MAX)?;
    let opens_all = traffic == Traffic::All
        || [Traffic::Tcp(most), Traffic::Udp(most)]
            .into_iter()
            .any(|all| traffic.covers(all));
    if !is_everyone(vpc, &permission.peer) {
        let is_for_prefixes = !matches!(permission.peer, Peer::Group(_));
        return (opens_all && is_for_prefixes).then(|| Matter::OpensEveryPort(permission.clone()));
    }
    if opens_all {
        return Some(Matter::OpensEverything(permission.clone()));
    }
    let admits_any = |names: &[&str]| {
        let services = names.iter().filter_map(|name| service(name).ok());
        services
            .flat_map(|service| service.traffic)
            .any(|of_service| traffic.covers(*of_service))
    };
    if admits_any(&["ssh", "rdp"]) {
        return Some(Matter::OpenAdministration(permission.clone()));
    }
    admits_any(&DATABASES).then(|| Matter::OpenDatabase(permission.clone()))
}

fn never_matches(vpc: &Vpc, permission: &Permission) -> Option<Matter> {
    let is_v4 = |prefix: &IpNet| prefix.addr().is_ipv4();
    let (some, all_v4, all_v6) = match &permission.peer {
        Peer::Prefix(prefix) => (true, is_v4(prefix), !is_v4(prefix)),
        Peer::PrefixList(name) => {
            let prefixes = prefixes(vpc, name);
            (
                !prefixes.is_empty(),
                prefixes.iter().all(is_v4),
                !prefixes.iter().any(is_v4),
            )
        }
        Peer::Group(_) => (true, false, false),
    };
    let why = match permission.traffic {
        _ if !some => "the prefix list is empty",
        Traffic::Icmp(_) if all_v6 => "IPv6 has icmpv6 instead of icmp",
        Traffic::Icmpv6(_) if all_v4 => "IPv4 has icmp instead of icmpv6",
        _ => return None,
    };
    Some(Matter::NeverMatches(permission.clone(), why))
}

/// Whether an interface is in the group.
fn is_held(vpc: &Vpc, group: &GroupName) -> bool {
    let mut interfaces = vpc.interfaces.values();
    interfaces.any(|interface| interface.groups.contains(group))
}

fn empty_peer(vpc: &Vpc, permission: &Permission) -> Option<Matter> {
    let Peer::Group(name) = &permission.peer else {
        return None;
    };
    let has_members = vpc.groups.get(name).is_some_and(|g| !g.members.is_empty());
    let is_nobody = !is_held(vpc, name) && !has_members;
    is_nobody.then(|| Matter::EmptyPeer(permission.clone()))
}

fn is_mixed(group: &Group) -> bool {
    let ingress = || {
        let permissions = group.rules.iter().map(|rule| &rule.permission);
        permissions
            .filter(|permission| permission.direction == Direction::Ingress)
            .map(|permission| permission.traffic)
    };
    // Who may ping is the business of either.
    let is_application = |traffic: Traffic| {
        matches!(traffic, Traffic::Tcp(_) | Traffic::Udp(_)) && !traffic.is_administration()
    };
    ingress().any(Traffic::is_administration) && ingress().any(is_application)
}

/// The rules of one group by whom they speak of, to find one that admits all of another.
struct Wider<'a> {
    by_peer: HashMap<(Direction, &'a Peer), Vec<&'a Rule>>,
    /// The lengths of the prefixes among them: what has to be tried.
    lengths: BTreeSet<u8>,
}

impl<'a> Wider<'a> {
    fn of(group: &'a Group) -> Self {
        let mut by_peer: HashMap<_, Vec<&Rule>> = HashMap::new();
        let mut lengths = BTreeSet::new();
        for rule in &group.rules {
            let permission = &rule.permission;
            if let Peer::Prefix(prefix) = permission.peer {
                lengths.insert(prefix.prefix_len());
            }
            by_peer
                .entry((permission.direction, &permission.peer))
                .or_default()
                .push(rule);
        }
        Self { by_peer, lengths }
    }

    fn shadow(&self, vpc: &Vpc, rule: &Rule) -> Option<Matter> {
        let wider = match &rule.permission.peer {
            Peer::Prefix(prefix) => self.over(rule, *prefix),
            peer @ Peer::PrefixList(name) => self.among(rule, peer).or_else(|| {
                let mut over = prefixes(vpc, name).iter().map(|net| self.over(rule, *net));
                let first = over.next()??;
                // One rule for all of the list, so that removing this one is safe at a glance.
                over.all(|other| other.is_some_and(|other| other.id == first.id))
                    .then_some(first)
            }),
            peer @ Peer::Group(_) => self.among(rule, peer),
        }?;
        Some(Matter::Shadowed {
            rule: rule.permission.clone(),
            by: wider.permission.clone(),
            id: wider.id,
        })
    }

    /// A rule for the same peer.
    fn among(&self, rule: &Rule, peer: &Peer) -> Option<&'a Rule> {
        let permission = &rule.permission;
        let rules = self.by_peer.get(&(permission.direction, peer))?;
        let mut wider = rules.iter().filter(|other| {
            other.id != rule.id && other.permission.traffic.covers(permission.traffic)
        });
        wider.next().copied()
    }

    /// A rule for a prefix that holds this one.
    fn over(&self, rule: &Rule, prefix: IpNet) -> Option<&'a Rule> {
        self.lengths.range(..=prefix.prefix_len()).find_map(|bits| {
            let held = IpNet::new(prefix.addr(), *bits).ok()?.trunc();
            self.among(rule, &Peer::Prefix(held))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::PolicyFile;
    use super::super::model::Policy;
    use super::*;

    /// "group: matter" for each finding.
    fn advice(text: &str) -> Vec<String> {
        let file = PolicyFile::parse("test", text).unwrap_or_else(|error| panic!("{error}"));
        let policy = file.to_policy(&Policy::default()).unwrap();
        let vpc = &policy.vpcs[file.vpc_name()];
        advise(vpc, file.has_interfaces(), &HashSet::new())
            .iter()
            .map(|advice| format!("{}: {}", advice.group, advice.matter.name()))
            .collect()
    }

    #[track_caller]
    fn check(ingress: &str, wanted: &[&str]) {
        let text = format!(
            "{{prefix_lists: {{world: [0.0.0.0/0], office: [10.0.0.0/8], six: ['2001:db8::/32'], none: []}}, \
             groups: {{g: {{ingress: [{ingress}]}}}}}}"
        );
        let wanted: Vec<_> = wanted.iter().map(|matter| format!("g: {matter}")).collect();
        assert_eq!(advice(&text), wanted, "{ingress}");
    }

    #[test]
    fn what_everyone_may_reach_is_looked_at() {
        check("{service: https, from: 0.0.0.0/0}", &[]);
        check("{service: ssh, from: 10.0.0.0/8}", &[]);
        check("{service: ssh, from: 0.0.0.0/0}", &["open-administration"]);
        check("{service: ssh, from: '::/0'}", &["open-administration"]);
        check("{service: ssh, from: pl:world}", &["open-administration"]);
        check(
            "{protocol: tcp, ports: 3000-4000, from: 0.0.0.0/0}",
            &["open-administration"],
        );
        check("{service: postgres, from: 0.0.0.0/0}", &["open-database"]);
        check("{service: redis, from: 10.0.0.0/8}", &[]);
        check("{protocol: all, from: '::/0'}", &["opens-everything"]);
        check(
            "{protocol: tcp, ports: 1-65535, from: 0.0.0.0/0}",
            &["opens-everything"],
        );
        check(
            "{protocol: udp, ports: all, from: pl:office}",
            &["opens-every-port"],
        );
        check("{protocol: all, from: self}", &[]);
    }

    #[test]
    fn a_rule_that_another_one_covers_is_found() {
        let wide = "{protocol: tcp, ports: 80-90, from: 10.0.0.0/8}";
        let both = |other: &str| format!("{wide}, {other}");
        check(
            &both("{protocol: tcp, ports: 85, from: 10.1.0.0/16}"),
            &["shadowed"],
        );
        check(
            &both("{protocol: tcp, ports: 85, from: pl:office}"),
            &["shadowed"],
        );
        check(&both("{protocol: tcp, ports: 85, from: 11.0.0.0/8}"), &[]);
        check(
            &both("{protocol: tcp, ports: 85-91, from: 10.1.0.0/16}"),
            &[],
        );
        check(&both("{protocol: udp, ports: 85, from: 10.1.0.0/16}"), &[]);
        check(
            "{protocol: all, from: self}, {protocol: tcp, ports: 80, from: self}",
            &["shadowed"],
        );
    }

    #[test]
    fn what_no_packet_is_like_is_found() {
        check(
            "{protocol: icmp, type: 8, from: '::/0'}",
            &["never-matches"],
        );
        check(
            "{protocol: icmpv6, type: 128, from: pl:office}",
            &["never-matches"],
        );
        check(
            "{protocol: icmp, type: 8, from: pl:six}",
            &["never-matches"],
        );
        check("{service: http, from: pl:none}", &["never-matches"]);
        check("{protocol: icmp, type: 8, from: 10.0.0.0/8}", &[]);
    }

    #[test]
    fn administration_is_kept_apart() {
        check(
            "{service: ssh, from: 10.0.0.0/8}, {service: https, from: 0.0.0.0/0}",
            &["mixed-administration"],
        );
        check(
            "{service: ssh, from: 10.0.0.0/8}, {protocol: icmp, type: 8, from: 10.0.0.0/8}",
            &[],
        );
    }

    #[test]
    fn groups_that_nobody_has_are_found_where_interfaces_are_known() {
        let groups =
            "groups: {used: {ingress: [{service: http, from: sg:peer}]}, peer: {}, spare: {}}";
        assert_eq!(advice(&format!("{{{groups}}}")), [""; 0]);
        assert_eq!(
            advice(&format!(
                "{{{groups}, interfaces: {{eth0: {{groups: [used]}}}}}}"
            )),
            ["spare: unused-group", "used: empty-peer"]
        );
    }
}
