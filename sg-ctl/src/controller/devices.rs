//! Which device an interface of the policy is on this machine.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use crate::dataplane::{self, Attachment, Device, unfit};
use crate::interfaces::{
    Error, Kind, Link, Netns, NetnsId, Result, every_namespace, link, links, peer_macs,
};
use crate::policy::matching::{Candidate, DeviceMatch, precedence};
use crate::policy::model::{Interface, Policy, Side};
use crate::policy::names::{InterfaceName, VpcName};

/// The network namespace that the machine itself is in.
const MACHINE: &str = "/proc/1/ns/net";

/// The interfaces that a command cannot do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needed {
    /// Those that are missing are left out.
    None,
    /// These, in this VPC.
    Some(VpcName, BTreeSet<InterfaceName>),
}

impl Needed {
    fn includes(&self, vpc: &VpcName, name: &InterfaceName) -> bool {
        match self {
            Self::None => false,
            Self::Some(in_vpc, names) => in_vpc == vpc && names.contains(name),
        }
    }
}

/// The devices of a policy's interfaces, and why some have none.
///
/// An interface has the device of its name. One that it had before and that still holds the programs
/// stays its own, whatever it is called now and wherever it is: a rename opens nothing.
pub(super) struct Devices {
    pub(super) found: Vec<Device>,
    /// Why an interface has no device at all.
    pub(super) missing: Vec<Missing>,
    /// The devices that are not where the policy has their interfaces.
    pub(super) strayed: Vec<Strayed>,
}

/// A protected device that is not where the policy has its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strayed {
    /// The interface's VPC.
    pub vpc: VpcName,
    /// The interface.
    pub interface: InterfaceName,
    /// The device's number.
    pub ifindex: u32,
    /// Where it is.
    pub place: StrayedTo,
}

/// Where a device is that is not where the policy has its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StrayedTo {
    /// It has another name.
    Name(String),
    /// Its entry does not match it any more.
    Unmatched,
    /// It is in another network namespace.
    Namespace {
        /// Its name there.
        name: String,
        /// The namespace, in words.
        netns: String,
        /// Whether its packets are judged there, and not all dropped.
        is_judged: bool,
    },
    /// It is in a network namespace that cannot be found.
    Unknown,
}

impl Strayed {
    /// Whether its packets are judged, and not all dropped.
    pub fn is_judged(&self) -> bool {
        match &self.place {
            StrayedTo::Name(_) | StrayedTo::Unmatched => true,
            StrayedTo::Namespace { is_judged, .. } => *is_judged,
            StrayedTo::Unknown => false,
        }
    }
}

impl fmt::Display for Strayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interface = &self.interface;
        write!(f, "the device of interface {interface} ")?;
        match &self.place {
            StrayedTo::Name(name) => {
                write!(
                    f,
                    "is called {name} now, and stays protected as {interface}"
                )
            }
            StrayedTo::Unmatched => write!(
                f,
                "does not match entry {} any more, and stays protected as before",
                interface.entry()
            ),
            StrayedTo::Namespace { name, netns, .. } => write!(
                f,
                "is {name} in {netns} now, and stays protected as {interface}"
            ),
            StrayedTo::Unknown => write!(
                f,
                "is in a network namespace that cannot be seen from here; sg's programs stay on \
                 it and drop everything until it comes back or `sg-ctl detach {interface}`"
            ),
        }
    }
}

/// Why an entry of the policy has no device.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// The device of its name is not there.
    #[error(transparent)]
    Device(#[from] Error),
    /// No device is as it says, or each such device belongs to a more exact entry.
    #[error("no device matches interface entry {entry} ({matching})")]
    Match {
        /// The entry.
        entry: InterfaceName,
        /// What its devices are like.
        matching: DeviceMatch,
    },
}

/// An entry of the policy that says which devices it is for.
struct Matching<'a> {
    vpc: &'a VpcName,
    name: &'a InterfaceName,
    interface: &'a Interface,
    matching: &'a DeviceMatch,
}

/// A device that is absent, and the entry that it would belong to.
type Absent<'a> = (&'a VpcName, &'a InterfaceName, Missing);

impl Devices {
    /// Asks each network namespace once. `attachments` are what is protected now.
    pub(super) fn find(
        policy: &Policy,
        needed: &Needed,
        attachments: &[Attachment],
    ) -> Result<Self> {
        let mut namespaces: HashMap<Option<&str>, Result<Namespace>> = HashMap::new();
        let mut devices = Self {
            found: Vec::new(),
            missing: Vec::new(),
            strayed: Vec::new(),
        };
        let mut absent: Vec<Absent<'_>> = Vec::new();
        let mut matching: BTreeMap<NetnsId, (Option<&str>, Vec<Matching<'_>>)> = BTreeMap::new();
        for (vpc_name, vpc) in &policy.vpcs {
            for (name, interface) in &vpc.interfaces {
                let netns = interface.netns.as_deref();
                let namespace = namespaces
                    .entry(netns)
                    .or_insert_with(|| Namespace::read(netns));
                if let Some(wanted) = &interface.matching {
                    match namespace.as_ref() {
                        Ok(namespace) => {
                            let id = namespace.netns.id();
                            let (_, entries) =
                                matching.entry(id).or_insert_with(|| (netns, Vec::new()));
                            entries.push(Matching {
                                vpc: vpc_name,
                                name,
                                interface,
                                matching: wanted,
                            });
                        }
                        Err(_) => {
                            let missing = Namespace::read(netns).err().map_or_else(
                                || Missing::Match {
                                    entry: name.clone(),
                                    matching: DeviceMatch::clone(wanted),
                                },
                                Missing::from,
                            );
                            absent.push((vpc_name, name, missing));
                        }
                    }
                    continue;
                }
                let device = match namespace {
                    Ok(namespace) => namespace.device(vpc_name, name),
                    // The error goes to the first interface that meets it.
                    Err(_) => Namespace::read(netns)
                        .and_then(|namespace| namespace.device(vpc_name, name)),
                };
                match device {
                    Ok(device) => devices.found.push(device),
                    Err(
                        missing @ (Error::InterfaceMissing { .. }
                        | Error::NetnsMissing { .. }
                        | Error::NotNetns { .. }),
                    ) if !needed.includes(vpc_name, name) => {
                        absent.push((vpc_name, name, missing.into()));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        for (netns, entries) in matching.into_values() {
            if let Some(Ok(namespace)) = namespaces.get(&netns) {
                devices.find_matching(namespace, entries, &mut absent);
            }
        }
        devices.follow(policy, attachments);
        let has_device = |vpc: &VpcName, name: &InterfaceName| {
            let mut found = devices.found.iter();
            found.any(|device| device.vpc == *vpc && device.name.entry() == name.as_str())
        };
        absent.retain(|(vpc, name, _)| !has_device(vpc, name));
        devices.missing = absent.into_iter().map(|(_, _, missing)| missing).collect();
        Ok(devices)
    }

    /// Gives each device of a namespace to the most exact entry that matches it. One that an entry
    /// names without `match` is that entry's.
    fn find_matching<'a>(
        &mut self,
        namespace: &Namespace,
        mut entries: Vec<Matching<'a>>,
        absent: &mut Vec<Absent<'a>>,
    ) {
        let inode = namespace.netns.id().inode;
        let named = self.found.iter();
        let named = named.filter(|device| device.netns.id().inode == inode);
        let named: BTreeSet<u32> = named.map(|device| device.link.ifindex).collect();
        entries.sort_by_key(|entry| precedence(entry.matching, (entry.vpc, entry.name)));
        let is_guest = |entry: &Matching<'_>| {
            entry.interface.side == Side::Guest && entry.matching.mac.is_some()
        };
        let mut links: Vec<Link> = namespace.links.values().cloned().collect();
        links.sort_by_key(|link| link.ifindex);
        let peers = match entries.iter().any(is_guest) {
            true => peer_macs(&namespace.netns, &links),
            false => HashMap::new(),
        };
        let mut matched = BTreeSet::new();
        for link in links {
            if named.contains(&link.ifindex) {
                continue;
            }
            let belongs = |entry: &&Matching<'_>| {
                let peer = peers.get(&link.ifindex).copied();
                is_match(entry.interface.side, entry.matching, &link, peer)
            };
            let Some(entry) = entries.iter().find(belongs) else {
                continue;
            };
            matched.insert((entry.vpc, entry.name));
            self.found.push(Device {
                vpc: entry.vpc.clone(),
                name: InterfaceName::of_device(entry.name, &link.name),
                netns: namespace.netns.clone(),
                link,
            });
        }
        let idle = entries
            .into_iter()
            .filter(|entry| !matched.contains(&(entry.vpc, entry.name)));
        absent.extend(idle.map(|entry| {
            let missing = Missing::Match {
                entry: entry.name.clone(),
                matching: entry.matching.clone(),
            };
            (entry.vpc, entry.name, missing)
        }));
    }

    /// Finds the devices that hold the programs of an interface without being the one of its name.
    fn follow(&mut self, policy: &Policy, attachments: &[Attachment]) {
        for attachment in attachments {
            let Some(ifindex) = attachment.held else {
                continue;
            };
            let vpc = policy.vpcs.get(&attachment.vpc);
            let is_at = |device: &Device, (inode, ifindex): (u64, u32)| {
                device.netns.id().inode == inode && device.link.ifindex == ifindex
            };
            let place = (attachment.netns_inode, ifindex);
            let named = vpc.and_then(|vpc| vpc.interface(&attachment.name));
            let is_in_place = ifindex == attachment.ifindex
                && self
                    .found
                    .iter()
                    .any(|device| is_at(device, place) && attachment.is_in(&device.netns));
            if named.is_none() || is_in_place {
                continue;
            }
            let (vpc, interface) = (attachment.vpc.clone(), attachment.name.clone());
            let Some((netns, link)) = whereabouts(attachment, ifindex) else {
                self.strayed.push(Strayed {
                    vpc,
                    interface,
                    ifindex,
                    place: StrayedTo::Unknown,
                });
                continue;
            };
            let inode = netns.id().inode;
            // It may be another interface's by its name now.
            let mut found = self.found.iter();
            if found.any(|device| is_at(device, (inode, ifindex))) {
                continue;
            }
            let home = named.and_then(|interface| namespace(interface.netns.as_deref()).ok());
            let is_home = home.is_some_and(|home| home.id() == netns.id());
            // Another device may have its former name.
            let name = match interface.device() {
                Some(_) if is_home => InterfaceName::of_device(&interface, &link.name),
                _ => interface,
            };
            let place = match (is_home, name.device()) {
                (true, Some(_)) => StrayedTo::Unmatched,
                (true, None) => StrayedTo::Name(link.name.clone()),
                (false, _) => StrayedTo::Namespace {
                    name: link.name.clone(),
                    netns: netns.to_string(),
                    is_judged: attachment.attached && attachment.netns_inode == inode,
                },
            };
            self.strayed.push(Strayed {
                vpc: vpc.clone(),
                interface: name.clone(),
                ifindex,
                place,
            });
            self.found.push(Device {
                vpc,
                name,
                netns,
                link,
            });
        }
    }
}

/// Whether an entry is for a device, as far as the device itself tells.
pub fn is_for(entry: &InterfaceName, interface: &Interface, link: &Link) -> bool {
    match &interface.matching {
        None => entry.as_str() == link.name,
        Some(matching) => is_match(interface.side, matching, link, None),
    }
}

/// Whether an entry matches a device. A guest's link-layer address is that of the other end of a
/// pair. libvirt gives the tap of a guest the guest's own address with another first byte, so that a
/// bridge takes none of them for its own.
fn is_match(side: Side, matching: &DeviceMatch, link: &Link, peer: Option<[u8; 6]>) -> bool {
    let of_guest = side == Side::Guest;
    let own: Vec<_> = link
        .mac
        .into_iter()
        .chain(peer.filter(|_| of_guest))
        .collect();
    let guest = match link.mac {
        Some([0xfe, rest @ ..]) if of_guest && link.kind == Kind::Tap => Some(rest),
        _ => None,
    };
    matching.matches(Candidate {
        name: &link.name,
        macs: &own,
        guest,
        alias: link.alias.as_deref(),
    })
}

/// Looks for the device that holds an attachment's programs, in every network namespace that has a
/// name or a process.
fn whereabouts(attachment: &Attachment, ifindex: u32) -> Option<(Netns, Link)> {
    let mut namespaces = every_namespace();
    // Most have never left.
    namespaces.sort_by_key(|netns| netns.id().inode != attachment.netns_inode);
    namespaces.into_iter().find_map(|netns| {
        let links = links(&netns).ok()?;
        let link = links.into_iter().find(|link| link.ifindex == ifindex)?;
        attachment.is_in(&netns).then_some((netns, link))
    })
}

/// Why devices of a policy cannot be protected. It is an error for an interface that was not so
/// before: a stored one must not keep the others from being protected.
pub(super) fn refuse_unfit(
    policy: &Policy,
    found: &[Device],
    before: &Policy,
) -> Result<Vec<dataplane::Error>, dataplane::Error> {
    let mut refused = Vec::new();
    for device in found {
        let interface = |policy: &Policy| {
            let vpc = policy.vpcs.get(&device.vpc);
            vpc.and_then(|vpc| vpc.interface(&device.name)).cloned()
        };
        let (was, is) = (interface(before), interface(policy));
        let hook = is
            .as_ref()
            .map(|interface| interface.hook)
            .unwrap_or_default();
        let Some(why) = unfit(hook, &device.netns, &device.link) else {
            continue;
        };
        let error = dataplane::Error::Unfit {
            interface: device.name.clone(),
            why,
        };
        // A device that only happens to match must not keep the others from being protected either.
        match was == is || device.name.device().is_some() {
            true => refused.push(error),
            false => return Err(error),
        }
    }
    Ok(refused)
}

struct Namespace {
    netns: Netns,
    links: HashMap<String, Link>,
}

impl Namespace {
    fn read(asked: Option<&str>) -> Result<Self> {
        let netns = namespace(asked)?;
        let links = links(&netns)?
            .into_iter()
            .map(|link| (link.name.clone(), link))
            .collect();
        Ok(Self { netns, links })
    }

    fn device(&self, vpc: &VpcName, name: &InterfaceName) -> Result<Device> {
        let found = match self.links.get(name.as_str()) {
            Some(found) => found.clone(),
            // Asked again, it may be there by now; else the error knows what there is instead.
            None => link(&self.netns, name.as_str())?,
        };
        Ok(Device {
            vpc: vpc.clone(),
            name: name.clone(),
            netns: self.netns.clone(),
            link: found,
        })
    }
}

/// The network namespace that a policy means.
///
/// An interface without one was attached outside of every named namespace. A command inside a
/// named one must not look for it there: it would find nothing, or another device.
pub fn namespace(recorded: Option<&str>) -> Result<Netns> {
    match recorded {
        Some(_) => Netns::resolve(recorded),
        None if Netns::name_of_current()?.is_some() => Netns::resolve(Some(MACHINE)),
        None => Netns::current(),
    }
}

/// How a policy calls the network namespace that was asked for.
pub fn recorded_namespace(asked: Option<&str>) -> Result<Option<String>> {
    match asked {
        Some(asked) => Ok(Some(asked.to_owned())),
        None => Netns::name_of_current(),
    }
}
