//! Edits of a policy that is kept compiled in memory.
//!
//! What an edit does not touch is neither compiled nor read. Where it does not fit into the maps, or
//! they are no longer what was installed, everything is prepared and installed as by a command.

use std::net::IpAddr;
use std::sync::Mutex;

use super::in_force::InForce;
use super::maps::{LayoutMaps, layout_folder};
use super::numbers::Numbers;
use super::state::Record;
use super::{Dataplane, Error, Outcome, tracing, update};
use crate::compile::image::Image;
use crate::compile::{Change, Edits, Live};

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

    /// What is kept compiled is what an installation goes on from, so that no map is read.
    pub fn recall(&mut self) {
        if let (Some(held), Some(in_force)) = (&mut self.held, &self.installed)
            && held.live.is_settled()
        {
            let image = held.live.image();
            self.installed = Some(InForce::installed(
                &self.bpffs,
                in_force.record.clone(),
                image,
            ));
        }
    }

    pub(super) fn hold(&mut self, record: &Record, live: Option<Box<Live>>) -> Result<(), Error> {
        let Some(mut live) = live else { return Ok(()) };
        live.settle();
        let maps = LayoutMaps::open(&layout_folder(&self.bpffs, record.layout))?;
        self.held = Some(Held { live, maps });
        Ok(())
    }

    /// Compiles what edits touch. Changes nothing in the kernel. None where nothing is kept or the edits
    /// do not fit: then everything is to be prepared.
    pub fn prepare_edit(&mut self, edits: &Edits) -> Option<PreparedEdit> {
        // Whatever does not fit is kept no longer.
        let mut held = self.held.take().filter(|_| !self.files.is_marked())?;
        let record = self.record()?;
        let change = held.live.edit(edits).ok()?;
        // Flows that are still to be moved wait for a change that moves them.
        let fits =
            record.other_flows.is_none() && record.sizes.fit_edit(&change, held.live.entries());
        self.held = Some(held).filter(|_| fits);
        fits.then_some(PreparedEdit(change))
    }

    /// The tables that would be in force after what was prepared last, as far as packets between
    /// these addresses meet them; none where nothing is kept.
    pub fn edited_image(&mut self, addresses: &[IpAddr]) -> Option<Image> {
        let held = self.held.as_mut()?;
        Some(held.live.image_around(addresses))
    }

    /// Makes the kernel hold what was prepared last.
    pub fn install_edit(&mut self, prepared: PreparedEdit) -> Result<Outcome, Error> {
        let PreparedEdit(Change { old, new }) = prepared;
        let (Some(mut held), Some(in_force)) = (self.held.take(), &self.installed) else {
            return Err(Error::NotHeld);
        };
        let mut record = in_force.record.without_numbers();
        // Traced programs tell of one policy, and stay under no other one.
        tracing::end_all(self.instance(), &in_force.record)?;
        self.files.mark()?;
        let globals = Self::globals(&record);
        let ids = held.live.ids();
        let files = &self.files;
        let (_, written) = update::update(&mut held.maps, &globals, &old, &new, |after| {
            record.generation = after.0;
            record.numbers = Numbers::of(ids);
            files.write_next_record(&record)?;
            Ok::<_, Error>(record)
        })?;
        let record = written?;
        self.files.put_next_record()?;
        self.files.unmark()?;
        self.rest = Mutex::default();
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
