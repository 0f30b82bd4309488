//! `cargo xtask package`: sg-ctl as a Debian package, a tarball and an OCI image.
//!
//! All of them hold the same program, which is linked statically: it runs on every distribution, and
//! alone in an image. The few files are laid out here, and packed by `dpkg-deb` and `tar`, instead of by
//! tools that would have to be built first. Files are dated by `SOURCE_DATE_EPOCH` or the last
//! commit, so that equal sources give equal packages.

mod debian;
mod image;
mod tarball;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::arch::Arch;
use crate::{build, workspace};

const NAME: &str = "sg-ctl";

/// The most bytes of a program that is shipped. What makes it larger has to be worth it: machines
/// fetch it, and agents load it. `nm --size-sort` on the program beside the packages tells what weighs.
const MOST_BYTES: u64 = 20_000_000;

/// A file of `xtask/package` and where it goes.
const FILES: &[(&str, &str)] = &[
    ("sg.service", "usr/lib/systemd/system"),
    ("sg-restore.service", "usr/lib/systemd/system"),
    ("sg-restore@.service", "usr/lib/systemd/system"),
    ("90-sg.rules", "usr/lib/udev/rules.d"),
    ("daemon.toml", "usr/share/doc/sg-ctl/examples"),
];

/// Where each shell looks for completions, and under which name.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/sg-ctl"),
    ("zsh", "usr/share/zsh/vendor-completions/_sg-ctl"),
    ("fish", "usr/share/fish/vendor_completions.d/sg-ctl.fish"),
];

/// What users read, below `usr/share/doc/sg-ctl`, where links between them lead as they do here.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "docs",
    "examples",
];

/// Packs a program, or the one it builds, and returns the paths of the packages.
pub(crate) fn run(
    arch: Arch,
    program: Option<PathBuf>,
    output: Option<PathBuf>,
) -> Result<Vec<PathBuf>> {
    for (tool, what) in [("dpkg-deb", "Debian's packages"), ("tar", "archives")] {
        ensure!(
            workspace::find_program(tool).is_some(),
            "{tool} is not installed; it makes {what}, and Debian and its kin have it"
        );
    }
    // One that is given may be a build for tests, of any size.
    let (program, most) = match program {
        Some(program) => (program, u64::MAX),
        None => (build::shipped(arch)?, MOST_BYTES),
    };
    // The manual and the completions are what a program says that runs here.
    let speaker = match arch == Arch::native() {
        true => program.clone(),
        false => build::shipped(Arch::native())?,
    };
    let output = output.unwrap_or_else(workspace::target);
    fs::create_dir_all(&output).with_context(|| format!("making {}", output.display()))?;
    let tree = tempfile::tempdir().context("making a folder")?;
    lay_out(tree.path(), arch, &program, &speaker)?;
    check_size(&tree.path().join("usr/bin/sg-ctl"), most)?;
    set_modes(tree.path())?;
    Ok(vec![
        debian::pack(arch, tree.path(), &output)?,
        tarball::pack(arch, tree.path(), &output)?,
        image::pack(arch, tree.path(), &output)?,
    ])
}

fn source(name: &str) -> PathBuf {
    workspace::root().join("xtask/package").join(name)
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn date() -> Result<String> {
    if let Ok(date) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(date);
    }
    workspace::output(workspace::command("git").args(["log", "-1", "--format=%ct"]))
}

/// Everything that each package has.
fn lay_out(root: &Path, arch: Arch, program: &Path, speaker: &Path) -> Result<()> {
    let installed = root.join("usr/bin/sg-ctl");
    copy(program, &installed, 0o755)?;
    build::strip(arch, &installed, build::Strip::All)?;
    for (name, folder) in FILES {
        copy(&source(name), &root.join(folder).join(name), 0o644)?;
    }
    for (shell, path) in COMPLETIONS {
        let script = workspace::output(Command::new(speaker).args(["completions", shell]))?;
        write(&root.join(path), script + "\n", 0o644)?;
    }
    let schema = workspace::output(Command::new(speaker).arg("schema"))?;
    let path = root.join("usr/share/sg-ctl/policy.schema.json");
    write(&path, schema + "\n", 0o644)?;
    manual(root, speaker)?;
    let documentation = root.join("usr/share/doc").join(NAME);
    for name in DOCUMENTS {
        copy_all(&workspace::root().join(name), &documentation.join(name))?;
    }
    Ok(())
}

fn check_size(program: &Path, most: u64) -> Result<()> {
    let size = fs::metadata(program)
        .context("looking at the program")?
        .len();
    ensure!(
        size <= most,
        "the program has {size} bytes, and {most} are the most that is shipped: look what weighs, or \
         raise MOST_BYTES in xtask/src/package.rs and say why"
    );
    Ok(())
}

fn manual(root: &Path, speaker: &Path) -> Result<()> {
    let folder = root.join("usr/share/man");
    let written = folder.join("all");
    workspace::output(Command::new(speaker).arg("man").arg(&written))?;
    for page in fs::read_dir(&written).context("reading the manual")? {
        let page = page?.path();
        compress(&page)?;
        let name = page
            .file_name()
            .context("a page without a name")?
            .to_string_lossy();
        let section = page
            .extension()
            .context("a page without a section")?
            .to_string_lossy();
        let folder = folder.join(format!("man{section}"));
        fs::create_dir_all(&folder)?;
        fs::rename(
            page.with_file_name(format!("{name}.gz")),
            folder.join(format!("{name}.gz")),
        )?;
    }
    fs::remove_dir(&written).context("the manual's folder")
}

/// Makes `FILE.gz` of a file.
fn compress(file: &Path) -> Result<()> {
    workspace::run(
        workspace::command("gzip")
            .args(["--best", "--no-name"])
            .arg(file),
    )
}

/// The words that make an archive the same each time.
fn tar(archive: &Path, folder: &Path) -> Result<Command> {
    let mut tar = workspace::command("tar");
    tar.args([
        "--create",
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
    ])
    .arg(format!("--mtime=@{}", date()?))
    .arg("--file")
    .arg(archive)
    .arg("--directory")
    .arg(folder);
    Ok(tar)
}

fn size_of_tree(folder: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        size += match entry.file_type()?.is_dir() {
            true => size_of_tree(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(size)
}

/// Folders are for everyone, whatever this process's mask is.
fn set_modes(folder: &Path) -> Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => set_modes(&entry.path())?,
            false if entry.metadata()?.permissions().mode() & 0o100 == 0 => {
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o644))?;
            }
            false => {}
        }
    }
    Ok(())
}

/// A file, or a folder with all that it holds.
fn copy_all(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        return copy(from, to, 0o644);
    }
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        copy_all(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    write(to, bytes, mode)
}

fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) -> Result<()> {
    let written = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, content)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    written().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_grows_beyond_the_bound_is_not_packed() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("sg-ctl");
        fs::write(&program, [0; 10]).unwrap();
        check_size(&program, 10).unwrap();
        let told = check_size(&program, 9).unwrap_err().to_string();
        assert!(
            told.starts_with("the program has 10 bytes, and 9 are the most"),
            "{told}"
        );
    }
}
