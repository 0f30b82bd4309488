//! Links that are made before the policy they are for is ready.
//!
//! The kernel makes one link at a time and waits ten milliseconds for each, a grace period in which
//! nothing else has to wait. So while a policy is compiled and stored, devices that are not protected
//! yet get links with a program that lets everything pass; once the policy is ready, all of them get
//! their programs in a moment. Whatever goes wrong here goes wrong again where links are made in
//! earnest, and is said there.
//!
//! A link that the record does not speak of never keeps the program that was found under it, so that
//! nothing stays open when a command is killed in between.

use std::fs;
use std::os::fd::AsFd as _;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use aya::programs::{SchedClassifier, TcAttachType};

use super::report::{ReceiveHook, TcHook};
use super::state::{DeviceRecord, Record};
use super::verify::Way;
use super::{Device, Error, Wanted, hooks, object, unfit};
use crate::crash::{self, Point};
use crate::interfaces::Netns;
use crate::policy::model::Side;

/// Fewer devices are not worth a thread, and a program that is loaded for them.
const FEW: usize = 4;

/// Links in the making. They go again unless [`Placing::keep`] is called.
pub(super) struct Placing {
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<Vec<PathBuf>>>>,
}

impl Placing {
    /// Begins with the devices that the record does not speak of and that receive at TC.
    pub(super) fn begin(folder: PathBuf, record: Option<&Record>, wanted: &Wanted<'_>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let devices = wanted.devices.iter();
        let devices: Vec<_> = devices
            .filter_map(|device| placeable(record, wanted, device))
            .collect();
        // A filter is added without waiting.
        let is_slow = devices.len() >= FEW && hooks::tc_hook() == TcHook::Tcx;
        let thread = is_slow.then(|| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut placed = Vec::new();
                // Said where links are made in earnest.
                let _ = place(&folder, &devices, &stop, &mut placed);
                placed
            })
        });
        Self {
            stop,
            thread: Mutex::new(thread),
        }
    }

    /// Waits until all are made, and leaves them where they are.
    pub(super) fn keep(&self) {
        self.join();
    }

    fn join(&self) -> Vec<PathBuf> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let placed = thread.take().map(JoinHandle::join).transpose();
        match placed {
            Ok(placed) => placed.unwrap_or_default(),
            Err(panicked) => panic::resume_unwind(panicked),
        }
    }
}

impl Drop for Placing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for link in self.join() {
            // It lets everything pass, so that nothing is lost with one that stays.
            let _ = hooks::unpin(&link);
        }
    }
}

/// The device as a record would speak of it, for the names of its links.
fn placeable(
    record: Option<&Record>,
    wanted: &Wanted<'_>,
    device: &Device,
) -> Option<(Netns, DeviceRecord)> {
    let vpc = wanted.policy.vpcs.get(&device.vpc)?;
    let interface = vpc.interface(&device.name)?;
    if unfit(interface.hook, &device.netns, &device.link).is_some() {
        return None;
    }
    let hook = hooks::hooks_to_try(interface.hook, &device.link).first()?;
    let netns_inode = device.netns.id().inode;
    let is_known = |known: &DeviceRecord| {
        known.netns_inode == netns_inode && known.ifindex == device.link.ifindex
    };
    if *hook != ReceiveHook::Tc || record.is_some_and(|record| record.devices.iter().any(is_known))
    {
        return None;
    }
    let record = DeviceRecord {
        vpc: device.vpc.clone(),
        name: device.name.clone(),
        netns: 0,
        netns_inode,
        ifindex: device.link.ifindex,
        guest: interface.side == Side::Guest,
        hook: *hook,
        tc: TcHook::Tcx,
        incarnation: 0,
        slot: None,
    };
    Some((device.netns.clone(), record))
}

fn place(
    folder: &Path,
    devices: &[(Netns, DeviceRecord)],
    stop: &AtomicBool,
    placed: &mut Vec<PathBuf>,
) -> Result<(), Error> {
    let mut object = object::load_alone(object::PASS)?;
    let program = object.program_mut(object::PASS);
    let program = program.ok_or(Error::ProgramMissing(object::PASS))?;
    let program: &mut SchedClassifier = program.try_into().map_err(|source| Error::Program {
        name: object::PASS,
        source: Box::new(source),
    })?;
    fs::create_dir_all(folder).map_err(|source| Error::Folder {
        path: folder.to_path_buf(),
        source,
    })?;
    let program = program.fd().map_err(|source| Error::Program {
        name: object::PASS,
        source: Box::new(source),
    })?;
    let program = program.as_fd();
    for (netns, device) in devices {
        for (name, way) in [
            (device.link(Way::Sent), TcAttachType::Egress),
            (device.link(Way::Received), TcAttachType::Ingress),
        ] {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let path = folder.join(name);
            // What an interrupted command has left is dealt with later.
            if !path.exists() {
                hooks::attach_tc(program, netns, device, way, &path)?;
                placed.push(path);
                crash::at(Point::LinkPlaced);
            }
        }
    }
    Ok(())
}
