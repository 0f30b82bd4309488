//! Real frames on real devices: received from the other end of the wire, or sent by a packet socket.
//! The verdict is known by its counter.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sg_common::packet::Direction;
use sg_common::report::Reason;
use sg_ctl::policy::model::Policy;

use super::kernel::{Hooks, Kernel, far_end};
use crate::corpus::{Evaluator, Flows, PolicyText, is_bare};
use crate::inject::Injector;

/// What no packet socket takes, being no Ethernet header.
const SHORTEST: usize = 14;
/// No frame takes this long to cross a wire; one that is never counted must not hang the tests.
const LONGEST: Duration = Duration::from_secs(5);

/// How much of a frame is in its linear part when a hook sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linear {
    /// All of it.
    Whole,
    /// The Ethernet header only. The kernel does so for frames larger than a page.
    EthernetHeader,
}

/// Devices, and sockets at both ends of their wires.
pub struct Devices {
    kernel: Kernel,
    linear: Linear,
    injectors: HashMap<String, Injector>,
}

impl Devices {
    /// Frames reach the hooks like this.
    pub fn over(kernel: Kernel, linear: Linear) -> Self {
        Self {
            kernel,
            linear,
            injectors: HashMap::new(),
        }
    }

    fn injector(&mut self, device: &str) -> Result<&Injector> {
        if !self.injectors.contains_key(device) {
            let host = self.kernel.host();
            let injector = match self.linear {
                Linear::Whole => Injector::on(host, device)?,
                Linear::EthernetHeader => Injector::on_with_linear(host, device, 14)?,
            };
            self.injectors.insert(device.to_owned(), injector);
        }
        self.injectors.get(device).context("no injector")
    }
}

/// The kernel takes the outer tag off a received frame before TC sees it, and drops
/// what has half a one (`skb_vlan_untag`).
fn ends_in_its_tag(frame: &[u8]) -> bool {
    matches!(frame, [_, _, _, _, _, _, _, _, _, _, _, _, 0x81, 0x00, tag @ ..] if tag.len() < 4)
}

impl Evaluator for Devices {
    fn forget(&mut self, _room: Option<usize>) -> Result<()> {
        self.kernel.forget()
    }

    fn put_in_force(&mut self, text: &PolicyText, policy: &Policy) -> Result<()> {
        self.kernel.put_in_force(text, policy)
    }

    fn wait(&mut self, seconds: u64) -> Result<()> {
        self.kernel.wait(seconds)
    }

    fn judge(
        &mut self,
        interface: &str,
        direction: Direction,
        frame: &[u8],
    ) -> Result<Option<Reason>> {
        let place = self.kernel.place(interface, direction)?;
        let is_dropped_before =
            place.received && self.kernel.hooks() == Hooks::Tc && ends_in_its_tag(frame);
        if frame.len() < SHORTEST || is_bare(interface) || is_dropped_before {
            return Ok(None);
        }
        let device = match (place.received, interface.strip_prefix("eth")) {
            (true, number) => far_end(number.context("eth0 or eth1")?.parse()?),
            (false, _) => interface.to_owned(),
        };
        self.kernel.know_counters(&place)?;
        self.kernel.hold_the_clock()?;
        self.injector(&device)?.send(frame)?;
        let deadline = Instant::now() + LONGEST;
        loop {
            if let Some(reason) = self.kernel.counted(&place, None)? {
                return Ok(Some(reason));
            }
            anyhow::ensure!(Instant::now() < deadline, "no hook has seen it");
            thread::sleep(Duration::from_micros(200));
        }
    }

    fn flows(&mut self) -> Result<Flows> {
        self.kernel.flows()
    }
}
