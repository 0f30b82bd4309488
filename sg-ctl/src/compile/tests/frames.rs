//! Frames that open flows.

use std::net::IpAddr;

use crate::policy::allows::L4;

/// The port that every client sends from.
pub(super) const CLIENT_PORT: u16 = 40_000;

/// An Ethernet frame with a packet that opens a flow: a SYN, a datagram, a message.
pub(super) fn frame(source: IpAddr, destination: IpAddr, protocol: u8, l4: L4) -> Vec<u8> {
    let l4 = match (protocol, l4) {
        (6, L4::Port(port)) => tcp_syn(port),
        (_, L4::Port(port)) => udp(port),
        (_, L4::Icmp(kind, code)) => vec![kind, code, 0, 0, 0x12, 0x34, 0, 1],
        (_, L4::Other) => vec![0xaa; 16],
    };
    let length = l4.len() as u16;
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + length).to_be_bytes());
            frame.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        families => panic!("{families:?} are of two families"),
    }
    frame.extend(l4);
    frame
}

fn tcp_syn(port: u16) -> Vec<u8> {
    let mut segment = CLIENT_PORT.to_be_bytes().to_vec();
    segment.extend(port.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

fn udp(port: u16) -> Vec<u8> {
    let mut datagram = CLIENT_PORT.to_be_bytes().to_vec();
    datagram.extend(port.to_be_bytes());
    datagram.extend([0, 8, 0, 0]);
    datagram
}
