//! `cargo xtask miri`: the tests of sg-common under Miri, which sees undefined behaviour.
//!
//! The corpus is left out: Miri would interpret the whole policy compiler.
//!
//! It is no part of the gate: Miri comes with nightly toolchains alone, and the project is built by
//! a stable one, so a machine need not have it.

use anyhow::Result;

use crate::{setup, workspace};

/// Runs the tests, with what the nightly toolchain lacks put in place first.
pub(crate) fn run() -> Result<()> {
    let toolchain = setup::for_miri()?;
    workspace::run(workspace::command("rustup").args([
        "run",
        toolchain,
        "cargo",
        "miri",
        "test",
        "--locked",
        "--package=sg-common",
        "--lib",
        "--test=decisions",
        "--test=searches",
    ]))
}
