//! What was counted.

use sg_common::report::Verdict;

use super::columns::{Align, Columns};
use super::rates::verdict;
use super::style::Style;
use super::words::{ago, bytes, count, list, number};
use crate::observe::{InterfaceStats, RuleStats, Stats};

/// The counters of interfaces, then those of rules that have any.
pub fn stats(stats: &Stats, style: Style) -> String {
    if stats.interfaces.is_empty() {
        return "nothing is counted, because no interface is protected; attach one with `sg-ctl \
                attach IFACE`\n"
            .to_owned();
    }
    let mut text = String::new();
    for interface in &stats.interfaces {
        text.push_str(&of_interface(interface, style));
    }
    text.push_str(&of_rules(&stats.rules, style));
    text
}

fn of_interface(interface: &InterfaceStats, style: Style) -> String {
    let mode = match interface.audit {
        true => ", audited: everything passes",
        false => "",
    };
    let title = format!("{} ({}){mode}", interface.name, list(&interface.groups));
    let mut text = format!("{}\n", style.title(&title));
    if interface.reasons.is_empty() {
        text.push_str("  no packet yet\n");
        return text;
    }
    let (left, right) = (Align::Left, Align::Right);
    let mut columns = Columns::new([left, left, left, right, right, left]);
    for counted in &interface.reasons {
        let sentence = match (counted.reason.verdict(), counted.audit && !interface.audit) {
            (Verdict::Pass, _) => String::new(),
            (Verdict::Drop, false) => counted.reason.sentence().to_owned(),
            (Verdict::Drop, true) => format!("While audited: {}", counted.reason.sentence()),
        };
        let packets = match counted.packets {
            1 => "1 packet ".to_owned(),
            packets => format!("{} packets", number(packets)),
        };
        let parts = [
            counted.direction.name().to_owned(),
            verdict(counted.reason, counted.audit).to_owned(),
            counted.reason.name().to_owned(),
            packets,
            bytes(counted.bytes),
            sentence,
        ];
        match counted.reason.verdict() {
            Verdict::Pass => columns.line(parts),
            Verdict::Drop => columns.painted(parts, Style::bad),
        }
    }
    text.push_str(&columns.finish(style, 2));
    text
}

fn of_rules(rules: &[RuleStats], style: Style) -> String {
    let (used, unused): (Vec<_>, Vec<_>) = rules.iter().partition(|rule| rule.packets > 0);
    let mut text = String::new();
    if !used.is_empty() {
        let (left, right) = (Align::Left, Align::Right);
        let titles = [
            "GROUP", "RULE", "ALLOWS", "PACKETS", "BYTES", "FLOWS", "LAST HIT",
        ];
        let mut columns = Columns::titles([left, left, left, right, right, right, left], titles);
        for rule in used {
            columns.line([
                rule.group.to_string(),
                rule.id.to_string(),
                rule.permission.to_string(),
                number(rule.packets),
                bytes(rule.bytes),
                number(rule.flows),
                ago(rule.last_hit_s_ago),
            ]);
        }
        text.push('\n');
        text.push_str(&columns.finish(style, 0));
    }
    if !unused.is_empty() {
        let has = if unused.len() == 1 { "has" } else { "have" };
        let unused = count(unused.len(), "rule");
        text.push_str(&format!("{unused} {has} admitted nothing yet\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sg_common::packet::Direction;
    use sg_common::report::Reason;

    use super::*;
    use crate::observe::ReasonStats;
    use crate::policy::model::{Peer, Permission, PortRange, Traffic};

    fn rule(id: &str, packets: u64) -> RuleStats {
        RuleStats {
            id: id.parse().unwrap(),
            vpc: "default".parse().unwrap(),
            group: "web".parse().unwrap(),
            direction: Direction::Ingress,
            permission: Permission {
                direction: Direction::Ingress,
                traffic: Traffic::Tcp(PortRange::new(443, 443).unwrap()),
                peer: Peer::Prefix("0.0.0.0/0".parse().unwrap()),
            },
            packets,
            bytes: packets * 100,
            flows: 2,
            last_hit: Some(1),
            last_hit_s_ago: Some(3),
        }
    }

    fn reason(direction: Direction, reason: Reason, packets: u64) -> ReasonStats {
        ReasonStats {
            direction,
            reason,
            audit: false,
            packets,
            bytes: packets * 60,
        }
    }

    #[test]
    fn a_drop_stands_beside_its_sentence() {
        let shown = stats(
            &Stats {
                interfaces: vec![InterfaceStats {
                    name: "eth0".parse().unwrap(),
                    vpc: "default".parse().unwrap(),
                    groups: BTreeSet::from(["web".parse().unwrap()]),
                    audit: false,
                    reasons: vec![
                        reason(Direction::Ingress, Reason::Tracked, 1_200),
                        reason(Direction::Ingress, Reason::NoRule, 1),
                    ],
                }],
                rules: vec![
                    rule("sgr-00000000000000001", 12),
                    rule("sgr-00000000000000002", 0),
                ],
            },
            Style::PLAIN,
        );
        assert_eq!(
            shown,
            "\
eth0 (web)
  ingress  pass  tracked  1,200 packets  72.0 kB
  ingress  drop  no-rule      1 packet      60 B  No rule of any attached group allows it.

GROUP  RULE                   ALLOWS                  PACKETS   BYTES  FLOWS  LAST HIT
web    sgr-00000000000000001  tcp 443 from 0.0.0.0/0       12  1.2 kB      2  3 s ago
1 rule has admitted nothing yet
"
        );
    }
}
