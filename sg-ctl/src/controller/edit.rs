//! Edits of a policy that is kept compiled, so that each costs what it changes.
//!
//! Whoever keeps a controller open, and with it the right to change, makes small changes by edits.
//! What an edit cannot do is done as by [`Controller::install`], with the same outcome.

use std::mem;

use super::error::{Error, Result};
use super::{Controller, Done, Needed, Plan};
use crate::compile::Reversible;
use crate::dataplane::{self, PreparedEdit};
use crate::policy::change::Change;
use crate::policy::model::Policy;
use crate::store::Revision;

/// What an edit came to.
#[derive(Debug)]
pub struct Edited {
    /// The revision in force.
    pub revision: Revision,
    /// The generation in force; none where nothing is protected, or all was installed.
    pub generation: Option<u32>,
    /// What was done where all was prepared and installed.
    pub whole: Option<Done>,
}

impl Controller {
    /// Makes the kernel hold what is stored, and keeps it compiled for [`Self::edit`].
    pub fn hold(&mut self) -> Result<Done> {
        self.holds = true;
        self.held = None;
        let policy = self.policy.clone();
        self.install(Plan {
            policy,
            needed: Needed::None,
            terminate: false,
        })
    }

    /// Stores changes and makes the kernel match them, or fails and leaves both as they were.
    pub fn edit(&mut self, changes: &[Change]) -> Result<Edited> {
        if let Some(unconfirmed) = &self.unconfirmed
            && !changes.is_empty()
        {
            return Err(Error::Unconfirmed(unconfirmed.left_s()));
        }
        let reversible = Reversible::of(&self.policy, changes);
        // The policy is not copied: there may be a million rules.
        let policy = match mem::take(&mut self.policy).apply(changes) {
            Ok(policy) => policy,
            Err(findings) => {
                self.read_policy()?;
                return Err(findings.into());
            }
        };
        let prepared = reversible.and_then(|reversible| {
            let dataplane = self.held.as_mut()?;
            let prepared = dataplane.prepare_edit(&policy, &reversible.edits);
            Some((prepared.transpose()?, reversible.inverse))
        });
        match prepared {
            Some((Ok(prepared), inverse)) => self.install_edit(policy, changes, prepared, &inverse),
            // The whole is refused for the same reason, or does fit.
            Some((Err(_), _)) | None => {
                self.read_policy()?;
                let done = self.install(Plan {
                    policy,
                    needed: Needed::None,
                    terminate: false,
                })?;
                Ok(Edited {
                    revision: done.revision,
                    generation: None,
                    whole: Some(done),
                })
            }
        }
    }

    fn install_edit(
        &mut self,
        policy: Policy,
        changes: &[Change],
        prepared: PreparedEdit,
        inverse: &[Change],
    ) -> Result<Edited> {
        if let Err(error) = self.store(changes, &super::Care::none()) {
            // What is kept compiled has the edit already, and the kernel has not.
            self.held = None;
            self.read_policy()?;
            return Err(error);
        }
        let mut dataplane = self.held.take();
        let installed = match &mut dataplane {
            Some(dataplane) => dataplane.install_edit(prepared),
            None => Err(dataplane::Error::NotHeld),
        };
        match (installed, dataplane) {
            (Ok(outcome), dataplane) => {
                (self.policy, self.held) = (policy, dataplane);
                Ok(Edited {
                    revision: self.revision,
                    generation: Some(outcome.generation),
                    whole: None,
                })
            }
            (Err(why), Some(mut dataplane)) => {
                self.policy = policy.clone().apply(inverse)?;
                Err(self.undo(&mut dataplane, &policy, why))
            }
            (Err(why), None) => Err(why.into()),
        }
    }

    /// The policy as it is stored.
    fn read_policy(&mut self) -> Result<()> {
        (self.revision, self.policy) = self.store.snapshot()?;
        Ok(())
    }
}
