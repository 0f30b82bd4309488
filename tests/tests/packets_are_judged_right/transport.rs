//! L4 headers.

use super::policies::{ANYTHING_IN, DEFAULT, PUBLIC, SSH};
use super::story::{Case, case};

const IN: &[&str] = &[ANYTHING_IN];

const PROTOCOLS: &str = "
groups:
  g:
    ingress:
      - {protocol: 0, from: [10.0.0.0/8]}
      - {protocol: 255, from: [10.0.0.0/8]}
      - {protocol: tcp, ports: 0, from: [10.0.0.0/8]}
    egress: []
interfaces:
  eth0: {groups: [g]}
";

pub(super) const CASES: &[Case] = &[
    case(
        "a TCP header is at least five words long",
        IN,
        "
        in tcp peer:40000 > host:22 syn data-offset 4 => malformed-tcp
        in tcp peer:40000 > host:22 syn data-offset 0 => malformed-tcp
        in tcp peer6:40000 > host6:22 syn data-offset 4 => malformed-tcp
    ",
    ),
    case(
        "a TCP header ends inside its packet",
        IN,
        "
        in tcp peer:40000 > host:22 syn data-offset 6 => malformed-tcp
        in tcp peer:40000 > host:22 syn data-offset 15 payload 8 => malformed-tcp
        in tcp peer:40000 > host:22 syn data-offset 7 payload 8 => rule
    ",
    ),
    case(
        "a packet without any L4 byte is malformed",
        IN,
        "
        in proto 6 peer > host => malformed-tcp
        in proto 17 peer > host => malformed-udp
        in proto 1 peer > host => malformed-icmp
        in proto 58 peer6 > host6 => malformed-icmp
        in proto 58 peer6 > host6 payload 7 => malformed-icmp
    ",
    ),
    case(
        "no TCP sends such flags",
        IN,
        "
        in tcp peer:40000 > host:22 flags 0 => malformed-tcp-flags
        in tcp peer:40000 > host:22 psh => malformed-tcp-flags
        in tcp peer:40000 > host:22 urg psh => malformed-tcp-flags
        in tcp peer:40000 > host:22 syn fin => malformed-tcp-flags
        in tcp peer:40000 > host:22 syn fin ack => malformed-tcp-flags
        in tcp peer:40000 > host:22 syn rst => malformed-tcp-flags
        in tcp peer:40000 > host:22 fin rst ack => malformed-tcp-flags
        in tcp peer:40000 > host:22 flags 63 => malformed-tcp-flags
        in tcp peer:40000 > host:22 flags 255 => malformed-tcp-flags
        in tcp peer6:40000 > host6:22 syn fin => malformed-tcp-flags
    ",
    ),
    case(
        "a FIN always acknowledges",
        &[PUBLIC],
        "
        in tcp peer:40000 > host:80 fin => malformed-tcp-flags
        in tcp peer:40000 > host:80 fin psh urg => malformed-tcp-flags
        in tcp peer:40000 > host:80 fin ack => untracked
    ",
    ),
    case(
        "a SYN that offers congestion notification is a SYN",
        IN,
        "
        in tcp peer:40000 > host:22 flags 194 => rule
    ",
    ),
    case(
        "a UDP length is that of the datagram or less",
        IN,
        "
        in udp peer:40000 > host:22 udp-length 7 => malformed-udp
        in udp peer:40000 > host:22 udp-length 0 => malformed-udp
        in udp peer:40000 > host:22 udp-length 9 => malformed-udp
        in udp peer:40000 > host:22 udp-length 8 payload 4 => rule
        in udp peer6:40000 > host6:22 udp-length 9 => malformed-udp
    ",
    ),
    case(
        "port 0 is a port and protocols 0 and 255 are protocols",
        &[PROTOCOLS],
        "
        in tcp 10.1.1.1:40000 > host:0 syn => rule
        in tcp 10.1.1.1:40000 > host:1 syn => no-rule
        in tcp 10.1.1.1:0 > host:0 syn => rule
        in proto 0 10.1.1.1 > host => rule
        in proto 255 10.1.1.1 > host => rule
        in proto 254 10.1.1.1 > host => no-rule
        in udp 10.1.1.1:40000 > host:0 => no-rule
    ",
    ),
    case(
        "no rule means any protocol by the number 0",
        &[SSH],
        "
        in proto 0 peer > host => no-rule
        in tcp peer:22 > host:0 syn => no-rule
    ",
    ),
    case(
        "an ICMP message has eight bytes",
        IN,
        "
        in proto 1 peer > host payload 0x08000000 => malformed-icmp
        in proto 1 peer > host payload 0x0800000000070000 => rule
    ",
    ),
    case(
        "each family has its own ICMP",
        &[SSH],
        "
        in icmpv6 128/0 peer > host => no-rule
        in icmp 8/0 peer6 > host6 => no-rule
    ",
    ),
    case(
        "a whole segment of a known flow is asked for its flags too",
        &[DEFAULT],
        "
        out tcp host:4000 > other:80 syn => rule
        in tcp other:80 > host:4000 syn ack fin seq 5000 ackno 1001 => malformed-tcp-flags
    ",
    ),
];
