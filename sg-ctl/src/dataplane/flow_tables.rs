//! The table that flows are kept in, and how flows move to one of another size.
//!
//! A table outlives layouts and cannot grow. Programs know two: the *current* one, where flows open,
//! and while the size changes an *other* one, which is searched when the current one has nothing. To
//! change the size:
//!
//! 1. every link gets programs whose other table is the new, empty one;
//! 2. every link gets programs to which the new table is current and the old one other. While links
//!    have either kind, each kind finds what the other kind opens;
//! 3. a program migrates the flows, bucket by bucket: each is in its new place before it leaves
//!    the old one;
//! 4. every link gets programs that know the new table only.
//!
//! So a packet of a live flow finds it at every moment. The record names both from before the first
//! step until after the third, and a command that finds both begins again at the second.

use std::path::{Path, PathBuf};

use aya::maps::Array;
use aya::programs::SchedClassifier;
use aya::{TestRun as _, TestRunOptions};
use serde::{Deserialize, Serialize};
use sg_common::flow::{FlowBucket, Migration};

use super::maps::{FLOW_TABLE, layout_folder, open};
use super::object::{self, MIGRATE};
use super::state::Record;
use super::wire::Wire;
use super::{Error, sys};
use crate::crash::{self, Point};

/// Buckets migrated by one system call, during which a CPU handles no interrupts' packets.
const AT_ONCE: u32 = 64;

/// One table of flows, embryonic and assured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FlowRoom {
    /// The number of their folder.
    pub(super) number: u32,
    pub(super) size: FlowSize,
}

impl FlowRoom {
    /// Where it is pinned.
    pub(super) fn folder(&self, bpffs: &Path) -> PathBuf {
        folder(bpffs, self.number)
    }

    /// Whether it is there.
    pub(super) fn is_made(&self, bpffs: &Path) -> bool {
        self.folder(bpffs).join(FLOW_TABLE).exists()
    }
}

/// Where the table with this number is pinned.
pub(super) fn folder(bpffs: &Path, number: u32) -> PathBuf {
    bpffs.join(format!("{FOLDER}{number}"))
}

/// What the names of tables' folders begin with.
pub(super) const FOLDER: &str = "flows-";

/// How large a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FlowSize {
    /// A power of two.
    pub(super) buckets: u32,
}

impl FlowSize {
    /// Room for so many flows.
    pub(super) fn for_capacity(flows: u32) -> Self {
        let buckets = flows.div_ceil(FlowBucket::SLOTS as u32).clamp(64, 1 << 20);
        Self {
            buckets: buckets.next_power_of_two(),
        }
    }

    /// The most flows there can be.
    pub(super) fn capacity(self) -> u32 {
        self.buckets * FlowBucket::SLOTS as u32
    }
}

/// Migrates the flows of a layout's other table to its current one. Returns how many found no room
/// and are where they were.
pub(super) fn migrate(bpffs: &Path, record: &Record) -> Result<u32, Error> {
    let Some(other) = record.other_flows else {
        return Ok(0);
    };
    let wrong = |source| Error::Program {
        name: MIGRATE,
        source: Box::new(source),
    };
    // Until no program is left that knows the other table only.
    sys::wait_for_readers().map_err(Error::Grace)?;
    let folder = layout_folder(bpffs, record.layout);
    let mut object = object::load(bpffs, record, 0)?;
    object::load_program(&mut object, MIGRATE)?;
    let program = object
        .program(MIGRATE)
        .ok_or(Error::ProgramMissing(MIGRATE))?;
    let program: &SchedClassifier = program.try_into().map_err(wrong)?;
    let mut migration: Array<_, Wire<Migration>> = open(&folder, "MIGRATION")?;
    migration
        .set(0, Wire(Migration::default()), 0)
        .map_err(Error::Write)?;
    let frame = [0_u8; 64];
    loop {
        let Wire(Migration { bucket, left }) = migration.get(&0, 0).map_err(Error::Read)?;
        if bucket >= other.size.buckets {
            return Ok(left);
        }
        let options = TestRunOptions {
            data_in: Some(&frame),
            repeat: AT_ONCE,
            ..TestRunOptions::default()
        };
        program.test_run(options).map_err(wrong)?;
        crash::at(Point::FlowsMigrating);
    }
}
