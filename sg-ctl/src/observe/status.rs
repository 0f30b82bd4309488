//! Which interfaces are protected, by what, and how full the flow tables are.

use std::collections::BTreeSet;

use serde::Serialize;

use super::or_none;
use crate::controller::{TakenBack, View};
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
    /// The change that is taken back unless it is confirmed.
    pub unconfirmed: Option<UnconfirmedStatus>,
    /// The change that was taken back last, unless something was changed since.
    pub taken_back: Option<TakenBack>,
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
    /// The network namespace, where it is not the machine's.
    pub netns: Option<String>,
    /// Whether packets are judged.
    pub attached: bool,
    /// Whether what is judged passes all the same.
    pub audit: bool,
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
        dataplane: Option<&Dataplane>,
    ) -> Result<Self, Error> {
        let attachments = or_none(dataplane, Dataplane::attachments)?;
        let mut interfaces = Vec::new();
        for (vpc_name, vpc) in &policy.vpcs {
            for (name, interface) in &vpc.interfaces {
                let attachment = attachments
                    .iter()
                    .find(|attachment| attachment.vpc == *vpc_name && attachment.name == *name);
                interfaces.push(InterfaceStatus {
                    name: name.clone(),
                    ifindex: attachment.map(|attachment| attachment.ifindex),
                    vpc: vpc_name.clone(),
                    groups: interface.groups.clone(),
                    side: side_name(interface.side),
                    hook: attachment
                        .map_or(asked_hook(interface), |attachment| attachment.hook.name()),
                    netns: interface.netns.clone(),
                    attached: attachment.is_some_and(|attachment| attachment.attached),
                    audit: interface.audit,
                });
            }
        }
        // Left by a detach that was interrupted.
        let is_known = |attachment: &Attachment| {
            let vpc = policy.vpcs.get(&attachment.vpc);
            vpc.is_some_and(|vpc| vpc.interfaces.contains_key(&attachment.name))
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
            netns: None,
            attached: true,
            audit: false,
        }));
        Ok(Self {
            revision,
            interfaces,
            flows: Self::flows(dataplane)?,
            unconfirmed: None,
            taken_back: None,
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
    }
}
