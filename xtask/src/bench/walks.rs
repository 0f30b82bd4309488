//! `cargo xtask bench --explain`: where a packet's time goes, by what the processor does for it.
//!
//! Each way is walked through instruction by instruction, over the maps of a small policy. Instructions
//! are those of the object; a call costs about 9 ns and a helper about 20 ns on a processor that guards
//! its indirect branches, a line of a map that is in no cache some 80 ns or more.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sg_ctl::compile::Limits;
use sg_ctl::dataplane::measure::{Rehearsal, Walk};
use tests::packets::words::frame;

use crate::judgement::{FEW_FLOWS, Pins};

const POLICY: &str = "
groups:
  g:
    ingress:
      - {protocol: tcp, ports: 22, from: [198.51.100.0/24]}
      - {protocol: udp, ports: 53, from: [198.51.100.0/24]}
      - {protocol: tcp, ports: 80, from: [0.0.0.0/0]}
      - {protocol: udp, ports: 123, from: [0.0.0.0/0]}
    egress:
      - {protocol: tcp, ports: 443, to: [198.51.100.0/24]}
      - {protocol: all, to: [0.0.0.0/0]}
interfaces:
  eth0: {groups: [g]}
";

/// A packet: whether it is received, and its words.
struct Packet(bool, &'static str);

/// One way through the programs.
struct Way {
    name: &'static str,
    /// The packets that walk before, and last the one that counts.
    packets: &'static [Packet],
}

const SYN: Packet = Packet(true, "tcp 198.51.100.7:40000 > 10.0.0.10:22 syn seq 1000");
const SYN_ACK: Packet = Packet(
    false,
    "tcp 10.0.0.10:22 > 198.51.100.7:40000 syn ack seq 5000 ackno 1001",
);
const ACK: Packet = Packet(
    true,
    "tcp 198.51.100.7:40000 > 10.0.0.10:22 ack seq 1001 ackno 5001",
);
const ANSWER: Packet = Packet(
    false,
    "tcp 10.0.0.10:22 > 198.51.100.7:40000 ack seq 5001 ackno 1001",
);

const WAYS: &[Way] = &[
    Way {
        name: "refused SYN",
        packets: &[Packet(
            true,
            "tcp 198.51.100.7:40000 > 10.0.0.10:23 syn seq 1000",
        )],
    },
    Way {
        name: "refused UDP",
        packets: &[Packet(true, "udp 198.51.100.7:40000 > 10.0.0.10:99")],
    },
    Way {
        name: "SYN to a port open to everyone",
        packets: &[Packet(
            true,
            "tcp 203.0.113.9:40000 > 10.0.0.10:80 syn seq 1000",
        )],
    },
    Way {
        name: "UDP to a port open to everyone",
        packets: &[Packet(true, "udp 203.0.113.9:40000 > 10.0.0.10:123")],
    },
    Way {
        name: "SYN that opens a flow",
        packets: &[SYN],
    },
    Way {
        name: "SYN-ACK that answers",
        packets: &[SYN, SYN_ACK],
    },
    Way {
        name: "ACK that completes",
        packets: &[SYN, SYN_ACK, ACK],
    },
    Way {
        name: "established, received",
        packets: &[SYN, SYN_ACK, ACK, ACK],
    },
    Way {
        name: "established, sent",
        packets: &[SYN, SYN_ACK, ACK, ANSWER],
    },
    Way {
        name: "FIN",
        packets: &[
            SYN,
            SYN_ACK,
            ACK,
            Packet(
                true,
                "tcp 198.51.100.7:40000 > 10.0.0.10:22 fin ack seq 1001 ackno 5001",
            ),
        ],
    },
    Way {
        name: "first UDP of a flow",
        packets: &[Packet(true, "udp 198.51.100.7:40000 > 10.0.0.10:53")],
    },
    Way {
        name: "UDP answer",
        packets: &[
            Packet(true, "udp 198.51.100.7:40000 > 10.0.0.10:53"),
            Packet(false, "udp 10.0.0.10:53 > 198.51.100.7:40000"),
        ],
    },
    Way {
        name: "UDP stream",
        packets: &[
            Packet(true, "udp 198.51.100.7:40000 > 10.0.0.10:53"),
            Packet(false, "udp 10.0.0.10:53 > 198.51.100.7:40000"),
            Packet(true, "udp 198.51.100.7:40000 > 10.0.0.10:53"),
            Packet(true, "udp 198.51.100.7:40000 > 10.0.0.10:53"),
        ],
    },
];

/// The ways that end in a drop are called so.
const REFUSED: &str = "refused";

// What the programs return (`enum xdp_action` and linux/pkt_cls.h).
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_ACT_SHOT: u32 = 2;
const TCX_NEXT: u32 = u32::MAX;

/// The hooks, and what receives there.
const HOOKS: [(&str, &str); 2] = [("xdp", "sg_xdp_receive"), ("tc", "sg_tc_receive")];
const SENDS: &str = "sg_tc_send";

/// Walks every way at every hook.
fn walks() -> Result<Vec<(&'static str, &'static str, Walk)>> {
    let pins = Pins::mount()?;
    let staged = pins.stage("walks", POLICY, FEW_FLOWS, Limits::default())?;
    let mut walks = Vec::new();
    for way in WAYS {
        for (hook, receives) in HOOKS {
            let is_sent = way
                .packets
                .last()
                .is_some_and(|Packet(received, _)| !received);
            if is_sent && hook == "xdp" {
                continue;
            }
            let mut walker = staged.walker()?;
            let mut last = Walk::default();
            for Packet(received, words) in way.packets {
                let program = if *received { receives } else { SENDS };
                last = walker.walk(program, Rehearsal::IFINDEX, &frame(words)?)?;
            }
            let passes = !way.name.starts_with(REFUSED);
            let expected = match (hook, passes) {
                ("xdp", true) => XDP_PASS,
                ("xdp", false) => XDP_DROP,
                (_, true) => TCX_NEXT,
                (_, false) => TC_ACT_SHOT,
            };
            ensure!(
                last.returned == expected,
                "{}: the program returns {} at {hook}, and not {expected}",
                way.name,
                last.returned
            );
            walks.push((way.name, hook, last));
        }
    }
    Ok(walks)
}

/// Prints a table, or JSON.
pub(crate) fn explain(as_json: bool) -> Result<()> {
    let walks = walks()?;
    if as_json {
        let rows: Vec<Value> = walks
            .iter()
            .map(|(way, hook, walk)| row(way, hook, walk))
            .collect();
        println!("{:#}", json!({ "walks": rows }));
        return Ok(());
    }
    println!(
        "{:31} {:4} {:>12} {:>6} {:>8} {:>8} {:>6} {:>7} {:>6}",
        "WAY", "HOOK", "INSTRUCTIONS", "CALLS", "HELPERS", "LOOKUPS", "LOADS", "STORES", "LINES"
    );
    for (way, hook, walk) in &walks {
        println!(
            "{way:31} {hook:4} {:>12} {:>6} {:>8} {:>8} {:>6} {:>7} {:>6}",
            walk.instructions,
            walk.calls,
            walk.helpers,
            walk.inline_lookups,
            walk.map_loads,
            walk.map_stores,
            walk.map_lines
        );
    }
    Ok(())
}

fn row(way: &str, hook: &str, walk: &Walk) -> Value {
    json!({
        "way": way,
        "hook": hook,
        "instructions": walk.instructions,
        "calls": walk.calls,
        "helpers": walk.helpers,
        "inline_helpers": walk.inline_helpers,
        "inline_lookups": walk.inline_lookups,
        "map_loads": walk.map_loads,
        "map_stores": walk.map_stores,
        "map_lines": walk.map_lines,
        "by_line": walk.by_line,
    })
}
