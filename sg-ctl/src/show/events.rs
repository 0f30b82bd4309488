//! Events, a line each as they come.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use jiff::tz::TimeZone;
use sg_common::event::EventKind;
use sg_common::packet::Direction;
use sg_common::report::Verdict;

use super::style::Style;
use super::words::number;
use crate::observe::{PacketEvent, Unseen};

/// Turns events into lines.
#[derive(Debug)]
pub struct EventLines {
    style: Style,
    zone: TimeZone,
    interface_width: usize,
}

impl EventLines {
    /// Lines with the time of day where the user is.
    pub fn new(style: Style) -> Self {
        Self::at(style, TimeZone::system())
    }

    fn at(style: Style, zone: TimeZone) -> Self {
        Self {
            style,
            zone,
            interface_width: 0,
        }
    }

    /// The line of an event.
    pub fn line(&mut self, event: &PacketEvent) -> String {
        let time = event.time.to_zoned(self.zone.clone());
        let interface = event.interface.as_ref().map_or("-", |name| name.as_str());
        self.interface_width = self.interface_width.max(interface.chars().count());
        let text = format!(
            "{}  {interface:width$}  {:7}  {:10}  {:54}  {}",
            time.strftime("%H:%M:%S%.3f"),
            event.direction.name(),
            verdict(event),
            packet(event),
            why(event),
            width = self.interface_width,
        );
        let text = match event.verdict {
            Verdict::Pass => text,
            Verdict::Drop if event.audit => self.style.changed(&text),
            Verdict::Drop => self.style.bad(&text),
        };
        format!("{text}\n")
    }

    /// The line for packets that were not told of.
    pub fn unseen(&self, unseen: Unseen) -> String {
        let mut parts = Vec::new();
        for (count, one, many) in [
            (unseen.drops, "dropped packet", "dropped packets"),
            (unseen.new_flows, "new flow", "new flows"),
        ] {
            if count > 0 {
                let what = if count == 1 { one } else { many };
                parts.push(format!("{} more {what}", number(count)));
            }
        }
        let text = match unseen.paused_s {
            None => format!("{} came too fast to be shown", parts.join(" and ")),
            Some(paused) => {
                if parts.is_empty() {
                    parts.push("no more dropped packets".to_owned());
                }
                format!(
                    "no reader for {paused} s: {} and the flows that began in that time are not shown",
                    parts.join(" and ")
                )
            }
        };
        format!("{}\n", self.style.changed(&text))
    }
}

/// What happened to the packet, or would have.
pub(super) fn verdict(event: &PacketEvent) -> &'static str {
    match (event.verdict, event.audit) {
        (Verdict::Drop, true) => "would drop",
        (Verdict::Drop, false) => "drop",
        (Verdict::Pass, _) => "pass",
    }
}

/// The packet as it went: protocol, sender, receiver.
fn packet(event: &PacketEvent) -> String {
    let local = address(event.local, event.local_port);
    let peer = address(event.peer, event.peer_port);
    let (Some(local), Some(peer)) = (local, peer) else {
        return format!("ethertype {:#06x}", event.ethertype);
    };
    let (from, to) = match event.direction {
        Direction::Ingress => (peer, local),
        Direction::Egress => (local, peer),
    };
    let protocol = match (&event.protocol, event.ethertype) {
        (Some(protocol), _) => protocol.as_str(),
        (None, 0x0806) => "arp",
        (None, _) => "-",
    };
    let mut text = format!("{protocol} {from} > {to}");
    if let Some(flags) = &event.tcp_flags {
        let _ = write!(text, " {flags}");
    }
    if let Some([kind, code]) = event.icmp {
        let _ = write!(text, " type {kind} code {code}");
    }
    if event.packets > 1 {
        let _ = write!(text, " ({} packets)", event.packets);
    }
    text
}

fn address(address: Option<IpAddr>, port: Option<u16>) -> Option<String> {
    Some(match port {
        Some(port) => SocketAddr::new(address?, port).to_string(),
        None => address?.to_string(),
    })
}

fn why(event: &PacketEvent) -> String {
    let rule = event.rule.map(|rule| rule.to_string());
    match (event.kind, rule) {
        (EventKind::NewFlow, Some(rule)) => {
            let group = event
                .rule_group
                .as_ref()
                .map_or("-", |group| group.as_str());
            format!("{}: {group} {rule}", event.reason.name())
        }
        _ => format!("{}: {}", event.reason.name(), event.sentence),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sg_common::report::Reason;

    use super::*;

    fn event() -> PacketEvent {
        let reason = Reason::NoRule;
        PacketEvent {
            time: "2026-05-04T10:11:12.345678Z".parse().unwrap(),
            kind: EventKind::Drop,
            verdict: Verdict::Drop,
            audit: false,
            interface: "eth0".parse().ok(),
            vpc: "default".parse().ok(),
            groups: BTreeSet::from(["web".parse().unwrap()]),
            direction: Direction::Ingress,
            reason,
            sentence: reason.sentence(),
            protocol: Some("tcp".to_owned()),
            protocol_number: Some(6),
            ethertype: 0x0800,
            local: "10.0.0.10".parse().ok(),
            local_port: Some(22),
            peer: "198.51.100.7".parse().ok(),
            peer_port: Some(40_022),
            icmp: None,
            tcp_flags: Some("SYN".to_owned()),
            tcp_flag_bits: 2,
            rule: None,
            rule_group: None,
            generation: 3,
            packets: 1,
            bytes: 74,
        }
    }

    fn line(event: &PacketEvent) -> String {
        EventLines::at(Style::PLAIN, TimeZone::UTC).line(event)
    }

    #[test]
    fn a_drop_names_the_packet_and_the_reason() {
        assert_eq!(
            line(&event()),
            "10:11:12.345  eth0  ingress  drop        \
             tcp 198.51.100.7:40022 > 10.0.0.10:22 SYN               \
             no-rule: No rule of any attached group allows it.\n"
        );
        let audited = PacketEvent {
            audit: true,
            ..event()
        };
        assert!(line(&audited).contains("  would drop  tcp"), "{audited:?}");
    }

    #[test]
    fn a_new_flow_names_the_rule() {
        let event = PacketEvent {
            kind: EventKind::NewFlow,
            verdict: Verdict::Pass,
            reason: Reason::Rule,
            direction: Direction::Egress,
            protocol: Some("icmp".to_owned()),
            local_port: None,
            peer_port: None,
            tcp_flags: None,
            icmp: Some([8, 0]),
            rule: "sgr-00000000000000001".parse().ok(),
            rule_group: "web".parse().ok(),
            ..event()
        };
        let line = line(&event);
        assert!(line.contains("pass        icmp 10.0.0.10 > 198.51.100.7 type 8 code 0 "));
        assert!(
            line.ends_with("  rule: web sgr-00000000000000001\n"),
            "{line}"
        );
    }

    #[test]
    fn what_could_not_be_read_is_not_shown() {
        let event = PacketEvent {
            reason: Reason::Unsupported,
            protocol: None,
            ethertype: 0x8847,
            local: None,
            peer: None,
            ..event()
        };
        assert!(line(&event).contains("  ethertype 0x8847  "));
    }

    #[test]
    fn what_was_not_told_is_counted() {
        let lines = EventLines::at(Style::PLAIN, TimeZone::UTC);
        let unseen = Unseen {
            drops: 1_234,
            new_flows: 1,
            paused_s: None,
        };
        assert_eq!(
            lines.unseen(unseen),
            "1,234 more dropped packets and 1 more new flow came too fast to be shown\n"
        );
        let paused = |drops| Unseen {
            drops,
            new_flows: 0,
            paused_s: Some(5),
        };
        assert_eq!(
            lines.unseen(paused(7)),
            "no reader for 5 s: 7 more dropped packets and the flows that began in that time are not \
             shown\n"
        );
        assert!(
            lines
                .unseen(paused(0))
                .contains("no more dropped packets and the flows")
        );
    }
}
