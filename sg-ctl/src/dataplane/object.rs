//! The eBPF object: embedded, loaded into new maps or onto pinned ones.

use std::borrow::Borrow;
use std::fs;
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use aya::maps::{Array, MapData};
use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions, VerifierLogLevel};
use aya_obj::programs::XdpAttachType;
use nix::sys::time::TimeValLike as _;
use nix::time::ClockId;
use sg_common::abi::reasons_index;
use sg_common::packet::Direction;

use super::maps::{FLOW_MAPS, FLOW_TABLE, LAYOUT_MAPS, RINGS, flows_folder, layout_folder};
use super::sizes::Sizes;
use super::state::Record;
use super::{Error, needs, per_cpu};
use crate::compile::INTERFACE_SLOTS;

/// The object that the build script has compiled, aligned as its headers ask.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sg-ebpf"));

/// The traced build of it: programs of the same names that judge alike, and log what they did.
pub(super) static TRACED: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sg-ebpf-traced"));

/// The programs by their names in the object.
pub(super) const XDP_RECEIVE: &str = "sg_xdp_receive";
/// As above.
pub(super) const TC_RECEIVE: &str = "sg_tc_receive";
/// As above.
pub(super) const TC_SEND: &str = "sg_tc_send";
/// Ends a flow.
pub(super) const END_FLOW: &str = "sg_end_flow";
/// Carries flows between tables of two sizes.
pub(super) const MIGRATE: &str = "sg_migrate";
/// Lets everything pass.
pub(super) const PASS: &str = "sg_pass";
const CLOCK: &str = "sg_clock";
/// All but that which lets everything pass.
pub(super) const PROGRAMS: [&str; 6] = [XDP_RECEIVE, TC_RECEIVE, TC_SEND, END_FLOW, MIGRATE, CLOCK];

/// What the verifier writes about a program that it refuses: every step on the way there. Of one that
/// it takes, nothing is asked.
const LOG_LEVEL: VerifierLogLevel = VerifierLogLevel::DEBUG.union(VerifierLogLevel::STATS);

/// First fragments that are remembered.
const FRAGMENTS: u32 = 16_384;

/// A reader's ring: what a few busy CPUs may write between two of its looks. A power of two.
const RING_BYTES: u32 = 1 << 19;

/// aya-log's ring, and what it is made of: about two thousand packets between two looks.
const LOG: &str = "AYA_LOGS";
const LOG_BYTES: u32 = 1 << 20;

/// Tells one build of the object from another.
pub(super) fn fingerprint() -> u64 {
    // FNV-1a, by words: it need only differ between builds, and an attacker cannot choose the bytes
    // of a build.
    let (words, rest) = OBJECT.as_chunks();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let rest = rest.iter().map(|byte| u64::from(*byte));
    words.chain(rest).fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        (hash ^ word).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Loads the object for one network namespace. Maps that are pinned are used, others are made and
/// pinned.
pub(super) fn load(bpffs: &Path, record: &Record, netns: u32) -> Result<Ebpf, Error> {
    load_build(OBJECT, bpffs, record, netns)
}

/// The same with the traced build. Its own maps are pinned nowhere, and go with its programs.
pub(super) fn load_traced(bpffs: &Path, record: &Record, netns: u32) -> Result<Ebpf, Error> {
    load_build(TRACED, bpffs, record, netns)
}

/// The same for any build of the object.
pub(super) fn load_build(
    build: &[u8],
    bpffs: &Path,
    record: &Record,
    netns: u32,
) -> Result<Ebpf, Error> {
    let layout = layout_folder(bpffs, record.layout);
    let shared = flows_folder(bpffs);
    let table = record.flows.folder(bpffs);
    let other_table = record.other_flows.map(|other| other.folder(bpffs));
    let folders = [&layout, &shared, &table].into_iter();
    for folder in folders.chain(&other_table) {
        fs::create_dir_all(folder).map_err(|source| Error::Folder {
            path: folder.clone(),
            source,
        })?;
    }
    let Record {
        sizes,
        flows,
        interface_places: places,
        ..
    } = *record;
    let reasons = reasons_index(sizes.slots, Direction::Ingress);
    // A table that there is not has one bucket, as the object says.
    let other_buckets = record.other_flows.map_or(1, |other| other.size.buckets);
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(LOG_LEVEL);
    for (name, entries) in [
        ("POLICIES", sizes.policies),
        ("PORTS", sizes.ports),
        // Two directions of two families.
        ("POLICY_RANGES", sizes.policies.saturating_mul(4)),
        ("LIST_RANGES", sizes.list_ranges),
        ("RANGE_SLOTS", sizes.range_slots),
        ("INTERVALS_V4", sizes.intervals_v4),
        ("INTERVALS_V6", sizes.intervals_v6),
        ("NESTED_RANGES", sizes.nested_ranges),
        ("PORT_TABLES", sizes.port_tables),
        ("SETS", sizes.sets),
        ("MEMBERS", sizes.members),
        ("IDENTITIES", sizes.identities),
        ("GRANTS", sizes.grants),
        ("GRANTED", sizes.granted),
        ("RULES", per_cpu::entries(sizes.rules)?),
        ("REASONS", per_cpu::entries(reasons)?),
        ("INTERFACES", places),
        ("OWNED", INTERFACE_SLOTS),
        (FLOW_TABLE, flows.size.buckets),
        ("OTHER_FLOWS", other_buckets),
        ("FRAGMENTS", FRAGMENTS),
        ("AWAITING", INTERFACE_SLOTS),
    ] {
        loader.map_max_entries(name, entries);
    }
    for name in RINGS {
        loader.map_max_entries(name, RING_BYTES);
    }
    // The ordinary build has none.
    loader.map_max_entries(LOG, LOG_BYTES);
    for name in LAYOUT_MAPS {
        loader.map_pin_path(name, layout.join(name));
    }
    for name in FLOW_MAPS {
        loader.map_pin_path(name, shared.join(name));
    }
    loader.map_pin_path(FLOW_TABLE, table.join(FLOW_TABLE));
    if let Some(folder) = &other_table {
        loader.map_pin_path("OTHER_FLOWS", folder.join(FLOW_TABLE));
    }
    loader.override_global("NETNS", &netns, true);
    loader.override_global("REASONS_A_CPU", &reasons, true);
    loader.override_global("RULES_A_CPU", &sizes.rules, true);
    loader
        .load(build)
        .map_err(|source| Error::Object(Box::new(source)))
}

/// Puts one of an object's programs into the kernel.
pub(super) fn load_program(object: &mut Ebpf, name: &'static str) -> Result<(), Error> {
    let program = object.program_mut(name);
    load_into_kernel(program.ok_or(Error::ProgramMissing(name))?, name)
}

fn load_into_kernel(program: &mut Program, name: &'static str) -> Result<(), Error> {
    let wrong = |source: ProgramError| {
        let lacks = match &source {
            ProgramError::LoadError { .. } => needs::lacking(OBJECT, name),
            _ => Vec::new(),
        };
        match lacks.is_empty() {
            true => Error::Program {
                name,
                source: Box::new(source),
            },
            false => Error::Lacks { name, lacks },
        }
    };
    if let Program::Xdp(program) = program {
        return program.load().map_err(wrong);
    }
    let program: &mut SchedClassifier = program.try_into().map_err(wrong)?;
    program.load().map_err(wrong)
}

/// Puts every program into the kernel as for an interface, over maps of their own and pinned
/// nowhere, and returns what was wrong with each that it does not take.
pub(super) fn try_programs(sizes: &Sizes) -> Result<Vec<Error>, Error> {
    let reasons = reasons_index(sizes.slots, Direction::Ingress);
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(LOG_LEVEL);
    loader.override_global("NETNS", &1_u32, true);
    loader.override_global("REASONS_A_CPU", &reasons, true);
    loader.override_global("RULES_A_CPU", &sizes.rules, true);
    let mut object = loader
        .load(OBJECT)
        .map_err(|source| Error::Object(Box::new(source)))?;
    let programs = object.programs_mut().filter_map(|(name, program)| {
        let mut wanted = PROGRAMS.into_iter().chain([PASS]);
        Some((program, wanted.find(|wanted| *wanted == name)?))
    });
    let programs: Vec<_> = programs.collect();
    let found = programs.len();
    let refused = thread::scope(|scope| {
        let loading: Vec<_> = programs
            .into_iter()
            .map(|(program, name)| scope.spawn(move || load_into_kernel(program, name)))
            .collect();
        let loaded = loading.into_iter().map(|loading| {
            loading
                .join()
                .unwrap_or_else(|panicked| resume_unwind(panicked))
        });
        loaded.filter_map(Result::err).collect()
    });
    match found == PROGRAMS.len() + 1 {
        true => Ok(refused),
        false => Err(Error::ProgramMissing("that is looked for")),
    }
}

/// Puts a program into the kernel that needs no installed map: all of them have one entry.
pub(super) fn load_alone(name: &'static str) -> Result<Ebpf, Error> {
    let mut object = EbpfLoader::new()
        .load(OBJECT)
        .map_err(|source| Error::Object(Box::new(source)))?;
    load_program(&mut object, name)?;
    Ok(object)
}

/// Puts some of an object's programs into the kernel and pins them. The verifier takes a second for
/// each, and can look at several at once.
pub(super) fn pin_programs(
    object: &mut Ebpf,
    wanted: &[(&'static str, PathBuf)],
) -> Result<(), Error> {
    if let Some((missing, _)) = wanted
        .iter()
        .find(|(name, _)| object.program(name).is_none())
    {
        return Err(Error::ProgramMissing(missing));
    }
    let programs = object.programs_mut().filter_map(|(name, program)| {
        let (name, path) = wanted.iter().find(|(wanted, _)| *wanted == name)?;
        Some((program, *name, path.as_path()))
    });
    thread::scope(|scope| {
        let loading: Vec<_> = programs
            .map(|(program, name, path)| {
                scope.spawn(move || {
                    load_into_kernel(program, name)?;
                    program.pin(path).map_err(|source| Error::Pin {
                        path: path.to_path_buf(),
                        source,
                    })
                })
            })
            .collect();
        let loaded = loading.into_iter().map(|loading| {
            loading
                .join()
                .unwrap_or_else(|panicked| resume_unwind(panicked))
        });
        // All of them are waited for.
        loaded.collect::<Vec<_>>().into_iter().collect()
    })
}

/// Where a layout's clock program is pinned.
pub(super) fn clock_path(layout: &Path) -> PathBuf {
    layout.join(CLOCK)
}

/// Opens a layout's clock program.
pub(super) fn open_clock(layout: &Path) -> Result<Xdp, Error> {
    Xdp::from_pin(clock_path(layout), XdpAttachType::Interface).map_err(|source| Error::Program {
        name: CLOCK,
        source: Box::new(source),
    })
}

/// Runs a clock program, and reads what it leaves.
pub(super) fn run_clock<M: Borrow<MapData>>(
    clock: &Xdp,
    readings: &Array<M, u64>,
) -> Result<u64, Error> {
    let frame = [0_u8; 14];
    let options = TestRunOptions {
        data_in: Some(&frame),
        ..TestRunOptions::default()
    };
    clock.test_run(options).map_err(|source| Error::Program {
        name: CLOCK,
        source: Box::new(source),
    })?;
    readings.get(&0, 0).map_err(Error::Read)
}

/// Loads the clock over maps of its own and runs it.
pub(super) fn try_clock() -> Result<(), Error> {
    let mut object = load_alone(CLOCK)?;
    let readings = object
        .take_map("CLOCK")
        .ok_or(Error::ProgramMissing(CLOCK))?;
    let readings: Array<_, u64> = readings.try_into().map_err(Error::Read)?;
    let clock = object.program(CLOCK).ok_or(Error::ProgramMissing(CLOCK))?;
    let clock: &Xdp = clock.try_into().map_err(|source| Error::Program {
        name: CLOCK,
        source: Box::new(source),
    })?;
    run_clock(clock, &readings).map(drop)
}

/// Finds `CONFIG_HZ`: the coarse clocks move once a tick, and say so
/// (`LOW_RES_NSEC` of <https://github.com/torvalds/linux/blob/v6.18/include/linux/ktime.h>).
pub(super) fn jiffies_per_second() -> Result<u32, Error> {
    let tick = ClockId::CLOCK_MONOTONIC_COARSE.res();
    let tick = tick.map_err(|errno| Error::Tick(errno.into()))?;
    let tick_ns = tick.num_nanoseconds().max(1);
    // A tick is whole nanoseconds, as near as they come to its part of a second.
    let rate = (1_000_000_000 + tick_ns / 2) / tick_ns;
    u32::try_from(rate).map_err(|_| Error::Tick(io::ErrorKind::InvalidData.into()))
}

/// Loads and pins the clock.
pub(super) fn pin_clock(object: &mut Ebpf, layout: &Path) -> Result<(), Error> {
    pin_programs(object, &[(CLOCK, layout.join(CLOCK))])
}

#[cfg(test)]
mod tests {
    use aya_obj::Object;

    use super::*;

    #[test]
    fn only_the_traced_build_has_a_log() {
        let has_log = |build| Object::parse(build).unwrap().maps.contains_key(LOG);
        assert!(has_log(TRACED));
        assert!(!has_log(OBJECT));
    }
}
