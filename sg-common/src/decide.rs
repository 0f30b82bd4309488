//! The decision: one packet at one interface, its verdict and the reason.
//!
//! The order is that of cost and of certainty: what the parser refuses, what groups never filter,
//! the guest's address guard, fragments, errors about flows, flows, rules. A plain SYN asks the
//! rules first, so that a refused flood never reaches the flow tables.

use crate::addr::Addr;
use crate::flow::{FlowKey, FlowState, FlowTable, Growth, Leg, Phase};
use crate::packet::{Direction, Framing, Packet};
use crate::parse::{
    self, Content, Headers, ICMP, ICMPV6, IGMP, IcmpRole, Part, TCP, TcpFlags, UDP,
};
use crate::report::{Decision, Reason, Verdict};
use crate::tables::{
    DirectionPolicy, FragmentKey, FragmentVerdict, GrantKey, Identity, Interface, InterfaceFlags,
    PORT_SEARCH_STEPS, PolicyFlags, PortTable, RuleSlot, Scope, Service, Tables,
};

/// Told each step of a decision. The kernel's is `()`, and costs nothing.
pub trait Trace {
    /// One step was taken.
    fn step(&mut self, step: Step);
}

impl Trace for () {
    #[inline(always)]
    fn step(&mut self, _step: Step) {}
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

/// How long a first fragment's verdict counts, in [`Ticks`](crate::flow::Ticks) of 32 jiffies: 30 s
/// at 1000 Hz and, since a tick is then longer, no less at any other rate.
///
/// RFC 791 suggests 15 s and Linux keeps 30 s; a verdict kept longer than its packet does no harm,
/// because the identification is bound to the same addresses and protocol.
const FRAGMENT_TICKS: u32 = 30 * 1000 / 32;

/// A question: this packet, at this interface, in this direction.
pub struct Question<'a, P: ?Sized, T> {
    /// The frame.
    pub packet: &'a P,
    /// Relative to what is protected.
    pub direction: Direction,
    /// What is in force on the interface.
    pub interface: &'a Interface,
    /// The compiled policy and the flows.
    pub tables: &'a T,
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

/// Judges one packet, and leaves in `headers` what was read of it.
#[inline(always)]
pub fn decide<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    direction: Direction,
    interface: &Interface,
    tables: &T,
    headers: &mut Headers,
    trace: &mut impl Trace,
) -> Decision {
    let question = Question { packet, direction, interface, tables };
    match question.judge(headers, trace) {
        Ok(decision) => decision,
        Err(reason) => Decision::without_rule(reason),
    }
}

/// A decision, or a reason that rests on no rule.
type Judgement = Result<Decision, Reason>;

impl<P: Packet + ?Sized, T: Tables> Question<'_, P, T> {
    #[inline(always)]
    fn judge(&self, headers: &mut Headers, trace: &mut impl Trace) -> Judgement {
        let framing = if self.interface.flags.has(InterfaceFlags::BARE) {
            Framing::Bare
        } else {
            Framing::Ethernet
        };
        match parse::parse(self.packet, framing, headers)? {
            Content::Ip => {}
            Content::Arp => return self.arp(headers),
            Content::LinkProtocol => return self.link_protocol(),
            Content::Other => return Err(self.other_ethertype(headers)),
        }
        trace.step(Step::Parsed(*headers));
        self.exempt(headers)?;
        if self.is_guest() {
            self.guard(headers)?;
        }
        if self.is_link_local_service(headers) {
            return Err(Reason::LinkLocalService);
        }
        match headers.part {
            Part::Whole => self.stateful(headers, trace),
            Part::First => {
                let judgement = self.stateful(headers, trace);
                self.remember(headers, judgement);
                judgement
            }
            Part::Later => self.follow_first(headers),
        }
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

    #[inline(always)]
    fn arp(&self, headers: &Headers) -> Judgement {
        if !self.is_guest() {
            return Err(Reason::LinkProtocol);
        }
        let arp = parse::arp(self.packet, headers)?;
        let speaks_for_guest = match self.direction {
            // A probe (RFC 5227 §2.1.1) has no sender address yet.
            Direction::Egress => {
                self.is_guests(&arp.sender)
                    || (arp.sender == Addr::V4_UNSPECIFIED && self.is_guests(&arp.target))
            }
            // Others ask for the guest, answer it, or announce themselves.
            Direction::Ingress => arp.sender == arp.target || self.is_guests(&arp.target),
        };
        Err(if speaks_for_guest { Reason::LinkProtocol } else { Reason::GuestArp })
    }

    #[inline(always)]
    fn link_protocol(&self) -> Judgement {
        Err(if self.is_guest() { Reason::Ethertype } else { Reason::LinkProtocol })
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
        if listed && ethertype != 0 { Reason::ListedEthertype } else { Reason::Ethertype }
    }

    /// Traffic that groups never filter ends here, with its reason as the error.
    #[inline(always)]
    fn exempt(&self, headers: &Headers) -> Result<(), Reason> {
        match headers.protocol {
            ICMPV6 => self.exempt_icmpv6(headers),
            IGMP if self.direction == Direction::Egress && headers.part == Part::Whole => {
                if self.is_guest() && !self.is_guests(&headers.source) {
                    return Err(Reason::GuestSource);
                }
                Err(Reason::MulticastMembership)
            }
            UDP if headers.part != Part::Later => self.exempt_dhcp(headers),
            _ => Ok(()),
        }
    }

    #[inline(always)]
    fn exempt_icmpv6(&self, headers: &Headers) -> Result<(), Reason> {
        const ROUTER_SOLICITATION: u8 = 133;
        const ROUTER_ADVERTISEMENT: u8 = 134;
        const NEIGHBOR_ADVERTISEMENT: u8 = 136;
        const REDIRECT: u8 = 137;
        if headers.part == Part::Later {
            return Ok(());
        }
        let from_guest = self.is_guest() && self.direction == Direction::Egress;
        match headers.icmp_type {
            ROUTER_SOLICITATION..=REDIRECT => {
                let from_router = matches!(headers.icmp_type, ROUTER_ADVERTISEMENT | REDIRECT);
                // RFC 4861 §6.1 and §7.1; RFC 6980 for fragments.
                if headers.hop_limit != 255
                    || headers.icmp_code != 0
                    || headers.fragment_start != 0
                    || (from_router && !headers.source.is_v6_link_local())
                {
                    return Err(Reason::MalformedDiscovery);
                }
                if from_guest {
                    if from_router {
                        return Err(Reason::GuestRouter);
                    }
                    if headers.icmp_type == NEIGHBOR_ADVERTISEMENT {
                        let target = parse::discovery_target(self.packet, headers)
                            .ok_or(Reason::MalformedDiscovery)?;
                        if !self.is_guests(&target) {
                            return Err(Reason::GuestDiscovery);
                        }
                    }
                    self.guard_link_source(headers)?;
                }
                Err(Reason::NeighborDiscovery)
            }
            // Query, report, done (RFC 2710); report (RFC 3810).
            130..=132 | 143 if headers.part == Part::Whole && headers.hop_limit == 1 => {
                let source = &headers.source;
                if source.is_v6_link_local() || *source == Addr::UNSPECIFIED {
                    Err(Reason::MulticastMembership)
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }

    /// On its own link a guest also speaks from `::` and from its link-local address.
    #[inline(always)]
    fn guard_link_source(&self, headers: &Headers) -> Result<(), Reason> {
        let source = &headers.source;
        let plausible = *source == Addr::UNSPECIFIED
            || source.is_v6_link_local()
            || self.is_guests(source);
        if plausible { Ok(()) } else { Err(Reason::GuestSource) }
    }

    /// RFC 2131 §4.1, RFC 8415 §7.2.
    #[inline(always)]
    fn exempt_dhcp(&self, headers: &Headers) -> Result<(), Reason> {
        let from_guest = self.is_guest() && self.direction == Direction::Egress;
        let v4 = headers.source.is_v4();
        let (client, server) = if v4 { (68, 67) } else { (546, 547) };
        let ports = (headers.source_port, headers.destination_port);
        let as_client = match self.direction {
            Direction::Egress => ports == (client, server),
            Direction::Ingress => ports == (server, client),
        };
        if as_client {
            if from_guest {
                let without_lease =
                    headers.source == Addr::V4_UNSPECIFIED || headers.source.is_v6_link_local();
                if !without_lease && !self.is_guests(&headers.source) {
                    return Err(Reason::GuestSource);
                }
            }
            if self.direction == Direction::Ingress && !v4 && !headers.source.is_v6_link_local() {
                return Ok(());
            }
            return Err(Reason::DhcpClient);
        }
        if from_guest && headers.source_port == server {
            return Err(Reason::GuestDhcpServer);
        }
        Ok(())
    }

    /// The source and destination check: a guest sends from its own addresses and gets what is
    /// for them.
    #[inline(always)]
    fn guard(&self, headers: &Headers) -> Result<(), Reason> {
        if !self.is_guests(headers.local(self.direction)) {
            return Err(match self.direction {
                Direction::Egress => Reason::GuestSource,
                Direction::Ingress => Reason::GuestDestination,
            });
        }
        // Nobody else sends from the guest's addresses.
        if self.direction == Direction::Ingress && self.is_guests(&headers.source) {
            return Err(Reason::MalformedSource);
        }
        Ok(())
    }

    #[inline(always)]
    fn is_link_local_service(&self, headers: &Headers) -> bool {
        let peer = headers.peer(self.direction);
        if !peer.may_be_link_local_service() {
            return false;
        }
        // Services answer; whoever opens a connection inwards is judged like anyone else.
        if self.direction == Direction::Ingress
            && headers.protocol == TCP
            && headers.tcp_flags.is_plain_syn()
        {
            return false;
        }
        self.tables.set(Scope::services(self.interface.vpc, peer.family()), peer).is_some()
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
    fn remember(&self, headers: &Headers, judgement: Judgement) {
        let (passed, rule) = match judgement {
            Ok(decision) => (decision.reason.verdict() == Verdict::Pass, decision.rule),
            Err(reason) => (reason.verdict() == Verdict::Pass, RuleSlot::NONE),
        };
        let verdict = FragmentVerdict {
            deadline: self.tables.now().after(FRAGMENT_TICKS),
            judged_bytes: headers.end - headers.fragment_start,
            rule,
            passed: u32::from(passed),
        };
        self.tables.remember_fragment(&self.fragment_key(headers), &verdict);
    }

    #[inline(always)]
    fn follow_first(&self, headers: &Headers) -> Judgement {
        let first = self
            .tables
            .recall_fragment(&self.fragment_key(headers))
            .filter(|first| !first.deadline.has_passed(self.tables.now()))
            .ok_or(Reason::FragmentUnknown)?;
        if headers.fragment_offset < first.judged_bytes {
            return Err(Reason::FragmentOverlap);
        }
        if first.passed != 1 {
            return Err(Reason::FragmentDropped);
        }
        Ok(Decision { reason: Reason::FragmentPass, rule: first.rule })
    }

    #[inline(always)]
    fn stateful(&self, headers: &Headers, trace: &mut impl Trace) -> Judgement {
        match headers.icmp_role() {
            IcmpRole::Error => {
                if self.is_related(headers) {
                    return Err(Reason::Related);
                }
                self.by_rules_alone(headers, trace)
            }
            IcmpRole::Notice => self.by_rules_alone(headers, trace),
            _ if headers.protocol == TCP && headers.tcp_flags.is_plain_syn() => {
                self.plain_syn(headers, trace)
            }
            _ => self.by_flow(headers, trace),
        }
    }

    /// Messages that neither ask nor answer open no flow.
    #[inline(always)]
    fn by_rules_alone(&self, headers: &Headers, trace: &mut impl Trace) -> Judgement {
        let admitted = self.admitted(headers, self.direction, trace)?;
        Ok(Decision { reason: Reason::RuleAlone, rule: admitted.rule })
    }

    /// The rules are asked before any table: a refused SYN costs no flow lookup but one, for the
    /// crossing SYNs of a simultaneous open.
    #[inline(always)]
    fn plain_syn(&self, headers: &Headers, trace: &mut impl Trace) -> Judgement {
        let key = headers.flow(self.direction, self.interface.zone);
        let admitted = match self.admitted(headers, self.direction, trace) {
            Ok(admitted) => admitted,
            Err(reason) => return self.crossing_syn(headers, &key, reason),
        };
        if admitted.untracked {
            return Ok(Decision { reason: Reason::Untracked, rule: admitted.rule });
        }
        if let Some((flow, state)) = self.find(FlowTable::Assured, &key, trace) {
            if !state.phase.may_reopen() {
                // The receiver answers a SYN on a live connection with a challenge (RFC 5961 §4);
                // the flow is not touched.
                self.count(flow, headers);
                return Ok(Decision { reason: Reason::Tracked, rule: state.rule });
            }
            self.tables.remove_flow(flow, state.owner);
        }
        let scale = parse::window_scale(self.packet, headers);
        if let Some((flow, mut state)) = self.find(FlowTable::Embryonic, &key, trace) {
            state.grow(headers, self.direction, scale);
            self.settle(flow, &state);
            self.count(flow, headers);
            return Ok(Decision { reason: Reason::Tracked, rule: state.rule });
        }
        self.open(headers, &key, admitted.rule, scale)
    }

    /// A SYN that no rule admits may still answer one that was sent (RFC 9293 figure 7).
    #[inline(always)]
    fn crossing_syn(&self, headers: &Headers, key: &FlowKey, refusal: Reason) -> Judgement {
        let Some((flow, mut state)) = self.tables.find_flow(FlowTable::Embryonic, key) else {
            return Err(refusal);
        };
        if state.initiator() == self.direction
            || !matches!(state.phase, Phase::SYN_SENT | Phase::SYN_RECEIVED)
        {
            return Err(refusal);
        }
        let scale = parse::window_scale(self.packet, headers);
        if state.grow(headers, self.direction, scale) == Growth::Refuse {
            return Err(refusal);
        }
        self.settle(flow, &state);
        self.count(flow, headers);
        Ok(Decision { reason: Reason::Tracked, rule: state.rule })
    }

    #[inline(always)]
    fn by_flow(&self, headers: &Headers, trace: &mut impl Trace) -> Judgement {
        let key = headers.flow(self.direction, self.interface.zone);
        if let Some((flow, mut state)) = self.find(FlowTable::Assured, &key, trace) {
            let standing = self.judge_again(&mut state, headers, trace);
            if let Standing::Falls = standing {
                self.tables.remove_flow(flow, state.owner);
                return Err(Reason::NoRule);
            }
            let moved = state.live(headers, self.direction);
            if moved || standing == Standing::Renewed {
                self.tables.update_flow(flow, &state);
            }
            let timeout = state.phase.timeout(&self.interface.timeouts);
            self.tables.extend_flow(flow, self.tables.now().after(timeout));
            self.count(flow, headers);
            return Ok(Decision { reason: Reason::Tracked, rule: state.rule });
        }
        if let Some((flow, state)) = self.find(FlowTable::Embryonic, &key, trace) {
            return self.by_embryonic(headers, &key, flow, state, trace);
        }
        self.new_flow(headers, &key, trace)
    }

    /// Whether a flow that an earlier policy admitted may go on, where removing a rule terminates.
    #[inline(always)]
    fn judge_again(
        &self,
        state: &mut FlowState,
        headers: &Headers,
        trace: &mut impl Trace,
    ) -> Standing {
        if !state.generation.is_before(self.interface.judge_again_before) {
            return Standing::Stands;
        }
        let opening = opening_of(headers, self.direction, state.initiator());
        match self.admitted(&opening, state.initiator(), trace) {
            Ok(admitted) => {
                state.rule = admitted.rule;
                state.generation = self.tables.generation();
                Standing::Renewed
            }
            Err(_) => Standing::Falls,
        }
    }

    #[inline(always)]
    fn by_embryonic(
        &self,
        headers: &Headers,
        key: &FlowKey,
        flow: T::Flow,
        found: FlowState,
        trace: &mut impl Trace,
    ) -> Judgement {
        let mut state = found;
        if let Standing::Falls = self.judge_again(&mut state, headers, trace) {
            self.tables.remove_flow(flow, state.owner);
            return Err(Reason::NoRule);
        }
        let scale = if headers.tcp_flags.has(TcpFlags::SYN) {
            parse::window_scale(self.packet, headers)
        } else {
            0
        };
        match state.grow(headers, self.direction, scale) {
            Growth::Refuse => return Err(Reason::ImplausibleReply),
            Growth::Stay => {
                self.settle(flow, &state);
                self.count(flow, headers);
            }
            Growth::End => {
                self.tables.remove_flow(flow, state.owner);
            }
            Growth::Assure => {
                if self.tables.flows_of(state.owner) >= self.interface.max_flows {
                    self.tables.reclaim_flows();
                    return Err(Reason::QuotaFull);
                }
                let timeout = state.phase.timeout(&self.interface.timeouts);
                let deadline = self.tables.now().after(timeout);
                let assured = self
                    .tables
                    .insert_flow(FlowTable::Assured, key, &state, deadline)
                    .ok_or(Reason::TableFull)?;
                self.tables.carry_counts(flow, assured);
                self.tables.remove_flow(flow, state.owner);
                self.count(assured, headers);
            }
        }
        Ok(Decision { reason: Reason::Tracked, rule: state.rule })
    }

    /// No flow knows this packet: the rules judge it.
    #[inline(always)]
    fn new_flow(&self, headers: &Headers, key: &FlowKey, trace: &mut impl Trace) -> Judgement {
        if headers.protocol == TCP || headers.protocol == UDP {
            if let Some(rule) = self.untracked_as(headers, self.direction)? {
                return Ok(Decision { reason: Reason::Untracked, rule });
            }
        }
        if headers.protocol == TCP {
            let flags = headers.tcp_flags;
            let belongs_to_a_flow =
                flags.has(TcpFlags::SYN) || flags.has(TcpFlags::RST) || flags.has(TcpFlags::FIN);
            if belongs_to_a_flow || !self.interface.flags.has(InterfaceFlags::TCP_PICKUP) {
                return Err(Reason::NoFlow);
            }
        }
        let admitted = self.admitted(headers, self.direction, trace)?;
        if let IcmpRole::Reply = headers.icmp_role() {
            // An answer to nothing opens nothing.
            return Ok(Decision { reason: Reason::RuleAlone, rule: admitted.rule });
        }
        self.open(headers, key, admitted.rule, 0)
    }

    /// Opens an embryonic flow.
    #[inline(always)]
    fn open(&self, headers: &Headers, key: &FlowKey, rule: RuleSlot, scale: u8) -> Judgement {
        let mut state = FlowState::opened_by(headers, self.direction, scale);
        state.rule = rule;
        state.generation = self.tables.generation();
        state.owner = self.interface.slot;
        let deadline = self.tables.now().after(state.phase.timeout(&self.interface.timeouts));
        let flow = self
            .tables
            .insert_flow(FlowTable::Embryonic, key, &state, deadline)
            .ok_or(Reason::TableFull)?;
        self.count(flow, headers);
        Ok(Decision { reason: Reason::Rule, rule })
    }

    #[inline(always)]
    fn find(
        &self,
        table: FlowTable,
        key: &FlowKey,
        trace: &mut impl Trace,
    ) -> Option<(T::Flow, FlowState)> {
        let found = self.tables.find_flow(table, key);
        trace.step(Step::Flow { table, state: found.map(|(_, state)| state) });
        found
    }

    /// Writes an embryonic flow's state and gives it its phase's time.
    #[inline(always)]
    fn settle(&self, flow: T::Flow, state: &FlowState) {
        self.tables.update_flow(flow, state);
        let timeout = state.phase.timeout(&self.interface.timeouts);
        self.tables.extend_flow(flow, self.tables.now().after(timeout));
    }

    #[inline(always)]
    fn count(&self, flow: T::Flow, headers: &Headers) {
        let leg = Leg::sending(self.direction);
        self.tables.count_flow(flow, leg, self.packet.segments(), headers.bytes(self.packet));
    }

    /// Whether an ICMP error quotes a packet of an allowed flow. It creates and refreshes nothing.
    #[inline(always)]
    fn is_related(&self, headers: &Headers) -> bool {
        let mut inner = Headers::default();
        if headers.part != Part::Whole
            || parse::quoted(self.packet, headers, &mut inner).is_none()
            || inner.source != headers.destination
        {
            return false;
        }
        // What is quoted went the other way.
        let direction = self.direction.opposite();
        if let IcmpRole::Error | IcmpRole::Notice = inner.icmp_role() {
            return false;
        }
        let key = inner.flow(direction, self.interface.zone);
        if self.tables.find_flow(FlowTable::Assured, &key).is_some()
            || self.tables.find_flow(FlowTable::Embryonic, &key).is_some()
        {
            return true;
        }
        (inner.protocol == TCP || inner.protocol == UDP)
            && matches!(self.untracked_as(&inner, direction), Ok(Some(_)))
    }

    #[inline(always)]
    fn direction_policy(&self, direction: Direction) -> Result<&DirectionPolicy, Reason> {
        let policy = self.tables.policy(self.interface.policy).ok_or(Reason::NoPolicy)?;
        Ok(policy.direction(direction))
    }

    /// Whether rules open to everyone allow a TCP or UDP packet that goes in `direction` both as a
    /// first packet and as a reply, so that it belongs to no tracked flow. Returns the rule that
    /// opens it.
    #[inline(always)]
    fn untracked_as(
        &self,
        headers: &Headers,
        direction: Direction,
    ) -> Result<Option<RuleSlot>, Reason> {
        let family = headers.family();
        let whole = PolicyFlags::open(family, headers.protocol);
        let forward = self.direction_policy(direction)?;
        let backward = self.direction_policy(direction.opposite())?;
        if backward.flags.has(whole) {
            // As the packet of an initiator: its destination port is the service.
            let rule = self.search(forward.open_to(family), headers.service());
            if rule.is_some() {
                return Ok(Some(rule));
            }
        }
        if forward.flags.has(whole) {
            // As a reply: its source port is the service.
            let service = Service::new(headers.protocol, headers.source_port);
            let rule = self.search(backward.open_to(family), service);
            if rule.is_some() {
                return Ok(Some(rule));
            }
        }
        Ok(None)
    }

    /// The rule that admits a packet as the first of its flow.
    #[inline(always)]
    fn admitted(
        &self,
        headers: &Headers,
        direction: Direction,
        trace: &mut impl Trace,
    ) -> Result<Admitted, Reason> {
        let policy = self.direction_policy(direction)?;
        let peer = headers.peer(direction);
        let family = headers.family();
        let service = headers.service();

        let rule = self.search(policy.open_to(family), service);
        trace.step(Step::Rules { source: RuleSource::Open, service, rule });
        if rule.is_some() {
            let untracked = (headers.protocol == TCP || headers.protocol == UDP)
                && self
                    .direction_policy(direction.opposite())?
                    .flags
                    .has(PolicyFlags::open(family, headers.protocol));
            return Ok(Admitted { rule, untracked });
        }
        if policy.flags.has(PolicyFlags::prefixes(family)) {
            let table = self.tables.prefix(Scope::policy(policy.id, family), peer);
            let rule = self.search(table, service);
            trace.step(Step::Rules { source: RuleSource::Prefix, service, rule });
            if rule.is_some() {
                return Ok(Admitted { rule, untracked: false });
            }
        }
        if policy.flags.has(PolicyFlags::PREFIX_LISTS) {
            let scope = Scope::prefix_lists(self.interface.vpc, family);
            let identity = self.tables.set(scope, peer);
            let rule = self.granted(policy, identity, service);
            trace.step(Step::Rules { source: RuleSource::PrefixLists(identity), service, rule });
            if rule.is_some() {
                return Ok(Admitted { rule, untracked: false });
            }
        }
        if policy.flags.has(PolicyFlags::GROUPS) {
            let identity = self.tables.member(self.interface.vpc, peer);
            let rule = self.granted(policy, identity, service);
            trace.step(Step::Rules { source: RuleSource::Groups(identity), service, rule });
            if rule.is_some() {
                return Ok(Admitted { rule, untracked: false });
            }
        }
        Err(Reason::NoRule)
    }

    #[inline(always)]
    fn granted(&self, policy: &DirectionPolicy, identity: Identity, service: Service) -> RuleSlot {
        if !identity.is_some() {
            return RuleSlot::NONE;
        }
        let key = GrantKey { direction_policy: policy.id, identity };
        self.search(self.tables.grant(&key), service)
    }

    /// The rule of the last entry that begins at or before the service.
    #[inline(always)]
    fn search(&self, table: PortTable, service: Service) -> RuleSlot {
        let mut low = 0_u32;
        let mut high = table.length;
        let mut rule = RuleSlot::NONE;
        for _ in 0..PORT_SEARCH_STEPS {
            if low >= high {
                break;
            }
            let middle = low + (high - low) / 2;
            let Some(entry) = self.tables.port_entry(table.offset.wrapping_add(middle)) else {
                return RuleSlot::NONE;
            };
            if entry.start <= service {
                rule = entry.rule;
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        rule
    }
}

/// What becomes of a flow that is judged again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It need not be.
    Stands,
    /// A rule of the policy in force admits it.
    Renewed,
    /// No rule does.
    Falls,
}

/// What admits a packet.
struct Admitted {
    rule: RuleSlot,
    untracked: bool,
}

/// The headers as they were on the first packet of the flow, seen from any packet of it.
#[inline(always)]
fn opening_of(headers: &Headers, direction: Direction, initiator: Direction) -> Headers {
    let mut opening = *headers;
    if direction != initiator {
        opening.source = headers.destination;
        opening.destination = headers.source;
        opening.source_port = headers.destination_port;
        opening.destination_port = headers.source_port;
        // The request that this reply answers.
        opening.icmp_type = match (headers.protocol, headers.icmp_type) {
            (ICMP, 0) => 8,
            (_, reply) => reply.wrapping_sub(1),
        };
        opening.icmp_code = 0;
    }
    opening
}
