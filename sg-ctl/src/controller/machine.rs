//! The machine as far as a policy speaks of it: what a change of it is told by.

use std::collections::BTreeSet;

use super::devices::{Devices, Needed, namespace};
use super::error::Result;
use super::view::{InterfaceState, InterfaceStates};
use crate::dataplane::{Attachment, Device};
use crate::interfaces::{Link, Netns, NetnsId};
use crate::policy::model::Policy;
use crate::policy::names::{InterfaceName, VpcName};

/// The devices of a policy's interfaces as they are now.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The devices there are.
    pub devices: Vec<Seen>,
    /// What holds the programs.
    pub(super) attachments: Vec<Attachment>,
    /// The interfaces whose device is there without being protected.
    pub open: BTreeSet<(VpcName, InterfaceName)>,
    /// The network namespaces where a device of an interface is, or may come to be.
    pub namespaces: Vec<Netns>,
    /// Whether nothing is protected and nothing is to be.
    is_idle: bool,
}

/// A device, without what no table depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    vpc: VpcName,
    name: InterfaceName,
    netns: NetnsId,
    link: Link,
}

impl Seen {
    pub(super) fn of(device: &Device) -> Self {
        Self {
            vpc: device.vpc.clone(),
            name: device.name.clone(),
            netns: device.netns.id(),
            link: Link {
                xdp_program: None,
                is_up: false,
                mtu: 0,
                ..device.link.clone()
            },
        }
    }
}

/// The machine that something was installed for.
pub(super) struct InstalledFor {
    devices: Vec<Seen>,
    attachments: Vec<Attachment>,
}

impl InstalledFor {
    pub(super) fn new(devices: &[Device], attachments: Vec<Attachment>) -> Self {
        Self {
            devices: devices.iter().map(Seen::of).collect(),
            attachments,
        }
    }

    pub(super) fn is(&self, machine: &Machine) -> bool {
        self.devices == machine.devices && self.attachments == machine.attachments
    }
}

impl Machine {
    pub(super) fn of(policy: &Policy, attachments: Vec<Attachment>) -> Result<Self> {
        let interfaces = || {
            let vpcs = policy.vpcs.iter();
            vpcs.flat_map(|(vpc, content)| {
                content
                    .interfaces
                    .iter()
                    .map(move |(name, entry)| (vpc, name, entry))
            })
        };
        let is_idle = interfaces().next().is_none() && attachments.is_empty();
        let found = Devices::find(policy, &Needed::None, &attachments)?;
        let mut namespaces: Vec<Netns> = Vec::new();
        let mut devices = Vec::new();
        for device in &found.found {
            namespaces.push(device.netns.clone());
            devices.push(Seen::of(device));
        }
        let attached = attachments.clone();
        let states = InterfaceStates::of(found, attachments);
        let open = states
            .present()
            .filter(|(vpc, name)| states.of_interface(vpc, name) == InterfaceState::Open)
            .map(|(vpc, name)| (vpc.clone(), name.clone()));
        let recorded: BTreeSet<Option<&str>> = interfaces()
            .map(|(_, _, entry)| entry.netns.as_deref())
            .collect();
        // Those that are not there come with a mount.
        let named = recorded
            .into_iter()
            .filter_map(|recorded| namespace(recorded).ok());
        namespaces.extend(named);
        namespaces.sort_by_key(Netns::id);
        namespaces.dedup_by_key(|netns| netns.id());
        Ok(Self {
            devices,
            attachments: attached,
            open: open.collect(),
            namespaces,
            is_idle,
        })
    }

    /// Whether nothing is protected and nothing is to be.
    pub fn is_idle(&self) -> bool {
        self.is_idle
    }
}
