//! What rules mean: the worked cases of the reference.

use super::policies::{DEFAULT, NOTHING, SSH};
use super::story::{Case, case};

const PORTS: &str = "
groups:
  g:
    ingress: [{protocol: tcp, ports: 80-90, from: [198.51.100.0/24]}]
    egress: []
interfaces:
  eth0: {groups: [g]}
";

const ALL_FROM_TEN: &str = "
groups:
  g:
    ingress: [{protocol: all, from: [10.0.0.0/8]}]
    egress: []
interfaces:
  eth0: {groups: [g]}
";

const PING: &str = r#"
groups:
  g:
    ingress:
      - {protocol: icmp, type: 8, from: [0.0.0.0/0]}
      - {protocol: icmpv6, type: 128, from: ["::/0"]}
    egress: []
interfaces:
  eth0: {groups: [g]}
"#;

const WEB_V4: &str = "
groups:
  g:
    ingress: [{protocol: tcp, ports: 443, from: [0.0.0.0/0]}]
interfaces:
  eth0: {groups: [g]}
";

const TWO_GROUPS: &str = "
groups:
  g1:
    ingress: [{protocol: tcp, ports: 22, from: [198.51.100.7/32]}]
    egress: []
  g2:
    ingress: [{protocol: tcp, ports: 22, from: [0.0.0.0/0]}]
    egress: []
interfaces:
  eth0: {groups: [g1, g2]}
";

const FROM_GROUP: &str = "
groups:
  db:
    ingress: [{protocol: tcp, ports: 5432, from: [sg:app]}]
    egress: []
  app:
    members: [10.0.5.5]
interfaces:
  eth0: {groups: [db]}
";

const SELF: &str = "
groups:
  g:
    ingress: [{protocol: all, from: [sg:g]}]
    egress: []
    members: [10.0.5.5]
interfaces:
  eth0: {groups: [g]}
  eth1: {groups: [g]}
";

const NO_SELF: &str = "
groups:
  g:
    ingress: [{protocol: tcp, ports: 22, from: [198.51.100.7/32]}]
    egress: []
    members: [10.0.5.5]
interfaces:
  eth0: {groups: [g]}
";

const LIST: &str = "
prefix_lists:
  p: [198.51.100.0/24]
groups:
  g:
    ingress: [{protocol: tcp, ports: 443, from: [pl:p]}]
    egress: []
interfaces:
  eth0: {groups: [g]}
";

const LONGER_LIST: &str = "
prefix_lists:
  p: [198.51.100.0/24, 203.0.113.0/24]
groups:
  g:
    ingress: [{protocol: tcp, ports: 443, from: [pl:p]}]
    egress: []
interfaces:
  eth0: {groups: [g]}
";

const NESTED: &str = "
groups:
  g:
    ingress:
      - {protocol: tcp, ports: 22, from: [198.51.0.0/16]}
      - {protocol: tcp, ports: 80, from: [198.51.100.0/24]}
    egress: []
interfaces:
  eth0: {groups: [g]}
";

const ONE_CODE: &str = "
groups:
  g:
    ingress: [{protocol: icmp, type: 3, code: 4, from: [0.0.0.0/0]}]
    egress: []
interfaces:
  eth0: {groups: [g]}
";

const TRACKED_BY_EGRESS: &str = "
groups:
  g:
    ingress: [{protocol: tcp, ports: 80, from: [0.0.0.0/0]}]
    egress: [{protocol: tcp, ports: 1024-65535, to: [0.0.0.0/0]}]
interfaces:
  eth0: {groups: [g]}
";

pub(super) const CASES: &[Case] = &[
    case(
        "nothing comes in without a rule",
        &[DEFAULT],
        "
        in tcp peer:40000 > host:22 syn => no-rule
        in udp peer:40000 > host:22 => no-rule
        in icmp echo peer > host id 7 => no-rule
        in tcp peer6:40000 > host6:22 syn => no-rule
    ",
    ),
    case(
        "what the host opens is answered",
        &[DEFAULT],
        "
        out tcp host:4000 > other:443 syn => rule
        in tcp other:443 > host:4000 syn ack seq 5000 ackno 1001 => tracked
    ",
    ),
    case(
        "a tracked reply needs no egress rule",
        &[SSH],
        "
        in tcp peer:40000 > host:22 syn => rule
        out tcp host:22 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
    ",
    ),
    case(
        "without egress rules the host opens nothing",
        &[SSH],
        "
        out tcp host:4000 > other:443 syn => no-rule
        out tcp host:22 > peer:40000 syn => no-rule
        out udp host:4000 > other:53 => no-rule
        out icmp echo host > other id 7 => no-rule
    ",
    ),
    case(
        "a port range has both its ends",
        &[PORTS],
        "
        in tcp peer:40000 > host:79 syn => no-rule
        in tcp peer:40000 > host:80 syn => rule
        in tcp peer:40000 > host:90 syn => rule
        in tcp peer:40000 > host:91 syn => no-rule
        in udp peer:40000 > host:80 => no-rule
    ",
    ),
    case(
        "all protocols are all protocols",
        &[ALL_FROM_TEN],
        "
        in udp 10.1.1.1:40000 > host:53 => rule
        in proto 47 10.1.1.1 > host payload 8 => rule
        in icmp echo 10.1.1.1 > host id 7 => rule
        in tcp 11.1.1.1:40000 > host:53 syn => no-rule
    ",
    ),
    case(
        "leave to be pinged is no leave to ping",
        &[PING],
        "
        in icmp echo peer > host id 7 => rule
        out icmp reply host > peer id 7 => tracked
        out icmp echo host > peer id 9 => no-rule
        in icmpv6 echo peer6 > host6 id 7 => rule
        out icmpv6 reply host6 > peer6 id 7 => tracked
    ",
    ),
    case(
        "a type and code is that one message",
        &[ONE_CODE],
        "
        in icmp 3/4 router > host => rule-alone
        in icmp 3/3 router > host => no-rule
        in icmp 4/3 router > host => no-rule
    ",
    ),
    case(
        "a rule for IPv4 says nothing of IPv6",
        &[WEB_V4],
        "
        in tcp peer:40000 > host:443 syn => untracked
        in tcp peer6:40000 > host6:443 syn => no-rule
    ",
    ),
    case(
        "groups add up",
        &[TWO_GROUPS],
        "
        in tcp peer:40000 > host:22 syn => rule
        in tcp other:40000 > host:22 syn => rule
        in tcp other:40000 > host:23 syn => no-rule
    ",
    ),
    case(
        "a group means the addresses of its members",
        &[FROM_GROUP],
        "
        in tcp 10.0.5.5:40000 > host:5432 syn => rule
        in tcp peer:40000 > host:5432 syn => no-rule
        in tcp 10.0.5.6:40000 > host:5432 syn => no-rule
        in tcp 10.0.5.5:40000 > host:5433 syn => no-rule
    ",
    ),
    case(
        "members of a group talk when it names itself",
        &[SELF],
        "
        in tcp 10.0.5.5:40000 > host:5432 syn => rule
        in tcp sibling:40000 > host:22 syn => rule
        eth1 in udp host:40000 > sibling:22 => rule
        in tcp peer:40000 > host:22 syn => no-rule
    ",
    ),
    case(
        "members of a group don't talk by being members",
        &[NO_SELF],
        "
        in tcp 10.0.5.5:40000 > host:22 syn => no-rule
        in icmp echo 10.0.5.5 > host id 7 => no-rule
    ",
    ),
    case(
        "a prefix that joins a list is let in",
        &[LIST, LONGER_LIST],
        "
        in tcp other:40000 > host:443 syn => no-rule
        in tcp peer:40000 > host:443 syn => rule
        policy 1
        in tcp other:40000 > host:443 syn => rule
    ",
    ),
    case(
        "a shorter prefix counts inside a longer one",
        &[NESTED],
        "
        in tcp peer:40000 > host:22 syn => rule
        in tcp peer:40000 > host:80 syn => rule
        in tcp 198.51.7.7:40000 > host:80 syn => no-rule
    ",
    ),
    case(
        "an open service is tracked where replies are not open to all",
        &[TRACKED_BY_EGRESS],
        "
        in tcp peer:40000 > host:80 syn => rule
        out tcp host:80 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
    ",
    ),
    case(
        "an ICMP error about what the host sent needs no rule",
        &[DEFAULT],
        "
        out udp host:4000 > other:33434 => rule
        in icmp 3/3 router > host about udp host:4000 > other:33434 => related
    ",
    ),
    case(
        "the link works without any rule",
        &[NOTHING],
        "
        out udp host:68 > router:67 payload 240 => dhcp-client
        in udp router:67 > host:68 payload 240 => dhcp-client
        out arp who-has router tell host => link-protocol
        in icmpv6 135 far6 > ff02::1:ff00:10 ttl 255 payload 16 => neighbor-discovery
        out tcp host:4000 > metadata:80 syn => link-local-service
        out udp host:123 > 169.254.169.123:123 => link-local-service
    ",
    ),
];
