//! What a guest may send and get: its link-layer addresses, VLANs and addresses.

use super::question::Question;
use super::trace::Trace;
use crate::abi::InterfaceFlags;
use crate::addr::Addr;
use crate::packet::Direction;
use crate::parse::{Content, Headers};
use crate::report::Reason;
use crate::tables::Tables;

impl<T: Tables, R: Trace> Question<'_, T, R> {
    /// A guest sends from its own link-layer addresses, so that no switch looks for its neighbors'
    /// behind it, and neither sends nor gets the tag of a VLAN that it was not given. A tag with number
    /// 0 has a priority and no VLAN (IEEE 802.1Q §9.6).
    #[inline(always)]
    pub(super) fn link(&self, headers: &Headers) -> Option<Reason> {
        let flags = self.interface.flags;
        let is_in_vlan = headers.tags == 0
            || (headers.tags == 1
                && (headers.vlan == 0
                    || (flags.has(InterfaceFlags::VLANS)
                        && self.is_guests_on_link(&Addr::from_vlan(headers.vlan)))));
        if !is_in_vlan {
            return Some(Reason::GuestVlan);
        }
        let is_own = self.direction == Direction::Ingress
            || !flags.has(InterfaceFlags::MACS_KNOWN)
            || self.is_guests_on_link(&Addr::from_mac(headers.mac, headers.mac_end));
        if !is_own {
            return Some(Reason::GuestMac);
        }
        match headers.content {
            Content::Arp => Some(self.arp(headers)),
            _ => None,
        }
    }

    /// Whether an ARP packet or neighbor message of the guest names a link-layer address that its
    /// neighbors shall not look for behind it.
    #[inline(always)]
    pub(super) fn names_foreign_mac(&self, headers: &Headers) -> bool {
        headers.names_other_mac != 0 && self.interface.flags.has(InterfaceFlags::MACS_KNOWN)
    }

    #[inline(always)]
    pub(super) fn arp(&self, headers: &Headers) -> Reason {
        let (sender, target) = (&headers.source, &headers.destination);
        let (concerns_guest, otherwise) = match self.direction {
            // A probe (RFC 5227 §2.1.1) has no sender address yet.
            Direction::Egress => {
                let is_own = self.is_guests(sender)
                    || (*sender == Addr::V4_UNSPECIFIED && self.is_guests(target));
                (is_own && !self.names_foreign_mac(headers), Reason::GuestArp)
            }
            // Others ask for the guest, answer it, or announce themselves.
            Direction::Ingress => {
                let concerns_guest = sender == target || self.is_guests(target);
                (concerns_guest, Reason::NotForGuest)
            }
        };
        if concerns_guest {
            Reason::LinkProtocol
        } else {
            otherwise
        }
    }

    /// Whether a guest may speak to its own link from here. Its link-local address is its own choice:
    /// any will do, unless it is declared. A solicitation from another's address would take that
    /// address over in the caches of its neighbors (RFC 4861 §7.2.3).
    #[inline(always)]
    pub(super) fn may_be_on_link(&self, source: &Addr) -> bool {
        self.is_guests(source)
            || (source.is_v6_link_local()
                && !self.interface.flags.has(InterfaceFlags::LINK_LOCAL_KNOWN))
    }

    /// The source and destination check: a guest sends from its own addresses, and gets what is
    /// for them and from others.
    #[inline(always)]
    pub(super) fn is_guarded(&self, headers: &Headers) -> bool {
        self.is_guests(headers.local(self.direction))
            && (self.direction == Direction::Egress || !self.is_guests(&headers.source))
    }

    #[inline(always)]
    pub(super) fn guard_reason(&self, headers: &Headers) -> Reason {
        match self.direction {
            Direction::Egress => Reason::GuestSource,
            Direction::Ingress if self.is_guests(&headers.destination) => Reason::GuestDestination,
            Direction::Ingress => Reason::NotForGuest,
        }
    }
}
