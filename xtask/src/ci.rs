//! `cargo xtask ci`: the gate, the same by hand and in continuous integration.

use anyhow::Result;

use crate::{budget, lint, test, tidy};

/// Runs tidy, lint, test and budget; the first that fails ends it.
pub(crate) fn run() -> Result<()> {
    tidy::run()?;
    lint::run()?;
    test::run(&[])?;
    budget::run(false)
}
