//! The SSH session that a command is given in, and whether a policy would let it in again.
//!
//! `sudo` takes the session's variables away, so the processes above are asked too. What the
//! session's packets would get is what the tables say of a new connection between its ends: one
//! that is tracked may live on, and still nobody could come back.

use std::env;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process;

use serde::{Deserialize, Serialize};
use sg_common::ids::Generation;
use sg_common::report::Verdict;

use crate::compile::host::HostTables;
use crate::compile::image::Image;
use crate::dataplane::Device;
use crate::interfaces::{LinkLayer, Netns};

/// What sshd(8) sets for each session: client, its port, server, its port.
const VARIABLE: &str = "SSH_CONNECTION";

/// More processes than stand between a shell and its sshd.
const ANCESTORS: usize = 32;

/// Both ends of an SSH session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Where the user is.
    pub client: SocketAddr,
    /// This machine's end.
    pub server: SocketAddr,
}

/// A policy would not let this session in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this SSH session comes from {client} to {server}, and the new policy drops such connections \
     ({reason}): this session stays open, but you cannot connect again{advice}"
)]
pub struct SessionWarning {
    client: IpAddr,
    server: SocketAddr,
    reason: &'static str,
    advice: &'static str,
}

impl Session {
    /// The session of this process or, where it has none, of the nearest one above it.
    pub fn current() -> Option<Self> {
        if let Ok(value) = env::var(VARIABLE) {
            return Self::parse(&value);
        }
        let mut pid = process::id();
        for _ in 0..ANCESTORS {
            pid = parent(pid)?;
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let found = environment.split(|byte| *byte == 0).find_map(|variable| {
                let text = str::from_utf8(variable).ok()?;
                text.strip_prefix(VARIABLE)?.strip_prefix('=')
            });
            if let Some(value) = found {
                return Self::parse(value);
            }
        }
        None
    }

    fn parse(value: &str) -> Option<Self> {
        let mut words = value.split_whitespace();
        let mut end = || {
            let address = words.next()?;
            // A link-local address is followed by its interface.
            let address = address.split('%').next().unwrap_or(address);
            let address: IpAddr = address.parse().ok()?;
            let port = words.next()?.parse().ok()?;
            Some(SocketAddr::new(address.to_canonical(), port))
        };
        Some(Self {
            client: end()?,
            server: end()?,
        })
    }

    /// The frame that opened it, or would open it again.
    fn opening_frame(&self, link_layer: LinkLayer) -> Option<Vec<u8>> {
        let (source, destination) = (self.client.ip(), self.server.ip());
        let mut segment = self.client.port().to_be_bytes().to_vec();
        segment.extend(self.server.port().to_be_bytes());
        // Sequence and acknowledgement, five words of header, SYN, window, checksum, urgent.
        segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
        let length = u16::try_from(segment.len()).ok()?;
        let (ethertype, header) = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = vec![0x45, 0];
                header.extend((20 + length).to_be_bytes());
                header.extend([0, 1, 0, 0, 64, 6, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                ([0x08, 0x00], header)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(length.to_be_bytes());
                header.extend([6, 64]);
                header.extend(source.octets());
                header.extend(destination.octets());
                ([0x86, 0xdd], header)
            }
            _ => return None,
        };
        let mut frame = Vec::new();
        if link_layer == LinkLayer::Ethernet {
            frame.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
            frame.extend(ethertype);
        }
        frame.extend(header);
        frame.extend(segment);
        Some(frame)
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything but ends at the last parenthesis; state and parent follow.
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
    parent.parse().ok().filter(|pid| *pid > 0)
}

/// Whether the tables would keep out whoever gives this command.
pub(super) fn judge(
    session: &Session,
    devices: &[Device],
    image: &Image,
    takes_itself_back: bool,
) -> Option<SessionWarning> {
    let here = Netns::current().ok()?.id();
    let device = devices.iter().find(|device| {
        let mut addresses = device.link.addresses.iter();
        device.netns.id() == here && addresses.any(|own| own.addr() == session.server.ip())
    })?;
    judge_at(session, device, image).map(|warning| SessionWarning {
        advice: match takes_itself_back {
            true => "",
            false => "; with `--confirm 60s` the change is rolled back unless you confirm it",
        },
        ..warning
    })
}

fn judge_at(session: &Session, device: &Device, image: &Image) -> Option<SessionWarning> {
    let mut interfaces = image.interfaces.values();
    let installed =
        interfaces.find(|found| found.vpc == device.vpc && found.name == device.name)?;
    let frame = session.opening_frame(device.link.link_layer)?;
    let tables = HostTables::new(image, Generation(1), 1);
    let interface = &installed.interface;
    let reason = tables.judge(interface, true, frame.as_slice(), &()).reason;
    match interface.enforce(reason) {
        Verdict::Pass => None,
        Verdict::Drop => Some(SessionWarning {
            client: session.client.ip(),
            server: session.server,
            reason: reason.name(),
            advice: "",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_as_sshd_writes_it() {
        let session = Session::parse("198.51.100.7 51234 192.0.2.1 22").unwrap();
        assert_eq!(session.client, "198.51.100.7:51234".parse().unwrap());
        assert_eq!(session.server, "192.0.2.1:22".parse().unwrap());
        let session = Session::parse("fe80::1%eth0 1 ::ffff:192.0.2.1 22").unwrap();
        assert_eq!(session.client, "[fe80::1]:1".parse().unwrap());
        assert_eq!(session.server, "192.0.2.1:22".parse().unwrap());
        assert_eq!(Session::parse("nonsense"), None);
    }

    #[test]
    fn the_process_above_this_one_is_found() {
        assert_eq!(
            parent(process::id()),
            Some(std::os::unix::process::parent_id())
        );
    }
}
