//! The rule that is missing, as a command.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use sg_common::packet::Direction;

use super::machine::Protected;
use super::question::Question;
use super::rules::{Fit, RuleFit};
use crate::policy::defaults::everywhere;
use crate::policy::export::{rule_item, scalar};
use crate::policy::model::{IcmpMatch, Peer, Permission, Traffic, Vpc};
use crate::policy::names::{GroupName, InterfaceName, VpcName};

/// What would let the packet pass, and nothing more than needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// A command to copy.
    pub command: String,
    /// The same in a policy file; nothing where no file says it.
    pub file: Option<FileItem>,
    /// Other interfaces that it would open as well.
    pub also_opens: BTreeSet<InterfaceName>,
}

/// What to add to a policy file, so that the next `apply` does not undo a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileItem {
    /// The list it goes into, from the outside in.
    pub list: [String; 3],
    /// What to add to the list.
    pub item: String,
}

impl Remedy {
    /// The command for an interface. `holder` is the interface of this VPC that has the peer's
    /// address.
    pub(super) fn of(
        (vpc_name, vpc): (&VpcName, &Vpc),
        at: &Protected,
        fits: &[RuleFit],
        question: &Question,
        holder: Option<&InterfaceName>,
    ) -> Option<Self> {
        let is_nearest = |wanted: Fit| fits.iter().find(|fit| fit.fit == wanted);
        if is_nearest(Fit::NotInForce).is_some() {
            return Some(Self {
                command: "sg-ctl restore".to_owned(),
                file: None,
                also_opens: BTreeSet::new(),
            });
        }
        if let Some(Peer::Group(group)) =
            is_nearest(Fit::GroupWithoutMembers).map(|fit| &fit.allows.peer)
        {
            let holder = holder.filter(|holder| vpc.interface(holder).is_some());
            return Some(Self::member(vpc_name, group, question.peer, holder));
        }
        if let Some(fit) = is_nearest(Fit::AnotherFamily) {
            // Open to everyone by one family, it was meant to be open to everyone.
            let permission = Permission {
                peer: Peer::Prefix(everyone(question.peer)),
                ..fit.allows.clone()
            };
            return Some(Self::rule((vpc_name, vpc), at, &fit.group, &permission));
        }
        // Where such traffic is spoken of already; or else where it surprises least, which is not
        // among the rules of administration.
        let speaks = |fit: &&RuleFit| {
            matches!(fit.fit, Fit::AnotherPeer | Fit::AnotherProtocol)
                && at.groups.contains(&fit.group)
        };
        let users = |group: &GroupName| {
            let interfaces = vpc.interfaces.iter();
            interfaces
                .filter(|(_, other)| other.groups.contains(group))
                .count()
        };
        let group = fits.iter().find(speaks).map(|fit| &fit.group).or_else(|| {
            at.groups
                .iter()
                .min_by_key(|group| (is_for_administration(vpc, group), users(group)))
        })?;
        let permission = Permission {
            direction: question.direction,
            traffic: Traffic::only(question.service()),
            peer: Peer::Prefix(IpNet::from(question.peer)),
        };
        Some(Self::rule((vpc_name, vpc), at, group, &permission))
    }

    fn rule(
        (vpc_name, vpc): (&VpcName, &Vpc),
        at: &Protected,
        group: &GroupName,
        permission: &Permission,
    ) -> Self {
        let interfaces = vpc.interfaces.iter();
        let also_opens = interfaces
            .filter(|(name, other)| **name != at.name && other.groups.contains(group))
            .map(|(name, _)| name.clone());
        let direction = permission.direction.name();
        Self {
            command: rule_add(vpc_name, group, permission),
            file: Some(FileItem::new(
                ["groups", group.as_str(), direction],
                rule_item(permission),
            )),
            also_opens: also_opens.collect(),
        }
    }

    /// A rule speaks of a group that has no members, and this address was to be one.
    fn member(
        vpc: &VpcName,
        group: &GroupName,
        address: IpAddr,
        holder: Option<&InterfaceName>,
    ) -> Self {
        let name = quoted(group.as_str());
        let (command, file) = match holder {
            Some(holder) => (
                format!(
                    "sg-ctl attach {} --add-group {name}",
                    quoted(holder.entry())
                ),
                FileItem::new(
                    ["interfaces", holder.entry(), "groups"],
                    scalar(group.as_str()),
                ),
            ),
            None => (
                format!("sg-ctl group members {name} --add {address}"),
                FileItem::new(
                    ["groups", group.as_str(), "members"],
                    scalar(&address.to_string()),
                ),
            ),
        };
        Self {
            command: command + &vpc_option(vpc),
            file: Some(file),
            also_opens: BTreeSet::new(),
        }
    }
}

impl FileItem {
    fn new(list: [&str; 3], item: String) -> Self {
        Self {
            list: list.map(scalar),
            item,
        }
    }
}

fn everyone(address: IpAddr) -> IpNet {
    let [v4, v6] = everywhere();
    if address.is_ipv4() { v4 } else { v6 }
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
    words.join(" ") + &vpc_option(vpc)
}

/// The option that names a VPC, where it has to be named.
fn vpc_option(vpc: &VpcName) -> String {
    match *vpc == VpcName::default() {
        true => String::new(),
        false => format!(" --vpc {}", quoted(vpc.as_str())),
    }
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
