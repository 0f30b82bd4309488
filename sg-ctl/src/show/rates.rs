//! How fast counters grow.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sg_common::report::{Reason, Verdict};

use super::columns::{Align, Columns};
use super::style::Style;
use super::words::{bytes, list, number, per_second};
use crate::observe::{InterfaceRates, Rates, RuleRate};

/// A screen of rates: every interface, then the rules that admit something at the moment.
pub fn rates(rates: &Rates, style: Style) -> String {
    if rates.interfaces.is_empty() {
        return "nothing is counted, because no interface is protected\n".to_owned();
    }
    let mut text = String::new();
    for interface in &rates.interfaces {
        text.push_str(&of_interface(interface, style));
    }
    text.push_str(&of_rules(&rates.rules, style));
    text
}

fn of_interface(interface: &InterfaceRates, style: Style) -> String {
    let stats = &interface.stats;
    let mode = if stats.audit {
        ", audited: everything passes"
    } else {
        ""
    };
    let title = format!("{} ({}){mode}", stats.name, list(&stats.groups));
    let mut text = format!("{}\n", style.title(&title));
    if interface.rates.is_empty() {
        text.push_str("  no packet yet\n");
        return text;
    }
    let (left, right) = (Align::Left, Align::Right);
    let mut columns = Columns::new([left, left, left, right, right, right]);
    for rate in &interface.rates {
        let (total, growth) = (&rate.total, &rate.growth);
        let parts = [
            total.direction.name().to_owned(),
            verdict(total.reason, total.audit).to_owned(),
            total.reason.name().to_owned(),
            format!("{}/s", per_second(growth.packets_per_second)),
            format!("{}/s", bytes(growth.bytes_per_second as u64)),
            packets(total.packets),
        ];
        match total.reason.verdict() {
            Verdict::Drop if growth.new_packets > 0 => columns.painted(parts, Style::bad),
            _ => columns.line(parts),
        }
    }
    text.push_str(&columns.finish(style, 2));
    text
}

/// With the space that keeps the words below each other.
fn packets(count: u64) -> String {
    match count {
        1 => "1 packet ".to_owned(),
        count => format!("{} packets", number(count)),
    }
}

/// What a reason does to packets at the interface.
pub(super) fn verdict(reason: Reason, is_audited: bool) -> &'static str {
    match reason.verdict() {
        Verdict::Pass => "pass",
        Verdict::Drop if is_audited => "would drop",
        Verdict::Drop => "drop",
    }
}

fn of_rules(rules: &[RuleRate], style: Style) -> String {
    let mut busy: Vec<_> = rules
        .iter()
        .filter(|rule| rule.growth.new_packets > 0)
        .collect();
    busy.sort_by_key(|rule| std::cmp::Reverse(rule.growth.new_packets));
    if busy.is_empty() {
        return "\nno rule admits anything at the moment\n".to_owned();
    }
    let (left, right) = (Align::Left, Align::Right);
    let titles = ["GROUP", "ALLOWS", "PACKETS/S", "BYTES/S", "PACKETS", "RULE"];
    let mut columns = Columns::titles([left, left, right, right, right, left], titles);
    for rule in busy {
        let (total, growth) = (&rule.total, &rule.growth);
        columns.line([
            total.group.to_string(),
            total.permission.to_string(),
            per_second(growth.packets_per_second),
            bytes(growth.bytes_per_second as u64),
            number(total.packets),
            total.id.to_string(),
        ]);
    }
    format!("\n{}", columns.finish(style, 0))
}

/// What has grown, a line each that stands for itself, with the time of day.
pub fn rate_lines(rates: &Rates, time: Timestamp) -> String {
    rate_lines_at(rates, time, TimeZone::system())
}

fn rate_lines_at(rates: &Rates, time: Timestamp, zone: TimeZone) -> String {
    let time = time.to_zoned(zone).strftime("%H:%M:%S").to_string();
    let (left, right) = (Align::Left, Align::Right);
    let mut columns = Columns::new([left, left, left, left, left, right, right, right, right]);
    let mut is_quiet = true;
    for interface in &rates.interfaces {
        for rate in &interface.rates {
            let (total, growth) = (&rate.total, &rate.growth);
            if growth.new_packets == 0 {
                continue;
            }
            is_quiet = false;
            columns.line([
                time.clone(),
                interface.stats.name.to_string(),
                total.direction.name().to_owned(),
                verdict(total.reason, total.audit).to_owned(),
                total.reason.name().to_owned(),
                format!("+{}", packets(growth.new_packets)),
                bytes(growth.new_bytes),
                format!("{}/s", per_second(growth.packets_per_second)),
                format!("{}/s", bytes(growth.bytes_per_second as u64)),
            ]);
        }
    }
    match is_quiet {
        true => format!("{time}  no packet was counted\n"),
        false => columns.finish(Style::PLAIN, 0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sg_common::packet::Direction;

    use super::*;
    use crate::observe::{InterfaceStats, ReasonStats, Stats};

    fn stats(packets: u64) -> Stats {
        let reason = |reason, packets| ReasonStats {
            audit: false,
            direction: Direction::Ingress,
            reason,
            packets,
            bytes: packets * 60,
        };
        Stats {
            interfaces: vec![InterfaceStats {
                name: "eth0".parse().unwrap(),
                vpc: "default".parse().unwrap(),
                groups: ["web".parse().unwrap()].into(),
                audit: false,
                reasons: vec![reason(Reason::Tracked, 7), reason(Reason::NoRule, packets)],
            }],
            rules: Vec::new(),
        }
    }

    fn two_seconds() -> Rates {
        Rates::between(&stats(1_000), stats(4_000), Duration::from_secs(2))
    }

    #[test]
    fn a_screen_shows_every_counter_and_how_fast_it_grows() {
        assert_eq!(
            rates(&two_seconds(), Style::PLAIN),
            "\
eth0 (web)
  ingress  pass  tracked      0/s      0 B/s      7 packets
  ingress  drop  no-rule  1,500/s  90.0 kB/s  4,000 packets

no rule admits anything at the moment
"
        );
    }

    #[test]
    fn a_pipe_gets_lines_of_what_has_grown() {
        let time: Timestamp = "2026-05-04T10:11:12Z".parse().unwrap();
        assert_eq!(
            rate_lines_at(&two_seconds(), time, TimeZone::UTC),
            "10:11:12  eth0  ingress  drop  no-rule  +3,000 packets  180 kB  1,500/s  90.0 kB/s\n"
        );
        let quiet = Rates::between(&stats(1), stats(1), Duration::from_secs(1));
        assert_eq!(
            rate_lines_at(&quiet, time, TimeZone::UTC),
            "10:11:12  no packet was counted\n"
        );
    }
}
