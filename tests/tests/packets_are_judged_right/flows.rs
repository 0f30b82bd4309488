//! Flows of UDP, ICMP and other protocols.

use super::policies::{ANYTHING_IN, DEFAULT, NOTHING, PUBLIC, SSH};
use super::story::{Case, case};

const IN: &[&str] = &[SSH];
const OUT: &[&str] = &[DEFAULT];

const TUNNELS: &str = "
groups:
  g:
    ingress:
      - {protocol: 47, from: [198.51.100.7/32]}
    egress: []
interfaces:
  eth0: {groups: [g]}
";

const PINGS: &str = "
groups:
  g:
    ingress:
      - {protocol: icmp, type: 8, from: [198.51.100.7/32]}
    egress:
      - {protocol: icmp, type: 8, to: [203.0.113.0/24]}
interfaces:
  eth0: {groups: [g]}
";

pub(super) const CASES: &[Case] = &[
    case(
        "a UDP request lets its answer in",
        OUT,
        "
        in udp other:53 > host:4000 => no-rule
        out udp host:4000 > other:53 => rule
        in udp other:53 > host:4000 => tracked
        in udp other:54 > host:4000 => no-rule
        in udp other:53 > host:4001 => no-rule
        in udp peer:53 > host:4000 => no-rule
    ",
    ),
    case(
        "a single UDP exchange lives for thirty seconds",
        OUT,
        "
        out udp host:4000 > other:53 => rule
        in udp other:53 > host:4000 => tracked
        wait 29
        in udp other:53 > host:4000 => tracked
        wait 31
        in udp other:53 > host:4000 => no-rule
    ",
    ),
    case(
        "a second request makes a UDP stream, which lives for three minutes",
        OUT,
        "
        out udp host:4000 > other:53 => rule
        in udp other:53 > host:4000 => tracked
        out udp host:4000 > other:53 => tracked
        wait 179
        in udp other:53 > host:4000 => tracked
        wait 181
        in udp other:53 > host:4000 => no-rule
    ",
    ),
    case(
        "requests without an answer make no stream",
        OUT,
        "
        out udp host:4000 > other:53 => rule
        out udp host:4000 > other:53 => tracked
        out udp host:4000 > other:53 => tracked
        wait 31
        in udp other:53 > host:4000 => no-rule
    ",
    ),
    case(
        "an untracked UDP service keeps no flow",
        &[PUBLIC],
        "
        in udp peer:40000 > host:53 => untracked
        out udp host:53 > peer:40000 => untracked
        in udp peer6:40000 > host6:53 => untracked
        out udp host6:53 > peer6:40000 => untracked
        out udp host:4000 > peer:40000 => rule
    ",
    ),
    case(
        "an echo lets its reply through, by the identifier",
        IN,
        "
        in icmp echo peer > host id 7 => rule
        out icmp reply host > peer id 7 => tracked
        out icmp reply host > peer id 8 => no-rule
        in icmpv6 echo peer6 > host6 id 7 => rule
        out icmpv6 reply host6 > peer6 id 7 => tracked
        out icmpv6 reply host6 > peer6 id 8 => no-rule
    ",
    ),
    case(
        "leave to answer an echo is no leave to ask",
        IN,
        "
        in icmp echo peer > host id 7 => rule
        out icmp reply host > peer id 7 => tracked
        out icmp echo host > peer id 7 => no-rule
        in icmpv6 echo peer6 > host6 id 7 => rule
        out icmpv6 echo host6 > peer6 id 7 => no-rule
    ",
    ),
    case(
        "both sides may ask with one identifier",
        &[PINGS],
        "
        in icmp echo peer > host id 7 => rule
        out icmp echo host > other id 7 => rule
        in icmp reply other > host id 7 => tracked
        in icmp reply peer > host id 7 => no-rule
        out icmp reply host > peer id 7 => tracked
    ",
    ),
    case(
        "leave for an echo is no leave for another request",
        IN,
        "
        in icmp echo peer > host id 7 => rule
        in icmp 13/0 peer > host id 7 => no-rule
        in icmp 17/0 peer > host id 7 => no-rule
        out icmp 14/0 host > peer id 7 => no-rule
        in icmp echo peer > host id 7 => tracked
    ",
    ),
    case(
        "a timestamp request lets its own reply through",
        &[ANYTHING_IN],
        "
        in icmp 13/0 peer > host id 7 payload 12 => rule
        out icmp reply host > peer id 7 => no-rule
        out icmp 14/0 host > peer id 7 payload 12 => tracked
    ",
    ),
    case(
        "an ICMP flow lives for thirty seconds",
        IN,
        "
        in icmp echo peer > host id 7 => rule
        wait 29
        out icmp reply host > peer id 7 => tracked
        wait 31
        out icmp reply host > peer id 7 => no-rule
    ",
    ),
    case(
        "a reply to nothing is for the rules",
        &[NOTHING, ANYTHING_IN],
        "
        in icmp reply peer > host id 7 => no-rule
        policy 1
        in icmp reply peer > host id 7 => rule-alone
        out icmp echo host > peer id 7 => no-rule
    ",
    ),
    case(
        "other protocols are flows by their address pair",
        &[TUNNELS],
        "
        out proto 47 host > peer payload 8 => no-rule
        in proto 47 peer > host payload 8 => rule
        out proto 47 host > peer payload 8 => tracked
        out proto 47 host > other payload 8 => no-rule
        out proto 50 host > peer payload 8 => no-rule
        wait 599
        out proto 47 host > peer payload 8 => tracked
        wait 601
        out proto 47 host > peer payload 8 => no-rule
    ",
    ),
    case(
        "a full table of half-open flows forgets the one with least time left",
        OUT,
        "
        room 2
        out udp host:4000 > other:53 => rule
        wait 5
        out udp host:4001 > other:53 => rule
        out udp host:4002 > other:53 => rule
        in udp other:53 > host:4000 => no-rule
        in udp other:53 > host:4001 => tracked
        in udp other:53 > host:4002 => tracked
    ",
    ),
    case(
        "a full table of assured flows takes none until one expires",
        OUT,
        "
        room 1
        out udp host:4000 > other:53 => rule
        in udp other:53 > host:4000 => tracked
        out udp host:4001 > other:53 => rule
        in udp other:53 > host:4001 => table-full
        wait 29
        in udp other:53 > host:4000 => tracked
        wait 29
        out udp host:4001 > other:53 => rule
        wait 2
        in udp other:53 > host:4001 => tracked
    ",
    ),
];
