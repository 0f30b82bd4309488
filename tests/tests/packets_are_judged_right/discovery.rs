//! What groups never filter.

use super::policies::{DEFAULT, NOTHING};
use super::story::{Case, case};

const CLOSED: &[&str] = &[NOTHING];

const WITHOUT_SERVICES: &str = "
link_local_services: []
groups:
  g: {ingress: [], egress: []}
interfaces:
  eth0: {groups: [g]}
";

pub(super) const CASES: &[Case] = &[
    case("neighbor discovery passes without rules", CLOSED, "
        in icmpv6 133 far6 > ff02::2 ttl 255 => neighbor-discovery
        in icmpv6 134 far6 > ff02::1 ttl 255 payload 8 => neighbor-discovery
        in icmpv6 135 far6 > ff02::1:ff00:10 ttl 255 payload 0x20010db8000000000000000000000010 => neighbor-discovery
        in icmpv6 136 far6 > link6 ttl 255 payload 0xfe800000000000000000000000000099 => neighbor-discovery
        in icmpv6 137 far6 > link6 ttl 255 payload 32 => neighbor-discovery
        out icmpv6 135 :: > ff02::1:ff00:10 ttl 255 payload 0x20010db8000000000000000000000010 => neighbor-discovery
        out icmpv6 136 link6 > far6 ttl 255 payload 0xfe800000000000000000000000000001 => neighbor-discovery
    "),
    case("neighbor discovery from beyond the link is malformed", CLOSED, "
        in icmpv6 133 far6 > ff02::2 ttl 254 => malformed-neighbor-discovery
        in icmpv6 134 far6 > ff02::1 ttl 64 payload 8 => malformed-neighbor-discovery
        in icmpv6 135 far6 > link6 ttl 1 payload 16 => malformed-neighbor-discovery
        in icmpv6 136 far6 > link6 ttl 0 payload 16 => malformed-neighbor-discovery
        in icmpv6 137 far6 > link6 ttl 254 payload 32 => malformed-neighbor-discovery
    "),
    case("neighbor discovery has code 0", CLOSED, "
        in icmpv6 136/1 far6 > link6 ttl 255 payload 16 => malformed-neighbor-discovery
    "),
    case("neighbor discovery is never in a fragment", CLOSED, "
        in icmpv6 134 far6 > ff02::1 ttl 255 payload 8 fragment 7@0 => malformed-neighbor-discovery
        in icmpv6 134 far6 > ff02::1 ttl 255 payload 8 fragment 7@0+ => malformed-neighbor-discovery
        in proto 58 far6 > ff02::1 ttl 255 payload 8 fragment 7@16 => fragment-dropped
        in icmpv6 135 far6 > link6 ttl 255 payload 16 hop-by-hop fragment 7@0 => malformed-neighbor-discovery
    "),
    case("a neighbor message that ends before its target is malformed", CLOSED, "
        in icmpv6 135 far6 > link6 ttl 255 => malformed-icmp
        in icmpv6 136 far6 > link6 ttl 255 payload 15 => malformed-icmp
    "),
    case("routers speak from their link-local address", CLOSED, "
        in icmpv6 134 router6 > ff02::1 ttl 255 payload 8 => malformed-neighbor-discovery
        in icmpv6 137 router6 > host6 ttl 255 payload 32 => malformed-neighbor-discovery
        in icmpv6 134 :: > ff02::1 ttl 255 payload 8 => malformed-neighbor-discovery
    "),
    case("extension headers don't hide neighbor discovery", CLOSED, "
        in icmpv6 134 router6 > ff02::1 ttl 255 payload 8 destination-options => malformed-neighbor-discovery
        in icmpv6 134 far6 > ff02::1 ttl 255 payload 8 destination-options => neighbor-discovery
    "),
    case("discovery's numbers over IPv4 are not discovery", CLOSED, "
        in icmpv6 135 router > host ttl 255 payload 16 => malformed-neighbor-discovery
        in icmpv6 143 router > host ttl 1 payload 16 => no-rule
    "),
    case("MLD passes without rules", CLOSED, "
        in icmpv6 130 far6 > ff02::1 ttl 1 hop-by-hop payload 20 => multicast-membership
        out icmpv6 143 link6 > ff02::16 ttl 1 hop-by-hop payload 20 => multicast-membership
        out icmpv6 143 :: > ff02::16 ttl 1 hop-by-hop payload 20 => multicast-membership
        out icmpv6 131 link6 > ff02::fb ttl 1 payload 16 => multicast-membership
        out icmpv6 132 link6 > ff02::2 ttl 1 payload 16 => multicast-membership
    "),
    case("MLD that could have been routed is for the rules", CLOSED, "
        in icmpv6 130 far6 > ff02::1 ttl 64 payload 20 => no-rule
        in icmpv6 130 router6 > ff02::1 ttl 1 payload 20 => no-rule
        in icmpv6 130 far6 > ff02::1 ttl 1 payload 16 fragment 7@0+ => no-rule
    "),
    case("IGMP passes on its way out", CLOSED, "
        out proto 2 host > 224.0.0.22 ttl 1 options 0x94040000 payload 16 => multicast-membership
        out proto 2 host > 239.1.2.3 ttl 1 payload 8 => multicast-membership
        in proto 2 router > 224.0.0.1 ttl 1 payload 8 => no-rule
    "),
    case("protocol 2 is no tunnel", CLOSED, "
        out proto 2 host > other ttl 64 payload 16 => no-rule
        out proto 2 host > other ttl 1 payload 16 => no-rule
        out proto 2 host > 239.1.2.3 ttl 64 payload 16 => no-rule
        out proto 2 host6 > other6 ttl 1 payload 16 => no-rule
        out proto 2 host > 224.0.0.22 ttl 1 payload 16 fragment 7@0+ => no-rule
    "),
    case("a DHCP client works without rules", CLOSED, "
        out udp 0.0.0.0:68 > 255.255.255.255:67 payload 240 => dhcp-client
        in udp router:67 > 255.255.255.255:68 payload 240 => dhcp-client
        in udp router:67 > host:68 payload 240 => dhcp-client
        out udp host:68 > router:67 payload 240 => dhcp-client
        out udp link6:546 > [ff02::1:2]:547 payload 4 => dhcp-client
        in udp far6:547 > link6:546 payload 4 => dhcp-client
    "),
    case("only a client's DHCP passes without rules", CLOSED, "
        in udp peer:68 > host:67 payload 240 => no-rule
        out udp host:67 > peer:68 payload 240 => no-rule
        in udp peer:67 > host:67 payload 240 => no-rule
        in udp peer:67 > host:69 payload 240 => no-rule
        in udp router6:547 > host6:546 payload 4 => no-rule
        in udp link6:546 > link6:547 payload 4 => malformed-source
        in udp far6:546 > link6:547 payload 4 => no-rule
        in udp peer:547 > host:546 payload 4 => no-rule
        in tcp peer:67 > host:68 syn => no-rule
    "),
    case("link-local services pass without rules", CLOSED, "
        out tcp host:4000 > metadata:80 syn => link-local-service
        in tcp metadata:80 > host:4000 syn ack => link-local-service
        out udp host:4000 > 169.254.169.253:53 => link-local-service
        in udp 169.254.169.253:53 > host:4000 => tracked
        out udp host:123 > 169.254.169.123:123 => link-local-service
        out tcp host6:4000 > metadata6:80 syn => link-local-service
        in tcp metadata6:80 > host6:4000 ack => link-local-service
    "),
    case("a link-local service asks for no connection", CLOSED, "
        in tcp metadata:80 > host:22 syn => no-rule
        in tcp metadata6:80 > host6:22 syn => no-rule
    "),
    case("whoever sends from a link-local service's address unasked is judged by rules", CLOSED, "
        in udp 169.254.169.253:53 > host:11211 => no-rule
        in icmp 8/0 metadata > host => no-rule
        in proto 47 metadata > host payload 8 => no-rule
        out udp host:4000 > 169.254.169.253:53 => link-local-service
        in udp 169.254.169.253:53 > host:11211 => no-rule
        in udp 169.254.169.253:53 > host:4000 => tracked
        out udp host:4000 > 169.254.169.253:53 => link-local-service
    "),
    case("other link-local addresses are for the rules", CLOSED, "
        out tcp host:4000 > 169.254.169.252:80 syn => no-rule
        out tcp host6:4000 > [fd00:ec2::255]:80 syn => no-rule
    "),
    case("the list of link-local services may be empty", &[WITHOUT_SERVICES], "
        out tcp host:4000 > metadata:80 syn => no-rule
        in udp metadata:53 > host:4000 => no-rule
    "),
    case("the machine may send from an address that is no service's", &[DEFAULT], "
        out udp 127.0.0.1:53 > other:53 => malformed-source
        out udp 0.0.0.0:4000 > other:53 => rule
    "),
];
