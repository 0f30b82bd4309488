//! The rule that is missing, as a command.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::Serialize;
use sg_common::packet::Direction;

use super::question::Question;
use super::rules::{Fit, RuleFit};
use crate::policy::model::{IcmpMatch, Peer, Permission, Traffic, Vpc};
use crate::policy::names::{GroupName, InterfaceName, VpcName};

/// What would let the packet pass, and nothing more than needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// A command to copy.
    pub command: String,
    /// Other interfaces that it would open as well.
    pub also_opens: BTreeSet<InterfaceName>,
}

impl Remedy {
    /// The command for an interface in these groups.
    pub(super) fn of(
        vpc_name: &VpcName,
        vpc: &Vpc,
        interface: &InterfaceName,
        groups: &BTreeSet<GroupName>,
        fits: &[RuleFit],
        question: &Question,
    ) -> Option<Self> {
        if fits.iter().any(|fit| fit.fit == Fit::NotInForce) {
            return Some(Self {
                command: "sg-ctl restore".to_owned(),
                also_opens: BTreeSet::new(),
            });
        }
        // Where such traffic is spoken of already; or else where it surprises least, which is not
        // among the rules of administration.
        let speaks = |fit: &&RuleFit| {
            matches!(fit.fit, Fit::AnotherPeer | Fit::AnotherProtocol)
                && groups.contains(&fit.group)
        };
        let users = |group: &GroupName| {
            let interfaces = vpc.interfaces.iter();
            interfaces
                .filter(|(_, other)| other.groups.contains(group))
                .count()
        };
        let group = fits.iter().find(speaks).map(|fit| &fit.group).or_else(|| {
            groups
                .iter()
                .min_by_key(|group| (is_for_administration(vpc, group), users(group)))
        })?;
        let permission = Permission {
            direction: question.direction,
            traffic: Traffic::only(question.service()),
            peer: Peer::Prefix(IpNet::from(question.peer)),
        };
        let interfaces = vpc.interfaces.iter();
        let also_opens = interfaces
            .filter(|(name, other)| *name != interface && other.groups.contains(group))
            .map(|(name, _)| name.clone());
        Some(Self {
            command: rule_add(vpc_name, group, &permission),
            also_opens: also_opens.collect(),
        })
    }
}

/// Whether the group lets administrators in and nobody else.
fn is_for_administration(vpc: &Vpc, group: &GroupName) -> bool {
    let rules = vpc
        .groups
        .get(group)
        .into_iter()
        .flat_map(|group| &group.rules);
    let mut ingress = rules
        .map(|rule| &rule.permission)
        .filter(|permission| permission.direction == Direction::Ingress)
        .peekable();
    ingress.peek().is_some() && ingress.all(|permission| permission.traffic.is_administration())
}

/// `sg-ctl rule add` for one permission.
pub(crate) fn rule_add(vpc: &VpcName, group: &GroupName, permission: &Permission) -> String {
    let mut words = vec![
        "sg-ctl rule add".to_owned(),
        quoted(group.as_str()),
        format!("--{}", permission.direction.name()),
        format!("--protocol {}", permission.traffic.protocol()),
    ];
    match permission.traffic {
        Traffic::Tcp(ports) | Traffic::Udp(ports) => {
            words.push(format!("--ports {}", quoted(&ports.to_string())));
        }
        Traffic::Icmp(wanted) | Traffic::Icmpv6(wanted) => match wanted {
            IcmpMatch::Any => {}
            IcmpMatch::Type(kind) => words.push(format!("--type {kind}")),
            IcmpMatch::TypeCode(kind, code) => words.push(format!("--type {kind} --code {code}")),
        },
        Traffic::All | Traffic::Protocol(_) => {}
    }
    let whom = match permission.direction {
        Direction::Ingress => "--from",
        Direction::Egress => "--to",
    };
    words.push(format!("{whom} {}", quoted(&permission.peer.to_string())));
    if *vpc != VpcName::default() {
        words.push(format!("--vpc {}", quoted(vpc.as_str())));
    }
    words.join(" ")
}

/// A word that the shell takes as it is. No name has a quote in it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:/@,+=".contains(c);
    match word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{word}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::model::PortRange;

    fn command(vpc: &str, group: &str, traffic: Traffic, direction: Direction) -> String {
        let permission = Permission {
            direction,
            traffic,
            peer: Peer::Prefix("198.51.100.7/32".parse().unwrap()),
        };
        rule_add(&vpc.parse().unwrap(), &group.parse().unwrap(), &permission)
    }

    #[test]
    fn a_command_can_be_copied_as_it_is() {
        let ssh = Traffic::Tcp(PortRange::new(22, 22).unwrap());
        assert_eq!(
            command("default", "web", ssh, Direction::Ingress),
            "sg-ctl rule add web --ingress --protocol tcp --ports 22 --from 198.51.100.7/32"
        );
        let ping = Traffic::Icmp(IcmpMatch::Type(8));
        assert_eq!(
            command("prod", "my $(group)", ping, Direction::Egress),
            "sg-ctl rule add 'my $(group)' --egress --protocol icmp --type 8 --to 198.51.100.7/32 \
             --vpc prod"
        );
        assert_eq!(
            command(
                "default",
                "web",
                Traffic::Tcp(PortRange::ALL),
                Direction::Ingress
            ),
            "sg-ctl rule add web --ingress --protocol tcp --ports '*' --from 198.51.100.7/32"
        );
    }
}
