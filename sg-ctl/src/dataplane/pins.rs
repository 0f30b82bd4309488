//! Pins that somebody removed: found missing, and put back.
//!
//! A program holds its maps whether they are pinned or not, and a link its program. So a removed pin
//! takes nothing away but the name, and what it named can be found again by way of the links.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use aya::maps::{MapData, MapInfo};
use aya::pin::PinError;
use aya::programs::{ProgramInfo, loaded_programs};

use super::maps::{FLOW_MAPS, FLOW_TABLE, LAYOUT_MAPS, flows_folder, layout_folder};
use super::state::Record;
use super::verify::Way;
use super::{Error, hooks, object, sys, tracing};

/// The name that a table of flows has when it is made beside the current one.
const OTHER_TABLE: &str = "OTHER_FLOWS";

/// One pin of what a record speaks of.
struct Pin {
    path: PathBuf,
    held: Held,
}

/// What is pinned.
enum Held {
    /// The map of this name.
    Map(&'static str),
    /// The table of flows with so many buckets.
    Table(u32),
    /// The program that this link runs.
    ProgramOf(PathBuf),
    /// A program that no link runs.
    Program,
}

/// The pins that are gone.
pub(super) fn missing(bpffs: &Path, record: &Record) -> Vec<PathBuf> {
    let pins = pins(bpffs, record).into_iter();
    let missing = pins.filter(|pin| !pin.path.exists());
    missing.map(|pin| pin.path).collect()
}

/// Puts back what is held by programs under links. Returns whether that was everything.
pub(super) fn put_back(bpffs: &Path, record: &Record) -> Result<bool, Error> {
    let missing: Vec<Pin> = pins(bpffs, record)
        .into_iter()
        .filter(|pin| !pin.path.exists())
        .collect();
    if missing.is_empty() {
        return Ok(true);
    }
    let programs = hooks::our_programs(bpffs);
    let programs: Vec<ProgramInfo> = loaded_programs()
        .flatten()
        .filter(|program| programs.contains(&program.id()))
        .collect();
    // A link may run a traced program for a while, and the pin is that of the ordinary one.
    let traced = tracing::traced_programs(&layout_folder(bpffs, record.layout));
    let maps = programs
        .iter()
        .filter_map(|program| program.map_ids().ok().flatten());
    let maps: BTreeSet<u32> = maps.flatten().collect();
    let maps: Vec<MapInfo> = maps
        .into_iter()
        .filter_map(|map| MapInfo::from_id(map).ok())
        .collect();
    let mut are_back = true;
    for pin in &missing {
        let is_back = put_back_one(pin, &programs, &traced, &maps)?;
        are_back &= is_back;
    }
    Ok(are_back)
}

fn put_back_one(
    pin: &Pin,
    programs: &[ProgramInfo],
    traced: &BTreeSet<u32>,
    maps: &[MapInfo],
) -> Result<bool, Error> {
    if let Some(folder) = pin.path.parent() {
        fs::create_dir_all(folder).map_err(|source| Error::Folder {
            path: folder.to_path_buf(),
            source,
        })?;
    }
    let map = match &pin.held {
        Held::Map(name) => maps.iter().find(|map| map.name_as_str() == Some(name)),
        Held::Table(buckets) => maps.iter().find(|map| {
            map.max_entries() == *buckets
                && matches!(map.name_as_str(), Some(FLOW_TABLE | OTHER_TABLE))
        }),
        Held::ProgramOf(link) => {
            let runs = hooks::program_of(link).filter(|runs| !traced.contains(runs));
            let Some(program) = programs.iter().find(|known| Some(known.id()) == runs) else {
                return Ok(false);
            };
            let program = program.fd().map_err(|source| Error::Program {
                name: "attached",
                source: Box::new(source),
            })?;
            let pinned = sys::pin(program.as_fd(), &pin.path);
            return pinned.map(|()| true).map_err(|source| Error::Folder {
                path: pin.path.clone(),
                source,
            });
        }
        Held::Program => None,
    };
    let Some(map) = map else { return Ok(false) };
    let failed = |source: PinError| Error::Pin {
        path: pin.path.clone(),
        source,
    };
    let map = MapData::from_id(map.id()).map_err(Error::Read)?;
    map.pin(&pin.path).map_err(failed)?;
    Ok(true)
}

/// Everything that has to be pinned, but for links.
fn pins(bpffs: &Path, record: &Record) -> Vec<Pin> {
    let layout = layout_folder(bpffs, record.layout);
    let flows = flows_folder(bpffs);
    let named = |folder: &Path, name| Pin {
        path: folder.join(name),
        held: Held::Map(name),
    };
    let mut pins: Vec<Pin> = FLOW_MAPS.map(|name| named(&flows, name)).into();
    let tables = [Some(record.flows), record.other_flows];
    pins.extend(tables.into_iter().flatten().map(|table| Pin {
        path: table.folder(bpffs).join(FLOW_TABLE),
        held: Held::Table(table.size.buckets),
    }));
    // Another build may have others in its layout, and is replaced whole.
    if record.fingerprint != object::fingerprint() {
        return pins;
    }
    pins.extend(LAYOUT_MAPS.map(|name| named(&layout, name)));
    pins.push(Pin {
        path: object::clock_path(&layout),
        held: Held::Program,
    });
    let links = hooks::links_folder(bpffs);
    for device in &record.devices {
        let receive = hooks::receive_program(device.hook);
        for (program, link) in [
            (object::TC_SEND, device.link(Way::Sent)),
            (receive, device.link(Way::Received)),
        ] {
            let path = hooks::program_path(&layout, device.netns, program);
            if !pins.iter().any(|pin| pin.path == path) {
                pins.push(Pin {
                    path,
                    held: Held::ProgramOf(links.join(link)),
                });
            }
        }
    }
    pins
}
