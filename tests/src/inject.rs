//! Frames as bytes: put on a wire, and read off it.
//!
//! What a capture proves depends on where the hooks are. A packet socket sees a *received* frame
//! after XDP and before TCX ingress: it never sees what XDP dropped, and it does see what TCX
//! ingress drops a moment later. It sees a *sent* frame only once TCX egress has passed it. So a
//! capture on the far end of the wire is the truth about egress, and a capture behind a bridge is
//! the truth about what a guest's interface let through; the truth about ingress to a host itself
//! is a listening socket there ([`crate::sockets`]) or a counter.
//!
//! Frames injected *on* a protected host's own interface leave through its egress hook; those
//! injected at the other end of the wire arrive at its ingress hook.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, LinkAddr, MsgFlags, MultiHeaders, SockFlag,
    SockProtocol, SockType, bind, recv, recvmsg, send, sendmmsg, setsockopt, socket,
};
use nix::{cmsg_space, libc, setsockopt_impl, sockopt_impl};

use crate::lab::Host;

sockopt_impl!(
    /// Asks for what the kernel took out of a frame: the outer VLAN tag.
    PacketAuxdata,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_AUXDATA,
    bool
);

sockopt_impl!(
    /// Leaves out what this host sends, which in a flood would fill the socket's buffer.
    PacketIgnoreOutgoing,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_IGNORE_OUTGOING,
    bool
);

sockopt_impl!(
    /// Says in front of each frame how much of it is headers.
    PacketVnetHdr,
    SetOnly,
    libc::SOL_PACKET,
    PACKET_VNET_HDR,
    bool
);

/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/if_packet.h#L58>
const PACKET_VNET_HDR: libc::c_int = 15;
/// `sizeof(struct virtio_net_hdr)`.
const VNET_HEADER: usize = 10;
/// `sizeof(struct tpacket_auxdata)`.
const AUXDATA: usize = 20;
const LONGEST_FRAME: usize = 65_536 + 14;

/// Sends frames on one interface.
#[derive(Debug)]
pub struct Injector {
    socket: OwnedFd,
    /// How many bytes of a frame are linear, where the sender says so.
    linear: Option<u16>,
}

impl Injector {
    /// Opens `interface` of `host` for sending.
    pub fn on(host: &Host, interface: &str) -> Result<Self> {
        let link = host.link(interface)?;
        // Protocol 0: a socket that only sends must not queue what arrives.
        let socket = host.enter(|| open(None))?;
        bind(socket.as_raw_fd(), &link).with_context(|| format!("binding to {interface}"))?;
        Ok(Self {
            socket,
            linear: None,
        })
    }

    /// The same, and the kernel makes no more than so many bytes of a frame linear, once it no
    /// longer fits a page.
    pub fn on_with_linear(host: &Host, interface: &str, linear: u16) -> Result<Self> {
        let injector = Self::on(host, interface)?;
        setsockopt(&injector.socket, PacketVnetHdr, &true).context("asking for headers")?;
        Ok(Self {
            linear: Some(linear),
            ..injector
        })
    }

    /// Sends one frame as it is.
    ///
    /// A frame that an egress hook of the same host drops counts as sent. The kernel refuses
    /// frames shorter than an Ethernet header or longer than the interface's MTU.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let mut bytes = Vec::new();
        if let Some(linear) = self.linear {
            bytes.resize(VNET_HEADER, 0);
            // The header's fields are in the machine's byte order; eBPF's target is little-endian too.
            bytes[2..4].copy_from_slice(&linear.to_le_bytes());
        }
        bytes.extend_from_slice(frame);
        match send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty()) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(sent) => bail!("only {sent} of {} bytes were sent", bytes.len()),
            Err(Errno::ENOBUFS) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("sending {} bytes", frame.len())),
        }
    }

    /// Sends frames in bulk, for floods. Returns how many an egress hook of the same host dropped.
    pub fn send_all(&self, frames: &[Vec<u8>]) -> Result<usize> {
        let slices: Vec<_> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
        let mut left = &slices[..];
        let mut dropped = 0;
        while !left.is_empty() {
            let mut headers = MultiHeaders::<()>::preallocate(left.len(), None);
            let to = vec![None; left.len()];
            let none: &[ControlMessage<'_>] = &[];
            let fd = self.socket.as_raw_fd();
            let sent = match sendmmsg(fd, &mut headers, left, to, none, MsgFlags::empty()) {
                Ok(sent) => sent.count(),
                Err(Errno::ENOBUFS) => 0,
                Err(error) => return Err(error).context("sending frames"),
            };
            // The kernel tells nothing of the frame it stopped at, but that it was not sent.
            dropped += usize::from(sent < left.len());
            left = left.get(sent + 1..).unwrap_or_default();
        }
        Ok(dropped)
    }
}

/// Sends one frame on an interface of `host`.
pub fn inject(host: &Host, interface: &str, frame: &[u8]) -> Result<()> {
    Injector::on(host, interface)?.send(frame)
}

/// Reads the frames that an interface receives from the moment this exists.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
    ifindex: usize,
}

impl Capture {
    /// Starts reading what `interface` of `host` receives.
    pub fn on(host: &Host, interface: &str) -> Result<Self> {
        let link = host.link(interface)?;
        let socket = host.enter(|| open(Some(SockProtocol::EthAll)))?;
        setsockopt(&socket, PacketAuxdata, &true).context("asking for VLAN tags")?;
        setsockopt(&socket, PacketIgnoreOutgoing, &true).context("asking for what comes in")?;
        bind(socket.as_raw_fd(), &link).with_context(|| format!("binding to {interface}"))?;
        // What was heard before that may have left no room.
        while recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT).is_ok() {}
        Ok(Self {
            socket,
            ifindex: link.ifindex(),
        })
    }

    /// The next frame, its outer VLAN tag back in place, or `None` when none comes in time.
    ///
    /// Checksums of packets that the sending kernel made may be unfinished, as on any veth.
    pub fn next(&self, within: Duration) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).context("waiting that long")?;
            let mut wanted = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut wanted, timeout) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error).context("waiting for a frame"),
            }
            if let Some(frame) = self.read()? {
                return Ok(Some(frame));
            }
        }
    }

    /// The first frame for which `wanted` holds, or `None` when none comes in time.
    pub fn find(
        &self,
        within: Duration,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + within;
        while let Some(frame) = self.next(deadline.saturating_duration_since(Instant::now()))? {
            if wanted(&frame) {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Whether exactly this frame arrives in time.
    pub fn sees(&self, frame: &[u8], within: Duration) -> Result<bool> {
        Ok(self.find(within, |seen| seen == frame)?.is_some())
    }

    /// One queued frame; `None` when it was sent, not received, or is another interface's.
    fn read(&self) -> Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; LONGEST_FRAME];
        let mut control = cmsg_space!([u8; AUXDATA]);
        let (length, from, tag) = {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let message = recvmsg::<LinkAddr>(
                self.socket.as_raw_fd(),
                &mut slices,
                Some(&mut control),
                MsgFlags::empty(),
            )
            .context("receiving a frame")?;
            let tag = message
                .cmsgs()
                .context("control messages")?
                .find_map(removed_tag);
            (message.bytes, message.address, tag)
        };
        bytes.truncate(length);
        // Until it is bound, a packet socket hears every interface of its namespace.
        let received = from.is_some_and(|from| {
            from.ifindex() == self.ifindex && from.pkttype() != libc::PACKET_OUTGOING
        });
        if let (Some(tag), 12..) = (tag, bytes.len()) {
            bytes.splice(12..12, tag);
        }
        Ok(received.then_some(bytes))
    }
}

fn open(protocol: Option<SockProtocol>) -> Result<OwnedFd> {
    socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )
    .context("opening a packet socket")
}

/// The four bytes that were taken out of the frame.
///
/// `struct tpacket_auxdata` ends in two `__u16` of the machine's byte order: TCI and TPID.
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/if_packet.h#L133>
fn removed_tag(message: ControlMessageOwned) -> Option<[u8; 4]> {
    let ControlMessageOwned::Unknown(message) = message else {
        return None;
    };
    let bytes: [u8; AUXDATA] = message.data_bytes.get(..AUXDATA)?.try_into().ok()?;
    let [s0, s1, s2, s3, .., tci0, tci1, tpid0, tpid1] = bytes;
    if u32::from_le_bytes([s0, s1, s2, s3]) & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    Some([tpid1, tpid0, tci1, tci0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Lab;
    use crate::packets::words::{frame, packet};
    use crate::sockets::UdpEcho;

    const SOON: Duration = Duration::from_millis(500);

    fn arrives(words: &str) {
        let pair = Lab::pair().unwrap();
        let capture = Capture::on(&pair.host, "eth0").unwrap();
        let frame = frame(words).unwrap();
        inject(&pair.world, "eth0", &frame).unwrap();
        assert!(capture.sees(&frame, SOON).unwrap(), "{words}");
    }

    #[test]
    fn a_capture_sees_an_injected_frame_byte_for_byte() {
        arrives("udp 198.51.100.7:9 > 10.0.0.10:9 payload 20");
    }

    #[test]
    fn a_capture_sees_vlan_tags() {
        arrives("udp 198.51.100.7:9 > 10.0.0.10:9 vlan 5");
        arrives("udp 198.51.100.7:9 > 10.0.0.10:9 qinq 7/5");
    }

    #[test]
    fn a_capture_does_not_see_what_its_own_host_sends() {
        let pair = Lab::pair().unwrap();
        let capture = Capture::on(&pair.world, "eth0").unwrap();
        let frame = frame("udp 198.51.100.7:9 > 10.0.0.10:9 payload 20").unwrap();
        inject(&pair.world, "eth0", &frame).unwrap();
        assert!(!capture.sees(&frame, Duration::from_millis(100)).unwrap());
    }

    #[test]
    fn the_kernel_takes_what_is_built_here_for_real() {
        let pair = Lab::pair().unwrap();
        let mac = pair.host.mac("eth0").unwrap();
        let echo = UdpEcho::listen(&pair.host, ":53").unwrap();
        for (from, words) in [
            (
                "198.51.100.7:40000",
                "udp 198.51.100.7:40000 > 10.0.0.10:53 payload 40 options 01",
            ),
            (
                "[2001:db8:bb::5]:7",
                "udp [2001:db8:bb::5]:7 > [2001:db8::10]:53 payload 40",
            ),
            (
                "[2001:db8::2]:7",
                "udp [2001:db8::2]:7 > [2001:db8::10]:53 hop-by-hop payload 40",
            ),
        ] {
            inject(
                &pair.world,
                "eth0",
                &packet(words).unwrap().to_mac(mac).frame(),
            )
            .unwrap();
            assert!(
                echo.gets(|got| got.0.to_string() == from && got.1 == [b'x'; 40]),
                "{words}"
            );
        }
    }

    #[test]
    fn the_kernel_puts_fragments_together_again() {
        let pair = Lab::pair().unwrap();
        let mac = pair.host.mac("eth0").unwrap();
        let echo = UdpEcho::listen(&pair.host, ":53").unwrap();
        for words in [
            "udp 198.51.100.7:40000 > 10.0.0.10:53 payload 100",
            "udp [2001:db8::2]:40000 > [2001:db8::10]:53 payload 101",
        ] {
            let whole = packet(words).unwrap().to_mac(mac);
            for part in whole.fragments(9, 48) {
                inject(&pair.world, "eth0", &part.frame()).unwrap();
            }
        }
        assert!(echo.gets(|got| got.1.len() == 100));
        assert!(echo.gets(|got| got.1.len() == 101));
    }

    #[test]
    fn a_capture_ends_in_time_when_nothing_comes() {
        let lab = Lab::new().unwrap();
        let host = lab.host("a").unwrap();
        let start = Instant::now();
        let capture = Capture::on(&host, "lo").unwrap();
        assert_eq!(capture.next(Duration::from_millis(50)).unwrap(), None);
        assert!(start.elapsed() >= Duration::from_millis(50));
    }
}
