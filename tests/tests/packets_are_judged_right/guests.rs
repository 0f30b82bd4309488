//! What a guest may not do.

use super::policies::GUEST;
use super::story::{Case, case};

const BEHIND: &[&str] = &[GUEST];

const TWO_GUESTS: &str = "
groups:
  g:
    ingress:
      - {protocol: udp, ports: 53, from: [10.0.0.0/8]}
interfaces:
  eth0: {groups: [g], side: guest, addresses: [10.0.3.7]}
  eth1: {groups: [g], side: guest, addresses: [10.0.3.8]}
";

pub(super) const CASES: &[Case] = &[
    case("a guest is served like a host", BEHIND, "
        in tcp peer:40000 > guest:80 syn => rule
        out tcp guest:80 > peer:40000 syn ack seq 5000 ackno 1001 => tracked
        out tcp guest:4000 > other:443 syn => rule
        out tcp guest6:4000 > other6:443 syn => rule
        in tcp peer:40000 > guest:22 syn => no-rule
    "),
    case("a guest sends from its own addresses", BEHIND, "
        out tcp 10.0.3.8:4000 > other:443 syn => guest-source
        out udp 0.0.0.0:4000 > other:443 => guest-source
        out tcp [2001:db8:3::8]:4000 > other6:443 syn => guest-source
        out tcp link6:4000 > other6:443 syn => guest-source
        out proto 17 10.0.3.8 > other payload 8 fragment 7@16 => guest-source
    "),
    case("a guest gets what is for its own addresses", BEHIND, "
        in tcp peer:40000 > 10.0.3.8:80 syn => guest-destination
        in udp peer:40000 > 255.255.255.255:80 => guest-destination
        in tcp peer6:40000 > [2001:db8:3::8]:80 syn => guest-destination
        in proto 17 peer > 10.0.3.8 payload 8 fragment 7@16 => guest-destination
    "),
    case("nobody else sends from a guest's address", BEHIND, "
        in tcp guest6:40000 > guest6:80 syn => malformed-source
    "),
    case("a guest speaks ARP for itself", BEHIND, "
        out arp who-has router tell guest => link-protocol
        out arp guest is-at 02:00:00:00:00:01 tell router => link-protocol
        out arp who-has guest tell 0.0.0.0 => link-protocol
        in arp who-has guest tell router => link-protocol
        in arp router is-at 02:00:00:00:00:09 tell guest => link-protocol
        in arp who-has router tell router => link-protocol
    "),
    case("a guest speaks ARP for nobody else", BEHIND, "
        out arp router is-at 02:00:00:00:00:01 tell peer => guest-arp
        out arp who-has peer tell router => guest-arp
        out arp who-has router tell 0.0.0.0 => guest-arp
        in arp who-has peer tell router => guest-arp
    "),
    case("a guest's ARP is for IPv4 over Ethernet", BEHIND, "
        out ethertype 0x0806 payload 0x000108000604000300000000 => malformed-arp
        out ethertype 0x0806 payload 0x00010800060400010000 => malformed-arp
        in ethertype 0x0806 payload 0x0006080006040001 => malformed-arp
    "),
    case("a guest speaks no link protocol but ARP", BEHIND, "
        out ethertype 0x88cc payload 40 => ethertype
        in ethertype 0x8809 payload 40 => ethertype
        out ethertype 38 payload 0x4242030000 => ethertype
        out ethertype 0x888e payload 40 => ethertype
    "),
    case("a guest finds its neighbors", BEHIND, "
        out icmpv6 133 link6 > ff02::2 ttl 255 => neighbor-discovery
        out icmpv6 135 guest6 > ff02::1:ff00:1 ttl 255 payload 0x20010db8ffff00000000000000000001 => neighbor-discovery
        out icmpv6 135 :: > ff02::1:ff00:7 ttl 255 payload 0x20010db8000300000000000000000007 => neighbor-discovery
        out icmpv6 136 guest6 > router6 ttl 255 payload 0x20010db8000300000000000000000007 => neighbor-discovery
        in icmpv6 134 far6 > ff02::1 ttl 255 payload 8 => neighbor-discovery
        in icmpv6 135 far6 > ff02::1:ff00:7 ttl 255 payload 0x20010db8000300000000000000000007 => neighbor-discovery
    "),
    case("a guest advertises its own addresses only", BEHIND, "
        out icmpv6 136 guest6 > ff02::1 ttl 255 payload 0x20010db8000300000000000000000008 => guest-neighbor-discovery
        out icmpv6 136 guest6 > router6 ttl 255 payload 0x20010db8ffff00000000000000000001 => guest-neighbor-discovery
        out icmpv6 136 2001:db8:3::8 > router6 ttl 255 payload 16 => guest-neighbor-discovery
    "),
    case("a guest asks its neighbors from its own addresses", BEHIND, "
        out icmpv6 135 router6 > ff02::1:ff00:1 ttl 255 payload 16 => guest-source
        out icmpv6 133 router6 > ff02::2 ttl 255 => guest-source
    "),
    case("a guest is no router", BEHIND, "
        out icmpv6 134 link6 > ff02::1 ttl 255 payload 8 => guest-router
        out icmpv6 137 link6 > far6 ttl 255 payload 32 => guest-router
        out icmpv6 134 link6 > ff02::1 ttl 255 payload 8 hop-by-hop => guest-router
        out icmpv6 134 link6 > ff02::1 ttl 255 payload 8 vlan 5 => guest-router
    "),
    case("a guest is no DHCP server", BEHIND, "
        out udp guest:67 > 255.255.255.255:68 payload 240 => guest-dhcp-server
        out udp guest:67 > other:4000 => guest-dhcp-server
        out udp link6:547 > far6:546 payload 4 => guest-dhcp-server
        out udp guest:67 > 255.255.255.255:68 payload 240 fragment 7@0+ => guest-dhcp-server
        out proto 17 guest > 255.255.255.255 payload 8 fragment 7@248 => fragment-dropped
    "),
    case("a guest gets a lease", BEHIND, "
        out udp 0.0.0.0:68 > 255.255.255.255:67 payload 240 => dhcp-client
        in udp router:67 > 255.255.255.255:68 payload 240 => dhcp-client
        out udp guest:68 > router:67 payload 240 => dhcp-client
        out udp 10.0.3.8:68 > router:67 payload 240 => guest-source
        out udp link6:546 > [ff02::1:2]:547 payload 4 => dhcp-client
        in udp far6:547 > link6:546 payload 4 => dhcp-client
    "),
    case("a guest joins multicast groups from its own address", BEHIND, "
        out proto 2 guest > 224.0.0.22 ttl 1 payload 16 => multicast-membership
        out proto 2 10.0.3.8 > 224.0.0.22 ttl 1 payload 16 => guest-source
    "),
    case("a guest reaches link-local services from its own address", BEHIND, "
        out tcp guest:4000 > metadata:80 syn => link-local-service
        in tcp metadata:80 > guest:4000 syn ack => link-local-service
        out tcp 10.0.3.8:4000 > metadata:80 syn => guest-source
    "),
    case("one guest's flow is none of another's", &[TWO_GUESTS], "
        eth0 out udp guest:4000 > other:53 => rule
        eth1 in udp other:53 > guest:4000 => guest-destination
        eth0 in udp other:53 > guest:4000 => tracked
    "),
    case("two guests talk, each by its own rules", &[TWO_GUESTS], "
        eth0 out udp 10.0.3.7:4000 > 10.0.3.8:53 => rule
        eth1 in udp 10.0.3.7:4000 > 10.0.3.8:53 => rule
        eth1 out udp 10.0.3.8:53 > 10.0.3.7:4000 => tracked
        eth0 in udp 10.0.3.8:53 > 10.0.3.7:4000 => tracked
        eth0 out udp 10.0.3.7:4000 > 10.0.3.8:54 => rule
        eth1 in udp 10.0.3.7:4000 > 10.0.3.8:54 => no-rule
    "),
];
