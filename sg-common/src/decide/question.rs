//! A packet at an interface: what every part of the judgement has in hand.

use super::trace::Trace;
use crate::abi::{Interface, InterfaceFlags, Scope};
use crate::addr::Addr;
use crate::packet::Direction;
use crate::parse::Headers;
use crate::protocol::TCP;
use crate::tables::Tables;

/// At this interface, in this direction.
pub(super) struct Question<'a, T, R> {
    pub(super) direction: Direction,
    pub(super) interface: &'a Interface,
    pub(super) tables: &'a T,
    pub(super) trace: &'a R,
}

impl<T: Tables, R: Trace> Question<'_, T, R> {
    #[inline(always)]
    pub(super) fn is_guest(&self) -> bool {
        self.interface.flags.has(InterfaceFlags::GUEST)
    }

    /// Whether the packet is what a guest sends.
    #[inline(always)]
    pub(super) fn is_from_guest(&self) -> bool {
        self.is_guest() && self.direction == Direction::Egress
    }

    /// Whether the address is one of the guest's.
    #[inline(always)]
    pub(super) fn is_guests(&self, address: &Addr) -> bool {
        let scope = Scope::guest(self.interface.slot, address.family());
        self.tables.set(scope, address).is_some()
    }

    /// Whether the guest has this link-layer address, or is in this VLAN.
    #[inline(always)]
    pub(super) fn is_guests_on_link(&self, address: &Addr) -> bool {
        let scope = Scope::guest_link(self.interface.slot);
        self.tables.set(scope, address).is_some()
    }
}

/// Whether the packet asks for a new TCP connection.
#[inline(always)]
pub(super) const fn is_plain_syn(headers: &Headers) -> bool {
    headers.protocol == TCP && headers.tcp_flags.is_plain_syn()
}
