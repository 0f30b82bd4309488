//! Who has which address on this machine.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::dataplane::Device;
use crate::interfaces::NetnsId;
use crate::policy::model::{Interface, Policy, Side, Vpc};
use crate::policy::names::{GroupName, InterfaceName, VpcName};
use crate::policy::prefix::{is_link_local, names_one_machine};
use crate::policy::traffic::are_one_family;

/// The interfaces of the policy that the machine has.
#[derive(Debug, Default)]
pub struct Machine {
    /// In the order of the policy.
    pub interfaces: Vec<Protected>,
}

/// An interface with what it protects.
#[derive(Clone, Debug)]
pub struct Protected {
    /// Whose policy.
    pub vpc: VpcName,
    /// Its name.
    pub name: InterfaceName,
    /// The network namespace, where it is not the machine's.
    pub netns: Option<String>,
    /// What is protected.
    pub side: Side,
    /// The groups it is in.
    pub groups: BTreeSet<GroupName>,
    /// What is protected has these, with the lengths of their networks.
    pub addresses: Vec<IpNet>,
    /// Whose stack it belongs to.
    pub stack: NetnsId,
}

impl Machine {
    /// Joins the policy with the devices that were found.
    pub fn of(policy: &Policy, devices: &[Device]) -> Self {
        let interfaces = devices.iter().filter_map(|device| {
            let interface = policy.vpcs.get(&device.vpc)?.interface(&device.name)?;
            Some(Protected {
                vpc: device.vpc.clone(),
                name: device.name.clone(),
                netns: interface.netns.clone(),
                side: interface.side,
                groups: interface.groups.clone(),
                addresses: addresses(interface, device),
                stack: device.netns.id(),
            })
        });
        Self {
            interfaces: interfaces.collect(),
        }
    }

    /// The interface of this VPC and name.
    pub fn interface(&self, vpc: &VpcName, name: &InterfaceName) -> Option<&Protected> {
        self.interfaces
            .iter()
            .find(|interface| interface.vpc == *vpc && interface.name == *name)
    }

    /// Whether any address is in a group, as far as the policy and this machine say.
    pub fn has_members(&self, vpc_name: &VpcName, vpc: &Vpc, group: &GroupName) -> bool {
        let mut interfaces = self.interfaces.iter();
        let is_in = |interface: &Protected| {
            interface.vpc == *vpc_name
                && interface.groups.contains(group)
                && interface
                    .addresses
                    .iter()
                    .any(|own| names_one_machine(&own.addr()))
        };
        let is_guest_in = |interface: &Interface| {
            interface.side == Side::Guest && interface.groups.contains(group)
        };
        vpc.groups
            .get(group)
            .is_some_and(|group| !group.members.is_empty())
            || vpc.interfaces.values().any(is_guest_in)
            || interfaces.any(is_in)
    }

    /// Another interface that has the address; one of the same VPC first.
    pub fn holder_of(&self, address: IpAddr, other_than: &Protected) -> Option<&Protected> {
        // Every link has link-local addresses of its own.
        let mut holders: Vec<_> = self
            .interfaces
            .iter()
            .filter(|interface| !interface.is(other_than) && interface.has(address))
            .filter(|_| !is_link_local(address))
            .collect();
        holders.sort_by_key(|holder| holder.vpc != other_than.vpc);
        holders.first().copied()
    }
}

fn addresses(interface: &Interface, device: &Device) -> Vec<IpNet> {
    match interface.side {
        Side::Host => device.link.addresses.clone(),
        Side::Guest => interface
            .addresses
            .iter()
            .map(|address| IpNet::from(*address))
            .collect(),
    }
}

impl Protected {
    /// Whether what is protected has the address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.addr() == address)
    }

    /// Whether both are one interface.
    pub fn is(&self, other: &Self) -> bool {
        self.vpc == other.vpc && self.name == other.name
    }

    /// Whether packets from one to the other never leave the machine's own stack.
    pub fn shares_stack_with(&self, other: &Self) -> bool {
        self.side == Side::Host && other.side == Side::Host && self.stack == other.stack
    }

    /// The address that it most likely talks to a peer from.
    pub fn address_towards(&self, peer: IpAddr) -> Option<IpAddr> {
        let same_family = |own: &&IpNet| are_one_family(own.addr(), peer);
        let candidates = self.addresses.iter().filter(same_family);
        candidates
            .max_by_key(|own| {
                let as_local = is_link_local(own.addr()) == is_link_local(peer);
                (as_local, own.contains(&peer), own.prefix_len())
            })
            .map(IpNet::addr)
    }
}
