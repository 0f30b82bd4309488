//! Every operation there is, by the name that requests call it by.

use super::Context;
use super::fault::{Fault, Result};
use super::front::Draft;
use super::query::Params;
use super::xml::Xml;
use super::{account, groups, network_interfaces, prefix_lists, rules, subnets, tags, vpcs};

/// What an operation does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Run {
    /// It only looks.
    Look(fn(&mut Params, &Context<'_>) -> Result<Xml>),
    /// It changes something; read-only keys may not.
    Change(fn(&mut Params, &Context<'_>) -> Result<Draft>),
}

use Run::{Change, Look};

/// The version of each protocol that is spoken.
pub(super) const EC2: &str = "2016-11-15";
pub(super) const STS: &str = "2011-06-15";

const OPERATIONS: &[(&str, Run)] = &[
    ("AssociateSecurityGroupVpc", Change(groups::associate)),
    (
        "AuthorizeSecurityGroupEgress",
        Change(rules::authorize_egress),
    ),
    (
        "AuthorizeSecurityGroupIngress",
        Change(rules::authorize_ingress),
    ),
    ("CreateManagedPrefixList", Change(prefix_lists::create)),
    ("CreateNetworkInterface", Change(network_interfaces::create)),
    ("CreateSecurityGroup", Change(groups::create)),
    ("CreateSubnet", Change(subnets::create)),
    ("CreateTags", Change(tags::create)),
    ("CreateVpc", Change(vpcs::create)),
    ("DeleteManagedPrefixList", Change(prefix_lists::delete)),
    ("DeleteNetworkInterface", Change(network_interfaces::delete)),
    ("DeleteSecurityGroup", Change(groups::delete)),
    ("DeleteSubnet", Change(subnets::delete)),
    ("DeleteTags", Change(tags::delete)),
    ("DeleteVpc", Change(vpcs::delete)),
    ("DescribeAccountAttributes", Look(account::attributes)),
    ("DescribeAvailabilityZones", Look(account::zones)),
    ("DescribeInstances", Look(account::instances)),
    ("DescribeInternetGateways", Look(account::internet_gateways)),
    ("DescribeManagedPrefixLists", Look(prefix_lists::describe)),
    ("DescribeNetworkAcls", Look(account::network_acls)),
    (
        "DescribeNetworkInterfaceAttribute",
        Look(network_interfaces::describe_attribute),
    ),
    (
        "DescribeNetworkInterfaces",
        Look(network_interfaces::describe),
    ),
    ("DescribePrefixLists", Look(prefix_lists::describe_provided)),
    ("DescribeRegions", Look(account::regions)),
    ("DescribeRouteTables", Look(account::route_tables)),
    ("DescribeSecurityGroupReferences", Look(groups::references)),
    ("DescribeSecurityGroupRules", Look(rules::describe)),
    (
        "DescribeSecurityGroupVpcAssociations",
        Look(groups::associations),
    ),
    ("DescribeSecurityGroups", Look(groups::describe)),
    ("DescribeStaleSecurityGroups", Look(groups::stale)),
    ("DescribeSubnets", Look(subnets::describe)),
    ("DescribeTags", Look(tags::describe)),
    ("DescribeVpcAttribute", Look(vpcs::describe_attribute)),
    ("DescribeVpcClassicLink", Look(account::classic_link)),
    (
        "DescribeVpcClassicLinkDnsSupport",
        Look(account::classic_link_dns),
    ),
    ("DescribeVpcs", Look(vpcs::describe)),
    ("DisassociateSecurityGroupVpc", Change(groups::associate)),
    (
        "GetManagedPrefixListAssociations",
        Look(prefix_lists::associations),
    ),
    ("GetManagedPrefixListEntries", Look(prefix_lists::entries)),
    ("GetSecurityGroupsForVpc", Look(groups::for_vpc)),
    ("ModifyManagedPrefixList", Change(prefix_lists::modify)),
    (
        "ModifyNetworkInterfaceAttribute",
        Change(network_interfaces::modify_attribute),
    ),
    ("ModifySecurityGroupRules", Change(rules::modify)),
    ("ModifyVpcAttribute", Change(vpcs::modify_attribute)),
    (
        "RestoreManagedPrefixListVersion",
        Change(prefix_lists::restore),
    ),
    ("RevokeSecurityGroupEgress", Change(rules::revoke_egress)),
    ("RevokeSecurityGroupIngress", Change(rules::revoke_ingress)),
    (
        "UpdateSecurityGroupRuleDescriptionsEgress",
        Change(rules::describe_egress),
    ),
    (
        "UpdateSecurityGroupRuleDescriptionsIngress",
        Change(rules::describe_ingress),
    ),
];

/// The one operation of the other service.
const IDENTITY: &str = "GetCallerIdentity";

/// The operation of a name, and the version of its protocol.
pub(super) fn find(action: &str) -> Result<(Run, &'static str)> {
    if action == IDENTITY {
        return Ok((Look(account::caller_identity), STS));
    }
    let found = OPERATIONS.binary_search_by_key(&action, |(name, _)| name);
    let found = found.ok().and_then(|place| OPERATIONS.get(place));
    found.map(|(_, run)| (*run, EC2)).ok_or_else(|| {
        let known = OPERATIONS.iter().map(|(name, _)| *name).chain([IDENTITY]);
        let hint = match crate::policy::suggest::closest(action, known) {
            Some(known) => format!("; {known} is"),
            None => String::new(),
        };
        let message = format!("The action {action} is not valid for this web service{hint}");
        Fault::new("InvalidAction", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_found_by_name() {
        assert!(OPERATIONS.is_sorted_by_key(|(name, _)| *name));
        for (name, _) in OPERATIONS {
            assert_eq!(find(name).unwrap().1, EC2, "{name}");
        }
        assert_eq!(find("GetCallerIdentity").unwrap().1, STS);
        let fault = find("DescribeSecurityGroup").unwrap_err();
        assert!(
            fault.message.ends_with("; DescribeSecurityGroups is"),
            "{}",
            fault.message
        );
    }
}
