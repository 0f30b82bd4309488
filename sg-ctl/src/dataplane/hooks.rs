//! Attaches programs to devices, moves attached ones to a newer layout, and detaches them.
//!
//! Links are pinned, so that enforcement needs no process. Replacing the program under a link is
//! one step for the kernel: each packet meets the old program or the new one.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp};
use aya_obj::programs::XdpAttachType;

use super::report::ReceiveHook;
use super::state::DeviceRecord;
use super::{Error, object, sys};
use crate::interfaces::{Kind, Link, Netns};
use crate::policy::model::Hook;

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
        Hook::Xdp => &[ReceiveHook::XdpNative, ReceiveHook::XdpGeneric],
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

/// Makes sure that a device has both links, with the layout's programs under them. Links that are
/// in place get their program replaced when `replace` says so.
pub(super) fn ensure(
    bpffs: &Path,
    layout: &Path,
    netns: &Netns,
    device: &DeviceRecord,
    replace: bool,
) -> Result<(), Error> {
    let folder = links_folder(bpffs);
    fs::create_dir_all(&folder).map_err(|source| Error::Folder {
        path: folder.clone(),
        source,
    })?;
    let send = folder.join(device.send_link());
    // Those of a device that has moved away with this one's number are not this one's.
    if holds(&send, device) && !is_in(&send, netns) {
        unpin(&send)?;
        unpin(&folder.join(device.receive_link()))?;
    }
    let program = program_path(layout, device.netns, object::TC_SEND);
    if !holds(&send, device) {
        unpin(&send)?;
        let mut program = open_tc(&program, device)?;
        pin(
            attach_tc(&mut program, netns, device, TcAttachType::Egress)?,
            &send,
        )?;
    } else if replace {
        replace_tc(&send, &program, device)?;
    }
    let receive = folder.join(device.receive_link());
    let program = program_path(layout, device.netns, receive_program(device.hook));
    if !holds(&receive, device) {
        unpin(&receive)?;
        let link = match device.hook {
            ReceiveHook::XdpNative => attach_xdp(&program, netns, device, XdpMode::Driver)?,
            ReceiveHook::XdpGeneric => attach_xdp(&program, netns, device, XdpMode::Skb)?,
            ReceiveHook::Tc => {
                let mut program = open_tc(&program, device)?;
                attach_tc(&mut program, netns, device, TcAttachType::Ingress)?
            }
        };
        return pin(link, &receive);
    }
    if !replace {
        return Ok(());
    }
    replace_receiving(&receive, &program, device)
}

fn replace_receiving(link: &Path, program: &Path, device: &DeviceRecord) -> Result<(), Error> {
    match device.hook {
        ReceiveHook::Tc => replace_tc(link, program, device),
        ReceiveHook::XdpNative | ReceiveHook::XdpGeneric => replace_xdp(link, program, device),
    }
}

/// Puts the layout's programs under the links of a device, wherever it is.
pub(super) fn replace(bpffs: &Path, layout: &Path, device: &DeviceRecord) -> Result<(), Error> {
    let folder = links_folder(bpffs);
    let program = |name| program_path(layout, device.netns, name);
    replace_tc(
        &folder.join(device.send_link()),
        &program(object::TC_SEND),
        device,
    )?;
    replace_receiving(
        &folder.join(device.receive_link()),
        &program(receive_program(device.hook)),
        device,
    )
}

pub(super) fn pin(link: FdLink, path: &Path) -> Result<(), Error> {
    link.pin(path).map(drop).map_err(|source| Error::Pin {
        path: path.to_path_buf(),
        source,
    })
}

fn open_tc(program: &Path, device: &DeviceRecord) -> Result<SchedClassifier, Error> {
    SchedClassifier::from_pin(program).map_err(|source| Error::Attach {
        interface: device.name.clone(),
        hook: ReceiveHook::Tc,
        source: Box::new(source),
    })
}

pub(super) fn attach_tc(
    program: &mut SchedClassifier,
    netns: &Netns,
    device: &DeviceRecord,
    way: TcAttachType,
) -> Result<FdLink, Error> {
    let wrong = |source: ProgramError| Error::Attach {
        interface: device.name.clone(),
        hook: ReceiveHook::Tc,
        source: Box::new(source),
    };
    let attached = netns
        .enter(|| {
            // First in line: nobody before it can let a packet pass unjudged.
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            let id = program.attach_with_options(device.name.as_str(), way, options)?;
            program.take_link(id)
        })
        .map_err(Error::Netns)?;
    let link: SchedClassifierLink = attached.map_err(wrong)?;
    FdLink::try_from(link).map_err(|_| Error::NoTcx)
}

fn attach_xdp(
    program: &Path,
    netns: &Netns,
    device: &DeviceRecord,
    mode: XdpMode,
) -> Result<FdLink, Error> {
    let wrong = |source: ProgramError| Error::Attach {
        interface: device.name.clone(),
        hook: device.hook,
        source: Box::new(source),
    };
    let mut program = Xdp::from_pin(program, XdpAttachType::Interface).map_err(wrong)?;
    let attached = netns
        .enter(|| {
            let id = program.attach_to_if_index(device.ifindex, mode)?;
            program.take_link(id)
        })
        .map_err(Error::Netns)?;
    let link: XdpLink = attached.map_err(wrong)?;
    FdLink::try_from(link).map_err(|_| Error::NoTcx)
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
    program.attach_to_link(held).map(drop).map_err(wrong)
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
    program.attach_to_link(held).map(drop).map_err(wrong)
}

/// Removes every link for which `is_wanted` says no.
pub(super) fn remove_links(bpffs: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<(), Error> {
    for entry in fs::read_dir(links_folder(bpffs))
        .into_iter()
        .flatten()
        .flatten()
    {
        if !entry.file_name().to_str().is_some_and(&is_wanted) {
            unpin(&entry.path())?;
        }
    }
    Ok(())
}

/// Detaches a link and removes its pin.
///
/// Removing the pin would be enough but for the moment: the kernel gives up what was pinned after a
/// grace period, from a work queue, and until then the program would drop what nobody protects any
/// more (`bpf_free_inode` and `bpf_link_put` of
/// <https://github.com/torvalds/linux/blob/v6.18/kernel/bpf/>).
pub(super) fn unpin(path: &Path) -> Result<(), Error> {
    // A link whose device is gone cannot be detached, and need not be.
    let _ = sys::open_pin(path).and_then(|link| sys::detach(&link));
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

/// The devices that our links hold: the inode of the namespace in which they were attached, and
/// their number now.
pub(super) fn held_devices(bpffs: &Path) -> BTreeSet<(u64, u32)> {
    let held = links(bpffs).filter_map(|link| {
        let ends = ends(&link).filter(|ends| ends.ifindex != 0)?;
        let netns = link.file_name()?.to_str()?.split('-').next()?;
        Some((netns.parse().ok()?, ends.ifindex))
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

/// The number of the device that both links hold now. None where one of them holds nothing.
pub(super) fn held(bpffs: &Path, device: &DeviceRecord) -> Option<u32> {
    let folder = links_folder(bpffs);
    let send = ends(&folder.join(device.send_link()))?.ifindex;
    let receive = ends(&folder.join(device.receive_link()))?.ifindex;
    (send == receive && send != 0).then_some(send)
}

/// Whether a sending link is on a device of a namespace. Links go with their devices to another
/// namespace, where the device may keep its number while another one gets it here.
pub(super) fn is_in(send_link: &Path, netns: &Netns) -> bool {
    let Some(ends) = ends(send_link).filter(|ends| ends.ifindex != 0) else {
        return false;
    };
    match netns.enter(|| sys::sending_links(ends.ifindex)) {
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

/// Whether both links are pinned and still hold the device.
pub(super) fn is_attached(bpffs: &Path, device: &DeviceRecord) -> bool {
    let folder = links_folder(bpffs);
    holds(&folder.join(device.send_link()), device)
        && holds(&folder.join(device.receive_link()), device)
}

/// Whether a pinned link still holds the device: a link outlives its device, and a forced detach.
fn holds(link: &Path, device: &DeviceRecord) -> bool {
    sys::open_pin(link)
        .and_then(|link| sys::link_ends(&link))
        .is_ok_and(|ends| ends.ifindex == device.ifindex)
}
