//! From a changed policy to a kernel that enforces it, or to nothing changed at all.
//!
//! A change is prepared whole before anything is written, stored before it is enforced, and taken
//! back when it cannot be enforced. Each change also completes one that was interrupted: what is
//! stored is made to hold, whatever the kernel holds. What commands mean and how anything is
//! shown is not known here.

mod annotate;
mod confirmation;
mod devices;
mod edit;
mod error;
mod machine;
mod ownership;
mod resting;
mod session;
mod tracing;
mod verify;
mod view;

use std::collections::BTreeSet;
use std::mem;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::crash::{self, Point};
use crate::dataplane::{self, Attachment, Dataplane, Outcome, Prepared, Wanted};
use crate::dirs::{DirOptions, Dirs, Lock, Place};
use crate::limits::Limits;
use crate::policy::change::Change;
use crate::policy::diff::diff;
use crate::policy::model::Policy;
use crate::privileges;
use crate::store::{Annotation, Revision, SqliteStore, Store};

pub use confirmation::{
    AWAIT_COMMAND, TakenBack, Unconfirmed, await_confirmation, hand_over_confirmation, note_failure,
};
pub use devices::{Missing, Needed, Strayed, StrayedTo, is_for, namespace, recorded_namespace};
pub use error::{Error, Result};
pub use machine::{Machine, Seen};
pub use resting::Resting;
pub use session::{Session, SessionWarning};
pub use tracing::{GUARD_COMMAND, Guarded, Tracing, guard_trace};
pub use verify::Verified;
pub use view::{Installation, InterfaceState, InterfaceStates, View};

use crate::compile::image::Image;
use devices::{Devices, refuse_unfit};
use edit::Held;
use machine::InstalledFor;

/// The right to change what one instance enforces, and the policy as it is.
pub struct Controller {
    dirs: Dirs,
    store: Box<dyn Store + Send>,
    revision: Revision,
    policy: Policy,
    limits: Limits,
    unconfirmed: Option<Unconfirmed>,
    /// Replaces what is installed, whoever installed it and whether its record can be read.
    takes_over: bool,
    /// What has been done on the way here, for whoever asks next.
    news: Vec<Warning>,
    /// Whether what is in force is kept compiled, and with what.
    holds: bool,
    held: Option<Held>,
    /// The machine as it was when everything was last installed.
    installed_for: Option<InstalledFor>,
    /// What is noted with the next change, and what was there before it.
    annotations: Vec<Annotation>,
    annotations_before: Vec<Annotation>,
    // Dropped last, when nothing is open any more.
    lock: Lock,
}

/// What is to hold.
#[derive(Debug)]
pub struct Plan {
    /// The whole policy.
    pub policy: Policy,
    /// The interfaces that have to be there.
    pub needed: Needed,
    /// Whether flows are judged again by the new policy.
    pub terminate: bool,
}

/// How carefully a plan is made to hold.
pub struct Care<'a> {
    /// The change is taken back unless it is confirmed within this time.
    pub confirm_within: Option<Duration>,
    /// The session that the change is made in: whether it would be let in again is told before.
    pub session: Option<Session>,
    /// Told of each step before it is made, and of what the user should know before it is.
    pub tell: &'a dyn Fn(News<'_>),
}

impl Care<'_> {
    fn none() -> Self {
        Self {
            confirm_within: None,
            session: None,
            tell: &|_| (),
        }
    }
}

/// What happens while a plan is made to hold.
#[derive(Debug)]
pub enum News<'a> {
    /// The next step.
    Step(Step),
    /// What the user should know while the old policy is still in force.
    Warning(&'a Warning),
}

/// The parts of making a plan hold that can take long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Finding what differs, and what the tables become.
    Compile,
    /// Writing it down for good.
    Store,
    /// Making the kernel hold it.
    Install,
}

/// What was done.
#[derive(Debug)]
pub struct Done {
    /// The policy as it was, as far as the changes speak of it.
    pub before: Policy,
    /// What was stored, in order; empty when the policy was so already.
    pub changes: Vec<Change>,
    /// The revision in force.
    pub revision: Revision,
    /// What the user should know although it kept nothing from being done.
    pub warnings: Vec<Warning>,
    /// How many interfaces were installed, where all were.
    pub interfaces: usize,
    /// The change is taken back unless it is confirmed within this time.
    pub confirm_within: Option<Duration>,
    /// The generation in force, where tables that were kept compiled were edited.
    pub generation: Option<u32>,
}

/// What the user should know.
#[derive(Debug, thiserror::Error)]
pub enum Warning {
    /// An interface of the policy cannot be protected now.
    #[error(
        "waiting: {0}; it is protected when it is there and the daemon or `sg-ctl restore` runs"
    )]
    Missing(Missing),
    /// A device is not where the policy has its interface.
    #[error("{0}")]
    Strayed(Strayed),
    /// An interface of the policy is not one to protect.
    #[error("{0}; it is not protected")]
    Unfit(dataplane::Error),
    /// The pins will not outlive the mount namespace.
    #[error(
        "the bpf filesystem is visible in this mount namespace only: protection ends with the last \
         process in it. `sg-ctl restore` outside makes it last; commands there take a network \
         namespace with --netns, and policy files with netns"
    )]
    PrivatePins,
    /// Some flows are still in tables of the former size.
    #[error(
        "{0} flows have no room in the tables of the new size yet; they go on in the old ones, and \
         the next change moves them"
    )]
    FlowsLeft(u32),
    /// An earlier change was not confirmed in time.
    #[error(
        "an earlier change was not confirmed in time and was rolled back: the policy of revision {0} \
         is in force again"
    )]
    TakenBack(u64),
    /// An earlier change is overdue and cannot be taken back.
    #[error(
        "an earlier change was not confirmed in time and cannot be rolled back now: {0}; it stays \
         in force until a command can write there"
    )]
    NotTakenBack(String),
    /// What was recorded was damaged or lost.
    #[error(
        "{} was damaged or lost; what is stored was installed anew, and tracked flows that no rule \
         allows may have been forgotten", .0.display()
    )]
    Damaged(PathBuf),
    /// The session that the command was given in would not be let in any more.
    #[error(transparent)]
    Session(SessionWarning),
}

impl Warning {
    /// Whether it tells of what was done before, and is told once.
    fn is_news(&self) -> bool {
        matches!(
            self,
            Self::TakenBack(_) | Self::NotTakenBack(_) | Self::Damaged(_)
        )
    }
}

impl Controller {
    /// Waits for other writers and reads what is stored, making the store if there is none. A store
    /// whose policy is not the one in force is refused.
    pub fn open(options: &DirOptions) -> Result<Self> {
        let (dirs, lock) = Self::lock(options)?;
        ownership::refuse_lost(&dirs)?;
        let store = SqliteStore::open(dirs.state())?;
        Self::of(dirs, lock, store)
    }

    /// As [`Self::open`], to make the kernel hold what is stored. The store need not be writable.
    pub fn open_to_restore(options: &DirOptions) -> Result<Self> {
        let (dirs, lock) = Self::lock(options)?;
        ownership::refuse_lost(&dirs)?;
        let store = Self::store_to_restore(&dirs)?;
        let mut controller = Self::read(dirs, lock, store)?;
        match controller.claim() {
            Err(Error::Dataplane(dataplane::Error::Damaged { path })) => controller.replace(&path),
            claimed => claimed?,
        }
        controller.complete_overdue()?;
        Ok(controller)
    }

    /// As [`Self::open_to_restore`]; what another store or another version has installed is
    /// replaced by the next installation, provided that all it protects stays protected.
    pub fn take_over(options: &DirOptions) -> Result<Self> {
        let (dirs, lock) = Self::lock(options)?;
        let path = dirs.state().join(SqliteStore::FILE);
        match SqliteStore::is_in(dirs.state()) {
            Ok(true) => {}
            Ok(false) => return Err(Error::NothingStored { path }),
            Err(source) => return Err(Error::Hidden { path, source }),
        }
        let store = Self::store_to_restore(&dirs)?;
        Self::replacing(dirs, lock, store)
    }

    /// As [`Self::take_over`], to change what is stored, making the store if there is none.
    pub fn take_over_to_change(options: &DirOptions) -> Result<Self> {
        let (dirs, lock) = Self::lock(options)?;
        let store = SqliteStore::open(dirs.state())?;
        Self::replacing(dirs, lock, store)
    }

    /// Takes everything that is installed out of the kernel, whoever installed it, and returns what
    /// was protected. The store is not looked at.
    pub fn remove_all(options: &DirOptions) -> Result<Vec<String>> {
        let (dirs, lock) = Self::lock(options)?;
        let Some(bpffs) = dirs.find_bpffs()? else {
            return Ok(Vec::new());
        };
        let held = Dataplane::unprotected_with(&bpffs.path, &[]);
        Dataplane::remove_all(dirs.run(), &bpffs.path)?;
        dirs.unmount_if_empty(&lock)?;
        Ok(held)
    }

    fn lock(options: &DirOptions) -> Result<(Dirs, Lock)> {
        privileges::check()?;
        let dirs = Dirs::create(options)?;
        let lock = dirs.lock()?;
        Ok((dirs, lock))
    }

    fn store_to_restore(dirs: &Dirs) -> Result<SqliteStore> {
        match SqliteStore::is_in(dirs.state()) {
            Ok(true) => Ok(SqliteStore::open_to_read(dirs.state(), dirs.run())?),
            _ => Ok(SqliteStore::open(dirs.state())?),
        }
    }

    fn of(dirs: Dirs, lock: Lock, store: impl Store + Send + 'static) -> Result<Self> {
        let mut controller = Self::read(dirs, lock, store)?;
        controller.claim()?;
        controller.complete_overdue()?;
        Ok(controller)
    }

    /// Makes sure that what is in force is this store's.
    fn claim(&mut self) -> Result<()> {
        let id = self.store.give_id()?;
        ownership::refuse_foreign(&self.dirs, id, &self.policy)
    }

    /// Lets the next installation replace what a damaged file speaks of.
    fn replace(&mut self, damaged: &Path) {
        self.news.push(Warning::Damaged(damaged.to_owned()));
        self.takes_over = true;
    }

    fn replacing(dirs: Dirs, lock: Lock, store: impl Store + Send + 'static) -> Result<Self> {
        let mut controller = Self::read(dirs, lock, store)?;
        controller.store.give_id()?;
        controller.takes_over = true;
        Ok(controller)
    }

    fn read(dirs: Dirs, lock: Lock, store: impl Store + Send + 'static) -> Result<Self> {
        let (revision, policy) = store.snapshot()?;
        let limits = Limits::read(&store)?;
        Ok(Self {
            unconfirmed: Unconfirmed::find(&store)?,
            dirs,
            store: Box::new(store),
            revision,
            policy,
            limits,
            takes_over: false,
            news: Vec::new(),
            holds: false,
            held: None,
            installed_for: None,
            annotations: Vec::new(),
            annotations_before: Vec::new(),
            lock,
        })
    }

    /// Takes back a change whose time is over, should nobody have come to do it.
    fn complete_overdue(&mut self) -> Result<()> {
        let is_overdue = |unconfirmed: &Unconfirmed| unconfirmed.left().is_zero();
        if !self.unconfirmed.as_ref().is_some_and(is_overdue) {
            return Ok(());
        }
        if let Some(why) = self.store.read_only() {
            // What is stored is better in force than nothing.
            self.news.push(Warning::NotTakenBack(why.to_owned()));
            return Ok(());
        }
        let taken_back = self.take_back()?;
        self.news.push(Warning::TakenBack(taken_back.before));
        Ok(())
    }

    /// The policy as it is stored.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Its revision.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How much the instance may hold.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Stores other limits and makes the kernel's tables match them, or fails and leaves both as
    /// they were.
    pub fn set_limits(&mut self, limits: Limits) -> Result<Done> {
        // The policy to return to must still fit.
        if let Some(unconfirmed) = &self.unconfirmed {
            return Err(Error::Unconfirmed(unconfirmed.left_s()));
        }
        let before = mem::replace(&mut self.limits, limits);
        self.limits.write(&mut *self.store)?;
        crash::at(Point::LimitsStored);
        let as_it_is = |controller: &mut Self| {
            let policy = controller.policy.clone();
            controller.install(Plan {
                policy,
                needed: Needed::None,
                terminate: false,
            })
        };
        let done = as_it_is(self);
        if let Err(error) = &done {
            self.limits = before;
            self.limits.write(&mut *self.store)?;
            if matches!(error, Error::TakenBack { .. } | Error::Stuck { .. }) {
                as_it_is(self)?;
            }
        }
        done
    }

    /// What the kernel protects, whether the policy knows of it or not.
    pub fn attachments(&self) -> Result<Vec<Attachment>> {
        match self.dataplane_in_force()? {
            Some(dataplane) => Ok(dataplane.attachments()?),
            None => Ok(Vec::new()),
        }
    }

    /// What the kernel holds; `None` when it holds nothing of this instance.
    pub fn dataplane_in_force(&self) -> Result<Option<Dataplane>> {
        let bpffs = self.dirs.find_bpffs()?;
        let opened = bpffs.map(|bpffs| Dataplane::open(self.dirs.run(), &bpffs.path));
        Ok(opened.transpose()?)
    }

    /// Stores the plan and makes the kernel match it, or fails and leaves both as they were.
    pub fn install(&mut self, plan: Plan) -> Result<Done> {
        self.install_with(plan, &Care::none())
    }

    /// As [`Self::install`], with a way back and word of what happens.
    pub fn install_with(&mut self, plan: Plan, care: &Care<'_>) -> Result<Done> {
        /// Each time another device may go away.
        const TRIES: u32 = 4;
        self.install_trying(plan, care, TRIES)
    }

    /// A device that goes away between being found and getting its programs is no reason to fail: what
    /// was begun is taken back, and done for the devices that are left.
    fn install_trying(&mut self, plan: Plan, care: &Care<'_>, tries: u32) -> Result<Done> {
        (care.tell)(News::Step(Step::Compile));
        let changes = diff(&self.policy, &plan.policy);
        if let Some(unconfirmed) = &self.unconfirmed
            && !changes.is_empty()
        {
            return Err(Error::Unconfirmed(unconfirmed.left_s()));
        }
        let devices = Devices::find(&plan.policy, &plan.needed, &self.attached()?)?;
        if self.takes_over {
            self.forget_former(&devices.found)?;
        }
        let Devices {
            found,
            missing,
            strayed,
        } = devices;
        let refused = refuse_unfit(&plan.policy, &found, &self.policy)?;
        let names: BTreeSet<_> = found
            .iter()
            .map(|d| (d.vpc.clone(), d.name.clone()))
            .collect();
        let interfaces = names.len() - refused.len().min(names.len());
        let mut warnings = mem::take(&mut self.news);
        warnings.extend(missing.into_iter().map(Warning::Missing));
        warnings.extend(strayed.into_iter().map(Warning::Strayed));
        warnings.extend(refused.into_iter().map(Warning::Unfit));
        let wanted = Wanted {
            policy: &plan.policy,
            devices: found,
            terminate: plan.terminate,
            capacity: self.limits.flows,
            limits: self.limits.tables,
        };
        // Nothing that could be confirmed has changed.
        let confirm_within = care.confirm_within.filter(|_| !changes.is_empty());
        let care = Care {
            confirm_within,
            ..*care
        };
        let dataplane = self.dataplane(!wanted.devices.is_empty(), &mut warnings)?;
        match dataplane {
            None => self.store(&changes, &care)?,
            Some(mut dataplane) => {
                let annotations = self.annotations.clone();
                let enforced = self.enforce(&mut dataplane, &wanted, &changes, &care);
                let Outcome { flows_left, .. } = match enforced {
                    Err(Error::TakenBack { .. }) if tries > 1 && self.has_lost_one(&wanted)? => {
                        drop(dataplane);
                        self.annotations = annotations;
                        self.news = warnings;
                        self.news.retain(Warning::is_news);
                        return self.install_trying(plan, &care, tries - 1);
                    }
                    enforced => enforced?,
                };
                if flows_left > 0 {
                    warnings.push(Warning::FlowsLeft(flows_left));
                }
                if self.holds {
                    self.held = Held::of(dataplane, &wanted.devices).ok();
                }
            }
        }
        if let (Some(within), Some(unconfirmed)) = (confirm_within, &mut self.unconfirmed) {
            confirmation::restart(&mut *self.store, unconfirmed, within)?;
        }
        // What cannot be told is looked at again.
        self.installed_for = self
            .attached()
            .ok()
            .map(|attachments| InstalledFor::new(&wanted.devices, attachments));
        if wanted.devices.is_empty() {
            self.dirs.unmount_if_empty(&self.lock)?;
        }
        Ok(Done {
            confirm_within,
            interfaces,
            ..self.done(plan.policy, changes, warnings)
        })
    }

    /// Whether a device that something was to be installed for is not there any more.
    fn has_lost_one(&self, wanted: &Wanted<'_>) -> Result<bool> {
        let there = Devices::find(wanted.policy, &Needed::None, &self.attached()?)?;
        let place = |device: &dataplane::Device| (device.netns.id(), device.link.ifindex);
        let there: BTreeSet<_> = there.found.iter().map(place).collect();
        let mut wanted = wanted.devices.iter();
        Ok(wanted.any(|device| !there.contains(&place(device))))
    }

    /// What is protected now. A record that is about to be replaced is not asked.
    fn attached(&self) -> Result<Vec<Attachment>> {
        if self.takes_over {
            return Ok(Vec::new());
        }
        view::attachments(&self.dirs)
    }

    /// Makes way for these devices, provided that no other one is protected.
    fn forget_former(&self, devices: &[dataplane::Device]) -> Result<()> {
        if let Some(bpffs) = self.dirs.find_bpffs()? {
            let interfaces = Dataplane::unprotected_with(&bpffs.path, devices);
            if !interfaces.is_empty() {
                return Err(Error::WouldOpen { interfaces });
            }
            Dataplane::forget_unreadable(self.dirs.run())?;
        }
        Ok(())
    }

    /// Stores the changes and installs what is wanted, if it can be installed.
    fn enforce<K: Kernel>(
        &mut self,
        kernel: &mut K,
        wanted: &Wanted<'_>,
        changes: &[Change],
        care: &Care<'_>,
    ) -> Result<Outcome> {
        let prepared = kernel.prepare(wanted)?;
        if !changes.is_empty()
            && let Some(session) = &care.session
            && let Some(image) = K::image(&prepared)
            && let Some(warning) = session::judge(
                session,
                &wanted.devices,
                image,
                care.confirm_within.is_some(),
            )
        {
            (care.tell)(News::Warning(&Warning::Session(warning)));
        }
        // Neither is anything yet without the other, and both take long.
        let (stored, staged) = thread::scope(|scope| {
            let staging = scope.spawn(|| kernel.stage(prepared));
            let stored = self.store(changes, care);
            let staged = staging.join();
            (
                stored,
                staged.unwrap_or_else(|panicked| resume_unwind(panicked)),
            )
        });
        stored?;
        (care.tell)(News::Step(Step::Install));
        match staged.and_then(|prepared| kernel.install(prepared)) {
            Ok(outcome) => Ok(outcome),
            Err(error) => {
                let told = self.undo(kernel, wanted.policy, error);
                if matches!(told, Error::TakenBack { .. }) && self.unconfirmed.take().is_some() {
                    confirmation::end(&mut *self.store)?;
                }
                Err(told)
            }
        }
    }

    /// Stores the changes, with a way back where one is asked for.
    fn store(&mut self, changes: &[Change], care: &Care<'_>) -> Result<()> {
        (care.tell)(News::Step(Step::Store));
        if let Some(within) = care.confirm_within {
            let before = self.revision.number();
            let begun = confirmation::begin(&mut *self.store, &self.dirs, before, within)?;
            self.unconfirmed = Some(begun);
        }
        let annotations = mem::take(&mut self.annotations);
        self.annotations_before = annotate::inverse(&*self.store, &annotations)?;
        self.revision = self
            .store
            .commit_annotated(self.revision, changes, &annotations)?;
        if !changes.is_empty() {
            TakenBack::forget(&mut *self.store)?;
        }
        Ok(())
    }

    fn done(&mut self, policy: Policy, changes: Vec<Change>, warnings: Vec<Warning>) -> Done {
        Done {
            before: mem::replace(&mut self.policy, policy),
            changes,
            revision: self.revision,
            warnings,
            interfaces: 0,
            confirm_within: None,
            generation: None,
        }
    }

    /// Where nothing is or was protected, nothing is mounted and there is no dataplane.
    fn dataplane(
        &mut self,
        is_needed: bool,
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<Dataplane>> {
        if let Some(held) = self.held.take() {
            let Held { mut dataplane, .. } = held;
            dataplane.mend_pins()?;
            dataplane.recall();
            return Ok(Some(dataplane));
        }
        let bpffs = match is_needed {
            true => Some(self.dirs.bpffs(&self.lock)?),
            false => self.dirs.find_bpffs()?,
        };
        let Some(bpffs) = bpffs else { return Ok(None) };
        if is_needed && bpffs.place == Place::Private {
            warnings.push(Warning::PrivatePins);
        }
        let mut dataplane = Dataplane::open(self.dirs.run(), &bpffs.path)?;
        dataplane.mend_pins()?;
        dataplane.set_owner(ownership::owner(&self.dirs, self.store.id()?));
        // What goes with its mount namespace is not worth keeping.
        self.holds &= bpffs.place == Place::Machine;
        if self.holds {
            dataplane.keep_compiled();
        }
        Ok(Some(dataplane))
    }

    /// Stores and installs the old policy again.
    fn undo(&mut self, kernel: &mut impl Kernel, refused: &Policy, why: dataplane::Error) -> Error {
        let mut back = || -> Result<()> {
            let changes = diff(refused, &self.policy);
            let notes = mem::take(&mut self.annotations_before);
            self.revision = self
                .store
                .commit_annotated(self.revision, &changes, &notes)?;
            crash::at(Point::UndoStored);
            let Devices { found, .. } =
                Devices::find(&self.policy, &Needed::None, &self.attached()?)?;
            let prepared = kernel.prepare(&Wanted {
                policy: &self.policy,
                devices: found,
                terminate: false,
                capacity: self.limits.flows,
                limits: self.limits.tables,
            })?;
            kernel.install(prepared)?;
            Ok(())
        };
        match back() {
            Ok(()) => Error::TakenBack {
                why,
                protected: self
                    .policy
                    .vpcs
                    .values()
                    .any(|vpc| !vpc.interfaces.is_empty()),
            },
            Err(second) => Error::Stuck {
                first: Box::new(why),
                second: Box::new(second),
            },
        }
    }
}

/// Makes the kernel hold what is stored, whatever it holds and whatever the machine has.
pub fn restore(options: &DirOptions) -> Result<Done> {
    let mut controller = Controller::open_to_restore(options)?;
    controller.distrust_changed_maps()?;
    controller.install(Plan {
        policy: controller.policy().clone(),
        needed: Needed::None,
        terminate: false,
    })
}

/// What installs a policy, so that tests can let it fail.
trait Kernel: Sync {
    type Prepared: Send;

    /// The tables that would be in force.
    fn image(prepared: &Self::Prepared) -> Option<&Image>;

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Self::Prepared, dataplane::Error>;

    /// Makes what takes long of it, while it can still be given up.
    fn stage(&self, prepared: Self::Prepared) -> Result<Self::Prepared, dataplane::Error>;

    fn install(&mut self, prepared: Self::Prepared) -> Result<Outcome, dataplane::Error>;
}

impl Kernel for Dataplane {
    type Prepared = Prepared;

    fn image(prepared: &Prepared) -> Option<&Image> {
        Some(prepared.image())
    }

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Prepared, dataplane::Error> {
        self.prepare_to_install(wanted)
    }

    fn stage(&self, prepared: Prepared) -> Result<Prepared, dataplane::Error> {
        self.stage(prepared)
    }

    fn install(&mut self, prepared: Prepared) -> Result<Outcome, dataplane::Error> {
        self.install(prepared)
    }
}

#[cfg(test)]
mod tests;
