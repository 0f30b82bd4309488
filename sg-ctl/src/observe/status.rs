//! Which interfaces are protected, by what, and how full the flow tables are.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Full, or_none};
use crate::controller::{InterfaceState, InterfaceStates, Strayed, StrayedTo, TakenBack, View};
use crate::dataplane::{Attachment, Dataplane, Error};
use crate::policy::model::{Hook, Interface, Policy, Side};
use crate::policy::names::{GroupName, InterfaceName, VpcName};

/// The state of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The revision that is stored; 0 before there is any.
    pub revision: u64,
    /// Every interface of the policy, attached or not, and those that the kernel still protects
    /// although the policy has let them go.
    pub interfaces: Vec<InterfaceStatus>,
    /// How full the flow tables are.
    pub flows: FlowsStatus,
    /// What has no room for another connection.
    pub full: Vec<Full>,
    /// The change that is taken back unless it is confirmed.
    pub unconfirmed: Option<UnconfirmedStatus>,
    /// The change that was taken back last, unless something was changed since.
    pub taken_back: Option<TakenBack>,
    /// Why what is in force is not what is stored here, where another policy was installed.
    pub mismatch: Option<String>,
}

/// A change that waits for its confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnconfirmedStatus {
    /// The revision before it.
    pub before: u64,
    /// Seconds until it is taken back.
    pub left_s: u64,
    /// Why taking it back has failed so far.
    pub failure: Option<String>,
}

/// The state of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: InterfaceName,
    /// The kernel's number; none while it is not attached.
    pub ifindex: Option<u32>,
    /// Whose policy.
    pub vpc: VpcName,
    /// The groups it is in; none when the policy has let it go.
    pub groups: BTreeSet<GroupName>,
    /// `host` or `guest`.
    pub side: &'static str,
    /// The hook that receives; the one asked for while it is not attached.
    pub hook: &'static str,
    /// How programs are attached at TC: `tcx` or `clsact`; none while it is not attached.
    pub tc: Option<&'static str>,
    /// The network namespace, where it is not the machine's.
    pub netns: Option<String>,
    /// Which devices its entry is for, where that is not the one of its name.
    #[serde(rename = "match")]
    pub matching: Option<String>,
    /// Whether packets are judged.
    pub attached: bool,
    /// Whether what is judged passes all the same.
    pub audit: bool,
    /// `protected`, `audited`, `renamed`, `moved`, or `unmatched` by its entry now, where packets are
    /// judged; `astray` where a device
    /// has moved and drops everything; `waiting` for a device, `not-attached`, `to-be-detached`.
    pub state: &'static str,
    /// What the device is called, where its entry matches devices or it is not where the policy says.
    pub device: Option<String>,
}

impl InterfaceStatus {
    /// As the device of its name is.
    fn of(
        (vpc, name): (&VpcName, &InterfaceName),
        interface: &Interface,
        states: &InterfaceStates,
    ) -> Self {
        let state = states.of_interface(vpc, name);
        let attachment = match state {
            InterfaceState::Protected(attachment) => Some(attachment),
            InterfaceState::Open | InterfaceState::Waiting => None,
        };
        Self {
            name: name.clone(),
            ifindex: attachment.map(|attachment| attachment.ifindex),
            vpc: vpc.clone(),
            groups: interface.groups.clone(),
            side: side_name(interface.side),
            hook: attachment.map_or(asked_hook(interface), |attachment| attachment.hook.name()),
            tc: attachment.map(|attachment| attachment.tc.name()),
            netns: interface.netns.clone(),
            matching: interface.matching.as_ref().map(ToString::to_string),
            attached: attachment.is_some(),
            audit: interface.audit,
            state: match state {
                InterfaceState::Protected(_) if interface.audit => "audited",
                InterfaceState::Protected(_) => "protected",
                InterfaceState::Open => "not-attached",
                InterfaceState::Waiting => "waiting",
            },
            device: name.device().map(str::to_owned),
        }
    }

    /// As the device is that has strayed.
    fn strayed(&self, strayed: &Strayed) -> Self {
        let (state, device) = match &strayed.place {
            StrayedTo::Name(name) => ("renamed", Some(name.clone())),
            StrayedTo::Unmatched => ("unmatched", self.device.clone()),
            StrayedTo::Namespace {
                name,
                netns,
                is_judged,
            } => (
                if *is_judged { "moved" } else { "astray" },
                Some(format!("{name} in {netns}")),
            ),
            StrayedTo::Unknown => ("astray", None),
        };
        Self {
            ifindex: Some(strayed.ifindex),
            attached: state != "astray",
            state,
            device,
            ..self.clone()
        }
    }
}

/// Numbers of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FlowsStatus {
    /// Seen from one side so far.
    pub embryonic: u64,
    /// Seen from both sides.
    pub assured: u64,
    /// The most assured flows there can be.
    pub capacity: u64,
}

impl Status {
    /// Joins the policy with what is attached.
    pub fn read(
        revision: u64,
        policy: &Policy,
        states: &InterfaceStates,
        dataplane: Option<&Dataplane>,
    ) -> Result<Self, Error> {
        let attachments = or_none(dataplane, Dataplane::attachments)?;
        let mut interfaces = Vec::new();
        for (vpc_name, vpc) in &policy.vpcs {
            for (entry, interface) in &vpc.interfaces {
                let names = match interface.matching {
                    None => vec![entry.clone()],
                    Some(_) => states.devices_of(vpc_name, entry),
                };
                // One line for an entry without any.
                for name in match names.is_empty() {
                    true => vec![entry.clone()],
                    false => names,
                } {
                    let one = InterfaceStatus::of((vpc_name, &name), interface, states);
                    let is_its =
                        |strayed: &&Strayed| strayed.vpc == *vpc_name && strayed.interface == name;
                    let strayed = states.strayed.iter().filter(is_its);
                    let strayed: Vec<_> = strayed.map(|strayed| one.strayed(strayed)).collect();
                    // Where only another device has the programs, that is how the interface is.
                    if strayed.is_empty() || one.state != "waiting" {
                        interfaces.push(one);
                    }
                    interfaces.extend(strayed);
                }
            }
        }
        // Left by a detach that was interrupted.
        let is_known = |attachment: &Attachment| {
            let vpc = policy.vpcs.get(&attachment.vpc);
            vpc.is_some_and(|vpc| vpc.interface(&attachment.name).is_some())
        };
        let left = attachments
            .iter()
            .filter(|left| left.attached && !is_known(left));
        interfaces.extend(left.map(|left| InterfaceStatus {
            name: left.name.clone(),
            ifindex: Some(left.ifindex),
            vpc: left.vpc.clone(),
            groups: BTreeSet::new(),
            side: side_name(left.side),
            hook: left.hook.name(),
            tc: Some(left.tc.name()),
            netns: None,
            matching: None,
            attached: true,
            audit: false,
            state: "to-be-detached",
            device: None,
        }));
        Ok(Self {
            revision,
            interfaces,
            flows: Self::flows(dataplane)?,
            full: Full::read(dataplane)?,
            unconfirmed: None,
            taken_back: None,
            mismatch: None,
        })
    }

    /// How full the flow tables are.
    pub fn flows(dataplane: Option<&Dataplane>) -> Result<FlowsStatus, Error> {
        let usage = or_none(dataplane, Dataplane::flow_usage)?;
        Ok(FlowsStatus {
            embryonic: usage.embryonic,
            assured: usage.assured,
            capacity: usage.capacity,
        })
    }

    /// With what a view knows of confirmations.
    pub fn with_confirmations(self, view: &View) -> Self {
        Self {
            unconfirmed: view.unconfirmed.as_ref().map(|waiting| UnconfirmedStatus {
                before: waiting.before,
                left_s: waiting.left_s(),
                failure: waiting.failure.clone(),
            }),
            taken_back: view.taken_back.clone(),
            mismatch: view.mismatch.as_ref().map(ToString::to_string),
            ..self
        }
    }
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Host => "host",
        Side::Guest => "guest",
    }
}

fn asked_hook(interface: &Interface) -> &'static str {
    match interface.hook {
        Hook::Auto => "auto",
        Hook::Xdp => "xdp",
        Hook::Tc => "tc",
        Hook::XdpGeneric => "xdp-generic",
    }
}
