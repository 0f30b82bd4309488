//! Compares what the kernel holds with what was installed, and that with what is wanted.
//!
//! An installed policy can be undone behind its owner's back: a link detached or given another
//! program, a program put before ours, a map written to. Nothing here changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use sg_common::abi::{Interface, MemberKey};

use super::filters::Place;
use super::maps::layout_folder;
use super::read_back::{self, Tally};
use super::state::DeviceRecord;
use super::{
    Dataplane, Device, Error, ReceiveHook, TcHook, Wanted, hooks, layouts, object, pins, tracing,
};
use crate::compile::differing;
use crate::compile::image::{Image, MembersOf};
use crate::policy::model;
use crate::policy::names::{GroupName, InterfaceName, RuleId};

/// What is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// A command died while it wrote.
    #[error("a command was interrupted while it changed the kernel's tables")]
    Interrupted,
    /// The programs of another build are attached.
    #[error("the attached programs are those of another build of sg-ctl")]
    OtherBuild,
    /// What is stored can't be installed.
    #[error("what is stored cannot be installed: {0}")]
    Impossible(String),
    /// The policy has it and the kernel does not.
    #[error("interface {0} is not protected")]
    NotProtected(InterfaceName),
    /// The kernel has it and the policy does not.
    #[error("interface {0} is protected, and the policy does not have it")]
    Unwanted(InterfaceName),
    /// The settings differ.
    #[error("interface {0} has other groups or settings than the policy gives it")]
    Settings(InterfaceName),
    /// A rule is stored and not installed.
    #[error("rule {0} is not in force")]
    RuleMissing(RuleId),
    /// A rule is installed and not stored.
    #[error("rule {0} is in force, and the policy does not have it")]
    RuleUnwanted(RuleId),
    /// An address is in other groups than it was.
    #[error("{}", member(.address, .left, .joined))]
    Member {
        /// The address.
        address: String,
        /// Groups that it no longer belongs to.
        left: BTreeSet<GroupName>,
        /// Groups that it belongs to, and did not.
        joined: BTreeSet<GroupName>,
    },
    /// Compiling gives something else.
    #[error("{count} entries of {map} are not what the policy compiles to")]
    Compiled {
        /// The map.
        map: &'static str,
        /// How many.
        count: usize,
    },
    /// Somebody else wrote to a map.
    #[error(
        "map {map} is not as it was installed: {missing} entries are gone, {wrong} are changed, \
         {unknown} are not sg's; the first is {first}"
    )]
    Map {
        /// The map.
        map: &'static str,
        /// Entries that are not there.
        missing: usize,
        /// Entries with another value.
        wrong: usize,
        /// Entries that no update has installed.
        unknown: usize,
        /// One of them, in words.
        first: String,
    },
    /// A link is gone, or holds nothing any more.
    #[error("the program that judges {way} of {interface} was detached")]
    Detached {
        /// The interface.
        interface: InterfaceName,
        /// Which way its packets go.
        way: Way,
    },
    /// A device has taken its programs to another network namespace.
    #[error(
        "the device of interface {interface} has moved to another network namespace, where it is \
         number {ifindex}, and is not judged by its groups there"
    )]
    Moved {
        /// The interface.
        interface: InterfaceName,
        /// The device's number where it is now.
        ifindex: u32,
    },
    /// A link runs something else.
    #[error("another program (id {program}) runs where sg judges {way} of {interface}")]
    Replaced {
        /// The interface.
        interface: InterfaceName,
        /// Which way its packets go.
        way: Way,
        /// The kernel's number of the program.
        program: u32,
    },
    /// A trace did not end as it should.
    #[error(
        "a trace of interface {0} was killed, and its programs are still in place: they judge as \
         the ordinary ones do, and slower"
    )]
    TraceLeft(InterfaceName),
    /// Another program is asked first.
    #[error(
        "another program (id {program}) runs before sg's for {way} of {interface}: what it lets \
         pass is not judged"
    )]
    Preceded {
        /// The interface.
        interface: InterfaceName,
        /// Which way its packets go.
        way: Way,
        /// The kernel's number of the program.
        program: u32,
    },
    /// Somebody removed a pin.
    #[error("{} was removed", .0.display())]
    PinRemoved(PathBuf),
    /// Maps that nothing uses.
    #[error("tables of an interrupted command are left over (layout {0})")]
    Leftover(u32),
}

/// Which way packets go, as the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// The device receives them.
    Received,
    /// The device sends them.
    Sent,
}

impl Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Received => "received packets",
            Self::Sent => "sent packets",
        })
    }
}

impl Difference {
    /// The kind, for other programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::OtherBuild => "other-build",
            Self::Impossible(_) => "impossible",
            Self::NotProtected(_) => "not-protected",
            Self::Unwanted(_) => "unwanted",
            Self::Settings(_) => "settings",
            Self::RuleMissing(_) => "rule-missing",
            Self::RuleUnwanted(_) => "rule-unwanted",
            Self::Member { .. } => "member",
            Self::Compiled { .. } => "compiled",
            Self::Map { .. } => "map",
            Self::Detached { .. } => "detached",
            Self::Moved { .. } => "moved",
            Self::Replaced { .. } => "replaced",
            Self::TraceLeft(_) => "trace-left",
            Self::Preceded { .. } => "preceded",
            Self::PinRemoved(_) => "pin-removed",
            Self::Leftover(_) => "leftover",
        }
    }
}

impl Dataplane {
    /// Everything that differs from what is wanted. Writers are kept out by the run folder's lock.
    pub fn differences(&self, wanted: &Wanted<'_>) -> Result<Vec<Difference>, Error> {
        let mut found = Vec::new();
        if self.files.is_marked() {
            found.push(Difference::Interrupted);
        }
        let is_other_build = self
            .record()
            .is_some_and(|record| record.fingerprint != object::fingerprint());
        let removed = self
            .record()
            .map_or_else(Vec::new, |record| pins::missing(&self.bpffs, record));
        let nothing = Image::default();
        let names = self.names().map_or(&nothing, |(_, image)| image);
        // Another build's tables may be others, and those of an interrupted command are neither old nor
        // new; where a pin is gone, they are compared when it is back.
        let read = match self.record() {
            Some(record) if !is_other_build && !self.files.is_marked() => {
                let layout = layout_folder(&self.bpffs, record.layout);
                let is_whole = !removed.iter().any(|pin| pin.starts_with(&layout));
                let read = is_whole.then(|| read_back::tables(&self.bpffs, record, names));
                read.transpose()?
            }
            _ => None,
        };
        // Compiled anew, from nothing that is in force but its numbers.
        match self.prepare_beside(Some(names), wanted) {
            Ok(prepared) => {
                let (image, tallies) = match &read {
                    Some((image, tallies)) => (Some(image), tallies.as_slice()),
                    None => (None, &[][..]),
                };
                compare_images(names, image, tallies, &prepared.image, &mut found);
                // Where the device of one that the policy has is absent, that is said, and its rules
                // may be needed no longer.
                found.retain(|difference| match difference {
                    Difference::Unwanted(name) => !has_interface(wanted.policy, name),
                    Difference::RuleUnwanted(rule) => !has_rule(wanted.policy, *rule),
                    _ => true,
                });
            }
            Err(error) => found.push(Difference::Impossible(error.to_string())),
        }
        if let Some(record) = self.record() {
            if is_other_build {
                found.push(Difference::OtherBuild);
            }
            let tallies = read.into_iter().flat_map(|(_, tallies)| tallies);
            found.extend(tallies.filter_map(Tally::difference));
            found.extend(removed.into_iter().map(Difference::PinRemoved));
            for device in &record.devices {
                let is_in_place = |found: &&Device| {
                    found.link.ifindex == device.ifindex
                        && found.netns.id().inode == device.netns_inode
                };
                let place = wanted.devices.iter().find(is_in_place);
                if let Some(ifindex) = self.has_moved(device, place, wanted) {
                    let interface = &device.name;
                    // That is all there is to say of it.
                    found.retain(|other| match other {
                        Difference::NotProtected(name) | Difference::Unwanted(name) => {
                            name != interface
                        }
                        _ => true,
                    });
                    found.push(Difference::Moved {
                        interface: interface.clone(),
                        ifindex,
                    });
                    continue;
                }
                if place.is_none() && has_interface(wanted.policy, &device.name) {
                    continue;
                }
                self.compare_links(record.layout, device, place, &mut found)?;
            }
        }
        let kept = self.record().map(|record| record.layout);
        let left = layouts(&self.bpffs).into_iter();
        found.extend(
            left.filter(|layout| Some(*layout) != kept)
                .map(Difference::Leftover),
        );
        Ok(found)
    }

    /// Lets the next installation make everything anew, should the maps be other than recorded.
    pub fn distrust_changed_maps(&self) -> Result<(), Error> {
        self.mend_pins()?;
        let is_changed = match self.record() {
            Some(record) => {
                // Where entries only say something else, an update makes them what they should be.
                self.tables().is_none()
                    || record.devices.iter().any(|device| {
                        let mut found = Vec::new();
                        let compared = self.compare_links(record.layout, device, None, &mut found);
                        let is_replaced =
                            |found: &Difference| matches!(found, Difference::Replaced { .. });
                        compared.is_err() || found.iter().any(is_replaced)
                    })
            }
            None => false,
        };
        match is_changed {
            true => self.files.mark(),
            false => Ok(()),
        }
    }

    /// The number of a device that has left its network namespace with its programs. `place` is the
    /// device that has its number there now.
    fn has_moved(
        &self,
        device: &DeviceRecord,
        place: Option<&Device>,
        wanted: &Wanted<'_>,
    ) -> Option<u32> {
        let held = hooks::held(self.instance(), device)?;
        let is_on = |found: &Device| hooks::is_in(&self.bpffs, device, &found.netns);
        // Followed to where it has the same number.
        let is_elsewhere = |found: &Device| {
            (&found.vpc, &found.name) == (&device.vpc, &device.name)
                && found.link.ifindex == held
                && found.netns.id().inode != device.netns_inode
                && is_on(found)
        };
        let is_in_place = held == device.ifindex
            && place.is_none_or(is_on)
            && !wanted.devices.iter().any(is_elsewhere);
        (!is_in_place).then_some(held)
    }

    fn compare_links(
        &self,
        layout: u32,
        device: &DeviceRecord,
        place: Option<&Device>,
        found: &mut Vec<Difference>,
    ) -> Result<(), Error> {
        let layout = layout_folder(&self.bpffs, layout);
        let receive = hooks::receive_program(device.hook);
        for (way, name) in [(Way::Received, receive), (Way::Sent, object::TC_SEND)] {
            let interface = || device.name.clone();
            let Some(running) = hooks::program(self.instance(), device, way) else {
                let interface = interface();
                found.push(Difference::Detached { interface, way });
                continue;
            };
            // A pin that is gone is told of as such.
            let ours = program_id(&hooks::program_path(&layout, device.netns, name))?;
            let is_traced = tracing::program(&layout, device, way) == Some(running);
            if is_traced && !tracing::is_live(&self.run, device) {
                let left = Difference::TraceLeft(interface());
                if !found.contains(&left) {
                    found.push(left);
                }
            } else if !is_traced && ours.is_some_and(|ours| ours != running) {
                found.push(Difference::Replaced {
                    interface: interface(),
                    way,
                    program: running,
                });
            }
            let is_tc = way == Way::Sent || device.hook == ReceiveHook::Tc;
            if let Some(place) = place.filter(|_| is_tc)
                && let Some(program) = first_program(place, device.tc, way)?
                && program != running
            {
                let interface = interface();
                found.push(Difference::Preceded {
                    interface,
                    way,
                    program,
                });
            }
        }
        Ok(())
    }
}

/// The kernel's number of a pinned program; `None` when its pin is gone.
fn program_id(path: &Path) -> Result<Option<u32>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let info = ProgramInfo::from_pin(path).map_err(|source| Error::Program {
        name: "pinned",
        source: Box::new(source),
    })?;
    Ok(Some(info.id()))
}

/// Which program of a device's TC hook runs first. Nothing but a program can run before sg's: TCX
/// programs run before filters, and filters of another kind have another priority, after sg's.
fn first_program(device: &Device, tc: TcHook, way: Way) -> Result<Option<u32>, Error> {
    let attach_type = match way {
        Way::Received => TcAttachType::Ingress,
        Way::Sent => TcAttachType::Egress,
    };
    let name = device.link.name.as_str();
    let asked = device
        .netns
        .enter(|| SchedClassifier::query_tcx(name, attach_type))?;
    let programs = match asked {
        Ok((_, programs)) => programs,
        // A kernel without TCX.
        Err(_) if tc == TcHook::Clsact => Vec::new(),
        Err(source) => {
            return Err(Error::Attach {
                interface: device.name.clone(),
                hook: ReceiveHook::Tc,
                source: Box::new(source),
            });
        }
    };
    if let Some(first) = programs.first() {
        return Ok(Some(first.id()));
    }
    if tc == TcHook::Tcx {
        return Ok(None);
    }
    let place = Place {
        netns: &device.netns,
        ifindex: device.link.ifindex,
    };
    let filters = place.filters(way);
    let filters = filters.map_err(|failure| Error::filter(&device.name, failure))?;
    Ok(filters.first().and_then(|filter| filter.program))
}

/// What compiling gives now against what is in force, in the words of the policy where it has some.
/// `names` are those in force; `image` is what was read of the maps, if they could be, and `tallies`
/// what is wrong with them.
fn compare_images(
    names: &Image,
    image: Option<&Image>,
    tallies: &[Tally],
    wanted: &Image,
    found: &mut Vec<Difference>,
) {
    let before = found.len();
    compare_interfaces(names, wanted, image.is_some(), found);
    let [has, gets] = [names, wanted].map(|image| {
        let rules: BTreeSet<_> = image.ids.rules.keys().copied().collect();
        rules
    });
    found.extend(gets.difference(&has).copied().map(Difference::RuleMissing));
    found.extend(has.difference(&gets).copied().map(Difference::RuleUnwanted));
    let Some(image) = image else { return };
    compare_members(image, wanted, tallies, found);
    // The rest follows from these; where it does not, the numbers are all there is to say.
    if found.len() > before || !tallies.is_empty() {
        return;
    }
    let differing = differing(image, wanted).unwrap_or_else(|astray| vec![(astray.map, 1)]);
    found.extend(
        differing
            .into_iter()
            .map(|(map, count)| Difference::Compiled { map, count }),
    );
}

fn compare_members(image: &Image, wanted: &Image, tallies: &[Tally], found: &mut Vec<Difference>) {
    let members = image.members.keys().chain(wanted.members.keys());
    let members: BTreeSet<_> = members.collect();
    // Where a key was deleted, it is not its address that has left.
    let is_deleted = tallies.iter().any(|tally| tally.has_missing("MEMBERS"));
    let moved = members.into_iter().filter(|key| {
        let [was, is] = [image, wanted].map(|image| image.members.get(key));
        was.map(|member| member.identity) != is.map(|member| member.identity)
            && !(is_deleted && was.is_none())
    });
    found.extend(moved.map(|key| {
        let [was, is] = [image, wanted].map(|image| groups_of(image, key));
        Difference::Member {
            address: key.address.to_string(),
            left: was.difference(&is).cloned().collect(),
            joined: is.difference(&was).cloned().collect(),
        }
    }));
}

fn has_interface(policy: &model::Policy, name: &InterfaceName) -> bool {
    let mut vpcs = policy.vpcs.values();
    vpcs.any(|vpc| vpc.interface(name).is_some())
}

fn has_rule(policy: &model::Policy, rule: RuleId) -> bool {
    let groups = policy.vpcs.values().flat_map(|vpc| vpc.groups.values());
    let mut rules = groups.flat_map(|group| &group.rules);
    rules.any(|known| known.id == rule)
}

/// The groups of an address, of those that any rule names.
fn groups_of(image: &Image, key: &MemberKey) -> BTreeSet<GroupName> {
    let identity = image.members.get(key).map(|member| member.identity);
    let mut known = image.ids.identities.iter();
    let found = known.find(|(_, known)| Some(**known) == identity);
    match found.map(|(set, _)| &set.members_of) {
        Some(MembersOf::Groups(groups)) => groups.clone(),
        _ => BTreeSet::new(),
    }
}

/// Which groups an address belongs to now, against what the kernel knows.
fn member(address: &str, left: &BTreeSet<GroupName>, joined: &BTreeSet<GroupName>) -> String {
    let named = |groups: &BTreeSet<GroupName>| {
        let names: Vec<_> = groups.iter().map(GroupName::as_str).collect();
        match names.as_slice() {
            [one] => format!("group {one}"),
            several => format!("groups {}", several.join(", ")),
        }
    };
    match (left.is_empty(), joined.is_empty()) {
        (false, true) => format!("{address} no longer belongs to {}", named(left)),
        (true, false) => {
            format!(
                "{address} belongs to {}, and the kernel does not know it",
                named(joined)
            )
        }
        (false, false) => {
            format!(
                "{address} belongs to {}, and no longer to {}",
                named(joined),
                named(left)
            )
        }
        (true, true) => format!("{address} has another number in the kernel"),
    }
}

/// `is_read` tells that what is in force on interfaces is known.
fn compare_interfaces(
    installed: &Image,
    wanted: &Image,
    is_read: bool,
    found: &mut Vec<Difference>,
) {
    let by_device = |image: &Image| -> BTreeMap<_, _> {
        let interfaces = image.interfaces.values().cloned();
        interfaces.map(|i| ((i.netns, i.ifindex), i)).collect()
    };
    let (has, gets) = (by_device(installed), by_device(wanted));
    for (device, wanted) in &gets {
        let Some(installed) = has.get(device) else {
            found.push(Difference::NotProtected(wanted.name.clone()));
            continue;
        };
        // Which flows are judged again is for the moment of a change alone.
        let wanted_now = Interface {
            judge_again_before: installed.interface.judge_again_before,
            ..wanted.interface
        };
        // An entry that is gone is counted as such.
        let is_read = is_read && installed.interface != Interface::default();
        let is_named = (&installed.vpc, &installed.name) == (&wanted.vpc, &wanted.name);
        if !is_named || is_read && installed.interface != wanted_now {
            found.push(Difference::Settings(wanted.name.clone()));
        }
    }
    let gone = has.iter().filter(|(device, _)| !gets.contains_key(device));
    found.extend(gone.map(|(_, installed)| Difference::Unwanted(installed.name.clone())));
}
