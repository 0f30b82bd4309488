//! Sockets at both ends of the devices' wires: real frames, received and sent.

use std::collections::HashMap;

use anyhow::{Context as _, Result};

use super::kernel::far_end;
use crate::corpus::is_bare;
use crate::inject::Injector;
use crate::lab::Host;
use crate::tap::Tap;

/// What no packet socket takes, being no Ethernet header.
const SHORTEST: usize = 14;

/// How much of a frame is in its linear part when a hook sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Linear {
    /// All of it.
    Whole,
    /// The Ethernet header only. The kernel does so for frames larger than a page.
    EthernetHeader,
}

/// The sockets of one namespace.
pub(super) struct Wires {
    host: Host,
    tun: Tap,
    injectors: HashMap<(String, Linear), Injector>,
}

impl Wires {
    pub(super) fn new(host: &Host, tun: Tap) -> Self {
        Self {
            host: host.clone(),
            tun,
            injectors: HashMap::new(),
        }
    }

    /// Has the device receive or send a frame. Says no when the frame cannot come to its hook.
    pub(super) fn send(
        &mut self,
        interface: &str,
        received: bool,
        may_lose_its_tag: bool,
        linear: Linear,
        frame: &[u8],
    ) -> Result<bool> {
        if frame.len() < SHORTEST || (received && may_lose_its_tag && ends_in_its_tag(frame)) {
            return Ok(false);
        }
        if is_bare(interface) {
            if received {
                self.tun.send(frame)?;
            }
            // A packet socket binds to devices with link-layer addresses only.
            return Ok(received);
        }
        let device = match received {
            true => {
                let number = interface.strip_prefix("eth").context("eth0 or eth1")?;
                far_end(number.parse()?)
            }
            false => interface.to_owned(),
        };
        self.injector(device, linear)?.send(frame)?;
        Ok(true)
    }

    fn injector(&mut self, device: String, linear: Linear) -> Result<&Injector> {
        let key = (device, linear);
        if !self.injectors.contains_key(&key) {
            let injector = match linear {
                Linear::Whole => Injector::on(&self.host, &key.0)?,
                Linear::EthernetHeader => Injector::on_with_linear(&self.host, &key.0, 14)?,
            };
            self.injectors.insert(key.clone(), injector);
        }
        self.injectors.get(&key).context("no injector")
    }
}

/// The kernel takes the outer tag off a received frame before TC sees it, and drops what has half a
/// one (`skb_vlan_untag`).
fn ends_in_its_tag(frame: &[u8]) -> bool {
    matches!(frame, [_, _, _, _, _, _, _, _, _, _, _, _, 0x81, 0x00, tag @ ..] if tag.len() < 4)
}
