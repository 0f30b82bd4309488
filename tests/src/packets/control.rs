//! What keeps a link alive: neighbour discovery, multicast membership, DHCP. And what abuses it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::{Extension, Packet, protocol};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_MLD_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
const ALL_DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const ALL_IGMP_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
/// RFC 2711 and RFC 2113: routers have to look at the packet.
const ROUTER_ALERT_V6: [u8; 4] = [5, 2, 0, 0];
const ROUTER_ALERT_V4: [u8; 4] = [148, 4, 0, 0];

/// A neighbour discovery message; all of them are believed with a hop limit of 255 only.
fn discovery(from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Packet {
    Packet::icmpv6(from.into(), to.into(), kind, 0)
        .hop_limit(255)
        .payload(body)
}

/// Asks routers to speak up.
pub fn router_solicitation(from: Ipv6Addr) -> Packet {
    discovery(from, ALL_ROUTERS, 133, &[])
}

/// Says "I am a router" for half an hour.
pub fn router_advertisement(from: Ipv6Addr) -> Packet {
    discovery(from, ALL_NODES, 134, &[0; 8]).rest_of_header([64, 0, 0x07, 0x08])
}

/// Asks who has `target`.
pub fn neighbor_solicitation(from: Ipv6Addr, target: Ipv6Addr) -> Packet {
    let [.., high, mid, low] = target.octets();
    let (group_high, group_low) = (0xff00 | u16::from(high), u16::from_be_bytes([mid, low]));
    let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, group_high, group_low);
    discovery(
        from,
        to,
        135,
        &[&target.octets()[..], &[1, 1, 2, 0, 0, 0, 0, 1]].concat(),
    )
}

/// Says that `target` is here; solicited, overriding.
pub fn neighbor_advertisement(from: Ipv6Addr, to: Ipv6Addr, target: Ipv6Addr) -> Packet {
    discovery(
        from,
        to,
        136,
        &[&target.octets()[..], &[2, 1, 2, 0, 0, 0, 0, 1]].concat(),
    )
    .rest_of_header([0x60, 0, 0, 0])
}

/// Says that `destination` is better reached over `target`.
pub fn redirect(from: Ipv6Addr, to: Ipv6Addr, target: Ipv6Addr, destination: Ipv6Addr) -> Packet {
    discovery(
        from,
        to,
        137,
        &[target.octets(), destination.octets()].concat(),
    )
}

/// An MLDv2 report about one group.
pub fn mld_report(from: Ipv6Addr, group: Ipv6Addr) -> Packet {
    Packet::icmpv6(from.into(), ALL_MLD_ROUTERS.into(), 143, 0)
        .hop_limit(1)
        .extension(Extension::hop_by_hop(&ROUTER_ALERT_V6))
        .rest_of_header([0, 0, 0, 1])
        .payload(&[&[4, 0, 0, 0][..], &group.octets()].concat())
}

/// An MLD general query.
pub fn mld_query(from: Ipv6Addr) -> Packet {
    Packet::icmpv6(from.into(), ALL_NODES.into(), 130, 0)
        .hop_limit(1)
        .extension(Extension::hop_by_hop(&ROUTER_ALERT_V6))
        .rest_of_header([0x27, 0x10, 0, 0])
        .payload(&[0; 20])
}

/// An IGMPv3 report about one group.
pub fn igmp_report(from: Ipv4Addr, group: Ipv4Addr) -> Packet {
    let mut body = vec![0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0];
    body.extend(group.octets());
    let checksum = super::internet_checksum(&body).to_be_bytes();
    body[2..4].copy_from_slice(&checksum);
    Packet::raw(from.into(), ALL_IGMP_ROUTERS.into(), protocol::IGMP)
        .hop_limit(1)
        .options(&ROUTER_ALERT_V4)
        .payload(&body)
}

/// A DHCP client looking for a server before it has an address.
pub fn dhcp_discover() -> Packet {
    dhcp((Ipv4Addr::UNSPECIFIED, 68), (Ipv4Addr::BROADCAST, 67), 1)
}

/// A DHCP server's offer.
pub fn dhcp_offer(server: Ipv4Addr, to: Ipv4Addr) -> Packet {
    dhcp((server, 67), (to, 68), 2)
}

fn dhcp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), operation: u8) -> Packet {
    let endpoint = |(address, port)| SocketAddr::from(SocketAddrV4::new(address, port));
    // RFC 2131: 236 fixed bytes, the cookie, then options; 53 is the message type.
    let mut body = vec![0; 236];
    body[..4].copy_from_slice(&[operation, 1, 6, 0]);
    body.extend([99, 130, 83, 99, 53, 1, operation, 255]);
    Packet::udp(endpoint(from), endpoint(to)).payload(&body)
}

/// A DHCPv6 client looking for a server.
pub fn dhcpv6_solicit(from: Ipv6Addr) -> Packet {
    dhcpv6((from, 546), (ALL_DHCP_SERVERS, 547), 1)
}

/// A DHCPv6 server's answer.
pub fn dhcpv6_reply(server: Ipv6Addr, to: Ipv6Addr) -> Packet {
    dhcpv6((server, 547), (to, 546), 7)
}

fn dhcpv6(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), kind: u8) -> Packet {
    let endpoint = |(address, port)| SocketAddr::from(SocketAddrV6::new(address, port, 0, 0));
    Packet::udp(endpoint(from), endpoint(to)).payload(&[kind, 0, 0, 1])
}

/// An ICMP or ICMPv6 error about a packet, quoting as much of it as RFC 1812 and RFC 4443 ask for.
///
/// `rest` are the four bytes after the checksum: the MTU of a Packet Too Big, the pointer of a
/// Parameter Problem.
pub fn icmp_error(
    from: IpAddr,
    to: IpAddr,
    (kind, code): (u8, u8),
    rest: [u8; 4],
    about: &Packet,
) -> Packet {
    let (packet, room) = match to {
        IpAddr::V4(_) => (Packet::icmp(from, to, kind, code), 576 - 28),
        IpAddr::V6(_) => (Packet::icmpv6(from, to, kind, code), 1280 - 48),
    };
    let mut quoted = about.ip_bytes();
    quoted.truncate(room);
    packet.rest_of_header(rest).payload(&quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    #[test]
    fn a_neighbor_solicitation_goes_to_the_solicited_node_group() {
        let target = "2001:db8::12:3456".parse().unwrap();
        let bytes = neighbor_solicitation(LINK_LOCAL, target).ip_bytes();
        let to: [u8; 16] = bytes[24..40].try_into().unwrap();
        assert_eq!(Ipv6Addr::from(to).to_string(), "ff02::1:ff12:3456");
        assert_eq!((bytes[7], bytes[40]), (255, 135));
    }

    #[test]
    fn an_error_quotes_no_more_than_it_may() {
        let (a, b) = (
            "10.0.0.1:1".parse().unwrap(),
            "10.0.0.10:2".parse().unwrap(),
        );
        let about = Packet::udp(a, b).payload(&[0; 1400]);
        let error = icmp_error(b.ip(), a.ip(), (3, 4), [0, 0, 5, 0], &about);
        assert_eq!(error.ip_bytes().len(), 576);
        assert_eq!(error.ip_bytes()[28..48], about.ip_bytes()[..20]);
    }
}
