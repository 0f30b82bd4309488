//! What a kernel boots into: an initial file system of Debian's programs, sg and its tests.
//!
//! It is written as parts, one after the other in one file, which the kernel unpacks over each
//! other: what all kernels share is packed once.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::fetch::Kernel;
use super::steps::Step;
use crate::arch::Arch;
use crate::{build, workspace};

/// Runs the steps; the kernel's first and only program.
const INIT: &str = include_str!("init.sh");

/// Where the steps' scripts and programs are, inside.
pub(super) const STEPS: &str = "/steps";

/// Folders that Debian has as links into `/usr`.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// Everything but the kernel's own modules and the list of steps.
#[derive(Debug)]
pub(super) struct Base {
    folder: TempDir,
}

impl Base {
    /// Lays out the programs of Debian, those that were built, and the corpus where tests look for
    /// it. `built` are programs by their names inside.
    pub(super) fn pack(arch: Arch, debian: &Path, built: &[(String, PathBuf)]) -> Result<Self> {
        let folder = tempfile::tempdir_in(workspace::target()).context("making a folder")?;
        let root = folder.path().join("root");
        let inside = |path: &str| root.join(path.trim_start_matches('/'));
        for name in ["dev", "etc", "proc", "root", "run", "sys", "tmp", "var/lib"] {
            make_folder(&root.join(name))?;
        }
        for name in MERGED {
            make_folder(&root.join("usr").join(name))?;
            symlink(format!("usr/{name}"), root.join(name)).context("linking into /usr")?;
        }
        copy_tree(debian, &root)?;
        for (name, program) in built {
            let path = inside(STEPS).join(name);
            copy(program, &path)?;
            build::strip(arch, &path, build::Strip::Debug)?;
        }
        let corpus = workspace::root().join("tests/corpus");
        copy_tree(&corpus, &inside(&corpus.to_string_lossy()))?;
        write(&root.join("init"), INIT)?;
        let archive = File::create(folder.path().join("base.cpio")).context("making an archive")?;
        append(&archive, &root)?;
        fs::remove_dir_all(&root).context("clearing away")?;
        Ok(Self { folder })
    }

    /// The image for a kernel and its steps.
    pub(super) fn image(&self, kernel: &Kernel, steps: &[Step]) -> Result<PathBuf> {
        let image = self.folder.path().join(format!("{}.cpio", kernel.release));
        fs::copy(self.folder.path().join("base.cpio"), &image).context("copying an archive")?;
        let own = tempfile::tempdir_in(self.folder.path()).context("making a folder")?;
        let root = own.path();
        let modules = Path::new("usr/lib/modules").join(&kernel.release);
        copy_tree(&kernel.modules(), &root.join(modules))?;
        let mut list = String::new();
        for step in steps {
            let script = Path::new(STEPS.trim_start_matches('/')).join(format!("{}.sh", step.name));
            write(&root.join(script), &step.script)?;
            list.push_str(&format!("{} {}\n", step.name, step.seconds));
        }
        write(&root.join("steps/list"), &list)?;
        let archive = fs::OpenOptions::new().append(true).open(&image);
        append(&archive.context("opening an archive")?, root)?;
        Ok(image)
    }
}

/// Packs a folder in the only format that the kernel unpacks.
fn append(archive: &File, root: &Path) -> Result<()> {
    let mut cpio = workspace::command("cpio");
    cpio.args(["--create", "--format=newc", "--quiet", "--null"])
        .args(["--owner", "+0:+0"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::from(archive.try_clone().context("an archive")?));
    let mut packing = cpio.spawn().context("cannot run cpio")?;
    let mut names = Vec::new();
    list(root, Path::new(""), &mut names)?;
    let mut input = packing.stdin.take().context("cpio reads nothing")?;
    for name in names {
        input.write_all(name.as_os_str().as_encoded_bytes())?;
        input.write_all(b"\0")?;
    }
    drop(input);
    let status = packing.wait().context("cannot wait for cpio")?;
    ensure!(status.success(), "cpio failed ({status})");
    Ok(())
}

/// Every path below a folder, folders before what is in them.
fn list(root: &Path, below: &Path, names: &mut Vec<PathBuf>) -> Result<()> {
    let folder = root.join(below);
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = below.join(entry.file_name());
        names.push(name.clone());
        if entry.file_type()?.is_dir() {
            list(root, &name, names)?;
        }
    }
    Ok(())
}

/// Copies a folder over another one; links stay links.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    make_folder(to)?;
    let mut names = Vec::new();
    list(from, Path::new(""), &mut names)?;
    for name in names {
        let (source, place) = (from.join(&name), to.join(&name));
        let kind = fs::symlink_metadata(&source)?.file_type();
        let done = if kind.is_dir() {
            fs::create_dir_all(&place)
        } else if kind.is_symlink() {
            fs::read_link(&source).and_then(|target| symlink(target, &place))
        } else {
            link_or_copy(&source, &place)
        };
        done.with_context(|| format!("copying {}", source.display()))?;
    }
    Ok(())
}

/// Another name is as good as a copy where nothing is written.
fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(_) => fs::copy(from, to).map(drop),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        make_folder(folder)?;
    }
    fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let written = fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)));
    written.with_context(|| format!("writing {}", path.display()))
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))
}
