//! What a policy needs of the kernel, found before anything is changed.

use std::sync::PoisonError;

use aya::maps::Array;
use sg_common::abi::Interface;
use sg_common::ids::Generation;

use super::error::Error;
use super::fitness::unfit;
use super::flow_tables::FlowSize;
use super::grace::Grace;
use super::hooks::{self, Instance};
use super::layout::Staged;
use super::maps::{self, flows_folder};
use super::placing::Placing;
use super::report::ReceiveHook;
use super::state::{DeviceRecord, NetnsRecord, Record};
use super::{Dataplane, object, sys};
use crate::compile::image::Image;
use crate::compile::{AttachedInterface, Limits, Live, Settings, compile};
use crate::interfaces::{self, Link, LinkLayer, Netns, NetnsId};
use crate::policy::mac::MacAddress;
use crate::policy::model::{self, OnRuleRemoval, Policy, Side};
use crate::policy::names::{InterfaceName, VpcName};

/// The link-layer address of a guest's end of the wire, where it counts and can be seen.
pub(super) fn peer_mac(device: &Device, interface: &model::Interface) -> Option<MacAddress> {
    if interface.side == Side::Host || interface.macs != model::Macs::Peer {
        return None;
    }
    let mac = interfaces::peer_mac(&device.netns, &device.link)?;
    MacAddress::new(mac).ok()
}

/// A device that is to be protected, as the machine has it.
pub struct Device {
    /// Its VPC in the policy.
    pub vpc: VpcName,
    /// Its name in the policy: the machine's, behind that of the entry where one matches it.
    pub name: InterfaceName,
    /// Where it is.
    pub netns: Netns,
    /// What the machine says of it.
    pub link: Link,
}

/// What the kernel is to hold.
pub struct Wanted<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// Its interfaces that this machine has.
    pub devices: Vec<Device>,
    /// Judge every flow again by this policy.
    pub terminate: bool,
    /// The most assured flows, see `room_for_flows`.
    pub capacity: u32,
    /// How much a policy may need.
    pub limits: Limits,
}

/// A policy that fits, not yet installed.
pub struct Prepared {
    pub(super) image: Image,
    pub(super) netns: Vec<NetnsRecord>,
    pub(super) next_incarnation: u32,
    pub(super) devices: Vec<PreparedDevice>,
    /// Those that the policy has, that hold their programs, and that cannot be found. They stay as
    /// closed as they are.
    pub(super) astray: Vec<DeviceRecord>,
    pub(super) flow_size: FlowSize,
    pub(super) jiffies_per_second: u32,
    pub(super) placing: Option<Placing>,
    pub(super) staged: Option<Staged>,
    /// Passes until the places may be written that the policy before has left.
    pub(super) rest: Option<Grace>,
    /// The compiled policy, if it is to be kept.
    pub(super) live: Option<Box<Live>>,
}

impl Prepared {
    /// The tables that would be in force.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Whether nothing is to stay in the kernel.
    pub(super) fn is_nothing(&self) -> bool {
        self.devices.is_empty() && self.astray.is_empty()
    }

    /// Nothing is protected, and nothing is to stay in the kernel.
    pub(super) fn nothing() -> Self {
        Self {
            image: Image::default(),
            netns: Vec::new(),
            next_incarnation: 1,
            devices: Vec::new(),
            astray: Vec::new(),
            flow_size: FlowSize::for_capacity(0),
            jiffies_per_second: 0,
            placing: None,
            staged: None,
            rest: None,
            live: None,
        }
    }
}

impl Dataplane {
    /// Compiles a policy and looks whether it can be installed. Changes nothing.
    pub fn prepare(&self, wanted: &Wanted<'_>) -> Result<Prepared, Error> {
        // Where the tables are to be made anew, only the numbers have to stay.
        let in_force = self.tables().or_else(|| self.names());
        let prepared = self.prepare_beside(in_force.map(|(_, image)| image), wanted)?;
        if self.record().is_some() {
            self.refuse_uncounted_flows(&prepared.image)?;
        }
        Ok(prepared)
    }

    /// The same beside these tables, without a look at whether all flows are counted.
    pub(super) fn prepare_beside(
        &self,
        previous: Option<&Image>,
        wanted: &Wanted<'_>,
    ) -> Result<Prepared, Error> {
        if !sys::can_wait_for_readers() {
            return Err(Error::NoGrace);
        }
        let record = self.record();
        let our_programs = hooks::our_programs(&self.bpffs);
        let flow_size = FlowSize::for_capacity(wanted.capacity);
        if let Some(record) = record
            && !wanted.devices.is_empty()
        {
            self.refuse_fewer_flows(record, flow_size)?;
        }
        let mut netns = record.map_or_else(Vec::new, |record| record.netns.clone());
        let mut next_incarnation = record.map_or(1, |record| record.next_incarnation);
        let generation = Generation(record.map_or(0, |record| record.generation)).next();
        let mut devices = Vec::new();
        let mut attached = Vec::new();
        let tc = hooks::tc_hook();
        for device in &wanted.devices {
            let vpc = wanted.policy.vpcs.get(&device.vpc);
            let interface = vpc.and_then(|vpc| vpc.interface(&device.name));
            let (Some(vpc), Some(interface)) = (vpc, interface) else {
                return Err(Error::UnknownInterface {
                    vpc: device.vpc.clone(),
                    interface: device.name.clone(),
                });
            };
            // The controller says so, and refuses where the command is about it.
            if unfit(interface.hook, &device.netns, &device.link).is_some() {
                continue;
            }
            let number = netns_number(&mut netns, device.netns.id());
            let known = record
                .and_then(|record| same_device(record, device, number, interface))
                // Where the device has gone, another may have got its number.
                .filter(|known| {
                    hooks::is_attached(self.instance(), known)
                        && hooks::is_in(&self.bpffs, known, &device.netns)
                });
            let moved = match known {
                Some(_) => None,
                None => record.and_then(|record| self.moved_device(record, device)),
            };
            let known = known.or(moved.filter(|moved| moved.side() == interface.side));
            let incarnation = known.map_or_else(
                || {
                    next_incarnation += 1;
                    next_incarnation - 1
                },
                |known| known.incarnation,
            );
            let to_try = hooks::hooks_to_try(interface.hook, &device.link);
            let foreign = device
                .link
                .xdp_program
                .filter(|program| !our_programs.contains(program));
            refuse_foreign_xdp(device, interface, foreign, to_try)?;
            // What is not known of an interface's flows is found out at their next packets.
            let mut interfaces = previous
                .into_iter()
                .flat_map(|image| image.interfaces.values());
            let is_unread = interfaces.any(|found| {
                (found.netns, found.ifindex) == (number, device.link.ifindex)
                    && found.interface == Interface::default()
            });
            let judge_again = wanted.terminate
                || vpc.on_rule_removal == OnRuleRemoval::Terminate
                || known.is_none()
                || is_unread;
            attached.push(AttachedInterface {
                vpc: device.vpc.clone(),
                name: device.name.clone(),
                netns: number,
                ifindex: device.link.ifindex,
                bare: !matches!(device.link.link_layer, LinkLayer::Ethernet),
                incarnation,
                addresses: device
                    .link
                    .addresses
                    .iter()
                    .map(ipnet::IpNet::addr)
                    .collect(),
                peer_mac: peer_mac(device, interface),
                // What an earlier device of that name has opened is nothing to this one.
                judge_again_before: judge_again.then_some(generation),
            });
            devices.push(PreparedDevice {
                record: DeviceRecord {
                    vpc: device.vpc.clone(),
                    name: device.name.clone(),
                    netns: number,
                    netns_inode: device.netns.id().inode,
                    ifindex: device.link.ifindex,
                    guest: interface.side == Side::Guest,
                    hook: record
                        .and_then(|record| attached_hook(self.instance(), record, device, number))
                        .or(moved.map(|moved| moved.hook))
                        .filter(|hook| to_try.contains(hook))
                        .or_else(|| to_try.first().copied())
                        .unwrap_or(ReceiveHook::Tc),
                    tc,
                    incarnation,
                    slot: None,
                },
                netns: device.netns.clone(),
                to_try,
                moved_from: moved.map(DeviceRecord::link_prefix),
                replace_xdp: interface.replace_xdp && foreign.is_some(),
            });
        }
        let astray = self.astray(wanted, &devices);
        if devices.is_empty() && astray.is_empty() {
            return Ok(Prepared::nothing());
        }
        let settings = Settings {
            jiffies_per_second: self.jiffies_per_second()?,
            assured_flows: flow_size.capacity(),
            limits: wanted.limits,
        };
        let (image, live) = match self.keeps {
            true => {
                let mut live = Live::begin(wanted.policy, &attached, previous, &settings)?;
                (live.image(), Some(Box::new(live)))
            }
            false => {
                let image = compile(wanted.policy, &attached, previous, &settings)?;
                (image, None)
            }
        };
        let jiffies_per_second = settings.jiffies_per_second;
        Ok(Prepared {
            image,
            netns,
            next_incarnation,
            devices,
            astray,
            flow_size,
            jiffies_per_second,
            placing: None,
            staged: None,
            rest: None,
            live,
        })
    }

    /// As [`Self::prepare`], for [`Self::install`]: devices get links meanwhile that let everything
    /// pass, and lose them again unless what was prepared is installed.
    pub fn prepare_to_install(&self, wanted: &Wanted<'_>) -> Result<Prepared, Error> {
        let links = hooks::links_folder(&self.bpffs);
        let placing = Placing::begin(links, self.record(), wanted);
        let begun = self
            .rest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let rest = self.record().map(|_| begun.unwrap_or_else(Grace::begin));
        Ok(Prepared {
            placing: Some(placing),
            rest,
            ..self.prepare(wanted)?
        })
    }

    /// An earlier version made the map that counts an interface's flows for fewer interfaces than
    /// there can be now, and it stays as long as the flows do.
    pub(super) fn refuse_uncounted_flows(&self, image: &Image) -> Result<(), Error> {
        // A map that is gone is made anew.
        let owned = maps::open(&flows_folder(&self.bpffs), "OWNED");
        let has = owned.map_or(u32::MAX, |owned: Array<_, u32>| owned.len());
        match image.interfaces.keys().max() {
            Some(slot) if *slot >= has => Err(Error::FewOwners { has }),
            _ => Ok(()),
        }
    }

    /// What cannot be changed while flows are alive.
    pub(super) fn refuse_fewer_flows(
        &self,
        record: &Record,
        flow_size: FlowSize,
    ) -> Result<(), Error> {
        if flow_size.buckets >= record.flows.size.buckets {
            return Ok(());
        }
        // In tables half full there is hardly ever a flow that both its buckets have no place for.
        let live = self.flow_usage()?.assured;
        match live * 2 <= u64::from(flow_size.capacity()) {
            true => Ok(()),
            false => Err(Error::FlowsDoNotFit {
                live,
                least: live * 2,
            }),
        }
    }

    /// The record of a device that was attached for the same interface elsewhere, and has taken its
    /// programs along.
    pub(super) fn moved_device<'a>(
        &self,
        record: &'a Record,
        device: &Device,
    ) -> Option<&'a DeviceRecord> {
        let place = (device.netns.id().inode, device.link.ifindex);
        record.devices.iter().find(|known| {
            known.vpc == device.vpc
                && known.name.entry() == device.name.entry()
                && (known.netns_inode, known.ifindex) != place
                && hooks::held(self.instance(), known) == Some(device.link.ifindex)
                && hooks::is_in(&self.bpffs, known, &device.netns)
        })
    }

    /// Devices that the policy still has, that still hold their programs, and that are not among the
    /// wanted ones must not lose their protection to a command about something else.
    pub(super) fn astray(
        &self,
        wanted: &Wanted<'_>,
        found: &[PreparedDevice],
    ) -> Vec<DeviceRecord> {
        let devices = self.record().map_or(&[][..], |record| &record.devices);
        let is_astray = |device: &&DeviceRecord| {
            let prefix = device.link_prefix();
            let is_found = found.iter().any(|found| {
                found.record.link_prefix() == prefix || found.moved_from.as_ref() == Some(&prefix)
            });
            let vpc = wanted.policy.vpcs.get(&device.vpc);
            !is_found
                && vpc.is_some_and(|vpc| vpc.interface(&device.name).is_some())
                && hooks::held(self.instance(), device).is_some()
        };
        devices.iter().filter(is_astray).cloned().collect()
    }

    /// `CONFIG_HZ`, as it was found when the first maps were made.
    pub(super) fn jiffies_per_second(&self) -> Result<u32, Error> {
        match self.record() {
            Some(record) => Ok(record.jiffies_per_second),
            None => object::jiffies_per_second(),
        }
    }
}

pub(super) struct PreparedDevice {
    pub(super) record: DeviceRecord,
    pub(super) netns: Netns,
    pub(super) to_try: &'static [ReceiveHook],
    /// What the names of its links' pins begin with where it was, if it has moved and taken its
    /// programs along.
    pub(super) moved_from: Option<String>,
    /// Somebody else's XDP program goes first.
    pub(super) replace_xdp: bool,
}

/// The number of a namespace, given when it is first met.
pub(super) fn netns_number(known: &mut Vec<NetnsRecord>, id: NetnsId) -> u32 {
    if let Some(record) = known.iter().find(|record| record.is(id)) {
        return record.number;
    }
    let number = known.iter().map(|record| record.number).max().unwrap_or(0) + 1;
    known.push(NetnsRecord {
        number,
        device: id.device,
        inode: id.inode,
    });
    number
}

/// The record of the same device in the same role, whose flows go on.
pub(super) fn same_device<'a>(
    record: &'a Record,
    device: &Device,
    netns: u32,
    interface: &model::Interface,
) -> Option<&'a DeviceRecord> {
    record.devices.iter().find(|known| {
        known.netns == netns
            && known.ifindex == device.link.ifindex
            && known.vpc == device.vpc
            && known.name.entry() == device.name.entry()
            && known.side() == interface.side
    })
}

/// The hook that receives on the device, in whichever role it was attached.
pub(super) fn attached_hook(
    instance: Instance<'_>,
    record: &Record,
    device: &Device,
    netns: u32,
) -> Option<ReceiveHook> {
    let mut devices = record.devices.iter();
    let known =
        devices.find(|known| known.netns == netns && known.ifindex == device.link.ifindex)?;
    hooks::is_attached(instance, known).then_some(known.hook)
}

/// A foreign XDP program is never replaced unasked.
pub(super) fn refuse_foreign_xdp(
    device: &Device,
    interface: &model::Interface,
    foreign: Option<u32>,
    to_try: &[ReceiveHook],
) -> Result<(), Error> {
    let wants_xdp = to_try.first().is_some_and(|hook| *hook != ReceiveHook::Tc);
    match foreign {
        Some(program) if wants_xdp && !interface.replace_xdp => Err(Error::ForeignXdp {
            interface: device.name.clone(),
            program,
        }),
        _ => Ok(()),
    }
}
