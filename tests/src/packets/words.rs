//! Packets in words, so that a test or a table of cases reads as an example.
//!
//! ```text
//! tcp 198.51.100.7:40000 > 10.0.0.10:22 syn
//! tcp [2001:db8::1]:40000 > [2001:db8::10]:22 syn ack seq 7 vlan 5
//! udp 192.0.2.1:53 > 10.0.0.10:4000 payload 512 fragment 7@0+
//! icmp echo 192.0.2.1 > 10.0.0.10 id 7
//! icmp 3/4 192.0.2.1 > 10.0.0.10 mtu 1400 about tcp 10.0.0.10:80 > 198.51.100.7:40000 ack
//! icmpv6 packet-too-big 2001:db8::1 > 2001:db8::10 mtu 1280 about udp ...
//! proto 47 192.0.2.1 > 10.0.0.10
//! arp who-has 10.0.0.10 tell 10.0.0.1
//! arp 10.0.0.10 is-at 02:00:00:00:00:09 tell 10.0.0.1
//! ethertype 0x88cc payload 40
//! ```
//!
//! After the addresses, in any order; a number may be written `0x1f`:
//!
//! | words | meaning |
//! |---|---|
//! | `syn` `ack` `fin` `rst` `psh` `urg`, `flags N` | TCP flags; a TCP packet has to name at least one of them |
//! | `seq N` `ackno N` `window N` `data-offset N` `tcp-options HEX` | other TCP fields |
//! | `udp-length N` | UDP's own length |
//! | `id N` `mtu N` `rest N` | ICMP: the echo identifier, the MTU, all four bytes after the checksum |
//! | `about PACKET` | ICMP errors: what they quote; takes the rest of the line |
//! | `payload N`, `payload 0xHEX` | N bytes of `x`; these bytes (a number has no `0x` here) |
//! | `ttl N` `tos N` `ip-id N` `df` | IP fields |
//! | `fragment ID@OFFSET`, `fragment ID@OFFSET+` | the last, another part of packet ID, OFFSET in bytes |
//! | `options HEX` `ihl N` `length N` `version N` `protocol N` | fields that may lie |
//! | `checksum N` `header-checksum N` | checksums that may be wrong |
//! | `hop-by-hop` `destination-options` `routing TYPE/LEFT` `authentication` `fragment-header ID@OFFSET+` | IPv6 extension headers, in order |
//! | `extension NUMBER HEX` | any extension header; its first byte is filled in |
//! | `claiming N` | the extension header before it says that it is this long |
//! | `vlan ID` `qinq OUTER/INNER` `ethertype N` `from-mac MAC` `to-mac MAC` | Ethernet |
//! | `trailer N` `cut N` | N zeros after the packet; only the first N bytes of the frame |

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::{FromStr, SplitWhitespace};

use anyhow::{Context, Result, bail, ensure};

use super::ethernet::{self, Ethernet};
use super::{Extension, Fragment, Packet, flags};

/// The frame that the words describe.
pub fn frame(text: &str) -> Result<Vec<u8>> {
    let mut words = Words::of(text);
    let frame = match words.peek() {
        Some("arp") => words.arp(),
        Some("ethertype") => words.other_ethertype(),
        _ => words.packet().map(|packet| packet.frame()),
    };
    frame.with_context(|| format!("in `{text}`"))
}

/// The packet that the words describe; only IP ones are packets.
pub fn packet(text: &str) -> Result<Packet> {
    Words::of(text)
        .packet()
        .with_context(|| format!("in `{text}`"))
}

struct Words<'text> {
    left: SplitWhitespace<'text>,
}

impl<'text> Words<'text> {
    fn of(text: &'text str) -> Self {
        Self {
            left: text.split_whitespace(),
        }
    }

    fn peek(&self) -> Option<&'text str> {
        self.left.clone().next()
    }

    fn next(&mut self, wanted: &str) -> Result<&'text str> {
        self.left
            .next()
            .with_context(|| format!("{wanted} is missing at the end"))
    }

    fn parsed<T: FromStr>(&mut self, wanted: &str) -> Result<T> {
        let word = self.next(wanted)?;
        word.parse()
            .ok()
            .with_context(|| format!("`{word}` is no {wanted}"))
    }

    fn expect(&mut self, wanted: &str) -> Result<()> {
        let word = self.next(wanted)?;
        ensure!(word == wanted, "`{word}` where `{wanted}` should be");
        Ok(())
    }

    fn number<N: TryFrom<u64>>(&mut self, wanted: &str) -> Result<N> {
        number(self.next(wanted)?, wanted)
    }

    fn bytes(&mut self, wanted: &str) -> Result<Vec<u8>> {
        hexadecimal(self.next(wanted)?)
    }

    fn end(&mut self) -> Result<()> {
        match self.left.next() {
            Some(word) => bail!("`{word}` is not understood"),
            None => Ok(()),
        }
    }

    fn between<T: FromStr>(&mut self, wanted: &str) -> Result<(T, T)> {
        let source = self.parsed(wanted)?;
        self.expect(">")?;
        Ok((source, self.parsed(wanted)?))
    }

    fn packet(&mut self) -> Result<Packet> {
        const ENDPOINT: &str = "endpoint (10.0.0.1:80 or [2001:db8::1]:80)";
        let kind = self.next("a protocol")?;
        let packet = match kind {
            "tcp" => {
                let (source, destination) = self.between::<SocketAddr>(ENDPOINT)?;
                same_family(source.ip(), destination.ip())?;
                Packet::tcp(source, destination)
            }
            "udp" => {
                let (source, destination) = self.between::<SocketAddr>(ENDPOINT)?;
                same_family(source.ip(), destination.ip())?;
                Packet::udp(source, destination)
            }
            "icmp" | "icmpv6" => {
                let (number, code) = icmp_message(kind, self.next("an ICMP message")?)?;
                let (source, destination) = self.between::<IpAddr>("address")?;
                same_family(source, destination)?;
                match kind {
                    "icmp" => Packet::icmp(source, destination, number, code),
                    _ => Packet::icmpv6(source, destination, number, code),
                }
            }
            "proto" => {
                let number = self.number("protocol number")?;
                let (source, destination) = self.between::<IpAddr>("address")?;
                same_family(source, destination)?;
                Packet::raw(source, destination, number)
            }
            _ => bail!("`{kind}` is none of tcp, udp, icmp, icmpv6, proto, arp, ethertype"),
        };
        self.attributes(packet, kind)
    }

    fn attributes(&mut self, mut packet: Packet, kind: &str) -> Result<Packet> {
        let mut has_flags = false;
        while let Some(word) = self.left.next() {
            if let Some(flag) = tcp_flag(word) {
                ensure!(kind == "tcp", "`{word}` is a TCP flag");
                has_flags = true;
                packet = packet.add_flags(flag);
                continue;
            }
            packet = match word {
                "flags" => {
                    has_flags = true;
                    packet.flags(self.number("TCP flags")?)
                }
                "seq" => packet.sequence(self.number("sequence number")?),
                "ackno" => packet.acknowledgment(self.number("acknowledgment number")?),
                "window" => packet.window(self.number("window")?),
                "data-offset" => packet.data_offset(self.number("data offset")?),
                "tcp-options" => packet.tcp_options(&self.bytes("options")?),
                "udp-length" => packet.udp_length(self.number("length")?),
                "id" => packet.echo_identifier(self.number("identifier")?),
                "mtu" | "rest" => {
                    packet.rest_of_header(self.number::<u32>("four bytes")?.to_be_bytes())
                }
                "about" => packet.about(&self.packet()?),
                "payload" => packet.payload(&payload(self.next("payload")?)?),
                "ttl" => packet.hop_limit(self.number("hop limit")?),
                "tos" => packet.traffic_class(self.number("traffic class")?),
                "ip-id" => packet.identification(self.number("identification")?),
                "df" => packet.dont_fragment(),
                "fragment" => packet.fragment(fragment(self.next("fragment")?)?),
                "options" => packet.options(&self.bytes("options")?),
                "ihl" => packet.ihl(self.number("header length")?),
                "length" => packet.length(self.number("length")?),
                "version" => packet.version(self.number("IP version")?),
                "protocol" => packet.protocol(self.number("protocol")?),
                "checksum" => packet.checksum(self.number("checksum")?),
                "header-checksum" => packet.header_checksum(self.number("checksum")?),
                "vlan" => packet.vlan(self.number("VLAN")?),
                "qinq" => {
                    let (outer, inner) = pair(self.next("VLANs")?, "VLANs like 7/5")?;
                    packet.service_vlan(outer).vlan(inner)
                }
                "ethertype" => packet.ethertype(self.number("EtherType")?),
                "to-mac" => packet.to_mac(mac(self.next("MAC address")?)?),
                "from-mac" => packet.from_mac(mac(self.next("MAC address")?)?),
                "trailer" => packet.trailer(&vec![0; self.number("number of bytes")?]),
                "cut" => packet.cut_to(self.number("number of bytes")?),
                _ => match self.extension(word)? {
                    Some(extension) => packet.extension(extension),
                    None => bail!("`{word}` is not understood"),
                },
            };
        }
        ensure!(
            kind != "tcp" || has_flags,
            "a tcp packet needs its flags: syn, ack, … or `flags 0` for none"
        );
        Ok(packet)
    }

    fn extension(&mut self, word: &str) -> Result<Option<Extension>> {
        let extension = match word {
            "hop-by-hop" => Extension::hop_by_hop(&[]),
            "destination-options" => Extension::destination(&[]),
            "authentication" => Extension::authentication(),
            "fragment-header" => Extension::fragment(fragment(self.next("fragment")?)?),
            "routing" => {
                let (kind, left) = pair(self.next("type/left")?, "type and segments left, 0/1")?;
                Extension::routing(kind, left)
            }
            "extension" => Extension::raw(self.number("number")?, &self.bytes("header")?),
            _ => return Ok(None),
        };
        if self.peek() == Some("claiming") {
            self.expect("claiming")?;
            return Ok(Some(extension.claiming(self.number("length")?)));
        }
        Ok(Some(extension))
    }

    fn arp(&mut self) -> Result<Vec<u8>> {
        self.expect("arp")?;
        let header = Ethernet::default();
        let subject = self.next("who-has or an address")?;
        let frame = if subject == "who-has" {
            let wanted = self.parsed::<Ipv4Addr>("IPv4 address")?;
            self.expect("tell")?;
            header.arp_request(self.parsed("IPv4 address")?, wanted)
        } else {
            let owned = subject
                .parse()
                .with_context(|| format!("`{subject}`, an IPv4 address"))?;
            self.expect("is-at")?;
            let source = mac(self.next("MAC address")?)?;
            self.expect("tell")?;
            Ethernet { source, ..header }.arp_reply(owned, self.parsed("IPv4 address")?)
        };
        self.end()?;
        Ok(frame)
    }

    fn other_ethertype(&mut self) -> Result<Vec<u8>> {
        self.expect("ethertype")?;
        let ethertype = self.number("EtherType")?;
        let mut header = Ethernet::default();
        let mut content = Vec::new();
        while let Some(word) = self.left.next() {
            match word {
                "payload" => content = payload(self.next("payload")?)?,
                "vlan" => header.tags.push((ethernet::VLAN, self.number("VLAN")?)),
                "to-mac" => header.destination = mac(self.next("MAC address")?)?,
                "from-mac" => header.source = mac(self.next("MAC address")?)?,
                _ => bail!("`{word}` is not understood"),
            }
        }
        Ok(header.frame(ethertype, &content))
    }
}

fn same_family(source: IpAddr, destination: IpAddr) -> Result<()> {
    let same = source.is_ipv4() == destination.is_ipv4();
    ensure!(same, "{source} and {destination} are not of one family");
    Ok(())
}

fn tcp_flag(word: &str) -> Option<u8> {
    Some(match word {
        "fin" => flags::FIN,
        "syn" => flags::SYN,
        "rst" => flags::RST,
        "psh" => flags::PSH,
        "ack" => flags::ACK,
        "urg" => flags::URG,
        _ => return None,
    })
}

/// RFC 792 and RFC 4443, by their names or as `type`, `type/code`.
fn icmp_message(protocol: &str, word: &str) -> Result<(u8, u8)> {
    if word.starts_with(|c: char| c.is_ascii_digit()) {
        return match word.contains('/') {
            true => pair(word, "type and code, 3/4"),
            false => Ok((number(word, "type")?, 0)),
        };
    }
    Ok(match (protocol, word) {
        ("icmp", "echo") => (8, 0),
        ("icmp", "reply") => (0, 0),
        ("icmp", "unreachable") => (3, 3),
        ("icmp", "fragmentation-needed") => (3, 4),
        ("icmp", "time-exceeded") => (11, 0),
        ("icmp", "parameter-problem") => (12, 0),
        ("icmpv6", "unreachable") => (1, 4),
        ("icmpv6", "packet-too-big") => (2, 0),
        ("icmpv6", "time-exceeded") => (3, 0),
        ("icmpv6", "parameter-problem") => (4, 0),
        ("icmpv6", "echo") => (128, 0),
        ("icmpv6", "reply") => (129, 0),
        _ => bail!("`{word}` is no {protocol} message; its type/code, as in 3/4, always works"),
    })
}

fn number<N: TryFrom<u64>>(word: &str, wanted: &str) -> Result<N> {
    let value = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    let value = value.ok().and_then(|value| N::try_from(value).ok());
    value.with_context(|| format!("`{word}` is no {wanted}, or too large for one"))
}

fn pair<N: TryFrom<u64>>(word: &str, wanted: &str) -> Result<(N, N)> {
    let (first, second) = word
        .split_once('/')
        .with_context(|| format!("`{word}` is not {wanted}"))?;
    Ok((number(first, wanted)?, number(second, wanted)?))
}

fn hexadecimal(word: &str) -> Result<Vec<u8>> {
    let digits = word.strip_prefix("0x").unwrap_or(word);
    ensure!(digits.len().is_multiple_of(2), "`{word}` has half a byte");
    digits
        .as_bytes()
        .chunks(2)
        .map(|byte| {
            let byte = str::from_utf8(byte)
                .ok()
                .and_then(|b| u8::from_str_radix(b, 16).ok());
            byte.with_context(|| format!("`{word}` is not hexadecimal"))
        })
        .collect()
}

fn payload(word: &str) -> Result<Vec<u8>> {
    match word.starts_with("0x") {
        true => hexadecimal(word),
        false => Ok(vec![b'x'; number::<u16>(word, "number of bytes")?.into()]),
    }
}

fn fragment(word: &str) -> Result<Fragment> {
    let wanted = "fragment like 7@1480, or 7@1480+ when more follow";
    let (identification, place) = word
        .split_once('@')
        .with_context(|| format!("`{word}` is no {wanted}"))?;
    let (offset, more) = match place.strip_suffix('+') {
        Some(offset) => (offset, true),
        None => (place, false),
    };
    let offset: u16 = number(offset, wanted)?;
    ensure!(
        offset.is_multiple_of(8),
        "`{word}`: an offset is a multiple of 8"
    );
    Ok(Fragment {
        identification: number(identification, wanted)?,
        offset,
        more,
    })
}

fn mac(word: &str) -> Result<[u8; 6]> {
    let bytes: Option<Vec<u8>> = word
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.with_context(|| format!("`{word}` is no MAC address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &str, expected: &str) {
        let frame = frame(words).unwrap_or_else(|error| panic!("{error:#}"));
        let shown: String = frame[12..]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(shown, expected.replace(char::is_whitespace, ""), "{words}");
    }

    #[test]
    fn words_become_bytes() {
        check(
            "tcp 198.51.100.7:40000 > 10.0.0.10:22 syn",
            "0800 4500002800010000 4006468b c6336407 0a00000a
             9c400016 000003e8 00000000 5002faf0 e06e0000",
        );
        check(
            "icmp echo 192.0.2.1 > 10.0.0.10 id 7",
            "0800 4500001c00010000 4001aed5 c0000201 0a00000a 0800f7f8 00070000",
        );
        check(
            "udp [2001:db8::1]:53 > [2001:db8::10]:4000 qinq 7/5 cut 26",
            "88a80007 81000005 86dd 60000000",
        );
        check(
            "proto 47 10.0.0.1 > 10.0.0.2 payload 0xbeef header-checksum 0 fragment 7@16+",
            "0800 45000016 00072002 402f0000 0a000001 0a000002 beef",
        );
        check("ethertype 0x88cc payload 2", "88cc 7878");
    }

    #[test]
    fn an_error_quotes_the_packet_in_the_rest_of_the_line() {
        let words = "tcp 10.0.0.10:80 > 198.51.100.7:40000 ack df";
        let error = packet(&format!(
            "icmp 3/4 192.0.2.1 > 10.0.0.10 mtu 1400 about {words}"
        ));
        let bytes = error.unwrap().ip_bytes();
        assert_eq!(bytes[20..22], [3, 4]);
        assert_eq!(bytes[24..28], [0, 0, 5, 120]);
        assert_eq!(bytes[28..], packet(words).unwrap().ip_bytes());
    }

    #[test]
    fn extension_headers_come_in_the_order_of_the_words() {
        let words = "udp [2001:db8::1]:1 > [2001:db8::2]:2 hop-by-hop routing 0/1 claiming 9";
        let bytes = packet(words).unwrap().ip_bytes();
        assert_eq!((bytes[6], bytes[40], bytes[48], bytes[49]), (0, 43, 17, 9));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, wanted) in [
            ("tcp 10.0.0.1:1 > 10.0.0.2:2", "needs its flags"),
            ("tcp 10.0.0.1 > 10.0.0.2:2 syn", "`10.0.0.1` is no endpoint"),
            ("udp 10.0.0.1:1 > [2001:db8::1]:2", "not of one family"),
            ("udp 10.0.0.1:1 > 10.0.0.2:2 syn", "`syn` is a TCP flag"),
            (
                "udp 10.0.0.1:1 > 10.0.0.2:2 vlan 70000",
                "`70000` is no VLAN",
            ),
            (
                "icmp nonsense 10.0.0.1 > 10.0.0.2",
                "`nonsense` is no icmp message",
            ),
            ("sctp 10.0.0.1 > 10.0.0.2", "none of tcp, udp"),
            ("arp who-has 10.0.0.1 tell", "IPv4 address is missing"),
        ] {
            let error = format!("{:#}", frame(words).unwrap_err());
            assert!(error.contains(wanted) && error.contains(words), "{error}");
        }
    }
}
