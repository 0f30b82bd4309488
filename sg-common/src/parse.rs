//! From bytes to [`Headers`]: everything later steps may know about a packet.
//!
//! The parser follows every header by its own length and refuses, with a reason, whatever it cannot
//! judge. L4 bytes are those inside the IP packet; what trails it in the frame is padding.

mod plain;

use core::ops::ControlFlow;

use network_types::ip::IpProto;

use crate::addr::{Addr, Family};
use crate::flow::FlowKey;
use crate::packet::{Direction, Framing, Packet, Turns};
use crate::report::Reason;
use crate::tables::Service;

pub use plain::{read_plain, read_plain_v4, read_sequence_v4};

/// Internet Control Message Protocol.
pub const ICMP: u8 = IpProto::Icmp as u8;
/// Internet Group Management Protocol.
pub const IGMP: u8 = IpProto::Igmp as u8;
/// Transmission Control Protocol.
pub const TCP: u8 = IpProto::Tcp as u8;
/// User Datagram Protocol.
pub const UDP: u8 = IpProto::Udp as u8;
/// ICMP for IPv6.
pub const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;

const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
const ROUTING: u8 = IpProto::Ipv6Route as u8;
const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
const AUTHENTICATION: u8 = IpProto::Ah as u8;
const NO_NEXT_HEADER: u8 = IpProto::Ipv6NoNxt as u8;
const DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;

/// More extension headers than any sender needs (RFC 8504 §5.3 lets a node limit them).
const MAX_EXTENSIONS: u64 = 8;
/// One VLAN tag, or two (802.1ad).
const MAX_TAGS: u32 = 2;

/// TCP control bits (RFC 9293 §3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// The sender has finished.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// The connection is void.
    pub const RST: Self = Self(0x04);
    /// The acknowledgment field counts.
    pub const ACK: Self = Self(0x10);

    /// Whether all of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// SYN without ACK, RST or FIN: the first packet of a connection.
    #[inline(always)]
    pub const fn is_plain_syn(self) -> bool {
        self.0 & 0x17 == Self::SYN.0
    }

    /// ACK without SYN, RST or FIN: a segment in the midst of a connection.
    #[inline(always)]
    pub const fn is_plain_ack(self) -> bool {
        self.0 & 0x17 == Self::ACK.0
    }

    /// From the word that has them in its second byte.
    #[inline(always)]
    const fn of(flags_window: u32) -> Self {
        Self((flags_window >> 16) as u8)
    }

    /// Sequence space that so many bytes of data take, and one each for SYN and FIN.
    #[inline(always)]
    const fn sequence_length(self, bytes: u32) -> u32 {
        bytes + self.has(Self::SYN) as u32 + self.has(Self::FIN) as u32
    }

    /// Whether no TCP sends this: none of SYN, ACK, RST and FIN, two of SYN, RST and FIN at once, or
    /// FIN without ACK (RFC 9293 §3.10.4 has every FIN acknowledge).
    #[inline(always)]
    const fn is_nonsense(self) -> bool {
        let control = self.0 & 0x17;
        control == 0
            || self.has(Self(Self::SYN.0 | Self::FIN.0))
            || self.has(Self(Self::SYN.0 | Self::RST.0))
            || self.has(Self(Self::RST.0 | Self::FIN.0))
            || control == Self::FIN.0
    }
}

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

    /// What port tables are searched by.
    #[inline(always)]
    pub const fn service(&self) -> Service {
        let low = match self.protocol {
            TCP | UDP => self.destination_port,
            ICMP | ICMPV6 => (self.icmp_type as u16) << 8 | self.icmp_code as u16,
            _ => 0,
        };
        Service::new(self.protocol, low)
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
    const fn payload(&self) -> u32 {
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

    /// The key that this packet and the other packets of its flow share.
    #[inline(always)]
    pub const fn flow(&self, direction: Direction, zone: u32) -> FlowKey {
        let (local_port, peer_port) = match direction {
            Direction::Ingress => (self.destination_port, self.source_port),
            Direction::Egress => (self.source_port, self.destination_port),
        };
        let asker = match (self.icmp_role(), direction) {
            (IcmpRole::Request, Direction::Egress) | (IcmpRole::Reply, Direction::Ingress) => 1,
            (IcmpRole::Request, Direction::Ingress) | (IcmpRole::Reply, Direction::Egress) => 2,
            _ => 0,
        };
        // Timestamp, information and mask requests and their replies make pairs 13-14 to 17-18.
        let question = match (self.protocol, self.icmp_type) {
            (ICMP, 13..=18) if asker != 0 => (self.icmp_type + 1) & !1,
            _ => 0,
        };
        FlowKey {
            local: *self.local(direction),
            peer: *self.peer(direction),
            zone,
            local_port,
            peer_port,
            protocol: self.protocol,
            asker: question << 2 | asker,
            padding: [0; 2],
        }
    }
}

/// What role an ICMP message plays in a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpRole {
    /// Not ICMP.
    NotIcmp,
    /// Asks, and has an identifier.
    Request,
    /// Answers a request.
    Reply,
    /// Speaks of another packet, which it quotes.
    Error,
    /// Anything else: judged by rules alone.
    Notice,
}

impl IcmpRole {
    /// RFC 792, RFC 950, RFC 4443.
    #[inline(always)]
    const fn of(protocol: u8, icmp_type: u8) -> Self {
        match (protocol, icmp_type) {
            (ICMP, 8 | 13 | 15 | 17) | (ICMPV6, 128) => Self::Request,
            (ICMP, 0 | 14 | 16 | 18) | (ICMPV6, 129) => Self::Reply,
            (ICMP, 3 | 11 | 12) | (ICMPV6, 1..=4) => Self::Error,
            (ICMP | ICMPV6, _) => Self::Notice,
            _ => Self::NotIcmp,
        }
    }
}

/// A part of the reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPart {
    /// The link's header and IP's, with its extensions.
    Network,
    /// The L4 header.
    Upper,
    /// The packet that an ICMP error quotes.
    Quoted,
}

/// Reads a frame's headers up to those of L4. The returned reason counts where [`Content::Refused`] is
/// left.
#[inline(always)]
pub fn read_network<P: Packet + ?Sized>(
    packet: &P,
    framing: Framing,
    headers: &mut Headers,
) -> Reason {
    *headers = Headers::default();
    let reason = match parse(packet, framing, headers) {
        Ok(content) => {
            headers.content = content;
            Reason::NoRule
        }
        Err(refusal) => refusal,
    };
    // A frame in several buffers says the length of its first one only; its packet says more.
    headers.bytes = packet.length().max(headers.end);
    headers.packets = packet.segments(headers.payload());
    reason
}

/// Reads the L4 header of an IP packet whose other headers have been read. The returned reason is as
/// that of [`read_network`].
#[inline(always)]
pub fn read_upper<P: Packet + ?Sized>(packet: &P, headers: &mut Headers) -> Reason {
    let read = l4(packet, headers);
    headers.packets = packet.segments(headers.payload());
    match read {
        Ok(()) => Reason::NoRule,
        Err(refusal) => {
            headers.content = Content::Refused;
            refusal
        }
    }
}

/// Reads the packet that an ICMP error quotes; [`Content::Ip`] when there is one.
#[inline(always)]
pub fn read_quoted<P: Packet + ?Sized>(packet: &P, headers: &Headers, quoted: &mut Headers) {
    *quoted = Headers::default();
    if headers.part == Part::Whole && quote(packet, headers, quoted).is_some() {
        quoted.content = Content::Ip;
    }
}

#[inline(always)]
fn parse<P: Packet + ?Sized>(
    packet: &P,
    framing: Framing,
    headers: &mut Headers,
) -> Result<Content, Reason> {
    let mut offset = 0;
    let mut ethertype = packet.protocol_beside();
    if let Framing::Ethernet = framing {
        let [_, _, _, _, _, _, a, b, c, d, e, f, high, low] =
            packet.load::<14>(0).ok_or(Reason::MalformedEthernet)?;
        headers.mac = u32::from_be_bytes([a, b, c, d]);
        headers.mac_end = u16::from_be_bytes([e, f]);
        ethertype = u16::from_be_bytes([high, low]);
        offset = 14;
    }
    let mut tags = packet.tags_beside();
    headers.vlan = packet.vlan_beside();
    for _ in 0..=MAX_TAGS {
        if !matches!(ethertype, 0x8100 | 0x88a8 | 0x9100) {
            break;
        }
        tags += 1;
        if tags > MAX_TAGS {
            return Err(Reason::VlanDepth);
        }
        let [tag, number, high, low] = packet.load::<4>(offset).ok_or(Reason::MalformedEthernet)?;
        headers.vlan = u16::from_be_bytes([tag & 0x0f, number]);
        ethertype = u16::from_be_bytes([high, low]);
        offset += 4;
    }
    if tags > MAX_TAGS {
        return Err(Reason::VlanDepth);
    }
    headers.tags = tags as u8;
    headers.ethertype = ethertype;
    headers.l3 = packet.forget(offset);
    match ethertype {
        0x0800 => {
            ipv4(packet, headers)?;
            Ok(Content::Ip)
        }
        0x86dd => {
            ipv6(packet, headers)?;
            Ok(Content::Ip)
        }
        0x0806 => Ok(arp(packet, headers).unwrap_or(Content::OtherArp)),
        // LLDP, LACP and other slow protocols, EAPOL, PTP.
        0x88cc | 0x8809 | 0x888e | 0x88f7 => Ok(Content::LinkProtocol),
        // MPLS, PPPoE session.
        0x8847 | 0x8848 | 0x8864 => Err(Reason::Unsupported),
        // Below 0x0600 it is a length, and LLC follows (IEEE 802.3 §3.2.6): only spanning tree
        // has leave to pass.
        0..0x0600 => match packet.load::<2>(offset) {
            Some([0x42, 0x42]) => Ok(Content::LinkProtocol),
            Some(_) => Err(Reason::Ethertype),
            None => Err(Reason::MalformedEthernet),
        },
        _ => Ok(Content::Other),
    }
}

/// RFC 791.
#[inline(always)]
fn ipv4<P: Packet + ?Sized>(packet: &P, headers: &mut Headers) -> Result<(), Reason> {
    let l3 = headers.l3;
    let [
        version_length,
        id_fragment,
        ttl_protocol,
        source,
        destination,
    ] = packet.load_words::<5>(l3).ok_or(Reason::MalformedIpv4)?;
    let header = (version_length >> 24 & 0x0f) * 4;
    let total = version_length & 0xffff;
    if version_length >> 28 != 4 || header < 20 {
        return Err(Reason::MalformedIpv4);
    }
    // A packet the kernel has merged beyond 64 KiB says 0 (BIG TCP): its frame is its length.
    let end = if total == 0 && packet.is_merged() {
        packet.length()
    } else {
        l3 + total
    };
    if end < l3 + header || !packet.reaches(end) {
        return Err(Reason::MalformedIpv4);
    }
    headers.source = Addr::from_v4(source.to_be_bytes());
    headers.destination = Addr::from_v4(destination.to_be_bytes());
    headers.hop_limit = (ttl_protocol >> 24) as u8;
    headers.protocol = (ttl_protocol >> 16) as u8;
    headers.l4 = l3 + header;
    headers.end = packet.forget(end);
    if headers.source.is_impossible_source() || headers.source == headers.destination {
        return Err(Reason::MalformedSource);
    }
    let more = id_fragment & 0x2000 != 0;
    let offset = (id_fragment & 0x1fff) * 8;
    headers.fragment_id = id_fragment >> 16;
    headers.fragment_protocol = headers.protocol;
    headers.fragment_start = headers.l4;
    fragment(headers, offset, more, false)
}

/// What RFC 791 §3.2 and RFC 8200 §4.5 ask of every fragment, with the cures of RFC 1858 and 3128.
#[inline(always)]
fn fragment(headers: &mut Headers, offset: u32, more: bool, is_quoted: bool) -> Result<(), Reason> {
    if offset == 0 && !more {
        return Ok(());
    }
    headers.fragment_offset = offset;
    headers.part = if offset == 0 {
        Part::First
    } else {
        Part::Later
    };
    // An ICMP error quotes as much as fits: the length of what it quotes says nothing.
    if is_quoted {
        return Ok(());
    }
    let length = headers.end - headers.fragment_start;
    let tiny_offset = offset == 8 && headers.fragment_protocol == TCP;
    if length == 0 || (more && !length.is_multiple_of(8)) || offset + length > 65_535 || tiny_offset
    {
        return Err(Reason::MalformedFragment);
    }
    Ok(())
}

/// RFC 8200, extension headers included.
#[inline(always)]
fn ipv6<P: Packet + ?Sized>(packet: &P, headers: &mut Headers) -> Result<(), Reason> {
    let l3 = headers.l3;
    let [version, length_next] = packet.load_words::<2>(l3).ok_or(Reason::MalformedIpv6)?;
    let source = packet
        .load_words::<4>(l3 + 8)
        .ok_or(Reason::MalformedIpv6)?;
    let destination = packet
        .load_words::<4>(l3 + 24)
        .ok_or(Reason::MalformedIpv6)?;
    if version >> 28 != 6 {
        return Err(Reason::MalformedIpv6);
    }
    let payload = length_next >> 16;
    // As for IPv4: a merged packet beyond 64 KiB says 0.
    let end = if payload == 0 && packet.is_merged() {
        packet.length()
    } else {
        l3 + 40 + payload
    };
    if !packet.reaches(end) {
        return Err(Reason::MalformedIpv6);
    }
    headers.source = Addr::from_words(source);
    headers.destination = Addr::from_words(destination);
    headers.hop_limit = length_next as u8;
    headers.end = packet.forget(end);
    if headers.source.is_v4() || headers.destination.is_v4() {
        return Err(Reason::MalformedMapped);
    }
    if headers.source.is_impossible_source() || headers.source == headers.destination {
        return Err(Reason::MalformedSource);
    }
    extensions(packet, headers, (length_next >> 8) as u8, l3 + 40, false)
}

/// Whether what comes next in IPv6 is an extension header that may be followed.
#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(
        next,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS
    )
}

/// Walks the chain up to the upper protocol, or to a later fragment's bytes.
#[inline(always)]
fn extensions<P: Packet + ?Sized>(
    packet: &P,
    headers: &mut Headers,
    first: u8,
    start: u32,
    is_quoted: bool,
) -> Result<(), Reason> {
    packet.repeat(Chain {
        packet,
        headers,
        is_quoted,
        next: packet.forget(u32::from(first)) as u8,
        offset: packet.forget(start),
        followed: 0,
    })
}

/// How far a chain of extension headers has been followed.
struct Chain<'a, P: ?Sized> {
    packet: &'a P,
    headers: &'a mut Headers,
    is_quoted: bool,
    /// What comes next.
    next: u8,
    /// Where it begins.
    offset: u32,
    /// How many headers came before.
    followed: u64,
}

impl<P: Packet + ?Sized> Turns for Chain<'_, P> {
    type Result = Result<(), Reason>;

    #[inline(always)]
    fn turn(&mut self) -> ControlFlow<Self::Result> {
        match self.follow() {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(self.end()),
            Err(refusal) => ControlFlow::Break(Err(refusal)),
        }
    }
}

impl<P: Packet + ?Sized> Chain<'_, P> {
    /// Follows one header; false where there is none to follow.
    #[inline(always)]
    fn follow(&mut self) -> Result<bool, Reason> {
        let Self {
            packet,
            next,
            offset,
            ..
        } = *self;
        let headers = &mut *self.headers;
        if !is_extension(next) {
            return Ok(false);
        }
        // Whatever follows the fixed part of the longest header read here: 8 bytes.
        if self.followed == MAX_EXTENSIONS || offset + 8 > headers.end {
            return Err(Reason::MalformedExtension);
        }
        let [head, identification] = packet
            .load_words::<2>(offset)
            .ok_or(Reason::MalformedExtension)?;
        let following = (head >> 24) as u8;
        let length = head >> 16 & 0xff;
        let size = match next {
            HOP_BY_HOP if self.followed != 0 => return Err(Reason::MalformedExtension),
            // Routing type 0 is a traffic amplifier (RFC 5095).
            ROUTING if head >> 8 & 0xff == 0 => return Err(Reason::MalformedExtension),
            // Only such a header says where the fragment begins.
            FRAGMENT if headers.fragment_start != 0 => return Err(Reason::MalformedExtension),
            FRAGMENT => 8,
            AUTHENTICATION => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        if offset + size > headers.end {
            return Err(Reason::MalformedExtension);
        }
        self.offset = packet.forget(offset + size);
        if next == FRAGMENT {
            headers.fragment_protocol = following;
            headers.fragment_id = identification;
            headers.fragment_start = self.offset;
            fragment(headers, head & 0xfff8, head & 1 != 0, self.is_quoted)?;
            if let Part::Later = headers.part {
                self.next = following;
                return Ok(false);
            }
        }
        self.followed += 1;
        self.next = packet.forget(u32::from(following)) as u8;
        Ok(true)
    }

    /// What follows the last of them is the upper protocol.
    #[inline(always)]
    fn end(&mut self) -> Result<(), Reason> {
        let is_later = matches!(self.headers.part, Part::Later);
        if self.next == NO_NEXT_HEADER && !is_later {
            return Err(Reason::MalformedExtension);
        }
        self.headers.protocol = self.next;
        self.headers.l4 = self.offset;
        Ok(())
    }
}

/// Reads the L4 header of whole packets and first fragments.
#[inline(always)]
fn l4<P: Packet + ?Sized>(packet: &P, headers: &mut Headers) -> Result<(), Reason> {
    if let Part::Later = headers.part {
        return Ok(());
    }
    headers.l4 = packet.forget(headers.l4);
    headers.protocol = packet.forget(u32::from(headers.protocol)) as u8;
    let length = packet.forget(headers.end).wrapping_sub(headers.l4);
    match headers.protocol {
        TCP => tcp(packet, headers, length),
        UDP => {
            let [ports, length_checksum] =
                l4_words::<2, P>(packet, headers, length).ok_or(Reason::MalformedUdp)?;
            let claimed = length_checksum >> 16;
            let whole = headers.part == Part::Whole;
            if claimed < 8 || (whole && claimed > length) {
                return Err(Reason::MalformedUdp);
            }
            headers.set_ports(ports);
            Ok(())
        }
        // Every message has eight bytes (RFC 9776 §4); a shorter one has no type.
        IGMP => {
            if let Some([head, _]) = l4_words::<2, P>(packet, headers, length) {
                headers.icmp_type = (head >> 24) as u8;
            }
            Ok(())
        }
        ICMP | ICMPV6 => {
            let [head, identifier] =
                l4_words::<2, P>(packet, headers, length).ok_or(Reason::MalformedIcmp)?;
            headers.set_icmp(head, identifier);
            // The target of a neighbor solicitation or advertisement (RFC 4861 §4.3, §4.4).
            if headers.protocol == ICMPV6 && matches!(headers.icmp_type, 135 | 136) {
                if length < 24 {
                    return Err(Reason::MalformedIcmp);
                }
                let target = packet
                    .load_words::<4>(headers.l4 + 8)
                    .ok_or(Reason::MalformedIcmp)?;
                headers.target = Addr::from_words(target);
            }
            if headers.protocol == ICMPV6 && matches!(headers.icmp_type, 133 | 135 | 136) {
                headers.names_other_mac = u8::from(names_other_mac(packet, headers));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether a link-layer option of a neighbor message (RFC 4861 §4.6.1) names another address than
/// the frame comes from, or its options are more than are looked at.
#[inline(always)]
fn names_other_mac<P: Packet + ?Sized>(packet: &P, headers: &Headers) -> bool {
    // A solicitation with a nonce (RFC 3971 §5.3.2) has two.
    const OPTIONS: u32 = 3;
    let mut at = headers.l4 + if headers.icmp_type == 133 { 8 } else { 24 };
    for _ in 0..OPTIONS {
        at = packet.forget(at);
        if at >= headers.end {
            return false;
        }
        let Some([head, rest]) = packet.load_words::<2>(at) else {
            return true;
        };
        let (kind, length) = (head >> 24, head >> 16 & 0xff);
        if length == 0 {
            return true;
        }
        let is_own = head as u16 == (headers.mac >> 16) as u16
            && rest == headers.mac << 16 | headers.mac_end as u32;
        if matches!(kind, 1 | 2) && !is_own {
            return true;
        }
        at += length * 8;
    }
    at < headers.end
}

impl Headers {
    /// The first word of TCP and UDP.
    #[inline(always)]
    const fn set_ports(&mut self, ports: u32) {
        self.source_port = (ports >> 16) as u16;
        self.destination_port = ports as u16;
    }

    /// The first two words of ICMP: requests and replies know each other by an identifier, which
    /// stands for both ports.
    #[inline(always)]
    const fn set_icmp(&mut self, head: u32, identifier: u32) {
        self.icmp_type = (head >> 24) as u8;
        self.icmp_code = (head >> 16) as u8;
        if let IcmpRole::Request | IcmpRole::Reply = self.icmp_role() {
            self.source_port = (identifier >> 16) as u16;
            self.destination_port = self.source_port;
        }
    }

    /// The words of TCP from the sequence number on.
    #[inline(always)]
    const fn set_sequence(&mut self, seq: u32, ack: u32, flags_window: u32, data: u32) {
        self.tcp_seq = seq;
        self.tcp_ack = ack;
        self.tcp_flags = TcpFlags::of(flags_window);
        self.tcp_window = flags_window as u16;
        self.tcp_length = self.tcp_flags.sequence_length(data);
    }
}

/// Words of the L4 header, if the IP packet has them.
#[inline(always)]
fn l4_words<const N: usize, P: Packet + ?Sized>(
    packet: &P,
    headers: &Headers,
    length: u32,
) -> Option<[u32; N]> {
    if length < N as u32 * 4 {
        None
    } else {
        packet.load_words::<N>(headers.l4)
    }
}

/// RFC 9293.
#[inline(always)]
fn tcp<P: Packet + ?Sized>(packet: &P, headers: &mut Headers, length: u32) -> Result<(), Reason> {
    let [ports, seq, ack, flags_window, _] =
        l4_words::<5, P>(packet, headers, length).ok_or(Reason::MalformedTcp)?;
    let header = (flags_window >> 28) * 4;
    if header < 20 || header > length {
        return Err(Reason::MalformedTcp);
    }
    if TcpFlags::of(flags_window).is_nonsense() {
        return Err(Reason::MalformedTcpFlags);
    }
    headers.set_ports(ports);
    headers.set_sequence(seq, ack, flags_window, length - header);
    headers.tcp_header = header as u8;
    if headers.tcp_flags.has(TcpFlags::SYN) {
        headers.window_scale = window_scale(packet, headers);
    }
    Ok(())
}

/// The window scale a SYN offers (RFC 7323 §2.2); 0 when it offers none.
#[inline(always)]
fn window_scale<P: Packet + ?Sized>(packet: &P, headers: &Headers) -> u8 {
    let end = u32::from(headers.tcp_header).wrapping_sub(20);
    let Some(options) = packet.window(headers.l4 + 20, end) else {
        return 0;
    };
    packet.repeat(TcpOptions {
        packet,
        options,
        end,
        at: 0,
        read: 0,
    })
}

/// How far the options of a TCP header have been read.
struct TcpOptions<'a, P: ?Sized, O> {
    packet: &'a P,
    options: O,
    end: u32,
    /// Where the next one begins.
    at: u32,
    /// How many came before.
    read: u64,
}

impl<P: Packet + ?Sized, O: Fn(u32) -> u8> Turns for TcpOptions<'_, P, O> {
    type Result = u8;

    #[inline(always)]
    fn turn(&mut self) -> ControlFlow<u8> {
        // No SYN has more in its 40 bytes but for padding.
        const MOST: u64 = 12;
        let Self { at, end, .. } = *self;
        let (kind, mut length) = ((self.options)(at), (self.options)(at + 1));
        if at >= end || kind == 0 {
            return ControlFlow::Break(0);
        }
        if kind == 1 {
            length = 1;
        } else if at + 1 >= end || length < 2 {
            return ControlFlow::Break(0);
        } else if kind == 3 && length == 3 {
            return ControlFlow::Break(if at + 2 < end {
                (self.options)(at + 2).min(14)
            } else {
                0
            });
        }
        self.at = self.packet.forget(at + u32::from(length));
        self.read += 1;
        if self.read == MOST {
            return ControlFlow::Break(0);
        }
        ControlFlow::Continue(())
    }
}

/// Reads the packet that an ICMP error quotes: its addresses, and its ports or identifier.
///
/// Senders quote as little as 8 bytes beyond the inner IP header (RFC 792), so nothing is asked of
/// the inner packet's length.
#[inline(always)]
fn quote<P: Packet + ?Sized>(packet: &P, headers: &Headers, inner: &mut Headers) -> Option<()> {
    // Hidden from LLVM, which otherwise merges the bounds checks of several reads into comparisons of
    // another register; only Linux 6.18.44 and 7.0 follow those.
    let l3 = packet.forget(headers.l4 + 8);
    inner.end = headers.end;
    let is_v4 = headers.source.is_v4();
    if is_v4 != (headers.protocol == ICMP) {
        return None;
    }
    if is_v4 {
        let [
            version_length,
            id_fragment,
            ttl_protocol,
            source,
            destination,
        ] = packet.load_words::<5>(l3)?;
        let header = (version_length >> 24 & 0x0f) * 4;
        // A later fragment has no ports to know its flow by.
        if version_length >> 28 != 4 || header < 20 || id_fragment & 0x1fff != 0 {
            return None;
        }
        inner.source = Addr::from_v4(source.to_be_bytes());
        inner.destination = Addr::from_v4(destination.to_be_bytes());
        inner.protocol = (ttl_protocol >> 16) as u8;
        inner.l4 = l3 + header;
    } else {
        let [version, length_next] = packet.load_words::<2>(l3)?;
        if version >> 28 != 6 {
            return None;
        }
        inner.source = Addr::from_words(packet.load_words::<4>(l3 + 8)?);
        inner.destination = Addr::from_words(packet.load_words::<4>(l3 + 24)?);
        // It would be taken for a packet of IPv4.
        if inner.source.is_v4() || inner.destination.is_v4() {
            return None;
        }
        extensions(packet, inner, (length_next >> 8) as u8, l3 + 40, true).ok()?;
        if let Part::Later = inner.part {
            return None;
        }
    }
    if inner.l4 + 8 > headers.end {
        return None;
    }
    let [first, second] = packet.load_words::<2>(inner.l4)?;
    match inner.protocol {
        TCP | UDP => inner.set_ports(first),
        ICMP | ICMPV6 => inner.set_icmp(first, second),
        _ => {}
    }
    Some(())
}

/// Reads an ARP packet (RFC 826) for IPv4 over Ethernet.
#[inline(always)]
fn arp<P: Packet + ?Sized>(packet: &P, headers: &mut Headers) -> Option<Content> {
    let [0, 1, 0x08, 0x00, 6, 4, 0, 1 | 2] = packet.load::<8>(headers.l3)? else {
        return None;
    };
    #[rustfmt::skip]
    let [a, b, c, d, e, f, s3, s2, s1, s0, _, _, _, _, _, _, t3, t2, t1, t0] =
        packet.load::<20>(headers.l3 + 8)?;
    let is_own = u32::from_be_bytes([a, b, c, d]) == headers.mac
        && u16::from_be_bytes([e, f]) == headers.mac_end;
    headers.names_other_mac = u8::from(!is_own);
    headers.source = Addr::from_v4([s3, s2, s1, s0]);
    headers.destination = Addr::from_v4([t3, t2, t1, t0]);
    Some(Content::Arp)
}
