//! What `--json` prints of the policy; what the kernel reports has its shape in [`crate::observe`].

use serde_json::{Value, json};

use crate::consequences::Consequences;
use crate::policy::change::Change;
use crate::policy::findings::Findings;
use crate::policy::model::{Group, IcmpMatch, Policy, Rule, Traffic, Vpc};
use crate::policy::names::{GroupName, VpcName};
use crate::show::{self, Style};

/// What would change, in the words people read.
pub(super) fn changes(
    before: &Policy,
    changes: &[Change],
    consequences: Option<&Consequences>,
) -> Value {
    let changes = changes.iter().map(|change| {
        let line = show::changes(before, std::slice::from_ref(change), Style::PLAIN);
        let line = line.lines().last().unwrap_or_default();
        let (sign, text) = line.split_once(' ').unwrap_or_default();
        json!({"vpc": change.vpc, "sign": sign, "change": text})
    });
    json!({"changes": changes.collect::<Vec<_>>(), "consequences": consequences})
}

/// What is wrong with a file.
pub(super) fn findings(findings: Option<&Findings>) -> Value {
    let list = findings
        .into_iter()
        .flat_map(Findings::iter)
        .map(|finding| {
            json!({
                "level": "error",
                "line": finding.place.map(|place| place.line),
                "column": finding.place.map(|place| place.column),
                "problem": finding.problem.to_string(),
                "text": finding.to_string(),
            })
        });
    json!({"findings": list.collect::<Vec<_>>(), "count": findings.map_or(0, Findings::count)})
}

/// A rule with the group it is in.
pub(super) fn rule(vpc: &VpcName, group: &GroupName, rule: &Rule) -> Value {
    let permission = &rule.permission;
    let (ports, icmp) = match permission.traffic {
        Traffic::Tcp(range) | Traffic::Udp(range) => {
            (Some([range.first(), range.last()]), [None; 2])
        }
        Traffic::Icmp(IcmpMatch::Type(kind)) | Traffic::Icmpv6(IcmpMatch::Type(kind)) => {
            (None, [Some(kind), None])
        }
        Traffic::Icmp(IcmpMatch::TypeCode(kind, code))
        | Traffic::Icmpv6(IcmpMatch::TypeCode(kind, code)) => (None, [Some(kind), Some(code)]),
        _ => (None, [None; 2]),
    };
    let [icmp_type, icmp_code] = icmp;
    json!({
        "id": rule.id,
        "vpc": vpc,
        "group": group,
        "direction": permission.direction.name(),
        "protocol": permission.traffic.protocol(),
        "traffic": permission.traffic.to_string(),
        "first_port": ports.map(|[first, _]| first),
        "last_port": ports.map(|[_, last]| last),
        "icmp_type": icmp_type,
        "icmp_code": icmp_code,
        "peer": permission.peer.to_string(),
        "description": rule.description,
    })
}

/// A group with all that it has.
pub(super) fn group(vpc_name: &VpcName, vpc: &Vpc, name: &GroupName, group: &Group) -> Value {
    let interfaces = vpc.interfaces.iter();
    let interfaces = interfaces.filter(|(_, interface)| interface.groups.contains(name));
    let rules = group.rules.iter().map(|each| rule(vpc_name, name, each));
    json!({
        "name": name,
        "group": name,
        "id": group.id,
        "vpc": vpc_name,
        "description": group.description,
        "rules": rules.collect::<Vec<_>>(),
        "members": group.members,
        "interfaces": interfaces.map(|(name, _)| name).collect::<Vec<_>>(),
    })
}
