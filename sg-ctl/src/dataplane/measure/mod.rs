//! What tests and benchmarks look at the programs with; no package has any of it.
//!
//! [`Replay`] runs the installed programs on frames that no device has received, [`Rehearsal`] runs
//! programs over maps of its own, [`Flood`] makes traffic, [`Budget`] says what programs and maps take,
//! [`RandomLoads`] what memory takes,
//! and [`Walker`] goes through a program's instructions.
//!
//! The feature `measure` adds this module, and a second object: the kernel's half with programs to
//! measure by. What is measured are the programs of the object that every build has.

mod budget;
mod flood;
mod look_up;
#[cfg(test)]
mod loops;
mod random_loads;
mod rehearsal;
mod replay;
mod replay_flows;
mod stack;
mod walk;

use std::collections::{BTreeSet, HashSet};

use aya_obj::Object;

pub use self::budget::{Budget, MapCost, ProgramCost};
pub use self::flood::{Bound, Flood};
pub use self::random_loads::RandomLoads;
pub use self::rehearsal::{Rehearsal, Yardstick};
pub use self::replay::{Replay, ReplayHook};
pub use self::replay_flows::ReplayFlows;
pub use self::walk::{Lost, Walk, Walker};
use super::Error;
use super::object::OBJECT;
use super::wire::Entry;

/// The object that has programs to measure by besides the shipped ones.
static MEASURING_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sg-ebpf-measure"));

/// The names of the programs that only the second object has.
pub fn programs_to_measure_by() -> Result<BTreeSet<String>, Error> {
    Ok(&programs(MEASURING_OBJECT)? - &programs(OBJECT)?)
}

fn programs(object: &[u8]) -> Result<BTreeSet<String>, Error> {
    let (object, _) = parsed(object)?;
    Ok(object.programs.into_keys().collect())
}

impl Entry for sg_common::scatter::Scatter {}

/// An object, and the numbers of the sections that have its code.
fn parsed(object: &[u8]) -> Result<(Object, HashSet<usize>), Error> {
    let object = Object::parse(object).map_err(|error| Error::Unreadable(error.into()))?;
    let sections = object.functions.keys().map(|(section, _)| *section);
    let sections = sections.collect();
    Ok((object, sections))
}

#[cfg(test)]
mod tests {
    use super::super::object;
    use super::*;

    #[test]
    fn the_shipped_object_has_the_programs_that_are_loaded_and_no_other() {
        let loaded = object::PROGRAMS.iter().chain([&object::PASS]);
        let loaded: BTreeSet<String> = loaded.map(|name| (*name).to_owned()).collect();
        assert_eq!(programs(OBJECT).unwrap(), loaded);
        let (shipped, _) = parsed(OBJECT).unwrap();
        assert!(!shipped.maps.contains_key("SCATTER"));
    }

    #[test]
    fn the_measuring_object_has_the_shipped_programs_too() {
        let shipped = programs(OBJECT).unwrap();
        assert!(programs(MEASURING_OBJECT).unwrap().is_superset(&shipped));
        assert!(
            programs_to_measure_by()
                .unwrap()
                .contains("sg_scattered_xdp")
        );
    }
}
