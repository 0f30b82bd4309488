//! What has become of a packet, as an explanation tells it.
//!
//! The verdict, the reason and the steps are those of the kernel's programs, told by a trace; what
//! gives them names is looked up when the story is told.

use sg_common::flow::FlowKey;
use sg_common::parse::{Content, Headers, Part};
use sg_common::report::Reason;

use super::end::{Scene, verdict};
use super::machine::{Machine, Protected};
use super::question::Question;
use super::{Error, Explanation};
use crate::dataplane::{Attachment, Dataplane, Installed, TracedPacket};
use crate::observe::Flow;
use crate::policy::model::Policy;

/// Tells of the packets of one interface, while its policy stays.
pub struct Storyteller<'a> {
    policy: &'a Policy,
    machine: &'a Machine,
    installed: Installed<'a>,
    attachment: &'a Attachment,
    at: &'a Protected,
}

impl<'a> Storyteller<'a> {
    /// One for an interface that is protected.
    pub fn at(
        at: &'a Protected,
        attachment: &'a Attachment,
        policy: &'a Policy,
        machine: &'a Machine,
        dataplane: &'a Dataplane,
    ) -> Result<Self, Error> {
        let installed = dataplane.installed()?;
        Ok(Self {
            policy,
            machine,
            installed: installed.ok_or_else(|| not_protected(at))?,
            attachment,
            at,
        })
    }

    /// The story of a packet.
    pub fn story(&self, packet: &TracedPacket) -> Result<Explanation, Error> {
        let (headers, direction) = (&packet.headers, packet.direction);
        let standpoint = self
            .installed
            .at(self.attachment.netns, self.attachment.ifindex)?;
        let standpoint = standpoint.ok_or_else(|| not_protected(self.at))?;
        let question = Question::of(headers, direction);
        let judged = standpoint.judged(packet);
        // The flow that the packet itself has opened was none when it was judged.
        let flow = match packet.decision.reason {
            Reason::Rule => None,
            _ => standpoint.flow(&FlowKey::of(
                headers,
                direction,
                standpoint.interface().zone,
            ))?,
        };
        let scene = Scene {
            policy: self.policy,
            machine: self.machine,
            installed: &self.installed,
            attachment: self.attachment,
            at: self.at,
        };
        let flow = flow.map(|(_, report)| Flow::from(report));
        let end = scene.tell(&standpoint, &question, &judged, flow)?;
        let mut report = question.report();
        if !has_l4(headers) {
            (report.source_port, report.destination_port) = (None, None);
            (report.icmp_type, report.icmp_code) = (None, None);
        }
        Ok(Explanation {
            verdict: verdict(end.passes()),
            reason: end.reason,
            rule: end.rule.clone(),
            steps: end.steps.clone(),
            packet: report,
            remedy: end.remedy.clone(),
            ends: vec![end],
            full: Vec::new(),
            stays_inside: false,
        })
    }
}

/// Whether the packet has an L4 header that could be read.
fn has_l4(headers: &Headers) -> bool {
    headers.content == Content::Ip && headers.part != Part::Later
}

fn not_protected(at: &Protected) -> Error {
    Error::NotProtected {
        vpc: at.vpc.clone(),
        interface: at.name.clone(),
    }
}
