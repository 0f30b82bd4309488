//! What a VPC and a group start with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sg_common::packet::Direction;

use super::change::{Change, Edit};
use super::model::{Group, OnRuleRemoval, Peer, Permission, Rule, Traffic, Vpc};
use super::names::{GroupId, GroupName, RuleId, VpcName};

/// What AWS says about the group that every VPC has.
pub const DEFAULT_GROUP_DESCRIPTION: &str = "default VPC security group";

/// All addresses of each family; the families are independent, so "everything" takes both.
pub fn everywhere() -> [IpNet; 2] {
    [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]
}

/// Everything out, the egress of a new group.
pub fn egress() -> [Permission; 2] {
    everywhere().map(|prefix| Permission {
        direction: Direction::Egress,
        traffic: Traffic::All,
        peer: Peer::Prefix(prefix),
    })
}

/// Everything from its own members, the ingress of the group `default`.
pub fn ingress_of_default_group() -> Permission {
    Permission {
        direction: Direction::Ingress,
        traffic: Traffic::All,
        peer: Peer::Group(GroupName::default_group()),
    }
}

/// AWS's services on the link: name resolution, metadata, time, activation, task metadata.
pub fn link_local_services() -> BTreeSet<IpAddr> {
    let v4 = [
        (169, 123),
        (169, 250),
        (169, 251),
        (169, 253),
        (169, 254),
        (170, 2),
    ]
    .map(|(c, d)| IpAddr::V4(Ipv4Addr::new(169, 254, c, d)));
    let v6 = [0x123, 0x253, 0x254]
        .map(|last| IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, last)));
    v4.into_iter().chain(v6).collect()
}

impl Vpc {
    /// A VPC with the group `default`, which has no rules yet.
    pub fn bare(default_group: GroupId) -> Self {
        let group = Group::bare(default_group, DEFAULT_GROUP_DESCRIPTION.to_owned());
        Self {
            prefix_lists: BTreeMap::new(),
            groups: BTreeMap::from([(GroupName::default_group(), group)]),
            interfaces: BTreeMap::new(),
            link_local_services: link_local_services(),
            on_rule_removal: OnRuleRemoval::default(),
        }
    }
}

impl Group {
    /// A group that allows nothing.
    pub fn bare(id: GroupId, description: String) -> Self {
        Self {
            id,
            description,
            rules: Vec::new(),
            members: BTreeSet::new(),
        }
    }
}

/// The changes that make a new VPC, with its group `default` and that group's rules.
pub fn create_vpc(vpc: &VpcName) -> Vec<Change> {
    let create = Edit::CreateVpc {
        default_group: GroupId::random(),
    };
    let rules = [ingress_of_default_group()].into_iter().chain(egress());
    let rules = rules.map(|permission| add_rule(GroupName::default_group(), permission));
    let edits = [create].into_iter().chain(rules);
    edits
        .map(|edit| Change {
            vpc: vpc.clone(),
            edit,
        })
        .collect()
}

/// The changes that make a new group: nothing in, everything out.
pub fn create_group(vpc: &VpcName, name: &GroupName, description: &str) -> Vec<Change> {
    let create = Edit::CreateGroup {
        name: name.clone(),
        id: GroupId::random(),
        description: description.to_owned(),
    };
    let rules = egress().map(|permission| add_rule(name.clone(), permission));
    let edits = [create].into_iter().chain(rules);
    edits
        .map(|edit| Change {
            vpc: vpc.clone(),
            edit,
        })
        .collect()
}

fn add_rule(group: GroupName, permission: Permission) -> Edit {
    Edit::AddRule(
        group,
        Rule {
            id: RuleId::random(),
            permission,
            description: String::new(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::super::model::Policy;
    use super::*;

    fn rules(group: &Group) -> Vec<String> {
        group
            .rules
            .iter()
            .map(|rule| rule.permission.to_string())
            .collect()
    }

    #[test]
    fn a_new_group_lets_everything_out_and_nothing_in() {
        let (vpc, web) = (VpcName::default(), "web".parse().unwrap());
        let changes = [create_vpc(&vpc), create_group(&vpc, &web, "the web")].concat();
        let policy = Policy::default().apply(&changes).unwrap();
        let vpc = &policy.vpcs[&vpc];
        assert_eq!(
            rules(&vpc.groups[&web]),
            ["all to 0.0.0.0/0", "all to ::/0"]
        );
        assert_eq!(
            rules(&vpc.groups[&GroupName::default_group()]),
            ["all from sg:default", "all to 0.0.0.0/0", "all to ::/0"]
        );
    }
}
