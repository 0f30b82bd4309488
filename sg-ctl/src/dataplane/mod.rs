//! The only place that talks to BPF: makes the kernel hold what was compiled, and reads it back.
//!
//! An installed policy is a *layout* of maps with the programs that look at them, and the flows,
//! which outlive layouts. A change that fits is an update: entries differ, programs stay. One
//! that does not fit, or follows an interrupted command or another build, makes a new layout and
//! puts its programs under the links that are there; each packet meets the old program or the new.

mod audited;
mod clock;
mod counters;
mod edit;
mod ending;
mod events;
mod filters;
mod fitness;
mod flow_reports;
mod flow_tables;
mod foreign;
mod former;
mod grace;
mod hooks;
mod in_force;
mod installed;
mod maps;
#[cfg(feature = "measure")]
pub mod measure;
mod needs;
mod netlink;
mod numbers;
mod object;
mod per_cpu;
mod pins;
mod placing;
pub mod probe;
mod read_back;
mod refusal;
pub mod report;
mod seal;
mod sizes;
mod state;
mod sys;
mod tracing;
mod update;
mod verify;
mod wire;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};

use aya::EbpfError;
use aya::maps::{Array, MapData, MapError};
use aya::pin::PinError;
use aya::programs::ProgramError;
use aya::programs::links::LinkError;
use rand::random;
use sg_common::abi::{ABI, Globals, Interface, reasons_index};
use sg_common::event::EVENT_READERS;
use sg_common::flow::HashKey;
use sg_common::ids::Generation;
use sg_common::packet::Direction;
use thiserror::Error;

use self::audited::AuditMarks;
use self::counters::ReasonTotals;
use self::edit::Held;
pub use self::edit::PreparedEdit;
pub use self::ending::Ender;
pub use self::events::EventStream;
use self::filters::{Failure, Refused};
pub use self::fitness::{Unfit, unfit};
use self::flow_tables::{FlowRoom, FlowSize};
use self::grace::Grace;
use self::hooks::Instance;
use self::in_force::InForce;
pub use self::installed::{Installed, Judged, Standpoint};
use self::maps::{FLOW_MAPS, LayoutMaps, flows_folder, layout_folder};
use self::numbers::Numbers;
use self::per_cpu::{Counter, PerCpu};
use self::placing::Placing;
pub use self::report::{
    Attachment, FlowReport, FlowUsage, FullRoom, ReasonCount, ReceiveHook, RuleCount, TcHook,
    TcpMarks,
};
use self::sizes::Sizes;
pub use self::state::Owner;
use self::state::{DeviceRecord, Files, NetnsRecord, Record};
pub use self::tracing::{TraceSeat, TraceStream, TracedPacket, end_trace};
pub use self::verify::{Difference, Way};
use self::wire::Wire;
use crate::compile::image::Image;
use crate::compile::{AttachedInterface, CompileError, Limits, Live, Settings, compile};
use crate::crash::{self, Point};
use crate::interfaces::{self, Link, LinkLayer, Netns, NetnsId};
use crate::policy::mac::MacAddress;
use crate::policy::model::{self, OnRuleRemoval, Policy, Side};
use crate::policy::names::{InterfaceName, RuleId, VpcName};

/// More guests and VPCs than one command attaches.
const SKIPPED_NUMBERS: u32 = 1 << 10;

/// Assured flows there is room for unless told otherwise.
pub const DEFAULT_CAPACITY: u32 = 262_144;

/// How many assured flows there is room for when so many are asked for: the next size up.
pub fn room_for_flows(asked: u32) -> u32 {
    FlowSize::for_capacity(asked).capacity()
}

/// Why the kernel could not be made to hold a policy.
#[derive(Debug, Error)]
pub enum Error {
    /// The policy needs more than the maps may hold.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The policy has no such interface.
    #[error("interface {interface} is not in the policy of VPC {vpc}")]
    UnknownInterface {
        /// The VPC.
        vpc: VpcName,
        /// The interface.
        interface: InterfaceName,
    },
    /// Another program is attached at XDP.
    #[error(
        "interface {interface} has another XDP program (id {program}); \
         choose --hook tc, or --replace-xdp to take its place"
    )]
    ForeignXdp {
        /// The interface.
        interface: InterfaceName,
        /// The kernel's number of that program.
        program: u32,
    },
    /// Less room than the flows need that are alive.
    #[error(
        "{live} flows are alive, and tables half full are the most that they are moved to; let \
         them expire, or make the limit `flows` {least} or more"
    )]
    FlowsDoNotFit {
        /// Assured flows.
        live: u64,
        /// The lowest limit that can be set.
        least: u64,
    },
    /// What is in force is not laid out as this version's maps are.
    #[error(
        "an earlier version of sg-ctl has installed what is in force, and this one cannot look into \
         its tables; `sg-ctl restore` takes over without a gap"
    )]
    EarlierVersion,
    /// Flows are counted by interface in a map that an earlier version has made.
    #[error(
        "the tables in use have room for {has} interfaces; detach all interfaces first \
         (`sg-ctl detach --all`), then attach them again"
    )]
    FewOwners {
        /// How many there is room for.
        has: u32,
    },
    /// The kernel refuses a program.
    #[error("the kernel does not take program {name}: {}", refusal::said(source))]
    Program {
        /// Its name.
        name: &'static str,
        /// What the kernel says.
        source: Box<ProgramError>,
    },
    /// The kernel has not all that a program uses.
    #[error("the kernel cannot run program {name}, because it lacks {}", .lacks.join(", "))]
    Lacks {
        /// Its name.
        name: &'static str,
        /// What the kernel lacks; at least one thing.
        lacks: Vec<String>,
    },
    /// The object is not what it should be.
    #[error("the eBPF object has no program {0}")]
    ProgramMissing(&'static str),
    /// The object's instructions cannot be read.
    #[error("the eBPF object cannot be read: {0}")]
    Unreadable(Box<dyn std::error::Error + Send + Sync>),
    /// The kernel refuses the maps.
    #[error("the kernel does not take the eBPF object: {}", refusal::with_causes(.0.as_ref()))]
    Object(Box<EbpfError>),
    /// A map cannot be opened.
    #[error("cannot open map {name} at {}: {source}{}", path.display(), put_back(path))]
    Map {
        /// Its name.
        name: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What the kernel says.
        source: MapError,
    },
    /// A map entry cannot be written.
    #[error("cannot write a map: {0}")]
    Write(MapError),
    /// An array cannot be written through memory.
    #[error("cannot write a BPF array through memory: {0}")]
    Mapped(io::Error),
    /// A map entry cannot be read.
    #[error("cannot read a map: {0}")]
    Read(MapError),
    /// The kernel cannot say when its readers are done.
    #[error("cannot wait for the kernel's grace period: {0}")]
    Grace(io::Error),
    /// A program cannot be attached.
    #[error("cannot attach to {interface} at {}: {}", hook.name(), refusal::said(source))]
    Attach {
        /// The interface.
        interface: InterfaceName,
        /// Where.
        hook: ReceiveHook,
        /// What the kernel says.
        source: Box<ProgramError>,
    },
    /// Another XDP program cannot be taken off.
    #[error("cannot take the other XDP program off interface number {ifindex}: {source}")]
    RemoveXdp {
        /// The device.
        ifindex: u32,
        /// What the kernel says.
        source: io::Error,
    },
    /// What is installed was recorded by another version, in a way that this one cannot read.
    #[error(
        "{} was written by a version of sg-ctl whose tables this one cannot read; what it installed \
         stays in force. `sg-ctl restore --take-over` replaces it without a gap, but forgets which \
         flows are tracked: they go on where the rules allow them",
        path.display()
    )]
    Record {
        /// The record.
        path: PathBuf,
    },
    /// What was recorded is not what is in the file now.
    #[error(
        "{} is damaged; what was installed stays in force. `sg-ctl restore` installs what is stored \
         anew without a gap, but forgets which flows are tracked: they go on where the rules allow \
         them",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Somebody removed the record.
    #[error(
        "{0} is gone; what was installed stays in force. `sg-ctl restore` installs what is stored \
         anew without a gap, but forgets which flows are tracked: they go on where the rules allow \
         them",
        run.join("installed").display()
    )]
    RecordGone {
        /// The run folder.
        run: PathBuf,
    },
    /// The kernel does not say how often its timer ticks.
    #[error("cannot find out how often the kernel's timer ticks: {0}")]
    Tick(io::Error),
    /// An edit was to be installed that was not prepared.
    #[error("the policy in force is not kept compiled; prepare the whole policy")]
    NotHeld,
    /// The kernel has no grace periods to wait for.
    #[error(
        "this kernel refuses membarrier(2), as it does on machines with nohz_full CPUs; \
         sg cannot change a policy safely without it"
    )]
    NoGrace,
    /// A pinned link cannot be opened.
    #[error("cannot open the link at {}: {source}", path.display())]
    Link {
        /// Where it should be.
        path: PathBuf,
        /// What the kernel says.
        source: LinkError,
    },
    /// Something cannot be pinned.
    #[error("cannot pin {}: {source}", path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// What the kernel says.
        source: PinError,
    },
    /// Groups on the interface would not mean what they say.
    #[error("interface {interface} {why}")]
    Unfit {
        /// The interface.
        interface: InterfaceName,
        /// Why.
        why: Unfit,
    },
    /// The kernel is too old.
    #[error("this kernel attaches XDP programs without links, as Linux did before 5.9")]
    NoLinks,
    /// The kernel does not say how programs are attached at TC.
    #[error("cannot ask the kernel for its TCX links: {}", refusal::said(.0))]
    TcHook(Box<ProgramError>),
    /// A filter cannot be put in place.
    #[error("cannot attach to {interface} at tc: cannot {doing}: {source}")]
    Filter {
        /// The interface.
        interface: InterfaceName,
        /// What was attempted.
        doing: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// A filter cannot be taken away.
    #[error(
        "cannot detach from interface number {ifindex}: cannot {doing}: {source}; `tc filter show` \
         lists the filters"
    )]
    FilterLeft {
        /// The device.
        ifindex: u32,
        /// What was attempted.
        doing: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// Another queueing discipline is where clsact would be.
    #[error(
        "interface {interface} has the queueing discipline `{kind}`, which gives sg no packets that \
         are sent; replace it with `tc qdisc del dev {interface} {kind}` and `tc qdisc add dev \
         {interface} clsact`, and add its filters again with a priority of 2 or more"
    )]
    OtherQdisc {
        /// The interface.
        interface: InterfaceName,
        /// Its kind.
        kind: String,
    },
    /// Another filter runs first.
    #[error(
        "interface {interface} has a `{kind}` filter with priority 1, which would let packets pass \
         before sg judges them; give it a priority of 2 or more"
    )]
    OtherFilter {
        /// The interface.
        interface: InterfaceName,
        /// Its kind.
        kind: String,
    },
    /// Every ring of events has its reader.
    #[error(
        "{EVENT_READERS} commands read events already, and no more can; end one of those that run \
         `sg-ctl events` or `sg-ctl top`"
    )]
    TooManyReaders,
    /// One trace at a time.
    #[error("another command traces interface {0} already; wait until it ends")]
    TracedAlready(InterfaceName),
    /// Traced programs judge as the ordinary ones of the same build do.
    #[error(
        "the programs in force are those of another build of sg-ctl, or a command was interrupted \
         while it changed them; `sg-ctl restore` replaces them without a gap"
    )]
    OtherPrograms,
    /// Traced programs have no log.
    #[error("cannot read what the traced programs log: {0}")]
    Log(aya_log::Error),
    /// A network namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] interfaces::Error),
    /// A file or folder cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What to do about a pin that is gone.
fn put_back(path: &Path) -> &'static str {
    match path.exists() {
        true => "",
        false => "; its pin was removed, and `sg-ctl restore` puts it back",
    }
}

/// The link-layer address of a guest's end of the wire, where it counts and can be seen.
fn peer_mac(device: &Device, interface: &model::Interface) -> Option<MacAddress> {
    if interface.side == Side::Host || interface.macs != model::Macs::Peer {
        return None;
    }
    let mac = interfaces::peer_mac(&device.netns, &device.link)?;
    MacAddress::new(mac).ok()
}

impl Error {
    /// Why an interface has no filter.
    fn filter(interface: &InterfaceName, refused: impl Into<Refused>) -> Self {
        let interface = interface.clone();
        match refused.into() {
            Refused::Occupied(kind) => Self::OtherQdisc { interface, kind },
            Refused::Taken(filter) => Self::OtherFilter {
                interface,
                kind: filter.kind,
            },
            Refused::Failed(Failure::Kernel { doing, source }) => Self::Filter {
                interface,
                doing,
                source,
            },
            Refused::Failed(Failure::Netns(error)) => Self::Netns(error),
        }
    }

    /// Why a device keeps a filter.
    fn filter_left(ifindex: u32, failure: Failure) -> Self {
        match failure {
            Failure::Kernel { doing, source } => Self::FilterLeft {
                ifindex,
                doing,
                source,
            },
            Failure::Netns(error) => Self::Netns(error),
        }
    }

    /// The program that the kernel's verifier refuses, and the whole of its log.
    pub fn verifier_log(&self) -> Option<(&'static str, String)> {
        match self {
            Self::Program { name, source } => Some((name, refusal::verifier_log(source)?)),
            _ => None,
        }
    }

    /// Writes that log into the run folder, and says where; nothing where there is none.
    pub fn keep_verifier_log(&self, run: &Path) -> Option<String> {
        let (program, log) = self.verifier_log()?;
        Some(match refusal::write_log(run, program, &log) {
            Ok(path) => format!("the verifier's whole log is in {}", path.display()),
            Err(error) => format!(
                "the verifier's whole log cannot be written to {}: {error}",
                run.display()
            ),
        })
    }
}

/// A device that is to be protected, as the machine has it.
pub struct Device {
    /// Its VPC in the policy.
    pub vpc: VpcName,
    /// Its name in the policy, and the machine's.
    pub name: InterfaceName,
    /// Where it is.
    pub netns: Netns,
    /// What the machine says of it.
    pub link: Link,
}

/// What the kernel is to hold.
pub struct Wanted<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// Its interfaces that this machine has.
    pub devices: Vec<Device>,
    /// Judge every flow again by this policy.
    pub terminate: bool,
    /// The most assured flows, see [`room_for_flows`].
    pub capacity: u32,
    /// How much a policy may need.
    pub limits: Limits,
}

/// A policy that fits, not yet installed.
pub struct Prepared {
    image: Image,
    netns: Vec<NetnsRecord>,
    next_incarnation: u32,
    devices: Vec<PreparedDevice>,
    /// Those that the policy has, that hold their programs, and that cannot be found. They stay as
    /// closed as they are.
    astray: Vec<DeviceRecord>,
    flow_size: FlowSize,
    jiffies_per_second: u32,
    placing: Option<Placing>,
    staged: Option<Staged>,
    /// Passes until the places may be written that the policy before has left.
    rest: Option<Grace>,
    /// The compiled policy, if it is to be kept.
    live: Option<Box<Live>>,
}

impl Prepared {
    /// The tables that would be in force.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Whether nothing is to stay in the kernel.
    fn is_nothing(&self) -> bool {
        self.devices.is_empty() && self.astray.is_empty()
    }

    /// Nothing is protected, and nothing is to stay in the kernel.
    fn nothing() -> Self {
        Self {
            image: Image::default(),
            netns: Vec::new(),
            next_incarnation: 1,
            devices: Vec::new(),
            astray: Vec::new(),
            flow_size: FlowSize::for_capacity(0),
            jiffies_per_second: 0,
            placing: None,
            staged: None,
            rest: None,
            live: None,
        }
    }
}

/// A layout that no program under a link looks at. It goes again unless it is put in force.
struct Staged {
    record: Record,
    folder: PathBuf,
    is_kept: bool,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_kept {
            // The next installation removes what stays.
            let _ = remove_folder(&self.folder);
        }
    }
}

struct PreparedDevice {
    record: DeviceRecord,
    netns: Netns,
    to_try: &'static [ReceiveHook],
    /// What the names of its links' pins begin with where it was, if it has moved and taken its
    /// programs along.
    moved_from: Option<String>,
    /// Somebody else's XDP program goes first.
    replace_xdp: bool,
}

/// What an installation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The number of the policy now in force.
    pub generation: u32,
    /// Flows that found no room in tables of a new size, and are kept in the old ones.
    pub flows_left: u32,
}

/// The kernel's part of one run folder.
pub struct Dataplane {
    run: PathBuf,
    bpffs: PathBuf,
    files: Files,
    installed: Option<InForce>,
    owner: Option<Owner>,
    /// What is installed is kept compiled.
    keeps: bool,
    held: Option<Held>,
}

impl Dataplane {
    /// The files of the run folder that an installation writes.
    pub const RECORDS: &[&str] = &["installed"];

    /// Reads what was installed. Writers hold the run folder's lock.
    pub fn open(run: &Path, bpffs: &Path) -> Result<Self, Error> {
        let files = Files::in_folder(run);
        let installed = files.read()?;
        // After a reboot, or when somebody unmounted the maps, nothing is installed whatever the
        // record says. Single pins may be gone all the same.
        let mut installed = installed.filter(|_| Self::is_in_force(bpffs));
        // An installation writes the record before it takes the mark away.
        if installed.is_none()
            && Self::is_in_force(bpffs)
            && !files.is_marked()
            && files.read_owner()?.is_some()
            && files.read_record()?.is_none()
        {
            return Err(Error::RecordGone {
                run: run.to_path_buf(),
            });
        }
        if files.is_marked()
            && let Some(record) = &mut installed
        {
            // An interrupted command may have given out generations that it could not record.
            let generations = layouts(bpffs).into_iter().filter_map(|layout| {
                // Another version's layout need not have every map that this one has.
                let globals: Array<_, Wire<Globals>> =
                    maps::open(&layout_folder(bpffs, layout), "GLOBALS").ok()?;
                Some(globals.get(&0, 0).ok()?.0.generation)
            });
            for generation in generations {
                if Generation(record.generation).is_before(generation) {
                    record.generation = generation.0;
                }
            }
            record.next_incarnation += SKIPPED_NUMBERS;
            record.numbers.skip_vpcs(SKIPPED_NUMBERS);
        }
        let installed = installed.map(|record| InForce::recorded(bpffs, record));
        Ok(Self {
            run: run.to_path_buf(),
            bpffs: bpffs.to_path_buf(),
            files,
            installed,
            owner: None,
            keeps: false,
            held: None,
        })
    }

    /// Forgets a record that is damaged, or that this version cannot read. The programs it speaks of
    /// stay attached, and the next installation replaces them under their links.
    pub fn forget_unreadable(run: &Path) -> Result<(), Error> {
        let files = Files::in_folder(run);
        match files.read() {
            Err(Error::Record { .. } | Error::Damaged { .. }) => files.forget()?,
            read => drop(read?),
        }
        // What is pinned is accounted for by nothing, as after an interrupted command.
        files.mark()
    }

    /// Removes everything, whether its record can be read or not.
    pub fn remove_all(run: &Path, bpffs: &Path) -> Result<(), Error> {
        let mut dataplane = Self {
            run: run.to_path_buf(),
            bpffs: bpffs.to_path_buf(),
            files: Files::in_folder(run),
            installed: None,
            owner: None,
            keeps: false,
            held: None,
        };
        dataplane.remove_everything()
    }

    /// Whose policy is installed; `None` where nothing is, or an earlier version has installed it.
    pub fn owner(run: &Path) -> Result<Option<Owner>, Error> {
        Files::in_folder(run).read_owner()
    }

    /// Whether anything is pinned that judges packets.
    pub fn is_in_force(bpffs: &Path) -> bool {
        !layouts(bpffs).is_empty() || hooks::links(bpffs).next().is_some()
    }

    /// The next installation is this one's.
    pub fn set_owner(&mut self, owner: Option<Owner>) {
        self.owner = owner;
    }

    /// The devices that hold sg's programs and are not among these, in words. They lose
    /// their programs when a policy for these devices alone is installed.
    pub fn unprotected_with(bpffs: &Path, devices: &[Device]) -> Vec<String> {
        let wanted: Vec<(u64, u32)> = devices
            .iter()
            .map(|device| (device.netns.id().inode, device.link.ifindex))
            .collect();
        let held = hooks::held_devices(bpffs).into_iter();
        let left = held.filter(|device| !wanted.contains(device));
        left.map(|(netns, ifindex)| device_in_words(netns, ifindex))
            .collect()
    }

    fn instance(&self) -> Instance<'_> {
        Instance {
            run: &self.run,
            bpffs: &self.bpffs,
        }
    }

    fn record(&self) -> Option<&Record> {
        self.installed.as_ref().map(|in_force| &in_force.record)
    }

    /// What is in force, with the names behind its numbers and no tables.
    fn names(&self) -> Option<(&Record, &Image)> {
        let in_force = self.installed.as_ref()?;
        Some((&in_force.record, in_force.names()))
    }

    /// The tables in force, where an update by differences can begin from them.
    fn tables(&self) -> Option<(&Record, &Image)> {
        let in_force = self.installed.as_ref()?;
        match self.files.is_marked() {
            true => None,
            false => Some((&in_force.record, in_force.tables()?)),
        }
    }

    /// Puts back pins that somebody removed. What cannot be, the next installation makes anew, with
    /// everything that is left.
    pub fn mend_pins(&self) -> Result<(), Error> {
        match self.record() {
            Some(record) if !self.files.is_marked() => match pins::put_back(&self.bpffs, record)? {
                true => Ok(()),
                false => self.files.mark(),
            },
            _ => Ok(()),
        }
    }

    /// Compiles a policy and looks whether it can be installed. Changes nothing.
    pub fn prepare(&self, wanted: &Wanted<'_>) -> Result<Prepared, Error> {
        // Where the tables are to be made anew, only the numbers have to stay.
        let in_force = self.tables().or_else(|| self.names());
        let prepared = self.prepare_beside(in_force.map(|(_, image)| image), wanted)?;
        if self.record().is_some() {
            self.refuse_uncounted_flows(&prepared.image)?;
        }
        Ok(prepared)
    }

    /// The same beside these tables, without a look at whether all flows are counted.
    fn prepare_beside(
        &self,
        previous: Option<&Image>,
        wanted: &Wanted<'_>,
    ) -> Result<Prepared, Error> {
        if !sys::can_wait_for_readers() {
            return Err(Error::NoGrace);
        }
        let record = self.record();
        let our_programs = hooks::our_programs(&self.bpffs);
        let flow_size = FlowSize::for_capacity(wanted.capacity);
        if let Some(record) = record
            && !wanted.devices.is_empty()
        {
            self.refuse_fewer_flows(record, flow_size)?;
        }
        let mut netns = record.map_or_else(Vec::new, |record| record.netns.clone());
        let mut next_incarnation = record.map_or(1, |record| record.next_incarnation);
        let generation = Generation(record.map_or(0, |record| record.generation)).next();
        let mut devices = Vec::new();
        let mut attached = Vec::new();
        let tc = hooks::tc_hook();
        for device in &wanted.devices {
            let vpc = wanted.policy.vpcs.get(&device.vpc);
            let interface = vpc.and_then(|vpc| vpc.interfaces.get(&device.name));
            let (Some(vpc), Some(interface)) = (vpc, interface) else {
                return Err(Error::UnknownInterface {
                    vpc: device.vpc.clone(),
                    interface: device.name.clone(),
                });
            };
            // The controller says so, and refuses where the command is about it.
            if unfit(interface.hook, &device.netns, &device.link).is_some() {
                continue;
            }
            let number = netns_number(&mut netns, device.netns.id());
            let known = record
                .and_then(|record| same_device(record, device, number, interface))
                // Where the device has gone, another may have got its number.
                .filter(|known| {
                    hooks::is_attached(self.instance(), known)
                        && hooks::is_in(&self.bpffs, known, &device.netns)
                });
            let moved = match known {
                Some(_) => None,
                None => record.and_then(|record| self.moved_device(record, device)),
            };
            let known = known.or(moved.filter(|moved| moved.side() == interface.side));
            let incarnation = known.map_or_else(
                || {
                    next_incarnation += 1;
                    next_incarnation - 1
                },
                |known| known.incarnation,
            );
            let to_try = hooks::hooks_to_try(interface.hook, &device.link);
            let foreign = device
                .link
                .xdp_program
                .filter(|program| !our_programs.contains(program));
            refuse_foreign_xdp(device, interface, foreign, to_try)?;
            // What is not known of an interface's flows is found out at their next packets.
            let mut interfaces = previous
                .into_iter()
                .flat_map(|image| image.interfaces.values());
            let is_unread = interfaces.any(|found| {
                (found.netns, found.ifindex) == (number, device.link.ifindex)
                    && found.interface == Interface::default()
            });
            let judge_again = wanted.terminate
                || vpc.on_rule_removal == OnRuleRemoval::Terminate
                || known.is_none()
                || is_unread;
            attached.push(AttachedInterface {
                vpc: device.vpc.clone(),
                name: device.name.clone(),
                netns: number,
                ifindex: device.link.ifindex,
                bare: !matches!(device.link.link_layer, LinkLayer::Ethernet),
                incarnation,
                addresses: device
                    .link
                    .addresses
                    .iter()
                    .map(ipnet::IpNet::addr)
                    .collect(),
                peer_mac: peer_mac(device, interface),
                // What an earlier device of that name has opened is nothing to this one.
                judge_again_before: judge_again.then_some(generation),
            });
            devices.push(PreparedDevice {
                record: DeviceRecord {
                    vpc: device.vpc.clone(),
                    name: device.name.clone(),
                    netns: number,
                    netns_inode: device.netns.id().inode,
                    ifindex: device.link.ifindex,
                    guest: interface.side == Side::Guest,
                    hook: record
                        .and_then(|record| attached_hook(self.instance(), record, device, number))
                        .or(moved.map(|moved| moved.hook))
                        .filter(|hook| to_try.contains(hook))
                        .or_else(|| to_try.first().copied())
                        .unwrap_or(ReceiveHook::Tc),
                    tc,
                    incarnation,
                    slot: None,
                },
                netns: device.netns.clone(),
                to_try,
                moved_from: moved.map(DeviceRecord::link_prefix),
                replace_xdp: interface.replace_xdp && foreign.is_some(),
            });
        }
        let astray = self.astray(wanted, &devices);
        if devices.is_empty() && astray.is_empty() {
            return Ok(Prepared::nothing());
        }
        let settings = Settings {
            jiffies_per_second: self.jiffies_per_second()?,
            assured_flows: flow_size.capacity(),
            limits: wanted.limits,
        };
        let (image, live) = match self.keeps {
            true => {
                let mut live = Live::begin(wanted.policy, &attached, previous, &settings)?;
                (live.image(), Some(Box::new(live)))
            }
            false => {
                let image = compile(wanted.policy, &attached, previous, &settings)?;
                (image, None)
            }
        };
        let jiffies_per_second = settings.jiffies_per_second;
        Ok(Prepared {
            image,
            netns,
            next_incarnation,
            devices,
            astray,
            flow_size,
            jiffies_per_second,
            placing: None,
            staged: None,
            rest: None,
            live,
        })
    }

    /// As [`Self::prepare`], for [`Self::install`]: devices get links meanwhile that let everything
    /// pass, and lose them again unless what was prepared is installed.
    pub fn prepare_to_install(&self, wanted: &Wanted<'_>) -> Result<Prepared, Error> {
        let links = hooks::links_folder(&self.bpffs);
        let placing = Placing::begin(links, self.record(), wanted);
        let rest = self.record().map(|_| Grace::begin());
        Ok(Prepared {
            placing: Some(placing),
            rest,
            ..self.prepare(wanted)?
        })
    }

    /// An earlier version made the map that counts an interface's flows for fewer interfaces than
    /// there can be now, and it stays as long as the flows do.
    fn refuse_uncounted_flows(&self, image: &Image) -> Result<(), Error> {
        // A map that is gone is made anew.
        let owned = maps::open(&flows_folder(&self.bpffs), "OWNED");
        let has = owned.map_or(u32::MAX, |owned: Array<_, u32>| owned.len());
        match image.interfaces.keys().max() {
            Some(slot) if *slot >= has => Err(Error::FewOwners { has }),
            _ => Ok(()),
        }
    }

    /// What cannot be changed while flows are alive.
    fn refuse_fewer_flows(&self, record: &Record, flow_size: FlowSize) -> Result<(), Error> {
        if flow_size.buckets >= record.flows.size.buckets {
            return Ok(());
        }
        // In tables half full there is hardly ever a flow that both its buckets have no place for.
        let live = self.flow_usage()?.assured;
        match live * 2 <= u64::from(flow_size.capacity()) {
            true => Ok(()),
            false => Err(Error::FlowsDoNotFit {
                live,
                least: live * 2,
            }),
        }
    }

    /// The record of a device that was attached for the same interface elsewhere, and has taken its
    /// programs along.
    fn moved_device<'a>(&self, record: &'a Record, device: &Device) -> Option<&'a DeviceRecord> {
        let place = (device.netns.id().inode, device.link.ifindex);
        record.devices.iter().find(|known| {
            known.vpc == device.vpc
                && known.name == device.name
                && (known.netns_inode, known.ifindex) != place
                && hooks::held(self.instance(), known) == Some(device.link.ifindex)
                && hooks::is_in(&self.bpffs, known, &device.netns)
        })
    }

    /// Devices that the policy still has, that still hold their programs, and that are not among the
    /// wanted ones must not lose their protection to a command about something else.
    fn astray(&self, wanted: &Wanted<'_>, found: &[PreparedDevice]) -> Vec<DeviceRecord> {
        let devices = self.record().map_or(&[][..], |record| &record.devices);
        let is_astray = |device: &&DeviceRecord| {
            let prefix = device.link_prefix();
            let is_found = found.iter().any(|found| {
                found.record.link_prefix() == prefix || found.moved_from.as_ref() == Some(&prefix)
            });
            let vpc = wanted.policy.vpcs.get(&device.vpc);
            !is_found
                && vpc.is_some_and(|vpc| vpc.interfaces.contains_key(&device.name))
                && hooks::held(self.instance(), device).is_some()
        };
        devices.iter().filter(is_astray).cloned().collect()
    }

    /// `CONFIG_HZ`, as it was found when the first maps were made.
    fn jiffies_per_second(&self) -> Result<u32, Error> {
        match self.record() {
            Some(record) => Ok(record.jiffies_per_second),
            None => object::jiffies_per_second(),
        }
    }

    /// Makes the layout that an installation will put in force, if it needs one: what takes long, and
    /// what no packet can tell from its not being there.
    pub fn stage(&self, mut prepared: Prepared) -> Result<Prepared, Error> {
        let flows = match self.record() {
            // Flows have to be carried over step by step.
            Some(record) if !has_flows_of(record, &prepared) => return Ok(prepared),
            Some(record) => record.flows,
            None => FlowRoom {
                number: 1,
                size: prepared.flow_size,
            },
        };
        if prepared.is_nothing() || self.fits(&prepared) {
            return Ok(prepared);
        }
        if self.record().is_none() {
            self.remove_flows()?;
        }
        prepared.staged = Some(self.make_layout(self.record(), flows, None, &prepared)?);
        Ok(prepared)
    }

    /// Whether the layout in force can hold what was prepared.
    fn fits(&self, prepared: &Prepared) -> bool {
        self.tables().is_some_and(|(record, image)| {
            has_flows_of(record, prepared)
                && record.interface_places == prepared.image.interface_places
                && record.sizes.fit(image, &prepared.image)
        })
    }

    /// Makes the kernel hold what was prepared.
    pub fn install(&mut self, mut prepared: Prepared) -> Result<Outcome, Error> {
        self.held = None;
        if prepared.is_nothing() {
            let generation = self.record().map_or(0, |record| record.generation);
            self.remove_everything()?;
            return Ok(Outcome {
                generation,
                flows_left: 0,
            });
        }
        let fits = self.fits(&prepared);
        self.files.mark()?;
        crash::at(Point::Marked);
        // Behind the mark: an owner without a record is one whose record was lost.
        if let Some(owner) = &self.owner {
            self.files.write_owner(owner)?;
            crash::at(Point::OwnerWritten);
        }
        for device in &prepared.devices {
            if let Some(from) = &device.moved_from {
                hooks::rename_links(&self.bpffs, from, &device.record.link_prefix())?;
                crash::at(Point::LinksRenamed);
            }
        }
        let records = prepared.devices.iter().map(|device| &device.record);
        let wanted: Vec<String> = records
            .chain(&prepared.astray)
            .map(DeviceRecord::link_prefix)
            .collect();
        hooks::remove_links(self.instance(), |link| {
            wanted
                .iter()
                .any(|prefix| link.starts_with(prefix.as_str()))
        })?;
        crash::at(Point::UnwantedRemoved);
        self.mark_audited(&prepared.image)?;
        // What is known of the kernel stays known until something newer is.
        let rest = prepared.rest.take();
        let in_force = self.installed.as_ref().filter(|_| fits);
        let (record, flows_left) = match in_force.and_then(|it| Some((&it.record, it.tables()?))) {
            Some((record, image)) => {
                rest.unwrap_or_else(Grace::begin).end()?;
                (self.update(record.clone(), image, &prepared)?, 0)
            }
            None => self.lay_out_anew(&mut prepared)?,
        };
        self.files.write_record(&record)?;
        crash::at(Point::RecordWritten);
        self.files.unmark()?;
        crash::at(Point::Unmarked);
        self.remove_unused(&record)?;
        crash::at(Point::UnusedRemoved);
        let generation = record.generation;
        self.hold(&record, prepared.live)?;
        self.installed = Some(match self.keeps {
            // The tables are in memory already, as they were compiled.
            true => InForce::recorded(&self.bpffs, record),
            false => InForce::installed(&self.bpffs, record, prepared.image),
        });
        Ok(Outcome {
            generation,
            flows_left,
        })
    }

    /// Writes down what was counted so far for interfaces that begin or end to be audited.
    fn mark_audited(&self, next: &Image) -> Result<(), Error> {
        let before = self.files.read_audit_marks();
        let marks = match self.names() {
            Some((record, image)) => match ReasonTotals::open(&self.bpffs, record) {
                Ok(totals) => before.follow(image, next, &totals)?,
                // Counters that an earlier version has elsewhere begin anew.
                Err(Error::EarlierVersion) => AuditMarks::default(),
                Err(error) => return Err(error),
            },
            None => AuditMarks::default(),
        };
        match marks == before {
            true => Ok(()),
            false => {
                self.files.write_audit_marks(&marks)?;
                crash::at(Point::AuditNoted);
                Ok(())
            }
        }
    }

    fn globals(record: &Record) -> Globals {
        Globals {
            generation: Generation(record.generation),
            flow_mask: record.flows.size.buckets - 1,
            other_flow_mask: record.other_flows.map_or(0, |other| other.size.buckets - 1),
            hash_key: HashKey(record.hash_key),
            abi: ABI,
            interface_mask: record.interface_places - 1,
            jiffies_per_second: record.jiffies_per_second,
        }
    }

    fn update(
        &self,
        mut record: Record,
        image: &Image,
        prepared: &Prepared,
    ) -> Result<Record, Error> {
        // Traced programs tell of one policy, and stay under no other one.
        tracing::end_all(self.instance(), &record)?;
        let folder = layout_folder(&self.bpffs, record.layout);
        let mut maps = LayoutMaps::open(&folder)?;
        let globals = Self::globals(&record);
        let (after, ()) = update::update(&mut maps, &globals, image, &prepared.image, |_| ())?;
        record.generation = after.0;
        self.attach_all(&mut record, prepared, false)?;
        Ok(record)
    }

    /// Makes new maps, and tables of flows of another size where that is wanted. Returns how many
    /// flows found no room in them; those are kept where they are.
    fn lay_out_anew(&mut self, prepared: &mut Prepared) -> Result<(Record, u32), Error> {
        if let Some(staged) = prepared.staged.take() {
            let before = self.record().map(|before| before.layout);
            return Ok((self.put_in_force(before, staged, prepared)?, 0));
        }
        let Some(before) = self.record().cloned() else {
            self.remove_flows()?;
            let flows = FlowRoom {
                number: 1,
                size: prepared.flow_size,
            };
            return Ok((self.lay_out(None, flows, None, prepared)?, 0));
        };
        let mut before = before;
        // Tables that were named and could not be made hold nothing, and no program knows them.
        if let Some(other) = before.other_flows
            && !other.is_made(&self.bpffs)
        {
            remove_folder(&other.folder(&self.bpffs))?;
            before.other_flows = None;
        }
        if before.other_flows.is_some() {
            let (record, left) = self.join_tables(&before, prepared)?;
            if left > 0 {
                return Ok((record, left));
            }
            before = record;
        }
        if before.flows.size != prepared.flow_size {
            let old = before.flows;
            // An interrupted attempt may have left tables of another size.
            let used = numbered(&self.bpffs, flow_tables::FOLDER);
            let last = used.last().map_or(old.number, |last| old.number.max(*last));
            let new = FlowRoom {
                number: last + 1,
                size: prepared.flow_size,
            };
            self.remember_tables(old, Some(new))?;
            before = self.lay_out(Some(&before), old, Some(new), prepared)?;
            // Until no program is left that knows the old tables only.
            sys::wait_for_readers().map_err(Error::Grace)?;
            (before.flows, before.other_flows) = (new, Some(old));
            let (record, left) = self.join_tables(&before, prepared)?;
            if left > 0 {
                return Ok((record, left));
            }
            before = record;
        }
        let record = self.lay_out(Some(&before), before.flows, None, prepared)?;
        Ok((record, 0))
    }

    /// Carries flows over, from the record's other tables to its current ones. Returns how many
    /// found no room.
    fn join_tables(
        &mut self,
        before: &Record,
        prepared: &Prepared,
    ) -> Result<(Record, u32), Error> {
        let (flows, other) = (before.flows, before.other_flows);
        let record = self.lay_out(Some(before), flows, other, prepared)?;
        self.files.write_record(&record)?;
        self.installed = Some(InForce::recorded(&self.bpffs, record.clone()));
        crash::at(Point::BothTablesRead);
        let left = flow_tables::migrate(&self.bpffs, &record)?;
        crash::at(Point::FlowsMigrated);
        Ok((record, left))
    }

    /// A command that continues after an interruption must know of both pairs of tables.
    fn remember_tables(&mut self, flows: FlowRoom, other: Option<FlowRoom>) -> Result<(), Error> {
        if let Some(InForce { record, .. }) = &mut self.installed {
            (record.flows, record.other_flows) = (flows, other);
            self.files.write_record(record)?;
            crash::at(Point::TablesNamed);
        }
        Ok(())
    }

    /// Makes the maps of a layout, fills them, and puts programs that look at them under the links.
    fn lay_out(
        &self,
        before: Option<&Record>,
        flows: FlowRoom,
        other_flows: Option<FlowRoom>,
        prepared: &Prepared,
    ) -> Result<Record, Error> {
        let staged = self.make_layout(before, flows, other_flows, prepared)?;
        self.put_in_force(before.map(|before| before.layout), staged, prepared)
    }

    /// Makes the maps of a layout, fills them, and loads the programs that look at them.
    fn make_layout(
        &self,
        before: Option<&Record>,
        flows: FlowRoom,
        other_flows: Option<FlowRoom>,
        prepared: &Prepared,
    ) -> Result<Staged, Error> {
        let mut record = Record {
            fingerprint: object::fingerprint(),
            layout: self.free_layout(),
            sizes: Sizes::roomy(&prepared.image),
            flows,
            other_flows,
            interface_places: prepared.image.interface_places,
            generation: before.map_or(0, |before| before.generation),
            jiffies_per_second: prepared.jiffies_per_second,
            hash_key: before.map_or_else(random, |before| before.hash_key),
            netns: prepared.netns.clone(),
            devices: Vec::new(),
            next_incarnation: prepared.next_incarnation,
            numbers: Numbers::of(&prepared.image.ids),
        };
        let folder = layout_folder(&self.bpffs, record.layout);
        let mut object = object::load(&self.bpffs, &record, 0)?;
        object::pin_clock(&mut object, &folder)?;
        drop(object);
        crash::at(Point::LayoutMade);
        let mut maps = LayoutMaps::open(&folder)?;
        let nothing = Image {
            ids: prepared.image.ids.clone(),
            ..Image::default()
        };
        let globals = Self::globals(&record);
        let (after, ()) = update::update(&mut maps, &globals, &nothing, &prepared.image, |_| ())?;
        record.generation = after.0;
        crash::at(Point::LayoutFilled);
        for device in &prepared.devices {
            self.pin_programs(&record, &device.record)?;
        }
        crash::at(Point::LayoutLoaded);
        Ok(Staged {
            record,
            folder,
            is_kept: false,
        })
    }

    /// Puts the programs of a layout under the links. `before` is the layout that was in force.
    fn put_in_force(
        &self,
        before: Option<u32>,
        mut staged: Staged,
        prepared: &Prepared,
    ) -> Result<Record, Error> {
        // From here on somebody may look at it.
        staged.is_kept = true;
        let mut record = staged.record.clone();
        self.attach_all(&mut record, prepared, true)?;
        if let Some(before) = before {
            // Until the programs that count in the maps before have judged their last packet.
            sys::wait_for_readers().map_err(Error::Grace)?;
            let maps = LayoutMaps::open(&staged.folder)?;
            self.carry_counts(before, &maps, &prepared.image)?;
            crash::at(Point::CountsContinued);
        }
        Ok(record)
    }

    /// What was counted by the rules and interfaces that both layouts have is counted on.
    fn carry_counts(&self, from: u32, to: &LayoutMaps, image: &Image) -> Result<(), Error> {
        // An interrupted command may have left maps that cannot be read; counters then begin anew.
        let Ok(from) = LayoutMaps::open(&layout_folder(&self.bpffs, from)) else {
            return Ok(());
        };
        let rules = image.ids.rules.values();
        continue_counts(&from.rules, &to.rules, rules.map(|slot| slot.0))?;
        let known = self.names().map(|(_, image)| &image.interfaces);
        let kept = image.interfaces.iter().filter(|(slot, interface)| {
            let before = known.and_then(|known| known.get(slot));
            before.is_some_and(|before| before.is_device_of(interface))
        });
        let reasons = kept.flat_map(|(slot, _)| {
            let directions = Direction::ALL.into_iter();
            directions.map(|direction| reasons_index(*slot, direction))
        });
        continue_counts(&from.reasons, &to.reasons, reasons)
    }

    /// Every wanted device gets the layout's programs under its links; other links go. `replace`
    /// tells that the layout is new.
    fn attach_all(
        &self,
        record: &mut Record,
        prepared: &Prepared,
        replace: bool,
    ) -> Result<(), Error> {
        let folder = layout_folder(&self.bpffs, record.layout);
        record.netns.clone_from(&prepared.netns);
        record.next_incarnation = prepared.next_incarnation;
        record.numbers = Numbers::of(&prepared.image.ids);
        let slots = prepared.image.interfaces.iter();
        let slots: HashMap<_, _> = slots
            .map(|(slot, found)| ((found.netns, found.ifindex), *slot))
            .collect();
        let known = mem::take(&mut record.devices);
        for device in &prepared.devices {
            let mut wanted = device.record.clone();
            wanted.slot = slots.get(&(wanted.netns, wanted.ifindex)).copied();
            // A device that is attached keeps its hook; another takes the first that works.
            let hooks = if hooks::is_attached(self.instance(), &wanted) {
                vec![wanted.hook]
            } else {
                device.to_try.to_vec()
            };
            let mut result = Err(Error::NoLinks);
            for hook in hooks {
                wanted.hook = hook;
                self.pin_programs(record, &wanted)?;
                crash::at(Point::ProgramsPinned);
                if device.replace_xdp && hook != ReceiveHook::Tc {
                    foreign::remove_xdp(&device.netns, wanted.ifindex)?;
                }
                if let Some(placing) = &prepared.placing {
                    placing.keep();
                }
                // A link that was only placed lets everything pass.
                let replace = replace || !known.iter().any(|known| known.has_links_of(&wanted));
                result = hooks::ensure(self.instance(), &folder, &device.netns, &wanted, replace);
                if result.is_ok() {
                    break;
                }
            }
            result?;
            record.devices.push(wanted);
        }
        for device in &prepared.astray {
            self.pin_programs(record, device)?;
            if replace {
                hooks::replace(self.instance(), &folder, device)?;
            }
            record.devices.push(DeviceRecord {
                slot: None,
                ..device.clone()
            });
        }
        let kept: BTreeSet<String> = record
            .devices
            .iter()
            .flat_map(DeviceRecord::links)
            .collect();
        hooks::remove_links(self.instance(), |link| kept.contains(link))
    }

    /// Loads the programs a device needs, unless an earlier one of its namespace needed them.
    fn pin_programs(&self, record: &Record, device: &DeviceRecord) -> Result<(), Error> {
        let folder = layout_folder(&self.bpffs, record.layout);
        let missing: Vec<(&'static str, PathBuf)> =
            [object::TC_SEND, hooks::receive_program(device.hook)]
                .into_iter()
                .map(|name| (name, hooks::program_path(&folder, device.netns, name)))
                .filter(|(_, path)| !path.exists())
                .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut object = object::load(&self.bpffs, record, device.netns)?;
        object::pin_programs(&mut object, &missing)
    }

    /// A number that no folder has.
    fn free_layout(&self) -> u32 {
        let highest = layouts(&self.bpffs).into_iter().max().unwrap_or(0);
        highest.max(self.record().map_or(0, |record| record.layout)) + 1
    }

    /// Removes the layouts and tables of flows that a record does not speak of.
    fn remove_unused(&self, record: &Record) -> Result<(), Error> {
        for layout in layouts(&self.bpffs) {
            if layout != record.layout {
                remove_folder(&layout_folder(&self.bpffs, layout))?;
            }
        }
        let kept = [Some(record.flows), record.other_flows];
        for number in numbered(&self.bpffs, flow_tables::FOLDER) {
            let is_kept = |tables: &FlowRoom| tables.number == number;
            if !kept.iter().flatten().any(is_kept) {
                remove_folder(&flow_tables::folder(&self.bpffs, number))?;
            }
        }
        self.remove_former_maps()
    }

    /// Removes the maps beside the flows that only an earlier version used.
    fn remove_former_maps(&self) -> Result<(), Error> {
        let entries = fs::read_dir(flows_folder(&self.bpffs))
            .into_iter()
            .flatten();
        for entry in entries.flatten() {
            let is_used = FLOW_MAPS.iter().any(|name| entry.file_name() == *name);
            if !is_used {
                fs::remove_file(entry.path()).map_err(|source| Error::Folder {
                    path: entry.path(),
                    source,
                })?;
            }
        }
        Ok(())
    }

    fn remove_flows(&self) -> Result<(), Error> {
        for number in numbered(&self.bpffs, flow_tables::FOLDER) {
            remove_folder(&flow_tables::folder(&self.bpffs, number))?;
        }
        remove_folder(&flows_folder(&self.bpffs))
    }

    fn remove_everything(&mut self) -> Result<(), Error> {
        hooks::remove_links(self.instance(), |_| false)?;
        remove_folder(&hooks::links_folder(&self.bpffs))?;
        crash::at(Point::AllLinksRemoved);
        for layout in layouts(&self.bpffs) {
            remove_folder(&layout_folder(&self.bpffs, layout))?;
        }
        self.remove_flows()?;
        crash::at(Point::AllMapsRemoved);
        self.installed = None;
        self.files.clear()
    }

    /// The tables in force and their generation, for those who ask the same of the host. None where
    /// nothing is in force, or not what sg has installed.
    pub fn image(&self) -> Option<(&Image, Generation)> {
        let (record, image) = self.tables()?;
        Some((image, Generation(record.generation)))
    }

    /// The generation in force, with the names behind numbers of rules, groups and interfaces.
    pub fn numbered(&self) -> Option<(&Image, Generation)> {
        let (record, image) = self.names()?;
        Some((image, Generation(record.generation)))
    }

    /// The devices that programs were attached to, and whether they still are.
    pub fn attachments(&self) -> Result<Vec<Attachment>, Error> {
        let devices = self.record().map_or(&[][..], |record| &record.devices);
        Ok(devices
            .iter()
            .map(|device| attachment(self.instance(), device))
            .collect())
    }

    /// The same by the record alone.
    pub fn attachments_in(run: &Path, bpffs: &Path) -> Result<Vec<Attachment>, Error> {
        let record = Files::in_folder(run).read_record()?;
        let devices = record.map_or_else(Vec::new, |record| record.devices);
        Ok(devices
            .iter()
            .map(|device| attachment(Instance { run, bpffs }, device))
            .collect())
    }

    /// How often each reason applied; only those that did.
    pub fn reason_counts(&self) -> Result<Vec<ReasonCount>, Error> {
        match self.names() {
            Some((record, image)) => counters::reason_counts(
                &ReasonTotals::open(&self.bpffs, record)?,
                &self.files.read_audit_marks(),
                image,
            ),
            None => Ok(Vec::new()),
        }
    }

    /// What each rule that is in force admitted.
    pub fn rule_counts(&self) -> Result<HashMap<RuleId, RuleCount>, Error> {
        match self.names() {
            Some((record, image)) => counters::rule_counts(&self.bpffs, record, image),
            None => Ok(HashMap::new()),
        }
    }

    /// Calls `each` with every live flow.
    pub fn flows(&self, each: &mut dyn FnMut(FlowReport)) -> Result<(), Error> {
        match self.names() {
            Some((record, image)) => flow_reports::flows(&self.bpffs, record, image, each),
            None => Ok(()),
        }
    }

    /// How full the flow tables are.
    pub fn flow_usage(&self) -> Result<FlowUsage, Error> {
        match self.record() {
            Some(record) => flow_reports::flow_usage(&self.bpffs, record),
            None => Ok(FlowUsage::default()),
        }
    }

    /// What has no room for another connection.
    pub fn full_rooms(&self) -> Result<Vec<FullRoom>, Error> {
        match self.names() {
            Some((record, image)) => flow_reports::full_rooms(&self.bpffs, record, image),
            None => Ok(Vec::new()),
        }
    }
}

/// What a device is called where it can be seen from here.
fn device_in_words(netns: u64, ifindex: u32) -> String {
    let here = Netns::current()
        .ok()
        .filter(|here| here.id().inode == netns);
    let links = here.and_then(|here| interfaces::links(&here).ok());
    let link = links.and_then(|links| links.into_iter().find(|link| link.ifindex == ifindex));
    match link {
        Some(link) => link.name,
        None => format!("device {ifindex} of network namespace {netns}"),
    }
}

/// Whether flows can stay in the tables where they are.
fn has_flows_of(record: &Record, prepared: &Prepared) -> bool {
    record.flows.size == prepared.flow_size && record.other_flows.is_none()
}

/// The layouts that have a folder.
fn layouts(bpffs: &Path) -> BTreeSet<u32> {
    numbered(bpffs, maps::LAYOUT_FOLDER)
}

/// The numbers behind the names of folders that begin so.
fn numbered(bpffs: &Path, prefix: &str) -> BTreeSet<u32> {
    let entries = fs::read_dir(bpffs).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.strip_prefix(prefix)?.parse().ok()
        })
        .collect()
}

/// The number of a namespace, given when it is first met.
fn netns_number(known: &mut Vec<NetnsRecord>, id: NetnsId) -> u32 {
    if let Some(record) = known.iter().find(|record| record.is(id)) {
        return record.number;
    }
    let number = known.iter().map(|record| record.number).max().unwrap_or(0) + 1;
    known.push(NetnsRecord {
        number,
        device: id.device,
        inode: id.inode,
    });
    number
}

fn attachment(instance: Instance<'_>, device: &DeviceRecord) -> Attachment {
    Attachment {
        vpc: device.vpc.clone(),
        name: device.name.clone(),
        netns: device.netns,
        ifindex: device.ifindex,
        side: device.side(),
        hook: device.hook,
        tc: device.tc,
        attached: hooks::is_attached(instance, device),
        netns_inode: device.netns_inode,
        held: hooks::held(instance, device),
        link: hooks::sending_link(instance.bpffs, device),
    }
}

/// The record of the same device in the same role, whose flows go on.
fn same_device<'a>(
    record: &'a Record,
    device: &Device,
    netns: u32,
    interface: &model::Interface,
) -> Option<&'a DeviceRecord> {
    record.devices.iter().find(|known| {
        known.netns == netns
            && known.ifindex == device.link.ifindex
            && known.vpc == device.vpc
            && known.name == device.name
            && known.side() == interface.side
    })
}

/// The hook that receives on the device, in whichever role it was attached.
fn attached_hook(
    instance: Instance<'_>,
    record: &Record,
    device: &Device,
    netns: u32,
) -> Option<ReceiveHook> {
    let mut devices = record.devices.iter();
    let known =
        devices.find(|known| known.netns == netns && known.ifindex == device.link.ifindex)?;
    hooks::is_attached(instance, known).then_some(known.hook)
}

/// A foreign XDP program is never replaced unasked.
fn refuse_foreign_xdp(
    device: &Device,
    interface: &model::Interface,
    foreign: Option<u32>,
    to_try: &[ReceiveHook],
) -> Result<(), Error> {
    let wants_xdp = to_try.first().is_some_and(|hook| *hook != ReceiveHook::Tc);
    match foreign {
        Some(program) if wants_xdp && !interface.replace_xdp => Err(Error::ForeignXdp {
            interface: device.name.clone(),
            program,
        }),
        _ => Ok(()),
    }
}

/// Has the entries of a map go on from what those of an earlier map have counted.
fn continue_counts<C: Counter>(
    from: &Array<MapData, Wire<C>>,
    to: &Array<MapData, Wire<C>>,
    mut indexes: impl Iterator<Item = u32>,
) -> Result<(), Error> {
    let (from, mut to) = (PerCpu::open(from)?, PerCpu::open(to)?);
    indexes.try_for_each(|index| to.continue_from(&from, index))
}

fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Folder {
            path: path.to_path_buf(),
            source,
        }),
        _ => Ok(()),
    }
}
