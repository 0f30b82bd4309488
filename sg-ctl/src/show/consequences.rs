//! What a change would do to the connections there are.

use std::collections::BTreeMap;

use super::columns::{Align, Columns};
use super::style::Style;
use super::words::count;
use crate::consequences::Consequences;
use crate::observe::FlowWithRule;

/// More peers than anyone compares; the others are counted.
const SHOWN: usize = 10;

/// The connections that a change means something to, by peer and port.
pub fn consequences(found: &Consequences, style: Style) -> String {
    if found.is_nothing() {
        return "No tracked connection is affected\n".to_owned();
    }
    let mut text = String::new();
    for (flows, one, several) in [
        (&found.cut, "is closed", "are closed"),
        (
            &found.outlive,
            "loses its rule but stays open; --terminate closes it",
            "lose their rules but stay open; --terminate closes them",
        ),
        (&found.let_in, "has a rule again", "have a rule again"),
        (
            &found.unprotected,
            "stays open without protection",
            "stay open without protection",
        ),
    ] {
        if !flows.is_empty() {
            let what = if flows.len() == 1 { one } else { several };
            let title = format!("{} {what}:", count(flows.len(), "open connection"));
            text.push_str(&format!("{}\n", style.title(&title)));
            text.push_str(&by_peer(flows, style));
        }
    }
    text
}

/// A line for each interface, peer and service.
fn by_peer(flows: &[FlowWithRule], style: Style) -> String {
    let mut peers: BTreeMap<_, (usize, &FlowWithRule)> = BTreeMap::new();
    for shown in flows {
        let flow = &shown.flow;
        let port = match flow.opened_by.name() {
            "ingress" => flow.local_port,
            _ => flow.peer_port,
        };
        let has_ports = matches!(flow.protocol.as_str(), "tcp" | "udp");
        let service = match has_ports {
            true => format!("{} {port}", flow.protocol),
            false => flow.protocol.clone(),
        };
        let key = (
            flow.interface.clone(),
            flow.opened_by.name(),
            flow.peer,
            service,
        );
        peers.entry(key).or_insert((0, shown)).0 += 1;
    }
    // Those with the most flows first.
    let mut peers: Vec<_> = peers.into_iter().collect();
    peers.sort_by_key(|(_, (number, _))| std::cmp::Reverse(*number));
    let left = Align::Left;
    let mut columns = Columns::new([left, left, left, Align::Right, left]);
    let others = peers.len().saturating_sub(SHOWN);
    for ((interface, direction, peer, service), (number, shown)) in peers.into_iter().take(SHOWN) {
        let towards = match direction {
            "ingress" => "from",
            _ => "to",
        };
        let interface = interface.map_or_else(String::new, |name| name.to_string());
        columns.line([
            format!("{interface} {direction}"),
            service,
            format!("{towards} {peer}"),
            count(number, "flow"),
            match (&shown.group, &shown.allows) {
                (Some(group), Some(allows)) => format!("by {group}: {allows}"),
                _ => String::new(),
            },
        ]);
    }
    let mut text = columns.finish(style, 2);
    if others > 0 {
        text.push_str(&format!("  and {}\n", count(others, "other peer")));
    }
    text
}
