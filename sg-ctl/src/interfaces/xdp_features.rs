//! Whether a device's driver runs XDP programs itself, asked of the kernel's `netdev` family.
//!
//! Generic netlink has no crate among those that are here already, and this is two messages: the
//! number of the family, and the features of one device (`Documentation/netlink/specs/netdev.yaml`
//! of the kernel; since 6.3).
#![expect(
    clippy::host_endian_bytes,
    reason = "netlink speaks the host's order, and never leaves the host"
)]

use super::raw::{Kernel, attribute, find};

/// `struct genlmsghdr`.
const HEADER: usize = 4;

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
    let kernel = Kernel::open(libc::NETLINK_GENERIC).ok()?;
    let ask = |family, command, version, attributes: &[u8]| {
        let body = [&[command, version, 0, 0], attributes].concat();
        kernel.ask(family, &body).ok()
    };
    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let answer = ask(CONTROLLER, CTRL_CMD_GETFAMILY, 2, &name)?;
    let family = find(answer.get(HEADER..)?, CTRL_ATTR_FAMILY_ID)?.first_chunk()?;
    let device = attribute(NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes());
    let answer = ask(u16::from_ne_bytes(*family), NETDEV_CMD_DEV_GET, 1, &device)?;
    let features = find(answer.get(HEADER..)?, NETDEV_A_DEV_XDP_FEATURES)?.first_chunk()?;
    Some(u64::from_ne_bytes(*features) & NETDEV_XDP_ACT_BASIC != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_has_no_features() {
        assert_eq!(has_native_xdp(u32::MAX - 1), None);
    }
}
