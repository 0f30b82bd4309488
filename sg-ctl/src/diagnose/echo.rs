//! Whether large packets reach a machine that small ones reach.
//!
//! TCP tells nothing of it until it has much to send, and then it only hangs: the larger packets are
//! dropped on the way, and so is the ICMP error that would say so.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// What ICMP takes of a packet besides its IP header.
const ICMP_HEADER: usize = 8;

/// Whether echo requests that fill a packet of this size get no answer where small ones get one.
///
/// The kernel learns a smaller size from the first error and sends the second request in pieces.
pub(super) fn large_ones_are_lost(
    destination: IpAddr,
    mtu: usize,
    patience: Duration,
) -> io::Result<bool> {
    let echo = Echo::open(destination)?;
    let ip_header = if destination.is_ipv4() { 20 } else { 40 };
    let room = mtu.saturating_sub(ip_header + ICMP_HEADER);
    if !echo.is_answered(1, 0, patience)? {
        return Ok(false);
    }
    Ok(!echo.is_answered(2, room, patience)? && !echo.is_answered(3, room, patience)?)
}

struct Echo {
    socket: Socket,
    destination: SocketAddr,
    /// Echo request and echo reply.
    types: [u8; 2],
    identifier: u16,
}

impl Echo {
    fn open(destination: IpAddr) -> io::Result<Self> {
        let (domain, protocol, types) = match destination {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, [8, 0]),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, [128, 129]),
        };
        Ok(Self {
            socket: Socket::new(domain, Type::RAW, Some(protocol))?,
            destination: SocketAddr::new(destination, 0),
            types,
            identifier: rand::random(),
        })
    }

    fn is_answered(&self, sequence: u16, room: usize, patience: Duration) -> io::Result<bool> {
        let [request, reply] = self.types;
        let mut packet = vec![request, 0, 0, 0];
        packet.extend(self.identifier.to_be_bytes());
        packet.extend(sequence.to_be_bytes());
        packet.resize(ICMP_HEADER + room, 0);
        if self.destination.is_ipv4() {
            let sum = checksum(&packet).to_be_bytes();
            packet.splice(2..4, sum);
        }
        match self.socket.send_to(&packet, &self.destination.into()) {
            // A device of this machine has dropped it (IPv6 tells so).
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(false),
            sent => sent?,
        };
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 256];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.socket.set_read_timeout(Some(left))?;
            let Ok(length) = (&self.socket).read(&mut buffer) else {
                return Ok(false);
            };
            // A raw socket of IPv4 gives the IP header too.
            let header = if self.destination.is_ipv4() { 20 } else { 0 };
            let received = buffer.get(..length).and_then(|bytes| bytes.get(header..));
            let received = received.and_then(|bytes| bytes.get(..ICMP_HEADER));
            let Some([kind, _, _, _, identifier @ .., a, b]) = received else {
                continue;
            };
            if *kind == reply
                && identifier == self.identifier.to_be_bytes()
                && [*a, *b] == sequence.to_be_bytes()
            {
                return Ok(true);
            }
        }
    }
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<2>();
    let words = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)));
    let rest = rest.first().map(|byte| u32::from(*byte) << 8);
    let mut sum: u32 = words.chain(rest).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
