//! Traced programs under the links of one interface, for a while.
//!
//! They look at the maps of the layout in force, so that they judge as the ordinary programs do and
//! each packet meets one of the two. Their pins in the layout's folder say that they are there: what
//! ends a trace puts the ordinary programs back and removes them. So does every installation, be it
//! that the commands of a trace were killed.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::ProgramInfo;
use aya_log::EbpfLogger;
use log::{Log, Metadata};
use sg_common::abi::Globals;
use sg_common::decide::Step;
use sg_common::event::Event;
use sg_common::ids::Generation;
use sg_common::packet::Direction;
use sg_common::parse::{Content, Headers, Part};
use sg_common::ports::Service;
use sg_common::protocol::TcpFlags;
use sg_common::report::{Decision, Reason};
use sg_common::trace::{TraceFilter, TraceRecord};

use super::clock::Ticker;
use super::hooks::{self, Instance};
use super::maps::{layout_folder, open};
use super::state::{DeviceRecord, Files, Record};
use super::verify::Way;
use super::wire::{self, Wire};
use super::{Attachment, Dataplane, Error, object, sys};
use crate::dirs::open_file;
use crate::policy::names::InterfaceName;

/// How long the programs log for a command that says nothing. Renew it more often.
const LEASE_S: f64 = 5.0;

/// What the names of the pins of traced programs begin with.
const PIN: &str = "traced-";

/// One who only looks whether a seat is taken has it for less.
const SEAT_POLL: Duration = Duration::from_millis(20);
const SEAT_POLLS: u32 = 10;

const WAYS: [Way; 2] = [Way::Sent, Way::Received];

/// The right to trace an interface, while its file is locked.
pub struct TraceSeat {
    _file: File,
}

impl TraceSeat {
    /// Takes it, unless another command has it.
    pub fn take(
        run: &Path,
        interface: &InterfaceName,
        netns_inode: u64,
        ifindex: u32,
    ) -> Result<Self, Error> {
        let path = seat_path(run, netns_inode, ifindex);
        let wrong = |source| Error::Folder {
            path: path.clone(),
            source,
        };
        let file = open_file(&path).map_err(wrong)?;
        for _ in 0..SEAT_POLLS {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) => thread::sleep(SEAT_POLL),
                Err(TryLockError::Error(source)) => return Err(wrong(source)),
            }
        }
        Err(Error::TracedAlready(interface.clone()))
    }
}

fn seat_path(run: &Path, netns_inode: u64, ifindex: u32) -> PathBuf {
    run.join(format!("trace-{netns_inode}-{ifindex}.lock"))
}

/// Whether a command traces the device, or is about to put the ordinary programs back.
pub(super) fn is_live(run: &Path, device: &DeviceRecord) -> bool {
    let file = File::open(seat_path(run, device.netns_inode, device.ifindex));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Where a device's traced program is pinned.
fn pin_path(layout: &Path, device: &DeviceRecord, way: Way) -> PathBuf {
    let program = hooks::program_of_way(device, way);
    layout.join(format!("{PIN}{}{program}", device.link_prefix()))
}

/// The kernel's number of a device's traced program; `None` where there is none.
pub(super) fn program(layout: &Path, device: &DeviceRecord, way: Way) -> Option<u32> {
    pinned_program(&pin_path(layout, device, way))
}

fn pinned_program(path: &Path) -> Option<u32> {
    ProgramInfo::from_pin(path).ok().map(|info| info.id())
}

/// The pins of all traced programs of a layout.
fn pins(layout: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(layout).into_iter().flatten().flatten();
    let is_traced = |name: &str| name.starts_with(PIN);
    entries
        .filter(move |entry| entry.file_name().to_str().is_some_and(is_traced))
        .map(|entry| entry.path())
}

/// The kernel's numbers of all traced programs of a layout.
pub(super) fn traced_programs(layout: &Path) -> BTreeSet<u32> {
    pins(layout)
        .filter_map(|pin| pinned_program(&pin))
        .collect()
}

/// Puts the ordinary programs back wherever a traced one runs.
pub(super) fn end_all(instance: Instance<'_>, record: &Record) -> Result<(), Error> {
    let layout = layout_folder(instance.bpffs, record.layout);
    if pins(&layout).next().is_none() {
        return Ok(());
    }
    for device in &record.devices {
        end(instance, record, device)?;
    }
    // Of devices that are protected no more.
    pins(&layout).try_for_each(|pin| remove_pin(&pin))
}

/// Puts a device's ordinary programs back, if a traced one runs.
fn end(instance: Instance<'_>, record: &Record, device: &DeviceRecord) -> Result<(), Error> {
    let layout = layout_folder(instance.bpffs, record.layout);
    for way in WAYS {
        let pin = pin_path(&layout, device, way);
        let Some(traced) = pinned_program(&pin) else {
            continue;
        };
        if hooks::program(instance, device, way) == Some(traced) {
            let name = hooks::program_of_way(device, way);
            let ordinary = hooks::program_path(&layout, device.netns, name);
            // Nothing else holds it meanwhile.
            if !ordinary.exists() {
                let mut object = object::load(instance.bpffs, record, device.netns)?;
                object::pin_programs(&mut object, &[(name, ordinary.clone())])?;
            }
            hooks::put(instance, &ordinary, device, way)?;
        }
        remove_pin(&pin)?;
    }
    Ok(())
}

fn remove_pin(pin: &Path) -> Result<(), Error> {
    fs::remove_file(pin).map_err(|source| Error::Folder {
        path: pin.to_path_buf(),
        source,
    })
}

/// Puts the ordinary programs of a device back, if traced ones run. The caller has the run folder's
/// lock.
pub fn end_trace(run: &Path, bpffs: &Path, netns_inode: u64, ifindex: u32) -> Result<(), Error> {
    let Some(record) = Files::in_folder(run).read_record()? else {
        return Ok(());
    };
    let is_it =
        |device: &&DeviceRecord| (device.netns_inode, device.ifindex) == (netns_inode, ifindex);
    match record.devices.iter().find(is_it) {
        Some(device) => end(Instance { run, bpffs }, &record, device),
        None => Ok(()),
    }
}

/// What traced programs tell.
pub struct TraceStream {
    /// Holds the maps that are pinned nowhere.
    _object: Ebpf,
    logger: EbpfLogger<Carrier>,
    records: Receiver<TraceRecord>,
    filters: Array<MapData, Wire<TraceFilter>>,
    filter: TraceFilter,
    counts: PerCpuArray<MapData, u64>,
    read: u64,
    ticker: Ticker,
    globals: Array<MapData, Wire<Globals>>,
    generation: Generation,
    run: PathBuf,
    bpffs: PathBuf,
    device: DeviceRecord,
    programs: [Option<u32>; WAYS.len()],
}

/// A packet, and what the programs have made of it.
#[derive(Clone, Debug)]
pub struct TracedPacket {
    /// When, in nanoseconds since the machine has started.
    pub time_ns: u64,
    /// Relative to the interface.
    pub direction: Direction,
    /// What was read of the packet, as far as it is told.
    pub headers: Headers,
    /// What became of it.
    pub decision: Decision,
    /// What was looked at, in order.
    pub steps: Vec<Step>,
}

impl Dataplane {
    /// Puts traced programs under an interface's links, which tell of the packets that the filter
    /// takes. The caller has the run folder's lock and the interface's seat.
    pub fn trace(&self, at: &Attachment, filter: TraceFilter) -> Result<TraceStream, Error> {
        let record = self.record().ok_or(Error::OtherPrograms)?;
        let is_it = |device: &&DeviceRecord| {
            (device.netns_inode, device.ifindex) == (at.netns_inode, at.ifindex)
        };
        let device = record.devices.iter().find(is_it);
        let device = device.ok_or(Error::OtherPrograms)?;
        if record.fingerprint != object::fingerprint() || self.files.is_marked() {
            return Err(Error::OtherPrograms);
        }
        // What a killed command has left.
        end(self.instance(), record, device)?;
        let begun = self.begin_trace(record, device, filter);
        if begun.is_err() {
            end(self.instance(), record, device)?;
        }
        begun
    }

    fn begin_trace(
        &self,
        record: &Record,
        device: &DeviceRecord,
        filter: TraceFilter,
    ) -> Result<TraceStream, Error> {
        let layout = layout_folder(&self.bpffs, record.layout);
        let mut object = object::load_traced(&self.bpffs, record, device.netns)?;
        let pins = WAYS.map(|way| {
            let name = hooks::program_of_way(device, way);
            (name, pin_path(&layout, device, way))
        });
        object::pin_programs(&mut object, &pins)?;
        let (carrier, records) = Carrier::new();
        let logger = EbpfLogger::init_with_logger(&mut object, carrier).map_err(Error::Log)?;
        let mut stream = TraceStream {
            filters: take(&mut object, "TRACE_FILTER")?,
            counts: take(&mut object, "TRACE_COUNT")?,
            _object: object,
            logger,
            records,
            filter,
            read: 0,
            ticker: Ticker::open(&self.bpffs, record)?,
            globals: open(&layout, "GLOBALS")?,
            generation: Generation(0),
            run: self.run.clone(),
            bpffs: self.bpffs.clone(),
            device: device.clone(),
            programs: WAYS.map(|way| program(&layout, device, way)),
        };
        stream.generation = stream.generation_now()?;
        stream.renew()?;
        for (way, (_, pin)) in WAYS.into_iter().zip(&pins) {
            hooks::put(self.instance(), pin, device, way)?;
        }
        Ok(stream)
    }
}

/// One of an object's maps as what it is.
fn take<M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<M, Error> {
    let map = object.take_map(name).ok_or(Error::ProgramMissing(name))?;
    M::try_from(map).map_err(Error::Read)
}

impl TraceStream {
    /// Has the programs log for a few seconds more.
    pub fn renew(&mut self) -> Result<(), Error> {
        let clock = self.ticker.read()?;
        self.filter.until = clock.now.after(clock.ticks(LEASE_S));
        self.filters
            .set(0, Wire(self.filter), 0)
            .map_err(Error::Write)
    }

    /// Reads what was logged since.
    pub fn poll(&mut self) {
        self.logger.flush();
    }

    /// The oldest packet that was read and not taken yet.
    pub fn next_packet(&mut self) -> Option<TracedPacket> {
        loop {
            let record = self.records.try_recv().ok()?;
            // Its numbers are those of another policy: it counts as left out.
            if record.packet.generation == self.generation {
                self.read += 1;
                return Some(TracedPacket::of(&record));
            }
        }
    }

    /// How many packets the filter took that were not told.
    pub fn left_out(&self) -> Result<u64, Error> {
        let counted = self.counts.get(&0, 0).map_err(Error::Read)?;
        Ok(counted.iter().sum::<u64>().saturating_sub(self.read))
    }

    /// Whether the programs are still in place, and judge by the policy that they began with.
    pub fn goes_on(&self) -> Result<bool, Error> {
        let instance = Instance {
            run: &self.run,
            bpffs: &self.bpffs,
        };
        let runs = |(way, program): (Way, &Option<u32>)| {
            hooks::program(instance, &self.device, way) == *program
        };
        let is_in_place = WAYS.into_iter().zip(&self.programs).all(runs);
        Ok(is_in_place && self.generation_now()? == self.generation)
    }

    /// Waits until no packet is with the programs any more.
    pub fn wait_until_told(&self) -> Result<(), Error> {
        sys::wait_for_readers().map_err(Error::Grace)
    }

    fn generation_now(&self) -> Result<Generation, Error> {
        let Wire(globals) = self.globals.get(&0, 0).map_err(Error::Read)?;
        Ok(globals.generation)
    }
}

/// What aya-log writes to: takes the records out of its lines.
struct Carrier(Sender<TraceRecord>);

impl Carrier {
    fn new() -> (Self, Receiver<TraceRecord>) {
        let (sender, receiver) = mpsc::channel();
        (Self(sender), receiver)
    }
}

impl Log for Carrier {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, line: &log::Record<'_>) {
        let text = line.args().to_string();
        if let Some(record) = bytes_of_hex(&text).and_then(|bytes| wire::read(&bytes)) {
            // The receiver lives as long as this.
            let _ = self.0.send(record);
        }
    }

    fn flush(&self) {}
}

fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok();
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

impl TracedPacket {
    fn of(record: &TraceRecord) -> Self {
        let packet = &record.packet;
        let headers = headers(packet);
        let taken = record.steps.iter().take(record.taken as usize);
        let service = Service::of(&headers);
        Self {
            time_ns: packet.time_ns,
            direction: match u32::from(packet.direction) == Direction::Ingress.number() {
                true => Direction::Ingress,
                false => Direction::Egress,
            },
            headers,
            decision: Decision {
                reason: Reason::from_number(packet.reason.into()).unwrap_or(Reason::NoPolicy),
                rule: packet.rule,
            },
            steps: taken
                .filter_map(|step| step.step(&headers, service))
                .collect(),
        }
    }
}

/// What an event says of a packet's headers.
fn headers(packet: &Event) -> Headers {
    let parts = [Part::Whole, Part::First, Part::Later];
    let part = parts
        .into_iter()
        .find(|part| *part as u8 == packet.part)
        .unwrap_or_default();
    let content = match packet.content == Content::Ip as u8 {
        true => Content::Ip,
        false => Content::Refused,
    };
    Headers {
        source: packet.source,
        destination: packet.destination,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        icmp_type: packet.icmp_type,
        icmp_code: packet.icmp_code,
        protocol: packet.protocol,
        tcp_flags: TcpFlags(packet.tcp_flags),
        ethertype: packet.ethertype,
        packets: packet.packets,
        bytes: packet.bytes,
        part,
        content,
        ..Headers::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_goes_through_a_line_of_text() {
        let (carrier, records) = Carrier::new();
        let mut sent = TraceRecord {
            taken: 3,
            ..TraceRecord::default()
        };
        sent.packet.source_port = 0x1234;
        let text = wire::bytes_of(&[sent])
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        for line in [text.as_str(), "", "0", "zz", &text[2..]] {
            carrier.log(&log::Record::builder().args(format_args!("{line}")).build());
        }
        assert_eq!(records.try_recv(), Ok(sent));
        assert!(records.try_recv().is_err());
    }
}
