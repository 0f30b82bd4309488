//! What is seen of an attempt on the wire: whether its packets left this machine, and whether any
//! came back.
//!
//! A packet socket sees what is sent behind every filter of this machine, and what is received
//! before all of them but XDP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket,
};
use socket2::{SockFilter, SockRef};

/// Longer than the headers of any packet that is looked at.
const HEADERS: usize = 128;

/// The kind of a packet that this machine sends (packet(7)).
const OUTGOING: u8 = 4;

/// Sees the packets from and to one address.
pub(super) struct Tap(OwnedFd);

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Packets that left this machine.
    pub(super) sent: u64,
    /// Packets that came to it.
    pub(super) received: u64,
}

impl Tap {
    pub(super) fn open(peer: IpAddr) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::EthAll;
        let tap = socket(AddressFamily::Packet, SockType::Datagram, flags, protocol)?;
        let program: Vec<_> = filter(peer).into_iter().map(Instruction::encoded).collect();
        SockRef::from(&tap).attach_filter(&program)?;
        Ok(Self(tap))
    }

    /// What has come since, of one attempt.
    pub(super) fn seen(&self, protocol: u8, source: SocketAddr, destination: SocketAddr) -> Seen {
        let mut seen = Seen::default();
        let mut buffer = [0; HEADERS];
        loop {
            let received = recvfrom::<LinkAddr>(self.0.as_fd().as_raw_fd(), &mut buffer);
            let Ok((length, Some(from))) = received else {
                return seen;
            };
            let packet = buffer.get(..length.min(HEADERS)).unwrap_or_default();
            let Some((sender, receiver)) = ends(packet, protocol) else {
                continue;
            };
            let is = |end: SocketAddr, other: SocketAddr| {
                (end.ip(), end.port()) == (other.ip(), other.port())
            };
            if from.pkttype() == OUTGOING {
                seen.sent += u64::from(is(sender, source) && is(receiver, destination));
            } else {
                seen.received += u64::from(is(sender, destination) && is(receiver, source));
            }
        }
    }
}

/// Takes IP packets from or to this address only: others would fill the socket on a busy machine.
fn filter(peer: IpAddr) -> Vec<Instruction> {
    let (octets, places): (Vec<u8>, [u32; 2]) = match peer {
        IpAddr::V4(peer) => (peer.octets().to_vec(), [12, 16]),
        IpAddr::V6(peer) => (peer.octets().to_vec(), [8, 24]),
    };
    let (words, _) = octets.as_chunks::<4>();
    let mut program = Vec::new();
    for place in places {
        for (index, word) in words.iter().enumerate() {
            let left = words.len() - 1 - index;
            program.push(Instruction::Load(place + 4 * index as u32));
            program.push(Instruction::SkipUnless {
                word: u32::from_be_bytes(*word),
                skipped: (2 * left + 1) as u8,
            });
        }
        program.push(Instruction::Take(HEADERS as u32));
    }
    program.push(Instruction::Take(0));
    program
}

/// What a classic BPF program is made of here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instruction {
    /// Loads the word at this place of the packet.
    Load(u32),
    /// Skips instructions unless the loaded word is this one.
    SkipUnless {
        /// The word.
        word: u32,
        /// How many instructions.
        skipped: u8,
    },
    /// Ends, and takes so many bytes of the packet.
    Take(u32),
}

impl Instruction {
    fn encoded(self) -> SockFilter {
        let (code, jf, k) = match self {
            Self::Load(place) => (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, place),
            Self::SkipUnless { word, skipped } => {
                (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skipped, word)
            }
            Self::Take(bytes) => (libc::BPF_RET | libc::BPF_K, 0, bytes),
        };
        SockFilter::new(code as u16, 0, jf, k)
    }
}

/// Sender and receiver of a packet of this protocol.
fn ends(packet: &[u8], protocol: u8) -> Option<(SocketAddr, SocketAddr)> {
    let version = packet.first()? >> 4;
    let (found, header, sender, receiver): (u8, usize, IpAddr, IpAddr) = match version {
        4 => {
            let header = usize::from(packet.first()? & 15) * 4;
            let sender: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let receiver: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            (*packet.get(9)?, header, sender.into(), receiver.into())
        }
        6 => {
            let sender: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            let receiver: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            (*packet.get(6)?, 40, sender.into(), receiver.into())
        }
        _ => return None,
    };
    let [a, b, c, d] = *packet.get(header..)?.first_chunk::<4>()?;
    let port = |high, low| u16::from_be_bytes([high, low]);
    (found == protocol).then_some((
        SocketAddr::new(sender, port(a, b)),
        SocketAddr::new(receiver, port(c, d)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_told_by_its_ends() {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2, 0x9c, 0x40, 0, 22]);
        let ends = ends(&packet, 6).unwrap();
        assert_eq!(ends.0, "10.0.0.1:40000".parse().unwrap());
        assert_eq!(ends.1, "10.0.0.2:22".parse().unwrap());
        assert_eq!(super::ends(&packet, 17), None);
        assert_eq!(super::ends(&packet[..22], 6), None);
    }

    #[test]
    fn a_filter_ends_with_a_verdict() {
        for (peer, length) in [("192.0.2.1", 7), ("2001:db8::1", 19)] {
            let program = filter(peer.parse().unwrap());
            assert_eq!(program.len(), length, "{peer}");
            for (index, instruction) in program.iter().enumerate() {
                if let Instruction::SkipUnless { skipped, .. } = instruction {
                    let next = program[index + 1 + usize::from(*skipped)];
                    assert!(
                        !matches!(next, Instruction::SkipUnless { .. }),
                        "{peer}: {index}"
                    );
                }
            }
        }
    }
}
