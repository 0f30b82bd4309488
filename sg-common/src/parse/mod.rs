//! From bytes to [`Headers`]: everything later steps may know about a packet.
//!
//! The parser follows every header by its own length and refuses, with a reason, whatever it cannot
//! judge. L4 bytes are those inside the IP packet; what trails it in the frame is padding.

mod headers;
mod ip;
mod l4;
mod plain;
mod quote;

use crate::addr::Addr;
use crate::packet::{Framing, Packet};
use crate::report::Reason;

pub use headers::{Content, Headers, Part};
pub use plain::{read_plain, read_plain_v4, read_sequence_v4};

/// One VLAN tag, or two (802.1ad).
const MAX_TAGS: u32 = 2;

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
    let read = l4::l4(packet, headers);
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
    if headers.part == Part::Whole && quote::quote(packet, headers, quoted).is_some() {
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
            ip::ipv4(packet, headers)?;
            Ok(Content::Ip)
        }
        0x86dd => {
            ip::ipv6(packet, headers)?;
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
