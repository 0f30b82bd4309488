//! An instance as it is, for commands that only look.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

use super::confirmation::{TakenBack, Unconfirmed};
use super::devices::{Devices, Needed, Strayed};
use super::error::{Error, Result};
use super::machine::Machine;
use super::ownership;
use crate::consequences::{Consequences, foresee};
use crate::dataplane::{Attachment, Dataplane, Device, Wanted};
use crate::dirs::{DirOptions, Dirs, Lock};
use crate::limits::Limits;
use crate::policy::model::Policy;
use crate::policy::names::{InterfaceName, VpcName};
use crate::store::{SqliteStore, Store as _};

/// What is stored and what the kernel holds. Looking changes nothing, and makes no store.
#[derive(Debug)]
pub struct View {
    /// The revision that is stored; 0 before there is any.
    pub revision: u64,
    /// The policy as it is stored; without VPCs before there is a store.
    pub policy: Policy,
    /// How much the instance may hold.
    pub limits: Limits,
    /// The change that waits for its confirmation.
    pub unconfirmed: Option<Unconfirmed>,
    /// What was taken back last, unless something was changed since.
    pub taken_back: Option<TakenBack>,
    /// Why what is in force is not what is stored here, where it was installed from another store.
    pub mismatch: Option<Error>,
    dirs: Option<Dirs>,
}

impl View {
    /// Reads what is stored.
    pub fn open(options: &DirOptions) -> Result<Self> {
        let store = exists(&options.state_dir.join(SqliteStore::FILE))?;
        let dirs = match store || exists(&options.run_dir)? {
            true => Some(Dirs::create(options)?),
            false => None,
        };
        let mut view = Self {
            revision: 0,
            policy: Policy::default(),
            limits: Limits::default(),
            unconfirmed: None,
            taken_back: None,
            mismatch: None,
            dirs,
        };
        if let Some(dirs) = &view.dirs
            && store
        {
            let store = SqliteStore::open_to_read(dirs.state(), dirs.run())?;
            let (revision, policy) = store.snapshot()?;
            view.mismatch = ownership::refuse_foreign(dirs, store.id()?, &policy).err();
            view.limits = Limits::read(&store)?;
            view.unconfirmed = Unconfirmed::find(&store)?;
            view.taken_back = TakenBack::find(&store)?;
            (view.revision, view.policy) = (revision.number(), policy);
        } else if let Some(dirs) = &view.dirs {
            view.mismatch = ownership::refuse_lost(dirs).err();
        }
        Ok(view)
    }

    /// Keeps writers away; `None` where there is nothing that they could write to.
    pub(super) fn lock(&self) -> Result<Option<Lock>> {
        Ok(self.dirs.as_ref().map(Dirs::lock).transpose()?)
    }

    /// The interfaces of the policy that this machine has.
    pub fn devices(&self) -> Result<Vec<Device>> {
        Ok(self.find_devices(&self.policy)?.found)
    }

    /// How each interface of the policy is.
    pub fn interface_states(&self) -> Result<InterfaceStates> {
        let attachments = self.attachments()?;
        let devices = Devices::find(&self.policy, &Needed::None, &attachments)?;
        Ok(InterfaceStates::of(devices, attachments))
    }

    /// The machine as far as the policy speaks of it, to tell whether anything has changed.
    pub fn machine(&self) -> Result<Machine> {
        Machine::of(&self.policy, self.attachments()?)
    }

    pub(super) fn find_devices(&self, policy: &Policy) -> Result<Devices> {
        Ok(Devices::find(policy, &Needed::None, &self.attachments()?)?)
    }

    pub(super) fn attachments(&self) -> Result<Vec<Attachment>> {
        match &self.dirs {
            Some(dirs) => attachments(dirs),
            None => Ok(Vec::new()),
        }
    }

    /// What making the policy another one would do to the connections there are; `None` where there
    /// are none.
    pub fn foresee(&self, policy: &Policy, terminate: bool) -> Result<Option<Consequences>> {
        // The tables in force are read, which no writer may change meanwhile.
        let _lock = self.lock()?;
        let Some(dataplane) = self.dataplane()? else {
            return Ok(None);
        };
        let wanted = Wanted {
            policy,
            devices: self.find_devices(policy)?.found,
            terminate,
            capacity: self.limits.flows,
            limits: self.limits.tables,
        };
        Ok(foresee(&dataplane, &self.policy, &wanted)?)
    }

    /// What the kernel holds; `None` when it holds nothing of this instance.
    pub fn dataplane(&self) -> Result<Option<Dataplane>> {
        let Some(dirs) = &self.dirs else {
            return Ok(None);
        };
        let bpffs = dirs.find_bpffs()?;
        let opened = bpffs.map(|bpffs| Dataplane::open(dirs.run(), &bpffs.path));
        Ok(opened.transpose()?)
    }
}

/// What is protected now.
pub(super) fn attachments(dirs: &Dirs) -> Result<Vec<Attachment>> {
    match dirs.find_bpffs()? {
        Some(bpffs) => Ok(Dataplane::attachments_in(dirs.run(), &bpffs.path)?),
        None => Ok(Vec::new()),
    }
}

/// What is installed at one moment, to tell whether it was replaced since.
#[derive(Debug, PartialEq, Eq)]
pub struct Installation(Option<(u64, SystemTime)>);

impl Installation {
    /// How often it is looked at in vain: each time another command may replace it.
    pub const MOST_LOOKS: u32 = 10;

    /// As it is now.
    pub fn of(options: &DirOptions) -> Self {
        Self::in_folder(&options.run_dir)
    }

    pub(super) fn in_folder(run: &Path) -> Self {
        let record = fs::metadata(run.join(Dataplane::RECORD)).ok();
        Self(record.and_then(|record| Some((record.ino(), record.modified().ok()?))))
    }

    /// Looks at what is installed; where it was replaced meanwhile, which is no failure, looks again.
    pub fn look<T, E>(
        options: &DirOptions,
        mut look: impl FnMut() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        for _ in 1..Self::MOST_LOOKS {
            let before = Self::of(options);
            match look() {
                Err(_) if before.is_over(options) => {}
                looked => return looked,
            }
        }
        look()
    }

    /// Waits until nobody replaces it, and says whether it was replaced.
    pub fn is_over(&self, options: &DirOptions) -> bool {
        let locked = Dirs::create(options).and_then(|dirs| dirs.lock());
        locked.is_ok() && Self::of(options).0 != self.0
    }
}

/// How the interfaces of a policy are.
#[derive(Debug)]
pub struct InterfaceStates {
    attachments: Vec<Attachment>,
    /// The devices that interfaces have by their names: namespace and number.
    named: Vec<(VpcName, InterfaceName, u64, u32)>,
    /// The devices that are not where the policy has their interfaces.
    pub strayed: Vec<Strayed>,
}

/// How an interface of the policy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterfaceState<'a> {
    /// The device of its name holds the programs.
    Protected(&'a Attachment),
    /// The device of its name is there, without them.
    Open,
    /// It has no device.
    Waiting,
}

impl InterfaceStates {
    pub(super) fn of(devices: Devices, attachments: Vec<Attachment>) -> Self {
        let strayed = &devices.strayed;
        let is_named = |device: &&Device| {
            !strayed.iter().any(|strayed| {
                strayed.vpc == device.vpc
                    && strayed.interface == device.name
                    && strayed.ifindex == device.link.ifindex
            })
        };
        let named = devices.found.iter().filter(is_named).map(|device| {
            let inode = device.netns.id().inode;
            (
                device.vpc.clone(),
                device.name.clone(),
                inode,
                device.link.ifindex,
            )
        });
        Self {
            named: named.collect(),
            attachments,
            strayed: devices.strayed,
        }
    }

    /// Whether a device of an interface is judged by its groups, and none is open.
    pub fn is_protected(&self, vpc: &VpcName, name: &InterfaceName) -> bool {
        let mut strayed = self.strayed.iter();
        match self.of_interface(vpc, name) {
            InterfaceState::Protected(_) => true,
            InterfaceState::Open => false,
            InterfaceState::Waiting => strayed.any(|strayed| {
                strayed.vpc == *vpc && strayed.interface == *name && strayed.is_judged()
            }),
        }
    }

    /// The interfaces that have their device. Of an entry that matches devices each is one.
    pub fn present(&self) -> impl Iterator<Item = (&VpcName, &InterfaceName)> {
        self.named.iter().map(|(vpc, name, ..)| (vpc, name))
    }

    /// The interfaces that an entry which matches devices has now, or has had and that are elsewhere
    /// with their programs.
    pub fn devices_of(&self, vpc: &VpcName, entry: &InterfaceName) -> Vec<InterfaceName> {
        let strayed = self.strayed.iter();
        let strayed = strayed.map(|strayed| (&strayed.vpc, &strayed.interface));
        let all = self.present().chain(strayed);
        let of_entry = all.filter(|(of, name)| *of == vpc && name.entry() == entry.as_str());
        let names: BTreeSet<_> = of_entry.map(|(_, name)| name.clone()).collect();
        names.into_iter().collect()
    }

    /// How the device of an interface's name is.
    pub fn of_interface(&self, vpc: &VpcName, name: &InterfaceName) -> InterfaceState<'_> {
        let mut named = self.named.iter();
        let Some((_, _, inode, ifindex)) = named.find(|named| (&named.0, &named.1) == (vpc, name))
        else {
            return InterfaceState::Waiting;
        };
        let mut attachments = self.attachments.iter();
        let attachment = attachments.find(|attachment| {
            attachment.attached
                && (&attachment.vpc, attachment.name.entry()) == (vpc, name.entry())
                && (attachment.netns_inode, attachment.ifindex) == (*inode, *ifindex)
        });
        attachment.map_or(InterfaceState::Open, InterfaceState::Protected)
    }
}

fn exists(path: &Path) -> Result<bool> {
    fs::exists(path).map_err(|source| Error::Hidden {
        path: path.to_owned(),
        source,
    })
}
