//! From a changed policy to a kernel that enforces it, or to nothing changed at all.
//!
//! A change is prepared whole before anything is written, stored before it is enforced, and taken
//! back when it cannot be enforced. Each change also completes one that was interrupted: what is
//! stored is made to hold, whatever the kernel holds. What commands mean and how anything is
//! shown is not known here.

mod devices;
mod error;
mod view;

use std::mem;

use crate::dataplane::{self, Attachment, Dataplane, Outcome, Prepared, Wanted};
use crate::dirs::{DirOptions, Dirs, Lock, Place};
use crate::limits::Limits;
use crate::policy::change::Change;
use crate::policy::diff::diff;
use crate::policy::model::Policy;
use crate::privileges;
use crate::store::{Revision, SqliteStore, Store as _};

pub use devices::{Needed, namespace, recorded_namespace};
pub use error::{Error, Result};
pub use view::View;

use devices::Devices;

/// The right to change what one instance enforces, and the policy as it is.
pub struct Controller {
    dirs: Dirs,
    store: SqliteStore,
    revision: Revision,
    policy: Policy,
    limits: Limits,
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
}

impl Controller {
    /// Waits for other writers and reads what is stored, making the store if there is none.
    pub fn open(options: &DirOptions) -> Result<Self> {
        privileges::check()?;
        let dirs = Dirs::create(options)?;
        let lock = dirs.lock()?;
        let store = SqliteStore::open(dirs.state())?;
        let (revision, policy) = store.snapshot()?;
        let limits = Limits::read(&store)?;
        Ok(Self {
            dirs,
            store,
            revision,
            policy,
            limits,
            lock,
        })
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
        match self.dirs.find_bpffs()? {
            Some(bpffs) => {
                let dataplane = Dataplane::open(self.dirs.run(), &bpffs.path)?;
                Ok(dataplane.attachments()?)
            }
            None => Ok(Vec::new()),
        }
    }

    /// Stores the plan and makes the kernel match it, or fails and leaves both as they were.
    pub fn install(&mut self, plan: Plan) -> Result<Done> {
        let Devices { found, missing } = Devices::find(&plan.policy, &plan.needed)?;
        let mut warnings: Vec<_> = missing.into_iter().map(Warning::Missing).collect();
        let changes = diff(&self.policy, &plan.policy);
        let wanted = Wanted {
            policy: &plan.policy,
            devices: found,
            terminate: plan.terminate,
            capacity: self.limits.flows,
            limits: self.limits.tables,
        };
        let dataplane = self.dataplane(!wanted.devices.is_empty(), &mut warnings)?;
        match dataplane {
            None => self.revision = self.store.commit(self.revision, &changes)?,
            Some(dataplane) => {
                let Outcome { flows_left, .. } = self.enforce(dataplane, &wanted, &changes)?;
                if flows_left > 0 {
                    warnings.push(Warning::FlowsLeft(flows_left));
                }
            }
        }
        if wanted.devices.is_empty() {
            self.dirs.unmount_if_empty(&self.lock)?;
        }
        Ok(self.done(plan.policy, changes, warnings))
    }

    /// Stores the changes and installs what is wanted, if it can be installed.
    fn enforce(
        &mut self,
        mut kernel: impl Kernel,
        wanted: &Wanted<'_>,
        changes: &[Change],
    ) -> Result<Outcome> {
        let prepared = kernel.prepare(wanted)?;
        self.revision = self.store.commit(self.revision, changes)?;
        match kernel.install(prepared) {
            Ok(outcome) => Ok(outcome),
            Err(error) => Err(self.take_back(kernel, wanted.policy, error)),
        }
    }

    fn done(&mut self, policy: Policy, changes: Vec<Change>, warnings: Vec<Warning>) -> Done {
        Done {
            before: mem::replace(&mut self.policy, policy),
            changes,
            revision: self.revision,
            warnings,
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
    fn take_back(
        &mut self,
        mut kernel: impl Kernel,
        refused: &Policy,
        why: dataplane::Error,
    ) -> Error {
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

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Self::Prepared, dataplane::Error>;

    fn install(&mut self, prepared: Self::Prepared) -> Result<Outcome, dataplane::Error>;
}

impl Kernel for Dataplane {
    type Prepared = Prepared;

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Prepared, dataplane::Error> {
        self.prepare(wanted)
    }

    fn install(&mut self, prepared: Prepared) -> Result<Outcome, dataplane::Error> {
        self.install(prepared)
    }
}

#[cfg(test)]
mod tests;
