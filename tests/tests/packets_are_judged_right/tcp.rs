//! TCP connections.
//!
//! In most stories the sequence number 5000 answers 1000; where the answer has the lower one, no
//! side's numbers may be compared with the other's.

use super::policies::{ANYTHING_IN, DEFAULT, PUBLIC, SSH, SSH_WITHOUT_PICKUP};
use super::story::{Case, case};

const IN: &[&str] = &[SSH];
const OUT: &[&str] = &[DEFAULT];

const ONE_FLOW: &str = "
groups:
  g:
    ingress:
      - {protocol: tcp, ports: 22, from: [198.51.100.0/24]}
    egress: []
interfaces:
  eth0: {groups: [g], max_flows: 1}
";

const SHORT: &str = "
groups:
  g:
    ingress:
      - {protocol: tcp, ports: 22, from: [198.51.100.0/24]}
    egress: []
interfaces:
  eth0: {groups: [g], timeouts: {tcp_established: 60}, tcp_pickup: false}
";

const TWO_HOMES: &str = "
groups:
  g: {}
interfaces:
  eth0: {groups: [g], tcp_pickup: false}
  eth1: {groups: [g], tcp_pickup: false}
";

pub(super) const CASES: &[Case] = &[
    case(
        "a handshake opens a connection both ways",
        IN,
        "
        in tcp peer:40000 > host:22 syn => rule
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => tracked
        out tcp host:22 > peer:40000 psh ack seq 5001 ackno 1001 payload 100 => tracked
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5101 => tracked
    ",
    ),
    case(
        "an established connection outlives five idle minutes",
        &[SSH_WITHOUT_PICKUP],
        "
        in tcp peer:40000 > host:22 syn => rule
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => tracked
        wait 400000
        out tcp host:22 > peer:40000 ack seq 5001 ackno 1001 => tracked
        wait 431000
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => tracked
        wait 433000
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => no-flow
    ",
    ),
    case(
        "the idle timeout of a connection is the interface's",
        &[SHORT],
        "
        in tcp peer:40000 > host:22 syn => rule
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => tracked
        wait 59
        out tcp host:22 > peer:40000 ack seq 5001 ackno 1001 => tracked
        wait 61
        out tcp host:22 > peer:40000 ack seq 5001 ackno 1001 => no-flow
    ",
    ),
    case(
        "a half-open connection is forgotten after thirty seconds",
        &[SSH_WITHOUT_PICKUP],
        "
        in tcp peer:40000 > host:22 syn => rule
        wait 31
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => no-flow
    ",
    ),
    case(
        "a SYN that comes again is the same connection",
        IN,
        "
        in tcp peer:40000 > host:22 syn => rule
        in tcp peer:40000 > host:22 syn => tracked
        in tcp peer:40000 > host:22 syn seq 7000 => tracked
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 7001 => tracked
    ",
    ),
    case(
        "a SYN-ACK must answer the SYN",
        OUT,
        "
        out tcp host:4000 > other:80 syn => rule
        in tcp other:80 > host:4000 syn ack seq 5000 ackno 1000 => implausible-reply
        in tcp other:80 > host:4000 syn ack seq 5000 ackno 1002 => implausible-reply
        in tcp other:80 > host:4000 syn ack seq 5000 ackno 0 => implausible-reply
        in tcp other:80 > host:4000 ack seq 5000 ackno 1001 => implausible-reply
        in tcp other:80 > host:4000 psh ack seq 5000 ackno 1001 payload 9 => implausible-reply
        in tcp other:80 > host:4000 syn ack seq 5000 ackno 1001 => tracked
    ",
    ),
    case(
        "a SYN-ACK may acknowledge what the SYN carried",
        OUT,
        "
        out tcp host:4000 > other:80 syn payload 10 => rule
        in tcp other:80 > host:4000 syn ack seq 5000 ackno 1012 => implausible-reply
        in tcp other:80 > host:4000 syn ack seq 5000 ackno 1011 => tracked
    ",
    ),
    case(
        "SYN-ACK, RST and FIN open nothing",
        &[ANYTHING_IN],
        "
        in tcp peer:40000 > host:22 syn ack => no-flow
        in tcp peer:40000 > host:22 rst => no-flow
        in tcp peer:40000 > host:22 rst ack => no-flow
        in tcp peer:40000 > host:22 fin ack => no-flow
        in tcp peer6:40000 > host6:22 syn ack => no-flow
    ",
    ),
    case(
        "SYN-ACK, RST and FIN to an untracked service are judged by the rules alone",
        &[PUBLIC],
        "
        in tcp peer:40000 > host:80 syn ack => untracked
        in tcp peer:40000 > host:80 rst => untracked
        in tcp peer:40000 > host:80 fin ack => untracked
        out tcp host:80 > peer:40000 rst => untracked
        in tcp peer:40000 > host:81 syn ack => no-flow
        in tcp peer:40000 > host:81 rst => no-flow
    ",
    ),
    case(
        "an established connection is not reset by a guess",
        OUT,
        "
        out tcp host:4000 > other:80 syn => rule
        in tcp other:80 > host:4000 syn ack seq 5000 ackno 1001 => tracked
        out tcp host:4000 > other:80 ack seq 1001 ackno 5001 => tracked
        in tcp other:80 > host:4000 rst seq 4000 => tracked
        in tcp other:80 > host:4000 rst seq 6000 => tracked
        wait 11
        in tcp other:80 > host:4000 ack seq 5001 ackno 1001 => tracked
    ",
    ),
    case(
        "an established connection is reset at the exact sequence number",
        OUT,
        "
        out tcp host:4000 > other:80 syn => rule
        in tcp other:80 > host:4000 syn ack seq 5000 ackno 1001 => tracked
        out tcp host:4000 > other:80 ack seq 1001 ackno 5001 => tracked
        in tcp other:80 > host:4000 rst seq 5001 => tracked
        wait 11
        in tcp other:80 > host:4000 ack seq 5001 ackno 1001 => no-rule
    ",
    ),
    case(
        "no guess resets a connection whose answer has the lower sequence number",
        OUT,
        "
        out tcp host:4000 > other:80 syn seq 3000000000 => rule
        in tcp other:80 > host:4000 syn ack seq 2000000000 ackno 3000000001 => tracked
        out tcp host:4000 > other:80 ack seq 3000000001 ackno 2000000001 => tracked
        in tcp other:80 > host:4000 rst seq 3500000000 => tracked
        in tcp other:80 > host:4000 rst seq 100 => tracked
        in tcp other:80 > host:4000 rst seq 1999999999 => tracked
        wait 11
        in tcp other:80 > host:4000 ack seq 2000000001 ackno 3000000001 => tracked
    ",
    ),
    case(
        "a connection whose answer has the lower sequence number closes",
        OUT,
        "
        out tcp host:4000 > other:80 syn seq 3000000000 => rule
        in tcp other:80 > host:4000 syn ack seq 2000000000 ackno 3000000001 => tracked
        out tcp host:4000 > other:80 ack seq 3000000001 ackno 2000000001 => tracked
        in tcp other:80 > host:4000 psh ack seq 2000000001 ackno 3000000001 payload 100 => tracked
        out tcp host:4000 > other:80 ack seq 3000000001 ackno 2000000101 => tracked
        in tcp other:80 > host:4000 fin ack seq 2000000101 ackno 3000000001 => tracked
        out tcp host:4000 > other:80 fin ack seq 3000000001 ackno 2000000102 => tracked
        in tcp other:80 > host:4000 ack seq 2000000102 ackno 3000000002 => tracked
        wait 121
        in tcp other:80 > host:4000 ack seq 2000000102 ackno 3000000002 => no-rule
    ",
    ),
    case(
        "the real reset counts after data",
        OUT,
        "
        out tcp host:4000 > other:80 syn seq 3000000000 => rule
        in tcp other:80 > host:4000 syn ack seq 2000000009 ackno 3000000001 => tracked
        out tcp host:4000 > other:80 ack seq 3000000001 ackno 2000000010 => tracked
        in tcp other:80 > host:4000 psh ack seq 2000000010 ackno 3000000001 payload 100 => tracked
        out tcp host:4000 > other:80 ack seq 3000000001 ackno 2000000110 => tracked
        in tcp other:80 > host:4000 rst seq 2000000110 => tracked
        wait 11
        in tcp other:80 > host:4000 ack seq 2000000110 ackno 3000000001 => no-rule
    ",
    ),
    case(
        "a refused connection is over at once",
        OUT,
        "
        out tcp host:4000 > other:80 syn => rule
        in tcp other:80 > host:4000 rst ack seq 0 ackno 1001 => tracked
        in tcp other:80 > host:4000 rst ack seq 0 ackno 1001 => no-flow
    ",
    ),
    case(
        "a guess does not refuse a connection",
        OUT,
        "
        out tcp host:4000 > other:80 syn => rule
        in tcp other:80 > host:4000 rst seq 1001 => implausible-reply
        in tcp other:80 > host:4000 rst ack seq 0 ackno 1000 => implausible-reply
        in tcp other:80 > host:4000 rst ack seq 0 ackno 1002 => implausible-reply
        in tcp other:80 > host:4000 syn ack seq 5000 ackno 1001 => tracked
    ",
    ),
    case(
        "an initiator may give up its SYN",
        &[SSH_WITHOUT_PICKUP],
        "
        in tcp peer:40000 > host:22 syn => rule
        in tcp peer:40000 > host:22 rst seq 1001 => tracked
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => no-flow
    ",
    ),
    case(
        "both sides close, and the connection lingers for two minutes",
        &[SSH_WITHOUT_PICKUP],
        "
        in tcp peer:40000 > host:22 syn => rule
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => tracked
        in tcp peer:40000 > host:22 fin ack seq 1001 ackno 5001 => tracked
        out tcp host:22 > peer:40000 fin ack seq 5001 ackno 1002 => tracked
        in tcp peer:40000 > host:22 ack seq 1002 ackno 5002 => tracked
        wait 119
        out tcp host:22 > peer:40000 fin ack seq 5001 ackno 1002 => tracked
        wait 121
        out tcp host:22 > peer:40000 fin ack seq 5001 ackno 1002 => no-flow
    ",
    ),
    case(
        "a half-closed connection still carries the other half",
        &[SSH_WITHOUT_PICKUP],
        "
        in tcp peer:40000 > host:22 syn => rule
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => tracked
        in tcp peer:40000 > host:22 fin ack seq 1001 ackno 5001 => tracked
        wait 3500
        out tcp host:22 > peer:40000 psh ack seq 5001 ackno 1002 payload 100 => tracked
        in tcp peer:40000 > host:22 ack seq 1002 ackno 5101 => tracked
        wait 3700
        out tcp host:22 > peer:40000 psh ack seq 5101 ackno 1002 payload 100 => no-flow
    ",
    ),
    case(
        "a FIN far outside the window closes nothing",
        &[SSH_WITHOUT_PICKUP],
        "
        in tcp peer:40000 > host:22 syn => rule
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => tracked
        in tcp peer:40000 > host:22 fin ack seq 1000000 ackno 5001 => tracked
        wait 3700
        out tcp host:22 > peer:40000 ack seq 5001 ackno 1001 => tracked
    ",
    ),
    case(
        "a SYN on a live connection changes nothing",
        IN,
        "
        in tcp peer:40000 > host:22 syn => rule
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => tracked
        in tcp peer:40000 > host:22 syn seq 777 => tracked
        out tcp host:22 > peer:40000 ack seq 5001 ackno 1001 => tracked
        wait 3700
        out tcp host:22 > peer:40000 psh ack seq 5001 ackno 1001 payload 9 => tracked
    ",
    ),
    case(
        "a closed connection's ports are used again",
        IN,
        "
        in tcp peer:40000 > host:22 syn => rule
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => tracked
        in tcp peer:40000 > host:22 fin ack seq 1001 ackno 5001 => tracked
        out tcp host:22 > peer:40000 fin ack seq 5001 ackno 1002 => tracked
        in tcp peer:40000 > host:22 syn seq 900000 => rule
        out tcp host:22 > peer:40000 syn ack seq 700000 ackno 900001 => tracked
        in tcp peer:40000 > host:22 ack seq 900001 ackno 700001 => tracked
    ",
    ),
    case(
        "a reset connection's ports are used again",
        IN,
        "
        in tcp peer:40000 > host:22 syn => rule
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => tracked
        in tcp peer:40000 > host:22 rst seq 1001 => tracked
        in tcp peer:40000 > host:22 syn seq 900000 => rule
    ",
    ),
    case(
        "two SYNs that cross make one connection",
        OUT,
        "
        out tcp host:4000 > other:4001 syn seq 3000000000 => rule
        in tcp other:4001 > host:4000 syn seq 2000000000 => tracked
        out tcp host:4000 > other:4001 syn ack seq 3000000000 ackno 2000000001 => tracked
        in tcp other:4001 > host:4000 syn ack seq 2000000000 ackno 3000000001 => tracked
        in tcp other:4001 > host:4000 psh ack seq 2000000001 ackno 3000000001 payload 100 => tracked
        out tcp host:4000 > other:4001 psh ack seq 3000000001 ackno 2000000101 payload 50 => tracked
        in tcp other:4001 > host:4000 ack seq 2000000101 ackno 3000000051 => tracked
        wait 3700
        in tcp other:4001 > host:4000 psh ack seq 2000000101 ackno 3000000051 payload 9 => tracked
    ",
    ),
    case(
        "a SYN of no crossing pair is for the rules",
        OUT,
        "
        in tcp other:4001 > host:4000 syn seq 5000 => no-rule
        out tcp host:4000 > other:4001 syn => rule
        in tcp other:4002 > host:4000 syn seq 5000 => no-rule
        in tcp peer:4001 > host:4000 syn seq 5000 => no-rule
    ",
    ),
    case(
        "a live connection that the rules allow is picked up",
        IN,
        "
        in tcp peer:40000 > host:22 ack seq 777 ackno 888 => rule
        out tcp host:22 > peer:40000 psh ack seq 888 ackno 777 payload 100 => tracked
        in tcp peer:40000 > host:22 ack seq 777 ackno 988 => tracked
        wait 3700
        out tcp host:22 > peer:40000 ack seq 988 ackno 777 => tracked
    ",
    ),
    case(
        "a live connection that no rule allows is not picked up",
        IN,
        "
        in tcp peer:40000 > host:23 ack seq 777 ackno 888 => no-rule
        out tcp host:23 > peer:40000 ack seq 888 ackno 777 => no-rule
        in tcp other:40000 > host:22 ack seq 777 ackno 888 => no-rule
    ",
    ),
    case(
        "without pick-up a connection begins with SYN",
        &[SSH_WITHOUT_PICKUP],
        "
        in tcp peer:40000 > host:22 ack seq 777 ackno 888 => no-flow
        in tcp peer:40000 > host:22 psh ack payload 9 => no-flow
        in tcp peer:40000 > host:22 syn => rule
    ",
    ),
    case(
        "what is picked up and refused is over",
        IN,
        "
        in tcp peer:40000 > host:22 ack seq 777 ackno 888 => rule
        out tcp host:22 > peer:40000 rst seq 887 => implausible-reply
        out tcp host:22 > peer:40000 rst seq 888 => tracked
        out tcp host:22 > peer:40000 rst seq 888 => no-flow
    ",
    ),
    case(
        "no guess resets a connection that a keep-alive was picked up from",
        OUT,
        "
        out tcp host:4000 > other:80 ack seq 1000 ackno 5000 => rule
        in tcp other:80 > host:4000 ack seq 4999 ackno 1000 => tracked
        in tcp other:80 > host:4000 rst seq 3000000 => tracked
        wait 11
        in tcp other:80 > host:4000 ack seq 5000 ackno 1000 => tracked
    ",
    ),
    case(
        "a connection may begin anew where one was picked up in vain",
        IN,
        "
        in tcp peer:40000 > host:22 ack seq 777 ackno 888 => rule
        in tcp peer:40000 > host:22 syn seq 5 => tracked
        out tcp host:22 > peer:40000 syn ack seq 60 ackno 6 => tracked
        in tcp peer:40000 > host:22 ack seq 6 ackno 61 => tracked
    ",
    ),
    case(
        "nothing is half picked up by an answer with SYN",
        OUT,
        "
        out tcp host:4000 > other:80 ack seq 1000 ackno 5000 => rule
        in tcp other:80 > host:4000 syn ack seq 4999 ackno 1000 => implausible-reply
    ",
    ),
    case(
        "a connection may answer over another interface",
        &[TWO_HOMES],
        "
        eth0 out tcp host:4000 > other:80 syn => rule
        eth1 in tcp other:80 > host:4000 syn ack seq 5000 ackno 1001 => tracked
        eth1 out tcp host:4000 > other:80 ack seq 1001 ackno 5001 => tracked
        eth0 in tcp other:80 > host:4000 ack seq 5001 ackno 1001 => tracked
    ",
    ),
    case(
        "an untracked service keeps no flow",
        &[PUBLIC],
        "
        in tcp peer:40000 > host:80 syn => untracked
        out tcp host:80 > peer:40000 syn ack seq 5000 ackno 1001 => untracked
        in tcp peer:40000 > host:80 ack seq 1001 ackno 5001 => untracked
        out tcp host:80 > peer:40000 psh ack seq 5001 ackno 1001 payload 100 => untracked
        in tcp peer6:40000 > host6:80 syn => untracked
        out tcp host6:80 > peer6:40000 syn ack seq 5000 ackno 1001 => untracked
    ",
    ),
    case(
        "beside an untracked service what the host opens is tracked",
        &[PUBLIC],
        "
        out tcp host:4000 > other:80 syn => rule
        in tcp other:80 > host:4000 syn ack seq 5000 ackno 1001 => tracked
        out tcp host:80 > other:4001 syn => rule
        in tcp other:4001 > host:80 syn ack seq 5000 ackno 1001 => tracked
    ",
    ),
    case(
        "a flood of SYNs costs no established connection",
        &[SSH_WITHOUT_PICKUP],
        "
        room 2
        in tcp peer:40000 > host:22 syn => rule
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => tracked
        in tcp peer:40001 > host:22 syn => rule
        in tcp peer:40002 > host:22 syn => rule
        in tcp peer:40003 > host:22 syn => rule
        in tcp peer:40004 > host:22 syn => rule
        out tcp host:22 > peer:40000 ack seq 5001 ackno 1001 => tracked
    ",
    ),
    case(
        "a full table takes no further connection and loses none",
        &[SSH_WITHOUT_PICKUP],
        "
        room 1
        in tcp peer:40000 > host:22 syn => rule
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => tracked
        in tcp peer:40001 > host:22 syn => rule
        out tcp host:22 > peer:40001 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40001 > host:22 ack seq 1001 ackno 5001 => table-full
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => tracked
    ",
    ),
    case(
        "an interface holds as many flows as it may",
        &[ONE_FLOW],
        "
        in tcp peer:40000 > host:22 syn => rule
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40000 > host:22 ack seq 1001 ackno 5001 => tracked
        in tcp peer:40001 > host:22 syn => rule
        out tcp host:22 > peer:40001 syn ack seq 5000 ackno 1001 => tracked
        in tcp peer:40001 > host:22 ack seq 1001 ackno 5001 => quota-full
        in tcp peer:40000 > host:22 rst seq 1001 => tracked
        wait 11
        in tcp peer:40001 > host:22 ack seq 1001 ackno 5001 => quota-full
        in tcp peer:40001 > host:22 ack seq 1001 ackno 5001 => tracked
    ",
    ),
];
