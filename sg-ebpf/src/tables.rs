//! The kernel's answers to the decision's questions.

use aya_ebpf::btf_maps::lpm_trie::Key;
use sg_common::abi::{
    ABI, Awaiting, FragmentKey, FragmentVerdict, Globals, GrantKey, GroupSetEntry, Interface,
    InterfaceEntry, MemberKey, PrefixKey, Scope,
};
use sg_common::addr::Addr;
use sg_common::flow::{FlowKey, FlowKind, FlowState, Leg};
use sg_common::ids::{Generation, Identity, RuleSlot, Ticks};
use sg_common::packet::Direction;
use sg_common::ports::{PORT_SCAN, PortEntry, PortTable, Ports, Service, scan_ports, search_ports};
use sg_common::ranges::{
    IntervalV4, IntervalV6, RangeSlot, RangeTable, Ranges, halve_v4, search_v4, search_v6,
};
use sg_common::tables::{FastFind, FastPacket, Flows, Fragments, Policies};

use crate::context::{self, CONTEXTS, Context};
use crate::flows::{self, FoundFlow};
use crate::globals::{self, GLOBALS};
use crate::maps::{
    self, AWAITING, FRAGMENTS, GRANTED, GRANTS, IDENTITIES, INTERVALS_V4, INTERVALS_V6,
    LIST_RANGES, MEMBERS, NESTED_RANGES, POLICIES, POLICY_RANGES, PORT_TABLES, PORTS, RANGE_SLOTS,
    SETS, in_force, interface_entry, visible,
};

/// The maps, as one packet sees them.
pub(crate) struct Maps<R> {
    reach: R,
    pub(crate) context: *mut Context,
}

/// What a function keeps beside the context of what it reads again and again.
pub(crate) trait Reach {
    /// Whether short port tables are searched in place, which is quicker and takes more instructions,
    /// instead of by a call.
    const INLINE: bool;

    /// The generation that the packet has read.
    fn generation(&self, context: *mut Context) -> Generation;

    /// What holds for all packets.
    fn globals(&self) -> Option<&'static Globals>;
}

/// That of a program: it keeps all of it, in registers.
pub(crate) struct AtHand {
    globals: &'static Globals,
    generation: Generation,
}

/// That of the functions of the long way: they keep nothing, as the stack is small.
pub(crate) struct ByContext;

impl Reach for AtHand {
    const INLINE: bool = true;

    #[inline(always)]
    fn generation(&self, _job: *mut Context) -> Generation {
        self.generation
    }

    #[inline(always)]
    fn globals(&self) -> Option<&'static Globals> {
        Some(self.globals)
    }
}

impl Reach for ByContext {
    const INLINE: bool = false;

    #[inline(always)]
    fn generation(&self, context: *mut Context) -> Generation {
        // SAFETY: the context is this CPU's, and its program has written the generation.
        unsafe { (*context).generation }
    }

    #[inline(always)]
    fn globals(&self) -> Option<&'static Globals> {
        GLOBALS.get(0)
    }
}

impl Maps<AtHand> {
    /// Reads the generation, once.
    #[inline(always)]
    pub(crate) fn open(context: *mut Context) -> Option<Self> {
        let globals = GLOBALS.get(0)?;
        if globals.abi != ABI {
            return None;
        }
        // SAFETY: array elements live as long as the program; the generation is one aligned word.
        let generation = unsafe { (&raw const globals.generation).read_volatile() };
        Some(Self {
            reach: AtHand {
                globals,
                generation,
            },
            context,
        })
    }

    /// The interface's entry and its place.
    #[inline(always)]
    pub(crate) fn find_interface(&self, ifindex: u32) -> Option<(u32, &'static InterfaceEntry)> {
        maps::find_interface(self.reach.globals, ifindex)
    }
}

impl Maps<ByContext> {
    /// The maps as the packet sees them whose context it is: its program has opened them.
    #[inline(always)]
    pub(crate) fn of_context(context: *mut Context) -> Self {
        Self {
            reach: ByContext,
            context,
        }
    }

    /// What is in force at the packet's interface.
    #[inline(always)]
    pub(crate) fn interface(&self) -> Option<&'static Interface> {
        // SAFETY: as in `generation`.
        let entry = interface_entry(unsafe { (*self.context).interface })?;
        in_force(entry, self.generation())
    }
}

/// A global function: the verifier checks the search once and not at every call.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_search_ports(offset: u32, length: u32, service: u32) -> u32 {
    let Some(context) = context::current() else {
        return 0;
    };
    search_ports(
        &Maps::of_context(context),
        PortTable { offset, length },
        Service(service),
    )
    .0
}

/// As above: a call for those few addresses whose slot has several values.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_halve_v4(offset: u32, length: u32, key: u32) -> u32 {
    halve_v4(&RangeArrays, RangeSlot { offset, length }, key)
}

/// As above: both levels of IPv6 in a stack frame of their own.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_search_v6(is_list: u32, index: u32, upper: u64, lower: u64) -> u32 {
    let Some(context) = context::current() else {
        return 0;
    };
    match range_table(is_list != 0, index, context.generation) {
        Some(table) => search_v6(&RangeArrays, table, upper, lower),
        None => 0,
    }
}

#[inline(always)]
fn range_table(is_list: bool, index: u32, generation: Generation) -> Option<&'static RangeTable> {
    let buffers = if is_list {
        LIST_RANGES.get(index)
    } else {
        POLICY_RANGES.get(index)
    };
    Some(visible(buffers?, generation))
}

/// The value that the address has in a table.
#[inline(always)]
fn range_value(is_list: bool, index: u32, address: &Addr, generation: Generation) -> u32 {
    if !address.is_v4() {
        let (upper, lower) = address.halves();
        return sg_search_v6(u32::from(is_list), index, upper, lower);
    }
    let [.., key] = address.words();
    match range_table(is_list, index, generation) {
        Some(table) => search_v4(&RangeArrays, table, key),
        None => 0,
    }
}

// Keys are written into the context: the stack is small.
impl<R: Reach> Maps<R> {
    /// Where keys are written. Linux 6.1 takes no key from the memory that a global function is given,
    /// so there the context is looked up anew.
    #[inline(always)]
    fn key_context(&self) -> Option<*mut Context> {
        if R::INLINE {
            Some(self.context)
        } else {
            CONTEXTS.get_ptr_mut(0)
        }
    }

    #[inline(always)]
    fn prefix_key(&self, scope: Scope, address: &Addr) -> Option<&Key<PrefixKey>> {
        let context = self.key_context()?;
        // SAFETY: the context is this CPU's, and the last key is not used any more.
        unsafe {
            let key = &raw mut (*context).prefix_key;
            key.write(Key::new(PrefixKey::BITS, PrefixKey::new(scope, *address)));
            Some(&*key)
        }
    }
}

/// What tables of prefixes lie in; they never change.
struct RangeArrays;

impl Ranges for RangeArrays {
    #[inline(always)]
    fn slot(&self, index: u32) -> Option<RangeSlot> {
        RANGE_SLOTS.get(index).copied()
    }

    #[inline(always)]
    fn interval_v4(&self, index: u32) -> Option<IntervalV4> {
        INTERVALS_V4.get(index).copied()
    }

    #[inline(always)]
    fn interval_v6(&self, index: u32) -> Option<IntervalV6> {
        INTERVALS_V6.get(index).copied()
    }

    #[inline(always)]
    fn nested(&self, index: u32) -> Option<RangeTable> {
        NESTED_RANGES.get(index).copied()
    }

    #[inline(always)]
    fn value_v4(&self, slot: RangeSlot, key: u32) -> u32 {
        sg_halve_v4(slot.offset, slot.length, key)
    }
}

impl<R: Reach> Ports for Maps<R> {
    #[inline(always)]
    fn port_entry(&self, index: u32) -> Option<PortEntry> {
        PORTS.get(index).copied()
    }

    #[inline(always)]
    fn forget(&self, number: u32) -> u32 {
        // SAFETY: the word is in a map value, and this CPU's.
        unsafe {
            let word = &raw mut (*self.context).buffer.word;
            word.write_volatile(number);
            word.read_volatile()
        }
    }
}

impl<R: Reach> Policies for Maps<R> {
    #[inline(always)]
    fn generation(&self) -> Generation {
        self.reach.generation(self.context)
    }

    #[inline(always)]
    fn group_set(&self, id: u32) -> Option<&GroupSetEntry> {
        POLICIES
            .get(id)
            .map(|buffers| visible(buffers, self.generation()))
    }

    #[inline(always)]
    fn rule_in(&self, table: PortTable, service: Service) -> RuleSlot {
        if table.length == 0 {
            return RuleSlot::NONE;
        }
        if R::INLINE && table.length <= PORT_SCAN {
            return scan_ports(self, table, service);
        }
        RuleSlot(sg_search_ports(table.offset, table.length, service.0))
    }

    #[inline(always)]
    fn prefix(&self, scope: Scope, address: &Addr) -> PortTable {
        let number = range_value(false, scope.0, address, self.generation());
        let table = PORT_TABLES.get(number.wrapping_sub(1));
        table.copied().unwrap_or(PortTable::EMPTY)
    }

    #[inline(always)]
    fn set(&self, scope: Scope, address: &Addr) -> Identity {
        if let Some(index) = scope.list_table() {
            return Identity(range_value(true, index, address, self.generation()));
        }
        let Some(key) = self.prefix_key(scope, address) else {
            return Identity::NONE;
        };
        match SETS.get(key) {
            Some(buffers) => *visible(buffers, self.generation()),
            None => Identity::NONE,
        }
    }

    #[inline(always)]
    fn member(&self, vpc: u32, address: &Addr) -> Identity {
        let Some(context) = self.key_context() else {
            return Identity::NONE;
        };
        // SAFETY: the context is this CPU's; the value of a key never changes, and keys are freed after a
        // grace period.
        let found = unsafe {
            let key = &raw mut (*context).member_key;
            key.write(MemberKey {
                vpc,
                address: *address,
            });
            let key: &MemberKey = &*key;
            MEMBERS.get(key)
        };
        let Some(index) = found else {
            return Identity::NONE;
        };
        match IDENTITIES.get(*index) {
            Some(buffers) => *visible(buffers, self.generation()),
            None => Identity::NONE,
        }
    }

    #[inline(always)]
    fn grant(&self, key: &GrantKey) -> PortTable {
        let Some(context) = self.key_context() else {
            return PortTable::EMPTY;
        };
        // SAFETY: as for members.
        let found = unsafe {
            let place = &raw mut (*context).grant_key;
            place.write(*key);
            let key: &GrantKey = &*place;
            GRANTS.get(key)
        };
        let Some(index) = found else {
            return PortTable::EMPTY;
        };
        match GRANTED.get(*index) {
            Some(buffers) => *visible(buffers, self.generation()),
            None => PortTable::EMPTY,
        }
    }
}

impl<R: Reach> Flows for Maps<R> {
    type Flow = FoundFlow;

    #[inline(always)]
    fn now(&self) -> Ticks {
        globals::now()
    }

    #[inline(always)]
    fn find_flow(&self, key: &FlowKey, state: &mut FlowState) -> Option<(FlowKind, FoundFlow)> {
        flows::find(key, self.now(), state)
    }

    #[inline(always)]
    fn open_flow(&self, key: &FlowKey, state: &FlowState, deadline: Ticks) -> Option<FoundFlow> {
        flows::open(key, state, deadline, self.now())
    }

    #[inline(always)]
    fn assure_flow(
        &self,
        _found: FoundFlow,
        state: &FlowState,
        deadline: Ticks,
    ) -> Option<FoundFlow> {
        flows::assure(state, deadline, self.now())
    }

    #[inline(always)]
    fn find_fast(
        &self,
        key: &FlowKey,
        state: &mut FlowState,
        packet: &impl FastPacket,
    ) -> FastFind<RuleSlot> {
        // SAFETY: the word is in a map value, and this CPU's.
        let own = unsafe { &raw mut (*self.context).buffer.word };
        match self.reach.globals() {
            Some(globals) => flows::find_fast(globals, key, own, state, packet),
            None => FastFind::Unsure,
        }
    }

    #[inline(always)]
    fn note_syn(&self, went: Direction) {
        flows::note_syn(went, self.now());
    }

    #[inline(always)]
    fn may_cross_syn(&self, went: Direction, ticks: u32) -> bool {
        flows::may_cross_syn(went, ticks, self.now())
    }

    #[inline(always)]
    fn advance_flow(&self, flow: FoundFlow, leg: Leg, state: &FlowState) {
        flows::advance(flow, leg, state);
    }

    #[inline(always)]
    fn update_flow(&self, flow: FoundFlow, state: &FlowState) {
        flows::update(flow, state);
    }

    #[inline(always)]
    fn extend_flow(&self, flow: FoundFlow, deadline: Ticks) {
        flows::extend(flow, deadline);
    }

    #[inline(always)]
    fn count_flow(&self, flow: FoundFlow, leg: Leg, packets: u32, bytes: u32) {
        flows::count(flow, leg, packets, bytes);
    }

    #[inline(always)]
    fn remove_flow(&self, flow: FoundFlow, _owner: u32) {
        flows::remove(flow);
    }

    #[inline(always)]
    fn reclaim_flows(&self) {
        flows::sweep(self.now());
    }

    #[inline(always)]
    fn flows_of(&self, owner: u32) -> u32 {
        flows::owned(owner)
    }
}

impl<R: Reach> Fragments for Maps<R> {
    #[inline(always)]
    fn remember_fragment(&self, key: &FragmentKey, verdict: &FragmentVerdict) {
        // A full map forgets its oldest first fragment, whose later fragments are then dropped.
        let _ = FRAGMENTS.insert(key, verdict, 0);
    }

    #[inline(always)]
    fn recall_fragment(&self, key: &FragmentKey) -> Option<FragmentVerdict> {
        // SAFETY: copied at once; an element reused meanwhile is that of another first fragment
        // whose key no longer matches, a race that the identification's reuse has as well.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn awaiting(&self, slot: u32) -> Awaiting {
        AWAITING.get(slot).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn set_awaiting(&self, slot: u32, awaiting: Awaiting) {
        if let Some(place) = AWAITING.get_ptr_mut(slot) {
            // SAFETY: a map's value; a count that another CPU writes meanwhile is lost.
            unsafe { place.write_volatile(awaiting) };
        }
    }
}
