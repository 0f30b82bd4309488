//! One packet on its way through the functions of a program.

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::macros::btf_map;
use sg_common::abi::{GrantKey, MemberKey, PrefixKey};
use sg_common::decide::Scratch;
use sg_common::ids::{Generation, RuleSlot};

use crate::frame::Buffer;

#[btf_map]
pub(crate) static CONTEXTS: PerCpuArray<Context, 1> = PerCpuArray::new();

/// One packet on its way through the program's functions.
#[repr(C)]
pub(crate) struct Context {
    pub(crate) scratch: Scratch,
    pub(crate) generation: Generation,
    /// Where the interface's entry is.
    pub(crate) interface: u32,
    pub(crate) direction: u32,
    pub(crate) bare: u32,
    /// What the parser said.
    pub(crate) refusal: u32,
    /// The rule by which a short way has admitted the packet as the first of its flow.
    pub(crate) admitted: RuleSlot,
    pub(crate) prefix_key: Key<PrefixKey>,
    pub(crate) member_key: MemberKey,
    pub(crate) grant_key: GrantKey,
    pub(crate) buffer: Buffer,
}

/// This CPU's context. Programs on one CPU run one after the other.
#[inline(always)]
pub(crate) fn current() -> Option<&'static mut Context> {
    // SAFETY: one program at a time runs on a CPU, and its functions use the context in turn.
    CONTEXTS
        .get_ptr_mut(0)
        .map(|context| unsafe { &mut *context })
}
