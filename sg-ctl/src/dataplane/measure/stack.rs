//! How deep the programs' stacks are, read from their instructions.
//!
//! The verifier adds up the frames of a chain of calls as this does. It writes the sum to its log
//! only, and a program that loads leaves no log.

use std::collections::BTreeMap;

use aya_obj::Object;
use aya_obj::generated::bpf_insn;

use super::super::Error;
use super::parsed;

const FRAME_POINTER: u8 = 10;
const CALL: u8 = 0x85;
const LOAD_ADDRESS: u8 = 0x18;
const ADD_NUMBER: u8 = 0x07;
const COPY: u8 = 0xbf;
/// In the source register of [`CALL`]: another function of the program (`BPF_PSEUDO_CALL`).
const OWN_FUNCTION: u8 = 1;
/// In the source register of [`LOAD_ADDRESS`]: a function for a helper to call (`BPF_PSEUDO_FUNC`).
const CALLBACK: u8 = 4;

/// An object's programs, each with the functions it calls.
pub(super) struct Stacks(Object);

impl Stacks {
    pub(super) fn of(object: &[u8]) -> Result<Self, Error> {
        let (mut object, sections) = parsed(object)?;
        object
            .relocate_calls(&sections)
            .map_err(|error| Error::Unreadable(error.into()))?;
        Ok(Self(object))
    }

    /// The frames of a program's deepest chain of calls, outermost first.
    pub(super) fn deepest(&self, name: &'static str) -> Result<Vec<u32>, Error> {
        let program = self.0.programs.get(name);
        let function = program.and_then(|program| self.0.functions.get(&program.function_key()));
        let function = function.ok_or(Error::ProgramMissing(name))?;
        Ok(deepest(&functions(&function.instructions), 0))
    }
}

/// One function's frame, and where those begin that it calls.
#[derive(Debug, Default)]
struct Function {
    frame: u32,
    calls: Vec<usize>,
}

/// The functions of a program by their first instruction.
fn functions(instructions: &[bpf_insn]) -> BTreeMap<usize, Function> {
    let called = |(at, instruction): (usize, &bpf_insn)| {
        let is_own = match instruction.code {
            CALL => instruction.src_reg() == OWN_FUNCTION,
            LOAD_ADDRESS => instruction.src_reg() == CALLBACK,
            _ => false,
        };
        // Relative to the next instruction.
        is_own.then(|| at.checked_add_signed(instruction.imm as isize + 1))?
    };
    let mut starts: BTreeMap<usize, Function> = BTreeMap::from([(0, Function::default())]);
    for start in instructions.iter().enumerate().filter_map(called) {
        starts.entry(start).or_default();
    }
    let ends: Vec<usize> = starts
        .keys()
        .skip(1)
        .copied()
        .chain([instructions.len()])
        .collect();
    for ((start, function), end) in starts.iter_mut().zip(ends) {
        let body = instructions.get(*start..end).unwrap_or_default();
        function.frame = frame(body);
        function.calls = (*start..).zip(body).filter_map(called).collect();
    }
    starts
}

/// How far below the frame pointer a function reaches.
fn frame(body: &[bpf_insn]) -> u32 {
    let mut deepest = 0;
    // Registers that hold the frame pointer until something is added.
    let mut copies = [false; 16];
    for instruction in body {
        let (to, from) = (instruction.dst_reg(), instruction.src_reg());
        let reaches = match instruction.code & 0x07 {
            // Loads, and stores of numbers and of registers.
            0x01 if from == FRAME_POINTER => i32::from(instruction.off),
            0x02 | 0x03 if to == FRAME_POINTER => i32::from(instruction.off),
            0x07 if instruction.code == ADD_NUMBER && copies[usize::from(to)] => instruction.imm,
            _ => 0,
        };
        deepest = deepest.max(reaches.saturating_neg());
        if !matches!(instruction.code & 0x07, 0x02 | 0x03) {
            copies[usize::from(to)] = instruction.code == COPY && from == FRAME_POINTER;
        }
    }
    deepest.unsigned_abs()
}

/// The chain whose frames add up to most. The verifier takes no program that calls itself.
fn deepest(functions: &BTreeMap<usize, Function>, start: usize) -> Vec<u32> {
    let Some(function) = functions.get(&start) else {
        return Vec::new();
    };
    let below = function
        .calls
        .iter()
        .map(|call| deepest(functions, *call))
        .max_by_key(|chain| rounded(chain));
    std::iter::once(function.frame)
        .chain(below.unwrap_or_default())
        .collect()
}

/// Bytes of the kernel's 512 that a chain of frames takes. Linux 6.1 rounds each up to 32 and counts at
/// least so much (`check_max_stack_depth`, kernel/bpf/verifier.c); so do later kernels where programs
/// are interpreted, and where they are compiled to machine code those round up to 16.
pub(super) fn rounded(frames: &[u32]) -> u32 {
    let one = |frame: &u32| frame.max(&1).next_multiple_of(32);
    frames.iter().map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::super::super::object::{OBJECT, TRACED};
    use super::super::MEASURING_OBJECT;
    use super::*;

    fn instruction(code: u8, to: u8, from: u8, off: i16, imm: i32) -> bpf_insn {
        bpf_insn {
            code,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(to, from),
            off,
            imm,
        }
    }

    const EXIT: u8 = 0x95;
    const STORE: u8 = 0x7b;

    fn frames(program: &[bpf_insn]) -> Vec<u32> {
        deepest(&functions(program), 0)
    }

    #[test]
    fn no_program_reaches_beyond_the_kernels_stack() {
        for object in [OBJECT, TRACED, MEASURING_OBJECT] {
            let stacks = Stacks::of(object).unwrap();
            for (name, program) in &stacks.0.programs {
                let function = &stacks.0.functions[&program.function_key()];
                let chain = frames(&function.instructions);
                assert!(rounded(&chain) <= 512, "{name}: {chain:?}");
            }
        }
    }

    #[test]
    fn a_frame_is_as_deep_as_it_is_written() {
        let program = [
            instruction(STORE, FRAME_POINTER, 1, -24, 0),
            instruction(STORE, FRAME_POINTER, 1, -8, 0),
            instruction(EXIT, 0, 0, 0, 0),
        ];
        assert_eq!(frames(&program), [24]);
    }

    #[test]
    fn an_address_in_the_frame_counts_as_what_begins_there() {
        let program = [
            instruction(COPY, 2, FRAME_POINTER, 0, 0),
            instruction(ADD_NUMBER, 2, 0, 0, -48),
            // Adding to anything else says nothing of the stack.
            instruction(ADD_NUMBER, 3, 0, 0, -400),
            instruction(EXIT, 0, 0, 0, 0),
        ];
        assert_eq!(frames(&program), [48]);
    }

    #[test]
    fn the_deepest_chain_counts_and_not_the_sum_of_all_calls() {
        let program = [
            instruction(STORE, FRAME_POINTER, 1, -8, 0),
            instruction(CALL, 0, OWN_FUNCTION, 0, 2),
            instruction(CALL, 0, OWN_FUNCTION, 0, 3),
            instruction(EXIT, 0, 0, 0, 0),
            instruction(STORE, FRAME_POINTER, 1, -16, 0),
            instruction(EXIT, 0, 0, 0, 0),
            instruction(STORE, FRAME_POINTER, 1, -40, 0),
            instruction(EXIT, 0, 0, 0, 0),
        ];
        assert_eq!(frames(&program), [8, 40]);
        assert_eq!(rounded(&[8, 40, 0]), 32 + 64 + 32);
    }
}
