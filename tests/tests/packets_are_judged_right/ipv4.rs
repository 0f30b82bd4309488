//! IPv4 headers.

use super::policies::{ANYTHING_IN, SSH};
use super::story::{Case, case};

const IN: &[&str] = &[ANYTHING_IN];

pub(super) const CASES: &[Case] = &[
    case("a truncated IPv4 header is malformed", IN, "
        in tcp peer:40000 > host:22 syn cut 33 => malformed-ipv4
        in tcp peer:40000 > host:22 syn cut 14 => malformed-ipv4
    "),
    case("an IPv4 header is at least five words long", IN, "
        in tcp peer:40000 > host:22 syn ihl 4 => malformed-ipv4
        in tcp peer:40000 > host:22 syn ihl 0 => malformed-ipv4
    "),
    case("the version says what the EtherType says", IN, "
        in tcp peer:40000 > host:22 syn version 6 => malformed-ipv4
        in tcp peer6:40000 > host6:22 syn version 4 => malformed-ipv6
    "),
    case("ports lie behind the options", &[SSH], "
        in tcp peer:40000 > host:22 syn options 0x01010101 => rule
        in tcp peer:40001 > host:22 syn options 0x94040000 => rule
        in tcp peer:40002 > host:23 syn options 0x94040000 => no-rule
    "),
    case("options that look like ports are no ports", &[SSH], "
        in tcp peer:40000 > host:23 syn options 0x9c400016 => no-rule
        in tcp peer:40000 > host:23 syn options 0x9c4000160000000000000000500200000000000000000000 => no-rule
    "),
    case("a header longer than the packet is malformed", IN, "
        in tcp peer:40000 > host:22 syn ihl 15 => malformed-ipv4
    "),
    case("a packet longer than its frame is malformed", IN, "
        in tcp peer:40000 > host:22 syn length 41 => malformed-ipv4
        in tcp peer:40000 > host:22 syn length 65535 => malformed-ipv4
    "),
    case("a packet shorter than its header is malformed", IN, "
        in tcp peer:40000 > host:22 syn length 19 => malformed-ipv4
        in tcp peer:40000 > host:22 syn length 0 => malformed-ipv4
    "),
    case("what trails the packet is not its L4 header", IN, "
        in tcp peer:40000 > host:22 syn length 20 => malformed-tcp
        in tcp peer:40000 > host:22 syn length 39 => malformed-tcp
        in udp peer:40000 > host:22 length 27 => malformed-udp
        in icmp echo peer > host length 24 => malformed-icmp
    "),
    case("padding behind the packet does no harm", &[SSH], "
        in tcp peer:40000 > host:22 syn trailer 6 => rule
    "),
    case("loopback, multicast and reserved addresses send nothing", IN, "
        in tcp 127.0.0.1:40000 > host:22 syn => malformed-source
        in tcp 127.255.255.254:40000 > host:22 syn => malformed-source
        in udp 224.0.0.1:53 > host:22 => malformed-source
        in udp 240.0.0.1:53 > host:22 => malformed-source
        in udp 255.255.255.255:53 > host:22 => malformed-source
    "),
    case("nobody sends from the address it sends to", IN, "
        in tcp host:22 > host:22 syn => malformed-source
        in tcp host6:22 > host6:22 syn => malformed-source
    "),
    case("checksums are for the receiver to judge", IN, "
        in tcp peer:40000 > host:22 syn header-checksum 0 => rule
        in udp peer:40000 > host:22 checksum 1 => rule
    "),
];
