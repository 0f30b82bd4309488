//! What the memory of this machine takes: loads from random places of an array, and nothing else.
//!
//! A lookup among many entries cannot be faster than the loads from memory that it cannot do without.

use std::time::Duration;

use aya::maps::{Array, MapData};
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions};
use sg_common::scatter::Scatter;

use super::super::Error;
use super::super::object;
use super::super::wire::Wire;
use super::MEASURING_OBJECT;
use super::flood::{wrong, xdp};
use super::rehearsal::Yardstick;

const LOADS: &str = "sg_scattered_loads_xdp";

/// Loads from an array of its own.
pub struct RandomLoads {
    object: Ebpf,
    scatter: Array<MapData, Wire<Scatter>>,
}

impl RandomLoads {
    /// Bytes of a line, of which one word is loaded.
    pub const LINE: u64 = 128;

    /// Makes an array of at least so many bytes, from which each run of the program makes so many loads,
    /// up to eight, each from a place that the one before tells.
    pub fn within(bytes: u64, loads: u32) -> Result<Self, Error> {
        let lines = bytes.div_ceil(Self::LINE).next_power_of_two();
        let lines = u32::try_from(lines).unwrap_or(1 << 31);
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("LINES", lines);
        let last = lines - 1;
        loader.override_global("LAST_LINE", &last, true);
        loader.override_global("LOADS", &loads, true);
        let object = loader.load(MEASURING_OBJECT);
        let mut object = object.map_err(|source| Error::Object(Box::new(source)))?;
        for name in [LOADS, Yardstick::ScatteredDropXdp.program()] {
            object::load_program(&mut object, name)?;
        }
        let scatter = object
            .take_map("SCATTER")
            .ok_or(Error::ProgramMissing("SCATTER"))?;
        Ok(Self {
            scatter: scatter.try_into().map_err(Error::Read)?,
            object,
        })
    }

    /// Says what the next frames are.
    pub fn scatter(&mut self, scatter: Scatter) -> Result<(), Error> {
        self.scatter.set(0, Wire(scatter), 0).map_err(Error::Write)
    }

    /// How long one run took, of so many: with the loads and without them, which is the overhead.
    pub fn run(&self, frame: &[u8], times: u32) -> Result<[Duration; 2], Error> {
        let took = |name| -> Result<Duration, Error> {
            let options = TestRunOptions {
                data_in: Some(frame),
                repeat: times,
                ..TestRunOptions::default()
            };
            let result = xdp(&self.object, name)?.test_run(options);
            Ok(result.map_err(|source| wrong(name, source))?.duration)
        };
        Ok([took(LOADS)?, took(Yardstick::ScatteredDropXdp.program())?])
    }
}
