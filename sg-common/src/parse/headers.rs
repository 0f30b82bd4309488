//! What a packet says of itself.

use crate::addr::{Addr, Family};
use crate::packet::Direction;
use crate::protocol::{ICMP, IcmpRole, TCP, TcpFlags, UDP};

/// What a frame carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Content {
    /// What must be dropped.
    #[default]
    Refused,
    /// IP, and [`Headers`] is filled in.
    Ip,
    /// ARP for IPv4 over Ethernet: [`Headers::source`] is its sender, [`Headers::destination`] its
    /// target.
    Arp,
    /// Any other ARP.
    OtherArp,
    /// A link protocol that groups never filter.
    LinkProtocol,
    /// Another EtherType, in [`Headers::ethertype`].
    Other,
}

/// How much of an IP packet this is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// The first fragment, L4 header included.
    First,
    /// A later fragment, without an L4 header.
    Later,
}

/// What the packet says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Sender.
    pub source: Addr,
    /// Receiver.
    pub destination: Addr,
    /// TCP, UDP: the sender's port. ICMP requests and replies: the identifier.
    pub source_port: u16,
    /// TCP, UDP: the receiver's port. ICMP requests and replies: the identifier.
    pub destination_port: u16,
    /// The type of ICMP or IGMP.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// The upper protocol.
    pub protocol: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// TCP control bits.
    pub tcp_flags: TcpFlags,
    /// Bytes of the TCP header.
    pub tcp_header: u8,
    /// TCP's window field, unscaled.
    pub tcp_window: u16,
    /// TCP sequence number.
    pub tcp_seq: u32,
    /// TCP acknowledgment number.
    pub tcp_ack: u32,
    /// Sequence space the segment takes: its data, and one each for SYN and FIN.
    pub tcp_length: u32,
    /// Whole packet or fragment.
    pub part: Part,
    /// The protocol field by which a packet's fragments know each other.
    pub fragment_protocol: u8,
    /// The identification by which they do.
    pub fragment_id: u32,
    /// Where this fragment begins in the packet's payload, in bytes.
    pub fragment_offset: u32,
    /// Where the fragment's own bytes begin in the frame; zero for an IPv6 packet without a fragment
    /// header.
    pub fragment_start: u32,
    /// Where the IP header begins in the frame.
    pub l3: u32,
    /// Where the L4 header begins in the frame.
    pub l4: u32,
    /// Where the IP packet ends in the frame.
    pub end: u32,
    /// The address a neighbor solicitation or advertisement speaks of.
    pub target: Addr,
    /// Packets of the wire that the frame stands for.
    pub packets: u32,
    /// Bytes to count for the frame.
    pub bytes: u32,
    /// The innermost EtherType.
    pub ethertype: u16,
    /// The window scale a SYN offers; 0 when it offers none.
    pub window_scale: u8,
    /// What the frame carries.
    pub content: Content,
    /// The sender's link-layer address: its first four bytes.
    pub mac: u32,
    /// The other two.
    pub mac_end: u16,
    /// The number of the VLAN of its innermost tag.
    pub vlan: u16,
    /// How many tags it has.
    pub tags: u8,
    /// Whether an ARP packet or neighbor message names another link-layer address as its sender's
    /// than the frame has, or hides what it names. Not zero is yes.
    pub names_other_mac: u8,
    /// Always zero.
    pub padding: [u8; 2],
}

impl Headers {
    /// Which family the packet is of.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        self.source.family()
    }

    /// The protected side's address.
    #[inline(always)]
    pub const fn local(&self, direction: Direction) -> &Addr {
        match direction {
            Direction::Ingress => &self.destination,
            Direction::Egress => &self.source,
        }
    }

    /// The other side's address.
    #[inline(always)]
    pub const fn peer(&self, direction: Direction) -> &Addr {
        self.local(direction.opposite())
    }

    /// Turns the headers of a packet that went in `from` into those of the packet that opened its
    /// flow, which went in `to`.
    #[inline(always)]
    pub const fn turn_towards(&mut self, from: Direction, to: Direction) {
        if from as u8 == to as u8 {
            return;
        }
        (self.source, self.destination) = (self.destination, self.source);
        (self.source_port, self.destination_port) = (self.destination_port, self.source_port);
        if let IcmpRole::Reply = self.icmp_role() {
            // Echo in ICMP is 8 and 0; every other request comes just before its reply.
            let echo = self.protocol == ICMP && self.icmp_type == 0;
            self.icmp_type = if echo {
                8
            } else {
                self.icmp_type.wrapping_sub(1)
            };
            self.icmp_code = 0;
        }
    }

    /// Where the L4 payload begins in the frame: what is before repeats in each segment.
    #[inline(always)]
    pub(super) const fn payload(&self) -> u32 {
        let header = match self.protocol {
            TCP => self.tcp_header as u32,
            UDP => 8,
            _ => 0,
        };
        self.l4 + header
    }

    /// What role an ICMP message plays.
    #[inline(always)]
    pub const fn icmp_role(&self) -> IcmpRole {
        IcmpRole::of(self.protocol, self.icmp_type)
    }
}

impl Headers {
    /// The first word of TCP and UDP.
    #[inline(always)]
    pub(super) const fn set_ports(&mut self, ports: u32) {
        self.source_port = (ports >> 16) as u16;
        self.destination_port = ports as u16;
    }

    /// The first two words of ICMP: requests and replies know each other by an identifier, which
    /// stands for both ports.
    #[inline(always)]
    pub(super) const fn set_icmp(&mut self, head: u32, identifier: u32) {
        self.icmp_type = (head >> 24) as u8;
        self.icmp_code = (head >> 16) as u8;
        if let IcmpRole::Request | IcmpRole::Reply = self.icmp_role() {
            self.source_port = (identifier >> 16) as u16;
            self.destination_port = self.source_port;
        }
    }

    /// The words of TCP from the sequence number on.
    #[inline(always)]
    pub(super) const fn set_sequence(&mut self, seq: u32, ack: u32, flags_window: u32, data: u32) {
        self.tcp_seq = seq;
        self.tcp_ack = ack;
        self.tcp_flags = TcpFlags::of(flags_window);
        self.tcp_window = flags_window as u16;
        self.tcp_length = self.tcp_flags.sequence_length(data);
    }
}
