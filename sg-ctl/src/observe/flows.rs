//! Single flows, and which of them are asked for.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use sg_common::packet::Direction;

use super::{direction_name, protocol_name};
use crate::dataplane::FlowReport;
use crate::policy::model::{Permission, Policy};
use crate::policy::names::{GroupName, InterfaceName, RuleId, VpcName};

/// One flow that is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// Whose flows it is among.
    pub zone: u32,
    /// The protocol as rules name it.
    pub protocol: String,
    /// The protected side.
    pub local: IpAddr,
    /// Its port, or the ICMP identifier.
    pub local_port: u16,
    /// The other side.
    pub peer: IpAddr,
    /// Its port, or the ICMP identifier.
    pub peer_port: u16,
    /// Where in its life it is.
    pub state: &'static str,
    /// Whether it has been seen from both sides.
    pub assured: bool,
    /// Seconds until it expires without a packet.
    pub expires_in_s: u64,
    /// Seconds since its last packet, to a second or so.
    pub idle_s: u64,
    /// Seconds since its first packet.
    pub opened_s_ago: u64,
    /// Which way its first packet went.
    #[serde(serialize_with = "direction_name")]
    pub opened_by: Direction,
    /// The VPC of the interface that opened it, if that is still protected.
    pub vpc: Option<VpcName>,
    /// That interface.
    pub interface: Option<InterfaceName>,
    /// The rule that admitted it, if that still exists.
    pub rule: Option<RuleId>,
    /// Packets towards what is protected.
    pub packets_in: u64,
    /// Packets away from it.
    pub packets_out: u64,
    /// Bytes towards what is protected.
    pub bytes_in: u64,
    /// Bytes away from it.
    pub bytes_out: u64,
}

impl From<FlowReport> for Flow {
    fn from(report: FlowReport) -> Self {
        let (vpc, interface) = report.interface.unzip();
        Self {
            zone: report.zone,
            protocol: protocol_name(report.protocol),
            local: report.local,
            local_port: report.local_port,
            peer: report.peer,
            peer_port: report.peer_port,
            state: report.state,
            assured: report.assured,
            expires_in_s: report.expires_in_s,
            idle_s: report.idle_s,
            opened_s_ago: report.opened_s_ago,
            opened_by: report.opened_by,
            vpc,
            interface,
            rule: report.rule,
            packets_in: report.packets_in,
            packets_out: report.packets_out,
            bytes_in: report.bytes_in,
            bytes_out: report.bytes_out,
        }
    }
}

/// A flow with the rule that admitted it, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowWithRule {
    /// The flow.
    #[serde(flatten)]
    pub flow: Flow,
    /// The group of its rule, if that still exists.
    pub group: Option<GroupName>,
    /// What the rule allows, as rules are written.
    pub allows: Option<String>,
}

/// Rules by their ids: the group, and what each allows.
#[derive(Debug)]
pub struct RuleNames<'a>(HashMap<RuleId, (&'a GroupName, &'a Permission)>);

impl<'a> RuleNames<'a> {
    /// The rules of a policy.
    pub fn of(policy: &'a Policy) -> Self {
        let groups = policy.vpcs.values().flat_map(|vpc| &vpc.groups);
        let rules = groups.flat_map(|(name, group)| {
            let rules = group.rules.iter();
            rules.map(move |rule| (rule.id, (name, &rule.permission)))
        });
        Self(rules.collect())
    }

    /// The flow with its rule in words.
    pub fn join(&self, flow: Flow) -> FlowWithRule {
        let found = flow.rule.and_then(|rule| self.0.get(&rule));
        FlowWithRule {
            flow,
            group: found.map(|(group, _)| (*group).clone()),
            allows: found.map(|(_, permission)| permission.to_string()),
        }
    }
}

/// Which flows are asked for; all that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// The IP protocol.
    pub protocol: Option<u8>,
    /// Where the protected side is.
    pub local: Option<IpNet>,
    /// Where the other side is.
    pub peer: Option<IpNet>,
    /// The port of either side.
    pub port: Option<u16>,
    /// Where in its life it is.
    pub state: Option<String>,
    /// The VPC of the interface that opened it.
    pub vpc: Option<VpcName>,
    /// Whose flows it is among.
    pub zone: Option<u32>,
    /// The rule that admitted it.
    pub rule: Option<RuleId>,
    /// The addresses that the protected side has.
    pub addresses: Option<HashSet<IpAddr>>,
}

impl FlowFilter {
    /// Says whether the flow is asked for.
    pub fn takes(&self, flow: &FlowReport) -> bool {
        fn is<T: PartialEq>(asked: Option<T>, found: T) -> bool {
            asked.is_none_or(|asked| asked == found)
        }
        let within = |asked: Option<IpNet>, found: IpAddr| {
            asked.is_none_or(|prefix| prefix.contains(&found))
        };
        is(self.protocol, flow.protocol)
            && within(self.local, flow.local)
            && within(self.peer, flow.peer)
            && self
                .port
                .is_none_or(|port| port == flow.local_port || port == flow.peer_port)
            && is(self.state.as_deref(), flow.state)
            && self.vpc.as_ref().is_none_or(|vpc| {
                let opener = flow.interface.as_ref();
                opener.is_some_and(|(known, _)| known == vpc)
            })
            && is(self.zone, flow.zone)
            && self.rule.is_none_or(|rule| flow.rule == Some(rule))
            && self
                .addresses
                .as_ref()
                .is_none_or(|addresses| addresses.contains(&flow.local))
    }
}

#[cfg(test)]
mod tests {
    use sg_common::flow::FlowKey;

    use super::*;

    fn flow() -> FlowReport {
        FlowReport {
            key: FlowKey::default(),
            zone: 1,
            local: "10.0.0.1".parse().unwrap(),
            local_port: 22,
            peer: "192.0.2.9".parse().unwrap(),
            peer_port: 40_022,
            protocol: 6,
            state: "established",
            assured: true,
            expires_in_s: 60,
            idle_s: 5,
            opened_s_ago: 90,
            opened_by: Direction::Ingress,
            interface: Some((VpcName::default(), "eth0".parse().unwrap())),
            rule: None,
            packets_in: 3,
            packets_out: 2,
            bytes_in: 300,
            bytes_out: 200,
            generation: 1,
            opened: 1,
            marks: crate::dataplane::TcpMarks::default(),
        }
    }

    #[test]
    fn each_filter_takes_what_it_names_and_nothing_else() {
        let takes = |filter: FlowFilter| filter.takes(&flow());
        let all = FlowFilter::default;
        assert!(takes(all()));
        let port = |port| FlowFilter {
            port: Some(port),
            ..all()
        };
        assert!(takes(port(22)) && takes(port(40_022)) && !takes(port(23)));
        let protocol = |number| FlowFilter {
            protocol: Some(number),
            ..all()
        };
        assert!(takes(protocol(6)) && !takes(protocol(17)));
        let peer = |prefix: &str| FlowFilter {
            peer: prefix.parse().ok(),
            ..all()
        };
        assert!(takes(peer("192.0.2.0/24")) && !takes(peer("10.0.0.0/8")));
        let local = |prefix: &str| FlowFilter {
            local: prefix.parse().ok(),
            ..all()
        };
        assert!(takes(local("10.0.0.0/8")) && !takes(local("::/0")));
        let state = |state: &str| FlowFilter {
            state: Some(state.to_owned()),
            ..all()
        };
        assert!(takes(state("established")) && !takes(state("closed")));
        let zone = |zone| FlowFilter {
            zone: Some(zone),
            ..all()
        };
        assert!(takes(zone(1)) && !takes(zone(2)));
        let vpc = |vpc: &str| FlowFilter {
            vpc: vpc.parse().ok(),
            ..all()
        };
        assert!(takes(vpc("default")) && !takes(vpc("other")));
        let at = |address: &str| FlowFilter {
            addresses: Some(HashSet::from([address.parse().unwrap()])),
            ..all()
        };
        assert!(takes(at("10.0.0.1")) && !takes(at("10.0.0.2")));
        assert!(!takes(FlowFilter {
            rule: Some(RuleId::random()),
            ..all()
        }));
    }

    #[test]
    fn the_json_has_the_shape_that_others_rely_on() {
        assert_eq!(
            serde_json::to_value(Flow::from(flow())).unwrap(),
            serde_json::json!({
                "zone": 1, "protocol": "tcp", "local": "10.0.0.1", "local_port": 22,
                "peer": "192.0.2.9", "peer_port": 40_022, "state": "established", "assured": true,
                "expires_in_s": 60, "idle_s": 5, "opened_s_ago": 90, "opened_by": "ingress",
                "vpc": "default", "interface": "eth0", "rule": null, "packets_in": 3, "packets_out": 2,
                "bytes_in": 300, "bytes_out": 200,
            })
        );
    }
}
