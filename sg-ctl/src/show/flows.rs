//! Flows, a line each as they come: there may be millions, so nothing waits for the last.

use std::net::SocketAddr;

use super::style::Style;
use super::words::{bytes, span};
use crate::observe::Flow;

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
            0 => "no flow is alive that matches; untracked ones have no entry\n",
            _ => "",
        }
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
