//! What the user means: VPCs with their groups, rules, prefix lists and interfaces.
//!
//! A [`Policy`] is sound by construction: every change goes through [`Policy::apply`], which
//! refuses, with every finding at once, what would leave a reference dangling, a rule twice or a
//! name clashing. Nothing here knows files, SQL, ifindexes or BPF.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use sg_common::packet::Direction;

use super::mac::MacAddress;
use super::matching::DeviceMatch;
use super::names::{GroupId, GroupName, InterfaceName, PrefixListName, RuleId, VpcName};

/// Everything one machine is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The VPCs by name; names are compared without regard to case.
    pub vpcs: BTreeMap<VpcName, Vpc>,
}

/// One policy domain: names are unique in it and references never leave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vpc {
    /// Named sets of prefixes.
    pub prefix_lists: BTreeMap<PrefixListName, BTreeSet<IpNet>>,
    /// Security groups; `default` is always among them.
    pub groups: BTreeMap<GroupName, Group>,
    /// The protected interfaces.
    pub interfaces: BTreeMap<InterfaceName, Interface>,
    /// Link-local services that groups never filter (DNS, metadata, time).
    pub link_local_services: BTreeSet<IpAddr>,
    /// What happens to tracked flows when the rule that admitted them goes.
    pub on_rule_removal: OnRuleRemoval,
}

impl Vpc {
    /// What the policy says of an interface: its entry.
    pub fn interface(&self, name: &InterfaceName) -> Option<&Interface> {
        self.interfaces.get(name.entry())
    }
}

/// What a removed rule does to the flows it admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRuleRemoval {
    /// Tracked flows live on until they close or idle out, as on AWS.
    #[default]
    Keep,
    /// Each flow is judged again by the new policy at its next packet.
    Terminate,
}

/// A named, stateful, allow-only set of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// `sg-` and 17 hexadecimal digits.
    pub id: GroupId,
    /// For people; at most 255 characters of AWS's set.
    pub description: String,
    /// At most one rule for each (direction, traffic, peer).
    pub rules: Vec<Rule>,
    /// Addresses that belong to the group besides those of its interfaces.
    pub members: BTreeSet<IpAddr>,
}

/// One permission. There is no deny rule and no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `sgr-` and 17 hexadecimal digits.
    pub id: RuleId,
    /// What the rule allows.
    pub permission: Permission,
    /// For people; not part of the rule's identity.
    pub description: String,
}

/// What a rule allows, and what makes it the same rule as another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission {
    /// Relative to the protected interface.
    pub direction: Direction,
    /// Protocol with its ports, or type and code.
    pub traffic: Traffic,
    /// The other side.
    pub peer: Peer,
}

/// A protocol and what it discriminates by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// Every protocol.
    All,
    /// TCP to these destination ports.
    Tcp(PortRange),
    /// UDP to these destination ports.
    Udp(PortRange),
    /// ICMP (protocol 1).
    Icmp(IcmpMatch),
    /// ICMPv6 (protocol 58).
    Icmpv6(IcmpMatch),
    /// Any other protocol by number, whole. Never 1, 6, 17 or 58.
    Protocol(u8),
}

/// Inclusive L4 ports, `first` never above `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Every port, 0 included.
    pub const ALL: Self = Self {
        first: 0,
        last: u16::MAX,
    };

    /// Returns `None` when the range is reversed.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last {
            Some(Self { first, last })
        } else {
            None
        }
    }

    /// The lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port, itself included.
    pub const fn last(self) -> u16 {
        self.last
    }
}

/// Which ICMP messages; a code without a type cannot be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IcmpMatch {
    /// Every type and code.
    Any,
    /// Every code of one type.
    Type(u8),
    /// One type and code.
    TypeCode(u8, u8),
}

/// The other side a rule speaks of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// A block of addresses, host bits cleared.
    Prefix(IpNet),
    /// A prefix list of the same VPC.
    PrefixList(PrefixListName),
    /// A group of the same VPC, itself allowed.
    Group(GroupName),
}

/// A protected interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Which devices it is for; `None` for the one of its name.
    pub matching: Option<Box<DeviceMatch>>,
    /// Named groups of the VPC; never empty.
    pub groups: BTreeSet<GroupName>,
    /// What is protected.
    pub side: Side,
    /// Which hook receives.
    pub hook: Hook,
    /// The network namespace, if it is not that of the command.
    pub netns: Option<String>,
    /// The guest's own addresses; only for [`Side::Guest`].
    pub addresses: BTreeSet<IpAddr>,
    /// The guest's link-layer addresses; only for [`Side::Guest`].
    pub macs: Macs,
    /// The VLANs that the guest is in; only for [`Side::Guest`].
    pub vlans: BTreeSet<u16>,
    /// EtherTypes that pass unjudged besides the usual ones; at most eight.
    pub ethertypes: BTreeSet<u16>,
    /// Take over a foreign XDP program.
    pub replace_xdp: bool,
    /// Whether a packet in the middle of an unknown TCP connection is judged as a new flow.
    pub tcp_pickup: bool,
    /// Whether a later fragment passes only behind its first one.
    pub strict_fragments: bool,
    /// What a sender on this machine is told when its packet is dropped.
    pub egress_drops: EgressDrops,
    /// Judge, count and tell, but let everything pass.
    pub audit: bool,
    /// How long idle flows live.
    pub timeouts: Timeouts,
    /// The most assured flows this interface may hold; `None` leaves the default share.
    pub max_flows: Option<u32>,
}

/// What an interface protects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// This machine: what the interface receives is ingress.
    #[default]
    Host,
    /// What is behind the tap or veth: what the interface receives is the guest's egress.
    Guest,
}

/// Which hook receives; what leaves is always judged at TC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Chosen by the kind of device.
    #[default]
    Auto,
    /// XDP, run by the driver.
    Xdp,
    /// Traffic control.
    Tc,
    /// XDP, run by the kernel above the driver.
    XdpGeneric,
}

/// The link-layer addresses that a guest sends from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Macs {
    /// That of the device's other end, where the machine can see it; else any.
    #[default]
    Peer,
    /// Any.
    Any,
    /// These; never empty.
    Listed(BTreeSet<MacAddress>),
}

impl Macs {
    /// Those that are listed.
    pub fn listed(&self) -> impl Iterator<Item = MacAddress> {
        let listed = match self {
            Self::Listed(macs) => Some(macs),
            Self::Peer | Self::Any => None,
        };
        listed.into_iter().flatten().copied()
    }
}

/// What a sender on this machine is told when a packet that leaves by the interface is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum EgressDrops {
    /// Nothing, as if the packet had been lost further on.
    #[default]
    Silent,
    /// That it was not sent: a connection is given up within seconds, and `sendto` fails.
    Told,
}

/// Idle timeouts in seconds, with AWS's names and bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// 60 to 432,000; AWS's TcpEstablishedTimeout.
    pub tcp_established_s: u32,
    /// 30 to 60; AWS's UdpTimeout: one direction, or one request and its response.
    pub udp_s: u32,
    /// 60 to 180; AWS's UdpStreamTimeout.
    pub udp_stream_s: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_established_s: 432_000,
            udp_s: 30,
            udp_stream_s: 180,
        }
    }
}

impl Default for Interface {
    fn default() -> Self {
        Self {
            matching: None,
            groups: BTreeSet::new(),
            side: Side::default(),
            hook: Hook::default(),
            netns: None,
            addresses: BTreeSet::new(),
            macs: Macs::default(),
            vlans: BTreeSet::new(),
            ethertypes: BTreeSet::new(),
            replace_xdp: false,
            tcp_pickup: true,
            strict_fragments: false,
            egress_drops: EgressDrops::default(),
            audit: false,
            timeouts: Timeouts::default(),
            max_flows: None,
        }
    }
}
