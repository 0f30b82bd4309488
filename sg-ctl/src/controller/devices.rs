//! Which device an interface of the policy is on this machine.

use std::collections::{BTreeSet, HashMap};

use crate::dataplane::Device;
use crate::interfaces::{Error, Link, Netns, Result, link, links};
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
