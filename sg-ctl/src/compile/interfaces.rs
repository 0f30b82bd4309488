//! Interfaces: their slots and places, their zones, and what is in force on each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sg_common::abi::{INTERFACE_PROBES, Interface, InterfaceFlags, Scope, interface_home};
use sg_common::addr::Addr;
use sg_common::flow::TimeoutTicks;
use sg_common::ids::{Generation, Identity, Ticks};

use super::Settings;
use super::fold::Prefix;
use super::identities::PRESENT;
use super::image::{Image, InstalledInterface, ScopedPrefix};
use super::limits::{CompileError, Entries, Subject};
use super::numbers::Numbers;
use crate::policy::mac::MacAddress;
use crate::policy::model::{self, EgressDrops, Macs, Policy, Side, Timeouts, Vpc};
use crate::policy::names::{InterfaceName, VpcName};

/// An interface of the policy that this machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedInterface {
    /// Its VPC in the policy.
    pub vpc: VpcName,
    /// Its name in the policy.
    pub name: InterfaceName,
    /// The network namespace, as the controller numbers them from 1.
    pub netns: u32,
    /// The kernel's number in that namespace.
    pub ifindex: u32,
    /// Frames have no Ethernet header.
    pub bare: bool,
    /// Told apart from every guest before it, so that it inherits no flow: a number below 2³¹ that
    /// is never given twice. Counts for [`Side::Guest`] only.
    pub incarnation: u32,
    /// The addresses read from it. Count for [`Side::Host`] only.
    pub addresses: BTreeSet<IpAddr>,
    /// The link-layer address of its other end, where that can be seen. Counts for [`Side::Guest`]
    /// only.
    pub peer_mac: Option<MacAddress>,
    /// Flows admitted before this generation are judged again. `None` leaves what is in force.
    pub judge_again_before: Option<Generation>,
}

/// An attached interface with what the policy says of it.
pub(super) struct Protected<'a> {
    pub(super) attached: &'a AttachedInterface,
    pub(super) vpc_name: &'a VpcName,
    pub(super) vpc: &'a Vpc,
    pub(super) name: &'a InterfaceName,
    pub(super) interface: &'a model::Interface,
}

impl Protected<'_> {
    /// The link-layer addresses that a guest sends from; none where it sends from any.
    fn macs(&self) -> BTreeSet<MacAddress> {
        match &self.interface.macs {
            Macs::Peer => self.attached.peer_mac.into_iter().collect(),
            Macs::Any => BTreeSet::new(),
            Macs::Listed(macs) => macs.clone(),
        }
    }

    /// What a guest may send from: besides its addresses the link-local ones that it derives from its
    /// link-layer addresses, unless one is among its addresses.
    fn guest_addresses(&self) -> BTreeSet<IpAddr> {
        let mut addresses = self.interface.addresses.clone();
        if !addresses.iter().any(is_link_local) {
            addresses.extend(self.macs().into_iter().map(MacAddress::link_local));
        }
        addresses
    }

    fn subject(&self) -> Subject {
        Subject::Interface(self.vpc_name.clone(), self.name.clone())
    }
}

/// Looks the attached interfaces up in the policy. Their order no longer matters.
pub(super) fn protected<'a>(
    policy: &'a Policy,
    attached: &'a [AttachedInterface],
) -> Result<Vec<Protected<'a>>, CompileError> {
    let mut found = BTreeMap::new();
    for attached in attached {
        let vpc = policy.vpcs.get_key_value(&attached.vpc);
        let interface = vpc.and_then(|(_, vpc)| vpc.interface(&attached.name));
        let (Some((vpc_name, vpc)), Some(interface)) = (vpc, interface) else {
            let subject = Subject::Interface(attached.vpc.clone(), attached.name.clone());
            return Err(CompileError::UnknownInterface { subject });
        };
        let protected = Protected {
            attached,
            vpc_name,
            vpc,
            name: &attached.name,
            interface,
        };
        let subject = protected.subject();
        if let Some(other) = found.insert((attached.netns, attached.ifindex), protected) {
            return Err(CompileError::DeviceTwice {
                subject,
                other: other.subject(),
                ifindex: attached.ifindex,
            });
        }
    }
    Ok(found.into_values().collect())
}

/// Gives each interface a slot and a place, with what is in force on it. Needs the numbers of the
/// VPCs and policies.
pub(super) fn install(
    protected: &[Protected<'_>],
    policy_of: impl Fn(&Protected<'_>) -> (u32, u32),
    previous: &Image,
    settings: &Settings,
) -> Result<BTreeMap<u32, InstalledInterface>, CompileError> {
    refuse_more_than_allowed(protected, settings.limits.interfaces)?;
    let kept: BTreeMap<_, _> = previous
        .interfaces
        .iter()
        .map(|(slot, i)| ((i.netns, i.ifindex), (*slot, i)))
        .collect();
    // The lowest that are free: what is counted by slots is as large as the highest of them asks. One
    // that was just freed is not given again, as packets may still count by it.
    let mut slots = Numbers::new(0, previous.interfaces.keys().copied());
    let mut installed = BTreeMap::new();
    for protected in protected {
        let AttachedInterface { netns, ifindex, .. } = *protected.attached;
        let before = kept.get(&(netns, ifindex)).copied();
        let slot = match before {
            Some((slot, _)) => slot,
            None => slots.fresh(),
        };
        let (vpc, policy) = policy_of(protected);
        let judge_again_before = protected.attached.judge_again_before.unwrap_or_else(|| {
            before
                .map(|(_, before)| before.interface.judge_again_before)
                .unwrap_or_default()
        });
        let interface = Interface {
            policy,
            vpc,
            zone: zone(protected, vpc)?,
            flags: flags(protected),
            max_flows: max_flows(protected.interface, settings.assured_flows),
            judge_again_before,
            timeouts: timeouts(protected.interface.timeouts, settings.jiffies_per_second),
            ethertypes: ethertypes(&protected.interface.ethertypes),
            slot,
        };
        let (vpc, name) = (protected.vpc_name.clone(), protected.name.clone());
        installed.insert(
            slot,
            InstalledInterface {
                place: 0,
                netns,
                ifindex,
                vpc,
                name,
                interface,
            },
        );
    }
    Ok(installed)
}

fn refuse_more_than_allowed(protected: &[Protected<'_>], allowed: u32) -> Result<(), CompileError> {
    match protected.get(allowed as usize) {
        None => Ok(()),
        Some(beyond) => Err(CompileError::Full {
            map: "INTERFACES",
            limit: "interfaces",
            allowed,
            needs: protected.len() as u64,
            subject: beyond.subject(),
        }),
    }
}

/// The fewest places that there are.
const LEAST_PLACES: u32 = 64;
/// The most, at 192 bytes each.
const MOST_PLACES: u32 = 1 << 20;

/// Gives each interface its place, and returns how many places there are: at least twice as many as
/// interfaces, and as many more as it takes for each to lie near its home. While their number stays, an
/// interface stays where it is.
pub(super) fn place(
    installed: &mut BTreeMap<u32, InstalledInterface>,
    previous: &Image,
) -> Result<u32, CompileError> {
    let count = u32::try_from(installed.len()).unwrap_or(u32::MAX);
    let least = count.saturating_mul(2).clamp(LEAST_PLACES, MOST_PLACES);
    let mut places = previous.interface_places.max(least.next_power_of_two());
    loop {
        match place_among(places, installed, previous) {
            Err(_) if places < MOST_PLACES => places *= 2,
            placed => return placed.map(|()| places),
        }
    }
}

/// Gives each interface a place that neither this image nor the previous one uses.
fn place_among(
    places: u32,
    installed: &mut BTreeMap<u32, InstalledInterface>,
    previous: &Image,
) -> Result<(), CompileError> {
    let mut taken = BTreeSet::new();
    let mut kept = BTreeMap::new();
    if places == previous.interface_places {
        let interfaces = previous.interfaces.values();
        kept.extend(interfaces.map(|i| ((i.netns, i.ifindex), i.place)));
        taken.extend(kept.values().copied());
    }
    for interface in installed.values_mut() {
        let device = (interface.netns, interface.ifindex);
        let home = interface_home(interface.netns, interface.ifindex);
        let mut near = (0..INTERFACE_PROBES).map(|probe| home.wrapping_add(probe) & (places - 1));
        let place = match kept.get(&device) {
            Some(place) => Some(*place),
            None => near.find(|place| taken.insert(*place)),
        };
        interface.place = place.ok_or_else(|| CompileError::NoInterfacePlace {
            subject: Subject::Interface(interface.vpc.clone(), interface.name.clone()),
        })?;
    }
    Ok(())
}

/// Zones of hosts are even, those of guests odd, so that no two ever meet.
fn zone(protected: &Protected<'_>, vpc: u32) -> Result<u32, CompileError> {
    match protected.interface.side {
        Side::Host => Ok(vpc << 1),
        Side::Guest => match protected.attached.incarnation {
            incarnation if incarnation <= u32::MAX >> 1 => Ok(incarnation << 1 | 1),
            incarnation => Err(CompileError::NoZone {
                subject: protected.subject(),
                incarnation,
            }),
        },
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn flags(protected: &Protected<'_>) -> InterfaceFlags {
    let is_guest = protected.interface.side == Side::Guest;
    InterfaceFlags::default()
        .with(InterfaceFlags::GUEST, is_guest)
        .with(InterfaceFlags::BARE, protected.attached.bare)
        .with(InterfaceFlags::TCP_PICKUP, protected.interface.tcp_pickup)
        .with(
            InterfaceFlags::STRICT_FRAGMENTS,
            protected.interface.strict_fragments,
        )
        .with(InterfaceFlags::AUDIT, protected.interface.audit)
        .with(
            InterfaceFlags::TOLD,
            protected.interface.egress_drops == EgressDrops::Told,
        )
        .with(
            InterfaceFlags::LINK_LOCAL_KNOWN,
            is_guest && protected.guest_addresses().iter().any(is_link_local),
        )
        .with(
            InterfaceFlags::MACS_KNOWN,
            is_guest && !protected.attached.bare && !protected.macs().is_empty(),
        )
        .with(InterfaceFlags::VLANS, !protected.interface.vlans.is_empty())
}

/// The machine itself may hold half of all assured flows, one guest an eighth.
fn max_flows(interface: &model::Interface, assured_flows: u32) -> u32 {
    interface.max_flows.unwrap_or(match interface.side {
        Side::Host => assured_flows / 2,
        Side::Guest => assured_flows / 8,
    })
}

fn ethertypes(listed: &BTreeSet<u16>) -> [u16; 8] {
    let mut places = [0; 8];
    for (place, ethertype) in places.iter_mut().zip(listed) {
        *place = *ethertype;
    }
    places
}

/// Idle timeouts in seconds that nobody sets, because no protocol's meaning hangs on them: long
/// enough for the retransmissions of a peer that is there.
mod fixed {
    pub(super) const TCP_OPENING_S: u32 = 30;
    pub(super) const TCP_HALF_CLOSED_S: u32 = 3_600;
    pub(super) const TCP_CLOSING_S: u32 = 120;
    pub(super) const TCP_RESET_S: u32 = 10;
    pub(super) const ICMP_S: u32 = 30;
    /// AWS keeps other protocols 600 s.
    pub(super) const OTHER_S: u32 = 600;
    /// RFC 791 suggests 15 s for reassembly, and Linux keeps 30 s. What became of a first fragment
    /// does no harm for longer: it is bound to the same addresses, protocol and identification.
    pub(super) const FRAGMENT_S: u32 = 30;
}

fn timeouts(set: Timeouts, jiffies_per_second: u32) -> TimeoutTicks {
    let ticks = |seconds: u32| {
        let jiffies = u64::from(seconds) * u64::from(jiffies_per_second);
        u32::try_from(jiffies.div_ceil(1 << Ticks::SHIFT)).unwrap_or(u32::MAX >> 1)
    };
    TimeoutTicks {
        tcp_opening: ticks(fixed::TCP_OPENING_S),
        tcp_established: ticks(set.tcp_established_s),
        // A connection that is half closed is no livelier than one that is open.
        tcp_half_closed: ticks(fixed::TCP_HALF_CLOSED_S.min(set.tcp_established_s)),
        tcp_closing: ticks(fixed::TCP_CLOSING_S),
        tcp_reset: ticks(fixed::TCP_RESET_S),
        udp: ticks(set.udp_s),
        udp_stream: ticks(set.udp_stream_s),
        icmp: ticks(fixed::ICMP_S),
        other: ticks(fixed::OTHER_S),
        fragment: ticks(fixed::FRAGMENT_S),
    }
}

/// Bits of a key's address.
const ADDRESS_BITS: u32 = 128;

/// Writes what each guest may use: its addresses, those of the link layer, and its VLANs.
pub(super) fn guest_addresses(
    protected: &[Protected<'_>],
    installed: &BTreeMap<u32, InstalledInterface>,
    entries: &mut Entries<ScopedPrefix, Identity>,
) {
    let slots: BTreeMap<_, _> = installed
        .iter()
        .map(|(slot, i)| ((i.netns, i.ifindex), *slot))
        .collect();
    for guest in protected
        .iter()
        .filter(|protected| protected.interface.side == Side::Guest)
    {
        let AttachedInterface { netns, ifindex, .. } = *guest.attached;
        let Some(slot) = slots.get(&(netns, ifindex)) else {
            continue;
        };
        entries.begin(guest.subject());
        let macs = guest.macs().into_iter().map(|mac| {
            let [a, b, c, d, e, f] = mac.bytes();
            Addr::from_mac(u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]))
        });
        let vlans = guest.interface.vlans.iter().copied().map(Addr::from_vlan);
        for key in macs.chain(vlans) {
            let scope = Scope::guest_link(*slot);
            entries.add(ScopedPrefix::new(scope, key, ADDRESS_BITS), PRESENT);
        }
        for address in guest.guest_addresses() {
            let scope = Scope::guest(*slot, Addr::from(address).family());
            let whole = Prefix::from(address);
            entries.add(
                ScopedPrefix::new(scope, whole.address(), whole.bits()),
                PRESENT,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_ticks_rounded_up() {
        let at_250 = timeouts(Timeouts::default(), 250);
        assert_eq!(at_250.udp, 235, "30 s are 7500 jiffies, 234.4 ticks");
        assert_eq!(at_250.tcp_established, 3_375_000);
        assert_eq!(at_250.fragment, 235);
        assert_eq!(timeouts(Timeouts::default(), 1000).other, 18_750);
    }

    #[test]
    fn a_half_closed_connection_lives_no_longer_than_an_open_one() {
        let short = Timeouts {
            tcp_established_s: 60,
            ..Timeouts::default()
        };
        let ticks = timeouts(short, 100);
        assert_eq!(ticks.tcp_half_closed, ticks.tcp_established);
        let long = timeouts(Timeouts::default(), 100);
        assert_eq!(long.tcp_half_closed, 11_250);
    }
}
