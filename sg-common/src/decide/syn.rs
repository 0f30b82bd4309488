//! The shortest way: a SYN that no rule admits, or that rules open to everyone do. Of a flood of
//! such, each costs only this.
//!
//! Everything is kept in registers, for one family, so that what is true of all its packets is
//! settled when the code is compiled. It writes nothing and decides nothing else.

use super::Question;
use crate::addr::Addr;
use crate::packet::{Direction, Packet};
use crate::parse::{PlainSyn, TCP, read_plain_syn};
use crate::report::{Decision, Reason};
use crate::tables::{Interface, InterfaceFlags, Service, Tables};

/// Judges a SYN: [`Reason::NoRule`] or [`Reason::Untracked`]. `None`: it is no plain one, or there is
/// more to look at.
#[inline(always)]
pub fn syn_at_once<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    direction: Direction,
    interface: &Interface,
    tables: &T,
) -> Option<Decision> {
    let InterfaceFlags(flags) = interface.flags;
    if flags & (InterfaceFlags::BARE.0 | InterfaceFlags::GUEST.0) != 0 {
        return None;
    }
    let PlainSyn {
        source,
        destination,
        port,
    } = read_plain_syn(packet)?;
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
    if peer.may_be_link_local_service() {
        return None;
    }
    match question.service_admitted(&peer, Service::new(TCP, port), direction) {
        Ok(admitted) if admitted.untracked => Some(Decision {
            reason: Reason::Untracked,
            rule: admitted.rule,
        }),
        Err(Reason::NoRule) if !question.may_cross_syn() => {
            Some(Decision::without_rule(Reason::NoRule))
        }
        _ => None,
    }
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
