//! Netlink families that no crate speaks among those that are here: whole messages and their attributes.
#![expect(
    clippy::host_endian_bytes,
    reason = "netlink speaks the host's order, and never leaves the host"
)]

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// `struct nlmsghdr`.
const HEADER: usize = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The bits of an attribute's kind that say what its value is like.
const FLAGS: u16 = 0xc000;

/// The kernel answers at once, so a longer silence is no answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// One more than any answer of the kernel's.
const BUFFER: usize = 1 << 16;

/// A netlink socket of one family in the namespace it was opened in.
pub(super) struct Kernel(Socket);

impl Kernel {
    pub(super) fn open(family: i32) -> io::Result<Self> {
        let family = Protocol::from(family);
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(family))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// The body of the answer.
    pub(super) fn ask(&self, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
        self.send(kind, 0, body)?;
        let mut answer = vec![0; BUFFER];
        let length = (&self.0).read(&mut answer)?;
        let (_, body, _) = first(&answer[..length])?;
        Ok(body.to_vec())
    }

    /// The bodies of all that the kernel has of a kind.
    pub(super) fn dump(&self, kind: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.send(kind, NLM_F_DUMP, body)?;
        let mut bodies = Vec::new();
        let mut answer = vec![0; BUFFER];
        loop {
            let length = (&self.0).read(&mut answer)?;
            let mut rest = &answer[..length];
            while !rest.is_empty() {
                let (kind, body, behind) = first(rest)?;
                if kind == NLMSG_DONE {
                    return Ok(bodies);
                }
                bodies.push(body.to_vec());
                rest = behind;
            }
        }
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let length = (HEADER + body.len()) as u32;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        // Sequence and port: each question has a socket's only answer.
        message.extend([0; 8]);
        message.extend(body);
        (&self.0).write_all(&message)
    }
}

/// The kind and the body of the first message, and what is behind it.
fn first(bytes: &[u8]) -> io::Result<(u16, &[u8], &[u8])> {
    let split = || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let body = bytes.get(HEADER..length)?;
        let behind = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body, behind))
    };
    let (kind, body, behind) = split().ok_or(io::ErrorKind::InvalidData)?;
    if kind == NLMSG_ERROR {
        let code = body
            .first_chunk()
            .map_or(-libc::EPROTO, |code| i32::from_ne_bytes(*code));
        return Err(io::Error::from_raw_os_error(-code));
    }
    Ok((kind, body, behind))
}

/// An attribute for a question.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// The kinds and values of attributes, up to the first that is not whole.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & !FLAGS;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of a kind.
pub(super) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut found = attributes(bytes).filter(|(kind, _)| *kind == wanted);
    found.next().map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_found_behind_a_padded_one() {
        let bytes = [attribute(2, b"ab\0"), attribute(1 | 0x8000, &[7, 0])].concat();
        assert_eq!(find(&bytes, 1), Some(&[7_u8, 0][..]));
        assert_eq!(find(&bytes, 3), None);
        assert_eq!(find(&bytes[..2], 2), None);
        assert_eq!(attributes(&bytes).count(), 2);
    }

    #[test]
    fn an_error_is_told_by_its_number() {
        let mut message = vec![20, 0, 0, 0, 2, 0];
        message.resize(HEADER, 0);
        message.extend((-libc::ENODEV).to_ne_bytes());
        if cfg!(target_endian = "little") {
            let error = first(&message).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        }
        assert!(first(&message[..3]).is_err());
    }
}
