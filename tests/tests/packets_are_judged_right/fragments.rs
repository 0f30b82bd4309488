//! Fragments of both families.

use super::policies::{ANYTHING_IN, DEFAULT, NOTHING, SSH};
use super::story::{Case, case};

const IN: &[&str] = &[ANYTHING_IN];
const ALLOWED: &[&str] = &[SSH];

pub(super) const CASES: &[Case] = &[
    case("later fragments follow a first one that passed", ALLOWED, "
        in tcp peer:40000 > host:22 syn payload 4 fragment 7@0+ => rule
        in proto 6 peer > host payload 8 fragment 7@24+ => fragment
        in proto 6 peer > host payload 3 fragment 7@32 => fragment
    "),
    case("later IPv6 fragments follow a first one that passed", ALLOWED, "
        in tcp peer6:40000 > host6:22 syn payload 4 fragment 7@0+ => rule
        in proto 6 peer6 > host6 payload 8 fragment 7@24+ => fragment
        in proto 6 peer6 > host6 payload 3 fragment 7@32 => fragment
    "),
    case("later fragments follow a first one that was dropped", ALLOWED, "
        in tcp peer:40000 > host:23 syn payload 4 fragment 7@0+ => no-rule
        in proto 6 peer > host payload 8 fragment 7@24 => fragment-dropped
        in tcp peer6:40000 > host6:23 syn payload 4 fragment 7@0+ => no-rule
        in proto 6 peer6 > host6 payload 8 fragment 7@24 => fragment-dropped
    "),
    case("a later fragment of nothing is unknown", IN, "
        in proto 6 peer > host payload 8 fragment 7@24 => fragment-unknown
        in proto 17 peer6 > host6 payload 8 fragment 7@24 => fragment-unknown
        out proto 17 host > peer payload 8 fragment 7@24 => fragment-unknown
    "),
    case("a fragment that overtakes the first one is unknown", ALLOWED, "
        in proto 6 peer > host payload 8 fragment 7@24 => fragment-unknown
        in tcp peer:40000 > host:22 syn payload 4 fragment 7@0+ => rule
        in proto 6 peer > host payload 8 fragment 7@24 => fragment
    "),
    case("fragments belong together by both addresses, protocol, identification and direction", ALLOWED, "
        in tcp peer:40000 > host:22 syn payload 4 fragment 7@0+ => rule
        in proto 6 other > host payload 8 fragment 7@24 => fragment-unknown
        in proto 6 peer > sibling payload 8 fragment 7@24 => fragment-unknown
        in proto 17 peer > host payload 8 fragment 7@24 => fragment-unknown
        in proto 6 peer > host payload 8 fragment 8@24 => fragment-unknown
        out proto 6 peer > host payload 8 fragment 7@24 => fragment-unknown
    "),
    case("a first fragment is remembered for thirty seconds", ALLOWED, "
        in tcp peer:40000 > host:22 syn payload 4 fragment 7@0+ => rule
        wait 29
        in proto 6 peer > host payload 8 fragment 7@24 => fragment
        wait 2
        in proto 6 peer > host payload 8 fragment 7@24 => fragment-unknown
    "),
    case("a first fragment holds its whole L4 header", IN, "
        in tcp peer:40000 > host:22 syn length 28 fragment 7@0+ => malformed-tcp
        in tcp peer:40000 > host:22 syn length 36 fragment 7@0+ => malformed-tcp
        in proto 17 peer > host payload 0x9c4000a1 length 24 fragment 7@0+ => malformed-fragment
        in tcp peer6:40000 > host6:22 syn length 24 fragment 7@0+ => malformed-tcp
        in tcp peer6:40000 > host6:22 syn tcp-options 0x0101010101010101 data-offset 8 payload 4 length 32 fragment 7@0+ => malformed-tcp
    "),
    case("a first fragment holds all its extension headers", IN, "
        in proto 60 peer6 > host6 payload 0x0601000000000000 fragment 7@0+ => malformed-extension
    "),
    case("a TCP fragment at offset 8 would replace the flags", ALLOWED, "
        in tcp peer:40000 > host:22 syn payload 4 fragment 7@0+ => rule
        in proto 6 peer > host payload 16 fragment 7@8 => malformed-fragment
        in proto 6 peer6 > host6 payload 16 fragment 7@8 => malformed-fragment
    "),
    case("nothing overwrites what the first fragment was judged by", ALLOWED, "
        in tcp peer:40000 > host:22 syn payload 12 fragment 7@0+ => rule
        in proto 6 peer > host payload 16 fragment 7@16 => fragment-overlap
        in proto 6 peer > host payload 16 fragment 7@24+ => fragment-overlap
        in proto 6 peer > host payload 16 fragment 7@32 => fragment
        in udp peer6:40000 > host6:161 payload 8 fragment 8@0+ => rule
        in proto 17 peer6 > host6 payload 8 fragment 8@8 => fragment-overlap
        in proto 17 peer6 > host6 payload 8 fragment 8@16 => fragment
    "),
    case("an atomic fragment is a whole packet", ALLOWED, "
        in tcp peer6:40000 > host6:22 syn fragment 7@0 => rule
        in tcp peer6:40000 > host6:23 syn fragment 7@0 => no-rule
        in proto 6 peer6 > host6 payload 8 fragment 7@24 => fragment-unknown
    "),
    case("a fragment has content, in eights but for the last", IN, "
        in proto 17 peer > host fragment 7@24 => malformed-fragment
        in proto 17 peer > host payload 7 fragment 7@24+ => malformed-fragment
        in proto 17 peer6 > host6 fragment 7@24 => malformed-fragment
        in proto 17 peer6 > host6 payload 7 fragment 7@24+ => malformed-fragment
    "),
    case("no fragment ends beyond the largest packet", IN, "
        in udp peer:1 > host:161 payload 8 fragment 7@0+ => rule
        in proto 17 peer > host payload 8 fragment 7@65528 => malformed-fragment
        in proto 17 peer > host payload 7 fragment 7@65528 => fragment
        in proto 17 peer6 > host6 payload 8 fragment 7@65528 => malformed-fragment
    "),
    case("a UDP datagram may be longer than its first fragment", ALLOWED, "
        in udp peer:40000 > host:161 udp-length 1480 payload 8 fragment 7@0+ => rule
        in udp peer:40000 > host:161 udp-length 7 payload 8 fragment 7@0+ => malformed-udp
        in udp peer:40001 > host:161 udp-length 1480 payload 8 => malformed-udp
    "),
    case("a fragmented echo is judged by its first fragment", ALLOWED, "
        in icmp echo peer > host id 7 payload 8 fragment 7@0+ => rule
        in proto 1 peer > host payload 8 fragment 7@16 => fragment
        out icmp reply host > peer id 7 payload 8 fragment 9@0+ => tracked
        out proto 1 host > peer payload 8 fragment 9@16 => fragment
    "),
    case("a fragmented DHCP answer arrives whole", &[NOTHING], "
        in udp router:67 > host:68 payload 8 fragment 7@0+ => dhcp-client
        in proto 17 router > host payload 8 fragment 7@16 => fragment
        in udp [fe80::99]:547 > [fe80::1]:546 payload 8 fragment 7@0+ => dhcp-client
        in proto 17 far6 > link6 payload 8 fragment 7@16 => fragment
    "),
    case("a fragmented packet of a link-local service arrives whole", &[NOTHING], "
        out udp host:4000 > metadata:53 => link-local-service
        in udp metadata:53 > host:4000 payload 8 fragment 7@0+ => tracked
        in proto 17 metadata > host payload 8 fragment 7@16 => fragment
    "),
    case("a later fragment from a link-local service follows its first one too", &[NOTHING], "
        in proto 17 metadata > host payload 8 fragment 7@16 => fragment-unknown
        in tcp metadata:80 > host:22 syn payload 4 fragment 8@0+ => no-rule
        in proto 6 metadata > host payload 8 fragment 8@24 => fragment-dropped
    "),
    case("a fragmented reply belongs to its flow", &[DEFAULT], "
        out udp host:4000 > other:53 => rule
        in udp other:53 > host:4000 payload 8 fragment 7@0+ => tracked
        in proto 17 other > host payload 8 fragment 7@16 => fragment
    "),
];
