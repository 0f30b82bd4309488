//! Any bytes as a frame: what is read of them.

use anyhow::{Context as _, Result, ensure};
use sg_common::decide::Scratch;
use sg_common::packet::Framing;
use sg_common::parse::{Content, Headers, Part, read_plain, read_plain_v4, read_sequence_v4};
use sg_common::protocol::{ICMP, ICMPV6, IcmpRole, TCP, TcpFlags, UDP};
use sg_common::report::{Reason, Verdict};

use crate::corpus::Corpus;
use crate::specification::naive::{self, Ip};

pub(super) fn seeds(corpus: &Corpus) -> Result<Vec<Vec<u8>>> {
    let packets = corpus.cases().flat_map(|(_, case)| case.packets());
    Ok(packets.map(|packet| packet.frame.clone()).collect())
}

pub(super) fn hold(frame: &[u8]) -> Result<()> {
    for framing in [Framing::Ethernet, Framing::Bare] {
        let mut read_here = Read::of(frame, framing);
        read_here.is_sound(frame, framing)?;
        if read_here.headers.content == Content::Ip {
            read_here.is_what_a_naive_reader_finds(frame, framing)?;
            let end = read_here.headers.end as usize;
            let mut without_padding =
                Read::of(frame.get(..end).context("it ends outside")?, framing);
            // All that may depend on padding is how much there is to count.
            without_padding.headers.bytes = 0;
            read_here.headers.bytes = 0;
            ensure!(
                without_padding == read_here,
                "padding is read: {read_here:?}"
            );
        }
    }
    plain(frame)
}

/// What the long way reads.
#[derive(Debug, PartialEq)]
struct Read {
    headers: Headers,
    quoted: Headers,
    reason: Reason,
}

impl Read {
    fn of(frame: &[u8], framing: Framing) -> Self {
        // What is left there by packets before must not matter.
        let mut scratch = Scratch::default();
        scratch.headers.tcp_seq = 7;
        scratch.headers.content = Content::Arp;
        let reason = scratch.read(frame, framing);
        let Scratch {
            headers,
            other: mut quoted,
            ..
        } = scratch;
        if quoted.content != Content::Ip {
            // What is left of a quote that cannot be read is nobody's to look at.
            quoted = Headers::default();
        }
        Self {
            headers,
            quoted,
            reason,
        }
    }

    fn is_sound(&self, frame: &[u8], framing: Framing) -> Result<()> {
        let Self {
            headers,
            quoted,
            reason,
        } = self;
        let refused = headers.content == Content::Refused;
        ensure!(
            refused == (*reason != Reason::NoRule) && reason.verdict() == Verdict::Drop,
            "{:?} is read, for {reason:?}",
            headers.content
        );
        ensure!(headers.bytes as usize >= frame.len() && headers.packets == 1);
        ensure!(
            quoted.content != Content::Ip
                || (headers.icmp_role() == IcmpRole::Error && headers.part == Part::Whole),
            "only a whole ICMP error quotes"
        );
        if headers.content != Content::Ip {
            return Ok(());
        }
        let link = match framing {
            Framing::Ethernet => 14,
            Framing::Bare => 0,
        };
        ensure!(
            link <= headers.l3 && headers.l3 + 20 <= headers.l4 && headers.l4 <= headers.end,
            "headers lie in each other: {headers:?}"
        );
        ensure!(headers.end as usize <= frame.len(), "it ends outside");
        ensure!(
            headers.source != headers.destination && !headers.source.is_impossible_source(),
            "nobody sends from there: {headers:?}"
        );
        ensure!(
            headers.source.family() == headers.destination.family(),
            "of two families: {headers:?}"
        );
        let has_l4 = headers.part != Part::Later;
        ensure!(
            has_l4 || (headers.source_port, headers.destination_port) == (0, 0),
            "a later fragment with ports: {headers:?}"
        );
        let room = headers.end - headers.l4;
        let needed = match headers.protocol {
            TCP if has_l4 => u32::from(headers.tcp_header).max(20),
            UDP | ICMP | ICMPV6 if has_l4 => 8,
            _ => 0,
        };
        ensure!(needed <= room, "its L4 header is cut off: {headers:?}");
        ensure!(headers.window_scale <= 14, "RFC 7323 has no such scale");
        Ok(())
    }

    fn is_what_a_naive_reader_finds(&self, frame: &[u8], framing: Framing) -> Result<()> {
        let bare = matches!(framing, Framing::Bare);
        let ip = naive::link(frame, bare).and_then(|link| naive::ip(&link, false));
        let ip = ip.context("no IP packet to the naive reader")?;
        same(&self.headers, &ip)?;
        let headers = &self.headers;
        ensure!(
            ip.l4.len() == (headers.end - headers.l4) as usize && ip.hop_limit == headers.hop_limit,
            "{headers:?} is not {ip:?}"
        );
        let part = match ip.fragment {
            None => Part::Whole,
            Some(fragment) if fragment.offset == 0 => Part::First,
            Some(_) => Part::Later,
        };
        ensure!(headers.part == part, "{headers:?} is not {ip:?}");
        if let Some(fragment) = ip.fragment {
            ensure!(
                headers.fragment_id == fragment.id
                    && headers.fragment_offset as usize == fragment.offset
                    && headers.fragment_protocol == fragment.protocol,
                "{headers:?} is not {ip:?}"
            );
        }
        if self.quoted.content == Content::Ip {
            let quoted = ip.quoted().context("nothing quoted to the naive reader")?;
            same(&self.quoted, &quoted).context("quoted")?;
        }
        Ok(())
    }
}

/// Addresses, protocol and ports are what the naive reader finds.
fn same(headers: &Headers, ip: &Ip) -> Result<()> {
    let ends = (headers.source.to_ip(), headers.destination.to_ip());
    ensure!(
        ends == (ip.source, ip.destination) && headers.protocol == ip.protocol,
        "{headers:?} is not {ip:?}"
    );
    if !ip.is_later_fragment() {
        let ports = (headers.source_port, headers.destination_port);
        ensure!(Some(ports) == ip.ports(), "{headers:?} is not {ip:?}");
    }
    Ok(())
}

/// What the short ways read is what the long way reads.
fn plain(frame: &[u8]) -> Result<()> {
    let long = Read::of(frame, Framing::Ethernet).headers;
    let mut expected = long;
    let mut short = Headers {
        icmp_type: 9,
        tcp_seq: 7,
        ..Headers::default()
    };
    if read_plain(frame, &mut short).is_some() {
        // What the short way leaves as it was.
        for field in [
            |h: &mut Headers| h.l3 = 0,
            |h: &mut Headers| h.hop_limit = 0,
            |h: &mut Headers| h.tcp_header = 0,
            |h: &mut Headers| h.window_scale = 0,
            |h: &mut Headers| (h.mac, h.mac_end) = (0, 0),
            |h: &mut Headers| (h.fragment_id, h.fragment_protocol, h.fragment_start) = (0, 0, 0),
        ] {
            field(&mut expected);
        }
        if short.protocol != TCP {
            expected.tcp_seq = 7;
        }
        ensure!(short == expected, "short: {short:?}\nlong: {expected:?}");
    }
    if let Some(mut short) = read_plain_v4(frame) {
        ensure!(long.source.is_v4(), "no IPv4: {long:?}");
        expected.tcp_flags = TcpFlags(long.tcp_flags.0 & 0x17);
        if long.protocol == TCP && expected.tcp_flags == TcpFlags::SYN {
            (expected.tcp_seq, expected.tcp_ack) = (0, 0);
            (expected.tcp_window, expected.tcp_length) = (0, 0);
        } else if long.protocol == TCP {
            let flags = expected.tcp_flags;
            ensure!(flags == TcpFlags::ACK, "no bare ACK: {long:?}");
            read_sequence_v4(frame, &mut short).context("no sequence")?;
        } else {
            expected.tcp_seq = 0;
        }
        expected.packets = 0;
        ensure!(short == expected, "short: {short:?}\nlong: {expected:?}");
    }
    Ok(())
}
