//! Packets of any shape as bytes: right by default, and wrong wherever a test asks for it.
//!
//! [`Packet`] is an IP packet that is put together only when its bytes are asked for, so that every
//! length, checksum and next-header value follows from what it holds unless it was given another.
//! Libraries that build packets refuse to build broken ones, and broken ones are what a firewall
//! has to be shown. Nothing here knows sg, and nothing here parses.

pub mod control;
pub mod ethernet;
pub mod words;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

pub use ethernet::Ethernet;

/// TCP flags, as in the header's byte 13.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 2;
    /// Reset.
    pub const RST: u8 = 4;
    /// Push.
    pub const PSH: u8 = 8;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 16;
    /// The urgent pointer counts.
    pub const URG: u8 = 32;
}

/// Protocol numbers, which are next-header values too.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// GRE.
    pub const GRE: u8 = 47;
    /// ESP.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// Nothing follows.
    pub const NO_NEXT_HEADER: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}

/// An IP packet and the Ethernet header in front of it.
///
/// Methods that speak of one family do nothing for the other.
#[derive(Clone, Debug)]
pub struct Packet {
    ethernet: Ethernet,
    ethertype: Option<u16>,
    source: IpAddr,
    destination: IpAddr,
    version: Option<u8>,
    traffic_class: u8,
    hop_limit: u8,
    identification: u16,
    dont_fragment: bool,
    fragment: Option<Fragment>,
    options: Vec<u8>,
    ihl: Option<u8>,
    length: Option<u16>,
    header_checksum: Option<u16>,
    extensions: Vec<Extension>,
    protocol: Option<u8>,
    transport: Transport,
    checksum: Option<u16>,
    payload: Vec<u8>,
    trailer: Vec<u8>,
    keep: Option<usize>,
}

/// Which part of a whole packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Names the whole; IPv4 keeps the lower half.
    pub identification: u32,
    /// In bytes, a multiple of eight.
    pub offset: u16,
    /// Whether another one follows.
    pub more: bool,
}

/// What follows the IP header and its extensions, without the payload.
#[derive(Clone, Debug)]
enum Transport {
    Tcp(Tcp),
    Udp {
        source: u16,
        destination: u16,
        length: Option<u16>,
    },
    Icmp {
        protocol: u8,
        kind: u8,
        code: u8,
        rest: [u8; 4],
    },
    Raw {
        protocol: u8,
    },
}

#[derive(Clone, Debug)]
struct Tcp {
    source: u16,
    destination: u16,
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
    window: u16,
    options: Vec<u8>,
    data_offset: Option<u8>,
}

/// An IPv6 extension header. Its first byte, the next header, is filled in.
#[derive(Clone, Debug)]
pub struct Extension {
    number: u8,
    bytes: Vec<u8>,
}

impl Extension {
    /// Any number with any bytes; the first of them is overwritten with the next header.
    pub fn raw(number: u8, bytes: &[u8]) -> Self {
        Self {
            number,
            bytes: bytes.to_vec(),
        }
    }

    /// Hop-by-hop options, padded to a multiple of eight bytes.
    pub fn hop_by_hop(options: &[u8]) -> Self {
        Self::options(protocol::HOP_BY_HOP, options)
    }

    /// Destination options, padded to a multiple of eight bytes.
    pub fn destination(options: &[u8]) -> Self {
        Self::options(protocol::DESTINATION_OPTIONS, options)
    }

    /// A routing header of a type, with one address to go on to.
    pub fn routing(kind: u8, segments_left: u8) -> Self {
        let mut bytes = vec![0, 2, kind, segments_left, 0, 0, 0, 0];
        bytes.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77).octets());
        Self {
            number: protocol::ROUTING,
            bytes,
        }
    }

    /// A fragment header.
    pub fn fragment(fragment: Fragment) -> Self {
        let mut bytes = vec![0, 0];
        bytes.extend((fragment.offset & !7 | u16::from(fragment.more)).to_be_bytes());
        bytes.extend(fragment.identification.to_be_bytes());
        Self {
            number: protocol::FRAGMENT,
            bytes,
        }
    }

    /// An authentication header; its length counts words of four bytes, less two.
    pub fn authentication() -> Self {
        let mut bytes = vec![0; 24];
        bytes[1] = 4;
        Self {
            number: protocol::AUTHENTICATION,
            bytes,
        }
    }

    /// The same header saying that it is this long, in its own unit.
    pub fn claiming(mut self, length: u8) -> Self {
        if let Some(byte) = self.bytes.get_mut(1) {
            *byte = length;
        }
        self
    }

    fn options(number: u8, options: &[u8]) -> Self {
        let mut bytes = vec![0, 0];
        bytes.extend_from_slice(options);
        match (8 - bytes.len() % 8) % 8 {
            0 => {}
            1 => bytes.push(0),
            pad => {
                bytes.extend([1, (pad - 2) as u8]);
                bytes.resize(bytes.len() + pad - 2, 0);
            }
        }
        bytes[1] = (bytes.len() / 8 - 1) as u8;
        Self { number, bytes }
    }
}

impl Packet {
    /// A TCP segment without flags.
    pub fn tcp(source: SocketAddr, destination: SocketAddr) -> Self {
        let transport = Transport::Tcp(Tcp {
            source: source.port(),
            destination: destination.port(),
            sequence: 1_000,
            acknowledgment: 0,
            flags: 0,
            window: 64_240,
            options: Vec::new(),
            data_offset: None,
        });
        Self::new(source.ip(), destination.ip(), transport)
    }

    /// An empty UDP datagram.
    pub fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        let (from, to) = (source.port(), destination.port());
        let transport = Transport::Udp {
            source: from,
            destination: to,
            length: None,
        };
        Self::new(source.ip(), destination.ip(), transport)
    }

    /// An ICMP message (protocol 1), in whichever family.
    pub fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8) -> Self {
        let protocol = protocol::ICMP;
        Self::new(
            source,
            destination,
            Transport::Icmp {
                protocol,
                kind,
                code,
                rest: [0; 4],
            },
        )
    }

    /// An ICMPv6 message (protocol 58), in whichever family.
    pub fn icmpv6(source: IpAddr, destination: IpAddr, kind: u8, code: u8) -> Self {
        let protocol = protocol::ICMPV6;
        Self::new(
            source,
            destination,
            Transport::Icmp {
                protocol,
                kind,
                code,
                rest: [0; 4],
            },
        )
    }

    /// A packet whose payload follows the IP header at once.
    pub fn raw(source: IpAddr, destination: IpAddr, protocol: u8) -> Self {
        Self::new(source, destination, Transport::Raw { protocol })
    }

    fn new(source: IpAddr, destination: IpAddr, transport: Transport) -> Self {
        Self {
            ethernet: Ethernet::default(),
            ethertype: None,
            source,
            destination,
            version: None,
            traffic_class: 0,
            hop_limit: 64,
            identification: 1,
            dont_fragment: false,
            fragment: None,
            options: Vec::new(),
            ihl: None,
            length: None,
            header_checksum: None,
            extensions: Vec::new(),
            protocol: None,
            transport,
            checksum: None,
            payload: Vec::new(),
            trailer: Vec::new(),
            keep: None,
        }
    }

    /// The source address.
    pub fn source(&self) -> IpAddr {
        self.source
    }

    /// The same packet from another address.
    pub fn from(mut self, source: IpAddr) -> Self {
        self.source = source;
        self
    }

    /// The same packet to another address.
    pub fn to(mut self, destination: IpAddr) -> Self {
        self.destination = destination;
        self
    }

    /// Uses these MAC addresses and VLAN tags.
    pub fn ethernet(mut self, ethernet: Ethernet) -> Self {
        self.ethernet = ethernet;
        self
    }

    /// Addresses the frame to this interface.
    pub fn to_mac(mut self, destination: [u8; 6]) -> Self {
        self.ethernet.destination = destination;
        self
    }

    /// Says that the frame is from this interface.
    pub fn from_mac(mut self, source: [u8; 6]) -> Self {
        self.ethernet.source = source;
        self
    }

    /// Adds an 802.1Q tag inside of those there are.
    pub fn vlan(mut self, id: u16) -> Self {
        self.ethernet.tags.push((ethernet::VLAN, id));
        self
    }

    /// Adds an 802.1ad tag inside of those there are.
    pub fn service_vlan(mut self, id: u16) -> Self {
        self.ethernet.tags.push((ethernet::QINQ, id));
        self
    }

    /// Names the payload of the frame something else than IP.
    pub fn ethertype(mut self, ethertype: u16) -> Self {
        self.ethertype = Some(ethertype);
        self
    }

    /// Says that it is of this IP version.
    pub fn version(mut self, version: u8) -> Self {
        self.version = Some(version);
        self
    }

    /// The type-of-service or traffic-class byte.
    pub fn traffic_class(mut self, traffic_class: u8) -> Self {
        self.traffic_class = traffic_class;
        self
    }

    /// The hop limit or time to live.
    pub fn hop_limit(mut self, hop_limit: u8) -> Self {
        self.hop_limit = hop_limit;
        self
    }

    /// IPv4: the identification of a packet that is no fragment.
    pub fn identification(mut self, identification: u16) -> Self {
        self.identification = identification;
        self
    }

    /// IPv4: forbids routers to fragment it.
    pub fn dont_fragment(mut self) -> Self {
        self.dont_fragment = true;
        self
    }

    /// Says that it is a part of a whole; for IPv6 by an extension header after the others. The
    /// bytes stay as they are: [`Packet::fragments`] cuts a packet up.
    pub fn fragment(mut self, fragment: Fragment) -> Self {
        self.fragment = Some(fragment);
        self
    }

    /// IPv4: options, padded to a multiple of four bytes with end-of-options.
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self.options.resize(options.len().next_multiple_of(4), 0);
        self
    }

    /// IPv4: says that the header has so many words of four bytes.
    pub fn ihl(mut self, ihl: u8) -> Self {
        self.ihl = Some(ihl);
        self
    }

    /// Says that the packet (IPv4) or what follows its header (IPv6) is this long.
    pub fn length(mut self, length: u16) -> Self {
        self.length = Some(length);
        self
    }

    /// IPv4: this header checksum, right or wrong.
    pub fn header_checksum(mut self, checksum: u16) -> Self {
        self.header_checksum = Some(checksum);
        self
    }

    /// IPv6: adds an extension header after those there are.
    pub fn extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// Says that this protocol follows, whatever does.
    pub fn protocol(mut self, protocol: u8) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// TCP: exactly these flags.
    pub fn flags(self, flags: u8) -> Self {
        self.edit_tcp(|tcp| tcp.flags = flags)
    }

    /// TCP: these flags too.
    pub fn add_flags(self, flags: u8) -> Self {
        self.edit_tcp(|tcp| tcp.flags |= flags)
    }

    /// TCP: the sequence number.
    pub fn sequence(self, sequence: u32) -> Self {
        self.edit_tcp(|tcp| tcp.sequence = sequence)
    }

    /// TCP: the acknowledgment number.
    pub fn acknowledgment(self, acknowledgment: u32) -> Self {
        self.edit_tcp(|tcp| tcp.acknowledgment = acknowledgment)
    }

    /// TCP: the window.
    pub fn window(self, window: u16) -> Self {
        self.edit_tcp(|tcp| tcp.window = window)
    }

    /// TCP: options, padded to a multiple of four bytes with end-of-options.
    pub fn tcp_options(self, options: &[u8]) -> Self {
        self.edit_tcp(|tcp| {
            tcp.options = options.to_vec();
            tcp.options.resize(options.len().next_multiple_of(4), 0);
        })
    }

    /// TCP: says that the header has so many words of four bytes.
    pub fn data_offset(self, words: u8) -> Self {
        self.edit_tcp(|tcp| tcp.data_offset = Some(words))
    }

    fn edit_tcp(mut self, edit: impl FnOnce(&mut Tcp)) -> Self {
        if let Transport::Tcp(tcp) = &mut self.transport {
            edit(tcp);
        }
        self
    }

    /// UDP: says that the datagram is this long.
    pub fn udp_length(mut self, claimed: u16) -> Self {
        if let Transport::Udp { length, .. } = &mut self.transport {
            *length = Some(claimed);
        }
        self
    }

    /// ICMP echo: the identifier.
    pub fn echo_identifier(mut self, identifier: u16) -> Self {
        if let Transport::Icmp { rest, .. } = &mut self.transport {
            rest[..2].copy_from_slice(&identifier.to_be_bytes());
        }
        self
    }

    /// ICMP: the four bytes after the checksum.
    pub fn rest_of_header(mut self, bytes: [u8; 4]) -> Self {
        if let Transport::Icmp { rest, .. } = &mut self.transport {
            *rest = bytes;
        }
        self
    }

    /// ICMP errors: what they are about, from its IP header on.
    pub fn about(self, embedded: &Self) -> Self {
        self.payload(&embedded.ip_bytes())
    }

    /// The checksum of TCP, UDP or ICMP, right or wrong.
    pub fn checksum(mut self, checksum: u16) -> Self {
        self.checksum = Some(checksum);
        self
    }

    /// What follows the last header.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Bytes after the end of the IP packet, such as Ethernet padding.
    pub fn trailer(mut self, trailer: &[u8]) -> Self {
        self.trailer = trailer.to_vec();
        self
    }

    /// Cuts the frame to this many bytes.
    pub fn cut_to(mut self, bytes: usize) -> Self {
        self.keep = Some(bytes);
        self
    }

    /// The parts of this packet, with at most `size` bytes (a multiple of eight) after the headers
    /// in each.
    pub fn fragments(&self, identification: u32, size: usize) -> Vec<Self> {
        let whole = self.transport_bytes().len();
        let size = (size & !7).max(8);
        // A packet without content is still one part.
        let parts = whole.div_ceil(size).max(1);
        (0..parts)
            .map(|index| self.part(identification, index * size..(index + 1) * size))
            .collect()
    }

    /// The part of this packet that has these bytes of what follows the headers, as far as there
    /// are such. It begins at a multiple of eight.
    pub fn part(&self, identification: u32, bytes: Range<usize>) -> Self {
        let number = self.transport_protocol();
        let whole = self.transport_bytes();
        let end = whole.len().min(bytes.end);
        let start = end.min(bytes.start);
        let mut part = self.clone().payload(&whole[start..end]);
        part.transport = Transport::Raw { protocol: number };
        part.fragment(Fragment {
            identification,
            offset: u16::try_from(start).unwrap_or(u16::MAX),
            more: end < whole.len(),
        })
    }

    /// The whole frame.
    pub fn frame(&self) -> Vec<u8> {
        let ethertype = self.ethertype.unwrap_or(match self.source {
            IpAddr::V4(_) => ethernet::IPV4,
            IpAddr::V6(_) => ethernet::IPV6,
        });
        let mut frame = self.ethernet.frame(ethertype, &self.ip_bytes());
        frame.extend_from_slice(&self.trailer);
        if let Some(bytes) = self.keep {
            frame.truncate(bytes);
        }
        frame
    }

    /// The packet from its IP header on.
    pub fn ip_bytes(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.ipv4(source, destination),
            _ => self.ipv6(),
        }
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let transport = self.transport_bytes();
        let header_length = 20 + self.options.len();
        let version = self.version.unwrap_or(4);
        let ihl = self.ihl.unwrap_or((header_length / 4) as u8);
        let length = self
            .length
            .unwrap_or((header_length + transport.len()) as u16);
        let (identification, mut position) = match self.fragment {
            Some(part) => (
                part.identification as u16,
                (part.offset / 8) | (u16::from(part.more) << 13),
            ),
            None => (self.identification, 0),
        };
        position |= u16::from(self.dont_fragment) << 14;

        let mut bytes = vec![version << 4 | ihl & 15, self.traffic_class];
        bytes.extend(length.to_be_bytes());
        bytes.extend(identification.to_be_bytes());
        bytes.extend(position.to_be_bytes());
        bytes.extend([self.hop_limit, self.transport_protocol(), 0, 0]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes.extend_from_slice(&self.options);
        let checksum = self
            .header_checksum
            .unwrap_or_else(|| internet_checksum(&bytes));
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(transport);
        bytes
    }

    fn ipv6(&self) -> Vec<u8> {
        let transport = self.transport_bytes();
        let mut extensions = self.extensions.clone();
        extensions.extend(self.fragment.map(Extension::fragment));

        let mut after_header = Vec::new();
        for (index, extension) in extensions.iter().enumerate() {
            let next = extensions
                .get(index + 1)
                .map_or(self.transport_protocol(), |e| e.number);
            let start = after_header.len();
            after_header.extend_from_slice(&extension.bytes);
            if let Some(first) = after_header.get_mut(start) {
                *first = next;
            }
        }
        after_header.extend(transport);

        let first = extensions
            .first()
            .map_or(self.transport_protocol(), |e| e.number);
        let length = self.length.unwrap_or(after_header.len() as u16);
        let version = self.version.unwrap_or(6);
        let mut bytes = vec![
            version << 4 | self.traffic_class >> 4,
            self.traffic_class << 4,
            0,
            0,
        ];
        bytes.extend(length.to_be_bytes());
        bytes.extend([first, self.hop_limit]);
        bytes.extend(sixteen(self.source));
        bytes.extend(sixteen(self.destination));
        bytes.extend(after_header);
        bytes
    }

    fn transport_protocol(&self) -> u8 {
        self.protocol.unwrap_or_else(|| self.transport.protocol())
    }

    fn transport_bytes(&self) -> Vec<u8> {
        let mut bytes = self.transport.header(self.payload.len());
        bytes.extend_from_slice(&self.payload);
        let Some(at) = self.transport.checksum_offset() else {
            return bytes;
        };
        let checksum = self.checksum.unwrap_or_else(|| {
            let sum = match self.transport {
                Transport::Icmp {
                    protocol: protocol::ICMP,
                    ..
                } => internet_checksum(&bytes),
                _ => internet_checksum(&[self.pseudo_header(bytes.len()), bytes.clone()].concat()),
            };
            // A UDP checksum of zero would say that there is none.
            if sum == 0 && matches!(self.transport, Transport::Udp { .. }) {
                !0
            } else {
                sum
            }
        });
        bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
            }
            (source, destination) => {
                bytes.extend(sixteen(source));
                bytes.extend(sixteen(destination));
            }
        }
        bytes.extend((length as u32).to_be_bytes());
        bytes.extend([0, 0, 0, self.transport.protocol()]);
        bytes
    }
}

impl Transport {
    fn protocol(&self) -> u8 {
        match self {
            Self::Tcp(_) => protocol::TCP,
            Self::Udp { .. } => protocol::UDP,
            Self::Icmp { protocol, .. } | Self::Raw { protocol } => *protocol,
        }
    }

    fn checksum_offset(&self) -> Option<usize> {
        match self {
            Self::Tcp(_) => Some(16),
            Self::Udp { .. } => Some(6),
            Self::Icmp { .. } => Some(2),
            Self::Raw { .. } => None,
        }
    }

    fn header(&self, payload: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Tcp(tcp) => {
                let words = tcp.data_offset.unwrap_or(5 + (tcp.options.len() / 4) as u8);
                bytes.extend(tcp.source.to_be_bytes());
                bytes.extend(tcp.destination.to_be_bytes());
                bytes.extend(tcp.sequence.to_be_bytes());
                bytes.extend(tcp.acknowledgment.to_be_bytes());
                bytes.extend([words << 4, tcp.flags]);
                bytes.extend(tcp.window.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend_from_slice(&tcp.options);
            }
            Self::Udp {
                source,
                destination,
                length,
            } => {
                bytes.extend(source.to_be_bytes());
                bytes.extend(destination.to_be_bytes());
                bytes.extend(length.unwrap_or((8 + payload) as u16).to_be_bytes());
                bytes.extend([0; 2]);
            }
            Self::Icmp {
                kind, code, rest, ..
            } => {
                bytes.extend([*kind, *code, 0, 0]);
                bytes.extend(rest);
            }
            Self::Raw { .. } => {}
        }
        bytes
    }
}

/// A packet from one family to the other can only be an IPv6 one with a mapped address.
fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// RFC 1071: the complement of the one's complement sum.
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| match *word {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(from: &str, to: &str) -> Packet {
        Packet::tcp(from.parse().unwrap(), to.parse().unwrap()).flags(flags::SYN)
    }

    #[test]
    fn checksums_are_right_unless_told_otherwise() {
        // RFC 1071, section 3.
        assert_eq!(
            internet_checksum(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
        for (from, to) in [
            ("10.0.0.1:1", "10.0.0.2:2"),
            ("[2001:db8::1]:1", "[2001:db8::2]:2"),
        ] {
            let packet = tcp(from, to).payload(b"odd");
            let segment = packet.transport_bytes();
            let covered = [packet.pseudo_header(segment.len()), segment].concat();
            assert_eq!(internet_checksum(&covered), 0, "{from} > {to}");
        }
        let header = &tcp("10.0.0.1:1", "10.0.0.2:2").options(&[1]).ip_bytes()[..24];
        assert_eq!(internet_checksum(header), 0);
        let wrong = tcp("10.0.0.1:1", "10.0.0.2:2").checksum(0xbeef).ip_bytes();
        assert_eq!(wrong[36..38], [0xbe, 0xef]);
    }

    #[test]
    fn extension_headers_chain_to_the_transport() {
        let bytes = tcp("[2001:db8::1]:1", "[2001:db8::2]:2")
            .extension(Extension::hop_by_hop(&[5, 2, 0, 0]))
            .extension(Extension::authentication())
            .fragment(Fragment {
                identification: 7,
                offset: 0,
                more: false,
            })
            .ip_bytes();
        assert_eq!(bytes[6], protocol::HOP_BY_HOP);
        assert_eq!(bytes[40], protocol::AUTHENTICATION);
        assert_eq!(bytes[48], protocol::FRAGMENT);
        assert_eq!(bytes[72], protocol::TCP);
        assert_eq!(bytes.len(), 40 + 8 + 24 + 8 + 20);
        assert_eq!(
            usize::from(u16::from_be_bytes([bytes[4], bytes[5]])),
            bytes.len() - 40
        );
    }

    #[test]
    fn lengths_say_what_they_are_told_to() {
        let bytes = tcp("10.0.0.1:1", "10.0.0.2:2")
            .ihl(4)
            .length(9)
            .data_offset(3)
            .ip_bytes();
        assert_eq!(bytes[0], 0x44);
        assert_eq!(bytes[2..4], [0, 9]);
        assert_eq!(bytes[32] >> 4, 3);
        assert_eq!(bytes.len(), 40);
    }

    #[test]
    fn fragments_hold_the_whole_between_them() {
        let packet = tcp("10.0.0.1:1", "10.0.0.2:2").payload(&[7; 30]);
        let parts = packet.fragments(9, 24);
        let bytes: Vec<u8> = parts
            .iter()
            .flat_map(|part| part.transport_bytes())
            .collect();
        assert_eq!(bytes, packet.transport_bytes());
        let positions: Vec<_> = parts
            .iter()
            .map(|part| part.ip_bytes()[6..8].to_vec())
            .collect();
        assert_eq!(positions, [[0x20, 0], [0x20, 3], [0, 6]]);
    }

    #[test]
    fn a_packet_without_content_is_one_fragment() {
        let (from, to) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let parts = Packet::raw(from, to, protocol::GRE).fragments(9, 24);
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].ip_bytes()[6..8], [0, 0]);
    }
}
