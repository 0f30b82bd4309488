//! Takes somebody else's XDP program off a device, when the operator has said so.

use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::{LinkAttribute, LinkXdp};

use super::Error;
use super::netlink::{io_error, with_handle};
use crate::interfaces::Netns;

/// Takes the program off, as `ip link set … xdp off` does. A program that its owner holds by a link
/// stays: only the owner can take that away, and attaching then says so.
pub(super) fn remove_xdp(netns: &Netns, ifindex: u32) -> Result<(), Error> {
    let removed = with_handle(netns, async move |handle| {
        let none = LinkAttribute::Xdp(vec![LinkXdp::Fd(-1)]);
        let message = LinkUnspec::new_with_index(ifindex)
            .append_extra_attribute(none)
            .build();
        handle.link().set(message).execute().await.map_err(io_error)
    })?;
    removed.map_err(|source| Error::RemoveXdp { ifindex, source })
}
