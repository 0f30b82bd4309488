//! The shortest way: a SYN that no rule admits. Of a flood of such, each costs only this.
//!
//! Everything is kept in registers, for one family, so that what is true of all its packets is
//! settled when the code is compiled. It writes nothing and refuses nothing else.

use super::Question;
use crate::addr::Addr;
use crate::packet::{Direction, Packet};
use crate::parse::{PlainSyn, TCP, read_plain_syn};
use crate::report::Reason;
use crate::tables::{Interface, InterfaceFlags, Service, Tables};

/// Whether the packet is a SYN that no rule admits, to be dropped for [`Reason::NoRule`]. False: it
/// is not, or there is more to look at.
#[inline(always)]
pub fn refuses_syn<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    direction: Direction,
    interface: &Interface,
    tables: &T,
) -> bool {
    let InterfaceFlags(flags) = interface.flags;
    if flags & (InterfaceFlags::BARE.0 | InterfaceFlags::GUEST.0) != 0 {
        return false;
    }
    let Some(PlainSyn {
        source,
        destination,
        port,
    }) = read_plain_syn(packet)
    else {
        return false;
    };
    let peer = match direction {
        Direction::Ingress => source,
        Direction::Egress => destination,
    };
    let peer = Addr::from_v4(peer.to_be_bytes());
    let question = Question {
        direction,
        interface,
        tables,
        trace: &(),
    };
    let service = Service::new(TCP, port);
    !peer.may_be_link_local_service()
        && matches!(
            question.service_admitted(&peer, service, direction),
            Err(Reason::NoRule)
        )
        && !question.may_cross_syn()
}

impl<T: Tables> Question<'_, T, ()> {
    /// Whether a SYN that no rule admits may answer one that went the other way.
    #[inline(always)]
    pub(super) fn may_cross_syn(&self) -> bool {
        let went = self.direction.opposite();
        self.tables
            .may_cross_syn(went, self.interface.timeouts.tcp_opening)
    }
}
