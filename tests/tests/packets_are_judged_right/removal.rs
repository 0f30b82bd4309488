//! What becomes of flows when the policy changes.

use super::policies::{NOTHING, PUBLIC, SSH};
use super::story::{Case, case};

const NOTHING_AND_TERMINATE: &str = "
on_rule_removal: terminate
groups:
  g: {ingress: [], egress: []}
interfaces:
  eth0: {groups: [g]}
";

const SSH_AND_TERMINATE: &str = r#"
on_rule_removal: terminate
groups:
  g:
    ingress:
      - {protocol: tcp, ports: 22, from: [198.51.100.7/32]}
    egress: []
interfaces:
  eth0: {groups: [g]}
"#;

const TRACKED_WEB: &str = r#"
groups:
  g:
    ingress:
      - {protocol: tcp, ports: 80, from: [0.0.0.0/0]}
    egress: []
interfaces:
  eth0: {groups: [g]}
"#;

pub(super) const CASES: &[Case] = &[
    case(
        "a tracked connection outlives its rule",
        &[SSH, NOTHING],
        "
        in tcp peer:40000 > host:22 syn => rule
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => tracked
        policy 1
        in tcp peer:40000 > host:22 psh ack seq 1001 ackno 5001 payload 9 => tracked
        out tcp host:22 > peer:40000 ack seq 5001 ackno 1010 => tracked
        in tcp peer:40001 > host:22 syn => no-rule
    ",
    ),
    case(
        "a tracked connection ends with its rule where the policy says so",
        &[SSH, NOTHING_AND_TERMINATE],
        "
        in tcp peer:40000 > host:22 syn => rule
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => tracked
        policy 1
        out tcp host:22 > peer:40000 psh ack seq 5001 ackno 1001 payload 9 => terminated
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => no-rule
    ",
    ),
    case(
        "what the new policy still allows goes on",
        &[SSH, SSH_AND_TERMINATE, NOTHING],
        "
        in tcp peer:40000 > host:22 syn => rule
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => tracked
        policy 1
        out tcp host:22 > peer:40000 psh ack seq 5001 ackno 1001 payload 9 => tracked
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5010 => tracked
        policy 2
        out tcp host:22 > peer:40000 ack seq 5010 ackno 1001 => tracked
    ",
    ),
    case(
        "UDP and ICMP flows end with their rule too",
        &[SSH, NOTHING_AND_TERMINATE],
        "
        in udp peer:40000 > host:161 => rule
        in icmp echo peer > host id 7 => rule
        in icmpv6 echo peer6 > host6 id 7 => rule
        policy 1
        out udp host:161 > peer:40000 => terminated
        out icmp reply host > peer id 7 => terminated
        out icmpv6 reply host6 > peer6 id 7 => terminated
    ",
    ),
    case(
        "an untracked connection ends with either rule",
        &[PUBLIC, NOTHING],
        "
        in tcp peer:40000 > host:80 syn => untracked
        out tcp host:80 > peer:40000 syn ack seq 5000 ackno 1001 => untracked
        policy 1
        in tcp peer:40000 > host:80 ack seq 1001 ackno 5001 => no-rule
        out tcp host:80 > peer:40000 ack seq 5001 ackno 1001 => no-rule
        in udp peer:40000 > host:53 => no-rule
    ",
    ),
    case(
        "an untracked connection becomes tracked when replies need it",
        &[PUBLIC, TRACKED_WEB],
        "
        in tcp peer:40000 > host:80 syn => untracked
        out tcp host:80 > peer:40000 syn ack seq 5000 ackno 1001 => untracked
        policy 1
        in tcp peer:40000 > host:80 ack seq 1001 ackno 5001 => rule
        out tcp host:80 > peer:40000 ack seq 5001 ackno 1001 => tracked
    ",
    ),
    case(
        "a tracked connection stays tracked when its rule is opened to all",
        &[TRACKED_WEB, PUBLIC, NOTHING],
        "
        in tcp peer:40000 > host:80 syn => rule
        out tcp host:80 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40000 > host:80 ack seq 1001 ackno 5001 => tracked
        policy 1
        out tcp host:80 > peer:40000 ack seq 5001 ackno 1001 => tracked
        policy 2
        in tcp peer:40000 > host:80 ack seq 1001 ackno 5001 => tracked
    ",
    ),
];
