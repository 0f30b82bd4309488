//! Why a packet passes or not.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::columns::{Align, Columns};
use super::status::no_room;
use super::style::Style;
use super::words::{ago, count, list, span};
use crate::explain::{End, Explanation, FileItem, Fit, PacketReport, PeerClasses, Remedy, RuleFit};
use crate::observe::Flow;
use crate::policy::model::Peer;

/// More rules than anyone compares; the others are counted.
const RULES_SHOWN: usize = 6;
/// What the words at the start of a line take.
const LABEL: usize = 12;

/// The verdict, and for each end what it rests on.
pub fn explanation(told: &Explanation, style: Style) -> String {
    let mut text = format!(
        "{}  {}\n",
        verdict(told.verdict, style),
        style.title(&packet(&told.packet))
    );
    for end in &told.ends {
        text.push_str(&format!(
            "{} at {}: {}\n",
            end.direction,
            place(end),
            verdict(end.verdict, style)
        ));
        text.push_str(&lines_of(end, style));
    }
    if told.stays_inside {
        text.push_str(
            "both addresses are this machine's own: what they say to each other goes over lo, and \
             no interface judges it\n",
        );
    }
    for full in &told.full {
        text.push_str(&no_room(full, style));
    }
    text.extend(told.remedy.as_ref().map(remedy));
    text
}

/// A command to copy, and what to add to the policy file.
pub(super) fn remedy(remedy: &Remedy) -> String {
    let mut text = format!("to allow it:\n  {}\n", remedy.command);
    if !remedy.also_opens.is_empty() {
        let others = list(&remedy.also_opens);
        text.push_str(&format!("  (the group opens {others} as well)\n"));
    }
    if let Some(FileItem {
        list: [outer, name, inner],
        item,
    }) = &remedy.file
    {
        text.push_str(&format!(
            "if you use a policy file, add it there too, or the next `apply` undoes it:\n  \
             {outer}:\n    {name}:\n      {inner}:\n        - {item}\n"
        ));
    }
    text
}

fn verdict(word: &str, style: Style) -> String {
    match word {
        "pass" => style.good("pass"),
        other => style.bad(other),
    }
}

fn place(end: &End) -> String {
    match &end.netns {
        Some(netns) => format!("{} (in {netns})", end.interface),
        None => end.interface.to_string(),
    }
}

/// `tcp 198.51.100.7:40000 to 10.0.0.10:22`.
fn packet(packet: &PacketReport) -> String {
    let end = |address: IpAddr, port: Option<u16>| match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    };
    // By number as rules say it.
    let mut text = match packet.protocol.bytes().all(|byte| byte.is_ascii_digit()) {
        true => format!("protocol {}", packet.protocol),
        false => packet.protocol.clone(),
    };
    if let (Some(kind), Some(code)) = (packet.icmp_type, packet.icmp_code) {
        text.push_str(&format!(" {kind}/{code}"));
    }
    text.push_str(&format!(
        " {} to {}",
        end(packet.source, packet.source_port),
        end(packet.destination, packet.destination_port)
    ));
    if !packet.tcp_flags.is_empty() && packet.tcp_flags != ["syn"] {
        text.push_str(&format!(", {}", list(&packet.tcp_flags)));
    }
    text
}

fn lines_of(end: &End, style: Style) -> String {
    let mut text = String::new();
    let mut line = |label: &str, what: &str| {
        text.push_str(&format!("  {label:LABEL$}{what}\n"));
    };
    line(
        "interface",
        &format!(
            "VPC {}, {} side, hook {}, groups {}",
            end.vpc,
            end.side,
            end.hook,
            list(&end.groups)
        ),
    );
    line("peer", &peer(&end.peer));
    line("flow", &flow(end));
    if end.matching.is_empty() {
        let rules = count(end.rules_asked, &format!("{} rule", end.direction));
        line("rules", &format!("none of {rules} allows it"));
    } else {
        text.push_str(&rule_lines("allowed by", &end.matching, style, |_| ""));
    }
    if !end.near_misses.is_empty() && end.matching.is_empty() {
        text.push_str(&rule_lines("nearest", &end.near_misses, style, words_of));
    }
    let mut line = |label: &str, what: &str| {
        text.push_str(&format!("  {label:LABEL$}{what}\n"));
    };
    line("reason", &format!("{}: {}", end.reason, end.sentence));
    if end.audit {
        line(
            "note",
            "the interface is only audited: it passes all the same",
        );
    }
    if !end.is_own_address {
        line("note", "the local address is not one of the interface's");
    }
    if end.outdated {
        line(
            "note",
            "the kernel judges by an older policy or older addresses; run sg-ctl restore",
        );
    }
    text
}

fn peer(peer: &PeerClasses) -> String {
    let mut classes: Vec<String> = Vec::new();
    classes.extend(peer.groups.iter().map(|group| format!("sg:{group}")));
    classes.extend(peer.prefix_lists.iter().map(|name| format!("pl:{name}")));
    let mut text = match classes.is_empty() {
        true => format!("{}, in no group or prefix list", peer.address),
        false => format!("{}, in {}", peer.address, list(classes)),
    };
    if let Some(interface) = &peer.interface {
        text.push_str(&format!("; protected here as {interface}"));
    }
    text
}

fn flow(end: &End) -> String {
    match &end.flow {
        // What a packet has changed of its flow is seen when it is told of.
        Some(flow) => match end.flow_state() {
            Some(before) if before != flow.state => format!("{before}; now {}", of_flow(flow)),
            _ => of_flow(flow),
        },
        None if end.untracked => "none, and none is kept: open to everyone both ways".to_owned(),
        None if end.reason == "rule" => "none yet; this packet opens one".to_owned(),
        // Of a packet that was judged a moment ago.
        None => match end.flow_state() {
            Some(state) => format!("{state}, and ended since"),
            None => "none".to_owned(),
        },
    }
}

fn of_flow(flow: &Flow) -> String {
    format!(
        "{}, opened by {} {}, idle {}, expires in {}",
        flow.state,
        flow.opened_by.name(),
        ago(Some(flow.opened_s_ago)),
        span(flow.idle_s),
        span(flow.expires_in_s)
    )
}

fn words_of(fit: &RuleFit) -> &'static str {
    match fit.fit {
        Fit::Allows => "",
        Fit::NotInForce => "not in force yet",
        Fit::AnotherFamily => match fit.allows.peer {
            Peer::Prefix(IpNet::V4(_)) => "IPv4 only; add ::/0",
            _ => "IPv6 only; add 0.0.0.0/0",
        },
        Fit::GroupWithoutMembers => "the group has no members",
        Fit::AnotherPort => "another port",
        Fit::AnotherPeer => "another peer",
        Fit::AnotherProtocol => "another protocol",
        Fit::AnotherGroup => "not a group of this interface",
    }
}

fn rule_lines(
    label: &str,
    rules: &[RuleFit],
    style: Style,
    remark: impl Fn(&RuleFit) -> &'static str,
) -> String {
    let mut columns = Columns::new([Align::Left; 5]);
    for (index, rule) in rules.iter().take(RULES_SHOWN).enumerate() {
        let label = if index == 0 { label } else { "" };
        columns.line([
            format!("{label:width$}", width = LABEL - 2),
            rule.group.to_string(),
            rule.allows.to_string(),
            remark(rule).to_owned(),
            rule.id.to_string(),
        ]);
    }
    let mut text = columns.finish(style, 2);
    if rules.len() > RULES_SHOWN {
        let others = count(rules.len() - RULES_SHOWN, "other");
        text.push_str(&format!("  {:LABEL$}and {others}\n", ""));
    }
    text
}
