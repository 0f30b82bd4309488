//! The packages of the program under test, as `cargo xtask package` makes them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::sg::sg_ctl;

/// Packs the program under test into a folder, and returns the paths of the packages.
pub fn pack(folder: &Path) -> Result<Vec<PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let packed = Command::new(cargo)
        .args(["xtask", "package", "--program"])
        .arg(sg_ctl()?)
        .arg("--output")
        .arg(folder)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    let said = String::from_utf8_lossy(&packed.stderr).into_owned();
    ensure!(packed.status.success(), "{said}");
    let paths = String::from_utf8(packed.stdout)?;
    Ok(paths.lines().map(PathBuf::from).collect())
}

/// The one of these packages whose name ends so.
pub fn named<'a>(packages: &'a [PathBuf], ending: &str) -> Result<&'a Path> {
    let mut found = packages
        .iter()
        .filter(|path| path.to_string_lossy().ends_with(ending));
    let path = found
        .next()
        .with_context(|| format!("no package `*{ending}`"))?;
    Ok(path)
}

/// Whether packages can be made here; says so if not.
pub fn can_be_made() -> bool {
    let has_dpkg = Path::new("/usr/bin/dpkg-deb").exists();
    if !has_dpkg {
        println!("skipped: this machine has no dpkg, so nothing was proven of packages");
    }
    has_dpkg
}
