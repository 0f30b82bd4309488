//! Protecting interfaces, and changing how they are protected.
//!
//! An interface that is attached keeps what the command does not say. A new one starts from the
//! defaults.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use crate::controller::{Controller, Needed, Plan, namespace, recorded_namespace};
use crate::dirs::DirOptions;
use crate::interfaces::{Netns, link};
use crate::policy::change::{Change, Edit};
use crate::policy::defaults::create_vpc;
use crate::policy::mac::{MacAddress, MacError};
use crate::policy::matching::DeviceMatch;
use crate::policy::model::{EgressDrops, Hook, Interface, Macs, Policy, Side};
use crate::policy::names::{GroupName, InterfaceName, VpcName};
use crate::policy::prefix::{PrefixError, parse_address};
use crate::policy::time::whole_seconds;

use super::confirm::Confirm;
use super::error::{Error, Result};
use super::{Answer, choose, report};

#[derive(Debug, Args)]
pub(super) struct Attach {
    /// The interfaces
    #[arg(required = true, value_name = "IFACE")]
    interfaces: Vec<InterfaceName>,
    /// Which devices the interface is for, instead of the one of its name: name=PATTERN, mac=ADDRESS
    /// or alias=PATTERN; repeat for devices that are as all of them say
    #[arg(long = "match", value_name = "CRITERION")]
    criteria: Vec<String>,
    /// A group it is in, instead of those it is in now; repeat for several [default: default]
    #[arg(long = "group", value_name = "GROUP", value_delimiter = ',',
          conflicts_with_all = ["add_groups", "remove_groups"])]
    groups: Vec<GroupName>,
    /// A group it is in besides those it is in now; repeat for several
    #[arg(long = "add-group", value_name = "GROUP", value_delimiter = ',')]
    add_groups: Vec<GroupName>,
    /// A group it is not in any longer; repeat for several
    #[arg(long = "remove-group", value_name = "GROUP", value_delimiter = ',')]
    remove_groups: Vec<GroupName>,
    /// The VPC, made if there is none [default: that of the interface, or of the first group]
    #[arg(long)]
    vpc: Option<VpcName>,
    /// What is protected: this machine, or the guest behind the interface [default: host]
    #[arg(long, value_enum)]
    side: Option<SideWord>,
    /// An address of the guest; repeat for several
    #[arg(long = "address", value_name = "ADDRESS", value_delimiter = ',', value_parser = parse_guest_address)]
    addresses: Vec<IpAddr>,
    /// A MAC address of the guest; repeat for several, or say `any` or `peer`, that of the other end
    /// [default: peer]
    #[arg(long = "mac", value_name = "MAC|any|peer", value_delimiter = ',')]
    macs: Vec<MacWord>,
    /// A VLAN that the guest is in; repeat for several, or say `none`
    #[arg(long = "vlan", value_name = "NUMBER|none", value_delimiter = ',', value_parser = parse_vlan)]
    vlans: Vec<OrNone<u16>>,
    /// Which hook receives [default: auto]
    #[arg(long, value_enum)]
    hook: Option<HookWord>,
    /// Network namespace of the interface, by name or path
    #[arg(long, value_name = "NAME|PATH")]
    netns: Option<String>,
    /// Replace an XDP program that another program attached
    #[arg(long, conflicts_with = "no_replace_xdp")]
    replace_xdp: bool,
    /// End `--replace-xdp` [default for a new interface]
    #[arg(long)]
    no_replace_xdp: bool,
    /// Drop packets in the middle of unknown TCP connections instead of judging them by the rules
    #[arg(long, conflicts_with = "tcp_pickup")]
    no_tcp_pickup: bool,
    /// End `--no-tcp-pickup` [default for a new interface]
    #[arg(long)]
    tcp_pickup: bool,
    /// Whether a later fragment may pass before its first one, or only after it [default: early]
    #[arg(long, value_enum)]
    fragments: Option<FragmentsWord>,
    /// What a sender on this machine is told when its packet is dropped [default: silent]
    #[arg(long, value_enum)]
    egress_drops: Option<EgressDropsWord>,
    /// Judge and count every packet, but let all of them pass
    #[arg(long, conflicts_with = "enforce")]
    audit: bool,
    /// End `--audit` [default for a new interface]
    #[arg(long)]
    enforce: bool,
    /// An EtherType that always passes, like 0x8915; repeat for several, or say `none`
    #[arg(long = "ethertype", value_name = "NUMBER|none", value_delimiter = ',', value_parser = parse_ethertype)]
    ethertypes: Vec<OrNone<u16>>,
    /// Idle timeout of established TCP flows, like 1h [default: 432000s]
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    tcp_established: Option<u32>,
    /// Idle timeout of UDP flows with one request and its response at most [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    udp: Option<u32>,
    /// Idle timeout of other UDP flows [default: 180s]
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    udp_stream: Option<u32>,
    /// The most connections it may have; `none` leaves it the default share
    #[arg(long, value_name = "NUMBER|none", value_parser = parse_quota)]
    max_flows: Option<OrNone<u32>>,
    #[command(flatten)]
    confirm: Confirm,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SideWord {
    Host,
    Guest,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum HookWord {
    Auto,
    Xdp,
    Tc,
    XdpGeneric,
}

#[derive(Clone, Copy, Debug)]
enum MacWord {
    Any,
    Peer,
    One(MacAddress),
}

impl FromStr for MacWord {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        match text.to_ascii_lowercase().as_str() {
            "any" => Ok(Self::Any),
            "peer" => Ok(Self::Peer),
            _ => text.parse().map(Self::One),
        }
    }
}

/// A value, or the word `none`, which takes what was there away.
#[derive(Clone, Copy, Debug)]
enum OrNone<T> {
    None,
    Some(T),
}

impl<T: Copy> OrNone<T> {
    fn parse<E>(text: &str, value: impl Fn(&str) -> Result<T, E>) -> Result<Self, E> {
        match text.eq_ignore_ascii_case("none") {
            true => Ok(Self::None),
            false => value(text).map(Self::Some),
        }
    }

    fn value(self) -> Option<T> {
        match self {
            Self::None => None,
            Self::Some(value) => Some(value),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FragmentsWord {
    Early,
    Strict,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EgressDropsWord {
    /// Nothing, as if the packet had been lost further on
    Silent,
    /// That it was not sent: a connection is given up within seconds
    Told,
}

fn parse_guest_address(text: &str) -> Result<IpAddr, PrefixError> {
    parse_address(text)
}

fn parse_vlan(text: &str) -> Result<OrNone<u16>, String> {
    let wrong = |_| format!("{text:?} is not a VLAN; write a number from 0 to 4094, or none");
    OrNone::parse(text, |text| text.parse().map_err(wrong))
}

fn parse_quota(text: &str) -> Result<OrNone<u32>, String> {
    let digits = text.replace([',', '_'], "");
    let wrong =
        |_| format!("{text:?} is not a number of connections; write one like 10000, or none");
    OrNone::parse(text, |_| digits.parse().map_err(wrong))
}

fn parse_ethertype(text: &str) -> Result<OrNone<u16>, String> {
    OrNone::parse(text, |text| {
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let number = match digits {
            Some(digits) if !digits.starts_with('+') => u16::from_str_radix(digits, 16).ok(),
            Some(_) => None,
            None => text.parse().ok(),
        };
        number.ok_or_else(|| format!("{text:?} is not an EtherType; write a number like 0x8915"))
    })
}

/// An interface that the command is about.
struct Chosen<'a> {
    vpc: VpcName,
    name: &'a InterfaceName,
    netns: Option<String>,
    /// How it is attached; none for a new one.
    known: Option<&'a Interface>,
}

impl Attach {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let mut controller = Controller::open(dirs)?;
        let before = controller.policy();
        let (mut changes, mut new, mut needed) = (Vec::new(), BTreeSet::new(), Needed::None);
        let mut create = None;
        let matching = self.matching()?;
        for name in self.interfaces.iter().collect::<BTreeSet<_>>() {
            let chosen = match self.choose(before, name)? {
                Some(chosen) => chosen,
                None => self.new_one(before, self.vpc_of_new(before)?, name)?,
            };
            if name.device().is_some() {
                return Err(Error::OneOfEntry { name: name.clone() });
            }
            let interface = self.interface(&chosen, matching.as_ref())?;
            if chosen.known.is_none() {
                if create.is_none() && !before.vpcs.contains_key(&chosen.vpc) {
                    changes.extend(create_vpc(&chosen.vpc));
                }
                create = Some(chosen.vpc.clone());
            }
            if chosen.known.is_none() && interface.matching.is_none() {
                // One that is known may be away for a while; a new name may be a mistake. All new
                // ones are in one VPC.
                new.insert(name.clone());
                needed = Needed::Some(chosen.vpc.clone(), new.clone());
            }
            changes.push(Change {
                edit: Edit::PutInterface(name.clone(), interface),
                vpc: chosen.vpc,
            });
        }
        let plan = Plan {
            policy: before.clone().apply(&changes)?,
            needed,
            terminate: false,
        };
        report(&self.confirm.install(&mut controller, plan)?)
    }

    /// Finds an attached interface of the name, in whatever VPC: that of the namespace that is
    /// meant, or else the only one, unless this namespace has a device of the name.
    fn choose<'a>(
        &self,
        policy: &'a Policy,
        name: &'a InterfaceName,
    ) -> Result<Option<Chosen<'a>>> {
        let vpcs = policy.vpcs.iter();
        let vpcs = vpcs.filter(|(vpc, _)| self.vpc.as_ref().is_none_or(|asked| asked == *vpc));
        let known = vpcs.filter_map(|(vpc, content)| Some((vpc, content.interfaces.get(name)?)));
        let known: Vec<_> = known.collect();
        let here = Netns::current()?;
        let is_meant = |interface: &Interface| match &self.netns {
            Some(netns) => choose::is_in(interface, netns),
            None => namespace(interface.netns.as_deref()).is_ok_and(|of| of.id() == here.id()),
        };
        let mut meant = known.iter().filter(|(_, interface)| is_meant(interface));
        let (vpc, interface) = match (meant.next(), known.as_slice()) {
            (Some(meant), _) => *meant,
            (None, []) => return Ok(None),
            (None, _) if self.netns.is_some() || link(&here, name.as_str()).is_ok() => {
                return Ok(None);
            }
            (None, [only]) => *only,
            (None, _) => choose::interface(policy, self.vpc.as_ref(), None, name)?,
        };
        Ok(Some(Chosen {
            vpc: vpc.clone(),
            name,
            netns: self.netns.clone().or_else(|| interface.netns.clone()),
            known: Some(interface),
        }))
    }

    /// The interface of a device that is not attached. A VPC knows interfaces by name, so that a
    /// second one of the name would silently take the first one's place.
    fn new_one<'a>(
        &self,
        policy: &'a Policy,
        vpc: VpcName,
        name: &'a InterfaceName,
    ) -> Result<Chosen<'a>> {
        let netns = recorded_namespace(self.netns.as_deref())?;
        let known = policy.vpcs.get(&vpc);
        let known = known.and_then(|vpc| vpc.interfaces.get(name));
        // Where a namespace went, its interface went with it.
        let other = known.and_then(|known| namespace(known.netns.as_deref()).ok());
        match other {
            Some(other) if other.id() != namespace(netns.as_deref())?.id() => {
                Err(Error::OtherDevice {
                    vpc,
                    name: name.clone(),
                    place: other.to_string(),
                })
            }
            _ => Ok(Chosen {
                vpc,
                name,
                netns,
                known,
            }),
        }
    }

    fn vpc_of_new(&self, policy: &Policy) -> Result<VpcName> {
        let group = self.groups.iter().chain(&self.add_groups).next();
        match (&self.vpc, group) {
            (Some(vpc), _) => Ok(vpc.clone()),
            (None, None) => Ok(VpcName::default()),
            (None, Some(group)) => {
                let (vpc, ..) = choose::vpc_of_group(policy, None, group)?;
                Ok(vpc.clone())
            }
        }
    }

    /// Which devices are meant, if the command says so.
    fn matching(&self) -> Result<Option<DeviceMatch>> {
        let mut matching = DeviceMatch::default();
        for criterion in &self.criteria {
            matching.add(criterion)?;
        }
        Ok(Some(matching).filter(|matching| !matching.is_empty()))
    }

    /// The interface as it is to be.
    fn interface(&self, chosen: &Chosen<'_>, matching: Option<&DeviceMatch>) -> Result<Interface> {
        let mut wanted = chosen.known.cloned().unwrap_or_default();
        wanted.matching = matching.cloned().map(Box::new).or(wanted.matching);
        wanted.netns.clone_from(&chosen.netns);
        wanted.groups = self.groups_of(chosen.name, wanted.groups)?;
        match self.side {
            None => {}
            Some(SideWord::Guest) => wanted.side = Side::Guest,
            // What only guests have goes with the guest.
            Some(SideWord::Host) => {
                wanted.side = Side::Host;
                wanted.addresses = BTreeSet::new();
                wanted.macs = Macs::default();
                wanted.vlans = BTreeSet::new();
            }
        }
        if !self.addresses.is_empty() {
            wanted.addresses = self.addresses.iter().copied().collect();
        }
        if let Some(macs) = macs(&self.macs) {
            wanted.macs = macs;
        }
        replace(&mut wanted.vlans, &self.vlans);
        replace(&mut wanted.ethertypes, &self.ethertypes);
        set(&mut wanted.hook, self.hook.map(Hook::from));
        switch(
            &mut wanted.replace_xdp,
            self.replace_xdp,
            self.no_replace_xdp,
        );
        switch(&mut wanted.tcp_pickup, self.tcp_pickup, self.no_tcp_pickup);
        let is_strict = |word| matches!(word, FragmentsWord::Strict);
        set(&mut wanted.strict_fragments, self.fragments.map(is_strict));
        set(
            &mut wanted.egress_drops,
            self.egress_drops.map(EgressDrops::from),
        );
        switch(&mut wanted.audit, self.audit, self.enforce);
        set(&mut wanted.timeouts.tcp_established_s, self.tcp_established);
        set(&mut wanted.timeouts.udp_s, self.udp);
        set(&mut wanted.timeouts.udp_stream_s, self.udp_stream);
        set(&mut wanted.max_flows, self.max_flows.map(OrNone::value));
        Ok(wanted)
    }

    /// The groups that it is in; a new interface that names none is in `default`.
    fn groups_of(
        &self,
        name: &InterfaceName,
        mut groups: BTreeSet<GroupName>,
    ) -> Result<BTreeSet<GroupName>> {
        if !self.groups.is_empty() {
            return Ok(self.groups.iter().cloned().collect());
        }
        let is_new = groups.is_empty();
        for group in &self.remove_groups {
            if !groups.remove(group) {
                return Err(Error::NotInGroup {
                    interface: name.clone(),
                    group: group.clone(),
                });
            }
        }
        groups.extend(self.add_groups.iter().cloned());
        if is_new && groups.is_empty() {
            groups.insert(GroupName::default_group());
        }
        Ok(groups)
    }
}

/// Sets what is said.
fn set<T>(to: &mut T, said: Option<T>) {
    if let Some(value) = said {
        *to = value;
    }
}

/// Turns on or off what is said.
fn switch(to: &mut bool, on: bool, off: bool) {
    *to = on || *to && !off;
}

/// Replaces a list by what is said, if anything is.
fn replace<T: Copy + Ord>(list: &mut BTreeSet<T>, said: &[OrNone<T>]) {
    if !said.is_empty() {
        *list = said.iter().filter_map(|value| value.value()).collect();
    }
}

fn macs(words: &[MacWord]) -> Option<Macs> {
    let listed = words.iter().filter_map(|word| match word {
        MacWord::One(mac) => Some(*mac),
        MacWord::Any | MacWord::Peer => None,
    });
    let is_any = |word: &MacWord| matches!(word, MacWord::Any);
    let listed: BTreeSet<_> = listed.collect();
    match words {
        [] => None,
        words if words.iter().any(is_any) => Some(Macs::Any),
        _ if listed.is_empty() => Some(Macs::Peer),
        _ => Some(Macs::Listed(listed)),
    }
}

impl From<HookWord> for Hook {
    fn from(word: HookWord) -> Self {
        match word {
            HookWord::Auto => Self::Auto,
            HookWord::Xdp => Self::Xdp,
            HookWord::Tc => Self::Tc,
            HookWord::XdpGeneric => Self::XdpGeneric,
        }
    }
}

impl From<EgressDropsWord> for EgressDrops {
    fn from(word: EgressDropsWord) -> Self {
        match word {
            EgressDropsWord::Silent => Self::Silent,
            EgressDropsWord::Told => Self::Told,
        }
    }
}
