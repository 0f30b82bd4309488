//! Requests of the routing netlink family that no crate has a call for.

use futures_util::StreamExt as _;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{Error, Handle};

use std::io;

use crate::interfaces::{self, Netns};

/// Runs `work` inside a network namespace, with a netlink socket of that namespace.
pub(super) fn with_handle<T: Send>(
    netns: &Netns,
    work: impl AsyncFnOnce(Handle) -> io::Result<T> + Send,
) -> interfaces::Result<io::Result<T>> {
    netns.enter(|| interfaces::converse(work))?
}

/// Sends a request and waits for the kernel's acknowledgement.
pub(super) async fn acknowledged(
    mut handle: Handle,
    message: RouteNetlinkMessage,
    flags: u16,
) -> io::Result<()> {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut answers = handle.request(request).map_err(io_error)?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
        {
            return Err(error.to_io());
        }
    }
    Ok(())
}

/// The kernel's error number, where there is one.
pub(super) fn io_error(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(error) => error.to_io(),
        other => io::Error::other(other),
    }
}
