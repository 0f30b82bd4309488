//! What a change would do to the connections there are, before it is made.
//!
//! The packet that opened each live flow is judged twice: by the tables in force and by those that
//! would be. Nothing is installed, and no flow is touched.

use std::collections::HashMap;

use serde::Serialize;
use sg_common::abi::{Interface, InterfaceFlags};
use sg_common::decide::{Scratch, decide};
use sg_common::flow::FlowKey;
use sg_common::ids::Generation;
use sg_common::protocol::{ICMP, ICMPV6};
use sg_common::report::Verdict;

use crate::compile::host::HostTables;
use crate::compile::image::{Image, InstalledInterface};
use crate::dataplane::{self, Dataplane, FlowReport, Wanted};
use crate::explain::{Question, TCP_SYN};
use crate::observe::{Flow, FlowWithRule, RuleNames};
use crate::policy::model::{OnRuleRemoval, Policy};
use crate::policy::names::{InterfaceName, VpcName};

/// The flows that a change means something to.
#[derive(Debug, Default, Serialize)]
pub struct Consequences {
    /// Live flows that were looked at.
    pub flows: usize,
    /// No rule would admit them any more, and they would end at their next packet.
    pub cut: Vec<FlowWithRule>,
    /// No rule would admit them any more, and they would go on until they end or are terminated.
    pub outlive: Vec<FlowWithRule>,
    /// No rule admits them now, and one would again.
    pub let_in: Vec<FlowWithRule>,
    /// Their interface would not be protected any more.
    pub unprotected: Vec<FlowWithRule>,
}

impl Consequences {
    /// Whether the change means nothing to any connection.
    pub fn is_nothing(&self) -> bool {
        let all = [&self.cut, &self.outlive, &self.let_in, &self.unprotected];
        all.into_iter().all(Vec::is_empty)
    }
}

/// Room for the flows that the host's tables open while they judge; each is judged alone.
const ROOM: usize = 8;

/// Judges every live flow by what is in force and by what is wanted. `before` is the policy as it is
/// stored. `None`: nothing is installed, so there are no flows.
pub fn foresee(
    dataplane: &Dataplane,
    before: &Policy,
    wanted: &Wanted<'_>,
) -> Result<Option<Consequences>, dataplane::Error> {
    let Some((image, generation)) = dataplane.image() else {
        return Ok(None);
    };
    let prepared = dataplane.prepare(wanted)?;
    let is = Side::of(image, generation);
    let becomes = Side::of(prepared.image(), generation.next());
    let rules = RuleNames::of(before);
    let mut found = Consequences::default();
    dataplane.flows(&mut |flow| {
        found.flows += 1;
        let Some(device) = is.device_of(&flow) else {
            return;
        };
        let question = opening(&flow);
        let passes = is.passes(device, &question);
        let list = match (passes, becomes.interface(device)) {
            (_, None) => &mut found.unprotected,
            (Some(true), Some(_)) if becomes.passes(device, &question) == Some(false) => {
                let ends = wanted.terminate || ends_with_rule(wanted.policy, &device.vpc);
                match ends {
                    true => &mut found.cut,
                    false => &mut found.outlive,
                }
            }
            (Some(false), Some(_)) if becomes.passes(device, &question) == Some(true) => {
                &mut found.let_in
            }
            _ => return,
        };
        list.push(rules.join(Flow::from(flow)));
    })?;
    Ok(Some(found))
}

fn ends_with_rule(policy: &Policy, vpc: &VpcName) -> bool {
    let vpc = policy.vpcs.get(vpc);
    vpc.is_some_and(|vpc| vpc.on_rule_removal == OnRuleRemoval::Terminate)
}

/// Tables, and who is in them.
struct Side<'a> {
    tables: HostTables<'a>,
    devices: HashMap<(&'a VpcName, &'a InterfaceName), &'a InstalledInterface>,
}

impl<'a> Side<'a> {
    fn of(image: &'a Image, generation: Generation) -> Self {
        let devices = image.interfaces.values();
        Self {
            tables: HostTables::new(image, generation, ROOM),
            devices: devices
                .map(|device| ((&device.vpc, &device.name), device))
                .collect(),
        }
    }

    fn device_of(&self, flow: &FlowReport) -> Option<&'a InstalledInterface> {
        let (vpc, name) = flow.interface.as_ref()?;
        self.devices.get(&(vpc, name)).copied()
    }

    fn interface(&self, device: &InstalledInterface) -> Option<&'a Interface> {
        self.tables.interface(device.netns, device.ifindex)
    }

    /// Whether a packet that no flow knows passes at the device.
    fn passes(&self, device: &InstalledInterface, question: &Question) -> Option<bool> {
        let interface = self.interface(device)?;
        let frame = question.frame(interface.flags.has(InterfaceFlags::BARE), None);
        let decision = decide(
            frame.as_slice(),
            question.direction,
            &interface.without_macs(),
            &self.tables,
            &mut Scratch::default(),
            &(),
        );
        let is_audited = interface.flags.has(InterfaceFlags::AUDIT);
        Some(is_audited || decision.reason.verdict() == Verdict::Pass)
    }
}

/// The packet that opened a flow.
fn opening(flow: &FlowReport) -> Question {
    Question {
        direction: flow.opened_by,
        protocol: flow.protocol,
        local: flow.local,
        peer: flow.peer,
        local_port: flow.local_port,
        peer_port: flow.peer_port,
        icmp: [asked(&flow.key), 0],
        tcp_flags: TCP_SYN,
    }
}

/// The type of an ICMP flow's question: the key tells those that are no echo by their reply's type.
fn asked(key: &FlowKey) -> u8 {
    match (key.protocol, key.asker >> 2) {
        (ICMP, 0) => 8,
        (ICMP, reply) => reply.saturating_sub(1),
        (ICMPV6, _) => 128,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use sg_common::addr::Addr;
    use sg_common::packet::{Direction, Framing};

    use super::*;

    #[test]
    fn the_question_of_an_icmp_flow_is_found_in_its_key() {
        for (protocol, local, peer, kind) in [
            (ICMP, "10.0.0.1", "10.0.0.2", 8),
            (ICMP, "10.0.0.1", "10.0.0.2", 13),
            (ICMP, "10.0.0.1", "10.0.0.2", 15),
            (ICMP, "10.0.0.1", "10.0.0.2", 17),
            (ICMPV6, "2001:db8::1", "2001:db8::2", 128),
        ] {
            for direction in Direction::ALL {
                let question = Question {
                    direction,
                    protocol,
                    local: local.parse().unwrap(),
                    peer: peer.parse().unwrap(),
                    local_port: 0,
                    peer_port: 0,
                    icmp: [kind, 0],
                    tcp_flags: 0,
                };
                let mut scratch = Scratch::default();
                scratch.read(question.frame(true, None).as_slice(), Framing::Bare);
                let key = FlowKey::of(&scratch.headers, direction, 1);
                assert_eq!(key.local, Addr::from(question.local));
                assert_eq!(asked(&key), kind, "{key:?}");
            }
        }
    }
}
