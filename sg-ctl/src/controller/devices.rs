//! Which device an interface of the policy is on this machine.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::dataplane::Device;
use crate::interfaces::{Error, Link, LinkLayer, Netns, NetnsId, Result, link, links};
use crate::limits::Limits;
use crate::policy::model::Policy;
use crate::policy::names::{InterfaceName, VpcName};

/// The network namespace that the machine itself is in.
const MACHINE: &str = "/proc/1/ns/net";

/// The interfaces that a command cannot do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needed {
    /// Those that are missing are left out.
    None,
    /// These, in this VPC.
    Some(VpcName, BTreeSet<InterfaceName>),
}

impl Needed {
    fn includes(&self, vpc: &VpcName, name: &InterfaceName) -> bool {
        match self {
            Self::None => false,
            Self::Some(in_vpc, names) => in_vpc == vpc && names.contains(name),
        }
    }
}

/// The devices of a policy's interfaces, and why some have none.
pub(super) struct Devices {
    pub(super) found: Vec<Device>,
    pub(super) missing: Vec<Error>,
}

impl Devices {
    /// Asks each network namespace once.
    pub(super) fn find(policy: &Policy, needed: &Needed) -> Result<Self> {
        let mut namespaces: HashMap<Option<&str>, Result<Namespace>> = HashMap::new();
        let mut devices = Self {
            found: Vec::new(),
            missing: Vec::new(),
        };
        for (vpc_name, vpc) in &policy.vpcs {
            for (name, interface) in &vpc.interfaces {
                let netns = interface.netns.as_deref();
                let namespace = namespaces
                    .entry(netns)
                    .or_insert_with(|| Namespace::read(netns));
                let device = match namespace {
                    Ok(namespace) => namespace.device(vpc_name, name),
                    // The error goes to the first interface that meets it.
                    Err(_) => Namespace::read(netns)
                        .and_then(|namespace| namespace.device(vpc_name, name)),
                };
                match device {
                    Ok(device) => devices.found.push(device),
                    Err(
                        missing @ (Error::InterfaceMissing { .. } | Error::NetnsMissing { .. }),
                    ) if !needed.includes(vpc_name, name) => devices.missing.push(missing),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(devices)
    }
}

/// What was found where, so that the next command can tell whether anything has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Surroundings {
    /// By the network namespace, as the policy calls it.
    namespaces: BTreeMap<Option<String>, Surrounding>,
    /// Whether the policy names an interface that was not found.
    is_missing_some: bool,
    /// How much might be held.
    limits: Limits,
}

/// The devices of one network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Surrounding {
    /// What tells the namespace from others.
    id: (u64, u64),
    /// By name: number, whether frames have an Ethernet header, and addresses.
    devices: BTreeMap<String, (u32, bool, Vec<IpNet>)>,
}

impl Surrounding {
    fn in_namespace(netns: &Netns) -> Self {
        let NetnsId { device, inode } = netns.id();
        Self {
            id: (device, inode),
            devices: BTreeMap::new(),
        }
    }

    fn add(&mut self, link: &Link) {
        let is_ethernet = matches!(link.link_layer, LinkLayer::Ethernet);
        let device = (link.ifindex, is_ethernet, link.addresses.clone());
        self.devices.insert(link.name.clone(), device);
    }
}

impl Surroundings {
    /// Those of a policy.
    pub(super) fn of(
        policy: &Policy,
        found: &[Device],
        missing: &[Error],
        limits: &Limits,
    ) -> Self {
        let mut namespaces = BTreeMap::new();
        for device in found {
            let vpc = policy.vpcs.get(&device.vpc);
            let interface = vpc.and_then(|vpc| vpc.interfaces.get(&device.name));
            let netns = interface.and_then(|interface| interface.netns.clone());
            let surrounding = namespaces
                .entry(netns)
                .or_insert_with(|| Surrounding::in_namespace(&device.netns));
            surrounding.add(&device.link);
        }
        Self {
            namespaces,
            is_missing_some: !missing.is_empty(),
            limits: *limits,
        }
    }

    /// Whether every device is there as it was, none is missing, and the limits are the same.
    pub(super) fn are_unchanged(&self, limits: &Limits) -> Result<bool> {
        if self.is_missing_some || self.limits != *limits {
            return Ok(false);
        }
        for (netns, surrounding) in &self.namespaces {
            let Namespace { netns, links } = Namespace::read(netns.as_deref())?;
            let mut found = Surrounding::in_namespace(&netns);
            let names = surrounding.devices.keys();
            for link in names.filter_map(|name| links.get(name)) {
                found.add(link);
            }
            if found != *surrounding {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes them for [`Surroundings::from_bytes`]; nothing where that cannot be done.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// Reads what [`Surroundings::to_bytes`] wrote.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

struct Namespace {
    netns: Netns,
    links: HashMap<String, Link>,
}

impl Namespace {
    fn read(asked: Option<&str>) -> Result<Self> {
        let netns = namespace(asked)?;
        let links = links(&netns)?
            .into_iter()
            .map(|link| (link.name.clone(), link))
            .collect();
        Ok(Self { netns, links })
    }

    fn device(&self, vpc: &VpcName, name: &InterfaceName) -> Result<Device> {
        let found = match self.links.get(name.as_str()) {
            Some(found) => found.clone(),
            // Asked again, it may be there by now; else the error knows what there is instead.
            None => link(&self.netns, name.as_str())?,
        };
        Ok(Device {
            vpc: vpc.clone(),
            name: name.clone(),
            netns: self.netns.clone(),
            link: found,
        })
    }
}

/// The network namespace that a policy means.
///
/// An interface without one was attached outside of every named namespace. A command inside a
/// named one must not look for it there: it would find nothing, or another device.
pub fn namespace(recorded: Option<&str>) -> Result<Netns> {
    match recorded {
        Some(_) => Netns::resolve(recorded),
        None if Netns::name_of_current()?.is_some() => Netns::resolve(Some(MACHINE)),
        None => Netns::current(),
    }
}

/// How a policy calls the network namespace that was asked for.
pub fn recorded_namespace(asked: Option<&str>) -> Result<Option<String>> {
    match asked {
        Some(asked) => Ok(Some(asked.to_owned())),
        None => Netns::name_of_current(),
    }
}
