//! Why a packet passes or not: the kernel's own decision, told step by step.
//!
//! The verdict is that of [`Standpoint::judge`](crate::dataplane::Standpoint::judge) over the maps in force. The policy as it is stored
//! only adds names: which rules match, which nearly do, and which one is missing. How people are
//! told is for [`crate::show`] to know.

mod end;
mod machine;
mod question;
mod remedy;
mod rules;
mod steps;
mod story;

use serde::Serialize;
use sg_common::packet::Direction;
use sg_common::report::Reason;

use crate::dataplane::{self, Dataplane};
use crate::observe::Full;
use crate::policy::model::Policy;
use crate::policy::names::{GroupName, InterfaceName, RuleId, VpcName};

use end::Scene;
pub use end::{End, PeerClasses};
pub use machine::{Machine, Protected};
pub(crate) use question::TCP_FLAGS;
pub use question::{PacketReport, Question, TCP_SYN};
pub use remedy::{FileItem, Remedy};
pub use rules::{Fit, RuleFit};
pub use steps::StepReport;
pub use story::Storyteller;

/// Everything there is to say about one packet.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// `pass` when every protected end lets it pass.
    pub verdict: &'static str,
    /// Of the first end on the packet's way that drops it; of the one that was asked about if none
    /// does.
    pub reason: &'static str,
    /// The rule by which it passes there.
    pub rule: Option<RuleOfGroup>,
    /// What was looked at there, in order.
    pub steps: Vec<StepReport>,
    /// The packet.
    pub packet: PacketReport,
    /// The rule that is missing there.
    pub remedy: Option<Remedy>,
    /// The protected ends on this machine, in the order in which the packet meets them.
    pub ends: Vec<End>,
    /// What has no room for another connection at these ends: its replies are dropped.
    pub full: Vec<Full>,
    /// Both addresses are this machine's own: such packets go over `lo`, and no interface judges
    /// them.
    pub stays_inside: bool,
}

/// A rule, where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleOfGroup {
    /// Which.
    pub id: RuleId,
    /// In which group.
    pub group: Option<GroupName>,
}

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The policy has the interface, and the kernel has not.
    #[error(
        "interface \"{interface}\" of VPC \"{vpc}\" is in the policy and not protected now; \
         `sg-ctl restore` protects it"
    )]
    NotProtected {
        /// The VPC.
        vpc: VpcName,
        /// The interface.
        interface: InterfaceName,
    },
    /// Each look met another policy.
    #[error("the policy changes faster than it can be looked at; try again")]
    Restless,
    /// The kernel.
    #[error(transparent)]
    Dataplane(#[from] dataplane::Error),
}

/// Looks again so often when the policy has changed under a look.
const LOOKS: usize = 20;

/// Explains what becomes of a packet at an interface of this machine, and at the other end too when
/// that is one.
pub fn explain(
    policy: &Policy,
    machine: &Machine,
    dataplane: Option<&Dataplane>,
    asked: &Protected,
    question: &Question,
) -> Result<Explanation, Error> {
    let mut ends = vec![end(policy, machine, dataplane, asked, question)?];
    let other = machine.holder_of(question.peer, asked);
    let stays_inside = other.is_some_and(|other| other.shares_stack_with(asked));
    if let Some(other) = other.filter(|_| !stays_inside) {
        let other = end(policy, machine, dataplane, other, &question.from_peer());
        match (other, question.direction) {
            (Err(Error::NotProtected { .. }), _) => {}
            (Err(error), _) => return Err(error),
            (Ok(other), Direction::Ingress) => ends.insert(0, other),
            (Ok(other), Direction::Egress) => ends.push(other),
        }
    }
    let told = ends
        .iter()
        .find(|end| !end.passes())
        .or_else(|| ends.iter().find(|end| end.is_of(asked)));
    let (reason, rule, steps, remedy) = match told {
        Some(end) => (
            end.reason,
            end.rule.clone(),
            end.steps.clone(),
            end.remedy.clone(),
        ),
        None => ("no-interface", None, Vec::new(), None),
    };
    Ok(Explanation {
        full: full(dataplane, &ends)?,
        verdict: end::verdict(ends.iter().all(End::passes)),
        reason,
        rule,
        steps,
        packet: question.report(),
        remedy,
        ends,
        stays_inside,
    })
}

/// What keeps a connection from going on that this packet would open.
fn full(dataplane: Option<&Dataplane>, ends: &[End]) -> Result<Vec<Full>, Error> {
    let opens = |end: &&End| end.reason == Reason::Rule.name();
    let mut full = Full::read(dataplane)?;
    full.retain(|full| {
        let mut ends = ends.iter().filter(opens);
        ends.any(|end| full.concerns(&end.vpc, &end.interface))
    });
    Ok(full)
}

/// One end, by one policy.
fn end(
    policy: &Policy,
    machine: &Machine,
    dataplane: Option<&Dataplane>,
    at: &Protected,
    question: &Question,
) -> Result<End, Error> {
    let not_protected = || Error::NotProtected {
        vpc: at.vpc.clone(),
        interface: at.name.clone(),
    };
    let installed = dataplane.map(Dataplane::installed).transpose()?.flatten();
    let (Some(dataplane), Some(installed)) = (dataplane, installed) else {
        return Err(not_protected());
    };
    let attachments = dataplane.attachments()?;
    let attachment = attachments
        .into_iter()
        .find(|attachment| attachment.vpc == at.vpc && attachment.name == at.name)
        .filter(|attachment| attachment.attached)
        .ok_or_else(not_protected)?;
    for _ in 0..LOOKS {
        let standpoint = installed.at(attachment.netns, attachment.ifindex)?;
        let standpoint = standpoint.ok_or_else(not_protected)?;
        let scene = Scene {
            policy,
            machine,
            installed: &installed,
            attachment: &attachment,
            at,
        };
        let looked = scene.look(&standpoint, question)?;
        if standpoint.is_current()? {
            return Ok(looked);
        }
    }
    Err(Error::Restless)
}
