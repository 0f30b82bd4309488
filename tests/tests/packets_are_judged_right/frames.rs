//! What comes before IP.

use super::policies::{ANYTHING_IN, NOTHING};
use super::story::{Case, case};

const LISTED: &str = "
groups:
  g: {ingress: [], egress: []}
interfaces:
  eth0: {groups: [g], ethertypes: [0x8915]}
";

const IN: &[&str] = &[ANYTHING_IN];
const CLOSED: &[&str] = &[NOTHING];

pub(super) const CASES: &[Case] = &[
    case(
        "a frame that ends in its header is malformed",
        IN,
        "
        in tcp peer:40000 > host:22 syn cut 13 => malformed-ethernet
        in tcp peer:40000 > host:22 syn cut 0 => malformed-ethernet
    ",
    ),
    case(
        "a frame that ends in its tag is malformed",
        IN,
        "
        in tcp peer:40000 > host:22 syn vlan 5 cut 17 => malformed-ethernet
    ",
    ),
    case(
        "one tag and two are looked through",
        IN,
        "
        in tcp peer:40000 > host:22 syn vlan 5 => rule
        in tcp peer:40001 > host:22 syn qinq 7/5 => rule
        in tcp peer6:40001 > host6:22 syn qinq 7/5 => rule
    ",
    ),
    case(
        "the packet behind a tag is judged like any other",
        CLOSED,
        "
        in tcp peer:40000 > host:22 syn vlan 5 => no-rule
        in tcp peer:40001 > host:22 syn qinq 7/5 => no-rule
    ",
    ),
    case(
        "three tags are too many",
        IN,
        "
        in tcp peer:40000 > host:22 syn qinq 7/5 vlan 9 => vlan-depth
    ",
    ),
    case(
        "MPLS and PPPoE sessions would hide what they carry",
        IN,
        "
        in tcp peer:40000 > host:22 syn ethertype 0x8847 => unsupported
        in tcp peer:40000 > host:22 syn ethertype 0x8848 => unsupported
        in tcp peer:40000 > host:22 syn ethertype 0x8864 => unsupported
    ",
    ),
    case(
        "other EtherTypes don't pass",
        IN,
        "
        in ethertype 0x8915 payload 40 => ethertype
        in ethertype 0x22f3 payload 40 => ethertype
        in ethertype 0x88e5 payload 40 => ethertype
        out ethertype 0x8915 payload 40 => ethertype
    ",
    ),
    case(
        "an interface may list an EtherType",
        &[LISTED],
        "
        in ethertype 0x8915 payload 40 => ethertype-listed
        out ethertype 0x8915 payload 40 => ethertype-listed
        in ethertype 0x8916 payload 40 => ethertype
        in ethertype 0 payload 0xaaaa03000000 => ethertype
    ",
    ),
    case(
        "link protocols pass without rules",
        CLOSED,
        "
        in ethertype 0x88cc payload 40 => link-protocol
        in ethertype 0x8809 payload 40 => link-protocol
        in ethertype 0x888e payload 40 => link-protocol
        in ethertype 0x88f7 payload 40 => link-protocol
        out ethertype 0x88cc payload 40 => link-protocol
    ",
    ),
    case(
        "spanning tree passes in its 802.3 frame",
        CLOSED,
        "
        in ethertype 38 payload 0x4242030000 => link-protocol
        out ethertype 38 payload 0x4242030000 => link-protocol
    ",
    ),
    case(
        "IP in an LLC frame does not pass",
        IN,
        "
        in ethertype 48 payload 0xaaaa030000000800450000 => ethertype
        in ethertype 48 payload 0x060603450000 => ethertype
        in ethertype 0x05ff payload 0xe0e003 => ethertype
    ",
    ),
    case(
        "an 802.3 frame without an LLC header is malformed",
        IN,
        "
        in ethertype 38 payload 0x42 => malformed-ethernet
    ",
    ),
    case(
        "ARP passes at a host without rules",
        CLOSED,
        "
        in arp who-has host tell router => link-protocol
        out arp who-has router tell host => link-protocol
        in arp router is-at 02:00:00:00:00:09 tell host => link-protocol
        in ethertype 0x0806 payload 8 => link-protocol
    ",
    ),
];
