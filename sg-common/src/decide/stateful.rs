//! Flows: what a known one says of a packet, and how a packet opens one.

use super::question::{Question, is_plain_syn};
use super::scratch::Scratch;
use super::trace::{Step, Trace};
use crate::abi::InterfaceFlags;
use crate::flow::{FlowKind, FlowState, Growth, Leg, Phase, StateChange};
use crate::ids::{RuleSlot, Ticks};
use crate::parse::{Content, Headers};
use crate::protocol::{IcmpRole, TcpFlags};
use crate::report::Reason;
use crate::tables::Tables;

/// Where a flow was found.
pub(super) struct Found<F> {
    kind: FlowKind,
    flow: F,
}

impl<T: Tables, R: Trace> Question<'_, T, R> {
    /// What a known flow says of a packet that is not a plain SYN. `None`: there is no such flow.
    #[inline(always)]
    pub(super) fn by_flow(&self, scratch: &mut Scratch, rule: &mut RuleSlot) -> Option<Reason> {
        scratch.name_flow(self.direction, self.interface.zone);
        let found = self.find(scratch)?;
        *rule = scratch.state.rule;
        let owns = self.owns(&scratch.state);
        let is_judged = if owns {
            // Where removing a rule terminates, what an earlier policy admitted is judged again.
            let admitted = scratch.state.generation;
            admitted.is_before(self.interface.judge_again_before)
        } else {
            // What no rule has admitted goes to a link-local service, from any interface.
            self.has_opened(&scratch.state) && rule.is_some()
        };
        if is_judged {
            *rule = self.judge_flow(scratch, found.flow, owns);
            if !rule.is_some() {
                return Some(if owns {
                    Reason::Terminated
                } else {
                    Reason::NoRule
                });
            }
        }
        Some(self.go_on(scratch, found, rule))
    }

    /// Whether this interface has admitted the flow.
    #[inline(always)]
    pub(super) fn owns(&self, state: &FlowState) -> bool {
        state.owner == self.interface.slot
    }

    /// Whether a packet that goes this way opens the flow, or has opened it. At an interface that
    /// does not own the flow its rules judge such a packet: what one interface admits is not admitted
    /// by the next on its way. Answers may come back by any interface.
    #[inline(always)]
    pub(super) fn has_opened(&self, state: &FlowState) -> bool {
        state.initiator() as u8 == self.direction as u8
    }

    /// The rule in force by which a flow is admitted. A flow that this interface owns goes on by that
    /// rule, or ends.
    #[cfg_attr(target_arch = "bpf", inline(never))]
    pub(super) fn judge_flow(&self, scratch: &mut Scratch, flow: T::Flow, owns: bool) -> RuleSlot {
        let Scratch {
            headers,
            other: opening,
            state,
            ..
        } = scratch;
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

    #[inline(always)]
    fn find(&self, scratch: &mut Scratch) -> Option<Found<T::Flow>> {
        let found = self.tables.find_flow(&scratch.key, &mut scratch.state);
        self.trace
            .step(Step::Flow(found.map(|(kind, _)| (kind, scratch.state))));
        let (kind, flow) = found?;
        Some(Found { kind, flow })
    }

    /// Whether a TCP packet that no flow knows may be the first that is seen of one.
    #[inline(always)]
    pub(super) fn may_pick_up(&self, headers: &Headers) -> bool {
        let flags = headers.tcp_flags;
        self.interface.flags.has(InterfaceFlags::TCP_PICKUP)
            && !flags.has(TcpFlags::SYN)
            && !flags.has(TcpFlags::RST)
            && !flags.has(TcpFlags::FIN)
    }

    /// A packet of a known flow.
    #[cfg_attr(target_arch = "bpf", inline(never))]
    pub(super) fn go_on(
        &self,
        scratch: &mut Scratch,
        found: Found<T::Flow>,
        rule: &mut RuleSlot,
    ) -> Reason {
        if let FlowKind::Assured = found.kind {
            self.update_assured(found.flow, scratch);
            return Reason::Tracked;
        }
        let Scratch { headers, state, .. } = scratch;
        match state.grow(headers, self.direction) {
            Growth::Assure => self.assure(scratch, found.flow, rule),
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
        }
    }

    /// A packet of an assured flow.
    #[inline(always)]
    pub(super) fn update_assured(&self, flow: T::Flow, scratch: &mut Scratch) {
        let change = scratch.state.update(&scratch.headers, self.direction);
        self.write_change_out_of_line(flow, scratch, change);
    }

    /// The same as [`Question::write_change`], as a function of its own in the kernel: its stack is then free
    /// for the others.
    #[cfg_attr(target_arch = "bpf", inline(never))]
    pub(super) fn write_change_out_of_line(
        &self,
        flow: T::Flow,
        scratch: &Scratch,
        change: StateChange,
    ) {
        self.write_change(flow, &scratch.state, change, &scratch.headers);
    }

    /// Writes what a packet has changed of an assured flow, gives it its phase's time, and counts the
    /// packet.
    #[inline(always)]
    pub(super) fn write_change(
        &self,
        flow: T::Flow,
        state: &FlowState,
        change: StateChange,
        headers: &Headers,
    ) {
        match change {
            StateChange::Nothing => {}
            StateChange::Numbers => {
                self.tables
                    .advance_flow(flow, Leg::sending(self.direction), state);
            }
            StateChange::State => self.tables.update_flow(flow, state),
        }
        self.extend(flow, state.phase);
        self.count(flow, headers);
    }

    /// Assures a flow that was seen from both sides: from here on it is never forgotten.
    #[inline(always)]
    fn assure(&self, scratch: &mut Scratch, flow: T::Flow, rule: &mut RuleSlot) -> Reason {
        let Scratch { headers, state, .. } = scratch;
        if self.tables.flows_of(state.owner) >= self.interface.max_flows {
            self.tables.reclaim_flows();
            *rule = RuleSlot::NONE;
            return Reason::QuotaFull;
        }
        let deadline = self.deadline(state.phase);
        // One that was forgotten or migrated since it was found is assured by its next packet, if it is
        // still there: this packet is one of a live flow.
        if let Some(assured) = self.tables.assure_flow(flow, state, deadline) {
            self.count(assured, headers);
        }
        Reason::Tracked
    }

    /// A SYN that no rule admits may still answer one that was sent (RFC 9293 figure 7).
    #[inline(always)]
    pub(super) fn joins_crossing_syn(&self, scratch: &mut Scratch, rule: &mut RuleSlot) -> bool {
        scratch.name_flow(self.direction, self.interface.zone);
        let Some(Found {
            kind: FlowKind::Embryonic,
            flow,
        }) = self.find(scratch)
        else {
            return false;
        };
        let Scratch { headers, state, .. } = scratch;
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
    pub(super) fn open(&self, scratch: &mut Scratch, rule: &mut RuleSlot) -> Reason {
        scratch.name_flow(self.direction, self.interface.zone);
        let is_syn = is_plain_syn(&scratch.headers);
        if is_syn {
            self.tables.note_syn(self.direction);
        }
        if is_syn && let Some(found) = self.find(scratch) {
            if !scratch.state.phase.may_reopen() {
                if self.owns(&scratch.state) {
                    *rule = scratch.state.rule;
                }
                return self.go_on(scratch, found, rule);
            }
            self.tables.remove_flow(found.flow, scratch.state.owner);
        }
        let Scratch {
            headers,
            key,
            state,
            ..
        } = scratch;
        *state = FlowState::opened_by(headers, self.direction);
        state.rule = *rule;
        state.generation = self.tables.generation();
        state.owner = self.interface.slot;
        let deadline = self.deadline(state.phase);
        match self.tables.open_flow(key, state, deadline) {
            Some(flow) => {
                self.count(flow, headers);
                Reason::Rule
            }
            None => Reason::TableFull,
        }
    }

    /// Writes an embryonic flow's state, gives it its phase's time, and counts the packet.
    #[inline(always)]
    pub(super) fn settle(&self, flow: T::Flow, state: &FlowState, headers: &Headers) {
        if matches!(state.phase, Phase::SYN_SENT | Phase::SYN_RECEIVED) {
            self.tables.note_syn(state.initiator());
        }
        self.tables.update_flow(flow, state);
        self.extend(flow, state.phase);
        self.count(flow, headers);
    }

    #[inline(always)]
    pub(super) fn deadline(&self, phase: Phase) -> Ticks {
        self.tables
            .now()
            .after(phase.timeout(&self.interface.timeouts))
    }

    #[inline(always)]
    pub(super) fn extend(&self, flow: T::Flow, phase: Phase) {
        self.tables.extend_flow(flow, self.deadline(phase));
    }

    #[inline(always)]
    pub(super) fn count(&self, flow: T::Flow, headers: &Headers) {
        let leg = Leg::sending(self.direction);
        self.tables
            .count_flow(flow, leg, headers.packets, headers.bytes);
    }

    /// Whether an ICMP error quotes a packet of an allowed flow. It creates and refreshes nothing.
    #[inline(always)]
    pub(super) fn is_related(&self, scratch: &mut Scratch) -> bool {
        let inner = &scratch.other;
        if inner.content != Content::Ip
            || inner.source != scratch.headers.destination
            || matches!(inner.icmp_role(), IcmpRole::Error | IcmpRole::Notice)
        {
            return false;
        }
        // What is quoted went the other way.
        let direction = self.direction.opposite();
        scratch.name_quoted_flow(direction, self.interface.zone);
        let mut rule = RuleSlot::NONE;
        self.find(scratch).is_some() || self.is_untracked(&scratch.other, direction, &mut rule)
    }
}
