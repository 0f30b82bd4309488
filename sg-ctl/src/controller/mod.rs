//! From a changed policy to a kernel that enforces it, or to nothing changed at all.
//!
//! A change is prepared whole before anything is written, stored before it is enforced, and taken
//! back when it cannot be enforced. Each change also completes one that was interrupted: what is
//! stored is made to hold, whatever the kernel holds. What commands mean and how anything is
//! shown is not known here.

mod amending;
mod confirmation;
mod devices;
mod error;
mod session;
mod verify;
mod view;

use std::mem;
use std::time::Duration;

use crate::dataplane::{self, Attachment, Dataplane, Outcome, Prepared, Wanted};
use crate::dirs::{DirOptions, Dirs, Lock, Place};
use crate::limits::Limits;
use crate::policy::change::Change;
use crate::policy::diff::diff;
use crate::policy::model::Policy;
use crate::privileges;
use crate::store::{Revision, SqliteStore, Store as _};

pub use amending::Amended;
pub use confirmation::{AWAIT_COMMAND, TakenBack, Unconfirmed, await_confirmation};
pub use devices::{Needed, namespace, recorded_namespace};
pub use error::{Error, Result};
pub use session::{Session, SessionWarning};
pub use verify::Verified;
pub use view::View;

use crate::compile::image::Image;
use devices::{Devices, Surroundings};

/// The right to change what one instance enforces, and the policy as it is.
pub struct Controller {
    dirs: Dirs,
    store: SqliteStore,
    revision: Revision,
    policy: Policy,
    limits: Limits,
    unconfirmed: Option<Unconfirmed>,
    /// What has been done on the way here, for whoever asks next.
    news: Vec<Warning>,
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
    /// Told of each step before it is made, and of what the user should know before it is.
    pub tell: &'a dyn Fn(News<'_>),
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
    /// The policy as it was.
    pub before: Policy,
    /// What was stored, in order; empty when the policy was so already.
    pub changes: Vec<Change>,
    /// The revision in force.
    pub revision: Revision,
    /// What the user should know although it kept nothing from being done.
    pub warnings: Vec<Warning>,
    /// The change is taken back unless it is confirmed within this time.
    pub confirm_within: Option<Duration>,
}

/// What the user should know.
#[derive(Debug, thiserror::Error)]
pub enum Warning {
    /// An interface of the policy cannot be protected now.
    #[error("{0}; it is protected when it is back and `sg-ctl restore` has run")]
    Missing(crate::interfaces::Error),
    /// The pins will not outlive the mount namespace.
    #[error(
        "the bpf filesystem is visible in this mount namespace only: protection ends with the last \
         process in it"
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
        "an earlier change was not confirmed in time and has been taken back: the policy is that \
         of revision {0} again"
    )]
    TakenBack(u64),
    /// The session that the command was given in would not be let in any more.
    #[error(transparent)]
    Session(SessionWarning),
}

impl Controller {
    /// Waits for other writers and reads what is stored, making the store if there is none.
    pub fn open(options: &DirOptions) -> Result<Self> {
        let (dirs, lock) = Self::lock(options)?;
        Self::read(dirs, lock)
    }

    fn lock(options: &DirOptions) -> Result<(Dirs, Lock)> {
        privileges::check()?;
        let dirs = Dirs::create(options)?;
        let lock = dirs.lock()?;
        Ok((dirs, lock))
    }

    fn read(dirs: Dirs, lock: Lock) -> Result<Self> {
        let store = SqliteStore::open(dirs.state())?;
        Self::of(dirs, lock, store)
    }

    fn of(dirs: Dirs, lock: Lock, store: SqliteStore) -> Result<Self> {
        let (revision, policy) = store.snapshot()?;
        let limits = Limits::read(&store)?;
        let mut controller = Self {
            unconfirmed: Unconfirmed::find(&store)?,
            dirs,
            store,
            revision,
            policy,
            limits,
            news: Vec::new(),
            lock,
        };
        controller.complete_overdue()?;
        Ok(controller)
    }

    /// Takes back a change whose time is over, should nobody have come to do it.
    fn complete_overdue(&mut self) -> Result<()> {
        let is_overdue = |unconfirmed: &Unconfirmed| unconfirmed.left().is_zero();
        if !self.unconfirmed.as_ref().is_some_and(is_overdue) {
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
        self.limits.write(&mut self.store)?;
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
            self.limits.write(&mut self.store)?;
            if matches!(error, Error::TakenBack(_) | Error::Stuck { .. }) {
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
        let careless = Care {
            confirm_within: None,
            tell: &|_| (),
        };
        self.install_with(plan, &careless)
    }

    /// As [`Self::install`], with a way back and word of what happens.
    pub fn install_with(&mut self, plan: Plan, care: &Care<'_>) -> Result<Done> {
        (care.tell)(News::Step(Step::Compile));
        let changes = diff(&self.policy, &plan.policy);
        if let Some(unconfirmed) = &self.unconfirmed
            && !changes.is_empty()
        {
            return Err(Error::Unconfirmed(unconfirmed.left_s()));
        }
        let Devices { found, missing } = Devices::find(&plan.policy, &plan.needed)?;
        let surroundings = Surroundings::of(&plan.policy, &found, &missing, &self.limits);
        let mut warnings = mem::take(&mut self.news);
        warnings.extend(missing.into_iter().map(Warning::Missing));
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
                let Outcome { flows_left, .. } =
                    self.enforce(&mut dataplane, &wanted, &changes, &care)?;
                dataplane.keep_books(&plan.policy, self.store.stamp()?, &surroundings.to_bytes());
                if flows_left > 0 {
                    warnings.push(Warning::FlowsLeft(flows_left));
                }
            }
        }
        if let (Some(within), Some(unconfirmed)) = (confirm_within, &mut self.unconfirmed) {
            confirmation::restart(&mut self.store, unconfirmed, within)?;
        }
        if wanted.devices.is_empty() {
            self.dirs.unmount_if_empty(&self.lock)?;
        }
        Ok(Done {
            confirm_within,
            ..self.done(plan.policy, changes, warnings)
        })
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
            && let Some(image) = K::image(&prepared)
            && let Some(warning) =
                session::judge(&wanted.devices, image, care.confirm_within.is_some())
        {
            (care.tell)(News::Warning(&Warning::Session(warning)));
        }
        self.store(changes, care)?;
        (care.tell)(News::Step(Step::Install));
        match kernel.install(prepared) {
            Ok(outcome) => Ok(outcome),
            Err(error) => {
                let told = self.undo(kernel, wanted.policy, error);
                if matches!(told, Error::TakenBack(_)) && self.unconfirmed.take().is_some() {
                    confirmation::end(&mut self.store, &self.dirs)?;
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
            let begun = confirmation::begin(&mut self.store, &self.dirs, before, within)?;
            self.unconfirmed = Some(begun);
        }
        self.revision = self.store.commit(self.revision, changes)?;
        if !changes.is_empty() {
            TakenBack::forget(&mut self.store)?;
        }
        Ok(())
    }

    fn done(&mut self, policy: Policy, changes: Vec<Change>, warnings: Vec<Warning>) -> Done {
        Done {
            before: mem::replace(&mut self.policy, policy),
            changes,
            revision: self.revision,
            warnings,
            confirm_within: None,
        }
    }

    /// Where nothing is or was protected, nothing is mounted and there is no dataplane.
    fn dataplane(&self, is_needed: bool, warnings: &mut Vec<Warning>) -> Result<Option<Dataplane>> {
        let bpffs = match is_needed {
            true => Some(self.dirs.bpffs(&self.lock)?),
            false => self.dirs.find_bpffs()?,
        };
        let Some(bpffs) = bpffs else { return Ok(None) };
        if is_needed && bpffs.place == Place::Private {
            warnings.push(Warning::PrivatePins);
        }
        Ok(Some(Dataplane::open(self.dirs.run(), &bpffs.path)?))
    }

    /// Stores and installs the old policy again.
    fn undo(&mut self, kernel: &mut impl Kernel, refused: &Policy, why: dataplane::Error) -> Error {
        let mut back = || -> Result<()> {
            let changes = diff(refused, &self.policy);
            self.revision = self.store.commit(self.revision, &changes)?;
            let Devices { found, .. } = Devices::find(&self.policy, &Needed::None)?;
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
            Ok(()) => Error::TakenBack(why),
            Err(second) => Error::Stuck {
                first: Box::new(why),
                second: Box::new(second),
            },
        }
    }
}

/// What installs a policy, so that tests can let it fail.
trait Kernel {
    type Prepared;

    /// The tables that would be in force.
    fn image(prepared: &Self::Prepared) -> Option<&Image>;

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Self::Prepared, dataplane::Error>;

    fn install(&mut self, prepared: Self::Prepared) -> Result<Outcome, dataplane::Error>;
}

impl Kernel for Dataplane {
    type Prepared = Prepared;

    fn image(prepared: &Prepared) -> Option<&Image> {
        Some(prepared.image())
    }

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Prepared, dataplane::Error> {
        self.prepare(wanted)
    }

    fn install(&mut self, prepared: Prepared) -> Result<Outcome, dataplane::Error> {
        self.install(prepared)
    }
}

#[cfg(test)]
mod tests;
