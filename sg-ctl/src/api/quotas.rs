//! How much of everything the API lets its clients make.

use ipnet::IpNet;
use serde::Deserialize;

use super::Context;
use super::fault::{Fault, Result};
use super::permissions::Brought;
use super::prefix_lists;
use super::world::GroupRef;
use crate::policy::model::{Peer, Permission};
use sg_common::packet::Direction;

/// `[api.quotas]`. What is absent is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// Whether what is absent has the cloud's number.
    pub aws: bool,
    /// Groups of all VPCs.
    pub groups: Option<usize>,
    /// Rules of a group in each direction, for each family of addresses.
    pub rules_per_group: Option<usize>,
    /// Groups of an interface.
    pub groups_per_interface: Option<usize>,
    /// Prefix lists.
    pub prefix_lists: Option<usize>,
    /// VPCs.
    pub vpcs: Option<usize>,
    /// Network interfaces.
    pub interfaces: Option<usize>,
}

impl Quotas {
    fn check(
        &self,
        own: Option<usize>,
        aws: usize,
        wanted: usize,
        code: &'static str,
        message: &str,
    ) -> Result<()> {
        let limit = own.or_else(|| self.aws.then_some(aws));
        match limit {
            Some(limit) if wanted > limit => Err(Fault::new(
                code,
                format!("{message} ({limit}; [api.quotas] of the daemon's configuration sets it)"),
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn check_groups(&self, wanted: usize) -> Result<()> {
        let message = "The maximum number of security groups has been reached.";
        let code = "SecurityGroupLimitExceeded";
        self.check(self.groups, 2_500, wanted, code, message)
    }

    pub(super) fn check_vpcs(&self, wanted: usize) -> Result<()> {
        let message = "The maximum number of VPCs has been reached.";
        self.check(self.vpcs, 5, wanted, "VpcLimitExceeded", message)
    }

    pub(super) fn check_prefix_lists(&self, wanted: usize) -> Result<()> {
        let message = "The maximum number of prefix lists has been reached.";
        let code = "PrefixListLimitExceeded";
        self.check(self.prefix_lists, 100, wanted, code, message)
    }

    pub(super) fn check_interfaces(&self, wanted: usize) -> Result<()> {
        let message = "The maximum number of network interfaces has been reached.";
        let code = "NetworkInterfaceLimitExceeded";
        self.check(self.interfaces, 5_000, wanted, code, message)
    }

    pub(super) fn check_groups_of_interface(&self, wanted: usize) -> Result<()> {
        let message = "The maximum number of security groups per interface has been reached.";
        let code = "SecurityGroupsPerInterfaceLimitExceeded";
        self.check(self.groups_per_interface, 5, wanted, code, message)
    }

    /// Counts the rules of one direction: a group counts in both families, a prefix list as many times
    /// as it may have entries.
    pub(super) fn check_rules<'p>(
        &self,
        context: &Context<'_>,
        group: GroupRef<'_>,
        direction: Direction,
        permissions: impl Iterator<Item = &'p Permission>,
        brought: &Brought,
    ) -> Result<()> {
        if self.rules_per_group.is_none() && !self.aws {
            return Ok(());
        }
        let (mut v4, mut v6) = (0, 0);
        for permission in permissions.filter(|permission| permission.direction == direction) {
            match &permission.peer {
                Peer::Prefix(IpNet::V4(_)) => v4 += 1,
                Peer::Prefix(IpNet::V6(_)) => v6 += 1,
                Peer::Group(_) => (v4, v6) = (v4 + 1, v6 + 1),
                Peer::PrefixList(name) => {
                    let (weight, is_v4) = prefix_lists::weight(context, group.vpc, name, brought);
                    match is_v4 {
                        true => v4 += weight,
                        false => v6 += weight,
                    }
                }
            }
        }
        let message = "The maximum number of rules per security group has been reached.";
        let code = "RulesPerSecurityGroupLimitExceeded";
        self.check(self.rules_per_group, 60, v4.max(v6), code, message)
    }
}
