//! The shapes a packet can have, and what becomes of each at an open port: on a machine without sg,
//! and behind it. Behind a closed port nothing ever becomes of any.
//!
//! `FROM` and `TO` stand for endpoints, `OWN` for the address of `TO` and `PORT` for the port of
//! `FROM`; `OPEN` is `OWN` with the open port, for packets that begin one way and go on another.

use Heard::{Answer, Objection, Silence};

/// What comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The listener's own word: SYN-ACK, or the datagram again.
    Answer,
    /// A reset or an ICMP error, by which the machine betrays itself as well.
    Objection,
    Silence,
}

/// One or more packets that together ask for an answer.
#[derive(Debug)]
pub(crate) struct Shape {
    /// Packets in words, `;` between them.
    pub(crate) words: &'static str,
    /// What each fragment of the first packet holds of what follows its headers, in the order they
    /// are sent; it is sent whole when there are none.
    pub(crate) parts: &'static [(usize, usize)],
    /// From the bare kernel.
    pub(crate) linux: Heard,
    /// From an open port behind sg.
    pub(crate) sg: Heard,
}

const fn whole(words: &'static str, linux: Heard, sg: Heard) -> Shape {
    cut(words, &[], linux, sg)
}

const fn cut(
    words: &'static str,
    parts: &'static [(usize, usize)],
    linux: Heard,
    sg: Heard,
) -> Shape {
    Shape {
        words,
        parts,
        linux,
        sg,
    }
}

/// The port that is open. Its two bytes are no-operation options of IPv4, and in IPv6 a padding
/// option of one byte, so that well-formed options can pose as ports.
pub(crate) const OPEN: u16 = 0x0101;

pub(crate) const V4: &[Shape] = &[
    whole("tcp FROM > TO syn", Answer, Answer),
    whole("tcp FROM > TO syn payload 5", Answer, Answer),
    whole("tcp FROM > TO syn psh urg", Answer, Answer),
    whole("tcp FROM > TO flags 0xc2", Answer, Answer),
    whole(
        "tcp FROM > TO syn tcp-options 020405b40103030701010101",
        Answer,
        Answer,
    ),
    // Bytes beyond the packet are padding, whatever they say.
    whole("tcp FROM > TO syn trailer 20", Answer, Answer),
    // Larger than a page: the kernel keeps no more than the Ethernet header linear.
    whole("tcp FROM > TO syn payload 5000", Answer, Answer),
    // Options where a fixed offset would look for ports, open ones; then a whole header of them.
    whole("tcp FROM > TO syn options 01010101", Answer, Answer),
    whole("tcp FROM > TO syn options 9404000001010101", Answer, Answer),
    whole(
        "tcp FROM > TO syn options 01010101010101010101010101010101010101010101010101010101010101010101010101010101",
        Answer,
        Answer,
    ),
    whole("tcp FROM > TO syn options 07070400000000", Answer, Answer),
    whole(
        "tcp FROM > TO syn options 010101019e2400000000000050020000000000000000000000000000000000000000000000000000",
        Answer,
        Answer,
    ),
    whole("tcp FROM > TO syn options 99ff0000", Objection, Objection),
    // Source routes, to be followed and followed to the end: the second is answered along its
    // way back, which is another flow.
    whole("tcp FROM > TO syn options 830704c0000209", Silence, Silence),
    whole("tcp FROM > TO syn options 830708c0000209", Answer, Silence),
    // Tags of VLAN 0 give a frame a priority, and belong to no VLAN.
    whole("tcp FROM > TO syn vlan 0", Answer, Answer),
    whole("tcp FROM > TO syn qinq 0/0", Answer, Answer),
    whole("tcp FROM > TO syn vlan 5", Silence, Silence),
    whole("tcp FROM > TO syn qinq 7/5", Silence, Silence),
    whole("tcp FROM > TO syn vlan 0 vlan 0 vlan 0", Answer, Silence),
    // Flags that open no connection.
    whole("tcp FROM > TO flags 0", Silence, Silence),
    whole("tcp FROM > TO flags 0xff", Silence, Silence),
    whole("tcp FROM > TO syn fin", Silence, Silence),
    whole("tcp FROM > TO syn rst", Silence, Silence),
    whole("tcp FROM > TO rst", Silence, Silence),
    whole("tcp FROM > TO ack", Objection, Objection),
    whole("tcp FROM > TO syn ack", Objection, Silence),
    whole("tcp FROM > TO fin ack", Objection, Silence),
    // Lengths and checksums that lie.
    whole("tcp FROM > TO syn ihl 6", Silence, Silence),
    whole("tcp FROM > TO syn ihl 4", Silence, Silence),
    whole("tcp FROM > TO syn length 39", Silence, Silence),
    whole("tcp FROM > TO syn length 41", Silence, Silence),
    whole("tcp FROM > TO syn data-offset 4", Silence, Silence),
    whole("tcp FROM > TO syn data-offset 6", Silence, Silence),
    whole("tcp FROM > TO syn version 6", Silence, Silence),
    whole("tcp FROM > TO syn header-checksum 1", Silence, Silence),
    whole("tcp FROM > TO syn checksum 1", Silence, Silence),
    // Nobody there could have sent these.
    whole("tcp 127.0.0.1:PORT > TO syn", Silence, Silence),
    whole("tcp OWN:PORT > TO syn", Silence, Silence),
    whole("tcp 224.0.0.1:PORT > TO syn", Silence, Silence),
    whole("tcp 255.255.255.255:PORT > TO syn", Silence, Silence),
    whole("tcp 0.0.0.0:PORT > TO syn", Silence, Silence),
    // Fragments. A first one that lacks any of its header says too little to be judged.
    cut(
        "tcp FROM > TO syn payload 40",
        &[(0, 24), (24, 60)],
        Answer,
        Answer,
    ),
    cut(
        "tcp FROM > TO syn payload 40",
        &[(0, 24), (24, 32), (32, 60)],
        Answer,
        Answer,
    ),
    cut(
        "tcp FROM > TO syn payload 40",
        &[(0, 24), (0, 24), (24, 60)],
        Answer,
        Answer,
    ),
    cut("tcp FROM > TO syn", &[(0, 8), (8, 20)], Answer, Silence),
    cut("tcp FROM > TO syn", &[(8, 20), (0, 8)], Answer, Silence),
    cut("tcp FROM > TO syn", &[(0, 16), (16, 20)], Answer, Silence),
    cut(
        "tcp FROM > TO syn payload 40",
        &[(24, 60), (0, 24)],
        Answer,
        Silence,
    ),
    cut(
        "tcp FROM > TO syn payload 40",
        &[(0, 24), (16, 60)],
        Silence,
        Silence,
    ),
    cut(
        "tcp FROM > TO syn payload 40",
        &[(0, 24), (8, 32), (32, 60)],
        Silence,
        Silence,
    ),
    cut("tcp FROM > TO syn payload 40", &[(0, 24)], Silence, Silence),
    cut(
        "tcp FROM > TO syn payload 40 options 01010101",
        &[(0, 24), (24, 60)],
        Answer,
        Answer,
    ),
    cut(
        "tcp FROM > TO syn payload 40 vlan 0",
        &[(0, 24), (24, 60)],
        Answer,
        Answer,
    ),
    // The first fragment is let in, and another one takes its place.
    whole(
        "tcp FROM > OPEN syn payload 12 fragment PORT@0+; \
         tcp FROM > TO syn payload 12 fragment PORT@0+; \
         tcp FROM > TO syn payload 12 fragment PORT@32",
        Silence,
        Silence,
    ),
    whole("udp FROM > TO payload 40", Answer, Answer),
    whole(
        "udp FROM > TO payload 300 options 01010101010101010101010101010101010101010101010101010101010101010101010101010101",
        Answer,
        Answer,
    ),
    whole("udp FROM > TO payload 40 options 01010101", Answer, Answer),
    whole("udp FROM > TO payload 40 trailer 30", Answer, Answer),
    whole("udp FROM > TO payload 5000", Answer, Answer),
    whole(
        "udp FROM > TO payload 40 udp-length 8 checksum 0",
        Answer,
        Answer,
    ),
    whole("udp FROM > TO payload 40 udp-length 49", Silence, Silence),
    whole("udp FROM > TO payload 40 udp-length 7", Silence, Silence),
    whole("udp FROM > TO payload 40 checksum 1", Silence, Silence),
    whole("udp FROM > TO payload 40 qinq 0/0", Answer, Answer),
    cut(
        "udp FROM > TO payload 40",
        &[(0, 8), (8, 48)],
        Answer,
        Answer,
    ),
    cut(
        "udp FROM > TO payload 5000",
        &[(0, 4800), (4800, 5008)],
        Answer,
        Answer,
    ),
    cut(
        "udp FROM > TO payload 40",
        &[(8, 48), (0, 8)],
        Answer,
        Silence,
    ),
];

pub(crate) const V6: &[Shape] = &[
    whole("tcp FROM > TO syn", Answer, Answer),
    whole("tcp FROM > TO syn payload 5", Answer, Answer),
    whole("tcp FROM > TO syn trailer 20", Answer, Answer),
    whole("tcp FROM > TO syn payload 5000", Answer, Answer),
    whole("tcp FROM > TO syn vlan 0", Answer, Answer),
    whole("tcp FROM > TO syn qinq 0/0", Answer, Answer),
    whole("tcp FROM > TO syn vlan 5", Silence, Silence),
    whole("tcp FROM > TO syn qinq 7/5", Silence, Silence),
    // Options where a fixed offset would look for ports, open ones.
    whole(
        "tcp FROM > TO syn extension 60 0000010100010100",
        Answer,
        Answer,
    ),
    whole(
        "tcp FROM > TO syn extension 60 00020101001e110000000000500200000000000000000000",
        Answer,
        Answer,
    ),
    whole("tcp FROM > TO syn hop-by-hop", Answer, Answer),
    whole(
        "tcp FROM > TO syn hop-by-hop destination-options",
        Answer,
        Answer,
    ),
    whole(
        "tcp FROM > TO syn destination-options destination-options destination-options \
         destination-options destination-options destination-options destination-options \
         destination-options",
        Answer,
        Answer,
    ),
    whole(
        "tcp FROM > TO syn destination-options destination-options destination-options \
         destination-options destination-options destination-options destination-options \
         destination-options destination-options",
        Answer,
        Silence,
    ),
    whole(
        "tcp FROM > TO syn destination-options hop-by-hop",
        Objection,
        Silence,
    ),
    whole("tcp FROM > TO syn routing 0/0", Answer, Silence),
    whole("tcp FROM > TO syn routing 253/0", Answer, Answer),
    whole("tcp FROM > TO syn routing 253/1", Objection, Objection),
    whole("tcp FROM > TO syn authentication", Objection, Objection),
    whole("tcp FROM > TO syn protocol 59", Silence, Silence),
    whole(
        "tcp FROM > TO syn destination-options claiming 9",
        Silence,
        Silence,
    ),
    whole("tcp FROM > TO flags 0", Silence, Silence),
    whole("tcp FROM > TO syn fin", Silence, Silence),
    whole("tcp FROM > TO syn rst", Silence, Silence),
    whole("tcp FROM > TO ack", Objection, Objection),
    whole("tcp FROM > TO syn ack", Objection, Silence),
    whole("tcp FROM > TO syn length 19", Silence, Silence),
    whole("tcp FROM > TO syn length 21", Silence, Silence),
    whole("tcp FROM > TO syn data-offset 4", Silence, Silence),
    whole("tcp FROM > TO syn version 4", Silence, Silence),
    whole("tcp FROM > TO syn checksum 1", Silence, Silence),
    whole("tcp [::1]:PORT > TO syn", Silence, Silence),
    whole("tcp [OWN]:PORT > TO syn", Silence, Silence),
    whole("tcp [ff02::1]:PORT > TO syn", Silence, Silence),
    whole("tcp [::ffff:198.51.100.7]:PORT > TO syn", Silence, Silence),
    // A packet that is its own only fragment is no fragment.
    whole("tcp FROM > TO syn fragment-header 7@0", Answer, Answer),
    whole(
        "tcp FROM > TO syn fragment-header 7@0 fragment-header 8@0",
        Objection,
        Silence,
    ),
    cut(
        "tcp FROM > TO syn payload 40",
        &[(0, 24), (24, 60)],
        Answer,
        Answer,
    ),
    cut(
        "tcp FROM > TO syn payload 40 destination-options",
        &[(0, 24), (24, 60)],
        Answer,
        Answer,
    ),
    cut(
        "tcp FROM > TO syn payload 40",
        &[(0, 24), (0, 24), (24, 60)],
        Answer,
        Answer,
    ),
    cut("tcp FROM > TO syn", &[(0, 8), (8, 20)], Objection, Silence),
    cut(
        "tcp FROM > TO syn payload 40",
        &[(24, 60), (0, 24)],
        Answer,
        Silence,
    ),
    cut(
        "tcp FROM > TO syn payload 40",
        &[(0, 24), (16, 60)],
        Silence,
        Silence,
    ),
    cut("tcp FROM > TO syn payload 40", &[(0, 24)], Silence, Silence),
    whole(
        "tcp FROM > OPEN syn payload 12 fragment PORT@0+; \
         tcp FROM > TO syn payload 12 fragment PORT@0+; \
         tcp FROM > TO syn payload 12 fragment PORT@32",
        Silence,
        Silence,
    ),
    whole("udp FROM > TO payload 40", Answer, Answer),
    whole("udp FROM > TO payload 40 hop-by-hop", Answer, Answer),
    whole("udp FROM > TO payload 5000", Answer, Answer),
    whole("udp FROM > TO payload 40 trailer 30", Answer, Answer),
    whole("udp FROM > TO payload 40 udp-length 49", Silence, Silence),
    whole("udp FROM > TO payload 40 checksum 0", Silence, Silence),
    cut(
        "udp FROM > TO payload 40",
        &[(0, 8), (8, 48)],
        Answer,
        Answer,
    ),
    cut(
        "udp FROM > TO payload 40",
        &[(8, 48), (0, 8)],
        Answer,
        Silence,
    ),
];
