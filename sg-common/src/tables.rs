//! What the decision asks: the policy in force, the flows and the fragments. The kernel's maps answer
//! it, and so does the host's copy.

use crate::abi::{Awaiting, FragmentKey, FragmentVerdict, GrantKey, GroupSetEntry, Scope};
use crate::addr::Addr;
use crate::flow::{FastUpdate, FlowKey, FlowKind, FlowState, Leg};
use crate::ids::{Generation, Identity, RuleSlot, Ticks};
use crate::packet::Direction;
use crate::ports::{PortTable, Ports, Service, search_ports};

/// What a first look for a flow came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastFind<F> {
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
pub trait FastPacket {
    /// Whether its flow's key lies in memory, where it can be read again when the flow is found.
    const KEY_IN_MEMORY: bool;

    /// Packets of the wire that it stands for, and bytes to count.
    fn size(&self) -> (u32, u32);

    /// Whether it does no more to the flow than to move its numbers. It looks at the state's owner,
    /// generation, initiator, phase and marks.
    fn is_simple(&self, state: &FlowState) -> bool;

    /// What the packet does to the flow, if it may pass. Of the state it looks at the rest too, but for
    /// the rule.
    fn fast_update(&self, state: &mut FlowState) -> FastUpdate;
}

/// The policy in force.
pub trait Policies: Ports {
    /// The policy in force.
    fn generation(&self) -> Generation;
    /// The set of groups with this number.
    fn group_set(&self, id: u32) -> Option<&GroupSetEntry>;
    /// The rule by which a port table admits the service.
    #[inline(always)]
    fn rule_in(&self, table: PortTable, service: Service) -> RuleSlot
    where
        Self: Sized,
    {
        search_ports(self, table, service)
    }
    /// The port table of the longest prefix that covers the address.
    fn prefix(&self, scope: Scope, address: &Addr) -> PortTable;
    /// The set that the longest prefix covering the address stands for.
    fn set(&self, scope: Scope, address: &Addr) -> Identity;
    /// The set of groups that the address is in.
    fn member(&self, vpc: u32, address: &Addr) -> Identity;
    /// What an identity is granted.
    fn grant(&self, key: &GrantKey) -> PortTable;
}

/// The flows.
pub trait Flows {
    /// Where a flow was found.
    type Flow: Copy;

    /// The time.
    fn now(&self) -> Ticks;
    /// Looks for a flow that is not past its deadline. Leaves its state in `state`, and says of which
    /// kind it is and where it was found.
    fn find_flow(&self, key: &FlowKey, state: &mut FlowState) -> Option<(FlowKind, Self::Flow)>;
    /// Looks for an assured flow where it most likely is, and keeps what a packet does to it. Returns the
    /// rule that admitted the flow. `state` is a place to write on.
    #[inline(always)]
    fn find_fast(
        &self,
        key: &FlowKey,
        state: &mut FlowState,
        packet: &impl FastPacket,
    ) -> FastFind<RuleSlot> {
        let flow = match self.find_flow(key, state) {
            Some((FlowKind::Assured, flow)) => flow,
            Some((FlowKind::Embryonic, _)) => return FastFind::Unsure,
            None => return FastFind::Absent,
        };
        if !packet.is_simple(state) {
            return FastFind::Unsure;
        }
        let fast_update = packet.fast_update(state);
        if fast_update.has_moved {
            self.advance_flow(flow, fast_update.leg, state);
        }
        self.extend_flow(flow, self.now().after(fast_update.timeout));
        let (packets, bytes) = packet.size();
        self.count_flow(flow, fast_update.leg, packets, bytes);
        FastFind::Found(state.rule)
    }
    /// Opens an embryonic flow. `None`: there is no room.
    fn open_flow(&self, key: &FlowKey, state: &FlowState, deadline: Ticks) -> Option<Self::Flow>;
    /// Assures the embryonic flow that was found last, where it is and with this state. `None`: it has
    /// lost its place since.
    fn assure_flow(
        &self,
        flow: Self::Flow,
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
    /// Ends a flow.
    fn remove_flow(&self, flow: Self::Flow, owner: u32);
    /// Frees the places of some expired flows, so that quotas become true without any process.
    fn reclaim_flows(&self);
    /// How many assured flows the interface slot holds.
    fn flows_of(&self, owner: u32) -> u32;
}

/// First fragments, and the packets that wait for theirs.
pub trait Fragments {
    /// Remembers what became of a first fragment.
    fn remember_fragment(&self, key: &FragmentKey, verdict: &FragmentVerdict);
    /// What became of the first fragment.
    fn recall_fragment(&self, key: &FragmentKey) -> Option<FragmentVerdict>;
    /// How many packets wait for their first fragment at the interface with this slot.
    fn awaiting(&self, slot: u32) -> Awaiting;
    /// Writes how many do.
    fn set_awaiting(&self, slot: u32, awaiting: Awaiting);
}

/// All that the decision asks. The kernel's maps answer it, and so do the host's tables.
pub trait Tables: Policies + Flows + Fragments {}

impl<T: Policies + Flows + Fragments> Tables for T {}
