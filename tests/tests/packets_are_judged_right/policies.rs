//! Policies that several stories share.

/// Nothing in, nothing out.
pub(super) const NOTHING: &str = "
groups:
  g: {ingress: [], egress: []}
interfaces:
  eth0: {groups: [g]}
";

/// Nothing in, everything out.
pub(super) const DEFAULT: &str = "
groups:
  g: {}
interfaces:
  eth0: {groups: [g]}
";

/// Everything in, nothing out: whatever a packet is refused for lies in the packet, and what is let
/// in is tracked.
pub(super) const ANYTHING_IN: &str = r#"
groups:
  g:
    ingress:
      - {protocol: all, from: [0.0.0.0/0, "::/0"]}
    egress: []
interfaces:
  eth0: {groups: [g]}
"#;

/// SSH, ping and SNMP from one peer of each family, nothing out.
pub(super) const SSH: &str = r#"
groups:
  g:
    ingress:
      - {protocol: tcp, ports: 22, from: [198.51.100.7/32, "2001:db8:7::7/128"]}
      - {protocol: udp, ports: 161, from: [198.51.100.7/32, "2001:db8:7::7/128"]}
      - {protocol: icmp, type: 8, from: [198.51.100.7/32]}
      - {protocol: icmpv6, type: 128, from: ["2001:db8:7::7/128"]}
    egress: []
interfaces:
  eth0: {groups: [g]}
"#;

/// As [`SSH`], but unknown connections must begin with SYN.
pub(super) const SSH_WITHOUT_PICKUP: &str = r#"
groups:
  g:
    ingress:
      - {protocol: tcp, ports: 22, from: [198.51.100.7/32]}
    egress: []
interfaces:
  eth0: {groups: [g], tcp_pickup: false}
"#;

/// A public web and name server, everything out.
pub(super) const PUBLIC: &str = r#"
groups:
  g:
    ingress:
      - {protocol: tcp, ports: 80, from: [0.0.0.0/0, "::/0"]}
      - {protocol: udp, ports: 53, from: [0.0.0.0/0, "::/0"]}
interfaces:
  eth0: {groups: [g]}
"#;

/// A guest that serves the web and may send anything.
pub(super) const GUEST: &str = r#"
groups:
  g:
    ingress:
      - {protocol: tcp, ports: 80, from: [198.51.100.0/24]}
interfaces:
  eth0: {groups: [g], side: guest, addresses: [10.0.3.7, "2001:db8:3::7"]}
"#;
