//! A policy in maps of its own, judged by programs that no device runs: for measuring.
//!
//! The maps are filled and the programs loaded as for an interface; only the links are missing. So
//! it may have more interfaces than the machine, and none of them is disturbed. What runs are the real
//! entry points, and programs to measure them by, over the same maps, through `BPF_PROG_TEST_RUN`.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, TestRun as _, TestRunOptions};
use rand::random;
use sg_common::abi::{ReasonCounters, reasons_index};
use sg_common::flow::{FlowKey, HashKey};
use sg_common::packet::Direction;
use sg_common::report::Reason;
use sg_common::scatter::Scatter;

use super::super::flow_tables::{FlowRoom, FlowSize};
use super::super::maps::{LayoutMaps, layout_folder};
use super::super::numbers::Numbers;
use super::super::object;
use super::super::per_cpu::PerCpu;
use super::super::sizes::Sizes;
use super::super::state::Record;
use super::super::wire::Wire;
use super::super::{Dataplane, Error, remove_folder, update};
use super::MEASURING_OBJECT;
use super::replay_flows::ReplayFlows;
use super::walk::Walker;
use crate::compile::image::Image;
use crate::compile::{Change, Limits, Settings};

/// What is measured, or measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yardstick {
    /// Nothing but a drop, at XDP.
    DropXdp,
    /// Nothing but a drop, at TC.
    DropTc,
    /// The ports of TCP over IPv4 are found, and the frame is dropped, at XDP.
    ParseXdp,
    /// The same at TC.
    ParseTc,
    /// The judgement of a received frame, at XDP.
    ReceiveXdp,
    /// The judgement of a received frame, at TC.
    ReceiveTc,
    /// The judgement of a frame to be sent, at TC.
    SendTc,
    /// [`Self::DropXdp`] over scattered sources.
    ScatteredDropXdp,
    /// [`Self::ParseXdp`] over scattered sources.
    ScatteredParseXdp,
    /// [`Self::ReceiveXdp`] over scattered sources and interfaces.
    ScatteredXdp,
    /// The judgement of a frame to be sent, at TC, over scattered destinations and interfaces.
    ScatteredTc,
}

impl Yardstick {
    /// Whether it is a program of the shipped object: one that every build has.
    fn is_shipped(self) -> bool {
        matches!(self, Self::ReceiveXdp | Self::ReceiveTc | Self::SendTc)
    }

    pub(super) fn program(self) -> &'static str {
        match self {
            Self::DropXdp => "sg_drop_xdp",
            Self::DropTc => "sg_drop_tc",
            Self::ParseXdp => "sg_parse_xdp",
            Self::ParseTc => "sg_parse_tc",
            Self::ReceiveXdp => object::XDP_RECEIVE,
            Self::ReceiveTc => object::TC_RECEIVE,
            Self::SendTc => object::TC_SEND,
            Self::ScatteredDropXdp => "sg_scattered_drop_xdp",
            Self::ScatteredParseXdp => "sg_scattered_parse_xdp",
            Self::ScatteredXdp => "sg_scattered_xdp",
            Self::ScatteredTc => "sg_scattered_tc",
        }
    }
}

/// The programs over the maps.
pub struct Rehearsal {
    folder: PathBuf,
    record: Record,
    maps: LayoutMaps,
    shipped: Ebpf,
    measuring: Ebpf,
    /// Programs that were asked for: the verifier takes its time over each.
    loaded: Vec<Yardstick>,
    scatter: Array<MapData, Wire<Scatter>>,
    reasons: PerCpu<ReasonCounters>,
}

/// The record of an image's first layout, with nothing attached.
pub(super) fn unattached(image: &Image, settings: &Settings) -> Record {
    let size = FlowSize::for_capacity(settings.assured_flows);
    Record {
        fingerprint: object::fingerprint(),
        layout: 1,
        sizes: Sizes::roomy(image),
        flows: FlowRoom { number: 1, size },
        other_flows: None,
        interface_places: image.interface_places.max(1),
        generation: 0,
        jiffies_per_second: settings.jiffies_per_second,
        hash_key: random(),
        netns: Vec::new(),
        devices: Vec::new(),
        next_incarnation: 0,
        numbers: Numbers::default(),
    }
}

impl Rehearsal {
    /// The number of the only network namespace.
    pub const NETNS: u32 = 1;
    /// The interface that frames come from unless they are scattered: the loopback's.
    pub const IFINDEX: u32 = 1;

    /// What an image is compiled with that has room for so many flows.
    pub fn settings(flows: u32, limits: Limits) -> Result<Settings, Error> {
        Ok(Settings {
            jiffies_per_second: object::jiffies_per_second()?,
            assured_flows: FlowSize::for_capacity(flows).capacity(),
            limits,
        })
    }

    /// Fills new maps below a new folder of a bpf filesystem.
    pub fn stage(folder: &Path, image: &Image, settings: &Settings) -> Result<Self, Error> {
        let mut record = unattached(image, settings);
        let shipped = object::load(folder, &record, Self::NETNS)?;
        let mut measuring = object::load_build(MEASURING_OBJECT, folder, &record, Self::NETNS)?;
        let globals = Dataplane::globals(&record);
        let mut maps = LayoutMaps::open(&layout_folder(folder, record.layout))?;
        let nothing = Image {
            ids: image.ids.clone(),
            ..Image::default()
        };
        let (after, ()) = update::update(&mut maps, &globals, &nothing, image, |_| ())?;
        record.generation = after.0;
        let scatter = measuring
            .take_map("SCATTER")
            .ok_or(Error::ProgramMissing("SCATTER"))?;
        Ok(Self {
            folder: folder.to_path_buf(),
            record,
            loaded: Vec::new(),
            scatter: scatter.try_into().map_err(Error::Read)?,
            reasons: PerCpu::open(&maps.reasons)?,
            maps,
            shipped,
            measuring,
        })
    }

    /// The programs, to be walked through by hand.
    pub fn walker(&self) -> Result<Walker, Error> {
        let reasons = reasons_index(self.record.sizes.slots, Direction::Ingress);
        Walker::over(
            &self.folder,
            &[
                ("NETNS", Self::NETNS),
                ("REASONS_A_CPU", reasons),
                ("RULES_A_CPU", self.record.sizes.rules),
            ],
        )
    }

    /// Makes the maps hold what an edit changes, which must fit.
    pub fn edit(&mut self, change: &Change) -> Result<(), Error> {
        let globals = Dataplane::globals(&self.record);
        let (maps, Change { old, new }) = (&mut self.maps, change);
        let (after, ()) = update::update(maps, &globals, old, new, |_| ())?;
        self.record.generation = after.0;
        Ok(())
    }

    /// Says what the next scattered frames are.
    pub fn scatter(&mut self, scatter: Scatter) -> Result<(), Error> {
        self.scatter.set(0, Wire(scatter), 0).map_err(Error::Write)
    }

    /// Runs a program on a frame so many times, and returns how long one time took, in whole
    /// nanoseconds, as the kernel measures it.
    pub fn run(
        &mut self,
        yardstick: Yardstick,
        frame: &[u8],
        times: u32,
    ) -> Result<Duration, Error> {
        self.load(yardstick)?;
        self.run_loaded(yardstick, frame, times)
    }

    /// Puts a program into the kernel, for several CPUs to run it at once.
    pub fn load(&mut self, yardstick: Yardstick) -> Result<(), Error> {
        if !self.loaded.contains(&yardstick) {
            let object = match yardstick.is_shipped() {
                true => &mut self.shipped,
                false => &mut self.measuring,
            };
            object::load_program(object, yardstick.program())?;
            self.loaded.push(yardstick);
        }
        Ok(())
    }

    /// The same as [`Self::run`] for a program that is loaded.
    pub fn run_loaded(
        &self,
        yardstick: Yardstick,
        frame: &[u8],
        times: u32,
    ) -> Result<Duration, Error> {
        let name = yardstick.program();
        let wrong = |source: ProgramError| Error::Program {
            name,
            source: Box::new(source),
        };
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat: times,
            ..TestRunOptions::default()
        };
        let object = match yardstick.is_shipped() {
            true => &self.shipped,
            false => &self.measuring,
        };
        let result = match object.program(name) {
            Some(Program::Xdp(program)) => program.test_run(options),
            Some(Program::SchedClassifier(program)) => program.test_run(options),
            _ => return Err(Error::ProgramMissing(name)),
        };
        Ok(result.map_err(wrong)?.duration)
    }

    /// The flows that the programs know.
    pub fn flows(&self) -> Result<ReplayFlows, Error> {
        ReplayFlows::open(&self.folder, &self.record)
    }

    /// The two buckets in which a flow may be, the one that is searched first before the other.
    pub fn buckets_of(&self, key: &FlowKey) -> [u32; 2] {
        let places = key.places(&HashKey(self.record.hash_key));
        let mask = self.record.flows.size.buckets - 1;
        [places.first & mask, places.second & mask]
    }

    /// Bytes of kernel memory that the maps take, as the kernel tells it for each.
    pub fn memory(&self) -> Result<u64, Error> {
        self.shipped.maps().map(|(_, map)| memory_of(map)).sum()
    }

    /// How many packets had a reason so far, at every interface in both directions.
    pub fn counted(&self, reason: Reason) -> Result<u64, Error> {
        let indexes = 0..reasons_index(self.record.sizes.slots, Direction::Ingress);
        let packets = indexes.map(|index| Ok(self.reasons.total(index)?.of(reason).packets));
        packets.sum()
    }
}

/// `memlock` of the map's descriptor (proc_pid_fdinfo(5)).
pub(super) fn memory_of(map: &Map) -> Result<u64, Error> {
    let (Map::Array(map)
    | Map::PerCpuArray(map)
    | Map::HashMap(map)
    | Map::LruHashMap(map)
    | Map::LpmTrie(map)
    | Map::RingBuf(map)) = map
    else {
        // What constants of the object are kept in.
        return Ok(0);
    };
    let path = PathBuf::from(format!(
        "/proc/self/fdinfo/{}",
        map.fd().as_fd().as_raw_fd()
    ));
    let text = fs::read_to_string(&path).map_err(|source| Error::Folder {
        path: path.clone(),
        source,
    })?;
    let memory = text
        .lines()
        .find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
    memory.ok_or_else(|| Error::Folder {
        path,
        source: io::Error::other("the kernel does not tell the map's memory"),
    })
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        // The pins are all that would stay; nothing hangs on them but memory.
        let _ = remove_folder(&self.folder);
    }
}
