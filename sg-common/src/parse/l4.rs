//! TCP, UDP, ICMP and IGMP: ports, sequence numbers, types and codes.

use core::ops::ControlFlow;

use super::headers::{Headers, Part};
use crate::addr::Addr;
use crate::packet::{Packet, Turns};
use crate::protocol::{ICMP, ICMPV6, IGMP, TCP, TcpFlags, UDP};
use crate::report::Reason;

/// Reads the L4 header of whole packets and first fragments.
#[inline(always)]
pub(super) fn l4<P: Packet + ?Sized>(packet: &P, headers: &mut Headers) -> Result<(), Reason> {
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
