//! `cargo xtask budget`: builds what reads the kernel's limits and runs it.
//!
//! As for benchmarks, what loads programs is a program of its own, in the folder beside.

use anyhow::Result;

use crate::{setup, workspace};

/// Prints the budget; a limit that is passed is an error.
pub(crate) fn run(json: bool) -> Result<()> {
    setup::for_live_traffic()?;
    setup::for_building()?;
    let mut cargo = workspace::command("cargo");
    cargo.args([
        "run",
        "--quiet",
        "--locked",
        "--package=xtask",
        "--features=xtask/bench",
        "--bin=sg-budget",
        "--",
    ]);
    if json {
        cargo.arg("--json");
    }
    workspace::run(&mut cargo)
}
