//! What was counted: verdicts by interface and reason, and what each rule admitted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use sg_common::packet::Direction;
use sg_common::report::Reason;

use super::{direction_name, or_none};
use crate::dataplane::{Dataplane, Error, ReasonCount, RuleCount};
use crate::policy::model::{Permission, Policy};
use crate::policy::names::{GroupName, InterfaceName, RuleId, VpcName};

/// All counters of an instance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stats {
    /// Every interface of the policy.
    pub interfaces: Vec<InterfaceStats>,
    /// Every rule of the groups they are in.
    pub rules: Vec<RuleStats>,
}

/// The counters of one interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InterfaceStats {
    /// Its name.
    pub name: InterfaceName,
    /// Whose policy.
    pub vpc: VpcName,
    /// The groups it is in.
    pub groups: BTreeSet<GroupName>,
    /// Whether everything passes now, whatever the verdict.
    pub audit: bool,
    /// What has been counted at least once.
    pub reasons: Vec<ReasonStats>,
}

/// How often one reason applied.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReasonStats {
    /// Relative to the interface.
    #[serde(serialize_with = "direction_name")]
    pub direction: Direction,
    /// Why.
    #[serde(serialize_with = "reason_name")]
    pub reason: Reason,
    /// Whether the packets passed whatever the verdict, because the interface was only audited.
    pub audit: bool,
    /// Packets of the wire.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// What one rule admitted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleStats {
    /// The rule.
    pub id: RuleId,
    /// Whose policy.
    pub vpc: VpcName,
    /// The group it is in.
    pub group: GroupName,
    /// Relative to the interfaces in the group.
    #[serde(serialize_with = "direction_name")]
    pub direction: Direction,
    /// What it allows, as rules are written.
    #[serde(rename = "allows", serialize_with = "as_text")]
    pub permission: Permission,
    /// Packets of the wire, those of the flows it opened included.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Flows it opened.
    pub flows: u64,
    /// When it last admitted a packet, in seconds since the Unix epoch.
    pub last_hit: Option<u64>,
    /// The same, in seconds ago.
    #[serde(skip)]
    pub last_hit_s_ago: Option<u64>,
}

pub(super) fn reason_name<S: Serializer>(reason: &Reason, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(reason.name())
}

fn as_text<S: Serializer>(permission: &Permission, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(permission)
}

impl Stats {
    /// Reads the counters, of one interface and its groups if one is named.
    pub fn read(
        policy: &Policy,
        dataplane: Option<&Dataplane>,
        only: Option<&InterfaceName>,
    ) -> Result<Self, Error> {
        let reasons = or_none(dataplane, Dataplane::reason_counts)?;
        let rules = or_none(dataplane, Dataplane::rule_counts)?;
        let attachments = or_none(dataplane, Dataplane::attachments)?;
        let attached: BTreeSet<_> = attachments
            .into_iter()
            .map(|attachment| (attachment.vpc, attachment.name))
            .collect();
        Ok(Self::join(policy, &attached, reasons, &rules, only, now()))
    }

    fn join(
        policy: &Policy,
        attached: &BTreeSet<(VpcName, InterfaceName)>,
        counts: Vec<ReasonCount>,
        rule_counts: &HashMap<RuleId, RuleCount>,
        only: Option<&InterfaceName>,
        now: u64,
    ) -> Self {
        let mut reasons: HashMap<(VpcName, InterfaceName), Vec<ReasonStats>> = HashMap::new();
        for count in counts {
            let counted = ReasonStats {
                direction: count.direction,
                reason: count.reason,
                audit: count.audited,
                packets: count.packets,
                bytes: count.bytes,
            };
            reasons
                .entry((count.vpc, count.interface))
                .or_default()
                .push(counted);
        }
        let mut stats = Self {
            interfaces: Vec::new(),
            rules: Vec::new(),
        };
        for (vpc_name, vpc) in &policy.vpcs {
            let mut used: BTreeSet<&GroupName> = BTreeSet::new();
            let named = vpc
                .interfaces
                .iter()
                .filter(|(_, interface)| interface.matching.is_none());
            let matched = attached.iter().filter_map(|(of, name)| {
                let interface = vpc.interface(name).filter(|_| of == vpc_name)?;
                interface.matching.is_some().then_some((name, interface))
            });
            let shown: BTreeMap<_, _> = named
                .chain(matched)
                .filter(|(name, _)| only.is_none_or(|only| name.is_meant_by(only)))
                .collect();
            for (name, interface) in shown {
                let mut reasons = reasons
                    .remove(&(vpc_name.clone(), name.clone()))
                    .unwrap_or_default();
                reasons.sort_by_key(|count| (count.direction, count.reason, count.audit));
                stats.interfaces.push(InterfaceStats {
                    name: name.clone(),
                    vpc: vpc_name.clone(),
                    groups: interface.groups.clone(),
                    audit: interface.audit,
                    reasons,
                });
                used.extend(&interface.groups);
            }
            for (name, group) in used
                .iter()
                .filter_map(|name| vpc.groups.get_key_value(*name))
            {
                stats.rules.extend(group.rules.iter().map(|rule| {
                    let count = rule_counts.get(&rule.id).cloned().unwrap_or_default();
                    RuleStats {
                        id: rule.id,
                        vpc: vpc_name.clone(),
                        group: name.clone(),
                        direction: rule.permission.direction,
                        permission: rule.permission.clone(),
                        packets: count.packets,
                        bytes: count.bytes,
                        flows: count.flows,
                        last_hit: count.last_hit_s_ago.map(|ago| now.saturating_sub(ago)),
                        last_hit_s_ago: count.last_hit_s_ago,
                    }
                }));
            }
        }
        stats
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::file::PolicyFile;

    fn policy() -> Policy {
        let text = "{groups: {web: {egress: [], ingress: [{service: ssh, from: 10.0.0.0/8}]},
                              idle: {}},
                     interfaces: {eth0: {groups: [web]}}}";
        PolicyFile::parse("test", text)
            .unwrap()
            .to_policy(&Policy::default())
            .unwrap()
    }

    fn drops() -> ReasonCount {
        ReasonCount {
            vpc: VpcName::default(),
            interface: "eth0".parse().unwrap(),
            direction: Direction::Ingress,
            reason: Reason::NoRule,
            audited: false,
            packets: 2,
            bytes: 120,
        }
    }

    #[test]
    fn the_json_has_the_shape_that_others_rely_on() {
        let policy = policy();
        let rule = policy.vpcs[&VpcName::default()].groups[&"web".parse().unwrap()].rules[0].id;
        let count = RuleCount {
            packets: 5,
            bytes: 300,
            flows: 1,
            last_hit_s_ago: Some(7),
        };
        let stats = Stats::join(
            &policy,
            &BTreeSet::new(),
            vec![drops()],
            &HashMap::from([(rule, count)]),
            None,
            1_000,
        );
        assert_eq!(
            serde_json::to_value(&stats).unwrap(),
            serde_json::json!({
                "interfaces": [{
                    "name": "eth0", "vpc": "default", "groups": ["web"], "audit": false,
                    "reasons": [{
                        "direction": "ingress", "reason": "no-rule", "audit": false, "packets": 2, "bytes": 120,
                    }],
                }],
                "rules": [{
                    "id": rule.to_string(), "vpc": "default", "group": "web",
                    "direction": "ingress", "allows": "tcp 22 from 10.0.0.0/8",
                    "packets": 5, "bytes": 300, "flows": 1, "last_hit": 993,
                }],
            })
        );
    }

    #[test]
    fn a_rule_that_admitted_nothing_was_never_hit() {
        let stats = Stats::join(
            &policy(),
            &BTreeSet::new(),
            Vec::new(),
            &HashMap::new(),
            None,
            1_000,
        );
        assert_eq!(stats.rules.len(), 1);
        assert_eq!((stats.rules[0].packets, stats.rules[0].last_hit), (0, None));
        assert_eq!(stats.interfaces[0].reasons, []);
    }

    #[test]
    fn one_interface_alone_can_be_asked_for() {
        let other = "eth1".parse().unwrap();
        let stats = Stats::join(
            &policy(),
            &BTreeSet::new(),
            vec![drops()],
            &HashMap::new(),
            Some(&other),
            0,
        );
        assert_eq!((stats.interfaces.len(), stats.rules.len()), (0, 0));
    }
}
