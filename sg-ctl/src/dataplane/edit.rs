//! Edits of a policy that is kept compiled in memory.
//!
//! What an edit does not touch is neither compiled nor read. Where it does not fit into the maps, or
//! they are no longer what was installed, everything is prepared and installed as by a command.

use super::in_force::InForce;
use super::maps::{LayoutMaps, layout_folder};
use super::numbers::Numbers;
use super::state::Record;
use super::{Dataplane, Error, Outcome, update};
use crate::compile::{Change, Edits, Live};
use crate::policy::model::Policy;

/// What is in force, compiled, with its maps open.
pub(super) struct Held {
    live: Box<Live>,
    maps: LayoutMaps,
}

/// An edit that fits, not yet installed.
pub struct PreparedEdit(Change);

impl Dataplane {
    /// From now on, what is installed is kept compiled, for [`Self::prepare_edit`].
    pub fn keep_compiled(&mut self) {
        self.keeps = true;
    }

    pub(super) fn hold(&mut self, record: &Record, live: Option<Box<Live>>) -> Result<(), Error> {
        let Some(mut live) = live else { return Ok(()) };
        live.settle();
        let maps = LayoutMaps::open(&layout_folder(&self.bpffs, record.layout))?;
        self.held = Some(Held { live, maps });
        Ok(())
    }

    /// Compiles what edits touch; `policy` is the one after them. Changes nothing in the kernel. None
    /// where nothing is kept or the edits do not fit: then everything is to be prepared.
    pub fn prepare_edit(
        &mut self,
        policy: &Policy,
        edits: &Edits,
    ) -> Result<Option<PreparedEdit>, Error> {
        if self.files.is_marked() {
            self.held = None;
        }
        let (Some(held), Some(in_force)) = (&mut self.held, &self.installed) else {
            return Ok(None);
        };
        let change = held.live.edit(policy, edits)?;
        let fits = in_force.record.sizes.fit_edit(&change, held.live.entries());
        if !fits {
            self.held = None;
        }
        Ok(fits.then_some(PreparedEdit(change)))
    }

    /// Makes the kernel hold what was prepared last.
    pub fn install_edit(&mut self, prepared: PreparedEdit) -> Result<Outcome, Error> {
        let PreparedEdit(Change { old, new }) = prepared;
        let (Some(mut held), Some(in_force)) = (self.held.take(), &self.installed) else {
            return Err(Error::NotHeld);
        };
        let mut record = in_force.record.without_numbers();
        self.files.mark()?;
        let globals = Self::globals(&record);
        let ids = held.live.ids();
        let (_, record) = update::update(&mut held.maps, &globals, &old, &new, |after| {
            record.generation = after.0;
            record.numbers = Numbers::of(ids);
            record
        })?;
        self.files.write_record(&record)?;
        self.files.unmark()?;
        held.live.settle();
        let generation = record.generation;
        self.installed = Some(InForce::recorded(&self.bpffs, record));
        self.held = Some(held);
        Ok(Outcome {
            generation,
            flows_left: 0,
        })
    }
}
