//! The shapes of the compiled policy, and what the decision asks of it.
//!
//! The structs are the entries of the kernel's maps, byte for byte: `repr(C)`, no implicit padding,
//! sizes asserted. An all-zero entry admits nothing.
//!
//! What an update may change lies in [`Faces`]: each packet reads the generation once, and that
//! number's parity picks the face it sees everywhere. An update writes the faces nobody sees, flips
//! the number, waits until no packet remembers the old one, and makes the other faces equal. So
//! every packet sees the old policy or the new one, whole.

use crate::addr::{Addr, Family};
use crate::decide::{Desk, Stage, Trace, run_stage};
use crate::flow::{FlowKey, FlowState, FlowTable, HashKey, Leg, Passage, Ticks};
use crate::packet::Direction;
use crate::ranges::{PORT_SEARCH_STEPS, search_ports};
use crate::report::{Decision, Reason, Verdict};

/// The layout of the maps. A program never works on maps of another number.
pub const ABI: u32 = 4;

/// Two values of one entry: the one in force and the one an update prepares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Faces<T>(pub [T; 2]);

impl<T> Faces<T> {
    /// The value that packets of this generation see.
    ///
    /// Found by its place, without a branch: what is read there then waits for the generation on every
    /// processor.
    #[inline(always)]
    pub fn at(&self, generation: Generation) -> &T {
        let Self(faces) = self;
        let [even, _] = faces;
        faces.get((generation.0 & 1) as usize).unwrap_or(even)
    }

    /// The same, to be written.
    pub const fn at_mut(&mut self, generation: Generation) -> &mut T {
        let Self([even, odd]) = self;
        if generation.0 & 1 == 0 { even } else { odd }
    }
}

impl<T: Copy> Faces<T> {
    /// Both faces alike.
    pub const fn both(value: T) -> Self {
        Self([value, value])
    }
}

/// The number of one installed policy; it only grows, and wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// The one that comes after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Whether this one came before `other`, across a wrap.
    #[inline(always)]
    pub const fn is_before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }
}

/// Where a rule's counters are. Zero is no rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(transparent)]
pub struct RuleSlot(pub u32);

impl RuleSlot {
    /// No rule.
    pub const NONE: Self = Self(0);

    /// Whether there is a rule.
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }
}

/// What every packet reads first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Globals {
    /// The policy in force.
    pub generation: Generation,
    /// The buckets of flows, less one; a power of two less one.
    pub flow_mask: u32,
    /// The same for the buckets that flows are carried from; zero when there are none.
    pub other_flow_mask: u32,
    /// A random key, so that nobody outside can aim at a bucket.
    pub hash_key: HashKey,
    /// The layout these maps have: [`ABI`].
    pub abi: u32,
    /// The places of [`InterfaceEntry`], less one; a power of two less one.
    pub interface_mask: u32,
    /// Kernel timer ticks a second (`CONFIG_HZ`), for readers of deadlines.
    pub jiffies_per_second: u32,
}

/// A protected interface: who it is, and what is in force on it.
///
/// The maps that every packet reads begin on a page, and their entries have sizes that divide into
/// cache lines: who it is and what a refused SYN needs of either face lie in the first two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct InterfaceEntry {
    /// The network namespace, as the controller numbers them from 1. Zero is a free place.
    pub netns: u32,
    /// The kernel's number in that namespace.
    pub ifindex: u32,
    /// What is in force.
    pub faces: Faces<Interface>,
    /// Always zero.
    pub padding: [u32; 4],
}

impl InterfaceEntry {
    /// The entry of an interface.
    pub const fn new(netns: u32, ifindex: u32, faces: Faces<Interface>) -> Self {
        Self {
            netns,
            ifindex,
            faces,
            padding: [0; 4],
        }
    }
}

/// What is in force on one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct Interface {
    /// The set of its groups, as the compiler numbers them from 1. Zero drops everything.
    pub policy: u32,
    /// Where identities are looked up.
    pub vpc: u32,
    /// Whose flows it shares: one zone for the host-side interfaces of a VPC, one a guest.
    pub zone: u32,
    /// Bits of [`InterfaceFlags`].
    pub flags: InterfaceFlags,
    /// The most assured flows it may hold.
    pub max_flows: u32,
    /// Flows admitted before this generation are judged again at their next packet.
    pub judge_again_before: Generation,
    /// Idle timeouts.
    pub timeouts: TimeoutTicks,
    /// EtherTypes that pass besides the usual ones; zero is an unused place.
    pub ethertypes: [u16; 8],
    /// A number of its own as long as it is attached: it owns the flows that the interface opens, and
    /// its counters are found by it.
    pub slot: u32,
}

impl Interface {
    /// The number of one direction of its policy, as [`Scope`] and [`GrantKey`] use it. It is reckoned
    /// and not looked up, so that tables by this number are read while the policy is still coming.
    #[inline(always)]
    pub const fn direction_policy(&self, direction: Direction) -> u32 {
        direction_policy(self.policy, direction)
    }

    /// The same for a packet of which no link-layer address is known.
    #[must_use]
    pub const fn without_macs(&self) -> Self {
        let InterfaceFlags(flags) = self.flags;
        Self {
            flags: InterfaceFlags(flags & !InterfaceFlags::MACS_KNOWN.0),
            ..*self
        }
    }

    /// What happens to a packet that was judged: its verdict, unless the interface is only audited.
    #[inline(always)]
    pub const fn enforce(&self, reason: Reason) -> Verdict {
        if self.flags.has(InterfaceFlags::AUDIT) {
            Verdict::Pass
        } else {
            reason.verdict()
        }
    }
}

/// Idle timeouts in [`Ticks`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct TimeoutTicks {
    /// TCP whose handshake is not complete.
    pub tcp_opening: u32,
    /// TCP with both sides open.
    pub tcp_established: u32,
    /// TCP that one side has closed.
    pub tcp_half_closed: u32,
    /// TCP that both sides have closed.
    pub tcp_closing: u32,
    /// TCP after a reset.
    pub tcp_reset: u32,
    /// UDP one way, or one request and its response.
    pub udp: u32,
    /// UDP with more than one request and response.
    pub udp_stream: u32,
    /// ICMP requests.
    pub icmp: u32,
    /// Every other protocol.
    pub other: u32,
    /// What became of a first fragment.
    pub fragment: u32,
}

/// Yes-or-no properties of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(transparent)]
pub struct InterfaceFlags(pub u32);

impl InterfaceFlags {
    /// What is behind the interface is protected, not the machine that has it.
    pub const GUEST: Self = Self(1);
    /// Frames have no Ethernet header.
    pub const BARE: Self = Self(2);
    /// Packets in the middle of an unknown TCP connection are judged as a new flow.
    pub const TCP_PICKUP: Self = Self(4);
    /// Everything passes; it is judged, counted and told all the same.
    pub const AUDIT: Self = Self(8);
    /// A later fragment passes only behind the first one.
    pub const STRICT_FRAGMENTS: Self = Self(256);
    /// The guest's own addresses have its link-local one among them, so that any other is not its own.
    pub const LINK_LOCAL_KNOWN: Self = Self(16);
    /// The guest's link-layer addresses are known: it sends from no others.
    pub const MACS_KNOWN: Self = Self(64);
    /// The guest is in VLANs.
    pub const VLANS: Self = Self(128);
    /// A sender on this machine is told that its packet was dropped.
    pub const TOLD: Self = Self(32);

    /// Whether all of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`, if `on`.
    #[must_use]
    pub const fn with(self, other: Self, on: bool) -> Self {
        if on { Self(self.0 | other.0) } else { self }
    }
}

/// A slice of the port entries: immutable once anything points to it, and shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct PortTable {
    /// Index of the first entry.
    pub offset: u32,
    /// How many entries; zero admits nothing.
    pub length: u32,
}

impl PortTable {
    /// Admits nothing.
    pub const EMPTY: Self = Self {
        offset: 0,
        length: 0,
    };
    /// The most entries one table may have: every boundary of every protocol's ports would be more,
    /// but the search is bounded in its halvings.
    pub const MAX_LENGTH: u32 = (1 << PORT_SEARCH_STEPS) - 1;
}

/// From `start` on, up to the next entry's start, this rule admits (or none).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct PortEntry {
    /// Protocol in the third byte; port, or ICMP type and code, in the lower two.
    pub start: Service,
    /// The rule that admits.
    pub rule: RuleSlot,
}

/// A protocol with its destination port, or its ICMP type and code: `protocol << 16 | low`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(transparent)]
pub struct Service(pub u32);

impl Service {
    /// One past the highest.
    pub const END: u32 = 1 << 24;

    /// Protocols without ports have `low` zero.
    #[inline(always)]
    pub const fn new(protocol: u8, low: u16) -> Self {
        Self((protocol as u32) << 16 | low as u32)
    }

    /// Any service of the protocol: a search for it finds some rule that admits one.
    #[inline(always)]
    pub const fn any_of(protocol: u8) -> Self {
        Self(Self::ANY | (protocol as u32) << 16)
    }

    /// Beyond every service.
    const ANY: u32 = Self::END;

    /// Whether any service of the protocol will do.
    #[inline(always)]
    pub const fn is_any(self) -> bool {
        self.0 & Self::ANY != 0
    }

    /// The service itself, or the first one of the protocol.
    #[inline(always)]
    pub const fn first(self) -> Self {
        Self(self.0 & !Self::ANY)
    }

    /// The IP protocol number.
    #[inline(always)]
    pub const fn protocol(self) -> u8 {
        (self.0 >> 16) as u8
    }
}

/// What a set of groups allows: both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct Policy {
    /// By [`Direction::number`].
    pub directions: [DirectionPolicy; 2],
}

impl Policy {
    /// One direction's part.
    #[inline(always)]
    pub const fn direction(&self, direction: Direction) -> &DirectionPolicy {
        let [ingress, egress] = &self.directions;
        match direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
        }
    }
}

/// What a set of groups allows in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct DirectionPolicy {
    /// Rules whose peer is every address of the family, by [`Family`].
    pub open: [PortTable; 2],
    /// Which further lookups can find anything, and which protocols are open whole.
    pub flags: PolicyFlags,
    /// Always zero: both directions take a cache line.
    pub padding: [u32; 3],
}

/// The number of one direction of a policy.
#[inline(always)]
pub const fn direction_policy(policy: u32, direction: Direction) -> u32 {
    policy << 1 | direction.number()
}

impl DirectionPolicy {
    /// The table of rules open to every address of the family.
    #[inline(always)]
    pub const fn open_to(&self, family: Family) -> PortTable {
        let [v4, v6] = self.open;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }
}

/// Properties of one direction of a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(transparent)]
pub struct PolicyFlags(pub u32);

impl PolicyFlags {
    /// Some rule's peer is a group.
    pub const GROUPS: Self = Self(1);
    /// Some rule's peer is a prefix list.
    pub const PREFIX_LISTS: Self = Self(2);
    /// Some rule's peer is an IPv4 prefix longer than zero; for IPv6 the next bit.
    const PREFIXES_V4: u32 = 4;
    /// One rule admits all of TCP from or to every IPv4 address; IPv6 and UDP in the next bits.
    const OPEN_TCP_V4: u32 = 16;
    const OPEN_UDP_V4: u32 = 64;

    /// Some rule's peer is a prefix of this family.
    pub const fn prefixes(family: Family) -> Self {
        Self(Self::PREFIXES_V4 << family as u32)
    }

    /// One rule admits every port of the protocol (6 or 17) for every address of the family.
    #[inline(always)]
    pub const fn open(family: Family, protocol: u8) -> Self {
        let bit = if protocol == crate::parse::TCP {
            Self::OPEN_TCP_V4
        } else {
            Self::OPEN_UDP_V4
        };
        Self(bit << family as u32)
    }

    /// Whether all of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These with `other`, or without.
    #[must_use]
    pub const fn with(self, other: Self, on: bool) -> Self {
        Self(if on {
            self.0 | other.0
        } else {
            self.0 & !other.0
        })
    }
}

/// Whose prefixes a longest-prefix lookup searches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Scope(pub u32);

impl Scope {
    /// The prefixes that one direction of a policy names; the number is the index of their table.
    #[inline(always)]
    pub const fn policy(direction_policy: u32, family: Family) -> Self {
        Self(direction_policy << 1 | family as u32)
    }

    const KIND_BITS: u32 = 2;
    const KINDS: u32 = (1 << Self::KIND_BITS) - 1;

    /// The prefix lists of a VPC.
    #[inline(always)]
    pub const fn prefix_lists(vpc: u32, family: Family) -> Self {
        Self((vpc << 1 | family as u32) << Self::KIND_BITS)
    }

    /// The index of the table, where this is [`Scope::prefix_lists`].
    #[inline(always)]
    pub const fn list_table(self) -> Option<u32> {
        if self.0 & Self::KINDS == 0 {
            Some(self.0 >> Self::KIND_BITS)
        } else {
            None
        }
    }

    /// The addresses of the guest behind an interface.
    #[inline(always)]
    pub const fn guest(interface_slot: u32, family: Family) -> Self {
        Self((interface_slot << 1 | family as u32) << Self::KIND_BITS | 1)
    }

    /// The link-layer addresses and VLANs of the guest behind an interface.
    #[inline(always)]
    pub const fn guest_link(interface_slot: u32) -> Self {
        Self((interface_slot << 1) << Self::KIND_BITS | 3)
    }

    /// The link-local services of a VPC.
    #[inline(always)]
    pub const fn services(vpc: u32, family: Family) -> Self {
        Self((vpc << 1 | family as u32) << Self::KIND_BITS | 2)
    }
}

/// Key of a longest-prefix map: the scope, whole, and then the address's bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct PrefixKey {
    /// Network order, so that its bits come first.
    pub scope: [u8; 4],
    /// The address; IPv4 as a mapped one.
    pub address: Addr,
}

impl PrefixKey {
    /// Bits of the scope, which every prefix includes.
    pub const SCOPE_BITS: u32 = 32;
    /// Bits of a whole key.
    pub const BITS: u32 = Self::SCOPE_BITS + 128;

    /// Builds the key.
    #[inline(always)]
    pub const fn new(scope: Scope, address: Addr) -> Self {
        Self {
            scope: scope.0.to_be_bytes(),
            address,
        }
    }
}

/// Key of the exact-address map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct MemberKey {
    /// The VPC.
    pub vpc: u32,
    /// The address.
    pub address: Addr,
}

/// Key of what an identity is granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct GrantKey {
    /// [`direction_policy`].
    pub direction_policy: u32,
    /// A set of groups, or of prefix lists, as the compiler numbers them from 1.
    pub identity: Identity,
}

/// The set of groups an address is in, or the set of prefix lists. Zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(transparent)]
pub struct Identity(pub u32);

impl Identity {
    /// In no group and no list.
    pub const NONE: Self = Self(0);

    /// Whether the address is in any.
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }
}

/// Which first fragment a later one belongs to (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentKey {
    /// Sender.
    pub source: Addr,
    /// Receiver.
    pub destination: Addr,
    /// The packet's identification.
    pub id: u32,
    /// [`Interface::slot`].
    pub interface: u32,
    /// The protocol, or the next header after the fragment header.
    pub protocol: u8,
    /// [`Direction::number`].
    pub direction: u8,
    /// Always zero.
    pub padding: [u8; 2],
}

/// What became of a first fragment, or of later ones that came before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FragmentVerdict {
    /// Until when it counts.
    pub deadline: Ticks,
    /// Bytes of payload the first fragment had: nothing later may reach below. While it is awaited,
    /// where the lowest fragment before it begins: it may not reach beyond.
    pub judged_bytes: u32,
    /// The rule it passed by. While it is awaited, how many fragments came before it.
    pub rule: RuleSlot,
    /// One of the constants; anything else is dropped.
    pub passed: u32,
}

impl FragmentVerdict {
    /// The first fragment was dropped.
    pub const DROPPED: u32 = 0;
    /// The first fragment passed.
    pub const PASSED: u32 = 1;
    /// The first fragment is awaited.
    pub const AWAITED: u32 = 2;
    /// Nothing is known; no entry says so.
    pub const UNKNOWN: u32 = 3;
}

/// How many packets of an interface wait for their first fragment. Two CPUs that count at once may
/// lose a count: the bound is not exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Awaiting {
    /// Packets whose later fragments have passed.
    pub packets: u32,
    /// When that was last counted.
    pub counted: Ticks,
}

impl Awaiting {
    /// The most packets that wait at once. What is lost on its way is given up one a tick, so that
    /// room for all of them comes back within seconds.
    pub const MOST: u32 = 256;
    /// The most fragments of one packet that pass before its first one: the largest packet in pieces
    /// of 256 bytes.
    pub const MOST_FRAGMENTS: u32 = 256;

    /// With those left out that were given up since.
    #[inline(always)]
    const fn at(self, now: Ticks) -> Self {
        let ticks = now.0.wrapping_sub(self.counted.0);
        Self {
            packets: self.packets.saturating_sub(ticks),
            counted: now,
        }
    }

    /// Whether another packet may wait.
    #[inline(always)]
    pub const fn has_room(self, now: Ticks) -> bool {
        self.at(now).packets < Self::MOST
    }

    /// With one more.
    #[inline(always)]
    #[must_use]
    pub const fn with_one(self, now: Ticks) -> Self {
        let current = self.at(now);
        Self {
            packets: current.packets + 1,
            ..current
        }
    }

    /// With one less.
    #[inline(always)]
    #[must_use]
    pub const fn without_one(self, now: Ticks) -> Self {
        let current = self.at(now);
        Self {
            packets: current.packets.saturating_sub(1),
            ..current
        }
    }
}

/// Packets and bytes that had one reason at one interface in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ReasonCounter {
    /// Packets of the wire; a GSO packet counts its segments.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// The counters of all reasons at one interface in one direction, by [`Reason::number`]. They fill
/// whole cache lines: no two CPUs write one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct ReasonCounters(pub [ReasonCounter; Self::PLACES]);

impl Default for ReasonCounters {
    fn default() -> Self {
        Self([ReasonCounter::default(); Self::PLACES])
    }
}

impl ReasonCounters {
    /// One for each reason, and the rest of the last cache line.
    const PLACES: usize = Reason::COUNT.next_multiple_of(4);

    /// One reason's counter.
    pub fn of(&self, reason: Reason) -> ReasonCounter {
        let Self(counters) = self;
        let counter = counters.get(reason.number() as usize);
        counter.copied().unwrap_or_default()
    }
}

/// What a rule admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RuleCounter {
    /// Packets of the wire, those of tracked flows included.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Flows it opened.
    pub flows: u64,
    /// When it last admitted a packet; zero is never.
    pub last_hit: Ticks,
    /// Always zero.
    pub padding: u32,
}

/// Where the [`ReasonCounters`] of an interface in a direction are.
#[inline(always)]
pub const fn reasons_index(interface_slot: u32, direction: Direction) -> u32 {
    interface_slot * 2 + direction.number()
}

/// How many places from its home on an interface may lie in the table.
pub const INTERFACE_PROBES: u32 = 8;

/// The place where the search for an interface begins.
#[inline(always)]
pub const fn interface_home(netns: u32, ifindex: u32) -> u32 {
    // Consecutive ifindexes take consecutive places, and namespaces start apart, whatever the size.
    netns.wrapping_mul(0x9e37_79b1).wrapping_add(ifindex)
}

/// What a first look for a flow came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance<F> {
    /// It is there, and assured.
    Found(F),
    /// It is in neither table.
    Absent,
    /// It takes a search to know.
    Unsure,
}

/// A packet that may belong to an assured flow.
///
/// A trait, as a closure would be a function of its own in the kernel, whose argument lies in memory.
pub trait Passing {
    /// Whether its flow's key lies in memory, where it can be read again when the flow is found.
    const KEY_IN_MEMORY: bool;

    /// Packets of the wire that it stands for, and bytes to count.
    fn size(&self) -> (u32, u32);

    /// Whether it does no more to the flow than to move its numbers. It looks at the state's owner,
    /// generation, initiator, phase and marks.
    fn may_pass(&self, state: &FlowState) -> bool;

    /// What the packet does to the flow, if it may pass. Of the state it looks at the rest too, but for
    /// the rule.
    fn passage(&self, state: &mut FlowState) -> Passage;
}

/// What the decision asks. The kernel's maps answer it, and so does the host's copy.
pub trait Tables {
    /// Where a flow was found.
    type Flow: Copy;

    /// The time.
    fn now(&self) -> Ticks;
    /// Returns the number as it is, as [`Packet::forget`](crate::packet::Packet::forget) does.
    #[inline(always)]
    fn forget(&self, number: u32) -> u32 {
        number
    }
    /// The policy in force.
    fn generation(&self) -> Generation;
    /// The set of groups with this number.
    fn policy(&self, id: u32) -> Option<&Policy>;
    /// One port entry.
    fn port_entry(&self, index: u32) -> Option<PortEntry>;
    /// The rule by which a port table admits the service.
    #[inline(always)]
    fn rule_in(&self, table: PortTable, service: Service) -> RuleSlot
    where
        Self: Sized,
    {
        search_ports(self, table, service)
    }
    /// Runs a stage of the judgement; the kernel has a function for each.
    #[inline(always)]
    fn stage<R: Trace>(
        &self,
        stage: Stage,
        desk: &mut Desk,
        direction: Direction,
        interface: &Interface,
        trace: &R,
    ) -> Decision
    where
        Self: Sized,
    {
        run_stage(stage, desk, direction, interface, self, trace)
    }
    /// The port table of the longest prefix that covers the address.
    fn prefix(&self, scope: Scope, address: &Addr) -> PortTable;
    /// The set that the longest prefix covering the address stands for.
    fn set(&self, scope: Scope, address: &Addr) -> Identity;
    /// The set of groups that the address is in.
    fn member(&self, vpc: u32, address: &Addr) -> Identity;
    /// What an identity is granted.
    fn grant(&self, key: &GrantKey) -> PortTable;

    /// Looks for a flow that is in this table and not past its deadline, and says where it is and
    /// what its state is.
    fn find_flow(
        &self,
        table: FlowTable,
        key: &FlowKey,
        state: &mut FlowState,
    ) -> Option<Self::Flow>;
    /// Looks for a flow in both tables. Another CPU may move it between two looks, so what is in
    /// neither is looked for among the assured again.
    #[inline(always)]
    fn find_either(&self, key: &FlowKey, state: &mut FlowState) -> Option<(FlowTable, Self::Flow)> {
        const LOOKS: [FlowTable; 3] =
            [FlowTable::Assured, FlowTable::Embryonic, FlowTable::Assured];
        for table in LOOKS {
            if let Some(flow) = self.find_flow(table, key, state) {
                return Some((table, flow));
            }
        }
        None
    }
    /// Looks for an assured flow where it most likely is, and keeps what a packet does to it. Returns the
    /// rule that admitted the flow. `state` is a place to write on.
    #[inline(always)]
    fn pass_along(
        &self,
        key: &FlowKey,
        state: &mut FlowState,
        packet: &impl Passing,
    ) -> Glance<RuleSlot> {
        let flow = match self.find_either(key, state) {
            Some((FlowTable::Assured, flow)) => flow,
            Some((FlowTable::Embryonic, _)) => return Glance::Unsure,
            None => return Glance::Absent,
        };
        if !packet.may_pass(state) {
            return Glance::Unsure;
        }
        let passage = packet.passage(state);
        if passage.has_moved {
            self.advance_flow(flow, passage.leg, state);
        }
        self.extend_flow(flow, self.now().after(passage.timeout));
        let (packets, bytes) = packet.size();
        self.count_flow(flow, passage.leg, packets, bytes);
        Glance::Found(state.rule)
    }
    /// Puts a flow into a table. `None`: there is no room.
    fn insert_flow(
        &self,
        table: FlowTable,
        key: &FlowKey,
        state: &FlowState,
        deadline: Ticks,
    ) -> Option<Self::Flow>;
    /// Notes that a SYN which went this way has opened a flow, or has come again.
    fn note_syn(&self, _went: Direction) {}
    /// Whether a SYN that went this way not longer ago may still wait for its answer.
    #[inline(always)]
    fn may_cross_syn(&self, _went: Direction, _ticks: u32) -> bool {
        true
    }
    /// Writes the sequence numbers that a leg's segment has moved, and nothing else of the state.
    #[inline(always)]
    fn advance_flow(&self, flow: Self::Flow, _leg: Leg, state: &FlowState) {
        self.update_flow(flow, state);
    }
    /// Writes a flow's state.
    fn update_flow(&self, flow: Self::Flow, state: &FlowState);
    /// Moves a flow's deadline, if that is worth a write.
    fn extend_flow(&self, flow: Self::Flow, deadline: Ticks);
    /// Counts a packet of a flow.
    fn count_flow(&self, flow: Self::Flow, leg: Leg, packets: u32, bytes: u32);
    /// Moves a flow's counters from where it was to where it is.
    fn carry_counts(&self, from: Self::Flow, to: Self::Flow);
    /// Ends a flow.
    fn remove_flow(&self, flow: Self::Flow, owner: u32);
    /// Frees the places of some expired flows, so that quotas become true without any process.
    fn reclaim_flows(&self);
    /// How many assured flows the interface slot holds.
    fn flows_of(&self, owner: u32) -> u32;

    /// Remembers what became of a first fragment.
    fn remember_fragment(&self, key: &FragmentKey, verdict: &FragmentVerdict);
    /// What became of the first fragment.
    fn recall_fragment(&self, key: &FragmentKey) -> Option<FragmentVerdict>;
    /// How many packets wait for their first fragment at the interface with this slot.
    fn awaiting(&self, slot: u32) -> Awaiting;
    /// Writes how many do.
    fn set_awaiting(&self, slot: u32, awaiting: Awaiting);
}

const _: () = {
    assert!(size_of::<Globals>() == 64);
    assert!(size_of::<Interface>() == 84);
    assert!(size_of::<InterfaceEntry>() == 192);
    assert!(size_of::<PortEntry>() == 8);
    assert!(size_of::<Policy>() == 64);
    assert!(size_of::<PrefixKey>() == 20);
    assert!(size_of::<MemberKey>() == 20);
    assert!(size_of::<GrantKey>() == 8);
    assert!(size_of::<FragmentKey>() == 44);
    assert!(size_of::<FragmentVerdict>() == 16);
    assert!(size_of::<Awaiting>() == 8);
    assert!(size_of::<RuleCounter>() == 32);
    assert!(size_of::<ReasonCounters>().is_multiple_of(64));
};
