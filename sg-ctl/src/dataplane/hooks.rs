//! Attaches programs to devices, moves attached ones to a newer layout, and detaches them.
//!
//! Links are pinned, so that enforcement needs no process. Where the kernel has no TCX links, a filter
//! of the device's clsact does the same; an empty folder where the link's pin would be says that it
//! is there. Replacing the program of either is one step for the kernel: each packet meets the old
//! program or the new one.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::SchedClassifierLink;
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, Xdp};
use aya::sys::SyscallError;
use aya_obj::programs::XdpAttachType;

use super::filters::{self, Place};
use super::fitness::Unfit;
use super::report::{ReceiveHook, TcHook};
use super::state::{DeviceRecord, FilterMark};
use super::verify::Way;
use super::{Error, object, probe, sys};
use crate::crash::{self, Point};
use crate::interfaces::{Kind, Link, Netns};
use crate::policy::model::Hook;

/// What tells the links and filters of one instance from those of others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instance<'a> {
    /// The run folder, which has one path for every process. That of the pins has not: a process with
    /// mounts of its own gets to them by another one's.
    pub(super) run: &'a Path,
    /// The folder of the pins.
    pub(super) bpffs: &'a Path,
}

impl Instance<'_> {
    fn handle(&self) -> u32 {
        filters::handle(self.run)
    }
}

/// Where the programs of a namespace are pinned.
pub(super) fn program_path(layout: &Path, netns: u32, program: &str) -> PathBuf {
    layout.join(format!("netns-{netns}-{program}"))
}

/// Where links are pinned.
pub(super) fn links_folder(bpffs: &Path) -> PathBuf {
    bpffs.join("links")
}

/// The hooks to try in turn. Native XDP makes a veth, tap or the like give up segmentation
/// offload, which costs more than it gains; a NIC's driver has it for free.
pub(super) fn hooks_to_try(hook: Hook, link: &Link) -> &'static [ReceiveHook] {
    match hook {
        Hook::Tc => &[ReceiveHook::Tc],
        Hook::Xdp => &[ReceiveHook::XdpNative],
        Hook::XdpGeneric => &[ReceiveHook::XdpGeneric],
        Hook::Auto if link.kind == Kind::Physical => &[ReceiveHook::XdpNative, ReceiveHook::Tc],
        Hook::Auto => &[ReceiveHook::Tc],
    }
}

/// The program that a hook runs.
pub(super) fn receive_program(hook: ReceiveHook) -> &'static str {
    match hook {
        ReceiveHook::XdpNative | ReceiveHook::XdpGeneric => object::XDP_RECEIVE,
        ReceiveHook::Tc => object::TC_RECEIVE,
    }
}

/// Has this word in its environment, sg-ctl attaches as on a kernel without TCX links: for tests.
const TC_HOOK: &str = "SG_TC_HOOK";

/// How programs are attached at TC on this machine.
pub(super) fn tc_hook() -> TcHook {
    let is_asked = env::var_os(TC_HOOK).is_some_and(|word| word == TcHook::Clsact.name());
    match is_asked {
        true => TcHook::Clsact,
        // Where the question is refused, attaching says why.
        false => probe::tc_hook().unwrap_or(TcHook::Tcx),
    }
}

/// Makes sure that a device has its programs, those of the layout. Programs that are in place are
/// replaced when `replace` says so.
pub(super) fn ensure(
    instance: Instance<'_>,
    layout: &Path,
    netns: &Netns,
    device: &DeviceRecord,
    replace: bool,
) -> Result<(), Error> {
    let folder = links_folder(instance.bpffs);
    fs::create_dir_all(&folder).map_err(|source| Error::Folder {
        path: folder.clone(),
        source,
    })?;
    // Those of a device that has moved away with this one's number are not this one's.
    let send = folder.join(device.link(Way::Sent));
    if device.tc == TcHook::Tcx && holds(&send, device) && !is_linked_in(&send, netns) {
        unpin(&send)?;
        unpin(&folder.join(device.link(Way::Received)))?;
    }
    let ensure_tc = |way| match device.tc {
        TcHook::Tcx => ensure_tcx(&folder, layout, netns, device, way, replace),
        TcHook::Clsact => {
            let program = program_path(layout, device.netns, tc_program(way));
            ensure_filter(instance, &program, netns, device, way, replace)
        }
    };
    ensure_tc(Way::Sent)?;
    match device.hook {
        ReceiveHook::Tc => ensure_tc(Way::Received),
        ReceiveHook::XdpNative => {
            ensure_xdp(&folder, layout, netns, device, XdpMode::Driver, replace)
        }
        ReceiveHook::XdpGeneric => {
            ensure_xdp(&folder, layout, netns, device, XdpMode::Skb, replace)
        }
    }
}

/// The program that judges at TC.
fn tc_program(way: Way) -> &'static str {
    match way {
        Way::Received => object::TC_RECEIVE,
        Way::Sent => object::TC_SEND,
    }
}

fn ensure_tcx(
    folder: &Path,
    layout: &Path,
    netns: &Netns,
    device: &DeviceRecord,
    way: Way,
    replace: bool,
) -> Result<(), Error> {
    let link = folder.join(device.link(way));
    let program = program_path(layout, device.netns, tc_program(way));
    if holds(&link, device) {
        return match replace {
            true => replace_tc(&link, &program, device),
            false => Ok(()),
        };
    }
    unpin(&link)?;
    let attach_type = match way {
        Way::Received => TcAttachType::Ingress,
        Way::Sent => TcAttachType::Egress,
    };
    let program = sys::open_pin(&program).map_err(|source| Error::Folder {
        path: program,
        source,
    })?;
    attach_tc(program.as_fd(), netns, device, attach_type, &link)
}

fn ensure_xdp(
    folder: &Path,
    layout: &Path,
    netns: &Netns,
    device: &DeviceRecord,
    mode: XdpMode,
    replace: bool,
) -> Result<(), Error> {
    let link = folder.join(device.link(Way::Received));
    let program = program_path(layout, device.netns, object::XDP_RECEIVE);
    if holds(&link, device) {
        return match replace {
            true => replace_xdp(&link, &program, device),
            false => Ok(()),
        };
    }
    unpin(&link)?;
    pin(attach_xdp(&program, netns, device, mode)?, &link)
}

fn ensure_filter(
    instance: Instance<'_>,
    program: &Path,
    netns: &Netns,
    device: &DeviceRecord,
    way: Way,
    replace: bool,
) -> Result<(), Error> {
    let wrong = |refused| Error::filter(&device.name, refused);
    let (folder, handle) = (links_folder(instance.bpffs), instance.handle());
    let place = Place {
        netns,
        ifindex: device.ifindex,
    };
    let running = place.program(way, handle);
    let running = running.map_err(|failure| Error::filter(&device.name, failure))?;
    if !replace && running.is_some() {
        return Ok(());
    }
    // Each mark is made before what it marks: a killed command leaves nothing that detaching misses.
    mark(&folder.join(device.link(way)))?;
    crash::at(Point::FilterMarked);
    let own = folder.join(device.filter_mark(FilterMark::Clsact));
    let is_ours = own.exists();
    mark(&own)?;
    if !place.add_clsact().map_err(wrong)? && !is_ours {
        unmark(&own)?;
    }
    crash::at(Point::ClsactAdded);
    let opened = sys::open_pin(program).map_err(|source| Error::Folder {
        path: program.to_path_buf(),
        source,
    })?;
    place
        .put(way, handle, tc_program(way), opened.as_fd())
        .map_err(wrong)?;
    crash::at(Point::FilterPut);
    Ok(())
}

fn mark(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(Error::Folder {
            path: path.to_path_buf(),
            source,
        }),
        _ => Ok(()),
    }
}

fn unmark(path: &Path) -> Result<(), Error> {
    match fs::remove_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Folder {
            path: path.to_path_buf(),
            source,
        }),
        _ => Ok(()),
    }
}

/// The program that judges a device's packets of one way.
pub(super) fn program_of_way(device: &DeviceRecord, way: Way) -> &'static str {
    match way {
        Way::Received => receive_program(device.hook),
        Way::Sent => object::TC_SEND,
    }
}

/// Has a device's links and filters run the layout's programs, wherever it is.
pub(super) fn replace(
    instance: Instance<'_>,
    layout: &Path,
    device: &DeviceRecord,
) -> Result<(), Error> {
    for way in [Way::Sent, Way::Received] {
        let program = program_path(layout, device.netns, program_of_way(device, way));
        put(instance, &program, device, way)?;
    }
    Ok(())
}

/// Has a device's link or filter run a pinned program. Each packet meets the one before or this one.
pub(super) fn put(
    instance: Instance<'_>,
    program: &Path,
    device: &DeviceRecord,
    way: Way,
) -> Result<(), Error> {
    if device.has_filter(way) {
        return match Netns::with_inode(device.netns_inode) {
            Some(netns) => ensure_filter(instance, program, &netns, device, way, true),
            None => Ok(()),
        };
    }
    let link = links_folder(instance.bpffs).join(device.link(way));
    match (way, device.hook) {
        (Way::Received, ReceiveHook::XdpNative | ReceiveHook::XdpGeneric) => {
            replace_xdp(&link, program, device)
        }
        (Way::Received, ReceiveHook::Tc) | (Way::Sent, _) => replace_tc(&link, program, device),
    }
}

pub(super) fn pin(link: FdLink, path: &Path) -> Result<(), Error> {
    crash::at(Point::LinkMade);
    link.pin(path).map(drop).map_err(|source| Error::Pin {
        path: path.to_path_buf(),
        source,
    })?;
    crash::at(Point::LinkPinned);
    Ok(())
}

fn open_tc(program: &Path, device: &DeviceRecord) -> Result<SchedClassifier, Error> {
    SchedClassifier::from_pin(program).map_err(|source| Error::Attach {
        interface: device.name.clone(),
        hook: ReceiveHook::Tc,
        source: Box::new(source),
    })
}

/// Makes a link and pins it.
pub(super) fn attach_tc(
    program: BorrowedFd<'_>,
    netns: &Netns,
    device: &DeviceRecord,
    way: TcAttachType,
    path: &Path,
) -> Result<(), Error> {
    // First in line: no program before it can let a packet pass unjudged.
    let attached = netns
        .enter_briefly(|| sys::link_first(program, device.ifindex, way))
        .map_err(Error::Netns)?;
    let link = attached.map_err(|io_error| Error::Attach {
        interface: device.name.clone(),
        hook: ReceiveHook::Tc,
        source: Box::new(ProgramError::from(SyscallError {
            call: "bpf_link_create",
            io_error,
        })),
    })?;
    crash::at(Point::LinkMade);
    sys::pin(link.as_fd(), path).map_err(|source| Error::Folder {
        path: path.to_path_buf(),
        source,
    })?;
    crash::at(Point::LinkPinned);
    Ok(())
}

fn attach_xdp(
    program: &Path,
    netns: &Netns,
    device: &DeviceRecord,
    mode: XdpMode,
) -> Result<FdLink, Error> {
    let wrong = |source: ProgramError| match source {
        // What every driver without it answers: `dev_xdp_attach` of
        // <https://github.com/torvalds/linux/blob/v6.18/net/core/dev.c>.
        ProgramError::SyscallError(error)
            if device.hook == ReceiveHook::XdpNative
                && error.io_error.raw_os_error() == Some(libc::EOPNOTSUPP) =>
        {
            Error::Unfit {
                interface: device.name.clone(),
                why: Unfit::NoNativeXdp,
            }
        }
        source => Error::Attach {
            interface: device.name.clone(),
            hook: device.hook,
            source: Box::new(source),
        },
    };
    let mut program = Xdp::from_pin(program, XdpAttachType::Interface).map_err(wrong)?;
    let attached = netns
        .enter(|| {
            let id = program.attach_to_if_index(device.ifindex, mode)?;
            program.take_link(id)
        })
        .map_err(Error::Netns)?;
    let link: XdpLink = attached.map_err(wrong)?;
    FdLink::try_from(link).map_err(|_| Error::NoLinks)
}

fn open_link(path: &Path) -> Result<FdLink, Error> {
    let link = PinnedLink::from_pin(path).map_err(|source| Error::Link {
        path: path.to_path_buf(),
        source,
    })?;
    Ok(FdLink::from(link))
}

fn replace_tc(link: &Path, program: &Path, device: &DeviceRecord) -> Result<(), Error> {
    let wrong = |source: ProgramError| Error::Attach {
        interface: device.name.clone(),
        hook: ReceiveHook::Tc,
        source: Box::new(source),
    };
    let mut program = open_tc(program, device)?;
    let held = SchedClassifierLink::try_from(open_link(link)?).map_err(|source| Error::Link {
        path: link.to_path_buf(),
        source,
    })?;
    // The pin keeps the link when this descriptor closes.
    program.attach_to_link(held).map_err(wrong)?;
    crash::at(Point::LinkReplaced);
    Ok(())
}

fn replace_xdp(link: &Path, program: &Path, device: &DeviceRecord) -> Result<(), Error> {
    let wrong = |source: ProgramError| Error::Attach {
        interface: device.name.clone(),
        hook: device.hook,
        source: Box::new(source),
    };
    let mut program = Xdp::from_pin(program, XdpAttachType::Interface).map_err(wrong)?;
    let held = XdpLink::try_from(open_link(link)?).map_err(|source| Error::Link {
        path: link.to_path_buf(),
        source,
    })?;
    program.attach_to_link(held).map_err(wrong)?;
    crash::at(Point::LinkReplaced);
    Ok(())
}

/// Takes away every link and filter for whose name `is_wanted` says no.
pub(super) fn remove_links(
    instance: Instance<'_>,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let folder = links_folder(instance.bpffs);
    let entries = fs::read_dir(&folder);
    let names = entries.into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let (marked, links): (Vec<_>, Vec<_>) = names
        .filter(|name| !is_wanted(name))
        .map(|name| (folder.join(&name), FilterMark::of_name(&name)))
        .partition(|(_, mark)| mark.is_some());
    for (link, _) in links {
        unpin(&link)?;
    }
    let mut marked: Vec<_> = marked
        .into_iter()
        .filter_map(|(path, mark)| Some((mark?, path)))
        .collect();
    // A clsact goes after its filters.
    marked.sort_by_key(|((_, _, mark), _)| *mark);
    for ((netns_inode, ifindex, mark), path) in marked {
        // Filters go with their namespace.
        if let Some(netns) = Netns::with_inode(netns_inode) {
            let place = Place {
                netns: &netns,
                ifindex,
            };
            let removed = match mark {
                FilterMark::Filter(way) => place.remove(way, instance.handle()),
                FilterMark::Clsact => place.remove_unused_clsact(),
            };
            removed.map_err(|failure| Error::filter_left(ifindex, failure))?;
            crash::at(Point::FilterRemoved);
        }
        unmark(&path)?;
    }
    Ok(())
}

/// Detaches a link and removes its pin.
///
/// Removing the pin would be enough but for the moment: the kernel gives up what was pinned after a
/// grace period, from a work queue, and until then the program would drop packets of an interface
/// that is not protected any more (`bpf_free_inode` and `bpf_link_put` of
/// <https://github.com/torvalds/linux/blob/v6.18/kernel/bpf/>).
pub(super) fn unpin(path: &Path) -> Result<(), Error> {
    // A link whose device is gone cannot be detached, and need not be.
    if sys::open_pin(path)
        .and_then(|link| sys::detach(&link))
        .is_ok()
    {
        crash::at(Point::LinkDetached);
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Folder {
            path: path.to_path_buf(),
            source,
        }),
        _ => Ok(()),
    }
}

/// The pins of our links.
pub(super) fn links(bpffs: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(links_folder(bpffs)).into_iter().flatten();
    entries.flatten().map(|entry| entry.path())
}

/// The programs under our links, by the kernel's numbers.
pub(super) fn our_programs(bpffs: &Path) -> BTreeSet<u32> {
    let ends = links(bpffs).filter_map(|link| ends(&link));
    ends.map(|ends| ends.program).collect()
}

/// The devices that our links and filters hold: the inode of the namespace in which they were
/// attached, and their number now.
pub(super) fn held_devices(bpffs: &Path) -> BTreeSet<(u64, u32)> {
    let held = links(bpffs).filter_map(|link| {
        let name = link.file_name()?.to_str()?;
        if let Some((netns_inode, ifindex, mark)) = FilterMark::of_name(name) {
            return matches!(mark, FilterMark::Filter(_)).then_some((netns_inode, ifindex));
        }
        let ends = ends(&link).filter(|ends| ends.ifindex != 0)?;
        Some((name.split('-').next()?.parse().ok()?, ends.ifindex))
    });
    held.collect()
}

/// The program that a pinned link runs, by the kernel's number.
pub(super) fn program_of(link: &Path) -> Option<u32> {
    ends(link).map(|ends| ends.program)
}

/// What a pinned link joins.
fn ends(link: &Path) -> Option<sys::LinkEnds> {
    let link = sys::open_pin(link).ok()?;
    sys::link_ends(&link).ok()
}

/// The number of the device that has both programs now. None where one of them is gone.
pub(super) fn held(instance: Instance<'_>, device: &DeviceRecord) -> Option<u32> {
    let folder = links_folder(instance.bpffs);
    let holder = |way| match device.has_filter(way) {
        // A filter stays where it was made.
        true => program(instance, device, way).map(|_| device.ifindex),
        false => ends(&folder.join(device.link(way))).map(|ends| ends.ifindex),
    };
    let send = holder(Way::Sent)?;
    (send != 0 && holder(Way::Received) == Some(send)).then_some(send)
}

/// Whether the device that has an interface's programs is in a namespace.
pub(super) fn is_in(bpffs: &Path, device: &DeviceRecord, netns: &Netns) -> bool {
    match sending_link(bpffs, device) {
        Some(link) => is_linked_in(&link, netns),
        None => netns.id().inode == device.netns_inode,
    }
}

/// The pin of the link that judges what is sent; none where a filter does.
pub(super) fn sending_link(bpffs: &Path, device: &DeviceRecord) -> Option<PathBuf> {
    let link = links_folder(bpffs).join(device.link(Way::Sent));
    (!device.has_filter(Way::Sent)).then_some(link)
}

/// Whether a sending link is on a device of a namespace. Links go with their devices to another
/// namespace, where the device may keep its number while another one gets it here.
pub(super) fn is_linked_in(send_link: &Path, netns: &Netns) -> bool {
    let Some(ends) = ends(send_link).filter(|ends| ends.ifindex != 0) else {
        return false;
    };
    match netns.enter_briefly(|| sys::sending_links(ends.ifindex)) {
        Ok(Ok(links)) => links.contains(&ends.link),
        // There is no such device.
        Ok(Err(error)) if error.raw_os_error() == Some(libc::ENODEV) => false,
        // Nothing is known to the contrary.
        Ok(Err(_)) | Err(_) => true,
    }
}

/// Gives the links of a device that has moved the names that they have where it is now.
pub(super) fn rename_links(bpffs: &Path, from: &str, to: &str) -> Result<(), Error> {
    for link in links(bpffs) {
        let name = link.file_name().and_then(OsStr::to_str);
        if let Some(rest) = name.and_then(|name| name.strip_prefix(from)) {
            let renamed = link.with_file_name(format!("{to}{rest}"));
            unpin(&renamed)?;
            fs::rename(&link, &renamed).map_err(|source| Error::Folder { path: link, source })?;
        }
    }
    Ok(())
}

/// Whether the device has both its programs: by links that still hold it, or by filters.
pub(super) fn is_attached(instance: Instance<'_>, device: &DeviceRecord) -> bool {
    [Way::Sent, Way::Received]
        .into_iter()
        .all(|way| program(instance, device, way).is_some())
}

/// The kernel's number of the program that runs where sg has attached one; `None` where none is
/// attached any more.
pub(super) fn program(instance: Instance<'_>, device: &DeviceRecord, way: Way) -> Option<u32> {
    if !device.has_filter(way) {
        return program_under(&links_folder(instance.bpffs).join(device.link(way)), device);
    }
    let netns = Netns::with_inode(device.netns_inode)?;
    let place = Place {
        netns: &netns,
        ifindex: device.ifindex,
    };
    place.program(way, instance.handle()).ok()?
}

/// Whether a pinned link still holds the device: a link outlives its device, and a forced detach.
fn holds(link: &Path, device: &DeviceRecord) -> bool {
    program_under(link, device).is_some()
}

/// The program under a pinned link that still holds the device.
fn program_under(link: &Path, device: &DeviceRecord) -> Option<u32> {
    let ends = ends(link).filter(|ends| ends.ifindex == device.ifindex)?;
    Some(ends.program)
}
