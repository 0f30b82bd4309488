//! Which rules speak of a packet: those that admit it, and those that nearly do.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::Serialize;

use super::end::PeerClasses;
use super::question::Question;
use crate::policy::model::{Peer, Permission, Traffic, Vpc};
use crate::policy::names::{GroupName, RuleId};

/// A rule and how far it fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleFit {
    /// Which rule.
    pub id: RuleId,
    /// In which group.
    pub group: GroupName,
    /// What it allows, as rules are written.
    #[serde(serialize_with = "as_text")]
    pub allows: Permission,
    /// How far it fits.
    pub fit: Fit,
}

fn as_text<S: serde::Serializer>(permission: &Permission, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(permission)
}

/// How far a rule fits a packet, the nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// It admits the packet.
    Allows,
    /// It would admit it, and the kernel does not know that yet.
    NotInForce,
    /// It is for this port and for everyone, of the other IP family only.
    AnotherFamily,
    /// It is for this port and for a group that has no members.
    GroupWithoutMembers,
    /// It is for this peer and another port, or ICMP type.
    AnotherPort,
    /// It is for this port and another peer.
    AnotherPeer,
    /// It is for this peer and this port of another protocol.
    AnotherProtocol,
    /// It would admit the packet, in a group that the interface is not in.
    AnotherGroup,
}

/// What may be known of an interface's rules.
pub(super) struct Rules<'a> {
    pub(super) vpc: &'a Vpc,
    pub(super) groups: &'a BTreeSet<GroupName>,
    /// What the kernel knows of the peer.
    pub(super) in_force: &'a PeerClasses,
    /// What the policy and the machine say of it.
    pub(super) stored: &'a PeerClasses,
    /// Whether any address is in the group.
    pub(super) has_members: &'a dyn Fn(&GroupName) -> bool,
    /// Whether the kernel has the rule.
    pub(super) has_rule: &'a dyn Fn(RuleId) -> bool,
}

impl Rules<'_> {
    /// Every rule that fits, or nearly fits, the nearest first.
    pub(super) fn fits(&self, question: &Question) -> Vec<RuleFit> {
        let mut fits = Vec::new();
        for (group, held) in &self.vpc.groups {
            for rule in &held.rules {
                if let Some(fit) = self.fit(question, group, rule.id, &rule.permission) {
                    fits.push(RuleFit {
                        id: rule.id,
                        group: group.clone(),
                        allows: rule.permission.clone(),
                        fit,
                    });
                }
            }
        }
        // A rule for everyone is nearly for anyone: one that names the peer is nearer.
        fits.sort_by_key(|fit| match fit.fit {
            Fit::AnotherPort if is_for_everyone(&fit.allows.peer) => (Fit::AnotherProtocol, false),
            other => (other, true),
        });
        fits
    }

    fn fit(
        &self,
        question: &Question,
        group: &GroupName,
        id: RuleId,
        permission: &Permission,
    ) -> Option<Fit> {
        if permission.direction != question.direction {
            return None;
        }
        let service = question.service();
        let traffic = permission.traffic;
        let is_for = traffic.admits(service);
        let known = self.is_peer(&permission.peer, question, self.in_force);
        let stored = self.is_peer(&permission.peer, question, self.stored);
        let is_attached = self.groups.contains(group);
        match (is_attached, is_for, known || stored) {
            (true, true, true) if known && (self.has_rule)(id) => Some(Fit::Allows),
            (true, true, true) => Some(Fit::NotInForce),
            (true, true, false) => Some(match &permission.peer {
                Peer::Prefix(_) if is_for_everyone(&permission.peer) => Fit::AnotherFamily,
                Peer::Group(peer) if !(self.has_members)(peer) => Fit::GroupWithoutMembers,
                _ => Fit::AnotherPeer,
            }),
            (true, false, true) if Traffic::Protocol(service.protocol()).covers(traffic) => {
                Some(Fit::AnotherPort)
            }
            (true, false, true) if has_port(traffic, service.0 as u16) => {
                Some(Fit::AnotherProtocol)
            }
            (false, true, true) => Some(Fit::AnotherGroup),
            _ => None,
        }
    }

    fn is_peer(&self, peer: &Peer, question: &Question, classes: &PeerClasses) -> bool {
        match peer {
            Peer::Prefix(prefix) => prefix.contains(&question.peer),
            Peer::PrefixList(name) => classes.prefix_lists.contains(name),
            Peer::Group(name) => classes.groups.contains(name),
        }
    }
}

fn is_for_everyone(peer: &Peer) -> bool {
    matches!(peer, Peer::Prefix(prefix) if prefix.prefix_len() == 0)
}

fn has_port(traffic: Traffic, port: u16) -> bool {
    match traffic {
        Traffic::Tcp(ports) | Traffic::Udp(ports) => (ports.first()..=ports.last()).contains(&port),
        _ => false,
    }
}

/// The prefix lists of a VPC that hold the address.
pub(super) fn prefix_lists_of(
    vpc: &Vpc,
    address: std::net::IpAddr,
) -> BTreeSet<crate::policy::names::PrefixListName> {
    let holds = |prefixes: &BTreeSet<IpNet>| prefixes.iter().any(|net| net.contains(&address));
    let lists = vpc.prefix_lists.iter();
    lists
        .filter(|(_, prefixes)| holds(prefixes))
        .map(|(name, _)| name.clone())
        .collect()
}
