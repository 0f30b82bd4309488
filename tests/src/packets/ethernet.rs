//! What is around an IP packet: MAC addresses, VLAN tags, and frames that hold no IP at all.

use std::net::Ipv4Addr;

/// IPv4.
pub const IPV4: u16 = 0x0800;
/// ARP.
pub const ARP: u16 = 0x0806;
/// An 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// IPv6.
pub const IPV6: u16 = 0x86dd;
/// An 802.1ad tag.
pub const QINQ: u16 = 0x88a8;
/// MPLS, unicast.
pub const MPLS: u16 = 0x8847;
/// A PPPoE session.
pub const PPPOE_SESSION: u16 = 0x8864;
/// Slow protocols: LACP.
pub const SLOW: u16 = 0x8809;
/// EAPOL.
pub const EAPOL: u16 = 0x888e;
/// LLDP.
pub const LLDP: u16 = 0x88cc;
/// PTP.
pub const PTP: u16 = 0x88f7;

/// Everybody.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// An Ethernet header without its last EtherType.
#[derive(Clone, Debug)]
pub struct Ethernet {
    /// To.
    pub destination: [u8; 6],
    /// From.
    pub source: [u8; 6],
    /// TPID and TCI of each tag, the outermost first.
    pub tags: Vec<(u16, u16)>,
}

impl Default for Ethernet {
    fn default() -> Self {
        Self {
            destination: [2, 0, 0, 0, 0, 2],
            source: [2, 0, 0, 0, 0, 1],
            tags: Vec::new(),
        }
    }
}

impl Ethernet {
    /// A frame with this payload.
    pub fn frame(&self, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = [self.destination, self.source].concat();
        for (tpid, tci) in &self.tags {
            bytes.extend(tpid.to_be_bytes());
            bytes.extend(tci.to_be_bytes());
        }
        bytes.extend(ethertype.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// An 802.3 frame, whose EtherType is a length: STP and its like.
    pub fn frame_802_3(&self, payload: &[u8]) -> Vec<u8> {
        self.frame(payload.len() as u16, payload)
    }

    /// Asks who has an address.
    pub fn arp_request(&self, asks: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
        let broadcast = Self {
            destination: BROADCAST,
            ..self.clone()
        };
        broadcast.frame(ARP, &arp(1, (self.source, asks), ([0; 6], wanted)))
    }

    /// Says that an address is at this source.
    pub fn arp_reply(&self, owned: Ipv4Addr, asked_by: Ipv4Addr) -> Vec<u8> {
        self.frame(
            ARP,
            &arp(2, (self.source, owned), (self.destination, asked_by)),
        )
    }
}

fn arp(operation: u8, sender: ([u8; 6], Ipv4Addr), target: ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, operation];
    for (mac, address) in [sender, target] {
        bytes.extend(mac);
        bytes.extend(address.octets());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_stand_between_the_addresses_and_the_ethertype() {
        let header = Ethernet {
            tags: vec![(QINQ, 7), (VLAN, 5)],
            ..Ethernet::default()
        };
        let frame = header.frame(IPV4, &[0x45]);
        assert_eq!(frame[12..], [0x88, 0xa8, 0, 7, 0x81, 0, 0, 5, 8, 0, 0x45]);
    }

    #[test]
    fn an_arp_request_is_28_bytes_to_everybody() {
        let frame = Ethernet::default().arp_request([10, 0, 0, 1].into(), [10, 0, 0, 10].into());
        assert_eq!(frame[..6], BROADCAST);
        assert_eq!(frame.len(), 14 + 28);
        assert_eq!(frame[38..], [10, 0, 0, 10]);
    }
}
