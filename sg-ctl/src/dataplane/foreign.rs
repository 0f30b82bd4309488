//! Takes somebody else's XDP program off a device, when the operator has said so.

use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::{LinkAttribute, LinkXdp};

use super::Error;
use crate::interfaces::Netns;

/// Takes the program off, as `ip link set … xdp off` does. A program that its owner holds by a link
/// stays: only the owner can take that away, and attaching then says so.
pub(super) fn remove_xdp(netns: &Netns, ifindex: u32) -> Result<(), Error> {
    netns
        .enter(|| ask(ifindex))?
        .map_err(|source| Error::RemoveXdp { ifindex, source })
}

fn ask(ifindex: u32) -> Result<(), std::io::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let none = LinkAttribute::Xdp(vec![LinkXdp::Fd(-1)]);
        let message = LinkUnspec::new_with_index(ifindex)
            .append_extra_attribute(none)
            .build();
        handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(std::io::Error::other)
    })
}
