//! A tap device whose other end is the test: what a guest without a kernel would send and get.
//!
//! A guest chooses how much of a frame is linear when it reaches the hooks ([`Tap::send_linear`]),
//! which no socket can.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::lab::Host;

/// `struct virtio_net_hdr`, in front of every frame of a device with `IFF_VNET_HDR`.
const VNET_HEADER: usize = 10;
const LONGEST_FRAME: usize = 65_536 + 14;

/// The guest's end of a tap device. Dropping it removes the device.
pub struct Tap {
    device: SyncDevice,
}

impl Tap {
    /// Makes the device on `host` and brings it up.
    pub fn on(host: &Host, name: &str) -> Result<Self> {
        Self::with_layer(host, name, Layer::L2)
    }

    /// The same for a tun device, whose frames are IP packets.
    pub fn without_ethernet(host: &Host, name: &str) -> Result<Self> {
        Self::with_layer(host, name, Layer::L3)
    }

    fn with_layer(host: &Host, name: &str, layer: Layer) -> Result<Self> {
        let device = host.enter(|| {
            DeviceBuilder::new()
                .name(name)
                .layer(layer)
                .offload(true)
                .build_sync()
                .with_context(|| format!("making tap {name}"))
        })?;
        host.ip(&format!("link set {name} up"))?;
        Ok(Self { device })
    }

    /// The guest sends a frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.send_linear(frame, 0)
    }

    /// The guest sends a frame and says how many of its bytes are headers. The kernel makes only
    /// those linear, once the frame no longer fits a page.
    pub fn send_linear(&self, frame: &[u8], headers: u16) -> Result<()> {
        // The header's fields are in the machine's byte order; eBPF's target is little-endian too.
        let mut header = [0; VNET_HEADER];
        header[2..4].copy_from_slice(&headers.to_le_bytes());
        self.send_behind(header, frame)
    }

    /// The guest sends a TCP frame that stands for several: each has so many bytes of its payload.
    pub fn send_merged(&self, frame: &[u8], headers: u16, size: u16) -> Result<()> {
        const NEEDS_CHECKSUM: u8 = 1;
        const TCP_OVER_IPV4: u8 = 1;
        const TCP_OVER_IPV6: u8 = 4;
        let is_v4 = frame.get(14).is_some_and(|first| first >> 4 == 4);
        let mut header = [0; VNET_HEADER];
        header[0] = NEEDS_CHECKSUM;
        header[1] = if is_v4 { TCP_OVER_IPV4 } else { TCP_OVER_IPV6 };
        header[2..4].copy_from_slice(&headers.to_le_bytes());
        header[4..6].copy_from_slice(&size.to_le_bytes());
        // Where TCP begins, and where in it the checksum is.
        header[6..8].copy_from_slice(&(headers - 20).to_le_bytes());
        header[8..10].copy_from_slice(&16_u16.to_le_bytes());
        self.send_behind(header, frame)
    }

    fn send_behind(&self, header: [u8; VNET_HEADER], frame: &[u8]) -> Result<()> {
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(frame);
        let sent = self.device.send(&bytes).context("sending from the guest")?;
        ensure!(
            sent == bytes.len(),
            "only {sent} of {} bytes were taken",
            bytes.len()
        );
        Ok(())
    }

    /// The next frame the guest gets, or `None` when none comes in time.
    pub fn receive(&self, within: Duration) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).context("waiting that long")?;
            let mut wanted = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
            match poll(&mut wanted, timeout) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("waiting for a frame"),
            }
        }
        let mut bytes = vec![0; VNET_HEADER + LONGEST_FRAME];
        let length = self
            .device
            .recv(&mut bytes)
            .context("receiving at the guest")?;
        Ok(bytes.get(VNET_HEADER..length).map(<[u8]>::to_vec))
    }

    /// Whether a frame for which `wanted` holds reaches the guest in time.
    pub fn gets(&self, within: Duration, wanted: impl Fn(&[u8]) -> bool) -> Result<bool> {
        let deadline = Instant::now() + within;
        while let Some(frame) = self.receive(deadline.saturating_duration_since(Instant::now()))? {
            if wanted(&frame) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::lab::Lab;
    use crate::packets::words::{frame, packet};
    use crate::sockets::{PATIENCE, UdpEcho};

    #[test]
    fn a_guest_sends_and_gets_frames() {
        let lab = Lab::new().unwrap();
        let host = lab.host("machine").unwrap();
        let tap = Tap::on(&host, "tap0").unwrap();
        host.add_addresses("tap0", &["10.0.0.1/24"]).unwrap();
        let words = "udp 10.0.0.10:40000 > 10.0.0.1:53 payload 5000";
        let echo = UdpEcho::listen(&host, "10.0.0.1:53").unwrap();
        host.ip("link set tap0 mtu 9000").unwrap();
        host.ip("neighbour add 10.0.0.10 lladdr 02:00:00:00:00:01 dev tap0")
            .unwrap();

        let packet = packet(words).unwrap().to_mac(host.mac("tap0").unwrap());
        tap.send_linear(&packet.frame(), 14).unwrap();
        assert!(
            echo.gets(|got| got.1.len() == 5000),
            "the machine gets what the guest sends"
        );
        let reply = |frame: &[u8]| frame.get(34..38) == Some(&[0, 53, 0x9c, 0x40]);
        assert!(
            tap.gets(PATIENCE, reply).unwrap(),
            "the guest gets what the machine sends"
        );
    }

    #[test]
    fn the_device_goes_with_the_guest() {
        let lab = Lab::new().unwrap();
        let host = lab.host("machine").unwrap();
        let tap = Tap::on(&host, "tap0").unwrap();
        tap.send(&frame("arp who-has 10.0.0.10 tell 10.0.0.1").unwrap())
            .unwrap();
        assert!(host.link("tap0").is_ok());
        drop(tap);
        // A child that another test starts has the descriptor too, until it runs its program.
        let deadline = Instant::now() + PATIENCE;
        while host.link("tap0").is_ok() {
            assert!(Instant::now() < deadline, "the device is there still");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
