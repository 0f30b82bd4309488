//! Walks through a program's instructions for one frame, and counts what the processor would do.
//!
//! A time says that a way is long; this says where it is long. The instructions are those of the object,
//! before the kernel's verifier has rewritten them: it makes a few instructions of each lookup in an
//! array, and of reading a clock or the CPU's number. Maps are read from the kernel as they are, and what
//! the program writes stays here, so that a frame may walk behind the one that opened its flow.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use aya_obj::Map;
use aya_obj::btf::Btf;
use aya_obj::generated::bpf_insn;
use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PERCPU_ARRAY};

use super::super::Error;
use super::super::object::OBJECT;
use super::super::sys;
use super::look_up::look_up;
use super::parsed;

/// The helpers that the programs call (`enum bpf_func_id`, linux/bpf.h).
mod helper {
    pub(super) const LOOKUP: i32 = 1;
    pub(super) const UPDATE: i32 = 2;
    pub(super) const DELETE: i32 = 3;
    pub(super) const CPU: i32 = 8;
    pub(super) const REDIRECT: i32 = 23;
    pub(super) const LOAD_FROM_SKB: i32 = 26;
    pub(super) const LOCK: i32 = 93;
    pub(super) const UNLOCK: i32 = 94;
    pub(super) const JIFFIES: i32 = 118;
    pub(super) const RESERVE: i32 = 131;
    pub(super) const QUERY_RING: i32 = 134;
    pub(super) const LENGTH_OF_XDP: i32 = 188;
    pub(super) const LOAD_FROM_XDP: i32 = 189;
}

/// Below a line's number in `bpf_line_info::line_col`.
const COLUMN_BITS: u32 = 10;
const STACK: u64 = 512;
const FRAME_POINTER: usize = 10;
/// A walk longer than this has lost its way: the verifier takes no loop without an end.
const MOST_STEPS: u64 = 1 << 20;

/// What one walk took.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// What the program returned.
    pub returned: u32,
    /// Instructions.
    pub instructions: u64,
    /// Calls of the object's own functions.
    pub calls: u64,
    /// Lookups in arrays, which the kernel makes into instructions.
    pub inline_lookups: u64,
    /// Other helpers that the kernel makes into instructions.
    pub inline_helpers: u64,
    /// Helpers that are called.
    pub helpers: u64,
    /// Loads from maps.
    pub map_loads: u64,
    /// Stores to maps.
    pub map_stores: u64,
    /// Cache lines of maps that were touched.
    pub map_lines: u64,
    /// Instructions by the line of source that they are of, as `file:line`.
    pub by_line: BTreeMap<String, u64>,
}

/// One piece of memory.
struct Region {
    bytes: Vec<u8>,
    /// The map that it is a value of, and how many bytes of that lie before it.
    of_map: Option<(usize, u64)>,
}

/// A map: what the object says of it, and the kernel's.
struct WalkedMap {
    kind: u32,
    key: usize,
    value: usize,
    kernel: Option<OwnedFd>,
    /// The regions of values that were looked up, by key.
    values: HashMap<Vec<u8>, usize>,
    /// Of constants: their region.
    data: Option<usize>,
}

/// A program's instructions, and the lines of source that they come from: each holds from an instruction
/// on.
#[derive(Clone)]
struct Instructions {
    all: Vec<bpf_insn>,
    lines: BTreeMap<usize, String>,
}

/// A program, and the memory that it runs in.
pub struct Walker {
    programs: HashMap<String, Instructions>,
    maps: Vec<WalkedMap>,
    regions: Vec<Region>,
    jiffies: u64,
}

impl Walker {
    /// Reads the object's programs, over the maps that are pinned below a folder and these constants.
    pub(super) fn over(folder: &Path, constants: &[(&str, u32)]) -> Result<Self, Error> {
        let unreadable =
            |source: Box<dyn std::error::Error + Send + Sync>| Error::Unreadable(source);
        let (mut object, sections) = parsed(OBJECT)?;
        let values: Vec<(&str, [u8; 4])> = constants
            .iter()
            .map(|(name, value)| (*name, value.to_le_bytes()))
            .collect();
        let globals = values
            .iter()
            .map(|(name, value)| (*name, (&value[..], true)))
            .collect();
        object
            .patch_map_data(globals)
            .map_err(|error| unreadable(error.into()))?;
        let definitions: Vec<(String, Map)> = object
            .maps
            .iter()
            .map(|(name, map)| (name.clone(), map.clone()))
            .collect();
        let numbered = (0..).zip(&definitions);
        let numbered = numbered.map(|(number, (name, map))| (name.as_str(), number, map));
        object
            .relocate_maps(numbered, &sections)
            .and_then(|()| object.relocate_calls(&sections))
            .map_err(|error| unreadable(error.into()))?;
        let mut walker = Self {
            programs: HashMap::new(),
            maps: Vec::new(),
            // No pointer is null.
            regions: vec![Region::of(Vec::new())],
            jiffies: 1 << 32,
        };
        let names = Names(object.btf.as_ref().map(Btf::to_bytes).unwrap_or_default());
        for (name, program) in &object.programs {
            let function = object.functions.get(&program.function_key());
            let function = function.ok_or(Error::ProgramMissing("of the object"))?;
            let source = function.line_info.line_info.iter();
            let lines = source.map(|line| {
                let file = names.at(line.file_name_off);
                let number = line.line_col >> COLUMN_BITS;
                (line.insn_off as usize, format!("{file}:{number}"))
            });
            let instructions = Instructions {
                all: function.instructions.clone(),
                lines: lines.collect(),
            };
            walker.programs.insert(name.clone(), instructions);
        }
        for (name, map) in &definitions {
            let data =
                (!map.data().is_empty()).then(|| walker.add(Region::of(map.data().to_vec())));
            let kernel = match pinned(folder, name) {
                Some(path) => Some(sys::open_pin(&path).map_err(|source| Error::Folder {
                    path: path.clone(),
                    source,
                })?),
                None => None,
            };
            walker.maps.push(WalkedMap {
                kind: map.map_type(),
                key: map.key_size() as usize,
                value: map.value_size() as usize,
                kernel,
                values: HashMap::new(),
                data,
            });
        }
        Ok(walker)
    }

    fn add(&mut self, region: Region) -> usize {
        self.regions.push(region);
        self.regions.len() - 1
    }

    /// Lets the program judge a frame of the device.
    pub fn walk(&mut self, program: &str, ifindex: u32, frame: &[u8]) -> Result<Walk, Lost> {
        let instructions = self.programs.get(program).ok_or(Lost::NoProgram)?.clone();
        let is_xdp = program.contains("xdp");
        let packet = self.add(Region::of(frame.to_vec()));
        let context = self.add(Region::of(context(is_xdp, ifindex, frame)));
        let mut run = Run {
            is_xdp,
            packet,
            context,
            registers: [0; 11],
            frames: Vec::new(),
            lines: BTreeSet::new(),
            walk: Walk::default(),
            memory: self,
        };
        run.registers[1] = address(context);
        run.enter_frame();
        let returned = run.finish(&instructions)?;
        let mut walk = run.walk;
        walk.map_lines = run.lines.len() as u64;
        walk.returned = returned as u32;
        Ok(walk)
    }
}

/// `struct xdp_md`, or `struct __sk_buff` (linux/bpf.h), but for the pointers.
fn context(is_xdp: bool, ifindex: u32, frame: &[u8]) -> Vec<u8> {
    let length = frame.len() as u32;
    let protocol: [u8; 2] = frame
        .get(12..14)
        .and_then(|bytes| bytes.try_into().ok())
        .unwrap_or_default();
    let fields = match is_xdp {
        true => vec![(12, ifindex)],
        false => vec![
            (0, length),
            (16, u32::from(u16::from_le_bytes(protocol))),
            (40, ifindex),
        ],
    };
    let mut bytes = vec![0; 192];
    for (at, value) in fields {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// The pin of a map in whichever folder it is.
fn pinned(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries.flatten().find_map(|entry| {
        let path = entry.path();
        match path.is_dir() {
            true => pinned(&path, name),
            false => (entry.file_name() == name).then_some(path),
        }
    })
}

impl Region {
    fn of(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            of_map: None,
        }
    }
}

/// The bytes of an object's BTF, which has the names of its files
/// (<https://docs.kernel.org/bpf/btf.html>).
struct Names(Vec<u8>);

impl Names {
    fn at(&self, offset: u32) -> &str {
        let Self(bytes) = self;
        let word = |at: usize| {
            let word = bytes.get(at..)?.first_chunk()?;
            Some(u32::from_le_bytes(*word) as usize)
        };
        // `hdr_len` and `str_off` of `struct btf_header`.
        let name = word(4).zip(word(16)).and_then(|(header, strings)| {
            let name = bytes.get(header + strings + offset as usize..)?;
            std::ffi::CStr::from_bytes_until_nul(name)
                .ok()?
                .to_str()
                .ok()
        });
        name.unwrap_or_default()
    }
}

/// Where a region begins.
fn address(region: usize) -> u64 {
    (region as u64) << 32
}

/// What a walk cannot go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// There is no such program.
    #[error("the object has no such program")]
    NoProgram,
    /// An instruction that the walk does not know.
    #[error("instruction {at} has the unknown code {code:#x}")]
    Instruction {
        /// Its number.
        at: usize,
        /// Its code.
        code: u8,
    },
    /// A helper that the walk does not know.
    #[error("instruction {at} calls the unknown helper {helper}")]
    Helper {
        /// Its number.
        at: usize,
        /// The helper's.
        helper: i32,
    },
    /// An address where there is no memory.
    #[error("instruction {at} reads or writes where there is no memory")]
    Address {
        /// Its number.
        at: usize,
    },
    /// It does not end.
    #[error("the program does not end within {MOST_STEPS} instructions")]
    Endless,
}

/// What a function's caller keeps.
struct Caller {
    back: usize,
    kept: [u64; 4],
    frame_pointer: u64,
}

/// One walk.
struct Run<'a> {
    memory: &'a mut Walker,
    is_xdp: bool,
    packet: usize,
    context: usize,
    registers: [u64; 11],
    frames: Vec<Caller>,
    lines: BTreeSet<(usize, u64)>,
    walk: Walk,
}

impl Run<'_> {
    fn enter_frame(&mut self) {
        let stack = self.memory.add(Region::of(vec![0; STACK as usize]));
        self.registers[FRAME_POINTER] = address(stack) + STACK;
    }

    fn finish(&mut self, program: &Instructions) -> Result<u64, Lost> {
        let instructions = &program.all;
        let mut at = 0_usize;
        loop {
            let instruction = instructions.get(at).ok_or(Lost::Address { at })?;
            self.walk.instructions += 1;
            if let Some((_, line)) = program.lines.range(..=at).next_back() {
                match self.walk.by_line.get_mut(line) {
                    Some(count) => *count += 1,
                    None => drop(self.walk.by_line.insert(line.clone(), 1)),
                }
            }
            if self.walk.instructions > MOST_STEPS {
                return Err(Lost::Endless);
            }
            let (to, from) = (
                usize::from(instruction.dst_reg()),
                usize::from(instruction.src_reg()),
            );
            let code = instruction.code;
            let behind = |distance: i64| (at as i64 + 1 + distance) as usize;
            let mut next = at + 1;
            match code & 7 {
                0 => {
                    // Two instructions that load 64 bits.
                    let upper = instructions.get(at + 1).ok_or(Lost::Address { at })?.imm;
                    self.registers[to] = self.loaded(from, instruction.imm, upper, at)?;
                    next = at + 2;
                }
                1 => {
                    let place = self.registers[from].wrapping_add_signed(instruction.off.into());
                    self.registers[to] = self.load(place, size(code), at)?;
                }
                2 => {
                    let place = self.registers[to].wrapping_add_signed(instruction.off.into());
                    self.store(place, size(code), i64::from(instruction.imm) as u64, at)?;
                }
                3 if code & 0xe0 == 0xc0 => {
                    let place = self.registers[to].wrapping_add_signed(instruction.off.into());
                    self.atomic(place, size(code), from, instruction.imm, at)?;
                }
                3 => {
                    let place = self.registers[to].wrapping_add_signed(instruction.off.into());
                    self.store(place, size(code), self.registers[from], at)?;
                }
                class @ (4 | 7) => {
                    self.registers[to] = self
                        .computed(instruction, class == 4)
                        .ok_or(Lost::Instruction { at, code })?;
                }
                class => match code & 0xf0 {
                    0x00 if class == 6 => next = behind(instruction.imm.into()),
                    0x00 => next = behind(instruction.off.into()),
                    0x80 if instruction.src_reg() == 1 => {
                        self.walk.calls += 1;
                        self.frames.push(Caller {
                            back: next,
                            kept: std::array::from_fn(|place| self.registers[6 + place]),
                            frame_pointer: self.registers[FRAME_POINTER],
                        });
                        self.enter_frame();
                        next = behind(instruction.imm.into());
                    }
                    0x80 => self.registers[0] = self.help(instruction.imm, at)?,
                    0x90 => match self.frames.pop() {
                        None => return Ok(self.registers[0]),
                        Some(caller) => {
                            self.registers[6..10].copy_from_slice(&caller.kept);
                            self.registers[FRAME_POINTER] = caller.frame_pointer;
                            next = caller.back;
                        }
                    },
                    _ => {
                        let jumps = self
                            .compared(instruction, class == 6)
                            .ok_or(Lost::Instruction { at, code })?;
                        if jumps {
                            next = behind(instruction.off.into());
                        }
                    }
                },
            }
            at = next;
        }
    }

    /// What a load of 64 bits gives: a number, a map, or a constant's place.
    fn loaded(&mut self, kind: usize, lower: i32, upper: i32, at: usize) -> Result<u64, Lost> {
        const MAP: usize = 1;
        const MAP_VALUE: usize = 2;
        let map = || {
            self.memory
                .maps
                .get(lower as usize)
                .ok_or(Lost::Address { at })
        };
        match kind {
            MAP => Ok(lower as u64),
            MAP_VALUE => {
                let region = map()?.data.ok_or(Lost::Address { at })?;
                Ok(address(region) + upper as u64)
            }
            _ => Ok(u64::from(lower as u32) | u64::from(upper as u32) << 32),
        }
    }

    fn bytes(&mut self, place: u64, length: usize, at: usize) -> Result<&mut [u8], Lost> {
        let region = self.memory.regions.get_mut((place >> 32) as usize);
        let region = region.ok_or(Lost::Address { at })?;
        let offset = place & u64::from(u32::MAX);
        if let Some((map, before)) = region.of_map {
            let first = (before + offset) >> 6;
            let last = (before + offset + length as u64 - 1) >> 6;
            self.lines.extend((first..=last).map(|line| (map, line)));
        }
        let offset = offset as usize;
        region
            .bytes
            .get_mut(offset..offset + length)
            .ok_or(Lost::Address { at })
    }

    fn is_of_map(&self, place: u64) -> bool {
        let region = self.memory.regions.get((place >> 32) as usize);
        region.is_some_and(|region| region.of_map.is_some())
    }

    fn load(&mut self, place: u64, size: usize, at: usize) -> Result<u64, Lost> {
        let (data, end) = if self.is_xdp { (0, 4) } else { (76, 80) };
        let offset = place.wrapping_sub(address(self.context));
        if offset == data {
            return Ok(address(self.packet));
        }
        if offset == end {
            let length = self.memory.regions[self.packet].bytes.len();
            return Ok(address(self.packet) + length as u64);
        }
        self.walk.map_loads += u64::from(self.is_of_map(place));
        let bytes = self.bytes(place, size, at)?;
        let mut value = [0; 8];
        value[..size].copy_from_slice(bytes);
        Ok(u64::from_le_bytes(value))
    }

    fn store(&mut self, place: u64, size: usize, value: u64, at: usize) -> Result<(), Lost> {
        self.walk.map_stores += u64::from(self.is_of_map(place));
        self.bytes(place, size, at)?
            .copy_from_slice(&value.to_le_bytes()[..size]);
        Ok(())
    }

    fn atomic(
        &mut self,
        place: u64,
        size: usize,
        from: usize,
        kind: i32,
        at: usize,
    ) -> Result<(), Lost> {
        const FETCH: i32 = 1;
        const EXCHANGE: i32 = 0xe1;
        const COMPARE: i32 = 0xf1;
        let old = self.load(place, size, at)?;
        let operand = self.registers[from];
        let new = match kind {
            EXCHANGE => operand,
            COMPARE if old == self.registers[0] => operand,
            COMPARE => old,
            _ => match kind & !FETCH {
                0x00 => old.wrapping_add(operand),
                0x40 => old | operand,
                0x50 => old & operand,
                0xa0 => old ^ operand,
                _ => return Err(Lost::Instruction { at, code: 0xdb }),
            },
        };
        self.store(place, size, new, at)?;
        if kind == COMPARE {
            self.registers[0] = old;
        } else if kind & FETCH != 0 {
            self.registers[from] = old;
        }
        Ok(())
    }

    /// The second operand.
    fn operand(&self, instruction: &bpf_insn) -> u64 {
        if instruction.code & 0x08 == 0 {
            i64::from(instruction.imm) as u64
        } else {
            self.registers[usize::from(instruction.src_reg())]
        }
    }

    fn computed(&self, instruction: &bpf_insn, is_32: bool) -> Option<u64> {
        let narrow = |value: u64| {
            if is_32 {
                u64::from(value as u32)
            } else {
                value
            }
        };
        let old = narrow(self.registers[usize::from(instruction.dst_reg())]);
        let operand = narrow(self.operand(instruction));
        let shift = operand as u32 & if is_32 { 31 } else { 63 };
        let swapped = |value: u64| match instruction.imm {
            16 => u64::from((value as u16).swap_bytes()),
            32 => u64::from((value as u32).swap_bytes()),
            _ => value.swap_bytes(),
        };
        let kept = |value: u64| match instruction.imm {
            16 => u64::from(value as u16),
            32 => u64::from(value as u32),
            _ => value,
        };
        let whole = self.registers[usize::from(instruction.dst_reg())];
        Some(narrow(match instruction.code & 0xf0 {
            0x00 => old.wrapping_add(operand),
            0x10 => old.wrapping_sub(operand),
            0x20 => old.wrapping_mul(operand),
            0x30 if instruction.off == 0 => old.checked_div(operand).unwrap_or(0),
            0x40 => old | operand,
            0x50 => old & operand,
            0x60 => old << shift,
            0x70 => old >> shift,
            0x80 => old.wrapping_neg(),
            0x90 if instruction.off == 0 => old.checked_rem(operand).unwrap_or(old),
            0xa0 => old ^ operand,
            0xb0 if instruction.off == 0 => operand,
            0xc0 if is_32 => u64::from(((old as u32 as i32) >> shift) as u32),
            0xc0 => ((old as i64) >> shift) as u64,
            // To the network's order, from it, and always.
            0xd0 if is_32 && instruction.code & 0x08 == 0 => return Some(kept(whole)),
            0xd0 => return Some(swapped(whole)),
            _ => return None,
        }))
    }

    fn compared(&self, instruction: &bpf_insn, is_32: bool) -> Option<bool> {
        let narrow = |value: u64| {
            if is_32 {
                u64::from(value as u32)
            } else {
                value
            }
        };
        let signed = |value: u64| match is_32 {
            true => i64::from(value as u32 as i32),
            false => value as i64,
        };
        let left = narrow(self.registers[usize::from(instruction.dst_reg())]);
        let right = narrow(self.operand(instruction));
        Some(match instruction.code & 0xf0 {
            0x10 => left == right,
            0x20 => left > right,
            0x30 => left >= right,
            0x40 => left & right != 0,
            0x50 => left != right,
            0x60 => signed(left) > signed(right),
            0x70 => signed(left) >= signed(right),
            0xa0 => left < right,
            0xb0 => left <= right,
            0xc0 => signed(left) < signed(right),
            0xd0 => signed(left) <= signed(right),
            _ => return None,
        })
    }

    /// Does what a helper does.
    fn help(&mut self, number: i32, at: usize) -> Result<u64, Lost> {
        let [_, first, second, third, fourth, ..] = self.registers;
        match number {
            helper::LOOKUP => {
                let key = self.key(first, second, at)?;
                let found = self.memory.find(first as usize, key);
                let map = self.memory.maps.get(first as usize);
                let is_inline = map.is_some_and(|map| {
                    [BPF_MAP_TYPE_ARRAY as u32, BPF_MAP_TYPE_PERCPU_ARRAY as u32]
                        .contains(&map.kind)
                });
                if is_inline {
                    self.walk.inline_lookups += 1;
                } else {
                    self.walk.helpers += 1;
                }
                return Ok(found.map_or(0, address));
            }
            helper::JIFFIES => {
                self.walk.inline_helpers += 1;
                return Ok(self.memory.jiffies);
            }
            helper::CPU => {
                self.walk.inline_helpers += 1;
                return Ok(0);
            }
            _ => self.walk.helpers += 1,
        }
        match number {
            helper::UPDATE => {
                let key = self.key(first, second, at)?;
                let length = self
                    .memory
                    .maps
                    .get(first as usize)
                    .map_or(0, |map| map.value);
                let value = self.bytes(third, length, at)?.to_vec();
                let region = self.memory.add(Region::of(value));
                if let Some(map) = self.memory.maps.get_mut(first as usize) {
                    map.values.insert(key, region);
                }
                Ok(0)
            }
            helper::DELETE => {
                let key = self.key(first, second, at)?;
                if let Some(map) = self.memory.maps.get_mut(first as usize) {
                    map.values.remove(&key);
                }
                Ok(0)
            }
            helper::LOCK | helper::UNLOCK => Ok(0),
            // `TC_ACT_REDIRECT`
            helper::REDIRECT => Ok(7),
            // Nothing reads along.
            helper::RESERVE | helper::QUERY_RING => Ok(0),
            helper::LENGTH_OF_XDP => Ok(self.memory.regions[self.packet].bytes.len() as u64),
            helper::LOAD_FROM_SKB | helper::LOAD_FROM_XDP => {
                let bytes = &self.memory.regions[self.packet].bytes;
                let (from, length) = (second as usize, fourth as usize);
                let Some(copied) = bytes.get(from..from + length).map(<[u8]>::to_vec) else {
                    return Ok(-(libc::EFAULT as i64) as u64);
                };
                self.bytes(third, length, at)?.copy_from_slice(&copied);
                Ok(0)
            }
            helper => Err(Lost::Helper { at, helper }),
        }
    }

    fn key(&mut self, map: u64, place: u64, at: usize) -> Result<Vec<u8>, Lost> {
        let length = self.memory.maps.get(map as usize).map_or(0, |map| map.key);
        Ok(self.bytes(place, length, at)?.to_vec())
    }
}

impl Walker {
    /// The region of a map's value.
    fn find(&mut self, number: usize, key: Vec<u8>) -> Option<usize> {
        let map = self.maps.get_mut(number)?;
        if let Some(region) = map.values.get(&key) {
            return Some(*region);
        }
        let bytes = match &map.kernel {
            // Values of CPUs are looked up for all of them; what the first one has is zero at first.
            Some(kernel) if map.kind != BPF_MAP_TYPE_PERCPU_ARRAY as u32 => {
                let mut value = vec![0; map.value];
                look_up(kernel.as_fd(), &key, &mut value).ok()?;
                value
            }
            _ if map.kind == BPF_MAP_TYPE_ARRAY as u32
                || map.kind == BPF_MAP_TYPE_PERCPU_ARRAY as u32 =>
            {
                vec![0; map.value]
            }
            _ => return None,
        };
        let index = key.first_chunk().map_or(0, |key| u32::from_le_bytes(*key));
        let is_array = map.kind == BPF_MAP_TYPE_ARRAY as u32;
        // Elements of other maps lie apart: each begins a line here.
        let before = match is_array {
            true => u64::from(index) * map.value as u64,
            false => (map.values.len() as u64) << 20,
        };
        self.regions.push(Region {
            bytes,
            of_map: Some((number, before)),
        });
        let region = self.regions.len() - 1;
        self.maps.get_mut(number)?.values.insert(key, region);
        Some(region)
    }
}

/// How many bytes an instruction loads or stores.
fn size(code: u8) -> usize {
    match code & 0x18 {
        0x00 => 4,
        0x08 => 2,
        0x10 => 1,
        _ => 8,
    }
}
