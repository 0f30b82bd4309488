//! ICMP errors belong to what they quote.

use super::policies::{ANYTHING_IN, DEFAULT, GUEST, NOTHING, PUBLIC, SSH};
use super::story::{Case, case};

const OUT: &[&str] = &[DEFAULT];

pub(super) const CASES: &[Case] = &[
    case("an error about a tracked flow passes", OUT, "
        out udp host:4000 > other:53 => rule
        in icmp unreachable router > host about udp host:4000 > other:53 => related
        in icmp time-exceeded router > host about udp host:4000 > other:53 => related
        in icmp parameter-problem other > host about udp host:4000 > other:53 => related
        out udp host6:4000 > other6:53 => rule
        in icmpv6 unreachable router6 > host6 about udp host6:4000 > other6:53 => related
        in icmpv6 time-exceeded router6 > host6 about udp host6:4000 > other6:53 => related
        in icmpv6 parameter-problem other6 > host6 about udp host6:4000 > other6:53 => related
    "),
    case("Packet Too Big for a live flow is never lost", OUT, "
        out tcp host:4000 > other:443 syn => rule
        in icmp fragmentation-needed router > host mtu 1400 about tcp host:4000 > other:443 ack payload 1400 => related
        out tcp host6:4000 > other6:443 syn => rule
        in icmpv6 packet-too-big router6 > host6 mtu 1280 about tcp host6:4000 > other6:443 ack payload 1400 => related
    "),
    case("Packet Too Big for an untracked flow is never lost", &[PUBLIC], "
        in icmp fragmentation-needed router > host mtu 1400 about tcp host:80 > peer:40000 ack payload 1400 => related
        in icmpv6 packet-too-big router6 > host6 mtu 1280 about tcp host6:80 > peer6:40000 ack payload 1400 => related
        in icmp unreachable router > host about udp host:53 > peer:40000 => related
    "),
    case("an error about no flow is for the rules", OUT, "
        in icmp unreachable router > host about udp host:4000 > other:53 => no-rule
        in icmp fragmentation-needed router > host mtu 68 about tcp host:80 > peer:40000 ack => no-rule
        in icmpv6 packet-too-big router6 > host6 mtu 1280 about tcp host6:80 > peer6:40000 ack => no-rule
    "),
    case("a rule may admit an error about no flow", &[ANYTHING_IN], "
        in icmp unreachable router > host about udp host:4000 > other:53 => rule-alone
        in icmp unreachable router > host => rule-alone
    "),
    case("an error about a packet that the host did not send is not related", OUT, "
        out udp host:4000 > other:53 => rule
        in icmp unreachable router > host about udp other:53 > host:4000 => no-rule
        in icmp unreachable router > sibling about udp host:4000 > other:53 => no-rule
        in icmp unreachable router > host about udp sibling:4000 > other:53 => no-rule
    "),
    case("an error must quote the ports of the flow", OUT, "
        out udp host:4000 > other:53 => rule
        in icmp unreachable router > host about udp host:4001 > other:53 => no-rule
        in icmp unreachable router > host about udp host:4000 > other:54 => no-rule
        in icmp unreachable router > host about tcp host:4000 > other:53 ack => no-rule
    "),
    case("an error quotes at least eight bytes of L4", OUT, "
        out tcp host:4000 > other:443 syn => rule
        in icmp unreachable router > host length 56 about tcp host:4000 > other:443 ack => related
        in icmp unreachable router > host length 55 about tcp host:4000 > other:443 ack => no-rule
        in icmp unreachable router > host length 48 about tcp host:4000 > other:443 ack => no-rule
        in icmp unreachable router > host length 28 about tcp host:4000 > other:443 ack => no-rule
        out tcp host6:4000 > other6:443 syn => rule
        in icmpv6 unreachable router6 > host6 length 56 about tcp host6:4000 > other6:443 ack => related
        in icmpv6 unreachable router6 > host6 length 55 about tcp host6:4000 > other6:443 ack => no-rule
    "),
    case("a quoted packet may have options and extension headers", OUT, "
        out udp host:4000 > other:53 => rule
        in icmp unreachable router > host about udp host:4000 > other:53 options 0x94040000 => related
        in icmp unreachable router > host about udp host:4001 > other:53 options 0x0fa00035 => no-rule
        out udp host6:4000 > other6:53 => rule
        in icmpv6 unreachable router6 > host6 about udp host6:4000 > other6:53 hop-by-hop destination-options => related
        in icmpv6 unreachable router6 > host6 about udp host6:4001 > other6:53 destination-options => no-rule
    "),
    case("a quoted packet may be a first fragment but no later one", OUT, "
        out udp host:4000 > other:53 => rule
        in icmp unreachable router > host about udp host:4000 > other:53 payload 8 fragment 7@0+ => related
        in icmp unreachable router > host about udp host:4000 > other:53 fragment 7@16 => no-rule
        out udp host6:4000 > other6:53 => rule
        in icmpv6 packet-too-big router6 > host6 mtu 1280 about udp host6:4000 > other6:53 payload 8 fragment 7@0+ => related
        in icmpv6 packet-too-big router6 > host6 mtu 1280 length 69 about udp host6:4000 > other6:53 payload 8 fragment 7@0+ => related
        in icmpv6 packet-too-big router6 > host6 mtu 1280 about udp host6:4000 > other6:53 fragment 7@16 => no-rule
    "),
    case("a quoted packet that is no IP is related to nothing", OUT, "
        out udp host:4000 > other:53 => rule
        in icmp unreachable router > host about udp host:4000 > other:53 version 6 => no-rule
        in icmp unreachable router > host about udp host:4000 > other:53 ihl 4 => no-rule
        in icmp unreachable router > host about udp host:4000 > other:53 ihl 15 => no-rule
        in icmp unreachable router > host about udp host6:4000 > other6:53 => no-rule
    "),
    case("each family's errors quote packets of that family", OUT, "
        out udp host:4000 > other:53 => rule
        in icmpv6 packet-too-big router > host mtu 1280 about udp [::ffff:10.0.0.10]:4000 > [::ffff:203.0.113.5]:53 => no-rule
        in icmpv6 unreachable router6 > host6 about udp host:4000 > other:53 => no-rule
    "),
    case("an error about an echo request passes by its identifier", OUT, "
        out icmp echo host > other id 7 => rule
        in icmp time-exceeded router > host about icmp echo host > other id 7 => related
        in icmp time-exceeded router > host about icmp echo host > other id 8 => no-rule
        out icmpv6 echo host6 > other6 id 7 => rule
        in icmpv6 time-exceeded router6 > host6 about icmpv6 echo host6 > other6 id 7 => related
        in icmpv6 time-exceeded router6 > host6 about icmpv6 echo host6 > other6 id 8 => no-rule
    "),
    case("no error is about an error", OUT, "
        out udp host:4000 > other:53 => rule
        in icmp unreachable router > host about icmp unreachable host > router about udp host:4000 > other:53 => no-rule
    "),
    case("an error neither opens nor refreshes a flow", OUT, "
        out udp host:4000 > other:53 => rule
        wait 29
        in icmp unreachable router > host about udp host:4000 > other:53 => related
        wait 2
        in udp other:53 > host:4000 => no-rule
        in icmp unreachable router > host about udp host:4000 > other:53 => no-rule
    "),
    case("the host may report errors about a flow it has let in", &[SSH], "
        in udp peer:40000 > host:161 => rule
        out icmp unreachable host > peer about udp peer:40000 > host:161 => related
        out icmp unreachable host > peer about udp peer:40001 > host:161 => no-rule
    "),
    case("a fragmented error is for the rules", OUT, "
        out udp host:4000 > other:53 => rule
        in icmp unreachable router > host fragment 7@0+ payload 8 => no-rule
    "),
    case("an error for a guest is for its own address", &[GUEST], "
        out udp guest:4000 > other:53 => rule
        in icmp unreachable router > guest about udp guest:4000 > other:53 => related
        in icmp unreachable router > 10.0.3.8 about udp guest:4000 > other:53 => guest-destination
    "),
    case("notices without a flow are for the rules", &[NOTHING], "
        in icmp 5/1 router > host payload 20 => no-rule
        in icmp 9/0 router > host payload 8 => no-rule
        in icmp 4/0 router > host about udp host:4000 > other:53 => no-rule
        in icmpv6 5/0 router6 > host6 about udp host6:4000 > other6:53 => no-rule
    "),
];
