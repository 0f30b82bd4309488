//! IPv6 headers and their extensions.

use super::policies::{ANYTHING_IN, SSH};
use super::story::{Case, case};

const IN: &[&str] = &[ANYTHING_IN];

pub(super) const CASES: &[Case] = &[
    case("a truncated IPv6 header is malformed", IN, "
        in tcp peer6:40000 > host6:22 syn cut 53 => malformed-ipv6
        in tcp peer6:40000 > host6:22 syn cut 20 => malformed-ipv6
        in tcp peer6:40000 > host6:22 syn cut 14 => malformed-ipv6
    "),
    case("an IPv6 packet longer than its frame is malformed", IN, "
        in tcp peer6:40000 > host6:22 syn length 21 => malformed-ipv6
    "),
    case("what trails an IPv6 packet is not its L4 header", IN, "
        in tcp peer6:40000 > host6:22 syn length 19 => malformed-tcp
        in tcp peer6:40000 > host6:22 syn length 0 => malformed-tcp
        in udp peer6:40000 > host6:22 length 7 => malformed-udp
    "),
    case("a mapped address is not for the wire", IN, "
        in tcp [::ffff:198.51.100.7]:40000 > host6:22 syn => malformed-mapped
        in tcp peer6:40000 > [::ffff:10.0.0.10]:22 syn => malformed-mapped
        out udp host6:53 > [::ffff:10.0.0.11]:53 => malformed-mapped
    "),
    case("loopback and multicast send nothing over IPv6", IN, "
        in tcp [::1]:40000 > host6:22 syn => malformed-source
        in udp [ff02::1]:40000 > host6:22 => malformed-source
    "),
    case("ports lie behind the extension headers", &[SSH], "
        in tcp peer6:40000 > host6:22 syn hop-by-hop destination-options => rule
        in tcp peer6:40001 > host6:22 syn routing 4/0 authentication => rule
        in tcp peer6:40002 > host6:23 syn hop-by-hop destination-options => no-rule
        in tcp peer6:40003 > host6:23 syn authentication => no-rule
    "),
    case("an extension header that looks like ports is none", &[SSH], "
        in tcp peer6:40000 > host6:23 syn extension 60 0x0000001600000016 => no-rule
    "),
    case("eight extension headers are followed", &[SSH], "
        in tcp peer6:40000 > host6:22 syn hop-by-hop destination-options destination-options destination-options destination-options destination-options destination-options destination-options => rule
    "),
    case("nine extension headers are too many", IN, "
        in tcp peer6:40000 > host6:22 syn hop-by-hop destination-options destination-options destination-options destination-options destination-options destination-options destination-options destination-options => malformed-extension
    "),
    case("hop-by-hop options come first or not at all", IN, "
        in tcp peer6:40000 > host6:22 syn hop-by-hop => rule
        in tcp peer6:40001 > host6:22 syn destination-options hop-by-hop => malformed-extension
        in tcp peer6:40001 > host6:22 syn hop-by-hop hop-by-hop => malformed-extension
        in tcp peer6:40001 > host6:22 syn fragment-header 7@0 hop-by-hop => malformed-extension
    "),
    case("routing type 0 is an amplifier", IN, "
        in tcp peer6:40000 > host6:22 syn routing 0/0 => malformed-extension
        in tcp peer6:40000 > host6:22 syn routing 0/1 => malformed-extension
    "),
    case("a chain that ends in no next header carries nothing", IN, "
        in proto 59 peer6 > host6 => malformed-extension
        in proto 59 peer6 > host6 payload 20 => malformed-extension
        in proto 59 peer6 > host6 hop-by-hop payload 20 => malformed-extension
    "),
    case("an extension header longer than the packet is malformed", IN, "
        in tcp peer6:40000 > host6:22 syn destination-options claiming 200 => malformed-extension
        in tcp peer6:40000 > host6:22 syn authentication claiming 255 => malformed-extension
        in tcp peer6:40000 > host6:22 syn routing 4/0 claiming 9 => malformed-extension
    "),
    case("an unfinished chain is malformed", IN, "
        in proto 60 peer6 > host6 => malformed-extension
        in proto 0 peer6 > host6 payload 0x0600 => malformed-extension
        in proto 43 peer6 > host6 payload 0x06000400000000 => malformed-extension
    "),
    case("one packet has one fragment header", IN, "
        in tcp peer6:40000 > host6:22 syn fragment-header 7@0 fragment-header 8@0 => malformed-extension
        in tcp peer6:40000 > host6:22 syn payload 4 fragment-header 7@0+ fragment-header 7@0 => malformed-extension
    "),
];
