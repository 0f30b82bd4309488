//! Whether a device's driver runs XDP programs itself, asked of the kernel's `netdev` family.
//!
//! Generic netlink has no crate among those that are here already, and this is two messages: the
//! number of the family, and the features of one device (`Documentation/netlink/specs/netdev.yaml`
//! of the kernel; since 6.3).
#![expect(
    clippy::host_endian_bytes,
    reason = "netlink speaks the host's order, and never leaves the host"
)]

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};
use std::os::fd::{AsRawFd as _, OwnedFd};

/// `struct nlmsghdr` and `struct genlmsghdr`.
const HEADERS: usize = 16 + 4;
const NLM_F_REQUEST: u16 = 1;

const CONTROLLER: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
/// The driver passes, drops and sends frames by a program's verdict.
const NETDEV_XDP_ACT_BASIC: u64 = 1;

/// Whether the driver of a device in the current namespace has native XDP; `None` when the kernel
/// does not say.
pub fn has_native_xdp(ifindex: u32) -> Option<bool> {
    let kernel = Kernel::open()?;
    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let answer = kernel.ask(&message(CONTROLLER, CTRL_CMD_GETFAMILY, 2, &name))?;
    let family = find(&answer, CTRL_ATTR_FAMILY_ID)?.first_chunk()?;
    let device = attribute(NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes());
    let family = u16::from_ne_bytes(*family);
    let answer = kernel.ask(&message(family, NETDEV_CMD_DEV_GET, 1, &device))?;
    let features = find(&answer, NETDEV_A_DEV_XDP_FEATURES)?.first_chunk()?;
    Some(u64::from_ne_bytes(*features) & NETDEV_XDP_ACT_BASIC != 0)
}

struct Kernel(OwnedFd);

impl Kernel {
    fn open() -> Option<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkGeneric,
        );
        let socket = socket.ok()?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).ok()?;
        Some(Self(socket))
    }

    /// The answer; `None` where it is an error.
    fn ask(&self, message: &[u8]) -> Option<Vec<u8>> {
        let socket = self.0.as_raw_fd();
        send(socket, message, MsgFlags::empty()).ok()?;
        let mut answer = vec![0; 1 << 16];
        let length = recv(socket, &mut answer, MsgFlags::empty()).ok()?;
        answer.truncate(length);
        // An answer is of the family that was asked, an error is not.
        (answer.get(4..6)? == message.get(4..6)?).then_some(answer)
    }
}

fn message(family: u16, command: u8, version: u8, attributes: &[u8]) -> Vec<u8> {
    let length = (HEADERS + attributes.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and port: each question has a socket's only answer.
    message.extend([0; 8]);
    message.extend([command, version, 0, 0]);
    message.extend(attributes);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// The value of the first attribute of a kind.
fn find(answer: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = answer.get(HEADERS..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_found_behind_a_padded_one() {
        let attributes = [attribute(2, b"ab\0"), attribute(1, &[7, 0])].concat();
        let answer = message(16, 1, 1, &attributes);
        assert_eq!(find(&answer, 1), Some(&[7_u8, 0][..]));
        assert_eq!(find(&answer, 3), None);
        assert_eq!(find(&answer[..22], 2), None);
    }

    #[test]
    fn a_device_that_is_not_there_has_no_features() {
        assert_eq!(has_native_xdp(u32::MAX - 1), None);
    }
}
