//! The addresses that belong to a group, with where each comes from.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::dataplane::Device;
use crate::policy::model::{Group, Side, Vpc};
use crate::policy::names::{GroupName, InterfaceName, VpcName};
use crate::policy::prefix::names_one_machine;

/// The members of a group.
#[derive(Debug, Serialize)]
pub struct Members {
    /// Its VPC.
    pub vpc: VpcName,
    /// Its name.
    pub group: GroupName,
    /// The static ones.
    pub members: BTreeSet<IpAddr>,
    /// All of them, in order; an address that has two sources is there twice.
    pub addresses: Vec<Member>,
    /// Interfaces in the group that this machine does not have, or that have no address.
    pub without_address: Vec<InterfaceName>,
}

/// An address of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Member {
    /// The address.
    pub address: IpAddr,
    /// `interface`, `guest` or `static`.
    pub from: &'static str,
    /// The interface that has it.
    pub interface: Option<InterfaceName>,
}

impl Members {
    /// Joins the policy with the addresses that devices have.
    pub fn of(
        (vpc_name, vpc): (&VpcName, &Vpc),
        (name, group): (&GroupName, &Group),
        devices: &[Device],
    ) -> Self {
        let mut addresses: Vec<_> = group
            .members
            .iter()
            .map(|address| Member {
                address: *address,
                from: "static",
                interface: None,
            })
            .collect();
        let mut without_address = Vec::new();
        let interfaces = vpc.interfaces.iter();
        for (interface_name, interface) in
            interfaces.filter(|(_, interface)| interface.groups.contains(name))
        {
            let (from, own): (_, BTreeSet<IpAddr>) = match interface.side {
                Side::Guest => ("guest", interface.addresses.clone()),
                Side::Host => {
                    let devices = devices.iter().filter(|device| {
                        device.vpc == *vpc_name && device.name.entry() == interface_name.as_str()
                    });
                    let own = devices.flat_map(|device| &device.link.addresses);
                    (
                        "interface",
                        own.map(IpNet::addr).filter(names_one_machine).collect(),
                    )
                }
            };
            if own.is_empty() {
                without_address.push(interface_name.clone());
            }
            addresses.extend(own.into_iter().map(|address| Member {
                address,
                from,
                interface: Some(interface_name.clone()),
            }));
        }
        addresses.sort();
        Self {
            vpc: vpc_name.clone(),
            group: name.clone(),
            members: group.members.clone(),
            addresses,
            without_address,
        }
    }
}
