//! Reads the kernel's events.
//!
//! A reader takes one of a few seats, each with a ring of its own. Its lease in the kernel ends a
//! few seconds after it was last renewed, so that nothing is written for a reader that has died.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::maps::{Array, MapData, MapInfo, PerCpuArray, RingBuf};
use aya::programs::Xdp;
use sg_common::event::{EVENT_READERS, Event, EventKind, EventReader, EventScratch};
use sg_common::ids::Ticks;

use super::maps::{RINGS, flows_folder, layout_folder, open};
use super::wire::{self, Wire};
use super::{Dataplane, Error, object};

/// How long the kernel writes for a reader that says nothing. Renew it more often.
const LEASE_S: u32 = 3;

/// The events of one reader, from when it began to read.
pub struct EventStream {
    ring: RingBuf<MapData>,
    leases: Array<MapData, Wire<EventReader>>,
    wanted: Array<MapData, u32>,
    scratches: PerCpuArray<MapData, Wire<EventScratch>>,
    clock: Xdp,
    readings: Array<MapData, u64>,
    lease_ticks: u32,
    kinds: Vec<EventKind>,
    /// Until when the kernel writes, and when that was last said.
    until: Ticks,
    renewed: Ticks,
    jiffies_per_second: u32,
    seat: Seat,
    /// Packets that the seat's previous reader was not told of.
    unseen_before: [u64; EventKind::COUNT],
    flows_folder: PathBuf,
    map_number: u32,
}

impl Dataplane {
    /// Begins to read events of these kinds; `None` when nothing is installed.
    pub fn read_events(&self, kinds: &[EventKind]) -> Result<Option<EventStream>, Error> {
        let Some(record) = self.record() else {
            return Ok(None);
        };
        let flows = flows_folder(&self.bpffs);
        let layout = layout_folder(&self.bpffs, record.layout);
        let seat = Seat::take(&self.run)?;
        let ticks = (u64::from(LEASE_S) * u64::from(record.jiffies_per_second)) >> Ticks::SHIFT;
        let mut stream = EventStream {
            ring: open(&flows, seat.ring())?,
            leases: open(&flows, "READERS")?,
            wanted: open(&flows, "WANTED")?,
            scratches: open(&flows, "EVENT_SCRATCHES")?,
            clock: object::open_clock(&layout)?,
            readings: open(&layout, "CLOCK")?,
            lease_ticks: u32::try_from(ticks).unwrap_or(u32::MAX >> 1),
            kinds: kinds.to_vec(),
            until: Ticks(0),
            renewed: Ticks(0),
            jiffies_per_second: record.jiffies_per_second,
            seat,
            unseen_before: [0; EventKind::COUNT],
            map_number: map_number(&flows).unwrap_or_default(),
            flows_folder: flows,
        };
        // What was written for the seat's previous reader is not for this one.
        while stream.ring.next().is_some() {}
        stream.unseen_before = stream.unseen_ever()?;
        let now = stream.now()?;
        stream.renew_at(now)?;
        Ok(Some(stream))
    }
}

impl EventStream {
    /// The oldest event that was not read yet.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            // Records of another size are another build's: their fields are not known here.
            if let Some(event) = wire::read(&self.ring.next()?) {
                return Some(event);
            }
        }
    }

    /// Goes on reading for a few seconds more. Where that comes too late, because this process was
    /// stopped or waited for its own reader, the kernel has neither told nor counted anything
    /// meanwhile; then it returns the time since it was last renewed.
    pub fn renew(&mut self) -> Result<Option<Duration>, Error> {
        let now = self.now()?;
        let lapsed = self.until.has_passed(now).then(|| {
            let jiffies = u64::from(now.0.wrapping_sub(self.renewed.0)) << Ticks::SHIFT;
            Duration::from_secs(jiffies / u64::from(self.jiffies_per_second.max(1)))
        });
        self.renew_at(now)?;
        Ok(lapsed)
    }

    fn now(&self) -> Result<Ticks, Error> {
        object::run_clock(&self.clock, &self.readings).map(Ticks::from_jiffies)
    }

    fn renew_at(&mut self, now: Ticks) -> Result<(), Error> {
        let lease = EventReader {
            wants: self.kinds.iter().fold(0, |bits, kind| bits | kind.bit()),
            until: now.after(self.lease_ticks),
        };
        self.write_lease(lease)?;
        (self.until, self.renewed) = (lease.until, now);
        for kind in &self.kinds {
            self.wanted.set(kind.number(), 1, 0).map_err(Error::Write)?;
        }
        Ok(())
    }

    fn write_lease(&mut self, lease: EventReader) -> Result<(), Error> {
        let seat = self.seat.number;
        self.leases.set(seat, Wire(lease), 0).map_err(Error::Write)
    }

    /// By kind: packets that the kernel has not told of, because there were too many.
    pub fn unseen(&self) -> Result<[u64; EventKind::COUNT], Error> {
        let [drops, flows] = self.unseen_ever()?;
        let [drops_before, flows_before] = self.unseen_before;
        Ok([
            drops.saturating_sub(drops_before),
            flows.saturating_sub(flows_before),
        ])
    }

    fn unseen_ever(&self) -> Result<[u64; EventKind::COUNT], Error> {
        let cpus = self.scratches.get(&0, 0).map_err(Error::Read)?;
        let of_cpu = |Wire(scratch): &Wire<EventScratch>| {
            let seat = scratch.unseen.get(self.seat.number as usize);
            seat.copied().unwrap_or_default()
        };
        let add = |[drops, flows]: [u64; 2], [more_drops, more_flows]: [u64; 2]| {
            [drops + more_drops, flows + more_flows]
        };
        Ok(cpus.iter().map(of_cpu).fold([0; EventKind::COUNT], add))
    }

    /// Whether the kernel still writes here: when the last interface was detached and another is
    /// attached, there are new maps.
    pub fn is_current(&self) -> bool {
        map_number(&self.flows_folder) == Some(self.map_number)
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        // A lease that cannot be taken back ends by itself.
        let _ = self.write_lease(EventReader::default());
    }
}

/// The kernel's number of the map that leases are in.
fn map_number(flows: &Path) -> Option<u32> {
    Some(MapInfo::from_pin(flows.join("READERS")).ok()?.id())
}

/// The right to one of the rings, while its file is locked.
struct Seat {
    number: u32,
    _file: File,
}

impl Seat {
    fn take(run: &Path) -> Result<Self, Error> {
        for number in 0..EVENT_READERS as u32 {
            let path = run.join(format!("reader-{number}.lock"));
            let wrong = |source| Error::Folder {
                path: path.clone(),
                source,
            };
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(wrong)?;
            match file.try_lock() {
                Ok(()) => {
                    return Ok(Self {
                        number,
                        _file: file,
                    });
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(wrong(source)),
            }
        }
        Err(Error::TooManyReaders)
    }

    fn ring(&self) -> &'static str {
        RINGS.get(self.number as usize).copied().unwrap_or(RINGS[0])
    }
}
