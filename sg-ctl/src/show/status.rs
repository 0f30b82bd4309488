//! Which interfaces are protected.

use super::columns::{Align, Columns};
use super::confirmation::{unconfirmed, was_taken_back};
use super::style::Style;
use super::words::{list, number};
use crate::observe::{Full, InterfaceStatus, Status};

/// The state of an instance.
pub fn status(status: &Status, style: Style) -> String {
    let confirmations = confirmations(status);
    if status.interfaces.is_empty() {
        return "no interface is protected; attach one with `sg-ctl attach IFACE`, or list it in \
                a policy file\n"
            .to_owned()
            + &confirmations;
    }
    let mut columns = Columns::titles(
        [Align::Left; 6],
        ["INTERFACE", "VPC", "GROUPS", "SIDE", "HOOK", "STATE"],
    );
    for interface in &status.interfaces {
        let name = match &interface.netns {
            Some(netns) => format!("{} (in {netns})", interface.name),
            None => interface.name.to_string(),
        };
        let device = interface.device.as_deref().unwrap_or_default();
        let state = match interface.state {
            "audited" => "audited: everything passes".to_owned(),
            "unmatched" => "protected, no longer matched".to_owned(),
            "renamed" | "moved" => format!("protected, now {device}"),
            "astray" if device.is_empty() => "gone elsewhere: drops everything".to_owned(),
            "astray" => format!("now {device}: drops everything"),
            "to-be-detached" if status.mismatch.is_some() => {
                "protected by another policy".to_owned()
            }
            state => state.replace('-', " "),
        };
        let parts = [
            name,
            interface.vpc.to_string(),
            list(&interface.groups),
            interface.side.to_owned(),
            interface.hook.to_owned(),
            state,
        ];
        match is_as_stored(interface) {
            true if interface.audit => columns.painted(parts, Style::changed),
            true => columns.line(parts),
            false => columns.painted(parts, Style::bad),
        }
    }
    let mut text = columns.finish(style, 0);
    if let Some(mismatch) = &status.mismatch {
        text.push_str(&style.bad(mismatch));
        text.push('\n');
    } else if !status.interfaces.iter().all(is_as_stored) {
        text.push_str(
            "`sg-ctl restore` makes this match the policy, where the interface is there\n",
        );
    }
    let flows = status.flows;
    text.push_str(&format!(
        "flows: {} assured of {}, {} embryonic; policy revision {}\n",
        number(flows.assured),
        number(flows.capacity),
        number(flows.embryonic),
        status.revision
    ));
    for full in &status.full {
        text.push_str(&no_room(full, style));
    }
    text + &confirmations
}

/// What has no room for another connection, and what makes some.
pub(super) fn no_room(full: &Full, style: Style) -> String {
    let (found, remedy) = (full.found(), full.remedy());
    let found = match full.drops() {
        true => style.bad(&found),
        false => style.changed(&found),
    };
    format!("{found}\n  to make room: {remedy}\n")
}

fn confirmations(status: &Status) -> String {
    let waiting = status.unconfirmed.as_ref().map(unconfirmed);
    let gone = status.taken_back.as_ref().map(was_taken_back);
    waiting.into_iter().chain(gone).collect()
}

/// The policy has it, and the kernel protects it.
fn is_as_stored(interface: &InterfaceStatus) -> bool {
    interface.attached && interface.state != "to-be-detached"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::observe::FlowsStatus;

    #[test]
    fn each_interface_has_a_line() {
        let interface = |name: &str, netns: Option<&str>, attached: bool| InterfaceStatus {
            name: name.parse().unwrap(),
            ifindex: attached.then_some(3),
            vpc: "default".parse().unwrap(),
            groups: BTreeSet::from(["ssh", "web"].map(|name| name.parse().unwrap())),
            side: "host",
            hook: "xdp",
            tc: attached.then_some("tcx"),
            netns: netns.map(str::to_owned),
            matching: None,
            attached,
            audit: name == "eth1",
            state: match name {
                "eth0" => "protected",
                "eth1" => "audited",
                _ => "not-attached",
            },
            device: None,
        };
        let shown = status(
            &Status {
                full: Vec::new(),
                revision: 4,
                interfaces: vec![
                    interface("eth0", None, true),
                    interface("eth1", None, true),
                    interface("a0", Some("a"), false),
                ],
                flows: FlowsStatus {
                    embryonic: 1,
                    assured: 1_200,
                    capacity: 262_144,
                },
                unconfirmed: None,
                taken_back: None,
                mismatch: None,
            },
            Style::PLAIN,
        );
        assert_eq!(
            shown,
            "\
INTERFACE  VPC      GROUPS    SIDE  HOOK  STATE
eth0       default  ssh, web  host  xdp   protected
eth1       default  ssh, web  host  xdp   audited: everything passes
a0 (in a)  default  ssh, web  host  xdp   not attached
`sg-ctl restore` makes this match the policy, where the interface is there
flows: 1,200 assured of 262,144, 1 embryonic; policy revision 4
"
        );
    }

    #[test]
    fn with_nothing_protected_it_says_what_to_do() {
        let nothing = Status {
            full: Vec::new(),
            revision: 0,
            interfaces: Vec::new(),
            flows: FlowsStatus::default(),
            unconfirmed: None,
            taken_back: None,
            mismatch: None,
        };
        let shown = status(&nothing, Style::PLAIN);
        assert!(
            shown.starts_with("no interface is protected; attach one with"),
            "{shown}"
        );
    }
}
