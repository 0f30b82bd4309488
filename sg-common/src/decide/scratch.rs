//! What a decision writes on.

use crate::flow::{FlowKey, FlowState};
use crate::packet::{Direction, Framing, Packet};
use crate::parse::{self, Content, Headers, ReadPart};
use crate::protocol::IcmpRole;
use crate::report::Reason;

/// What a decision writes on.
///
/// The kernel keeps it in a map: its stack is small, and the verifier forgets what is known of a
/// map's bytes, so that all the ways through the parser become one.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Scratch {
    /// What was read of the packet.
    pub headers: Headers,
    /// The packet that an ICMP error quotes, or the one that opened a flow.
    pub other: Headers,
    /// The flow that is looked for.
    pub key: FlowKey,
    /// What is found, or written.
    pub state: FlowState,
}

impl Scratch {
    /// Writes down which flow the packet is of. A function of its own in the kernel: its stack is then
    /// free for the search.
    #[cfg_attr(target_arch = "bpf", inline(never))]
    pub(super) fn name_flow(&mut self, direction: Direction, zone: u32) {
        self.key = FlowKey::of(&self.headers, direction, zone);
    }

    /// The same for the packet that is quoted.
    #[cfg_attr(target_arch = "bpf", inline(never))]
    pub(super) fn name_quoted_flow(&mut self, direction: Direction, zone: u32) {
        self.key = FlowKey::of(&self.other, direction, zone);
    }

    /// Reads a packet. The returned reason is for `judge`.
    #[inline(always)]
    pub fn read<P: Packet + ?Sized>(&mut self, packet: &P, framing: Framing) -> Reason {
        self.read_by(|scratch, part| scratch.read_part(part, packet, framing))
    }

    /// Reads a packet by its parts, each of which `read` reads by [`Scratch::read_part`]; the kernel has
    /// a function for each.
    #[inline(always)]
    pub fn read_by(&mut self, read: impl Fn(&mut Self, ReadPart) -> Reason) -> Reason {
        let refusal = read(self, ReadPart::Network);
        if self.headers.content != Content::Ip {
            return refusal;
        }
        let refusal = read(self, ReadPart::Upper);
        if self.headers.content == Content::Ip && self.headers.icmp_role() == IcmpRole::Error {
            read(self, ReadPart::Quoted);
        }
        refusal
    }

    /// Reads a part of a packet whose earlier parts have been read.
    #[inline(always)]
    pub fn read_part<P: Packet + ?Sized>(
        &mut self,
        part: ReadPart,
        packet: &P,
        framing: Framing,
    ) -> Reason {
        let Self { headers, other, .. } = self;
        match part {
            ReadPart::Network => parse::read_network(packet, framing, headers),
            ReadPart::Upper => parse::read_upper(packet, headers),
            ReadPart::Quoted => {
                parse::read_quoted(packet, headers, other);
                Reason::NoRule
            }
        }
    }
}
