//! What the fuzz targets share: a property of `tests::properties`, as libFuzzer wants it.
//!
//! The bytes that a property starts from are made by its target, so that nothing else has to be
//! built to have them: with `SG_FUZZ_SEEDS` they are written to that folder before fuzzing begins.

use std::env;
use std::fs;
use std::path::Path;

use anyhow::Result;
use tests::corpus::Corpus;
use tests::properties::Property;

/// Writes the property's seeds where they are asked for.
pub fn plant(property: &Property) {
    if let Some(folder) = env::var_os("SG_FUZZ_SEEDS")
        && let Err(error) = write_seeds(property, Path::new(&folder))
    {
        panic!("no seeds for {}: {error:#}", property.name);
    }
}

fn write_seeds(property: &Property, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for (number, seed) in (property.seeds)(&Corpus::read()?)?.iter().enumerate() {
        fs::write(folder.join(format!("seed-{number:03}")), seed)?;
    }
    Ok(())
}

/// Panics, which is what libFuzzer looks for, where the property does not hold.
pub fn check(property: &Property, bytes: &[u8]) {
    if let Err(error) = (property.hold)(bytes) {
        panic!("{}: {error:?}", property.name);
    }
}
