//! The clock that deadlines and last hits are told by: the kernel's timer ticks, coarsened.

use std::path::Path;

use aya::maps::{Array, MapData};
use aya::programs::Xdp;
use sg_common::ids::Ticks;

use super::maps::{layout_folder, open};
use super::state::Record;
use super::{Error, object};

/// The clock that deadlines are told by.
pub(super) struct Clock {
    pub(super) now: Ticks,
    ticks_per_second: f64,
}

/// What reads the clock.
pub(super) struct Ticker {
    program: Xdp,
    readings: Array<MapData, u64>,
    ticks_per_second: f64,
}

impl Ticker {
    pub(super) fn open(bpffs: &Path, record: &Record) -> Result<Self, Error> {
        let layout = layout_folder(bpffs, record.layout);
        Ok(Self {
            program: object::open_clock(&layout)?,
            readings: open(&layout, "CLOCK")?,
            ticks_per_second: f64::from(record.jiffies_per_second)
                / f64::from(1_u32 << Ticks::SHIFT),
        })
    }

    pub(super) fn read(&self) -> Result<Clock, Error> {
        let jiffies = object::run_clock(&self.program, &self.readings)?;
        Ok(Clock {
            now: Ticks::from_jiffies(jiffies),
            ticks_per_second: self.ticks_per_second,
        })
    }
}

impl Clock {
    pub(super) fn read(bpffs: &Path, record: &Record) -> Result<Self, Error> {
        Ticker::open(bpffs, record)?.read()
    }

    pub(super) fn ticks(&self, seconds: f64) -> u32 {
        (seconds * self.ticks_per_second) as u32
    }

    pub(super) fn seconds(&self, ticks: u32) -> u64 {
        (f64::from(ticks) / self.ticks_per_second).round() as u64
    }
}
