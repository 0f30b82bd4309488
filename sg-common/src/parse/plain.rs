//! The short way from bytes to headers, for the shape nearly every packet has: Ethernet, IP without
//! options or extensions, and TCP or UDP, all of it in the frame's linear part.
//!
//! It refuses nothing. What is not plain, or not sound, has no answer here, and [`parse`](super) says
//! what it is.

use super::headers::{Content, Headers, Part};
use crate::addr::Addr;
use crate::packet::Packet;
use crate::protocol::{TCP, TcpFlags, UDP};

/// Reads a plain packet's headers: those that a flow and its service are known by, and what TCP says
/// of its sequence. Other fields are left as they are.
#[inline(always)]
pub fn read_plain<P: Packet + ?Sized>(packet: &P, headers: &mut Headers) -> Option<()> {
    if packet.tags_beside() != 0 {
        return None;
    }
    // The first word is the end of the source address and the EtherType, so that every later one
    // begins where a field of the IP header does.
    let [link] = packet.linear_words::<1>(10)?;
    match link & 0xffff {
        0x0800 => ipv4(packet, headers)?,
        0x86dd => ipv6(packet, headers)?,
        _ => return None,
    }
    if headers.source.is_impossible_source() || headers.source == headers.destination {
        return None;
    }
    headers.ethertype = link as u16;
    (headers.icmp_type, headers.icmp_code) = (0, 0);
    headers.content = Content::Ip;
    headers.part = Part::Whole;
    headers.bytes = packet.length();
    if headers.end > headers.bytes {
        return None;
    }
    l4(packet, headers)
}

#[inline(always)]
fn ipv4<P: Packet + ?Sized>(packet: &P, headers: &mut Headers) -> Option<()> {
    let [
        version_length,
        id_fragment,
        ttl_protocol,
        source,
        destination,
    ] = packet.linear_words::<5>(14)?;
    // Version 4 with a header of 20 bytes, neither more fragments nor an offset.
    if version_length >> 24 != 0x45 || id_fragment & 0x3fff != 0 {
        return None;
    }
    headers.protocol = (ttl_protocol >> 16) as u8;
    headers.source = Addr::from_v4(source.to_be_bytes());
    headers.destination = Addr::from_v4(destination.to_be_bytes());
    headers.l4 = 34;
    headers.end = 14 + (version_length & 0xffff);
    Some(())
}

#[inline(always)]
fn ipv6<P: Packet + ?Sized>(packet: &P, headers: &mut Headers) -> Option<()> {
    #[rustfmt::skip]
    let [version, length_next, s0, s1, s2, s3, d0, d1, d2, d3] = packet.linear_words::<10>(14)?;
    if version >> 28 != 6 {
        return None;
    }
    headers.protocol = (length_next >> 8) as u8;
    headers.source = Addr::from_words([s0, s1, s2, s3]);
    headers.destination = Addr::from_words([d0, d1, d2, d3]);
    // A mapped address would be taken for IPv4.
    if headers.source.is_v4() || headers.destination.is_v4() {
        return None;
    }
    headers.l4 = 54;
    headers.end = 54 + (length_next >> 16);
    Some(())
}

#[inline(always)]
fn l4<P: Packet + ?Sized>(packet: &P, headers: &mut Headers) -> Option<()> {
    let length = headers.end.checked_sub(headers.l4)?;
    match headers.protocol {
        TCP => {
            let [ports, seq, ack, flags_window, _] = packet.linear_words::<5>(headers.l4)?;
            let header = (flags_window >> 28) * 4;
            if header < 20 || header > length || TcpFlags::of(flags_window).is_nonsense() {
                return None;
            }
            headers.set_ports(ports);
            headers.set_sequence(seq, ack, flags_window, length - header);
            headers.packets = packet.segments(headers.l4 + header);
        }
        UDP => {
            let [ports, length_checksum] = packet.linear_words::<2>(headers.l4)?;
            let claimed = length_checksum >> 16;
            if claimed < 8 || claimed > length {
                return None;
            }
            headers.set_ports(ports);
            headers.packets = packet.segments(headers.l4 + 8);
        }
        _ => return None,
    }
    Some(())
}

/// Reads a plain packet of UDP over IPv4, or one of TCP that is a SYN or in the midst of its connection,
/// if the kernel has counted its packets. What [`read_plain`] leaves as it is, is zero; so are the number
/// of packets, the sequence, and all TCP flags but SYN and ACK.
#[inline(always)]
pub fn read_plain_v4<P: Packet + ?Sized>(packet: &P) -> Option<Headers> {
    #[rustfmt::skip]
    let [link, version_length, id_fragment, ttl_protocol, source, destination, ports, length_checksum] =
        packet.linear_words::<8>(10)?;
    let total = version_length & 0xffff;
    let is_sound = link & 0xffff == 0x0800
        && version_length >> 24 == 0x45
        && id_fragment & 0x3fff == 0
        && 14 + total <= packet.length()
        && source != destination
        && packet.tags_beside() == 0
        && packet.counted_segments().is_some();
    let mut headers = Headers {
        source: Addr::from_v4(source.to_be_bytes()),
        destination: Addr::from_v4(destination.to_be_bytes()),
        protocol: (ttl_protocol >> 16) as u8,
        l4: 34,
        end: 14 + total,
        ethertype: 0x0800,
        content: Content::Ip,
        bytes: packet.length(),
        ..Headers::default()
    };
    if !is_sound || headers.source.is_impossible_source() {
        return None;
    }
    headers.set_ports(ports);
    match headers.protocol {
        TCP => {
            let [_, flags_window, _] = packet.linear_words::<3>(42)?;
            let header = (flags_window >> 28) * 4;
            if header < 20 || total < 20 + header {
                return None;
            }
            let flags = TcpFlags::of(flags_window);
            if flags.is_plain_syn() {
                headers.tcp_flags = TcpFlags::SYN;
            } else if flags.is_plain_ack() {
                headers.tcp_flags = TcpFlags::ACK;
            } else {
                return None;
            }
        }
        UDP => {
            let claimed = length_checksum >> 16;
            if claimed < 8 || total < 20 + claimed {
                return None;
            }
        }
        _ => return None,
    }
    Some(headers)
}

/// Reads the sequence of a segment in the midst of its connection that [`read_plain_v4`] has read.
#[inline(always)]
pub fn read_sequence_v4<P: Packet + ?Sized>(packet: &P, headers: &mut Headers) -> Option<()> {
    let [version_length, _, _, _, _, _, seq, ack, flags_window] = packet.linear_words::<9>(14)?;
    let header = (flags_window >> 28) * 4;
    headers.tcp_seq = seq;
    headers.tcp_ack = ack;
    headers.tcp_window = flags_window as u16;
    headers.tcp_length = (version_length & 0xffff).wrapping_sub(20 + header);
    Some(())
}
