//! Layouts: sets of maps with the programs that look at them. They are made beside the one in force, put
//! under the links that are there, and removed when no program looks at them any more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use aya::maps::{Array, MapData};
use rand::random;
use sg_common::abi::reasons_index;
use sg_common::packet::Direction;

use super::error::Error;
use super::flow_tables::{self, FlowRoom};
use super::in_force::InForce;
use super::maps::{self, FLOW_MAPS, LayoutMaps, flows_folder, layout_folder};
use super::numbers::Numbers;
use super::per_cpu::{Counter, PerCpu};
use super::plan::Prepared;
use super::sizes::Sizes;
use super::state::Record;
use super::wire::Wire;
use super::{Dataplane, object, sys, update};
use crate::compile::image::Image;
use crate::crash::{self, Point};

/// A layout that no program under a link looks at. It goes again unless it is put in force.
pub(super) struct Staged {
    pub(super) record: Record,
    pub(super) folder: PathBuf,
    pub(super) is_kept: bool,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_kept {
            // The next installation removes what stays.
            let _ = remove_folder(&self.folder);
        }
    }
}

impl Dataplane {
    /// Makes the layout that an installation will put in force, if it needs one: what takes long, and
    /// what no packet can tell from its not being there.
    pub fn stage(&self, mut prepared: Prepared) -> Result<Prepared, Error> {
        let flows = match self.record() {
            // Flows have to be migrated step by step.
            Some(record) if !has_flows_of(record, &prepared) => return Ok(prepared),
            Some(record) => record.flows,
            None => FlowRoom {
                number: 1,
                size: prepared.flow_size,
            },
        };
        if prepared.is_nothing() || self.fits(&prepared) {
            return Ok(prepared);
        }
        if self.record().is_none() {
            self.remove_flows()?;
        }
        prepared.staged = Some(self.make_layout(self.record(), flows, None, &prepared)?);
        Ok(prepared)
    }

    /// Whether the layout in force can hold what was prepared.
    pub(super) fn fits(&self, prepared: &Prepared) -> bool {
        self.tables().is_some_and(|(record, image)| {
            has_flows_of(record, prepared)
                && record.interface_places == prepared.image.interface_places
                && record.sizes.fit(image, &prepared.image)
        })
    }

    /// Makes new maps, and tables of flows of another size where that is wanted. Returns how many
    /// flows found no room in them; those are kept where they are.
    pub(super) fn lay_out_anew(&mut self, prepared: &mut Prepared) -> Result<(Record, u32), Error> {
        if let Some(staged) = prepared.staged.take() {
            let before = self.record().map(|before| before.layout);
            return Ok((self.put_in_force(before, staged, prepared)?, 0));
        }
        let Some(before) = self.record().cloned() else {
            self.remove_flows()?;
            let flows = FlowRoom {
                number: 1,
                size: prepared.flow_size,
            };
            return Ok((self.lay_out(None, flows, None, prepared)?, 0));
        };
        let mut before = before;
        // Tables that were named and could not be made hold nothing, and no program knows them.
        if let Some(other) = before.other_flows
            && !other.is_made(&self.bpffs)
        {
            remove_folder(&other.folder(&self.bpffs))?;
            before.other_flows = None;
        }
        if before.other_flows.is_some() {
            let (record, left) = self.join_tables(&before, prepared)?;
            if left > 0 {
                return Ok((record, left));
            }
            before = record;
        }
        if before.flows.size != prepared.flow_size {
            let old = before.flows;
            // An interrupted attempt may have left tables of another size.
            let used = numbered(&self.bpffs, flow_tables::FOLDER);
            let last = used.last().map_or(old.number, |last| old.number.max(*last));
            let new = FlowRoom {
                number: last + 1,
                size: prepared.flow_size,
            };
            self.remember_tables(old, Some(new))?;
            before = self.lay_out(Some(&before), old, Some(new), prepared)?;
            // Until no program is left that knows the old tables only.
            sys::wait_for_readers().map_err(Error::Grace)?;
            (before.flows, before.other_flows) = (new, Some(old));
            let (record, left) = self.join_tables(&before, prepared)?;
            if left > 0 {
                return Ok((record, left));
            }
            before = record;
        }
        let record = self.lay_out(Some(&before), before.flows, None, prepared)?;
        Ok((record, 0))
    }

    /// Migrates flows from the record's other tables to its current ones. Returns how many
    /// found no room.
    pub(super) fn join_tables(
        &mut self,
        before: &Record,
        prepared: &Prepared,
    ) -> Result<(Record, u32), Error> {
        let (flows, other) = (before.flows, before.other_flows);
        let record = self.lay_out(Some(before), flows, other, prepared)?;
        self.files.write_record(&record)?;
        self.installed = Some(InForce::recorded(&self.bpffs, record.clone()));
        crash::at(Point::BothTablesRead);
        let left = flow_tables::migrate(&self.bpffs, &record)?;
        crash::at(Point::FlowsMigrated);
        Ok((record, left))
    }

    /// A command that continues after an interruption must know of both pairs of tables.
    pub(super) fn remember_tables(
        &mut self,
        flows: FlowRoom,
        other: Option<FlowRoom>,
    ) -> Result<(), Error> {
        if let Some(InForce { record, .. }) = &mut self.installed {
            (record.flows, record.other_flows) = (flows, other);
            self.files.write_record(record)?;
            crash::at(Point::TablesNamed);
        }
        Ok(())
    }

    /// Makes the maps of a layout, fills them, and puts programs that look at them under the links.
    pub(super) fn lay_out(
        &self,
        before: Option<&Record>,
        flows: FlowRoom,
        other_flows: Option<FlowRoom>,
        prepared: &Prepared,
    ) -> Result<Record, Error> {
        let staged = self.make_layout(before, flows, other_flows, prepared)?;
        self.put_in_force(before.map(|before| before.layout), staged, prepared)
    }

    /// Makes the maps of a layout, fills them, and loads the programs that look at them.
    pub(super) fn make_layout(
        &self,
        before: Option<&Record>,
        flows: FlowRoom,
        other_flows: Option<FlowRoom>,
        prepared: &Prepared,
    ) -> Result<Staged, Error> {
        let mut record = Record {
            fingerprint: object::fingerprint(),
            layout: self.free_layout(),
            sizes: Sizes::roomy(&prepared.image),
            flows,
            other_flows,
            interface_places: prepared.image.interface_places,
            generation: before.map_or(0, |before| before.generation),
            jiffies_per_second: prepared.jiffies_per_second,
            hash_key: before.map_or_else(random, |before| before.hash_key),
            netns: prepared.netns.clone(),
            devices: Vec::new(),
            next_incarnation: prepared.next_incarnation,
            numbers: Numbers::of(&prepared.image.ids),
        };
        let folder = layout_folder(&self.bpffs, record.layout);
        let mut object = object::load(&self.bpffs, &record, 0)?;
        object::pin_clock(&mut object, &folder)?;
        drop(object);
        crash::at(Point::LayoutMade);
        let mut maps = LayoutMaps::open(&folder)?;
        let nothing = Image {
            ids: prepared.image.ids.clone(),
            ..Image::default()
        };
        let globals = Self::globals(&record);
        let (after, ()) = update::update(&mut maps, &globals, &nothing, &prepared.image, |_| ())?;
        record.generation = after.0;
        crash::at(Point::LayoutFilled);
        for device in &prepared.devices {
            self.pin_programs(&record, &device.record)?;
        }
        crash::at(Point::LayoutLoaded);
        Ok(Staged {
            record,
            folder,
            is_kept: false,
        })
    }

    /// Puts the programs of a layout under the links. `before` is the layout that was in force.
    pub(super) fn put_in_force(
        &self,
        before: Option<u32>,
        mut staged: Staged,
        prepared: &Prepared,
    ) -> Result<Record, Error> {
        // From here on somebody may look at it.
        staged.is_kept = true;
        let mut record = staged.record.clone();
        self.attach_all(&mut record, prepared, true)?;
        if let Some(before) = before {
            // Until the programs that count in the maps before have judged their last packet.
            sys::wait_for_readers().map_err(Error::Grace)?;
            let maps = LayoutMaps::open(&staged.folder)?;
            self.carry_counts(before, &maps, &prepared.image)?;
            crash::at(Point::CountsContinued);
        }
        Ok(record)
    }

    /// What was counted by the rules and interfaces that both layouts have is counted on.
    pub(super) fn carry_counts(
        &self,
        from: u32,
        to: &LayoutMaps,
        image: &Image,
    ) -> Result<(), Error> {
        // An interrupted command may have left maps that cannot be read; counters then begin anew.
        let Ok(from) = LayoutMaps::open(&layout_folder(&self.bpffs, from)) else {
            return Ok(());
        };
        let rules = image.ids.rules.values();
        continue_counts(&from.rules, &to.rules, rules.map(|slot| slot.0))?;
        let known = self.names().map(|(_, image)| &image.interfaces);
        let kept = image.interfaces.iter().filter(|(slot, interface)| {
            let before = known.and_then(|known| known.get(slot));
            before.is_some_and(|before| before.is_device_of(interface))
        });
        let reasons = kept.flat_map(|(slot, _)| {
            let directions = Direction::ALL.into_iter();
            directions.map(|direction| reasons_index(*slot, direction))
        });
        continue_counts(&from.reasons, &to.reasons, reasons)
    }

    /// A number that no folder has.
    pub(super) fn free_layout(&self) -> u32 {
        let highest = layouts(&self.bpffs).into_iter().max().unwrap_or(0);
        highest.max(self.record().map_or(0, |record| record.layout)) + 1
    }

    /// Removes the layouts and tables of flows that a record does not speak of.
    pub(super) fn remove_unused(&self, record: &Record) -> Result<(), Error> {
        for layout in layouts(&self.bpffs) {
            if layout != record.layout {
                remove_folder(&layout_folder(&self.bpffs, layout))?;
            }
        }
        let kept = [Some(record.flows), record.other_flows];
        for number in numbered(&self.bpffs, flow_tables::FOLDER) {
            let is_kept = |tables: &FlowRoom| tables.number == number;
            if !kept.iter().flatten().any(is_kept) {
                remove_folder(&flow_tables::folder(&self.bpffs, number))?;
            }
        }
        self.remove_former_maps()
    }

    /// Removes the maps beside the flows that only an earlier version used.
    pub(super) fn remove_former_maps(&self) -> Result<(), Error> {
        let entries = fs::read_dir(flows_folder(&self.bpffs))
            .into_iter()
            .flatten();
        for entry in entries.flatten() {
            let is_used = FLOW_MAPS.iter().any(|name| entry.file_name() == *name);
            if !is_used {
                fs::remove_file(entry.path()).map_err(|source| Error::Folder {
                    path: entry.path(),
                    source,
                })?;
            }
        }
        Ok(())
    }

    pub(super) fn remove_flows(&self) -> Result<(), Error> {
        for number in numbered(&self.bpffs, flow_tables::FOLDER) {
            remove_folder(&flow_tables::folder(&self.bpffs, number))?;
        }
        remove_folder(&flows_folder(&self.bpffs))
    }
}

/// Whether flows can stay in the tables where they are.
pub(super) fn has_flows_of(record: &Record, prepared: &Prepared) -> bool {
    record.flows.size == prepared.flow_size && record.other_flows.is_none()
}

/// The layouts that have a folder.
pub(super) fn layouts(bpffs: &Path) -> BTreeSet<u32> {
    numbered(bpffs, maps::LAYOUT_FOLDER)
}

/// The numbers behind the names of folders that begin so.
pub(super) fn numbered(bpffs: &Path, prefix: &str) -> BTreeSet<u32> {
    let entries = fs::read_dir(bpffs).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.strip_prefix(prefix)?.parse().ok()
        })
        .collect()
}

/// Has the entries of a map go on from what those of an earlier map have counted.
pub(super) fn continue_counts<C: Counter>(
    from: &Array<MapData, Wire<C>>,
    to: &Array<MapData, Wire<C>>,
    mut indexes: impl Iterator<Item = u32>,
) -> Result<(), Error> {
    let (from, mut to) = (PerCpu::open(from)?, PerCpu::open(to)?);
    indexes.try_for_each(|index| to.continue_from(&from, index))
}

pub(super) fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Folder {
            path: path.to_path_buf(),
            source,
        }),
        _ => Ok(()),
    }
}
