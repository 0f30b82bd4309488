//! Flows, a line each as they come: there may be millions, so nothing waits for the last.

use std::net::SocketAddr;

use super::style::Style;
use super::words::{ago, bytes, count, span};
use crate::observe::{Flow, FlowWithRule};

const NONE: &str = "no flow is alive that matches; untracked ones have no entry\n";

/// Turns flows into lines.
#[derive(Debug)]
pub struct FlowLines {
    style: Style,
    count: u64,
}

impl FlowLines {
    /// Nothing has been shown yet.
    pub fn new(style: Style) -> Self {
        Self { style, count: 0 }
    }

    /// The line of a flow, after the titles if it is the first.
    pub fn line(&mut self, flow: &Flow) -> String {
        let mut text = String::new();
        if self.count == 0 {
            let titles = columns(
                ["PROTOCOL", "LOCAL", "PEER", "STATE", "EXPIRES", "IN", "OUT"].map(str::to_owned),
                "RULE",
            );
            text.push_str(&self.style.title(&titles));
            text.push('\n');
        }
        self.count += 1;
        let rule = flow.rule.map(|rule| rule.to_string());
        text.push_str(&columns(
            [
                flow.protocol.clone(),
                SocketAddr::new(flow.local, flow.local_port).to_string(),
                SocketAddr::new(flow.peer, flow.peer_port).to_string(),
                flow.state.to_owned(),
                span(flow.expires_in_s),
                bytes(flow.bytes_in),
                bytes(flow.bytes_out),
            ],
            rule.as_deref().unwrap_or("removed"),
        ));
        text.push('\n');
        text
    }

    /// What is left to say after the last flow.
    pub fn end(&self) -> &'static str {
        match self.count {
            0 => NONE,
            _ => "",
        }
    }
}

/// One flow with all that is known of it.
pub fn flow(shown: &FlowWithRule, style: Style) -> String {
    let flow = &shown.flow;
    let ends = [
        SocketAddr::new(flow.local, flow.local_port),
        SocketAddr::new(flow.peer, flow.peer_port),
    ];
    let [local, peer] = ends.map(|end| end.to_string());
    let title = format!("{} {local} with {peer}", flow.protocol);
    let mut text = format!("{}  {}\n", style.title(&title), flow.state);
    let mut line = |label: &str, what: String| text.push_str(&format!("  {label:11}{what}\n"));
    if let (Some(interface), Some(vpc)) = (&flow.interface, &flow.vpc) {
        line(
            "interface",
            format!("{interface}, VPC {vpc}, zone {}", flow.zone),
        );
    }
    let opened = ago(Some(flow.opened_s_ago));
    line("opened", format!("{opened}, by {}", flow.opened_by.name()));
    let (idle, left) = (span(flow.idle_s), span(flow.expires_in_s));
    line("idle", format!("{idle}, expires in {left}"));
    line(
        "rule",
        match (&shown.group, &shown.allows, flow.rule) {
            (Some(group), Some(allows), Some(rule)) => format!("{group}  {allows}  {rule}"),
            _ => "removed; the flow lives on until it ends or is terminated".to_owned(),
        },
    );
    for (label, packets, counted) in [
        ("in", flow.packets_in, flow.bytes_in),
        ("out", flow.packets_out, flow.bytes_out),
    ] {
        let packets = count(usize::try_from(packets).unwrap_or(usize::MAX), "packet");
        line(label, format!("{packets}, {}", bytes(counted)));
    }
    text
}

/// What is left to say when some of the flows were shown.
pub fn flows_left(count_of_all: usize, shown: usize) -> String {
    match count_of_all {
        0 => NONE.to_owned(),
        _ if count_of_all <= shown => String::new(),
        _ => {
            let others = count(count_of_all - shown, "more flow");
            format!("{others}; say more to see fewer, or see all with `flows list`\n")
        }
    }
}

/// What ending flows came to.
pub fn flows_ended(ended: usize, is_dry_run: bool) -> String {
    match (ended, is_dry_run) {
        (0, _) => NONE.to_owned(),
        (_, true) => format!("{} would end\n", count(ended, "flow")),
        (_, false) => format!("{} ended\n", count(ended, "flow")),
    }
}

fn columns(
    [protocol, local, peer, state, expires, bytes_in, bytes_out]: [String; 7],
    rule: &str,
) -> String {
    format!(
        "{protocol:8}  {local:21}  {peer:21}  {state:12}  {expires:>7}  {bytes_in:>8}  \
         {bytes_out:>8}  {rule}"
    )
}

#[cfg(test)]
mod tests {
    use sg_common::packet::Direction;

    use super::*;

    fn flow() -> Flow {
        Flow {
            zone: 1,
            protocol: "tcp".to_owned(),
            local: "10.0.0.1".parse().unwrap(),
            local_port: 22,
            peer: "192.0.2.9".parse().unwrap(),
            peer_port: 40_022,
            state: "established",
            assured: true,
            expires_in_s: 432_000,
            idle_s: 0,
            opened_s_ago: 7,
            opened_by: Direction::Ingress,
            vpc: None,
            interface: None,
            rule: None,
            packets_in: 3,
            packets_out: 2,
            bytes_in: 300,
            bytes_out: 2_000,
        }
    }

    #[test]
    fn titles_come_once() {
        let mut lines = FlowLines::new(Style::PLAIN);
        assert!(lines.end().starts_with("no flow"));
        let first = lines.line(&flow());
        assert_eq!(
            first,
            "\
PROTOCOL  LOCAL                  PEER                   STATE         EXPIRES        IN       OUT  RULE
tcp       10.0.0.1:22            192.0.2.9:40022        established       5 d     300 B    2.0 kB  removed
"
        );
        assert_eq!(lines.line(&flow()).lines().count(), 1);
        assert_eq!(lines.end(), "");
    }
}
