//! Protecting interfaces.

use std::collections::BTreeSet;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use crate::controller::{
    Controller, Done, InterfaceState, Needed, Plan, View, Warning, namespace, recorded_namespace,
};
use crate::dirs::DirOptions;
use crate::policy::change::{Change, Edit};
use crate::policy::defaults::create_vpc;
use crate::policy::mac::{MacAddress, MacError};
use crate::policy::model::{EgressDrops, Hook, Interface, Macs, Policy, Side, Timeouts};
use crate::policy::names::{GroupName, InterfaceName, VpcName};
use crate::policy::prefix::parse_address;
use crate::show;

use super::confirm::Confirm;
use super::error::{Error, Result};
use super::output::{tell, warn};
use super::{Answer, choose, make, report};

#[derive(Debug, Args)]
pub(super) struct Attach {
    /// The interface; options you leave out go back to their defaults
    #[arg(value_name = "IFACE")]
    interface: InterfaceName,
    /// A group it is in; repeat for several [default: default]
    #[arg(long = "group", value_name = "GROUP", value_delimiter = ',')]
    groups: Vec<GroupName>,
    /// The VPC, made if there is none [default: that of the first group]
    #[arg(long)]
    vpc: Option<VpcName>,
    /// What is protected: this machine, or the guest behind the interface
    #[arg(long, value_enum, default_value_t)]
    side: SideWord,
    /// An address of the guest; repeat for several
    #[arg(long = "address", value_name = "ADDRESS", value_delimiter = ',')]
    addresses: Vec<String>,
    /// A MAC address of the guest; repeat for several, or say `any` [default: that of the other end]
    #[arg(long = "mac", value_name = "MAC|any", value_delimiter = ',')]
    macs: Vec<MacWord>,
    /// A VLAN that the guest is in; repeat for several
    #[arg(long = "vlan", value_name = "NUMBER", value_delimiter = ',')]
    vlans: Vec<u16>,
    /// Which hook receives
    #[arg(long, value_enum, default_value_t)]
    hook: HookWord,
    /// Network namespace of the interface, by name or path
    #[arg(long, value_name = "NAME|PATH")]
    netns: Option<String>,
    /// Replace an XDP program that another program attached
    #[arg(long)]
    replace_xdp: bool,
    /// Drop packets in the middle of unknown TCP connections instead of judging them by the rules
    #[arg(long)]
    no_tcp_pickup: bool,
    /// Whether a later fragment may pass before its first one, or only after it
    #[arg(long, value_enum, default_value_t)]
    fragments: FragmentsWord,
    /// What a sender on this machine is told when its packet is dropped
    #[arg(long, value_enum, default_value_t)]
    egress_drops: EgressDropsWord,
    /// Judge and count every packet, but let all of them pass; alone, it changes nothing else
    #[arg(long, conflicts_with = "enforce")]
    audit: bool,
    /// End `--audit`; alone, it changes nothing else [default: as it is; a new one is enforced]
    #[arg(long)]
    enforce: bool,
    /// An EtherType that always passes, like 0x8915; repeat for several
    #[arg(long = "ethertype", value_name = "NUMBER", value_delimiter = ',', value_parser = parse_ethertype)]
    ethertypes: Vec<u16>,
    /// Idle timeout of established TCP flows
    #[arg(long, value_name = "SECONDS", default_value_t = Timeouts::default().tcp_established_s)]
    tcp_established: u32,
    /// Idle timeout of UDP flows with one request and its response at most
    #[arg(long, value_name = "SECONDS", default_value_t = Timeouts::default().udp_s)]
    udp: u32,
    /// Idle timeout of other UDP flows
    #[arg(long, value_name = "SECONDS", default_value_t = Timeouts::default().udp_stream_s)]
    udp_stream: u32,
    /// The most connections it may have
    #[arg(long, value_name = "NUMBER")]
    max_flows: Option<u32>,
    #[command(flatten)]
    confirm: Confirm,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum SideWord {
    #[default]
    Host,
    Guest,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum HookWord {
    #[default]
    Auto,
    Xdp,
    Tc,
    XdpGeneric,
}

#[derive(Clone, Copy, Debug)]
enum MacWord {
    Any,
    One(MacAddress),
}

impl FromStr for MacWord {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        match text.eq_ignore_ascii_case("any") {
            true => Ok(Self::Any),
            false => text.parse().map(Self::One),
        }
    }
}

fn macs(words: &[MacWord]) -> Macs {
    let listed = words.iter().map(|word| match word {
        MacWord::Any => None,
        MacWord::One(mac) => Some(*mac),
    });
    match listed.collect::<Option<BTreeSet<_>>>() {
        None => Macs::Any,
        Some(macs) if macs.is_empty() => Macs::Peer,
        Some(macs) => Macs::Listed(macs),
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum FragmentsWord {
    #[default]
    Early,
    Strict,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum EgressDropsWord {
    /// Nothing, as if the packet had been lost further on
    #[default]
    Silent,
    /// That it was not sent: a connection is given up within seconds
    Told,
}

fn parse_ethertype(text: &str) -> Result<u16, String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let number = match digits {
        Some(digits) if !digits.starts_with('+') => u16::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => text.parse().ok(),
    };
    number.ok_or_else(|| format!("{text:?} is not an EtherType; write a number like 0x8915"))
}

#[derive(Debug, Args)]
pub(super) struct Detach {
    /// The interfaces
    #[arg(required_unless_present = "all", value_name = "IFACE")]
    interfaces: Vec<InterfaceName>,
    /// All interfaces of all VPCs and network namespaces, whatever state the policy is in
    #[arg(long, conflicts_with_all = ["interfaces", "vpc", "netns"])]
    all: bool,
    /// The VPC they are in
    #[arg(long)]
    vpc: Option<VpcName>,
    /// The network namespace they are in, by name or path
    #[arg(long, value_name = "NAME|PATH")]
    netns: Option<String>,
    #[command(flatten)]
    confirm: Confirm,
}

impl Attach {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let mut controller = Controller::open(dirs)?;
        let vpc = self.vpc(controller.policy())?;
        let known = controller.policy().vpcs.get(&vpc);
        let known = known.and_then(|vpc| vpc.interfaces.get(&self.interface));
        let is_known = known.is_some();
        let interface = self.interface(known)?;
        refuse_other_device(controller.policy(), &vpc, &self.interface, &interface)?;
        let mut changes = match controller.policy().vpcs.contains_key(&vpc) {
            true => Vec::new(),
            false => create_vpc(&vpc),
        };
        changes.push(Change {
            vpc: vpc.clone(),
            edit: Edit::PutInterface(self.interface.clone(), interface),
        });
        let policy = controller.policy().clone().apply(&changes)?;
        let plan = Plan {
            policy,
            // One that is known may be away for a while; a new name may be a mistake.
            needed: match is_known {
                true => Needed::None,
                false => Needed::Some(vpc, BTreeSet::from([self.interface])),
            },
            terminate: false,
        };
        report(&self.confirm.install(&mut controller, plan)?)
    }

    fn vpc(&self, policy: &Policy) -> Result<VpcName> {
        match (&self.vpc, self.groups.first()) {
            (Some(vpc), _) => Ok(vpc.clone()),
            (None, None) => Ok(VpcName::default()),
            (None, Some(group)) => {
                let (vpc, ..) = choose::vpc_of_group(policy, None, group)?;
                Ok(vpc.clone())
            }
        }
    }

    /// The interface as it is to be. `known` is as it was.
    fn interface(&self, known: Option<&Interface>) -> Result<Interface> {
        let audit = self.audit || !self.enforce && known.is_some_and(|known| known.audit);
        let given = Interface {
            audit,
            ..self.settings()?
        };
        let nothing_else = Interface {
            groups: given.groups.clone(),
            netns: given.netns.clone(),
            audit,
            ..Interface::default()
        };
        match known {
            Some(known)
                if (self.audit || self.enforce)
                    && self.groups.is_empty()
                    && (given.netns.is_none() || given.netns == known.netns)
                    && given == nothing_else =>
            {
                Ok(Interface {
                    audit,
                    ..known.clone()
                })
            }
            _ => Ok(given),
        }
    }

    fn settings(&self) -> Result<Interface> {
        let addresses = self.addresses.iter().map(|text| parse_address(text));
        Ok(Interface {
            groups: match self.groups.is_empty() {
                true => BTreeSet::from([GroupName::default_group()]),
                false => self.groups.iter().cloned().collect(),
            },
            side: match self.side {
                SideWord::Host => Side::Host,
                SideWord::Guest => Side::Guest,
            },
            hook: match self.hook {
                HookWord::Auto => Hook::Auto,
                HookWord::Xdp => Hook::Xdp,
                HookWord::Tc => Hook::Tc,
                HookWord::XdpGeneric => Hook::XdpGeneric,
            },
            netns: recorded_namespace(self.netns.as_deref())?,
            addresses: addresses.collect::<Result<_, _>>()?,
            macs: macs(&self.macs),
            vlans: self.vlans.iter().copied().collect(),
            ethertypes: self.ethertypes.iter().copied().collect(),
            replace_xdp: self.replace_xdp,
            tcp_pickup: !self.no_tcp_pickup,
            strict_fragments: matches!(self.fragments, FragmentsWord::Strict),
            egress_drops: match self.egress_drops {
                EgressDropsWord::Silent => EgressDrops::Silent,
                EgressDropsWord::Told => EgressDrops::Told,
            },
            audit: self.audit,
            timeouts: Timeouts {
                tcp_established_s: self.tcp_established,
                udp_s: self.udp,
                udp_stream_s: self.udp_stream,
            },
            max_flows: self.max_flows,
        })
    }
}

/// A VPC knows interfaces by name, so a second one of that name would silently take the first
/// one's place.
fn refuse_other_device(
    policy: &Policy,
    vpc: &VpcName,
    name: &InterfaceName,
    new: &Interface,
) -> Result<()> {
    let old = policy
        .vpcs
        .get(vpc)
        .and_then(|vpc| vpc.interfaces.get(name));
    let Some(old) = old.filter(|old| old.netns != new.netns) else {
        return Ok(());
    };
    let Ok(old_namespace) = namespace(old.netns.as_deref()) else {
        // It went, and its interface with it.
        return Ok(());
    };
    if old_namespace.id() == namespace(new.netns.as_deref())?.id() {
        return Ok(());
    }
    Err(Error::OtherDevice {
        vpc: vpc.clone(),
        name: name.clone(),
        place: old_namespace.to_string(),
    })
}

impl Detach {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        if self.all {
            return self.detach_all(dirs);
        }
        let controller = Controller::open(dirs)?;
        let attachments = controller.attachments()?;
        let mut chosen = BTreeSet::new();
        for name in &self.interfaces {
            let (vpc, netns) = (self.vpc.as_ref(), self.netns.as_deref());
            match choose::interface(controller.policy(), vpc, netns, name) {
                Ok((vpc, _)) => {
                    chosen.insert((vpc.clone(), name.clone()));
                }
                // Only the kernel has it still, since a detach was interrupted: any change ends it.
                Err(Error::NotAttached { .. })
                    if attachments.iter().any(|left| left.name == *name) => {}
                Err(error) => return Err(error),
            }
        }
        let changes = chosen.into_iter().map(|(vpc, name)| Change {
            vpc,
            edit: Edit::RemoveInterface(name),
        });
        let changes = changes.collect::<Vec<_>>();
        report(&make(controller, &changes, false, &self.confirm)?)
    }

    /// The way out: what the policy has is detached as ever; where the policy cannot be read, or is
    /// not the one in force, what is installed goes all the same.
    fn detach_all(&self, dirs: &DirOptions) -> Result<Answer> {
        let refused = match Controller::open(dirs) {
            Ok(controller) => match self.detach_all_of(controller) {
                Ok(done) => return report(&done),
                Err(error) => error,
            },
            Err(error) => error.into(),
        };
        // One of the two is meant: a way back needs a policy to go back to.
        if !self.confirm.is_needless() {
            return Err(refused);
        }
        warn(&refused);
        let removed = Controller::remove_all(dirs)?;
        let lines = removed.iter().map(|name| format!("- interface {name}\n"));
        let lines: String = lines.collect();
        tell(&match lines.is_empty() {
            true => "nothing was attached\n".to_owned(),
            false => lines + "nothing is protected any more; the stored policy is as it was\n",
        });
        Ok(Answer::Yes)
    }

    fn detach_all_of(&self, controller: Controller) -> Result<Done> {
        let vpcs = controller.policy().vpcs.iter();
        let changes = vpcs.flat_map(|(vpc, content)| {
            content.interfaces.keys().map(|name| Change {
                vpc: vpc.clone(),
                edit: Edit::RemoveInterface(name.clone()),
            })
        });
        let changes: Vec<_> = changes.collect();
        make(controller, &changes, false, &self.confirm)
    }
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// Replace what another state folder, or a version of sg-ctl that this one cannot read,
    /// installed; open connections may be forgotten, and the rules judge their next packets
    #[arg(long)]
    take_over: bool,
    /// Only protect this interface, if the policy has it; for devices that appear later
    #[arg(long, value_name = "IFACE")]
    device: Option<String>,
}

impl Restore {
    /// Makes the kernel match what is stored.
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        if let Some(device) = &self.device
            && !waits_for(dirs, device)?
        {
            return Ok(Answer::Yes);
        }
        let mut controller = match self.take_over {
            true => Controller::take_over(dirs)?,
            false => Controller::open_to_restore(dirs)?,
        };
        if !self.take_over {
            controller.distrust_changed_maps()?;
        }
        let plan = Plan {
            policy: controller.policy().clone(),
            needed: Needed::None,
            terminate: false,
        };
        let done = Confirm::default().install(&mut controller, plan)?;
        let is_missing =
            |warning: &&Warning| matches!(warning, Warning::Missing(_) | Warning::Unfit(_));
        let missing = done.warnings.iter().filter(is_missing).count();
        let interfaces = controller.policy().vpcs.values();
        let interfaces = interfaces.map(|vpc| vpc.interfaces.len()).sum::<usize>() - missing;
        let interfaces = show::count(interfaces, "interface");
        tell(&format!(
            "{interfaces} protected as stored (revision {})\n",
            done.revision
        ));
        Ok(Answer::Yes)
    }
}

/// Whether an interface of that name is to be protected and is not. Devices come and go by the
/// hundred where containers run, and have names of all kinds.
fn waits_for(dirs: &DirOptions, device: &str) -> Result<bool> {
    let Ok(name) = device.parse::<InterfaceName>() else {
        return Ok(false);
    };
    let view = View::open(dirs)?;
    let mut vpcs = view.policy.vpcs.values();
    if !vpcs.any(|vpc| vpc.interfaces.contains_key(&name)) {
        return Ok(false);
    }
    let states = view.interface_states()?;
    let mut vpcs = view.policy.vpcs.iter();
    Ok(vpcs.any(|(vpc, content)| {
        content.interfaces.contains_key(&name)
            && states.of_interface(vpc, &name) == InterfaceState::Open
    }))
}
