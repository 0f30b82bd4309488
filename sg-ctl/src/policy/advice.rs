//! What is sound in a policy and still probably not meant: each finding with advice.
//!
//! It judges what rules say, not what the machine is; what the kernel has counted is given by
//! whoever knows.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

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
    #[error("\"{0}\" matches no packet: the group has no interface and no members")]
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
    let facts = Facts::of(vpc);
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
        let has_users = has_interfaces && facts.held.contains(name);
        for rule in &group.rules {
            let permission = &rule.permission;
            let matters = [
                too_open(&facts, permission),
                never_matches(&facts, permission),
                has_users
                    .then(|| empty_peer(vpc, &facts, permission))
                    .flatten(),
                wider.shadow(&facts, rule),
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

/// What is asked about the same lists and groups for rule after rule, found once: there may be as
/// many rules as a list has prefixes.
struct Facts<'a> {
    lists: HashMap<&'a PrefixListName, ListFacts>,
    /// The groups that an interface is in.
    held: HashSet<&'a GroupName>,
}

impl<'a> Facts<'a> {
    fn of(vpc: &'a Vpc) -> Self {
        let lists = vpc.prefix_lists.iter();
        Self {
            lists: lists
                .map(|(name, prefixes)| (name, ListFacts::of(prefixes)))
                .collect(),
            held: vpc.interfaces.values().flat_map(|i| &i.groups).collect(),
        }
    }

    fn list(&self, name: &PrefixListName) -> ListFacts {
        self.lists.get(name).copied().unwrap_or_default()
    }
}

/// What a prefix list comes to.
#[derive(Clone, Copy, Debug, Default)]
struct ListFacts {
    has_v4: bool,
    has_v6: bool,
    /// It has every address of a family.
    is_everyone: bool,
    /// The longest prefix that holds all of the list; none where the list is empty or of both
    /// families.
    hull: Option<IpNet>,
}

impl ListFacts {
    fn of(prefixes: &BTreeSet<IpNet>) -> Self {
        let (v4, v6) = (is_v4, |prefix: &IpNet| !is_v4(prefix));
        Self {
            has_v4: prefixes.iter().any(v4),
            has_v6: prefixes.iter().any(v6),
            is_everyone: prefixes.iter().any(|prefix| prefix.prefix_len() == 0),
            hull: hull(prefixes),
        }
    }

    fn is_empty(self) -> bool {
        !self.has_v4 && !self.has_v6
    }
}

fn is_v4(prefix: &IpNet) -> bool {
    prefix.addr().is_ipv4()
}

/// The bits that the least and the greatest address share are those that all share.
fn hull(prefixes: &BTreeSet<IpNet>) -> Option<IpNet> {
    let shared = match (prefixes.first()?.network(), prefixes.last()?.network()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return None,
    };
    let shortest = prefixes.iter().map(IpNet::prefix_len).min()?;
    let bits = shortest.min(u8::try_from(shared).ok()?);
    Some(IpNet::new(prefixes.first()?.addr(), bits).ok()?.trunc())
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
fn is_everyone(facts: &Facts<'_>, peer: &Peer) -> bool {
    match peer {
        Peer::Prefix(prefix) => prefix.prefix_len() == 0,
        Peer::PrefixList(name) => facts.list(name).is_everyone,
        Peer::Group(_) => false,
    }
}

fn too_open(facts: &Facts<'_>, permission: &Permission) -> Option<Matter> {
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
    if !is_everyone(facts, &permission.peer) {
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

fn never_matches(facts: &Facts<'_>, permission: &Permission) -> Option<Matter> {
    let (some, all_v4, all_v6) = match &permission.peer {
        Peer::Prefix(prefix) => (true, is_v4(prefix), !is_v4(prefix)),
        Peer::PrefixList(name) => {
            let list = facts.list(name);
            (!list.is_empty(), !list.has_v6, !list.has_v4)
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

fn empty_peer(vpc: &Vpc, facts: &Facts<'_>, permission: &Permission) -> Option<Matter> {
    let Peer::Group(name) = &permission.peer else {
        return None;
    };
    let has_members = vpc.groups.get(name).is_some_and(|g| !g.members.is_empty());
    let is_nobody = !facts.held.contains(name) && !has_members;
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
    by_peer: HashMap<(Direction, &'a Peer), ByTraffic<'a>>,
    /// The lengths of the prefixes among them: what has to be tried.
    lengths: BTreeSet<u8>,
}

impl<'a> Wider<'a> {
    fn of(group: &'a Group) -> Self {
        let mut rules: HashMap<_, Vec<&Rule>> = HashMap::new();
        let mut lengths = BTreeSet::new();
        for rule in &group.rules {
            let permission = &rule.permission;
            if let Peer::Prefix(prefix) = permission.peer {
                lengths.insert(prefix.prefix_len());
            }
            rules
                .entry((permission.direction, &permission.peer))
                .or_default()
                .push(rule);
        }
        let by_peer = rules
            .into_iter()
            .map(|(peer, rules)| (peer, ByTraffic::of(&rules)));
        Self {
            by_peer: by_peer.collect(),
            lengths,
        }
    }

    fn shadow(&self, facts: &Facts<'_>, rule: &Rule) -> Option<Matter> {
        let wider = match &rule.permission.peer {
            Peer::Prefix(prefix) => self.over(rule, *prefix),
            // One rule for all of the list, so that removing this one is safe at a glance.
            peer @ Peer::PrefixList(name) => self
                .among(rule, peer)
                .or_else(|| self.over(rule, facts.list(name).hull?)),
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
        let rules = self.by_peer.get(&(rule.permission.direction, peer))?;
        rules.wider(rule)
    }

    /// A rule for a prefix that holds this one.
    fn over(&self, rule: &Rule, prefix: IpNet) -> Option<&'a Rule> {
        self.lengths.range(..=prefix.prefix_len()).find_map(|bits| {
            let held = IpNet::new(prefix.addr(), *bits).ok()?.trunc();
            self.among(rule, &Peer::Prefix(held))
        })
    }
}

/// Rules for one peer, by the first service that they admit and the widest of those first. Traffic
/// is an interval of services, so that what covers another stands before it.
struct ByTraffic<'a> {
    rules: Vec<&'a Rule>,
    /// For each place: which rule, there or before, reaches furthest.
    furthest: Vec<usize>,
}

fn by_first_service(rule: &Rule) -> (u32, Reverse<u32>) {
    let (first, last) = rule.permission.traffic.services();
    (first, Reverse(last))
}

impl<'a> ByTraffic<'a> {
    fn of(rules: &[&'a Rule]) -> Self {
        let mut rules = rules.to_vec();
        rules.sort_by_key(|rule| by_first_service(rule));
        let last = |place: usize| {
            let rule: Option<&&Rule> = rules.get(place);
            rule.map(|rule| rule.permission.traffic.services().1)
        };
        let mut furthest = Vec::with_capacity(rules.len());
        let mut reached = 0;
        for place in 0..rules.len() {
            if last(place) > last(reached) {
                reached = place;
            }
            furthest.push(reached);
        }
        Self { rules, furthest }
    }

    /// Another rule that admits all that this one does.
    fn wider(&self, rule: &Rule) -> Option<&'a Rule> {
        let wanted = by_first_service(rule);
        let place = self
            .rules
            .partition_point(|other| by_first_service(other) < wanted);
        let before = place
            .checked_sub(1)
            .and_then(|before| self.rules.get(*self.furthest.get(before)?));
        let same = self.rules.get(place..).unwrap_or_default().iter();
        let same = same.take_while(|other| by_first_service(other) == wanted);
        before
            .into_iter()
            .chain(same)
            .find(|other| {
                other.id != rule.id && other.permission.traffic.covers(rule.permission.traffic)
            })
            .copied()
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

    /// Some other rule of the group that admits all of this one, found by trying each of them.
    fn is_shadowed(vpc: &Vpc, group: &Group, rule: &Rule) -> bool {
        let holds = |wide: &Peer, narrow: &Peer| match (wide, narrow) {
            _ if wide == narrow => true,
            (Peer::Prefix(wide), Peer::Prefix(narrow)) => wide.contains(narrow),
            (Peer::Prefix(wide), Peer::PrefixList(name)) => {
                let list = &vpc.prefix_lists[name];
                !list.is_empty() && list.iter().all(|prefix| wide.contains(prefix))
            }
            _ => false,
        };
        let permission = &rule.permission;
        group.rules.iter().any(|other| {
            let wider = &other.permission;
            other.id != rule.id
                && wider.direction == permission.direction
                && wider.traffic.covers(permission.traffic)
                && holds(&wider.peer, &permission.peer)
        })
    }

    proptest::proptest! {
        #[test]
        fn a_wider_rule_is_found_wherever_there_is_one(vpc in super::super::arbitrary::vpc("eth")) {
            let advice = advise(&vpc, true, &HashSet::new());
            let told: HashSet<(&GroupName, Option<RuleId>)> = advice
                .iter()
                .filter(|advice| advice.matter.name() == "shadowed")
                .map(|advice| (&advice.group, advice.rule))
                .collect();
            for (name, group) in &vpc.groups {
                for rule in &group.rules {
                    let wanted = is_shadowed(&vpc, group, rule);
                    let is_told = told.contains(&(name, Some(rule.id)));
                    proptest::prop_assert_eq!(is_told, wanted, "{:?}", rule);
                }
            }
        }

        #[test]
        fn a_hull_holds_the_list_and_no_longer_prefix_does(
            prefixes in proptest::collection::btree_set((0_u32..4, 24_u8..=32), 1..6)
        ) {
            let prefixes: BTreeSet<IpNet> = prefixes
                .into_iter()
                .map(|(last, bits)| {
                    let address = std::net::Ipv4Addr::from(0x0a00_0000 + last);
                    IpNet::new(address.into(), bits).unwrap().trunc()
                })
                .collect();
            let hull = hull(&prefixes).unwrap();
            proptest::prop_assert!(prefixes.iter().all(|prefix| hull.contains(prefix)));
            let longer = hull.subnets(hull.prefix_len() + 1).into_iter().flatten();
            for longer in longer {
                proptest::prop_assert!(!prefixes.iter().all(|prefix| longer.contains(prefix)));
            }
        }
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
