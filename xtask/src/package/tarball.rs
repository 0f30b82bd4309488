//! The tarball, for distributions that have no package: the same files under one folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{NAME, tar, version};
use crate::arch::Arch;
use crate::workspace;

/// Packs the files.
pub(super) fn pack(arch: Arch, root: &Path, output: &Path) -> Result<PathBuf> {
    let name = format!("{NAME}-{}-{}", version(), arch.debian());
    let archive = output.join(format!("{name}.tar.gz"));
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        let to = root.join("usr/share/doc").join(NAME).join(licence);
        fs::copy(workspace::root().join(licence), to).context("copying a licence")?;
    }
    let mut tar = tar(&archive, root)?;
    tar.args(["--use-compress-program", "gzip --best --no-name"])
        .arg(format!("--transform=s,^usr,{name}/usr,"))
        .arg("usr");
    workspace::run(&mut tar)?;
    Ok(archive)
}
