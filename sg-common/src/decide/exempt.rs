//! What groups never filter: link protocols, neighbor discovery, multicast membership, DHCP clients and
//! link-local services.

use super::question::{Question, is_plain_syn};
use super::trace::Trace;
use crate::abi::Scope;
use crate::addr::Addr;
use crate::packet::Direction;
use crate::parse::{Headers, Part};
use crate::protocol::{ICMPV6, IGMP, TCP, UDP};
use crate::report::Reason;
use crate::tables::Tables;

impl<T: Tables, R: Trace> Question<'_, T, R> {
    #[inline(always)]
    pub(super) fn other_arp(&self) -> Reason {
        if self.is_guest() {
            Reason::MalformedArp
        } else {
            Reason::LinkProtocol
        }
    }

    #[inline(always)]
    pub(super) fn link_protocol(&self) -> Reason {
        if self.is_guest() {
            Reason::Ethertype
        } else {
            Reason::LinkProtocol
        }
    }

    #[inline(always)]
    pub(super) fn other_ethertype(&self, headers: &Headers) -> Reason {
        let [a, b, c, d, e, f, g, h] = self.interface.ethertypes;
        let ethertype = headers.ethertype;
        let listed = ethertype == a
            || ethertype == b
            || ethertype == c
            || ethertype == d
            || ethertype == e
            || ethertype == f
            || ethertype == g
            || ethertype == h;
        if listed && ethertype != 0 {
            Reason::ListedEthertype
        } else {
            Reason::Ethertype
        }
    }

    /// The reason for traffic that groups never filter, and for what pretends to be such.
    #[inline(always)]
    pub(super) fn exempt(&self, headers: &Headers) -> Option<Reason> {
        match headers.protocol {
            ICMPV6 => self.exempt_icmpv6(headers),
            IGMP => self.exempt_igmp(headers),
            UDP => self.exempt_dhcp(headers),
            _ => None,
        }
    }

    /// Switches that snoop forward multicast to those who answer queries, and all of it to those who
    /// ask (RFC 4541 §2.1.1, RFC 4286): so queries come in without a rule, and a guest asks nothing.
    #[inline(always)]
    pub(super) fn exempt_igmp(&self, headers: &Headers) -> Option<Reason> {
        const QUERY: u8 = 0x11;
        const ROUTER_ADVERTISEMENT: u8 = 0x30;
        if !headers.source.is_v4() {
            return None;
        }
        if self.is_from_guest() && matches!(headers.icmp_type, QUERY | ROUTER_ADVERTISEMENT) {
            return Some(Reason::GuestRouter);
        }
        // RFC 9776 §4: to a multicast address, and no further than the link. Anything else under
        // this number could be a tunnel.
        if headers.part != Part::Whole
            || headers.hop_limit != 1
            || !headers.destination.is_v4_multicast()
        {
            return None;
        }
        if let Direction::Ingress = self.direction {
            // Queries, and the reports and leave messages of the three versions.
            return match headers.icmp_type {
                QUERY | 0x12 | 0x16 | 0x17 | 0x22 => Some(Reason::MulticastMembership),
                _ => None,
            };
        }
        if self.is_guest() && !self.is_guests(&headers.source) {
            Some(Reason::GuestSource)
        } else {
            Some(Reason::MulticastMembership)
        }
    }

    /// `None`: it is for the rules to say.
    #[inline(always)]
    pub(super) fn exempt_icmpv6(&self, headers: &Headers) -> Option<Reason> {
        const ROUTER_SOLICITATION: u8 = 133;
        const ROUTER_ADVERTISEMENT: u8 = 134;
        const NEIGHBOR_SOLICITATION: u8 = 135;
        const NEIGHBOR_ADVERTISEMENT: u8 = 136;
        const REDIRECT: u8 = 137;
        const QUERY: u8 = 130;
        const MULTICAST_ROUTER_ADVERTISEMENT: u8 = 151;
        let source = &headers.source;
        let from_guest = self.is_from_guest();
        match headers.icmp_type {
            ROUTER_SOLICITATION..=REDIRECT => {
                let from_router = matches!(headers.icmp_type, ROUTER_ADVERTISEMENT | REDIRECT);
                // RFC 4861 §6.1 and §7.1; RFC 6980 for fragments, the atomic one included.
                if headers.hop_limit != 255
                    || headers.icmp_code != 0
                    || headers.fragment_start != 0
                    || (from_router && !source.is_v6_link_local())
                {
                    return Some(Reason::MalformedDiscovery);
                }
                if !from_guest {
                    return Some(Reason::NeighborDiscovery);
                }
                if from_router {
                    return Some(Reason::GuestRouter);
                }
                let may_claim = match headers.icmp_type {
                    NEIGHBOR_ADVERTISEMENT => self.is_guests(&headers.target),
                    // Duplicate address detection (RFC 4862 §5.4): a neighbor that has the address
                    // gives it up.
                    NEIGHBOR_SOLICITATION if *source == Addr::UNSPECIFIED => {
                        self.may_be_on_link(&headers.target)
                    }
                    _ => true,
                };
                if !may_claim || self.names_foreign_mac(headers) {
                    return Some(Reason::GuestDiscovery);
                }
                // On its own link a guest also speaks from `::` and from its link-local address.
                if *source == Addr::UNSPECIFIED || self.may_be_on_link(source) {
                    Some(Reason::NeighborDiscovery)
                } else {
                    Some(Reason::GuestSource)
                }
            }
            QUERY | MULTICAST_ROUTER_ADVERTISEMENT if from_guest && !source.is_v4() => {
                Some(Reason::GuestRouter)
            }
            // Query, report, done (RFC 2710); report (RFC 3810). Reports may come from `::` (RFC 3590).
            QUERY..=132 | 143
                if headers.part == Part::Whole
                    && headers.hop_limit == 1
                    && headers.destination.is_v6_multicast()
                    && (source.is_v6_link_local()
                        || (*source == Addr::UNSPECIFIED && headers.icmp_type != QUERY)) =>
            {
                if from_guest && *source != Addr::UNSPECIFIED && !self.may_be_on_link(source) {
                    Some(Reason::GuestSource)
                } else {
                    Some(Reason::MulticastMembership)
                }
            }
            _ => None,
        }
    }

    /// RFC 2131 §4.1, RFC 8415 §7.2. `None`: it is for the rules to say.
    #[inline(always)]
    pub(super) fn exempt_dhcp(&self, headers: &Headers) -> Option<Reason> {
        let v4 = headers.source.is_v4();
        let (client, server) = if v4 { (68, 67) } else { (546, 547) };
        let (from, to) = (headers.source_port, headers.destination_port);
        match self.direction {
            Direction::Egress if from == client && to == server => {
                let without_lease = headers.source == Addr::V4_UNSPECIFIED;
                if self.is_guest() && !without_lease && !self.may_be_on_link(&headers.source) {
                    Some(Reason::GuestSource)
                } else {
                    Some(Reason::DhcpClient)
                }
            }
            // Clients look at the port an answer is for, and hardly ever at the one it comes from.
            Direction::Egress if self.is_guest() && (from == server || to == client) => {
                Some(Reason::GuestDhcpServer)
            }
            Direction::Ingress
                if from == server && to == client && (v4 || headers.source.is_v6_link_local()) =>
            {
                Some(Reason::DhcpClient)
            }
            _ => None,
        }
    }

    /// Whether the packet is for a listed service, or one of TCP from it that opens nothing. Anybody
    /// on the link can send from a service's address: what else comes from there is judged like
    /// anything else, and passes as the reply it is.
    #[inline(always)]
    pub(super) fn is_link_local_service(&self, headers: &Headers) -> bool {
        let peer = headers.peer(self.direction);
        let may_pass = match self.direction {
            Direction::Egress => true,
            Direction::Ingress => headers.protocol == TCP && !is_plain_syn(headers),
        };
        may_pass
            && peer.may_be_link_local_service()
            && self
                .tables
                .set(Scope::services(self.interface.vpc, peer.family()), peer)
                .is_some()
    }
}

/// Whether a DHCP client or server listens there, in either family.
#[inline(always)]
const fn is_dhcp_port(port: u16) -> bool {
    matches!(port, 67 | 68 | 546 | 547)
}

/// Whether `Stage::Exempt` could find anything.
#[inline(always)]
pub(super) const fn may_be_exempt(headers: &Headers) -> bool {
    if let Part::Later = headers.part {
        return false;
    }
    match headers.protocol {
        ICMPV6 | IGMP => true,
        UDP => is_dhcp_port(headers.source_port) || is_dhcp_port(headers.destination_port),
        _ => false,
    }
}
