//! The packet that an ICMP error quotes.

use super::headers::{Headers, Part};
use super::ip::extensions;
use crate::addr::Addr;
use crate::packet::Packet;
use crate::protocol::{ICMP, ICMPV6, TCP, UDP};

/// Reads the packet that an ICMP error quotes: its addresses, and its ports or identifier.
///
/// Senders quote as little as 8 bytes beyond the inner IP header (RFC 792), so nothing is asked of
/// the inner packet's length.
#[inline(always)]
pub(super) fn quote<P: Packet + ?Sized>(
    packet: &P,
    headers: &Headers,
    inner: &mut Headers,
) -> Option<()> {
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
