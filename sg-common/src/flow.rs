//! Flows: their keys, their states, and how a packet moves a flow from one state to the next.
//!
//! A request and its reply have the same key. Where flows are kept is the business of
//! [`Tables`](crate::tables::Tables); this module is arithmetic on a copy of one flow's state.
//!
//! There are two tables, which share one room. *Embryonic* flows have been seen from one side, or
//! have not completed a handshake; any of them may be forgotten when room is short. *Assured* flows
//! have been seen from both sides and are never forgotten before their deadline.

mod tcp;

use crate::addr::Addr;
use crate::packet::Direction;
use crate::parse::{Headers, TCP, TcpFlags, UDP};
use crate::tables::{Generation, RuleSlot, TimeoutTicks};

/// Kernel timer ticks divided by 32: 128 ms at 250 Hz. Cheap to read, and wraps after years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Ticks(pub u32);

impl Ticks {
    /// How far `jiffies64` is shifted.
    pub const SHIFT: u32 = 5;

    /// From the kernel's `jiffies64`.
    #[inline(always)]
    pub const fn from_jiffies(jiffies: u64) -> Self {
        Self((jiffies >> Self::SHIFT) as u32)
    }

    /// This much later.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, ticks: u32) -> Self {
        Self(self.0.wrapping_add(ticks))
    }

    /// Whether `now` has reached this deadline.
    #[inline(always)]
    pub const fn has_passed(self, now: Self) -> bool {
        self.0.wrapping_sub(now.0) as i32 <= 0
    }

    /// Whether it is worth a write to move this deadline to `other`: about a second's difference.
    #[inline(always)]
    pub const fn is_worth_moving_to(self, other: Self) -> bool {
        (other.0.wrapping_sub(self.0) as i32).unsigned_abs() >= 8
    }

    /// Ticks from `now` until this deadline; zero when it has passed.
    #[inline(always)]
    pub const fn until(self, now: Self) -> u32 {
        if self.has_passed(now) {
            0
        } else {
            self.0.wrapping_sub(now.0)
        }
    }
}

/// The two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowTable {
    /// Seen from one side, or mid-handshake; may be forgotten.
    Embryonic,
    /// Seen from both sides; never forgotten before its deadline.
    Assured,
}

/// Who sent a packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Leg {
    /// What is protected.
    Local = 0,
    /// The other side.
    Peer = 1,
}

impl FlowTable {
    /// The bit of a tag that says in which table the place's flow is.
    const ASSURED_TAG: u16 = 2;

    /// The tag of a flow in this table.
    #[inline(always)]
    pub const fn tag(self, tag: u16) -> u16 {
        match self {
            Self::Embryonic => tag,
            Self::Assured => tag | Self::ASSURED_TAG,
        }
    }

    /// The table of the flow with this tag, if it is not that of a free place.
    #[inline(always)]
    pub const fn of_tag(tag: u16) -> Option<Self> {
        match tag {
            0 => None,
            _ if tag & Self::ASSURED_TAG == 0 => Some(Self::Embryonic),
            _ => Some(Self::Assured),
        }
    }
}

impl Leg {
    /// Who sends in this direction.
    #[inline(always)]
    pub const fn sending(direction: Direction) -> Self {
        match direction {
            Direction::Egress => Self::Local,
            Direction::Ingress => Self::Peer,
        }
    }

    /// The local or the peer's element, found without a branch.
    #[inline(always)]
    pub fn of<T: Copy>(self, pair: &[T; 2]) -> T {
        let [local, _] = pair;
        *pair.get(self as usize & 1).unwrap_or(local)
    }

    /// Writes the local or the peer's element, as [`Leg::of`] reads it.
    #[inline(always)]
    fn put<T>(self, pair: &mut [T; 2], value: T) {
        if let Some(place) = pair.get_mut(self as usize & 1) {
            *place = value;
        }
    }

    /// The other one.
    #[inline(always)]
    pub const fn other(self) -> Self {
        match self {
            Self::Local => Self::Peer,
            Self::Peer => Self::Local,
        }
    }
}

/// What the packets of one flow have in common, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// The protected side's address.
    pub local: Addr,
    /// The other side's address.
    pub peer: Addr,
    /// Whose flows these are: [`Interface::zone`](crate::tables::Interface::zone).
    pub zone: u32,
    /// TCP, UDP: the protected side's port. ICMP: the identifier.
    pub local_port: u16,
    /// TCP, UDP: the other side's port. ICMP: the identifier.
    pub peer_port: u16,
    /// The IP protocol.
    pub protocol: u8,
    /// ICMP: 1 when what is protected asks, 2 when the other side does, so that leave to answer is
    /// never leave to ask; the bits above tell one kind of question from another. Other protocols:
    /// 0.
    pub asker: u8,
    /// Always zero.
    pub padding: [u8; 2],
}

impl FlowKey {
    /// Whether the keys are equal, without a branch for each field.
    #[inline(always)]
    pub const fn is(&self, other: &Self) -> bool {
        let [a, b, c, d] = self.local.raw_words();
        let [e, f, g, h] = other.local.raw_words();
        let [i, j, k, l] = self.peer.raw_words();
        let [m, n, o, p] = other.peer.raw_words();
        let addresses =
            (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) | (i ^ m) | (j ^ n) | (k ^ o) | (l ^ p);
        let ports = (self.local_port ^ other.local_port) | (self.peer_port ^ other.peer_port);
        let rest = (self.protocol ^ other.protocol) | (self.asker ^ other.asker);
        (addresses | (self.zone ^ other.zone) | ports as u32 | rest as u32) == 0
    }

    /// Two buckets (before the mask) and a tag, from a hash keyed with numbers drawn at load.
    ///
    /// NH of UMAC (RFC 4418 §5.2): whoever does not know the key finds two flows that collide no
    /// better than by chance, which is what keeps an attacker from aiming at a bucket. A finaliser
    /// then spreads the sum over all bits.
    #[inline(always)]
    pub const fn places(&self, key: &HashKey) -> FlowPlaces {
        let [k0, k1, k2, k3, k4, k5, k6, k7, k8, k9] = key.0;
        let [a, b, c, d] = self.local.raw_words();
        let [e, f, g, h] = self.peer.raw_words();
        let ports = (self.local_port as u32) << 16 | self.peer_port as u32;
        let rest = self.zone ^ (self.protocol as u32) << 24 ^ (self.asker as u32) << 16;
        let sum = product(a, k0, b, k1)
            .wrapping_add(product(c, k2, d, k3))
            .wrapping_add(product(e, k4, f, k5))
            .wrapping_add(product(g, k6, h, k7))
            .wrapping_add(product(ports, k8, rest, k9));
        let mixed = (sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = mixed ^ mixed >> 32;
        FlowPlaces {
            first: mixed as u32,
            second: (mixed >> 24) as u32,
            tag: (mixed >> 48) as u16 & !FlowTable::ASSURED_TAG | 1,
        }
    }
}

#[inline(always)]
const fn product(a: u32, key_a: u32, b: u32, key_b: u32) -> u64 {
    (a.wrapping_add(key_a) as u64).wrapping_mul(b.wrapping_add(key_b) as u64)
}

/// Random numbers drawn when the maps are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HashKey(pub [u32; 10]);

/// Where a flow may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowPlaces {
    /// The bucket to search first.
    pub first: u32,
    /// The other bucket.
    pub second: u32,
    /// What is compared before the key, as that of an embryonic flow; always odd.
    pub tag: u16,
}

/// Where in its life a flow is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Phase(pub u8);

impl Phase {
    /// TCP: one side has sent SYN.
    pub const SYN_SENT: Self = Self(1);
    /// TCP: the other side has answered with SYN.
    pub const SYN_RECEIVED: Self = Self(2);
    /// TCP: first seen in the middle of its life, from one side.
    pub const PICKED_UP: Self = Self(3);
    /// TCP: open both ways.
    pub const ESTABLISHED: Self = Self(4);
    /// TCP: one side has sent FIN, and the other has acknowledged it.
    pub const HALF_CLOSED: Self = Self(5);
    /// TCP: both sides have sent FIN, and acknowledged it.
    pub const CLOSING: Self = Self(6);
    /// TCP: an RST at the sequence number its receiver expects has passed.
    pub const RESET: Self = Self(7);
    /// UDP: one way, or one request and its response.
    pub const SINGLE: Self = Self(8);
    /// UDP: more than one request and response.
    pub const STREAM: Self = Self(9);
    /// An ICMP request.
    pub const ICMP: Self = Self(10);
    /// Any other protocol.
    pub const OTHER: Self = Self(11);
    /// TCP: an RST within the window has passed, which its receiver may have answered with a challenge
    /// (RFC 5961 §3): the next segment shows that the connection is alive.
    pub const CHALLENGED: Self = Self(12);

    /// The word people and JSON use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SYN_SENT => "syn-sent",
            Self::SYN_RECEIVED => "syn-received",
            Self::PICKED_UP => "picked-up",
            Self::ESTABLISHED => "established",
            Self::HALF_CLOSED => "half-closed",
            Self::CLOSING => "closing",
            Self::RESET => "closed",
            Self::SINGLE => "single",
            Self::STREAM => "stream",
            Self::ICMP => "icmp",
            Self::OTHER => "other",
            Self::CHALLENGED => "challenged",
            _ => "unknown",
        }
    }

    /// How long a flow in this phase lives without a packet.
    #[inline(always)]
    pub const fn timeout(self, timeouts: &TimeoutTicks) -> u32 {
        match self {
            Self::SYN_SENT | Self::SYN_RECEIVED | Self::PICKED_UP => timeouts.tcp_opening,
            Self::ESTABLISHED => timeouts.tcp_established,
            Self::HALF_CLOSED => timeouts.tcp_half_closed,
            Self::CLOSING => timeouts.tcp_closing,
            Self::RESET | Self::CHALLENGED => timeouts.tcp_reset,
            Self::SINGLE => timeouts.udp,
            Self::STREAM => timeouts.udp_stream,
            Self::ICMP => timeouts.icmp,
            _ => timeouts.other,
        }
    }

    /// Whether a SYN may open the connection anew (RFC 9293 §3.6.1, RFC 6191).
    #[inline(always)]
    pub const fn may_reopen(self) -> bool {
        matches!(self, Self::CLOSING | Self::RESET)
    }
}

/// Everything the decision keeps about a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowState {
    /// The rule that admitted it.
    pub rule: RuleSlot,
    /// The policy that admitted it, or last judged it.
    pub generation: Generation,
    /// The interface slot that opened it, whose quota it counts against.
    pub owner: u32,
    /// TCP: one past the highest sequence number each leg has sent in its peer's window.
    pub end: [u32; 2],
    /// TCP: the highest acknowledgment each leg has sent; the module `tcp` says what it is until then.
    pub ack: [u32; 2],
    /// TCP: the window each leg last offered, unscaled.
    pub window: [u16; 2],
    /// Where in its life it is.
    pub phase: Phase,
    /// [`Direction`] of its first packet.
    pub initiator: u8,
    /// TCP: what else is remembered of its legs, as the module `tcp` has it.
    pub marks: u8,
    /// TCP window scales: the low nibble is the local leg's, the high the peer's.
    pub scales: u8,
}

/// A search for a flow: what it is told, and what it finds. `repr(C)` because the kernel checks a
/// function that takes one by itself, by the size of its argument.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct FlowSearch {
    /// Whose flow.
    pub key: FlowKey,
    /// What was found.
    pub state: FlowState,
    /// Hash bits that choose the first bucket.
    pub first: u32,
    /// Hash bits that choose the second bucket.
    pub second: u32,
    /// What is compared before the key.
    pub tag: u32,
    /// Which table, as the kernel's half numbers them.
    pub table: u32,
    /// The time.
    pub now: Ticks,
    /// Where it was found.
    pub bucket: u32,
    /// Which of the bucket's places.
    pub lane: u32,
    /// The place's stamp.
    pub stamp: u32,
    /// Until when a flow to be placed lives.
    pub deadline: Ticks,
    /// A place where it is not looked for, as the kernel's half numbers them.
    pub except: u32,
    /// That place's stamp.
    pub except_stamp: u32,
    /// The table of the flow there.
    pub except_table: u32,
}

/// A place for one flow.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct FlowSlot {
    /// Packets each leg has sent.
    pub packets: [u64; 2],
    /// Bytes each leg has sent.
    pub bytes: [u64; 2],
    /// Whose it is.
    pub key: FlowKey,
    /// Where in its life it is.
    pub state: FlowState,
    /// When it opened.
    pub opened: Ticks,
    /// Grows with each flow that takes the place, so that a late writer notices; odd while one does.
    pub stamp: u32,
}

/// The kernel finds a lock in a map's value by this name.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct bpf_spin_lock {
    value: u32,
}

/// Flows whose keys hash alike. What a search reads first is in the first cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct FlowBucket {
    /// Held by writers; readers look at tag and stamp instead.
    pub lock: bpf_spin_lock,
    /// Always zero.
    pub padding: [u32; 3],
    /// A part of each key's hash, always odd, and its table; zero is a free place.
    pub tags: [u16; FlowBucket::SLOTS],
    /// Until when each flow lives.
    pub deadlines: [Ticks; FlowBucket::SLOTS],
    /// The flows.
    pub slots: [FlowSlot; FlowBucket::SLOTS],
}

impl FlowBucket {
    /// Flows a bucket holds.
    pub const SLOTS: usize = 8;

    /// The place that a flow with this tag takes if it is free. Whoever looks there first need not
    /// wait for the tags before it reads the flow.
    #[inline(always)]
    pub const fn home(tag: u16) -> u32 {
        (tag >> 13) as u32
    }
}

/// How far flows have been carried from tables of one size to tables of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Carrying {
    /// The next bucket to be carried.
    pub bucket: u32,
    /// Flows that found no room, and are where they were.
    pub left: u32,
}

const _: () = {
    assert!(size_of::<FlowKey>() == 44);
    assert!(size_of::<FlowState>() == 36);
    assert!(size_of::<FlowSearch>() == 128);
    assert!(size_of::<FlowSlot>() == 120);
    assert!(size_of::<FlowBucket>() == 1024);
};

/// What a packet does to an embryonic flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// It stays embryonic.
    Stay,
    /// It has now been seen from both sides.
    Assure,
    /// It is over, and this packet passes.
    End,
    /// The packet does not answer what opened it.
    Refuse,
}

/// What of an assured flow's state a packet has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Nothing,
    /// The numbers of the leg that sent it.
    Numbers,
    /// More than that.
    State,
}

/// A packet of an assured flow that does no more than to move its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Who sent it.
    pub leg: Leg,
    /// Whether it has moved its sender's numbers.
    pub has_moved: bool,
    /// How long the flow now lives without another one.
    pub timeout: u32,
}

impl FlowState {
    /// A flow that opens with this packet.
    #[inline(always)]
    pub fn opened_by(headers: &Headers, direction: Direction) -> Self {
        let mut state = Self {
            initiator: direction as u8,
            ..Self::default()
        };
        state.phase = match headers.protocol {
            TCP if headers.tcp_flags.has(TcpFlags::SYN) => Phase::SYN_SENT,
            TCP => Phase::PICKED_UP,
            UDP => Phase::SINGLE,
            crate::parse::ICMP | crate::parse::ICMPV6 => Phase::ICMP,
            _ => Phase::OTHER,
        };
        if headers.protocol == TCP {
            state.open_tcp(headers, Leg::sending(direction));
        }
        state
    }

    /// The direction of the packet that opened the flow.
    #[inline(always)]
    pub const fn initiator(&self) -> Direction {
        if self.initiator == Direction::Ingress as u8 {
            Direction::Ingress
        } else {
            Direction::Egress
        }
    }

    /// What a packet does to this embryonic flow. A function of its own in the kernel: few packets
    /// need it, and its stack is then free for the others.
    #[cfg_attr(target_arch = "bpf", inline(never))]
    pub fn grow(&mut self, headers: &Headers, direction: Direction) -> Growth {
        let from_initiator = direction as u8 == self.initiator;
        if headers.protocol == TCP {
            return self.grow_tcp(headers, Leg::sending(direction), from_initiator);
        }
        if from_initiator {
            Growth::Stay
        } else {
            Growth::Assure
        }
    }

    /// What a packet does to this assured flow. A function of its own in the kernel, as the last one.
    #[cfg_attr(target_arch = "bpf", inline(never))]
    pub fn live(&mut self, headers: &Headers, direction: Direction) -> Change {
        if headers.protocol == TCP {
            self.live_tcp(headers, Leg::sending(direction))
        } else {
            self.live_udp(headers, direction)
        }
    }

    /// The same of a packet that [`FlowState::takes_time`] does not hold of. Returns whether it has moved
    /// the sender's numbers.
    #[inline(always)]
    pub fn live_at_once(&mut self, headers: &Headers, direction: Direction) -> bool {
        headers.protocol == TCP
            && matches!(
                self.advance(headers, Leg::sending(direction)),
                Change::Numbers
            )
    }

    /// Whether a packet may do more to this assured flow than move its numbers.
    #[inline(always)]
    pub const fn takes_time(&self, headers: &Headers, direction: Direction) -> bool {
        match headers.protocol {
            TCP => self.is_moment(headers),
            UDP => self.becomes_stream(direction),
            _ => false,
        }
    }

    #[inline(always)]
    const fn live_udp(&mut self, headers: &Headers, direction: Direction) -> Change {
        if headers.protocol == UDP && self.becomes_stream(direction) {
            self.phase = Phase::STREAM;
            return Change::State;
        }
        Change::Nothing
    }

    /// Whether a packet of UDP makes more of its flow than a request and its response.
    #[inline(always)]
    const fn becomes_stream(&self, direction: Direction) -> bool {
        self.phase.0 == Phase::SINGLE.0 && direction as u8 == self.initiator
    }
}
