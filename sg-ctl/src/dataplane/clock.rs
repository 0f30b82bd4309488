//! The clock that deadlines and last hits are told by: the kernel's timer ticks, coarsened.

use std::path::Path;

use sg_common::flow::Ticks;

use super::maps::layout_folder;
use super::state::Record;
use super::{Error, object};

/// One reading.
pub(super) struct Clock {
    pub(super) now: Ticks,
    ticks_per_second: f64,
}

impl Clock {
    pub(super) fn read(bpffs: &Path, record: &Record) -> Result<Self, Error> {
        let jiffies = object::jiffies(&layout_folder(bpffs, record.layout))?;
        let ticks = f64::from(record.jiffies_per_second) / f64::from(1_u32 << Ticks::SHIFT);
        Ok(Self {
            now: Ticks::from_jiffies(jiffies),
            ticks_per_second: ticks,
        })
    }

    pub(super) fn seconds(&self, ticks: u32) -> u64 {
        (f64::from(ticks) / self.ticks_per_second).round() as u64
    }
}
