//! Why the kernel could not be made to hold a policy.

use std::io;
use std::path::{Path, PathBuf};

use aya::EbpfError;
use aya::maps::MapError;
use aya::pin::PinError;
use aya::programs::ProgramError;
use aya::programs::links::LinkError;
use sg_common::event::EVENT_READERS;
use thiserror::Error;

use super::filters::{Failure, Refused};
use super::fitness::Unfit;
use super::report::ReceiveHook;
use super::{Dataplane, refusal};
use crate::compile::CompileError;
use crate::interfaces;
use crate::policy::names::{InterfaceName, VpcName};

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
    #[cfg(feature = "measure")]
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
        run.join(Dataplane::RECORD).display()
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
pub(super) fn put_back(path: &Path) -> &'static str {
    match path.exists() {
        true => "",
        false => "; its pin was removed, and `sg-ctl restore` puts it back",
    }
}

impl Error {
    /// Why an interface has no filter.
    pub(super) fn filter(interface: &InterfaceName, refused: impl Into<Refused>) -> Self {
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
    pub(super) fn filter_left(ifindex: u32, failure: Failure) -> Self {
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
