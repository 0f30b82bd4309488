//! One end of a packet's way: an interface, what its kernel decides, and the rules behind it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Serialize;
use sg_common::abi::InterfaceFlags;
use sg_common::addr::Addr;
use sg_common::decide::Scratch;
use sg_common::flow::FlowKey;
use sg_common::packet::{Direction, Framing};
use sg_common::report::{Reason, Verdict};

use super::machine::{Machine, Protected};
use super::question::Question;
use super::remedy::Remedy;
use super::rules::{Fit, RuleFit, Rules, prefix_lists_of};
use super::steps::StepReport;
use super::{Error, RuleOfGroup};
use crate::dataplane::{Attachment, Installed, Judged, Standpoint};
use crate::observe::Flow;
use crate::policy::model::{Policy, Side, Vpc};
use crate::policy::names::{GroupName, InterfaceName, PrefixListName, VpcName};

/// What happens at one interface.
#[derive(Clone, Debug, Serialize)]
pub struct End {
    /// The interface.
    pub interface: InterfaceName,
    /// Whose policy.
    pub vpc: VpcName,
    /// The network namespace, where it is not the machine's.
    pub netns: Option<String>,
    /// `host` or `guest`.
    pub side: &'static str,
    /// The hook that receives.
    pub hook: &'static str,
    /// The groups it is in.
    pub groups: BTreeSet<GroupName>,
    /// Which way the packet goes, seen from here.
    pub direction: &'static str,
    /// `pass` or `drop`.
    pub verdict: &'static str,
    /// Whether it passes whatever the verdict, because the interface is only audited.
    pub audit: bool,
    /// Why.
    pub reason: &'static str,
    /// The same as a sentence.
    pub sentence: &'static str,
    /// The rule by which it passes.
    pub rule: Option<RuleOfGroup>,
    /// Whether it passes by rules alone, so that no flow is kept.
    pub untracked: bool,
    /// The flow it belongs to.
    pub flow: Option<Flow>,
    /// What rules may know the other side by.
    pub peer: PeerClasses,
    /// Every rule that admits it.
    pub matching: Vec<RuleFit>,
    /// Rules that nearly admit it, the nearest first.
    pub near_misses: Vec<RuleFit>,
    /// How many rules of its groups are about this direction.
    pub rules_asked: usize,
    /// What would let it pass.
    pub remedy: Option<Remedy>,
    /// Whether what is stored, or the addresses of the machine, are not what the kernel judges by.
    pub outdated: bool,
    /// Whether what is protected has the local address.
    pub is_own_address: bool,
    /// What was looked at, in order.
    pub steps: Vec<StepReport>,
}

/// What rules may know an address by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerClasses {
    /// The address.
    pub address: IpAddr,
    /// The groups it is in.
    pub groups: BTreeSet<GroupName>,
    /// The prefix lists that hold it.
    pub prefix_lists: BTreeSet<PrefixListName>,
    /// The interface of this machine that has it.
    pub interface: Option<InterfaceName>,
}

impl PeerClasses {
    /// As the policy and the machine have it.
    fn stored(
        vpc_name: &VpcName,
        vpc: &Vpc,
        machine: &Machine,
        at: &Protected,
        peer: IpAddr,
    ) -> Self {
        let holders = machine.interfaces.iter();
        let holders = holders.filter(|holder| holder.vpc == *vpc_name && holder.has(peer));
        let mut groups: BTreeSet<_> = holders.flat_map(|holder| holder.groups.clone()).collect();
        let fixed = vpc.groups.iter();
        let fixed = fixed.filter(|(_, group)| group.members.contains(&peer));
        groups.extend(fixed.map(|(name, _)| name.clone()));
        Self {
            address: peer,
            groups,
            prefix_lists: prefix_lists_of(vpc, peer),
            interface: machine
                .holder_of(peer, at)
                .map(|holder| holder.name.clone()),
        }
    }

    fn in_force(standpoint: &Standpoint<'_>, peer: IpAddr) -> Result<Self, Error> {
        let address = Addr::from(peer);
        Ok(Self {
            address: peer,
            groups: standpoint.groups_of(&address)?,
            prefix_lists: standpoint.prefix_lists_of(&address)?,
            interface: None,
        })
    }

    fn and(mut self, other: Self) -> Self {
        self.groups.extend(other.groups);
        self.prefix_lists.extend(other.prefix_lists);
        self
    }
}

pub(super) fn verdict(passes: bool) -> &'static str {
    match passes {
        true => "pass",
        false => "drop",
    }
}

/// Where a packet is judged, and everything that gives it names.
pub(super) struct Scene<'a> {
    pub(super) policy: &'a Policy,
    pub(super) machine: &'a Machine,
    pub(super) installed: &'a Installed<'a>,
    pub(super) attachment: &'a Attachment,
    pub(super) at: &'a Protected,
}

impl Scene<'_> {
    /// Asks the kernel, and joins its answer with the policy.
    pub(super) fn look(
        &self,
        standpoint: &Standpoint<'_>,
        question: &Question,
    ) -> Result<End, Error> {
        let bare = standpoint.interface().flags.has(InterfaceFlags::BARE);
        let flow = flow(standpoint, question, bare)?;
        let frame = question.frame(bare, flow.as_ref().map(|(state, _)| state));
        let judged = standpoint.judge(&frame, question.direction)?;
        self.tell(standpoint, question, &judged, flow.map(|(_, flow)| flow))
    }

    /// Joins what was decided with the policy.
    pub(super) fn tell(
        &self,
        standpoint: &Standpoint<'_>,
        question: &Question,
        judged: &Judged,
        flow: Option<Flow>,
    ) -> Result<End, Error> {
        let Self {
            policy,
            machine,
            installed,
            attachment,
            at,
        } = *self;
        let reason = judged.decision.reason;
        let in_force = PeerClasses::in_force(standpoint, question.peer)?;
        let mut end = End {
            interface: at.name.clone(),
            vpc: at.vpc.clone(),
            netns: at.netns.clone(),
            side: match at.side {
                Side::Host => "host",
                Side::Guest => "guest",
            },
            hook: attachment.hook.name(),
            groups: at.groups.clone(),
            direction: question.direction.name(),
            verdict: verdict(reason.verdict() == Verdict::Pass),
            audit: standpoint.interface().flags.has(InterfaceFlags::AUDIT),
            reason: reason.name(),
            sentence: reason.sentence(),
            rule: judged.rule.map(|id| RuleOfGroup { id, group: None }),
            untracked: reason == Reason::Untracked,
            flow,
            peer: in_force.clone(),
            matching: Vec::new(),
            near_misses: Vec::new(),
            rules_asked: 0,
            remedy: None,
            outdated: false,
            is_own_address: at.has(question.local),
            steps: judged.steps.iter().map(StepReport::from).collect(),
        };
        if let Some(vpc) = policy.vpcs.get(&at.vpc) {
            end.join(machine, vpc, installed, at, question, in_force, reason);
        }
        Ok(end)
    }
}

impl End {
    #[expect(
        clippy::too_many_arguments,
        reason = "everything that is known of one packet comes together here"
    )]
    fn join(
        &mut self,
        machine: &Machine,
        vpc: &Vpc,
        installed: &Installed<'_>,
        at: &Protected,
        question: &Question,
        in_force: PeerClasses,
        reason: Reason,
    ) {
        let stored = PeerClasses::stored(&at.vpc, vpc, machine, at, question.peer);
        let rules = Rules {
            vpc,
            groups: &at.groups,
            in_force: &in_force,
            stored: &stored,
            has_members: &|group| machine.has_members(&at.vpc, vpc, group),
            has_rule: &|rule| installed.has_rule(rule),
        };
        let fits = rules.fits(question);
        if let Some(rule) = &mut self.rule {
            rule.group = group_of(vpc, rule);
        }
        self.rules_asked = rules_asked(vpc, &at.groups, question.direction);
        if reason == Reason::NoRule {
            let peer = stored.interface.as_ref();
            self.remedy = Remedy::of((&at.vpc, vpc), at, &fits, question, peer);
        }
        (self.matching, self.near_misses) =
            fits.into_iter().partition(|fit| fit.fit == Fit::Allows);
        let is_by_rules = matches!(
            reason,
            Reason::Rule | Reason::RuleAlone | Reason::Untracked | Reason::NoRule
        );
        let agrees = match reason {
            // The reply of an untracked flow is admitted by the rule that its request had.
            Reason::Untracked => self.rule.as_ref().is_none_or(|rule| rule.group.is_some()),
            _ => self.matching.is_empty() == (reason == Reason::NoRule),
        };
        let pending = self
            .near_misses
            .iter()
            .any(|fit| fit.fit == Fit::NotInForce);
        self.outdated = pending || is_by_rules && !agrees && question.opens();
        self.peer = stored.and(in_force);
    }

    /// The state of the packet's own flow when it was judged, if there was one.
    pub fn flow_state(&self) -> Option<&'static str> {
        // An error speaks of another packet's flow.
        if self.reason == Reason::Related.name() {
            return None;
        }
        self.steps.iter().find_map(|step| match step {
            StepReport::Flow { state, .. } => *state,
            _ => None,
        })
    }

    pub(super) fn passes(&self) -> bool {
        self.verdict == verdict(true)
    }

    pub(crate) fn is_of(&self, interface: &Protected) -> bool {
        self.vpc == interface.vpc && self.interface == interface.name
    }
}

/// The flow that the packet is of.
fn flow(
    standpoint: &Standpoint<'_>,
    question: &Question,
    bare: bool,
) -> Result<Option<(sg_common::flow::FlowState, Flow)>, Error> {
    let framing = match bare {
        true => Framing::Bare,
        false => Framing::Ethernet,
    };
    let mut scratch = Scratch::default();
    scratch.read(question.frame(bare, None).as_slice(), framing);
    let zone = standpoint.interface().zone;
    let key = FlowKey::of(&scratch.headers, question.direction, zone);
    let found = standpoint.flow(&key)?;
    Ok(found.map(|(state, report)| (state, Flow::from(report))))
}

fn group_of(vpc: &Vpc, rule: &RuleOfGroup) -> Option<GroupName> {
    let mut groups = vpc.groups.iter();
    let found = groups.find(|(_, group)| group.rules.iter().any(|held| held.id == rule.id));
    found.map(|(name, _)| name.clone())
}

fn rules_asked(vpc: &Vpc, groups: &BTreeSet<GroupName>, direction: Direction) -> usize {
    let held = groups.iter().filter_map(|name| vpc.groups.get(name));
    held.flat_map(|group| &group.rules)
        .filter(|rule| rule.permission.direction == direction)
        .count()
}
