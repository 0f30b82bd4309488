//! IPv4 and IPv6: addresses, lengths, fragments, and the chain of extension headers.

use core::ops::ControlFlow;

use network_types::ip::IpProto;

use super::headers::{Headers, Part};
use crate::addr::Addr;
use crate::packet::{Packet, Turns};
use crate::protocol::TCP;
use crate::report::Reason;

const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
const ROUTING: u8 = IpProto::Ipv6Route as u8;
const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
const AUTHENTICATION: u8 = IpProto::Ah as u8;
const NO_NEXT_HEADER: u8 = IpProto::Ipv6NoNxt as u8;
const DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;

/// More extension headers than any sender needs (RFC 8504 §5.3 lets a node limit them).
const MAX_EXTENSIONS: u64 = 8;

/// RFC 791.
#[inline(always)]
pub(super) fn ipv4<P: Packet + ?Sized>(packet: &P, headers: &mut Headers) -> Result<(), Reason> {
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
pub(super) fn ipv6<P: Packet + ?Sized>(packet: &P, headers: &mut Headers) -> Result<(), Reason> {
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
pub(super) fn extensions<P: Packet + ?Sized>(
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
