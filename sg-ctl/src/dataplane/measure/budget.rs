//! What the programs and their maps take of what the kernel gives: for seeing it grow.
//!
//! Everything is loaded as for a first interface, and attached to nothing. What is too much is not
//! this module's to say.

use std::path::Path;

use aya::maps::Map;
use aya::programs::ProgramError;

use super::super::object::{self, OBJECT};
use super::super::{DEFAULT_CAPACITY, Error, remove_folder};
use super::rehearsal::{Rehearsal, memory_of, unattached};
use super::stack::{self, Stacks};
use crate::compile::Limits;
use crate::compile::image::Image;

/// What everything takes.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Every program of the shipped object that is loaded for an interface or for the controller.
    pub programs: Vec<ProgramCost>,
    /// Every map, in the order of their names.
    pub maps: Vec<MapCost>,
}

/// What a program takes.
#[derive(Clone, Debug)]
pub struct ProgramCost {
    /// Its name in the object.
    pub name: &'static str,
    /// Instructions that the verifier has walked through, each as often as it came by.
    pub verified_instructions: u32,
    /// Bytes of its instructions as the kernel has rewritten them.
    pub translated_bytes: u32,
    /// Bytes of machine code; 0 where the kernel interprets.
    pub machine_bytes: u32,
    /// Bytes of stack that each function of its deepest chain of calls takes, outermost first.
    pub stack: Vec<u32>,
}

impl ProgramCost {
    /// Bytes of the kernel's 512 that the deepest chain takes: it rounds up each frame.
    pub fn stack_bytes(&self) -> u32 {
        stack::rounded(&self.stack)
    }
}

/// What a map takes.
#[derive(Clone, Debug)]
pub struct MapCost {
    /// Its name in the object.
    pub name: String,
    /// Bytes of the kernel's memory, as the kernel tells it.
    pub bytes: u64,
}

impl Budget {
    /// Loads programs and maps, as large as a first small policy has them, below a new folder of a
    /// bpf filesystem, and leaves nothing there.
    pub fn measure(folder: &Path) -> Result<Self, Error> {
        let measured = Self::load(folder);
        remove_folder(folder)?;
        measured
    }

    fn load(folder: &Path) -> Result<Self, Error> {
        let settings = Rehearsal::settings(DEFAULT_CAPACITY, Limits::default())?;
        let record = unattached(&Image::default(), &settings);
        let mut object = object::load(folder, &record, Rehearsal::NETNS)?;
        let stacks = Stacks::of(OBJECT)?;
        let mut programs = Vec::new();
        for name in object::PROGRAMS {
            object::load_program(&mut object, name)?;
            let wrong = |source: ProgramError| Error::Program {
                name,
                source: Box::new(source),
            };
            let program = object.program(name).ok_or(Error::ProgramMissing(name))?;
            let info = program.info().map_err(wrong)?;
            programs.push(ProgramCost {
                name,
                verified_instructions: info.verified_instruction_count().unwrap_or(0),
                translated_bytes: info.size_translated().unwrap_or(0),
                machine_bytes: info.size_jitted(),
                stack: stacks.deepest(name)?,
            });
        }
        let mut maps: Vec<MapCost> = object
            .maps()
            .map(|(name, map): (&str, &Map)| {
                Ok(MapCost {
                    name: name.to_owned(),
                    bytes: memory_of(map)?,
                })
            })
            .collect::<Result<_, Error>>()?;
        maps.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { programs, maps })
    }
}
