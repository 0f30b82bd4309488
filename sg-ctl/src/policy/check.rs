//! What a policy must be as a whole, looked at only where it was touched.
//!
//! The policy before the batch is known to be sound, so an untouched rule can only be wrong by
//! naming what has gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use hashbrown::{HashMap, HashSet};

use super::change::Touched;
use super::findings::{Findings, Problem, Subject};
use super::matching::DeviceMatch;
use super::model::{Group, Interface, Macs, Peer, Policy, Side, Timeouts, Traffic, Vpc};
use super::names::{GroupName, InterfaceName, PrefixListName, VpcName, check_description};
use super::prefix::{check_link_local_service, check_member, check_prefix};
use super::suggest::closest;

/// The numbers of VLANs (IEEE 802.1Q §9.6); a tag with 0 has a priority only.
const VLAN_NUMBERS: RangeInclusive<u16> = 1..=4094;
/// The room an interface has for further EtherTypes.
const MAX_ETHERTYPES: usize = 8;

/// EtherTypes below this are lengths.
const LEAST_ETHERTYPE: u16 = 0x0600;

/// EtherTypes that are judged, or that would carry packets around the rules.
const JUDGED_ETHERTYPES: [(u16, &str); 15] = [
    (0x0800, "IPv4"),
    (0x0806, "ARP"),
    (0x22f3, "TRILL, which carries packets"),
    (0x4305, "BATMAN, which carries packets"),
    (0x6558, "bridged Ethernet, which carries packets"),
    (0x8100, "VLAN"),
    (0x86dd, "IPv6"),
    (0x8847, "MPLS, which carries packets"),
    (0x8848, "MPLS, which carries packets"),
    (0x8864, "PPPoE, which carries packets"),
    (0x88a8, "VLAN"),
    (0x88e7, "backbone bridging, which carries packets"),
    (0x894f, "NSH, which carries packets"),
    (0x9100, "VLAN"),
    (0x9200, "VLAN"),
];

/// Adds everything that is wrong with what was touched.
pub(super) fn check(
    policy: &Policy,
    touched: &BTreeMap<VpcName, Touched>,
    findings: &mut Findings,
) {
    for (name, touched) in touched {
        if let Some((name, vpc)) = policy.vpcs.get_key_value(name) {
            VpcCheck {
                policy,
                name,
                vpc,
                findings,
            }
            .check(touched);
        }
    }
    if touched
        .values()
        .any(|touched| !touched.interfaces.is_empty())
    {
        check_interfaces_apart(policy, findings);
    }
    if touched.values().any(|touched| !touched.groups.is_empty()) {
        check_group_ids(policy, findings);
    }
}

fn check_interfaces_apart(policy: &Policy, findings: &mut Findings) {
    let mut seen: HashMap<(&InterfaceName, Option<&str>), &VpcName> = HashMap::new();
    let mut matches = HashMap::new();
    for (vpc_name, vpc) in &policy.vpcs {
        for (name, interface) in &vpc.interfaces {
            let netns = interface.netns.as_deref();
            if let Some(matching) = &interface.matching {
                if matching.is_empty() {
                    continue;
                }
                if let Some((vpc, other)) = matches.insert((matching, netns), (vpc_name, name)) {
                    let subject = Subject::Interface(vpc_name.clone(), name.clone());
                    let (vpc, other) = (VpcName::clone(vpc), InterfaceName::clone(other));
                    findings.add(subject, Problem::MatchTwice { other, vpc });
                }
                continue;
            }
            if let Some(first) = seen.insert((name, netns), vpc_name) {
                let (first, second) = (first.clone(), vpc_name.clone());
                let subject = Subject::Interface(second.clone(), name.clone());
                findings.add(subject, Problem::InTwoVpcs { first, second });
            }
        }
    }
}

/// Adds the addresses that a touched guest has and another guest of its VPC has too.
///
/// What is stored is not asked: an earlier version allowed it, and has to stay in force.
pub(super) fn check_guests_apart(
    policy: &Policy,
    touched: &BTreeMap<VpcName, Touched>,
    findings: &mut Findings,
) {
    for (vpc_name, touched) in touched {
        let interfaces = policy.vpcs.get(vpc_name).map(|vpc| &vpc.interfaces);
        let mut seen: HashMap<IpAddr, &InterfaceName> = HashMap::new();
        for (name, interface) in interfaces.into_iter().flatten() {
            for address in &interface.addresses {
                let Some(other) = seen.insert(*address, name) else {
                    continue;
                };
                if touched.interfaces.contains(name) || touched.interfaces.contains(other) {
                    let subject = Subject::Interface(vpc_name.clone(), name.clone());
                    findings.add(
                        subject,
                        Problem::AddressTwice {
                            address: *address,
                            other: other.clone(),
                        },
                    );
                }
            }
        }
    }
}

fn check_group_ids(policy: &Policy, findings: &mut Findings) {
    let mut seen = HashMap::new();
    for (vpc_name, vpc) in &policy.vpcs {
        for (name, group) in &vpc.groups {
            if let Some(other) = seen.insert(group.id, name) {
                let other = GroupName::clone(other);
                let subject = Subject::Group(vpc_name.clone(), name.clone());
                findings.add(
                    subject,
                    Problem::GroupIdTwice {
                        id: group.id,
                        other,
                    },
                );
            }
        }
    }
}

struct VpcCheck<'a> {
    policy: &'a Policy,
    name: &'a VpcName,
    vpc: &'a Vpc,
    findings: &'a mut Findings,
}

impl VpcCheck<'_> {
    fn check(&mut self, touched: &Touched) {
        if !self.vpc.groups.contains_key(&GroupName::default_group()) {
            self.findings
                .add(Subject::Vpc(self.name.clone()), Problem::NoDefaultGroup);
        }
        for address in &self.vpc.link_local_services {
            if let Err(error) = check_link_local_service(*address) {
                self.findings.add(Subject::Vpc(self.name.clone()), error);
            }
        }
        for name in &touched.prefix_lists {
            self.check_prefix_list(name);
        }
        for name in touched.groups.keys() {
            if !self.vpc.groups.contains_key(name) {
                self.check_gone_group(name);
            }
        }
        for (name, group) in &self.vpc.groups {
            if touched.groups.contains_key(name) {
                self.check_group(name, group, touched);
            }
        }
        for name in &touched.interfaces {
            if let Some(interface) = self.vpc.interfaces.get(name) {
                self.check_interface(name, interface, touched);
            }
        }
    }

    fn check_prefix_list(&mut self, name: &PrefixListName) {
        let subject = Subject::PrefixList(self.name.clone(), name.clone());
        if let Some(prefixes) = self.vpc.prefix_lists.get(name) {
            for error in prefixes
                .iter()
                .filter_map(|prefix| check_prefix(*prefix).err())
            {
                self.findings.add(subject.clone(), error);
            }
            return;
        }
        let names_it = |group: &Group| {
            group
                .rules
                .iter()
                .any(|rule| matches!(&rule.permission.peer, Peer::PrefixList(list) if list == name))
        };
        let users = self.vpc.groups.iter().filter(|(_, group)| names_it(group));
        let users: BTreeSet<_> = users.map(|(name, _)| name.clone()).collect();
        if !users.is_empty() {
            self.findings.add(subject, Problem::PrefixListInUse(users));
        }
    }

    fn check_gone_group(&mut self, name: &GroupName) {
        let dependents = self.vpc.dependents(name);
        if !dependents.is_empty() {
            let subject = Subject::Group(self.name.clone(), name.clone());
            self.findings.add(subject, Problem::GroupInUse(dependents));
        }
    }

    fn check_group(&mut self, name: &GroupName, group: &Group, touched: &Touched) {
        let subject = || Subject::Group(self.name.clone(), name.clone());
        if let Err(error) = check_description(&group.description) {
            self.findings.add(subject(), error);
        }
        for error in group
            .members
            .iter()
            .filter_map(|address| check_member(*address).err())
        {
            self.findings.add(subject(), error);
        }
        // Sorted by permission, so that equal ones are neighbours.
        for pair in group.rules.array_windows::<2>() {
            let [first, second] = pair;
            if first.permission == second.permission {
                let permission = first.permission.to_string();
                let (first, second) = (first.id, second.id);
                self.findings.add(
                    subject(),
                    Problem::RuleTwice {
                        permission,
                        first,
                        second,
                    },
                );
            }
        }
        let mut ids = HashSet::with_capacity(group.rules.len());
        for rule in &group.rules {
            let at_rule = || Subject::Rule(self.name.clone(), name.clone(), rule.id);
            if !ids.insert(rule.id) {
                self.findings.add(at_rule(), Problem::RuleIdTwice(rule.id));
            }
            if let Err(error) = check_description(&rule.description) {
                self.findings.add(at_rule(), error);
            }
            if let Traffic::Protocol(number) = rule.permission.traffic
                && let Some(problem) = named_protocol(number)
            {
                self.findings.add(at_rule(), problem);
            }
            let problem = match &rule.permission.peer {
                Peer::Prefix(prefix) => check_prefix(*prefix).err().map(Problem::from),
                // What a touched name refers to is there, or its going is a finding already.
                Peer::Group(peer) if touched.groups.contains_key(peer) => None,
                Peer::PrefixList(list) if touched.prefix_lists.contains(list) => None,
                Peer::Group(peer) => self.unknown_group(peer),
                Peer::PrefixList(list) => self.unknown_prefix_list(list),
            };
            if let Some(problem) = problem {
                self.findings.add(at_rule(), problem);
            }
        }
    }

    fn unknown_group(&self, name: &GroupName) -> Option<Problem> {
        if self.vpc.groups.contains_key(name) {
            return None;
        }
        let elsewhere = self
            .policy
            .vpcs
            .iter()
            .find(|(_, vpc)| vpc.groups.contains_key(name));
        let name = name.clone();
        Some(match elsewhere {
            Some((other, _)) => Problem::GroupElsewhere {
                name,
                other: other.clone(),
            },
            None => {
                let known = self.vpc.groups.keys().map(GroupName::as_str);
                let known = known.take_while(|_| self.findings.has_few());
                let suggestion = closest(name.as_str(), known).and_then(|name| name.parse().ok());
                Problem::UnknownGroup { name, suggestion }
            }
        })
    }

    fn unknown_prefix_list(&self, name: &PrefixListName) -> Option<Problem> {
        if self.vpc.prefix_lists.contains_key(name) {
            return None;
        }
        let mut vpcs = self.policy.vpcs.iter();
        let elsewhere = vpcs.find(|(_, vpc)| vpc.prefix_lists.contains_key(name));
        let name = name.clone();
        Some(match elsewhere {
            Some((other, _)) => Problem::PrefixListElsewhere {
                name,
                other: other.clone(),
            },
            None => {
                let known = self.vpc.prefix_lists.keys().map(PrefixListName::as_str);
                let known = known.take_while(|_| self.findings.has_few());
                let suggestion = closest(name.as_str(), known).and_then(|name| name.parse().ok());
                Problem::UnknownPrefixList { name, suggestion }
            }
        })
    }

    fn check_interface(&mut self, name: &InterfaceName, interface: &Interface, touched: &Touched) {
        let mut problems = Vec::new();
        let named = match &interface.matching {
            None => name.check_device(),
            Some(_) => name.check_entry(),
        };
        problems.extend(named.err().map(Problem::from));
        let matching = interface.matching.as_deref();
        if matching.is_some_and(DeviceMatch::is_empty) {
            problems.push(Problem::EmptyMatch);
        }
        if interface.groups.is_empty() {
            problems.push(Problem::NoGroups);
        }
        let named = interface
            .groups
            .iter()
            .filter(|group| !touched.groups.contains_key(*group));
        problems.extend(named.filter_map(|group| self.unknown_group(group)));
        match interface.side {
            Side::Guest if interface.addresses.is_empty() => {
                problems.push(Problem::GuestWithoutAddresses);
            }
            Side::Host if !interface.addresses.is_empty() => {
                problems.push(Problem::AddressesOnHost);
            }
            Side::Host | Side::Guest => {}
        }
        if interface.side == Side::Host {
            if interface.macs != Macs::default() {
                problems.push(Problem::GuestOnly("macs"));
            }
            if !interface.vlans.is_empty() {
                problems.push(Problem::GuestOnly("vlans"));
            }
        }
        let wrong_vlans = interface.vlans.iter();
        let wrong_vlans = wrong_vlans.filter(|vlan| !VLAN_NUMBERS.contains(vlan));
        problems.extend(wrong_vlans.map(|vlan| Problem::Vlan(*vlan)));
        let refused = interface
            .addresses
            .iter()
            .filter_map(|address| check_member(*address).err());
        problems.extend(refused.map(Problem::from));
        problems.extend(check_timeouts(interface.timeouts));
        problems.extend(check_ethertypes(&interface.ethertypes));
        if interface.max_flows == Some(0) {
            problems.push(Problem::NoFlows);
        }
        if let Some(netns) = &interface.netns
            && !is_netns(netns)
        {
            problems.push(Problem::Netns(netns.clone()));
        }
        for problem in problems {
            self.findings
                .add(Subject::Interface(self.name.clone(), name.clone()), problem);
        }
    }
}

fn named_protocol(number: u8) -> Option<Problem> {
    let (name, parts) = match number {
        1 => ("icmp", "type and code"),
        6 => ("tcp", "ports"),
        17 => ("udp", "ports"),
        58 => ("icmpv6", "type and code"),
        _ => return None,
    };
    Some(Problem::ProtocolByNumber {
        number,
        name,
        parts,
    })
}

fn check_timeouts(timeouts: Timeouts) -> impl Iterator<Item = Problem> {
    [
        ("tcp_established", timeouts.tcp_established_s, 60, 432_000),
        ("udp", timeouts.udp_s, 30, 60),
        ("udp_stream", timeouts.udp_stream_s, 60, 180),
    ]
    .into_iter()
    .filter(|(_, seconds, least, most)| !(*least..=*most).contains(seconds))
    .map(|(name, seconds, least, most)| Problem::Timeout {
        name,
        seconds,
        least,
        most,
    })
}

fn check_ethertypes(ethertypes: &BTreeSet<u16>) -> impl Iterator<Item = Problem> {
    let count = ethertypes.len();
    let too_many = (count > MAX_ETHERTYPES).then_some(Problem::EthertypeCount(count));
    let each = ethertypes.iter().filter_map(|&ethertype| {
        if ethertype < LEAST_ETHERTYPE {
            let why = ", or use a number from 0x0600 to 0xffff";
            return Some(Problem::Ethertype {
                ethertype,
                name: "a length",
                why,
            });
        }
        let (_, name) = JUDGED_ETHERTYPES
            .iter()
            .find(|(number, _)| *number == ethertype)?;
        let why = ", because what it carries is for the rules to judge";
        Some(Problem::Ethertype {
            ethertype,
            name,
            why,
        })
    });
    too_many.into_iter().chain(each)
}

/// A name below `/run/netns`, or an absolute path.
fn is_netns(text: &str) -> bool {
    let printable = !text.is_empty() && text.len() <= 4096 && !text.contains(char::is_control);
    let plain_name = !text.contains('/') && text.len() <= 255 && !matches!(text, "." | "..");
    printable && (text.starts_with('/') || plain_name)
}
