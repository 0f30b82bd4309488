//! The decision: one packet at one interface, its verdict and the reason.
//!
//! The order is that of cost and of certainty: what the parser refuses, what groups never filter,
//! the guest's address guard, fragments, errors about flows, flows, rules. A plain SYN asks the
//! rules first, so that a refused flood never reaches the flow tables.

mod at_once;
mod v4;

use crate::addr::Addr;
use crate::flow::{Change, FlowKey, FlowState, FlowTable, Growth, Leg, Phase, Ticks};
use crate::packet::{Direction, Framing, Packet};
use crate::parse::{
    self, Content, Headers, ICMPV6, IGMP, IcmpRole, Part, ReadPart, TCP, TcpFlags, UDP,
};
use crate::report::{Decision, Reason, Verdict};
use crate::tables::{
    Awaiting, DirectionPolicy, FragmentKey, FragmentVerdict, GrantKey, Identity, Interface,
    InterfaceFlags, PolicyFlags, RuleSlot, Scope, Service, Tables,
};

pub use at_once::{AtOnce, at_once};
pub use v4::v4_at_once;

/// Told each step of a decision. The kernel's is `()`, and costs nothing.
pub trait Trace {
    /// One step was taken.
    fn step(&self, step: Step);
}

impl Trace for () {
    #[inline(always)]
    fn step(&self, _step: Step) {}
}

/// What a decision looked at, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The packet was read.
    Parsed(Headers),
    /// A flow table was asked.
    Flow {
        /// Which one.
        table: FlowTable,
        /// What was found.
        state: Option<FlowState>,
    },
    /// A port table was searched.
    Rules {
        /// Whose rules.
        source: RuleSource,
        /// What they were asked.
        service: Service,
        /// The rule that admits it.
        rule: RuleSlot,
    },
}

/// Where a rule's peer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleSource {
    /// Every address of the family.
    Open,
    /// The longest prefix that covers the peer.
    Prefix,
    /// The prefix lists the peer is in.
    PrefixLists(Identity),
    /// The groups the peer is in.
    Groups(Identity),
}

/// Which way a packet goes, from which hook saw it.
#[inline(always)]
pub const fn direction_of(interface: &Interface, received: bool) -> Direction {
    if received == interface.flags.has(InterfaceFlags::GUEST) {
        Direction::Egress
    } else {
        Direction::Ingress
    }
}

/// What a decision writes on.
///
/// The kernel keeps it in a map: its stack is small, and the verifier forgets what is known of a
/// map's bytes, so that all the ways through the parser become one.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Desk {
    /// What was read of the packet.
    pub headers: Headers,
    /// The packet that an ICMP error quotes, or the one that opened a flow.
    pub other: Headers,
    /// The flow that is looked for.
    pub key: FlowKey,
    /// What is found, or written.
    pub state: FlowState,
}

impl Desk {
    /// Writes down which flow the packet is of. A function of its own in the kernel: its stack is then
    /// free for the search.
    #[cfg_attr(target_arch = "bpf", inline(never))]
    fn name_flow(&mut self, direction: Direction, zone: u32) {
        self.key = self.headers.flow(direction, zone);
    }

    /// The same for the packet that is quoted.
    #[cfg_attr(target_arch = "bpf", inline(never))]
    fn name_quoted_flow(&mut self, direction: Direction, zone: u32) {
        self.key = self.other.flow(direction, zone);
    }

    /// Reads a packet. The returned reason is for [`judge`].
    #[inline(always)]
    pub fn read<P: Packet + ?Sized>(&mut self, packet: &P, framing: Framing) -> Reason {
        self.read_by(|desk, part| desk.read_part(part, packet, framing))
    }

    /// Reads a packet by its parts, each of which `read` reads by [`Desk::read_part`]; the kernel has
    /// a function for each.
    #[inline(always)]
    pub fn read_by(&mut self, read: impl Fn(&mut Self, ReadPart) -> Reason) -> Reason {
        let refusal = read(self, ReadPart::Network);
        if self.headers.content != Content::Ip {
            return refusal;
        }
        let refusal = read(self, ReadPart::Upper);
        if self.headers.content == Content::Ip && self.headers.icmp_role() == IcmpRole::Error {
            read(self, ReadPart::Quoted);
        }
        refusal
    }

    /// Reads a part of a packet whose earlier parts have been read.
    #[inline(always)]
    pub fn read_part<P: Packet + ?Sized>(
        &mut self,
        part: ReadPart,
        packet: &P,
        framing: Framing,
    ) -> Reason {
        let Self { headers, other, .. } = self;
        match part {
            ReadPart::Network => parse::read_network(packet, framing, headers),
            ReadPart::Upper => parse::read_upper(packet, headers),
            ReadPart::Quoted => {
                parse::read_quoted(packet, headers, other);
                Reason::NoRule
            }
        }
    }
}

/// Judges a received packet by how it came, before any of it is read: a packet that never leaves the
/// machine is not for groups to filter.
#[inline(always)]
pub fn by_arrival<P: Packet + ?Sized>(packet: &P) -> Option<Decision> {
    packet
        .is_own_copy()
        .then_some(Decision::without_rule(Reason::OwnCopy))
}

/// Reads and judges one packet, the long way, which is the reference for [`at_once()`], and leaves on
/// the desk what was read of it.
pub fn decide<P: Packet + ?Sized, T: Tables, R: Trace>(
    packet: &P,
    direction: Direction,
    interface: &Interface,
    tables: &T,
    desk: &mut Desk,
    trace: &R,
) -> Decision {
    let framing = if interface.flags.has(InterfaceFlags::BARE) {
        Framing::Bare
    } else {
        Framing::Ethernet
    };
    let refusal = desk.read(packet, framing);
    judge(desk, refusal, direction, interface, tables, trace)
}

/// Judges the packet that was read. `refusal` is what [`Desk::read`] returned.
#[inline(always)]
pub fn judge<T: Tables, R: Trace>(
    desk: &mut Desk,
    refusal: Reason,
    direction: Direction,
    interface: &Interface,
    tables: &T,
    trace: &R,
) -> Decision {
    let question = Question {
        direction,
        interface,
        tables,
        trace,
    };
    match question.judge(desk, refusal) {
        Ok(decision) => decision,
        Err(reason) => Decision::without_rule(reason),
    }
}

/// A part of the judgement that the kernel verifies by itself, so that the ways through one don't
/// multiply with those through the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Is the quoted packet that of an allowed flow? [`Reason::Related`] or [`Reason::NoRule`].
    Related,
    /// What does a known flow say? [`Reason::NoFlow`] when none is known; [`Reason::TableFull`] when
    /// the flow has been seen from both sides, until [`Stage::Assure`] has found room for it.
    Flow,
    /// Moves the flow that [`Stage::Flow`] has found to where it is never forgotten.
    Assure,
    /// Is it of no tracked flow, by rules open to everyone? Otherwise [`Reason::NoFlow`].
    Untracked,
    /// Does a SYN that no rule admits answer another? Otherwise [`Reason::NoRule`].
    CrossingSyn,
    /// Which rule admits it as the first packet of a flow? [`Reason::Rule`] or [`Reason::Untracked`].
    Admit,
    /// Opens a flow that this rule admits.
    Open(RuleSlot),
    /// What of its link layer does a guest not send or get, and is ARP about it? Otherwise
    /// [`Reason::NoRule`].
    Link,
    /// What does a guest not send or get, because of its addresses? Otherwise [`Reason::NoRule`].
    Guard,
    /// Neighbor discovery, DHCP and others that groups never filter; otherwise [`Reason::NoRule`].
    Exempt,
    /// What became of the first fragment? Of the first one itself: [`Reason::FragmentOverlap`] when it
    /// reaches into one that came earlier, otherwise [`Reason::NoRule`].
    Fragment,
    /// May any packet of this protocol go between the two, by the rules of this direction or because
    /// the other is a service? [`Reason::Rule`] or [`Reason::NoRule`].
    Carried(Direction),
    /// Lets a later fragment pass before its first one, if there is room: [`Reason::EarlyFragment`] or
    /// [`Reason::FragmentUnknown`].
    Await,
    /// Remembers what became of a first fragment.
    Remember(Decision),
}

/// Runs one stage, for an implementation of [`Tables::stage`].
#[inline(always)]
pub fn run_stage<T: Tables, R: Trace>(
    stage: Stage,
    desk: &mut Desk,
    direction: Direction,
    interface: &Interface,
    tables: &T,
    trace: &R,
) -> Decision {
    let question = Question {
        direction,
        interface,
        tables,
        trace,
    };
    let mut rule = RuleSlot::NONE;
    let reason = match stage {
        Stage::Related if question.is_related(desk) => Reason::Related,
        Stage::Related => Reason::NoRule,
        Stage::Flow => question.by_flow(desk, &mut rule),
        Stage::Assure => question.assure(desk, &mut rule),
        Stage::Untracked if question.is_untracked(&desk.headers, direction, &mut rule) => {
            Reason::Untracked
        }
        Stage::Untracked => Reason::NoFlow,
        Stage::CrossingSyn if question.joins_crossing_syn(desk, &mut rule) => Reason::Tracked,
        Stage::CrossingSyn => Reason::NoRule,
        Stage::Admit => match question.admitted(&desk.headers, direction) {
            Ok(admitted) => {
                rule = admitted.rule;
                if admitted.untracked {
                    Reason::Untracked
                } else {
                    Reason::Rule
                }
            }
            Err(refusal) => refusal,
        },
        Stage::Open(admitted) => {
            rule = admitted;
            question.open(desk, &mut rule)
        }
        Stage::Link => question.link(&desk.headers),
        Stage::Guard if question.is_guarded(&desk.headers) => Reason::NoRule,
        Stage::Guard => question.guard_reason(&desk.headers),
        Stage::Exempt => question.exempt(&desk.headers),
        Stage::Carried(way) if question.is_carried(&desk.headers, way) => Reason::Rule,
        Stage::Carried(_) => Reason::NoRule,
        Stage::Await => question.await_first(&desk.headers),
        Stage::Fragment => question.fragment(&desk.headers, &mut rule),
        Stage::Remember(decision) => {
            question.remember(&desk.headers, decision);
            decision.reason
        }
    };
    Decision { reason, rule }
}

/// A decision, or a reason that rests on no rule.
type Judgement = Result<Decision, Reason>;

/// At this interface, in this direction.
struct Question<'a, T, R> {
    direction: Direction,
    interface: &'a Interface,
    tables: &'a T,
    trace: &'a R,
}

impl<T: Tables, R: Trace> Question<'_, T, R> {
    #[inline(always)]
    fn judge(&self, desk: &mut Desk, refusal: Reason) -> Judgement {
        if self.is_guest() && !matches!(desk.headers.content, Content::Refused) {
            let link = self.stage(Stage::Link, desk);
            if link.reason != Reason::NoRule {
                return Ok(link);
            }
        }
        let headers = &desk.headers;
        match headers.content {
            Content::Refused => return Err(refusal),
            Content::Ip => {}
            Content::Arp => return Err(Reason::LinkProtocol),
            Content::OtherArp => return Err(self.other_arp()),
            Content::LinkProtocol => return Err(self.link_protocol()),
            Content::Other => return Err(self.other_ethertype(headers)),
        }
        self.trace.step(Step::Parsed(*headers));
        if let Part::First = headers.part {
            let earlier = self.stage(Stage::Fragment, desk);
            if earlier.reason == Reason::FragmentOverlap {
                return Ok(self.remembered(desk, earlier));
            }
        }
        let headers = &desk.headers;
        if may_be_exempt(headers) {
            let exempt = self.stage(Stage::Exempt, desk);
            if exempt.reason != Reason::NoRule {
                return Ok(self.remembered(desk, exempt));
            }
        }
        if self.is_guest() {
            let guard = self.stage(Stage::Guard, desk);
            if guard.reason != Reason::NoRule {
                return Ok(guard);
            }
        }
        let headers = &desk.headers;
        if let Part::Later = headers.part {
            return Ok(self.later_fragment(desk));
        }
        let judgement = if self.is_link_local_service(headers) {
            self.link_local_service(desk)
        } else {
            self.stateful(desk)
        };
        if let Part::Whole = desk.headers.part {
            return judgement;
        }
        Ok(self.remembered(desk, judgement.unwrap_or_else(Decision::without_rule)))
    }

    /// The decision, which is that of the packet's other fragments too.
    #[inline(always)]
    fn remembered(&self, desk: &mut Desk, decision: Decision) -> Decision {
        if let Part::First = desk.headers.part {
            self.stage(Stage::Remember(decision), desk);
        }
        decision
    }

    #[inline(always)]
    fn stage(&self, stage: Stage, desk: &mut Desk) -> Decision {
        self.tables
            .stage(stage, desk, self.direction, self.interface, self.trace)
    }

    #[inline(always)]
    fn is_guest(&self) -> bool {
        self.interface.flags.has(InterfaceFlags::GUEST)
    }

    /// Whether the address is one of the guest's.
    #[inline(always)]
    fn is_guests(&self, address: &Addr) -> bool {
        let scope = Scope::guest(self.interface.slot, address.family());
        self.tables.set(scope, address).is_some()
    }

    /// Whether the guest has this link-layer address, or is in this VLAN.
    #[inline(always)]
    fn is_guests_on_link(&self, address: &Addr) -> bool {
        let scope = Scope::guest_link(self.interface.slot);
        self.tables.set(scope, address).is_some()
    }

    /// A guest sends from its own link-layer addresses, so that no switch looks for its neighbors'
    /// behind it, and neither sends nor gets the tag of a VLAN that it was not given. A tag with number
    /// 0 has a priority and no VLAN (IEEE 802.1Q §9.6).
    #[inline(always)]
    fn link(&self, headers: &Headers) -> Reason {
        let flags = self.interface.flags;
        let is_in_vlan = headers.tags == 0
            || (headers.tags == 1
                && (headers.vlan == 0
                    || (flags.has(InterfaceFlags::VLANS)
                        && self.is_guests_on_link(&Addr::from_vlan(headers.vlan)))));
        if !is_in_vlan {
            return Reason::GuestVlan;
        }
        let is_own = self.direction == Direction::Ingress
            || !flags.has(InterfaceFlags::MACS_KNOWN)
            || self.is_guests_on_link(&Addr::from_mac(headers.mac, headers.mac_end));
        if !is_own {
            return Reason::GuestMac;
        }
        match headers.content {
            Content::Arp => self.arp(headers),
            _ => Reason::NoRule,
        }
    }

    /// Whether an ARP packet or neighbor message of the guest names a link-layer address that its
    /// neighbors shall not look for behind it.
    #[inline(always)]
    fn names_foreign_mac(&self, headers: &Headers) -> bool {
        headers.names_other_mac != 0 && self.interface.flags.has(InterfaceFlags::MACS_KNOWN)
    }

    #[inline(always)]
    fn arp(&self, headers: &Headers) -> Reason {
        let (sender, target) = (&headers.source, &headers.destination);
        let (concerns_guest, otherwise) = match self.direction {
            // A probe (RFC 5227 §2.1.1) has no sender address yet.
            Direction::Egress => {
                let is_own = self.is_guests(sender)
                    || (*sender == Addr::V4_UNSPECIFIED && self.is_guests(target));
                (is_own && !self.names_foreign_mac(headers), Reason::GuestArp)
            }
            // Others ask for the guest, answer it, or announce themselves.
            Direction::Ingress => {
                let concerns_guest = sender == target || self.is_guests(target);
                (concerns_guest, Reason::NotForGuest)
            }
        };
        if concerns_guest {
            Reason::LinkProtocol
        } else {
            otherwise
        }
    }

    #[inline(always)]
    fn other_arp(&self) -> Reason {
        if self.is_guest() {
            Reason::MalformedArp
        } else {
            Reason::LinkProtocol
        }
    }

    #[inline(always)]
    fn link_protocol(&self) -> Reason {
        if self.is_guest() {
            Reason::Ethertype
        } else {
            Reason::LinkProtocol
        }
    }

    #[inline(always)]
    fn other_ethertype(&self, headers: &Headers) -> Reason {
        let [a, b, c, d, e, f, g, h] = self.interface.ethertypes;
        let ethertype = headers.ethertype;
        let listed = ethertype == a
            || ethertype == b
            || ethertype == c
            || ethertype == d
            || ethertype == e
            || ethertype == f
            || ethertype == g
            || ethertype == h;
        if listed && ethertype != 0 {
            Reason::ListedEthertype
        } else {
            Reason::Ethertype
        }
    }

    /// The reason for traffic that groups never filter, and for what pretends to be such.
    #[inline(always)]
    fn exempt(&self, headers: &Headers) -> Reason {
        match headers.protocol {
            ICMPV6 => self.exempt_icmpv6(headers),
            IGMP => self.exempt_igmp(headers),
            UDP => self.exempt_dhcp(headers),
            _ => Reason::NoRule,
        }
    }

    /// Whether a guest may speak to its own link from here. Its link-local address is its own choice:
    /// any will do, unless it is declared. A solicitation from another's address would take that
    /// address over in the caches of its neighbors (RFC 4861 §7.2.3).
    #[inline(always)]
    fn may_be_on_link(&self, source: &Addr) -> bool {
        self.is_guests(source)
            || (source.is_v6_link_local()
                && !self.interface.flags.has(InterfaceFlags::LINK_LOCAL_KNOWN))
    }

    /// Whether the packet is what a guest sends.
    #[inline(always)]
    fn is_from_guest(&self) -> bool {
        self.is_guest() && self.direction == Direction::Egress
    }

    /// Switches that snoop forward multicast to those who answer queries, and all of it to those who
    /// ask (RFC 4541 §2.1.1, RFC 4286): so queries come in without a rule, and a guest asks nothing.
    #[inline(always)]
    fn exempt_igmp(&self, headers: &Headers) -> Reason {
        const QUERY: u8 = 0x11;
        const ROUTER_ADVERTISEMENT: u8 = 0x30;
        if !headers.source.is_v4() {
            return Reason::NoRule;
        }
        if self.is_from_guest() && matches!(headers.icmp_type, QUERY | ROUTER_ADVERTISEMENT) {
            return Reason::GuestRouter;
        }
        // RFC 9776 §4: to a multicast address, and no further than the link. Anything else under
        // this number could be a tunnel.
        if headers.part != Part::Whole
            || headers.hop_limit != 1
            || !headers.destination.is_v4_multicast()
        {
            return Reason::NoRule;
        }
        if let Direction::Ingress = self.direction {
            // Queries, and the reports and leave messages of the three versions.
            return match headers.icmp_type {
                QUERY | 0x12 | 0x16 | 0x17 | 0x22 => Reason::MulticastMembership,
                _ => Reason::NoRule,
            };
        }
        if self.is_guest() && !self.is_guests(&headers.source) {
            Reason::GuestSource
        } else {
            Reason::MulticastMembership
        }
    }

    /// [`Reason::NoRule`]: it is for the rules to say.
    #[inline(always)]
    fn exempt_icmpv6(&self, headers: &Headers) -> Reason {
        const ROUTER_SOLICITATION: u8 = 133;
        const ROUTER_ADVERTISEMENT: u8 = 134;
        const NEIGHBOR_SOLICITATION: u8 = 135;
        const NEIGHBOR_ADVERTISEMENT: u8 = 136;
        const REDIRECT: u8 = 137;
        const QUERY: u8 = 130;
        const MULTICAST_ROUTER_ADVERTISEMENT: u8 = 151;
        let source = &headers.source;
        let from_guest = self.is_from_guest();
        match headers.icmp_type {
            ROUTER_SOLICITATION..=REDIRECT => {
                let from_router = matches!(headers.icmp_type, ROUTER_ADVERTISEMENT | REDIRECT);
                // RFC 4861 §6.1 and §7.1; RFC 6980 for fragments, the atomic one included.
                if headers.hop_limit != 255
                    || headers.icmp_code != 0
                    || headers.fragment_start != 0
                    || (from_router && !source.is_v6_link_local())
                {
                    return Reason::MalformedDiscovery;
                }
                if !from_guest {
                    return Reason::NeighborDiscovery;
                }
                if from_router {
                    return Reason::GuestRouter;
                }
                let may_claim = match headers.icmp_type {
                    NEIGHBOR_ADVERTISEMENT => self.is_guests(&headers.target),
                    // Duplicate address detection (RFC 4862 §5.4): a neighbor that has the address
                    // gives it up.
                    NEIGHBOR_SOLICITATION if *source == Addr::UNSPECIFIED => {
                        self.may_be_on_link(&headers.target)
                    }
                    _ => true,
                };
                if !may_claim || self.names_foreign_mac(headers) {
                    return Reason::GuestDiscovery;
                }
                // On its own link a guest also speaks from `::` and from its link-local address.
                if *source == Addr::UNSPECIFIED || self.may_be_on_link(source) {
                    Reason::NeighborDiscovery
                } else {
                    Reason::GuestSource
                }
            }
            QUERY | MULTICAST_ROUTER_ADVERTISEMENT if from_guest && !source.is_v4() => {
                Reason::GuestRouter
            }
            // Query, report, done (RFC 2710); report (RFC 3810). Reports may come from `::` (RFC 3590).
            QUERY..=132 | 143
                if headers.part == Part::Whole
                    && headers.hop_limit == 1
                    && headers.destination.is_v6_multicast()
                    && (source.is_v6_link_local()
                        || (*source == Addr::UNSPECIFIED && headers.icmp_type != QUERY)) =>
            {
                if from_guest && *source != Addr::UNSPECIFIED && !self.may_be_on_link(source) {
                    Reason::GuestSource
                } else {
                    Reason::MulticastMembership
                }
            }
            _ => Reason::NoRule,
        }
    }

    /// RFC 2131 §4.1, RFC 8415 §7.2. [`Reason::NoRule`]: it is for the rules to say.
    #[inline(always)]
    fn exempt_dhcp(&self, headers: &Headers) -> Reason {
        let v4 = headers.source.is_v4();
        let (client, server) = if v4 { (68, 67) } else { (546, 547) };
        let (from, to) = (headers.source_port, headers.destination_port);
        match self.direction {
            Direction::Egress if from == client && to == server => {
                let without_lease = headers.source == Addr::V4_UNSPECIFIED;
                if self.is_guest() && !without_lease && !self.may_be_on_link(&headers.source) {
                    Reason::GuestSource
                } else {
                    Reason::DhcpClient
                }
            }
            // Clients look at the port an answer is for, and hardly ever at the one it comes from.
            Direction::Egress if self.is_guest() && (from == server || to == client) => {
                Reason::GuestDhcpServer
            }
            Direction::Ingress
                if from == server && to == client && (v4 || headers.source.is_v6_link_local()) =>
            {
                Reason::DhcpClient
            }
            _ => Reason::NoRule,
        }
    }

    /// The source and destination check: a guest sends from its own addresses, and gets what is
    /// for them and from others.
    #[inline(always)]
    fn is_guarded(&self, headers: &Headers) -> bool {
        self.is_guests(headers.local(self.direction))
            && (self.direction == Direction::Egress || !self.is_guests(&headers.source))
    }

    #[inline(always)]
    fn guard_reason(&self, headers: &Headers) -> Reason {
        match self.direction {
            Direction::Egress => Reason::GuestSource,
            Direction::Ingress if self.is_guests(&headers.destination) => Reason::GuestDestination,
            Direction::Ingress => Reason::NotForGuest,
        }
    }

    /// Whether the packet is for a listed service, or one of TCP from it that opens nothing. Anybody
    /// on the link can send from a service's address: what else comes from there is judged like
    /// anything else, and passes as the reply it is.
    #[inline(always)]
    fn is_link_local_service(&self, headers: &Headers) -> bool {
        let peer = headers.peer(self.direction);
        let may_pass = match self.direction {
            Direction::Egress => true,
            Direction::Ingress => headers.protocol == TCP && !is_plain_syn(headers),
        };
        may_pass
            && peer.may_be_link_local_service()
            && self
                .tables
                .set(Scope::services(self.interface.vpc, peer.family()), peer)
                .is_some()
    }

    /// Passes; and what is not TCP opens a flow, by which the reply is known.
    #[inline(always)]
    fn link_local_service(&self, desk: &mut Desk) -> Judgement {
        let role = desk.headers.icmp_role();
        if desk.headers.protocol != TCP && !matches!(role, IcmpRole::Error | IcmpRole::Notice) {
            let known = self.known_flow(desk);
            if known.reason == Reason::NoFlow {
                self.stage(Stage::Open(RuleSlot::NONE), desk);
            }
        }
        Err(Reason::LinkLocalService)
    }

    #[inline(always)]
    fn fragment_key(&self, headers: &Headers) -> FragmentKey {
        FragmentKey {
            source: headers.source,
            destination: headers.destination,
            id: headers.fragment_id,
            interface: self.interface.slot,
            protocol: headers.fragment_protocol,
            direction: self.direction as u8,
            padding: [0; 2],
        }
    }

    #[inline(always)]
    fn remember(&self, headers: &Headers, decision: Decision) {
        let passed = decision.reason.verdict() == Verdict::Pass;
        let verdict = FragmentVerdict {
            deadline: self.tables.now().after(self.interface.timeouts.fragment),
            judged_bytes: headers.end.wrapping_sub(headers.fragment_start),
            rule: decision.rule,
            passed: if passed {
                FragmentVerdict::PASSED
            } else {
                FragmentVerdict::DROPPED
            },
        };
        self.tables
            .remember_fragment(&self.fragment_key(headers), &verdict);
    }

    /// A later fragment completes nothing without the first one, which decides for the packet: it may
    /// pass before that, if it holds nothing that a packet is judged by, and its sender may send the
    /// protocol at all.
    #[inline(always)]
    fn later_fragment(&self, desk: &mut Desk) -> Decision {
        /// No transport header is longer: TCP's data offset counts fifteen words.
        const LONGEST_HEADER: u32 = 60;
        let known = self.stage(Stage::Fragment, desk);
        if known.reason != Reason::FragmentUnknown
            || self.interface.flags.has(InterfaceFlags::STRICT_FRAGMENTS)
            || desk.headers.fragment_offset < LONGEST_HEADER
        {
            return known;
        }
        let is_question = self.stage(Stage::Carried(self.direction), desk).reason == Reason::Rule;
        let answers = self.direction.opposite();
        if !is_question && self.stage(Stage::Carried(answers), desk).reason != Reason::Rule {
            return known;
        }
        self.stage(Stage::Await, desk)
    }

    /// What is known of the first fragment. No option: LLVM would read its value where it has none,
    /// which the verifier refuses.
    #[inline(always)]
    fn recall(&self, headers: &Headers) -> FragmentVerdict {
        let mut verdict = FragmentVerdict {
            passed: FragmentVerdict::UNKNOWN,
            ..FragmentVerdict::default()
        };
        if let Some(known) = self.tables.recall_fragment(&self.fragment_key(headers))
            && !known.deadline.has_passed(self.tables.now())
        {
            verdict = known;
        }
        verdict
    }

    #[inline(always)]
    fn fragment(&self, headers: &Headers, rule: &mut RuleSlot) -> Reason {
        let first = self.recall(headers);
        if let Part::First = headers.part {
            return self.first_fragment(headers, first);
        }
        if matches!(
            first.passed,
            FragmentVerdict::UNKNOWN | FragmentVerdict::AWAITED
        ) {
            return Reason::FragmentUnknown;
        }
        if headers.fragment_offset < first.judged_bytes {
            return Reason::FragmentOverlap;
        }
        if first.passed != FragmentVerdict::PASSED {
            return Reason::FragmentDropped;
        }
        *rule = first.rule;
        Reason::FragmentPass
    }

    /// A first fragment may not reach into those that have passed before it: they would replace what
    /// it is judged by.
    #[inline(always)]
    fn first_fragment(&self, headers: &Headers, earlier: FragmentVerdict) -> Reason {
        if earlier.passed != FragmentVerdict::AWAITED {
            return Reason::NoRule;
        }
        let slot = self.interface.slot;
        let awaiting = self.tables.awaiting(slot).without_one(self.tables.now());
        self.tables.set_awaiting(slot, awaiting);
        if headers.end.wrapping_sub(headers.fragment_start) > earlier.judged_bytes {
            Reason::FragmentOverlap
        } else {
            Reason::NoRule
        }
    }

    #[inline(always)]
    fn is_carried(&self, headers: &Headers, direction: Direction) -> bool {
        let peer = headers.peer(self.direction);
        let is_service = peer.may_be_link_local_service()
            && self
                .tables
                .set(Scope::services(self.interface.vpc, peer.family()), peer)
                .is_some();
        is_service
            || self
                .service_admitted(peer, Service::any_of(headers.protocol), direction)
                .is_ok()
    }

    #[inline(always)]
    fn await_first(&self, headers: &Headers) -> Reason {
        let now = self.tables.now();
        let mut awaited = self.recall(headers);
        if awaited.passed == FragmentVerdict::AWAITED {
            if awaited.rule.0 >= Awaiting::MOST_FRAGMENTS {
                return Reason::FragmentUnknown;
            }
            awaited.rule.0 += 1;
            if headers.fragment_offset < awaited.judged_bytes {
                awaited.judged_bytes = headers.fragment_offset;
            }
        } else {
            let slot = self.interface.slot;
            let awaiting = self.tables.awaiting(slot);
            if !awaiting.has_room(now) {
                return Reason::FragmentUnknown;
            }
            self.tables.set_awaiting(slot, awaiting.with_one(now));
            awaited = FragmentVerdict {
                deadline: now,
                judged_bytes: headers.fragment_offset,
                rule: RuleSlot(1),
                passed: FragmentVerdict::AWAITED,
            };
        }
        awaited.deadline = now.after(self.interface.timeouts.fragment);
        self.tables
            .remember_fragment(&self.fragment_key(headers), &awaited);
        Reason::EarlyFragment
    }

    /// Flows first and rules second, but for a plain SYN: a refused one then costs no flow lookup but
    /// one, for the crossing SYNs of a simultaneous open.
    #[inline(always)]
    fn stateful(&self, desk: &mut Desk) -> Judgement {
        let role = desk.headers.icmp_role();
        if role == IcmpRole::Error && self.stage(Stage::Related, desk).reason == Reason::Related {
            return Err(Reason::Related);
        }
        let is_syn = is_plain_syn(&desk.headers);
        let opens_nothing = matches!(role, IcmpRole::Error | IcmpRole::Notice);
        if !is_syn && !opens_nothing {
            let known = self.known_flow(desk);
            if known.reason != Reason::NoFlow {
                return Ok(known);
            }
            if matches!(desk.headers.protocol, TCP | UDP) {
                let untracked = self.stage(Stage::Untracked, desk);
                if untracked.reason != Reason::NoFlow {
                    return Ok(untracked);
                }
            }
            if desk.headers.protocol == TCP && !self.may_pick_up(&desk.headers) {
                return Err(Reason::NoFlow);
            }
        }
        let admitted = self.stage(Stage::Admit, desk);
        if admitted.reason == Reason::NoRule && is_syn {
            return Ok(self.stage(Stage::CrossingSyn, desk));
        }
        let untracked = admitted.reason == Reason::Untracked;
        if admitted.reason != Reason::Rule && !untracked {
            return Ok(admitted);
        }
        if opens_nothing || role == IcmpRole::Reply {
            // What neither asks nor answers, or answers nothing, opens nothing.
            return Ok(Decision {
                reason: Reason::RuleAlone,
                rule: admitted.rule,
            });
        }
        if is_syn && untracked {
            return Ok(admitted);
        }
        Ok(self.stage(Stage::Open(admitted.rule), desk))
    }

    /// What a known flow says of the packet, or [`Reason::NoFlow`].
    #[inline(always)]
    fn known_flow(&self, desk: &mut Desk) -> Decision {
        let known = self.stage(Stage::Flow, desk);
        if known.reason == Reason::TableFull {
            return self.stage(Stage::Assure, desk);
        }
        known
    }

    /// A packet that is not a plain SYN, if a flow knows it; otherwise [`Reason::NoFlow`].
    #[inline(always)]
    fn by_flow(&self, desk: &mut Desk, rule: &mut RuleSlot) -> Reason {
        desk.name_flow(self.direction, self.interface.zone);
        let Some(found) = self.find_either(desk) else {
            return Reason::NoFlow;
        };
        *rule = desk.state.rule;
        let owns = self.owns(&desk.state);
        let is_judged = if owns {
            // Where removing a rule terminates, what an earlier policy admitted is judged again.
            let admitted = desk.state.generation;
            admitted.is_before(self.interface.judge_again_before)
        } else {
            // What no rule has admitted goes to a link-local service, from any interface.
            self.has_opened(&desk.state) && rule.is_some()
        };
        if is_judged {
            *rule = self.judge_flow(desk, found.flow, owns);
            if !rule.is_some() {
                return if owns {
                    Reason::Terminated
                } else {
                    Reason::NoRule
                };
            }
        }
        self.go_on(desk, found, rule)
    }

    /// Whether this interface has admitted the flow.
    #[inline(always)]
    fn owns(&self, state: &FlowState) -> bool {
        state.owner == self.interface.slot
    }

    /// Whether a packet that goes this way opens the flow, or has opened it. At an interface that
    /// does not own the flow its rules judge such a packet: what one interface admits is not admitted
    /// by the next on its way. Answers may come back by any interface.
    #[inline(always)]
    fn has_opened(&self, state: &FlowState) -> bool {
        state.initiator() as u8 == self.direction as u8
    }

    /// The rule in force by which a flow is admitted. A flow that this interface owns goes on by that
    /// rule, or ends.
    #[cfg_attr(target_arch = "bpf", inline(never))]
    fn judge_flow(&self, desk: &mut Desk, flow: T::Flow, owns: bool) -> RuleSlot {
        let Desk {
            headers,
            other: opening,
            state,
            ..
        } = desk;
        let direction = state.initiator();
        *opening = *headers;
        opening.turn_towards(self.direction, direction);
        let rule = match self.admitted(opening, direction) {
            Ok(admitted) => admitted.rule,
            Err(_) => RuleSlot::NONE,
        };
        if !owns {
            return rule;
        }
        if rule.is_some() {
            state.rule = rule;
            state.generation = self.tables.generation();
            self.tables.update_flow(flow, state);
        } else {
            self.tables.remove_flow(flow, state.owner);
        }
        rule
    }

    /// Looks into both tables.
    #[inline(always)]
    fn find_either(&self, desk: &mut Desk) -> Option<Found<T::Flow>> {
        let found = self.tables.find_either(&desk.key, &mut desk.state);
        for table in [FlowTable::Assured, FlowTable::Embryonic] {
            let is_there = matches!(found, Some((of, _)) if of == table);
            self.trace.step(Step::Flow {
                table,
                state: is_there.then_some(desk.state),
            });
            if is_there {
                break;
            }
        }
        let (table, flow) = found?;
        Some(Found { table, flow })
    }

    #[inline(always)]
    fn find(&self, table: FlowTable, desk: &mut Desk) -> Option<T::Flow> {
        let found = self.tables.find_flow(table, &desk.key, &mut desk.state);
        self.trace.step(Step::Flow {
            table,
            state: found.map(|_| desk.state),
        });
        found
    }

    /// Whether a TCP packet that no flow knows may be the first that is seen of one.
    #[inline(always)]
    fn may_pick_up(&self, headers: &Headers) -> bool {
        let flags = headers.tcp_flags;
        self.interface.flags.has(InterfaceFlags::TCP_PICKUP)
            && !flags.has(TcpFlags::SYN)
            && !flags.has(TcpFlags::RST)
            && !flags.has(TcpFlags::FIN)
    }

    /// A packet of a known flow.
    #[cfg_attr(target_arch = "bpf", inline(never))]
    fn go_on(&self, desk: &mut Desk, found: Found<T::Flow>, rule: &mut RuleSlot) -> Reason {
        if let FlowTable::Assured = found.table {
            self.live(found.flow, desk);
            return Reason::Tracked;
        }
        let Desk { headers, state, .. } = desk;
        match state.grow(headers, self.direction) {
            Growth::Refuse => {
                *rule = RuleSlot::NONE;
                Reason::ImplausibleReply
            }
            Growth::Stay => {
                self.settle(found.flow, state, headers);
                Reason::Tracked
            }
            Growth::End => {
                self.tables.remove_flow(found.flow, state.owner);
                Reason::Tracked
            }
            Growth::Assure => Reason::TableFull,
        }
    }

    /// A packet of an assured flow.
    #[inline(always)]
    fn live(&self, flow: T::Flow, desk: &mut Desk) {
        let change = desk.state.live(&desk.headers, self.direction);
        self.keep_on_desk(flow, desk, change);
    }

    /// The same as [`Question::keep`], as a function of its own in the kernel: its stack is then free
    /// for the others.
    #[cfg_attr(target_arch = "bpf", inline(never))]
    fn keep_on_desk(&self, flow: T::Flow, desk: &Desk, change: Change) {
        self.keep(flow, &desk.state, change, &desk.headers);
    }

    /// Writes what a packet has changed of an assured flow, gives it its phase's time, and counts the
    /// packet.
    #[inline(always)]
    fn keep(&self, flow: T::Flow, state: &FlowState, change: Change, headers: &Headers) {
        match change {
            Change::Nothing => {}
            Change::Numbers => {
                self.tables
                    .advance_flow(flow, Leg::sending(self.direction), state);
            }
            Change::State => self.tables.update_flow(flow, state),
        }
        self.extend(flow, state.phase);
        self.count(flow, headers);
    }

    /// Moves a flow that was seen from both sides to where it is never forgotten.
    #[inline(always)]
    fn assure(&self, desk: &mut Desk, rule: &mut RuleSlot) -> Reason {
        let grown = desk.state;
        let Some(embryo) = self.find(FlowTable::Embryonic, desk) else {
            // Another CPU has moved it since.
            let Some(flow) = self.find(FlowTable::Assured, desk) else {
                return Reason::NoFlow;
            };
            *rule = desk.state.rule;
            self.live(flow, desk);
            return Reason::Tracked;
        };
        let Desk {
            headers,
            key,
            state,
            ..
        } = desk;
        *state = grown;
        if self.tables.flows_of(state.owner) >= self.interface.max_flows {
            self.tables.reclaim_flows();
            return Reason::QuotaFull;
        }
        let deadline = self.deadline(state.phase);
        let assured = self
            .tables
            .insert_flow(FlowTable::Assured, key, state, deadline);
        let Some(assured) = assured else {
            return Reason::TableFull;
        };
        self.tables.carry_counts(embryo, assured);
        self.tables.remove_flow(embryo, state.owner);
        self.count(assured, headers);
        *rule = state.rule;
        Reason::Tracked
    }

    /// A SYN that no rule admits may still answer one that was sent (RFC 9293 figure 7).
    #[inline(always)]
    fn joins_crossing_syn(&self, desk: &mut Desk, rule: &mut RuleSlot) -> bool {
        desk.name_flow(self.direction, self.interface.zone);
        let Some(flow) = self.find(FlowTable::Embryonic, desk) else {
            return false;
        };
        let Desk { headers, state, .. } = desk;
        if state.initiator() == self.direction
            || !matches!(state.phase, Phase::SYN_SENT | Phase::SYN_RECEIVED)
            || state.grow(headers, self.direction) == Growth::Refuse
        {
            return false;
        }
        self.settle(flow, state, headers);
        *rule = state.rule;
        true
    }

    /// Opens an embryonic flow, unless a SYN comes again or into a live connection.
    #[inline(always)]
    fn open(&self, desk: &mut Desk, rule: &mut RuleSlot) -> Reason {
        desk.name_flow(self.direction, self.interface.zone);
        let is_syn = is_plain_syn(&desk.headers);
        if is_syn {
            self.tables.note_syn(self.direction);
        }
        if is_syn && let Some(found) = self.find_either(desk) {
            if !desk.state.phase.may_reopen() {
                if self.owns(&desk.state) {
                    *rule = desk.state.rule;
                }
                return self.go_on(desk, found, rule);
            }
            self.tables.remove_flow(found.flow, desk.state.owner);
        }
        let Desk {
            headers,
            key,
            state,
            ..
        } = desk;
        *state = FlowState::opened_by(headers, self.direction);
        state.rule = *rule;
        state.generation = self.tables.generation();
        state.owner = self.interface.slot;
        let deadline = self.deadline(state.phase);
        match self
            .tables
            .insert_flow(FlowTable::Embryonic, key, state, deadline)
        {
            Some(flow) => {
                self.count(flow, headers);
                Reason::Rule
            }
            None => Reason::TableFull,
        }
    }

    /// Writes an embryonic flow's state, gives it its phase's time, and counts the packet.
    #[inline(always)]
    fn settle(&self, flow: T::Flow, state: &FlowState, headers: &Headers) {
        if matches!(state.phase, Phase::SYN_SENT | Phase::SYN_RECEIVED) {
            self.tables.note_syn(state.initiator());
        }
        self.tables.update_flow(flow, state);
        self.extend(flow, state.phase);
        self.count(flow, headers);
    }

    #[inline(always)]
    fn deadline(&self, phase: Phase) -> Ticks {
        self.tables
            .now()
            .after(phase.timeout(&self.interface.timeouts))
    }

    #[inline(always)]
    fn extend(&self, flow: T::Flow, phase: Phase) {
        self.tables.extend_flow(flow, self.deadline(phase));
    }

    #[inline(always)]
    fn count(&self, flow: T::Flow, headers: &Headers) {
        let leg = Leg::sending(self.direction);
        self.tables
            .count_flow(flow, leg, headers.packets, headers.bytes);
    }

    /// Whether an ICMP error quotes a packet of an allowed flow. It creates and refreshes nothing.
    #[inline(always)]
    fn is_related(&self, desk: &mut Desk) -> bool {
        let inner = &desk.other;
        if inner.content != Content::Ip
            || inner.source != desk.headers.destination
            || matches!(inner.icmp_role(), IcmpRole::Error | IcmpRole::Notice)
        {
            return false;
        }
        // What is quoted went the other way.
        let direction = self.direction.opposite();
        desk.name_quoted_flow(direction, self.interface.zone);
        let mut rule = RuleSlot::NONE;
        self.find_either(desk).is_some() || self.is_untracked(&desk.other, direction, &mut rule)
    }

    #[inline(always)]
    fn direction_policy(&self, direction: Direction) -> Option<&DirectionPolicy> {
        Some(
            self.tables
                .policy(self.interface.policy)?
                .direction(direction),
        )
    }

    /// Whether a packet that goes in `direction` belongs to no tracked flow: rules open to everyone
    /// allow it, as a first packet or as a reply, and everything that goes the other way.
    #[inline(always)]
    fn is_untracked(&self, headers: &Headers, direction: Direction, rule: &mut RuleSlot) -> bool {
        if headers.protocol != TCP && headers.protocol != UDP {
            return false;
        }
        let (Some(forward), Some(backward)) = (
            self.direction_policy(direction),
            self.direction_policy(direction.opposite()),
        ) else {
            return false;
        };
        let family = headers.family();
        let whole = PolicyFlags::open(family, headers.protocol);
        if backward.flags.has(whole) {
            // As the packet of an initiator: its destination port is the service.
            *rule = self
                .tables
                .rule_in(forward.open_to(family), headers.service());
            if rule.is_some() {
                return true;
            }
        }
        if forward.flags.has(whole) {
            // As a reply: its source port is the service.
            let service = Service::new(headers.protocol, headers.source_port);
            *rule = self.tables.rule_in(backward.open_to(family), service);
        }
        rule.is_some()
    }

    /// The rule that admits a packet as the first of its flow.
    #[inline(always)]
    fn admitted(&self, headers: &Headers, direction: Direction) -> Result<Admitted, Reason> {
        self.service_admitted(headers.peer(direction), headers.service(), direction)
    }

    /// The rule that admits a service in a direction.
    #[inline(always)]
    fn service_admitted(
        &self,
        peer: &Addr,
        service: Service,
        direction: Direction,
    ) -> Result<Admitted, Reason> {
        let policy = self.direction_policy(direction).ok_or(Reason::NoPolicy)?;
        let number = self.interface.direction_policy(direction);
        let family = peer.family();

        let rule = self.tables.rule_in(policy.open_to(family), service);
        self.trace.step(Step::Rules {
            source: RuleSource::Open,
            service,
            rule,
        });
        if rule.is_some() {
            let protocol = service.protocol();
            let untracked = (protocol == TCP || protocol == UDP)
                && self
                    .direction_policy(direction.opposite())
                    .is_some_and(|backward| {
                        backward.flags.has(PolicyFlags::open(family, protocol))
                    });
            return Ok(Admitted { rule, untracked });
        }
        if policy.flags.has(PolicyFlags::prefixes(family)) {
            let table = self.tables.prefix(Scope::policy(number, family), peer);
            let rule = self.tables.rule_in(table, service);
            self.trace.step(Step::Rules {
                source: RuleSource::Prefix,
                service,
                rule,
            });
            if rule.is_some() {
                return Ok(Admitted {
                    rule,
                    untracked: false,
                });
            }
        }
        if policy.flags.has(PolicyFlags::PREFIX_LISTS) {
            let scope = Scope::prefix_lists(self.interface.vpc, family);
            let identity = self.tables.set(scope, peer);
            let rule = self.granted(number, identity, service);
            self.trace.step(Step::Rules {
                source: RuleSource::PrefixLists(identity),
                service,
                rule,
            });
            if rule.is_some() {
                return Ok(Admitted {
                    rule,
                    untracked: false,
                });
            }
        }
        if policy.flags.has(PolicyFlags::GROUPS) {
            let identity = self.tables.member(self.interface.vpc, peer);
            let rule = self.granted(number, identity, service);
            self.trace.step(Step::Rules {
                source: RuleSource::Groups(identity),
                service,
                rule,
            });
            if rule.is_some() {
                return Ok(Admitted {
                    rule,
                    untracked: false,
                });
            }
        }
        Err(Reason::NoRule)
    }

    #[inline(always)]
    fn granted(&self, direction_policy: u32, identity: Identity, service: Service) -> RuleSlot {
        if !identity.is_some() {
            return RuleSlot::NONE;
        }
        let key = GrantKey {
            direction_policy,
            identity,
        };
        self.tables.rule_in(self.tables.grant(&key), service)
    }
}

/// Where a flow was found.
struct Found<F> {
    table: FlowTable,
    flow: F,
}

/// Whether a DHCP client or server listens there, in either family.
#[inline(always)]
const fn is_dhcp_port(port: u16) -> bool {
    matches!(port, 67 | 68 | 546 | 547)
}

/// Whether [`Stage::Exempt`] could find anything.
#[inline(always)]
const fn may_be_exempt(headers: &Headers) -> bool {
    if let Part::Later = headers.part {
        return false;
    }
    match headers.protocol {
        ICMPV6 | IGMP => true,
        UDP => is_dhcp_port(headers.source_port) || is_dhcp_port(headers.destination_port),
        _ => false,
    }
}

/// Whether the packet asks for a new TCP connection.
#[inline(always)]
const fn is_plain_syn(headers: &Headers) -> bool {
    headers.protocol == TCP && headers.tcp_flags.is_plain_syn()
}

/// What admits a packet.
struct Admitted {
    rule: RuleSlot,
    untracked: bool,
}
