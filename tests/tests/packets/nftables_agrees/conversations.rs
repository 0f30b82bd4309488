//! Packets that mean something together: told to both roads one after the other, and compared by what
//! has reached the other end when all of them are told.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use sg_common::packet::Direction;
use tests::packets::words;

/// What the guest is in. World and guest are `w` and `g`, `w6` and `g6`.
pub(crate) const POLICY: &str = "
groups:
  always:
    ingress: [{protocol: udp, ports: 7, from: [192.0.2.250/32]}]
    egress: []
  g:
    ingress:
      - {protocol: udp, ports: 161, from: [198.51.100.0/24, 240.0.0.0/4, '2001:db8:7::/64']}
      - {protocol: tcp, ports: 22, from: [198.51.100.0/24, 240.0.0.0/4, '2001:db8:7::/64']}
      - {protocol: icmp, type: 8, from: [198.51.100.0/24]}
    egress:
      - {protocol: udp, ports: 53, to: [198.51.100.0/24, 240.0.0.0/4, '2001:db8:7::/64']}
interfaces:
  guest0: {groups: [always, g], side: guest, hook: tc, addresses: [10.0.0.5, '2001:db8::5'], macs: any}
";

/// Where the names of the conversations are.
const NAMES: [(&str, &str); 5] = [
    ("w6", "2001:db8:7::7"),
    ("g6", "2001:db8::5"),
    ("w", "198.51.100.7"),
    ("g", "10.0.0.5"),
    ("pod", "250.1.2.3"),
];

/// A fact, and the packets that show it: `in` to the guest and `out` from it. What is behind `=` is
/// the fragments that belong together; they have arrived when all of them have.
pub(crate) const CONVERSATIONS: &[(&str, &[&str])] = &[
    (
        "fragments in order",
        &[
            "in udp w:4000 > g:161 udp-length 1496 payload 1472 fragment 1@0+ = a",
            "in proto 17 w > g payload 16 fragment 1@1480 = a",
            "in udp w6:4000 > g6:161 udp-length 1464 payload 1440 fragment 2@0+ = b",
            "in proto 17 w6 > g6 payload 16 fragment 2@1448 = b",
        ],
    ),
    (
        "fragments of which the last comes first",
        &[
            "in proto 17 w > g payload 16 fragment 3@1480 = a",
            "in udp w:4000 > g:161 udp-length 1496 payload 1472 fragment 3@0+ = a",
            "in proto 17 w6 > g6 payload 16 fragment 4@1448 = b",
            "in udp w6:4000 > g6:161 udp-length 1464 payload 1440 fragment 4@0+ = b",
        ],
    ),
    (
        "fragments of which the first comes between",
        &[
            "in proto 17 w > g payload 16 fragment 5@1296 = a",
            "in udp w:4000 > g:161 udp-length 1312 payload 640 fragment 5@0+ = a",
            "in proto 17 w > g payload 648 fragment 5@648+ = a",
            "in icmp echo w > g id 9 payload 640 fragment 6@0+ = b",
            "in proto 1 w > g payload 16 fragment 6@648 = b",
            "in proto 1 w > g payload 16 fragment 7@648 = c",
            "in icmp echo w > g id 9 payload 640 fragment 7@0+ = c",
        ],
    ),
    (
        "fragments of what no rule allows",
        &[
            "in proto 17 w > g payload 16 fragment 8@1480 = a",
            "in udp w:4000 > g:162 udp-length 1496 payload 1472 fragment 8@0+ = a",
            "in udp w6:4000 > g6:162 udp-length 1464 payload 1440 fragment 9@0+ = b",
            "in proto 17 w6 > g6 payload 16 fragment 9@1448 = b",
            "in proto 132 w > g payload 16 fragment 10@1480 = c",
            "in proto 132 w > g payload 1480 fragment 10@0+ = c",
        ],
    ),
    (
        "an answer in fragments, the last one first",
        &[
            "out udp g:4001 > w:53 payload 8",
            "in proto 17 w > g payload 16 fragment 11@1480 = a",
            "in udp w:53 > g:4001 udp-length 1496 payload 1472 fragment 11@0+ = a",
            "in proto 17 w > g payload 16 fragment 12@1480 = b",
            "in udp w:53 > g:4002 udp-length 1496 payload 1472 fragment 12@0+ = b",
            "out udp g6:4001 > w6:53 payload 8",
            "in proto 17 w6 > g6 payload 16 fragment 13@1448 = c",
            "in udp w6:53 > g6:4001 udp-length 1464 payload 1440 fragment 13@0+ = c",
        ],
    ),
    (
        "a question in fragments, the last one first",
        &[
            "out proto 17 g > w payload 16 fragment 14@1480 = a",
            "out udp g:4003 > w:53 udp-length 1496 payload 1472 fragment 14@0+ = a",
            "in udp w:53 > g:4003 payload 8",
            "out proto 17 g > w payload 16 fragment 15@1480 = b",
            "out udp g:4003 > w:54 udp-length 1496 payload 1472 fragment 15@0+ = b",
        ],
    ),
    (
        "addresses of 240.0.0.0/4",
        &[
            "in udp pod:4000 > g:161 payload 8",
            "out udp g:161 > pod:4000 payload 8",
            "in udp pod:4000 > g:162 payload 8",
            "out udp g:4004 > pod:53 payload 8",
            "in udp pod:53 > g:4004 payload 8",
            "in tcp pod:4000 > g:22 syn",
            "out tcp g:22 > pod:4000 syn ack seq 5000 ackno 1001",
            "in tcp pod:4000 > g:22 ack seq 1001 ackno 5001",
            "in tcp pod:4000 > g:23 syn",
        ],
    ),
    (
        "a flow that began outside answers and does not ask",
        &[
            "in udp w:4005 > g:161 payload 8",
            "out udp g:161 > w:4005 payload 8",
            "out udp g:161 > w:4006 payload 8",
            "in icmp echo w > g id 7",
            "out icmp reply g > w id 7",
            "out icmp echo g > w id 7",
        ],
    ),
    (
        "an answer to SYN with another number",
        &[
            "in tcp w:4010 > g:22 syn seq 1000",
            "out tcp g:22 > w:4010 syn ack seq 5000 ackno 1001",
            "in tcp w:4010 > g:22 syn seq 1000",
            "out tcp g:22 > w:4010 syn ack seq 9000 ackno 1001",
            "in tcp w:4010 > g:22 ack seq 1001 ackno 9001",
            "in tcp w:4010 > g:22 ack psh seq 1001 ackno 9001 payload 10",
            "out tcp g:22 > w:4010 ack seq 9001 ackno 1011 payload 10",
        ],
    ),
    (
        "a connection is reset by its peer",
        &[
            "in tcp w6:4011 > g6:22 syn seq 1000",
            "out tcp g6:22 > w6:4011 syn ack seq 5000 ackno 1001",
            "in tcp w6:4011 > g6:22 ack seq 1001 ackno 5001",
            "out tcp g6:22 > w6:4011 ack seq 5001 ackno 1001 payload 10",
            "in tcp w6:4011 > g6:22 rst seq 1001",
            "in tcp w6:4011 > g6:22 syn seq 800000",
            "out tcp g6:22 > w6:4011 syn ack seq 900000 ackno 800001",
            "in tcp w6:4011 > g6:22 ack seq 800001 ackno 900001 payload 10",
        ],
    ),
    (
        "a reset elsewhere in the window, which is answered",
        &[
            "in tcp w:4012 > g:22 syn seq 1000",
            "out tcp g:22 > w:4012 syn ack seq 5000 ackno 1001",
            "in tcp w:4012 > g:22 ack seq 1001 ackno 5001",
            "in tcp w:4012 > g:22 rst seq 1500",
            "out tcp g:22 > w:4012 ack seq 5001 ackno 1001",
            "in tcp w:4012 > g:22 ack seq 1001 ackno 5001 payload 10",
            "out tcp g:22 > w:4012 ack seq 5001 ackno 1011 payload 10",
        ],
    ),
    (
        "a SYN within a connection, which is answered by a challenge",
        &[
            "in tcp w:4013 > g:22 syn seq 1000",
            "out tcp g:22 > w:4013 syn ack seq 5000 ackno 1001",
            "in tcp w:4013 > g:22 ack seq 1001 ackno 5001",
            "in tcp w:4013 > g:22 syn seq 700000000",
            "out tcp g:22 > w:4013 ack seq 5001 ackno 1001",
            "in tcp w:4013 > g:22 ack seq 1001 ackno 5001 payload 10",
            "out tcp g:22 > w:4013 ack seq 5001 ackno 1011",
        ],
    ),
    (
        "a connection over one that only the guest remembers",
        &[
            "in tcp w6:4014 > g6:22 syn seq 1000",
            "out tcp g6:22 > w6:4014 syn ack seq 5000 ackno 1001",
            "in tcp w6:4014 > g6:22 ack seq 1001 ackno 5001",
            "in tcp w6:4014 > g6:22 syn seq 700000000",
            "out tcp g6:22 > w6:4014 ack seq 5001 ackno 1001",
            "in tcp w6:4014 > g6:22 rst seq 1001",
            "in tcp w6:4014 > g6:22 syn seq 700000000",
            "out tcp g6:22 > w6:4014 syn ack seq 90000 ackno 700000001",
            "in tcp w6:4014 > g6:22 ack seq 700000001 ackno 90001 payload 10",
            "out tcp g6:22 > w6:4014 ack seq 90001 ackno 700000011 payload 10",
        ],
    ),
    (
        "a connection of the same ports as one that has ended",
        &[
            "in tcp w:4015 > g:22 syn seq 1000",
            "out tcp g:22 > w:4015 syn ack seq 5000 ackno 1001",
            "in tcp w:4015 > g:22 ack fin seq 1001 ackno 5001",
            "out tcp g:22 > w:4015 ack fin seq 5001 ackno 1002",
            "in tcp w:4015 > g:22 ack seq 1002 ackno 5002",
            "in tcp w:4015 > g:22 syn seq 700000",
            "out tcp g:22 > w:4015 syn ack seq 900000 ackno 700001",
            "in tcp w:4015 > g:22 ack seq 700001 ackno 900001 payload 10",
            "out tcp g:22 > w:4015 ack seq 900001 ackno 700011 payload 10",
        ],
    ),
    (
        "answers of a guest that was never asked",
        &[
            "out tcp g:22 > w:4016 syn ack seq 5000 ackno 1001",
            "out tcp g:22 > w:4016 rst seq 5000",
            "out tcp g:22 > w:4016 ack fin seq 5000 ackno 1001",
        ],
    ),
];

/// One packet of a conversation.
pub(crate) struct Said {
    pub(crate) direction: Direction,
    pub(crate) frame: Vec<u8>,
    /// What it belongs to, or its own words.
    pub(crate) part_of: String,
}

/// Reads a line of a conversation.
pub(crate) fn said(line: &str) -> Result<Said> {
    let (written, part_of) = match line.split_once(" = ") {
        Some((written, whole)) => (written, whole),
        None => (line, line),
    };
    let (way, packet) = written.split_once(' ').context("`in` or `out`")?;
    let spelt_out: Vec<String> = packet.split(' ').map(spelt_out).collect();
    Ok(Said {
        direction: match way {
            "in" => Direction::Ingress,
            "out" => Direction::Egress,
            _ => anyhow::bail!("`{way}` is neither `in` nor `out`"),
        },
        frame: words::frame(&spelt_out.join(" "))?,
        part_of: part_of.to_owned(),
    })
}

/// Replaces a name by its address.
fn spelt_out(word: &str) -> String {
    let (name, port) = match word.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (word, None),
    };
    let known = NAMES.iter().find(|(known, _)| *known == name);
    match (known, port) {
        (Some((_, address)), Some(port)) if address.contains(':') => format!("[{address}]:{port}"),
        (Some((_, address)), Some(port)) => format!("{address}:{port}"),
        (Some((_, address)), None) => (*address).to_owned(),
        (None, _) => word.to_owned(),
    }
}

/// Which of what was said has arrived whole.
pub(crate) fn arrived(said: &[(Said, bool)]) -> BTreeMap<&str, bool> {
    let mut whole = BTreeMap::new();
    for (said, has_arrived) in said {
        *whole.entry(said.part_of.as_str()).or_insert(true) &= has_arrived;
    }
    whole
}

/// Complains where two roads have carried other things.
pub(crate) fn compare(
    fact: &str,
    by_sg: &[(Said, bool)],
    by_nft: &[(Said, bool)],
) -> Result<usize> {
    let (by_sg, by_nft) = (arrived(by_sg), arrived(by_nft));
    ensure!(
        by_sg == by_nft,
        "{fact}: sg has carried {by_sg:#?}, and nftables {by_nft:#?}"
    );
    Ok(by_nft.values().filter(|arrived| **arrived).count())
}
