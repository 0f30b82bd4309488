//! Changes of a policy that is kept compiled, so that each costs what it changes.
//!
//! Rules, members and prefixes that come or go are made in the tables that are kept in memory, as long as
//! the machine is as it was when they were compiled. What cannot be made so is made as by
//! [`Controller::install`], with the same outcome, and kept compiled from then on.

use super::devices::{Devices, Needed, refuse_unfit};
use super::error::{Error, Result};
use super::machine::Seen;
use super::{Care, Controller, Done, News, Plan, Step, Warning, session};
use crate::compile::Reversible;
use crate::dataplane::{self, Attachment, Dataplane, Device, PreparedEdit};
use crate::policy::change::Change;
use crate::policy::diff::diff;
use crate::policy::model::Policy;

/// What is in force and kept compiled, and the machine that it was compiled for.
pub(super) struct Held {
    pub(super) dataplane: Dataplane,
    devices: Vec<Seen>,
    attachments: Vec<Attachment>,
}

/// A change that fits into the tables that are kept.
struct Edit<'a> {
    /// The part of the policy that it speaks of, as it was.
    before: Policy,
    changes: Vec<Change>,
    /// What takes it back.
    inverse: Vec<Change>,
    warnings: Vec<Warning>,
    devices: Vec<Device>,
    care: &'a Care<'a>,
}

impl Held {
    pub(super) fn of(dataplane: Dataplane, devices: &[Device]) -> Result<Self> {
        Ok(Self {
            devices: devices.iter().map(Seen::of).collect(),
            attachments: dataplane.attachments()?,
            dataplane,
        })
    }

    /// The machine as it is, if it is as it was when the tables were compiled.
    fn same_machine(&self, policy: &Policy) -> Result<Option<Devices>> {
        let attachments = self.dataplane.attachments()?;
        if attachments != self.attachments {
            return Ok(None);
        }
        let devices = Devices::find(policy, &Needed::None, &attachments)?;
        let seen = devices.found.iter().map(Seen::of);
        Ok(seen.eq(self.devices.iter().cloned()).then_some(devices))
    }
}

impl Controller {
    /// Makes the kernel hold what is stored, and keeps it compiled for [`Self::change`]. What nobody
    /// has kept so far is compared with the maps first.
    pub fn hold(&mut self) -> Result<Done> {
        self.keep_compiled();
        if self.held.is_none() {
            self.distrust_changed_maps()?;
        }
        let policy = self.policy.clone();
        self.install(Plan {
            policy,
            needed: Needed::None,
            terminate: false,
        })
    }

    /// From here on, what is installed is kept compiled.
    pub fn keep_compiled(&mut self) {
        self.holds = true;
    }

    /// Stores changes that need no interface in particular and makes the kernel match them, or fails and
    /// leaves both as they were.
    pub fn change(&mut self, changes: &[Change]) -> Result<Done> {
        self.change_with(changes, false, &Care::none())
    }

    /// As [`Self::change`], with a way back and word of what happens.
    pub fn change_with(
        &mut self,
        changes: &[Change],
        terminate: bool,
        care: &Care<'_>,
    ) -> Result<Done> {
        if !terminate
            && care.confirm_within.is_none()
            && let Some(done) = self.edit(changes, care)?
        {
            return Ok(done);
        }
        let plan = Plan {
            policy: self.policy.clone().apply(changes)?,
            needed: Needed::None,
            terminate,
        };
        self.install_with(plan, care)
    }

    /// Makes changes in the tables that are kept; none where that cannot be done, with nothing changed.
    fn edit(&mut self, changes: &[Change], care: &Care<'_>) -> Result<Option<Done>> {
        let Some(held) = &self.held else {
            return Ok(None);
        };
        let Some(before) = self.policy.excerpt(changes) else {
            return Ok(None);
        };
        let changes = diff(&before, &before.clone().apply(changes)?);
        if let Some(unconfirmed) = &self.unconfirmed
            && !changes.is_empty()
        {
            return Err(Error::Unconfirmed(unconfirmed.left_s()));
        }
        (care.tell)(News::Step(Step::Compile));
        held.dataplane.mend_pins()?;
        let Some(devices) = held.same_machine(&self.policy)? else {
            return Ok(None);
        };
        let refused = refuse_unfit(&self.policy, &devices.found, &self.policy)?;
        let reversible = Reversible::of(&before, &changes);
        let inverse = match &reversible {
            Some(reversible) => reversible.inverse.clone(),
            None if changes.is_empty() => Vec::new(),
            None => return Ok(None),
        };
        let mut warnings = std::mem::take(&mut self.news);
        warnings.extend(devices.missing.into_iter().map(Warning::Missing));
        warnings.extend(devices.strayed.into_iter().map(Warning::Strayed));
        warnings.extend(refused.into_iter().map(Warning::Unfit));
        let edit = Edit {
            before,
            changes,
            inverse,
            warnings,
            devices: devices.found,
            care,
        };
        let Some(Reversible { edits, .. }) = reversible else {
            return Ok(Some(self.edited(edit, None)));
        };
        self.policy.make(&edit.changes);
        let held = self.held.as_mut();
        match held.and_then(|held| held.dataplane.prepare_edit(&edits)) {
            Some(prepared) => self.install_edit(edit, prepared).map(Some),
            // The whole is refused for the same reason, or does fit.
            None => {
                self.policy.make(&edit.inverse);
                self.news = edit.warnings;
                self.news.retain(Warning::is_news);
                Ok(None)
            }
        }
    }

    fn install_edit(&mut self, edit: Edit<'_>, prepared: PreparedEdit) -> Result<Done> {
        self.judge_session(&edit);
        if let Err(error) = self.store(&edit.changes, edit.care) {
            // What is kept compiled has the edit already, and the kernel has not.
            self.held = None;
            self.policy.make(&edit.inverse);
            return Err(error);
        }
        (edit.care.tell)(News::Step(Step::Install));
        let Some(Held { mut dataplane, .. }) = self.held.take() else {
            return Err(dataplane::Error::NotHeld.into());
        };
        match dataplane.install_edit(prepared) {
            Ok(outcome) => {
                self.held = Held::of(dataplane, &edit.devices).ok();
                Ok(self.edited(edit, Some(outcome.generation)))
            }
            Err(why) => {
                let refused = self.policy.clone();
                self.policy.make(&edit.inverse);
                Err(self.undo(&mut dataplane, &refused, why))
            }
        }
    }

    /// Warns where the tables would keep out whoever gives the command.
    fn judge_session(&mut self, edit: &Edit<'_>) {
        let Some(session) = edit.care.session else {
            return;
        };
        let held = self.held.as_mut();
        let ends = [session.client.ip(), session.server.ip()];
        let image = held.and_then(|held| held.dataplane.edited_image(&ends));
        if let Some(image) = image
            && let Some(warning) = session::judge(&session, &edit.devices, &image, false)
        {
            (edit.care.tell)(News::Warning(&Warning::Session(warning)));
        }
    }

    fn edited(&self, edit: Edit<'_>, generation: Option<u32>) -> Done {
        Done {
            before: edit.before,
            changes: edit.changes,
            revision: self.revision,
            warnings: edit.warnings,
            interfaces: 0,
            confirm_within: None,
            generation,
        }
    }
}
