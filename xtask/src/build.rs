//! `cargo xtask build`: sg-ctl for release, with the kernel's half inside.

use std::path::PathBuf;

use anyhow::Result;

use crate::{setup, workspace};

/// Builds and returns where the program is.
pub(crate) fn release() -> Result<PathBuf> {
    setup::for_building()?;
    workspace::run(workspace::command("cargo").args([
        "build",
        "--release",
        "--package",
        "sg-ctl",
    ]))?;
    Ok(workspace::target().join("release/sg-ctl"))
}
