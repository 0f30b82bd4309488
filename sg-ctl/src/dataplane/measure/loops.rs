//! Whether the verifier of Linux 6.1 takes the programs' loops.
//!
//! It walks through a program depth first, and refuses one in which anything but a jump leads back to
//! an instruction that it is still coming from ("back-edge from insn", `check_cfg` and `push_insn` of
//! <https://github.com/torvalds/linux/blob/v6.1/kernel/bpf/verifier.c>). Later kernels don't ask how a
//! loop is entered again. Where the compiler lays out a loop in that way, this says so without a
//! kernel that old.

use std::collections::HashSet;

use aya_obj::generated::bpf_insn;

use super::super::object::{self, OBJECT};
use super::parsed;

const EXIT: u8 = 0x95;
const CALL: u8 = 0x85;
/// In the source register of [`CALL`]: another function of the program.
const OWN_FUNCTION: u8 = 1;
const JUMP: u8 = 0x05;
/// The classes of jumps, those that compare 32 bits in the second.
const JUMPS: [u8; 2] = [0x05, 0x06];

/// Where an instruction leads to, in the verifier's order, and whether by a jump.
fn next(at: usize, instruction: &bpf_insn) -> Vec<(usize, bool)> {
    let behind = |distance: i64| at.saturating_add_signed(distance as isize + 1);
    let jump = behind(i64::from(instruction.off));
    match instruction.code {
        EXIT => vec![],
        CALL if instruction.src_reg() == OWN_FUNCTION => {
            vec![
                (behind(0), false),
                (behind(i64::from(instruction.imm)), false),
            ]
        }
        CALL => vec![(behind(0), false)],
        JUMP => vec![(jump, true)],
        code if JUMPS.contains(&(code & 0x07)) => vec![(behind(0), true), (jump, true)],
        _ => vec![(behind(0), false)],
    }
}

/// The first instruction that is no jump and leads back into a loop.
fn falls_back(instructions: &[bpf_insn]) -> Option<usize> {
    let of = |at: usize| instructions.get(at).map_or(vec![], |found| next(at, found));
    let mut seen = HashSet::from([0]);
    let mut open = HashSet::from([0]);
    let mut way = vec![(0, of(0).into_iter())];
    while let Some((at, left)) = way.last_mut() {
        let at = *at;
        match left.next() {
            Some((to, false)) if open.contains(&to) => return Some(at),
            Some((to, _)) if seen.insert(to) => {
                open.insert(to);
                way.push((to, of(to).into_iter()));
            }
            Some(_) => {}
            None => {
                open.remove(&at);
                way.pop();
            }
        }
    }
    None
}

fn instruction(code: u8, off: i16) -> bpf_insn {
    bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off,
        imm: 0,
    }
}

const MOVE: u8 = 0xb7;
const JUMP_IF_EQUAL: u8 = 0x15;

#[test]
fn a_loop_that_ends_with_a_jump_is_taken_and_one_that_is_fallen_into_is_not() {
    let ends_with_jump = [
        instruction(MOVE, 0),
        instruction(MOVE, 0),
        instruction(JUMP_IF_EQUAL, -2),
        instruction(EXIT, 0),
    ];
    assert_eq!(falls_back(&ends_with_jump), None);
    let is_fallen_into = [
        instruction(JUMP, 1),
        instruction(MOVE, 0),
        instruction(JUMP_IF_EQUAL, 1),
        instruction(JUMP, -3),
        instruction(EXIT, 0),
    ];
    assert_eq!(falls_back(&is_fallen_into), Some(1));
}

#[test]
fn no_programs_loop_is_fallen_into() {
    let (mut object, sections) = parsed(OBJECT).unwrap();
    object.relocate_calls(&sections).unwrap();
    for name in object::PROGRAMS {
        let function = &object.functions[&object.programs[name].function_key()];
        assert_eq!(falls_back(&function.instructions), None, "{name}");
    }
}
