//! `cargo xtask ci`: the gate, the same by hand and in continuous integration.

use anyhow::Result;

use crate::{budget, kernels, lint, test, tidy};

/// The kernels besides the one that runs: today's stable release of Debian, and its newest.
const KERNELS: [&str; 2] = ["6.12", kernels::NEWEST];

/// The oldest kernel that must protect, whose verifier is the hardest to please.
const OLDEST: &str = "6.1";
/// Every program is loaded, attached and met by real connections. The corpus at every hook takes an
/// emulator ten minutes and more.
const OLDEST_STEPS: [&str; 2] = ["tour", "demo"];
/// The same, how much the verifier has to look at, and real connections at every hook.
const STEPS: [&str; 4] = ["programs", "tour", "demo", "machine"];

/// Runs tidy, lint, test, budget and kernels; the first that fails ends it.
pub(crate) fn run() -> Result<()> {
    tidy::run()?;
    lint::run()?;
    test::run(false, &[])?;
    budget::run(false)?;
    kernels::run(&kernels::Arguments::gate(&[OLDEST], &OLDEST_STEPS))?;
    kernels::run(&kernels::Arguments::gate(&KERNELS, &STEPS))
}
