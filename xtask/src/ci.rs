//! `cargo xtask ci`: the gate, the same by hand and in continuous integration.

use anyhow::Result;

use crate::{lint, test, tidy};

/// Runs lint, tidy and test; the first that fails ends it.
pub(crate) fn run() -> Result<()> {
    tidy::run()?;
    lint::run()?;
    test::run(&[])
}
