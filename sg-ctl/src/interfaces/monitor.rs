//! Word from the kernel that devices or addresses of a network namespace have changed.
//!
//! What has changed is asked for again by whoever wants to know: a message says how one thing was at
//! one moment, and messages are lost where many come at once (rtnetlink(7), netlink(7) on ENOBUFS).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::error::{Error, Result};
use super::netns::{Netns, NetnsId};

/// RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR and RTNLGRP_IPV6_IFADDR, as bits of a socket address.
const GROUPS: u32 = 1 | 1 << 4 | 1 << 8;

/// Room for the messages of some thousand devices.
const RECEIVE_BUFFER: usize = 1 << 21;

/// Hears of every change to the devices and addresses of one network namespace. Its file is readable
/// when something has changed.
pub struct Monitor {
    netns: NetnsId,
    socket: Socket,
}

impl Monitor {
    /// Listens from now on.
    pub fn open(netns: &Netns) -> Result<Self> {
        let socket = netns.enter(|| -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, GROUPS))?;
            socket.set_non_blocking(true)?;
            // A smaller buffer loses messages sooner, and that is noticed.
            let _ = socket.set_rx_buf_sz(RECEIVE_BUFFER);
            Ok(socket)
        })?;
        let failed = |source| Error::system(format!("listen for changes in {netns}"), source);
        Ok(Self {
            netns: netns.id(),
            socket: socket.map_err(failed)?,
        })
    }

    /// The namespace it listens in.
    pub fn netns(&self) -> NetnsId {
        self.netns
    }

    /// Takes in all that has changed until now.
    pub fn take_in(&self) -> Result<()> {
        let mut message = Vec::with_capacity(1 << 16);
        loop {
            message.clear();
            match self.socket.recv(&mut message, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Messages were lost, which says as much as a message does.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(source) => return Err(Error::system("read from netlink", source)),
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
