//! The decision over the host's tables, by the long way; where a short way has an answer, it must be
//! the same, and do the same to the flows.

use anyhow::{Context, Result, ensure};
use sg_common::abi::{Interface, InterfaceFlags};
use sg_common::decide::Scratch;
use sg_common::ids::{Generation, Ticks};
use sg_common::packet::Direction;
use sg_common::report::Reason;
use sg_ctl::compile::host::HostTables;
use sg_ctl::compile::image::Image;
use sg_ctl::compile::{AttachedInterface, Limits, Settings, compile};
use sg_ctl::policy::mac::MacAddress;
use sg_ctl::policy::model::{OnRuleRemoval, Policy};

use super::{GUEST_MAC, addresses};
use crate::corpus::{Evaluator, Flows, PolicyText, is_bare};

const NETNS: u32 = 1;
const JIFFIES_PER_SECOND: u32 = 1000;
const ROOM: usize = 1 << 16;

/// A compiled policy on the host, and its flows. A clone goes its own way.
#[derive(Clone)]
pub struct HostEvaluator {
    image: &'static Image,
    generation: Generation,
    tables: HostTables<'static>,
    milliseconds: u64,
    /// What the packets before have left there, which must not matter.
    scratch: Scratch,
}

impl HostEvaluator {
    /// Nothing is in force.
    pub fn new() -> Self {
        Self::with_room(ROOM)
    }

    fn with_room(room: usize) -> Self {
        let image: &'static Image = Box::leak(Box::default());
        Self {
            image,
            generation: Generation(0),
            tables: HostTables::new(image, Generation(0), room),
            milliseconds: 0,
            scratch: Scratch::default(),
        }
    }

    fn interface(&self, name: &str) -> Result<&'static Interface> {
        let installed = self
            .image
            .interfaces
            .values()
            .find(|installed| installed.name.as_str() == name);
        Ok(&installed
            .with_context(|| format!("the policy has no interface {name}"))?
            .interface)
    }
}

impl Default for HostEvaluator {
    fn default() -> Self {
        Self::new()
    }
}

impl Evaluator for HostEvaluator {
    fn forget(&mut self, room: Option<usize>) -> Result<()> {
        *self = Self::with_room(room.unwrap_or(ROOM));
        Ok(())
    }

    fn put_in_force(&mut self, _text: &PolicyText, policy: &Policy) -> Result<()> {
        let previous = (self.generation != Generation(0)).then_some(self.image);
        self.generation = self.generation.next();
        let read = addresses(policy);
        let mut attached = Vec::new();
        for (vpc_name, vpc) in &policy.vpcs {
            for (name, number) in vpc.interfaces.keys().zip(0_u32..) {
                let terminates =
                    previous.is_some() && vpc.on_rule_removal == OnRuleRemoval::Terminate;
                attached.push(AttachedInterface {
                    vpc: vpc_name.clone(),
                    name: name.clone(),
                    netns: NETNS,
                    ifindex: number + 2,
                    bare: is_bare(name.as_str()),
                    incarnation: number,
                    addresses: read.get(name).cloned().unwrap_or_default(),
                    peer_mac: (!is_bare(name.as_str()))
                        .then(|| MacAddress::new(GUEST_MAC).ok())
                        .flatten(),
                    judge_again_before: terminates.then_some(self.generation),
                });
            }
        }
        let settings = Settings {
            jiffies_per_second: JIFFIES_PER_SECOND,
            assured_flows: ROOM as u32,
            limits: Limits::default(),
        };
        let image = compile(policy, &attached, previous, &settings)?;
        // Tests are short, and tables borrow their image for as long as they live.
        self.image = Box::leak(Box::new(image));
        self.tables.install(self.image, self.generation);
        Ok(())
    }

    fn wait(&mut self, seconds: u64) -> Result<()> {
        self.milliseconds += seconds * 1000;
        let jiffies = self.milliseconds * u64::from(JIFFIES_PER_SECOND) / 1000;
        self.tables.set_now(Ticks::from_jiffies(jiffies));
        Ok(())
    }

    fn judge(
        &mut self,
        interface: &str,
        direction: Direction,
        frame: &[u8],
    ) -> Result<Option<Reason>> {
        let interface = self.interface(interface)?;
        let is_guest = interface.flags.has(InterfaceFlags::GUEST);
        let received = (direction == Direction::Ingress) != is_guest;
        let apart = self.tables.clone();
        let short = apart.judge_fast(interface, received, frame, &mut self.scratch);
        let further = self.tables.clone();
        let shortest = further.judge_fast_v4(interface, received, frame, &mut self.scratch);
        let long = self.tables.judge(interface, received, frame, &());
        for (way, decision, tables) in [
            ("at once", short, &apart),
            ("in registers", shortest, &further),
        ] {
            let flows = super::flows(tables.flows_alive());
            let Some(decision) = decision else { continue };
            ensure!(
                decision == long,
                "{way} it is {decision:?}, and else {long:?}"
            );
            ensure!(
                flows == self.flows()?,
                "{way} other flows are left: {flows:?}"
            );
        }
        Ok(Some(long.reason))
    }

    fn flows(&mut self) -> Result<Flows> {
        Ok(super::flows(self.tables.flows_alive()))
    }
}
