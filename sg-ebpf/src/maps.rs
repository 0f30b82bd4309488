//! The kernel's answers to the decision's questions.
//!
//! Sizes here are placeholders of one entry: the controller sets each map's size when it loads the
//! object, from the policy and its settings.

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap};
use aya_ebpf::helpers::bpf_jiffies64;
use aya_ebpf::macros::btf_map;
use sg_common::addr::Addr;
use sg_common::flow::{FlowKey, FlowState, FlowTable, Leg, Ticks};
use sg_common::tables::{
    ABI, Faces, FragmentKey, FragmentVerdict, Generation, Globals, GrantKey, INTERFACE_PROBES,
    Identity, Interface, InterfaceEntry, MemberKey, Policy, PortEntry, PortTable, PrefixKey, Scope,
    Tables, interface_home,
};

use crate::flows::{self, FoundFlow};

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
static GLOBALS: Array<Globals, 1> = Array::new();
#[btf_map]
static INTERFACES: Array<InterfaceEntry, 1> = Array::new();
#[btf_map]
static POLICIES: Array<Faces<Policy>, 1> = Array::new();
#[btf_map]
static PORTS: Array<PortEntry, 1> = Array::new();
#[btf_map]
static PREFIXES: LpmTrie<PrefixKey, Faces<PortTable>, 1, NO_PREALLOC> = LpmTrie::new();
#[btf_map]
static SETS: LpmTrie<PrefixKey, Faces<Identity>, 1, NO_PREALLOC> = LpmTrie::new();
// A hash map may hand a freed element to the next key while a reader still looks at it. So what a
// key of these two maps leads to never changes, and is an index into an array that changes in
// place; keys are freed a grace period after the last packet could find them.
#[btf_map]
static MEMBERS: HashMap<MemberKey, u32, 1, NO_PREALLOC> = HashMap::new();
#[btf_map]
static IDENTITIES: Array<Faces<Identity>, 1> = Array::new();
#[btf_map]
static GRANTS: HashMap<GrantKey, u32, 1, NO_PREALLOC> = HashMap::new();
#[btf_map]
static GRANTED: Array<Faces<PortTable>, 1> = Array::new();
#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentVerdict, 1> = LruHashMap::new();

/// The network namespace this program is attached in, as the controller numbers them.
#[unsafe(no_mangle)]
static NETNS: Global<u32> = Global::new(0);

/// The maps, as one packet sees them.
pub(crate) struct Maps {
    pub(crate) globals: &'static Globals,
    generation: Generation,
}

impl Maps {
    /// Reads the generation, once.
    #[inline(always)]
    pub(crate) fn open() -> Option<Self> {
        let globals = GLOBALS.get_ptr(0)?;
        // SAFETY: array elements live as long as the program; the generation is one aligned word.
        let generation = unsafe { (&raw const (*globals).generation).read_volatile() };
        // SAFETY: what else is there is written before the program is attached.
        let globals = unsafe { &*globals };
        if globals.abi != ABI {
            return None;
        }
        Some(Self { globals, generation })
    }

    /// What is in force on the interface.
    #[inline(always)]
    pub(crate) fn interface(&self, ifindex: u32) -> Option<&'static Interface> {
        let netns = NETNS.load();
        let home = interface_home(netns, ifindex);
        for probe in 0..INTERFACE_PROBES {
            let slot = home.wrapping_add(probe) & self.globals.interface_mask;
            let entry = INTERFACES.get_ptr(slot)?;
            // SAFETY: array elements live as long as the program; a face that packets of this
            // generation see is not written.
            let entry = unsafe { &*entry };
            if entry.ifindex == ifindex && entry.netns == netns {
                let interface = entry.faces.at(self.generation);
                return if interface.policy == 0 { None } else { Some(interface) };
            }
        }
        None
    }
}

#[inline(always)]
fn whole(scope: Scope, address: &Addr) -> Key<PrefixKey> {
    Key::new(PrefixKey::BITS, PrefixKey::new(scope, *address))
}

impl Tables for Maps {
    type Flow = FoundFlow;

    #[inline(always)]
    fn now(&self) -> Ticks {
        // SAFETY: the helper only reads a clock.
        Ticks::from_jiffies(unsafe { bpf_jiffies64() })
    }

    #[inline(always)]
    fn generation(&self) -> Generation {
        self.generation
    }

    #[inline(always)]
    fn policy(&self, id: u32) -> Option<&Policy> {
        POLICIES.get(id).map(|faces| faces.at(self.generation))
    }

    #[inline(always)]
    fn port_entry(&self, index: u32) -> Option<PortEntry> {
        PORTS.get(index).copied()
    }

    #[inline(always)]
    fn prefix(&self, scope: Scope, address: &Addr) -> PortTable {
        match PREFIXES.get(&whole(scope, address)) {
            Some(faces) => *faces.at(self.generation),
            None => PortTable::EMPTY,
        }
    }

    #[inline(always)]
    fn set(&self, scope: Scope, address: &Addr) -> Identity {
        match SETS.get(&whole(scope, address)) {
            Some(faces) => *faces.at(self.generation),
            None => Identity::NONE,
        }
    }

    #[inline(always)]
    fn member(&self, vpc: u32, address: &Addr) -> Identity {
        let key = MemberKey { vpc, address: *address };
        // SAFETY: the value of a key never changes, and keys are freed after a grace period.
        let Some(index) = (unsafe { MEMBERS.get(&key) }) else { return Identity::NONE };
        match IDENTITIES.get(*index) {
            Some(faces) => *faces.at(self.generation),
            None => Identity::NONE,
        }
    }

    #[inline(always)]
    fn grant(&self, key: &GrantKey) -> PortTable {
        // SAFETY: as for members.
        let Some(index) = (unsafe { GRANTS.get(key) }) else { return PortTable::EMPTY };
        match GRANTED.get(*index) {
            Some(faces) => *faces.at(self.generation),
            None => PortTable::EMPTY,
        }
    }

    #[inline(always)]
    fn find_flow(&self, table: FlowTable, key: &FlowKey) -> Option<(FoundFlow, FlowState)> {
        flows::find(self.globals, table, key, self.now())
    }

    #[inline(always)]
    fn insert_flow(
        &self,
        table: FlowTable,
        key: &FlowKey,
        state: &FlowState,
        deadline: Ticks,
    ) -> Option<FoundFlow> {
        flows::insert(self.globals, table, key, state, deadline, self.now())
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
    fn carry_counts(&self, from: FoundFlow, to: FoundFlow) {
        flows::carry_counts(from, to);
    }

    #[inline(always)]
    fn remove_flow(&self, flow: FoundFlow, owner: u32) {
        flows::remove(flow, owner);
    }

    #[inline(always)]
    fn reclaim_flows(&self) {
        flows::sweep(self.globals, self.now());
    }

    #[inline(always)]
    fn flows_of(&self, owner: u32) -> u32 {
        flows::owned(owner)
    }

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
}
