//! The shortest way, for TCP and UDP over IPv4 at a host-side interface.
//!
//! Everything is kept in registers, for one family and one direction, so that what is true of all its
//! packets is settled when the code is compiled.

use super::fast::FastDecision;
use super::question::Question;
use crate::abi::{Interface, InterfaceFlags};
use crate::flow::{FastUpdate, FlowKey, FlowState};
use crate::packet::{Direction, Packet};
use crate::parse::{Headers, read_plain_v4, read_sequence_v4};
use crate::protocol::TCP;
use crate::tables::{FastPacket, Tables};

/// Judges a packet, if the answer is near. What is not [`Reason::Tracked`](crate::report::Reason) has
/// changed nothing, and can be judged anew. `None`: it is no plain one, or there is more to look at.
#[inline(always)]
pub fn decide_fast_v4<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    received: bool,
    interface: &Interface,
    tables: &T,
) -> Option<FastDecision> {
    let InterfaceFlags(flags) = interface.flags;
    if flags & (InterfaceFlags::BARE.0 | InterfaceFlags::GUEST.0) != 0 {
        return None;
    }
    let question = Question {
        // The other way round for guests.
        direction: if received {
            Direction::Ingress
        } else {
            Direction::Egress
        },
        interface,
        tables,
        trace: &(),
    };
    let packet = InRegisters {
        packet,
        question: &question,
        headers: read_plain_v4(packet)?,
    };
    let (mut key, mut state) = (FlowKey::default(), FlowState::default());
    question.judge_fast(&packet.headers, &mut key, &mut state, &packet)
}

/// A packet whose headers are in registers. What is needed late is read late: there are few registers.
struct InRegisters<'a, P: ?Sized, T> {
    packet: &'a P,
    question: &'a Question<'a, T, ()>,
    headers: Headers,
}

impl<P: Packet + ?Sized, T: Tables> FastPacket for InRegisters<'_, P, T> {
    const KEY_IN_MEMORY: bool = false;

    #[inline(always)]
    fn size(&self) -> (u32, u32) {
        let packets = self.packet.counted_segments().unwrap_or(1);
        (packets, self.packet.length())
    }

    #[inline(always)]
    fn is_simple(&self, state: &FlowState) -> bool {
        self.question.is_simple(&self.headers, state)
    }

    #[inline(always)]
    fn fast_update(&self, state: &mut FlowState) -> FastUpdate {
        let mut headers = self.headers;
        if headers.protocol == TCP {
            read_sequence_v4(self.packet, &mut headers);
        }
        self.question.fast_update(&headers, state)
    }
}
