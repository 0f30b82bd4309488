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
mod error;
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
mod layout;
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
mod plan;
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
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use aya::maps::Array;
use sg_common::abi::{ABI, Globals};
use sg_common::flow::HashKey;
use sg_common::ids::Generation;

use self::audited::AuditMarks;
use self::counters::ReasonTotals;
use self::edit::Held;
pub use self::edit::PreparedEdit;
pub use self::ending::Ender;
pub use self::error::Error;
pub use self::events::EventStream;
pub use self::fitness::{Unfit, unfit};
use self::flow_tables::FlowSize;
use self::grace::Grace;
use self::hooks::Instance;
use self::in_force::InForce;
pub use self::installed::{Installed, Judged, Standpoint};
use self::layout::{layouts, remove_folder};
use self::maps::{LayoutMaps, layout_folder};
use self::numbers::Numbers;
pub use self::plan::{Device, Prepared, Wanted};
pub use self::report::{
    Attachment, FlowReport, FlowUsage, FullRoom, ReasonCount, ReceiveHook, RuleCount, TcHook,
    TcpMarks,
};
pub use self::state::Owner;
use self::state::{DeviceRecord, Files, Record};
pub use self::tracing::{TraceSeat, TraceStream, TracedPacket, end_trace};
pub use self::verify::{Difference, Way};
use self::wire::Wire;
use crate::compile::image::Image;
use crate::crash::{self, Point};
use crate::interfaces::{self, Netns};
use crate::policy::names::RuleId;

/// More guests and VPCs than one command attaches.
const SKIPPED_NUMBERS: u32 = 1 << 10;

/// Assured flows there is room for unless told otherwise.
pub const DEFAULT_CAPACITY: u32 = 262_144;

/// How many assured flows there is room for when so many are asked for: the next size up.
pub fn room_for_flows(asked: u32) -> u32 {
    FlowSize::for_capacity(asked).capacity()
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
    /// What passes since the last installation, for the next one.
    rest: Mutex<Option<Grace>>,
}

impl Dataplane {
    /// The file of the run folder that says what is installed.
    pub const RECORD: &str = "installed";

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
            rest: Mutex::default(),
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
            rest: Mutex::default(),
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
        self.rest = Mutex::new(self.keeps.then(Grace::begin));
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
        // A device without links has no packet yet that could have read the old generation.
        let (_, attached) = update::update(&mut maps, &globals, image, &prepared.image, |after| {
            record.generation = after.0;
            self.attach_all(&mut record, prepared, false)?;
            Ok(record)
        })?;
        attached
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
