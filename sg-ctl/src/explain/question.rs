//! The packet that is asked about: what it is, and its bytes.

use std::net::IpAddr;

use serde::Serialize;
use sg_common::flow::{FlowState, Leg};
use sg_common::packet::Direction;
use sg_common::parse::Headers;
use sg_common::ports::Service;
use sg_common::protocol::{ICMP, ICMPV6, IGMP, TCP, TcpFlags, UDP};

use crate::observe::protocol_name;

/// The flags of the first packet of a TCP connection.
pub const TCP_SYN: u8 = TcpFlags::SYN.0;

/// Behind every L4 header: enough for what any ICMP message is judged by.
const PAYLOAD: usize = 24;

/// A packet, as the interface sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Relative to the interface.
    pub direction: Direction,
    /// The IP protocol.
    pub protocol: u8,
    /// The protected side.
    pub local: IpAddr,
    /// The other side.
    pub peer: IpAddr,
    /// TCP, UDP: the protected side's port.
    pub local_port: u16,
    /// TCP, UDP: the other side's port.
    pub peer_port: u16,
    /// ICMP, ICMPv6: type and code.
    pub icmp: [u8; 2],
    /// TCP: control bits.
    pub tcp_flags: u8,
}

/// The packet, as others read it.
#[derive(Clone, Debug, Serialize)]
pub struct PacketReport {
    /// As rules name it.
    pub protocol: String,
    /// Sender.
    pub source: IpAddr,
    /// TCP, UDP: its port.
    pub source_port: Option<u16>,
    /// Receiver.
    pub destination: IpAddr,
    /// TCP, UDP: its port.
    pub destination_port: Option<u16>,
    /// ICMP: the type.
    pub icmp_type: Option<u8>,
    /// ICMP: the code.
    pub icmp_code: Option<u8>,
    /// TCP: the control bits that are set.
    pub tcp_flags: Vec<&'static str>,
}

/// TCP's control bits by name.
pub(crate) const TCP_FLAGS: [(&str, u8); 5] = [
    ("syn", TcpFlags::SYN.0),
    ("ack", TcpFlags::ACK.0),
    ("fin", TcpFlags::FIN.0),
    ("rst", TcpFlags::RST.0),
    ("psh", 0x08),
];

impl Question {
    /// The packet that was read.
    pub(super) fn of(headers: &Headers, direction: Direction) -> Self {
        let (local_port, peer_port) = match (headers.protocol, direction) {
            (TCP | UDP, Direction::Ingress) => (headers.destination_port, headers.source_port),
            (TCP | UDP, Direction::Egress) => (headers.source_port, headers.destination_port),
            _ => (0, 0),
        };
        Self {
            direction,
            protocol: headers.protocol,
            local: headers.local(direction).to_ip(),
            peer: headers.peer(direction).to_ip(),
            local_port,
            peer_port,
            icmp: [headers.icmp_type, headers.icmp_code],
            tcp_flags: headers.tcp_flags.0,
        }
    }

    /// The same packet as an interface at the other end sees it.
    pub fn from_peer(&self) -> Self {
        Self {
            direction: self.direction.opposite(),
            local: self.peer,
            peer: self.local,
            local_port: self.peer_port,
            peer_port: self.local_port,
            ..*self
        }
    }

    /// Whether it is the first packet of a flow.
    pub(super) fn opens(&self) -> bool {
        self.protocol != TCP || self.tcp_flags == TCP_SYN
    }

    /// What rules are asked: the protocol with the port or the type and code.
    pub fn service(&self) -> Service {
        let low = match self.protocol {
            TCP | UDP => self.ends().1.1,
            ICMP | ICMPV6 => u16::from_be_bytes(self.icmp),
            _ => 0,
        };
        Service::new(self.protocol, low)
    }

    /// Source and destination.
    fn ends(&self) -> ((IpAddr, u16), (IpAddr, u16)) {
        let (local, peer) = ((self.local, self.local_port), (self.peer, self.peer_port));
        match self.direction {
            Direction::Ingress => (peer, local),
            Direction::Egress => (local, peer),
        }
    }

    pub(super) fn report(&self) -> PacketReport {
        let ((source, source_port), (destination, destination_port)) = self.ends();
        let has_ports = matches!(self.protocol, TCP | UDP);
        let is_icmp = matches!(self.protocol, ICMP | ICMPV6);
        let [icmp_type, icmp_code] = self.icmp;
        let flags = TCP_FLAGS
            .into_iter()
            .filter(|(_, bit)| self.protocol == TCP && self.tcp_flags & bit != 0);
        PacketReport {
            protocol: protocol_name(self.protocol),
            source,
            source_port: has_ports.then_some(source_port),
            destination,
            destination_port: has_ports.then_some(destination_port),
            icmp_type: is_icmp.then_some(icmp_type),
            icmp_code: is_icmp.then_some(icmp_code),
            tcp_flags: flags.map(|(name, _)| name).collect(),
        }
    }

    /// The packet's bytes. Where a flow is there, its sequence numbers are those that its receiver
    /// expects. Checksums are left out, since nobody here looks at them.
    pub(crate) fn frame(&self, bare: bool, flow: Option<&FlowState>) -> Vec<u8> {
        let l4 = self.l4(flow);
        let ((source, _), (destination, _)) = self.ends();
        let (ethertype, header) = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let length = (20 + l4.len()) as u16;
                let mut header = vec![0x45, 0];
                header.extend(length.to_be_bytes());
                header.extend([0, 0, 0, 0, self.hop_limit(), self.protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                (0x0800_u16, header)
            }
            (source, destination) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend((l4.len() as u16).to_be_bytes());
                header.extend([self.protocol, self.hop_limit()]);
                for address in [source, destination] {
                    header.extend(sg_common::addr::Addr::from(address).octets());
                }
                (0x86dd, header)
            }
        };
        let mut frame = Vec::new();
        if !bare {
            frame.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
            frame.extend(ethertype.to_be_bytes());
        }
        frame.extend(header);
        frame.extend(l4);
        frame
    }

    fn l4(&self, flow: Option<&FlowState>) -> Vec<u8> {
        let ((_, source), (_, destination)) = self.ends();
        let mut bytes = match self.protocol {
            TCP => {
                let (sequence, acknowledgment) = self.expected(flow);
                let mut header = [source, destination].map(u16::to_be_bytes).concat();
                header.extend(sequence.to_be_bytes());
                header.extend(acknowledgment.to_be_bytes());
                header.extend([0x50, self.tcp_flags, 0xff, 0xff, 0, 0, 0, 0]);
                return header;
            }
            UDP => {
                let length = (8 + PAYLOAD) as u16;
                [source, destination, length, 0]
                    .map(u16::to_be_bytes)
                    .concat()
            }
            ICMP | ICMPV6 => {
                let [kind, code] = self.icmp;
                vec![kind, code, 0, 0, 0, 0, 0, 0]
            }
            _ => Vec::new(),
        };
        bytes.resize(bytes.len() + PAYLOAD, 0);
        bytes
    }

    /// The sequence and acknowledgment numbers that go on where the flow is.
    fn expected(&self, flow: Option<&FlowState>) -> (u32, u32) {
        let Some(flow) = flow else { return (0, 0) };
        let ([local_end, peer_end], [local_ack, peer_ack]) = (flow.end, flow.ack);
        match Leg::sending(self.direction) {
            Leg::Local => (peer_ack, peer_end),
            Leg::Peer => (local_ack, local_end),
        }
    }

    /// What senders of such messages set: neighbor discovery and group membership never leave the
    /// link.
    fn hop_limit(&self) -> u8 {
        let [kind, _] = self.icmp;
        match (self.protocol, kind) {
            (ICMPV6, 133..=137) => 255,
            (ICMPV6, 130..=132 | 143) | (IGMP, _) => 1,
            _ => 64,
        }
    }
}

#[cfg(test)]
mod tests {
    use sg_common::decide::Scratch;
    use sg_common::packet::Framing;
    use sg_common::parse::Content;

    use super::*;

    #[test]
    fn the_parser_reads_what_was_asked() {
        let v4 = ("198.51.100.7", "10.0.0.10");
        let v6 = ("2001:db8::7", "2001:db8::10");
        for (protocol, (peer, local), icmp) in [
            (TCP, v4, [0, 0]),
            (UDP, v6, [0, 0]),
            (ICMP, v4, [8, 0]),
            (ICMP, v4, [3, 4]),
            (ICMPV6, v6, [128, 0]),
            (ICMPV6, v6, [135, 0]),
            (47, v4, [0, 0]),
            (132, v6, [0, 0]),
        ] {
            let question = Question {
                direction: Direction::Ingress,
                protocol,
                local: local.parse().unwrap(),
                peer: peer.parse().unwrap(),
                local_port: 22,
                peer_port: 40_000,
                icmp,
                tcp_flags: TCP_SYN,
            };
            for (bare, framing) in [(true, Framing::Bare), (false, Framing::Ethernet)] {
                let mut scratch = Scratch::default();
                scratch.read(question.frame(bare, None).as_slice(), framing);
                let headers = scratch.headers;
                assert_eq!(headers.content, Content::Ip, "{question:?}");
                assert_eq!(headers.source.to_ip(), question.peer);
                assert_eq!(headers.destination.to_ip(), question.local);
                assert_eq!(Service::of(&headers), question.service());
            }
            let other = question.from_peer();
            assert_eq!(other.frame(true, None), question.frame(true, None));
            assert_eq!(other.service(), question.service());
        }
    }
}
