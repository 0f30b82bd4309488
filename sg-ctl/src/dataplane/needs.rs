//! What the programs use of the kernel, and what of it this kernel lacks.
//!
//! It is read out of the programs' instructions and asked of the kernel, whose version says little:
//! distributions put new BPF under old numbers.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use aya_obj::generated::bpf_insn;
use aya_obj::{Object, ProgramSection};

use super::sys::{self, Probe};

const CALL: u8 = 0x85;
/// In the source register of [`CALL`]: one of the kernel's helpers.
const HELPER: u8 = 0;
/// Atomic operations on 32 and 64 bits.
const ATOMIC: [u8; 2] = [0xc3, 0xdb];
/// In the number of [`ATOMIC`]: the old value is given back.
const FETCH: i32 = 1;

/// The helpers that programs call, to be found by their numbers.
const HELPERS: [BpfHelper; 19] = [
    BpfHelper::BPF_FUNC_map_lookup_elem,
    BpfHelper::BPF_FUNC_map_update_elem,
    BpfHelper::BPF_FUNC_map_delete_elem,
    BpfHelper::BPF_FUNC_ktime_get_ns,
    BpfHelper::BPF_FUNC_get_smp_processor_id,
    BpfHelper::BPF_FUNC_get_prandom_u32,
    BpfHelper::BPF_FUNC_skb_load_bytes,
    BpfHelper::BPF_FUNC_redirect,
    BpfHelper::BPF_FUNC_spin_lock,
    BpfHelper::BPF_FUNC_spin_unlock,
    BpfHelper::BPF_FUNC_jiffies64,
    BpfHelper::BPF_FUNC_ktime_get_boot_ns,
    BpfHelper::BPF_FUNC_ringbuf_output,
    BpfHelper::BPF_FUNC_ktime_get_coarse_ns,
    BpfHelper::BPF_FUNC_for_each_map_elem,
    BpfHelper::BPF_FUNC_loop,
    BpfHelper::BPF_FUNC_xdp_get_buff_len,
    BpfHelper::BPF_FUNC_xdp_load_bytes,
    BpfHelper::BPF_FUNC_skb_get_xfrm_state,
];

/// Something a program uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// A helper, by its number.
    Helper(i32),
    /// Atomic operations that give the old value back.
    FetchingAtomics,
    /// XDP for packets in more than one buffer.
    Frags,
}

/// What an object's program needs and the kernel does not have, each as a name; nothing where the
/// kernel has it all, or does not say.
pub(super) fn lacking(object: &[u8], program: &str) -> Vec<String> {
    let Some((kind, needs)) = needs(object).and_then(|mut needs| needs.remove(program)) else {
        return Vec::new();
    };
    needs
        .into_iter()
        .filter(|need| has(kind, *need) == Some(false))
        .map(|need| name(kind, need))
        .collect()
}

/// The needs of each program, with the kind of program it is.
fn needs(object: &[u8]) -> Option<BTreeMap<String, (ProgramType, BTreeSet<Need>)>> {
    let mut object = Object::parse(object).ok()?;
    let sections: HashSet<usize> = object.functions.keys().map(|(at, _)| *at).collect();
    object.relocate_calls(&sections).ok()?;
    let programs = object.programs.iter().filter_map(|(name, program)| {
        let (kind, frags) = match program.section {
            ProgramSection::Xdp { frags, .. } => (ProgramType::Xdp, frags),
            ProgramSection::SchedClassifier => (ProgramType::SchedClassifier, false),
            _ => return None,
        };
        let function = object.functions.get(&program.function_key())?;
        let mut needs: BTreeSet<Need> = function.instructions.iter().filter_map(need_of).collect();
        needs.extend(frags.then_some(Need::Frags));
        Some((name.clone(), (kind, needs)))
    });
    Some(programs.collect())
}

fn need_of(instruction: &bpf_insn) -> Option<Need> {
    match instruction.code {
        CALL if instruction.src_reg() == HELPER => Some(Need::Helper(instruction.imm)),
        code if ATOMIC.contains(&code) && instruction.imm & FETCH != 0 => {
            Some(Need::FetchingAtomics)
        }
        _ => None,
    }
}

fn helper(number: i32) -> Option<BpfHelper> {
    HELPERS.into_iter().find(|helper| *helper as i32 == number)
}

/// Whether the kernel has it; nothing where it does not say.
fn has(kind: ProgramType, need: Need) -> Option<bool> {
    let taken = |probe| match sys::takes(probe) {
        Ok(()) => Some(true),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Some(false),
        Err(_) => None,
    };
    match need {
        Need::Helper(number) => is_helper_supported(kind, helper(number)?).ok(),
        Need::FetchingAtomics => taken(Probe::FetchingAtomic),
        Need::Frags => taken(Probe::Frags),
    }
}

fn name(kind: ProgramType, need: Need) -> String {
    let hook = match kind {
        ProgramType::Xdp => "XDP",
        _ => "TC",
    };
    match need {
        Need::Helper(number) => {
            let name = helper(number).map(|helper| format!("{helper:?}"));
            let name = name.unwrap_or_else(|| number.to_string());
            let name = name.strip_prefix("BPF_FUNC_").unwrap_or(&name);
            format!("the helper bpf_{name} at {hook}")
        }
        Need::FetchingAtomics => "atomic operations that give back the old value".to_owned(),
        Need::Frags => "XDP for packets in more than one buffer (xdp.frags)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::object::{self, OBJECT};
    use super::*;

    #[test]
    fn every_helper_that_a_program_calls_can_be_asked_for() {
        let needs = needs(OBJECT).unwrap();
        for name in object::PROGRAMS {
            let (kind, needs) = &needs[name];
            for need in needs {
                if let Need::Helper(number) = need {
                    assert!(
                        helper(*number).is_some(),
                        "{name} ({kind:?}): helper {number}"
                    );
                }
            }
        }
        let (_, receive) = &needs[object::XDP_RECEIVE];
        assert!(receive.contains(&Need::Frags), "{receive:?}");
        assert_eq!(
            name(
                ProgramType::Xdp,
                Need::Helper(BpfHelper::BPF_FUNC_xdp_load_bytes as i32)
            ),
            "the helper bpf_xdp_load_bytes at XDP"
        );
    }

    #[test]
    fn what_this_kernel_has_is_not_said_to_be_lacking() {
        if crate::privileges::check().is_err() {
            return;
        }
        for name in object::PROGRAMS {
            assert_eq!(lacking(OBJECT, name), [""; 0], "{name}");
        }
    }
}
