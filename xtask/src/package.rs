//! `cargo xtask package`: a Debian package of sg-ctl with its manual, completions and units.
//!
//! `dpkg-deb` is on every machine that can install the result, so the few files that it packs are
//! laid out here instead of by a tool that would have to be built first. Files are dated by
//! `SOURCE_DATE_EPOCH` or the last commit, so that equal sources give equal packages.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::arch::Arch;
use crate::{build, workspace};

const NAME: &str = "sg-ctl";

/// A file of `xtask/package` and where it goes.
const FILES: &[(&str, &str)] = &[
    ("sg-restore.service", "usr/lib/systemd/system"),
    ("sg-restore@.service", "usr/lib/systemd/system"),
    ("90-sg.rules", "usr/lib/udev/rules.d"),
];

const SCRIPTS: &[&str] = &["postinst", "prerm", "postrm"];

/// Where each shell looks for completions, and under which name.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/sg-ctl"),
    ("zsh", "usr/share/zsh/vendor-completions/_sg-ctl"),
    ("fish", "usr/share/fish/vendor_completions.d/sg-ctl.fish"),
];

/// Packs a program, or the one it builds for release, and returns the package's path.
pub(crate) fn run(
    arch: Arch,
    program: Option<PathBuf>,
    output: Option<PathBuf>,
) -> Result<PathBuf> {
    ensure!(
        workspace::find_program("dpkg-deb").is_some(),
        "dpkg-deb is not installed: packages are made on Debian and its kin"
    );
    let program = match program {
        Some(program) => program,
        None => build::release(arch)?,
    };
    // The manual and the completions are what a program says that runs here.
    let speaker = match arch == Arch::native() {
        true => program.clone(),
        false => build::release(Arch::native())?,
    };
    let output = output.unwrap_or_else(workspace::target);
    fs::create_dir_all(&output).with_context(|| format!("making {}", output.display()))?;
    let tree = tempfile::tempdir().context("making a folder")?;
    let root = tree.path();
    lay_out(root, arch, &program, &speaker)?;
    let control = control(root, arch, &program)?;
    write(&root.join("DEBIAN/control"), &control, 0o644)?;
    for script in SCRIPTS {
        copy(&source(script), &root.join("DEBIAN").join(script), 0o755)?;
    }
    set_modes(root)?;
    let package = output.join(format!("{NAME}_{}_{}.deb", version(), arch.debian()));
    let mut pack = workspace::command("dpkg-deb");
    pack.args(["--root-owner-group", "--build"])
        .arg(root)
        .arg(&package)
        .env("SOURCE_DATE_EPOCH", date()?);
    workspace::output(&mut pack)?;
    Ok(package)
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

/// Everything but what dpkg itself reads.
fn lay_out(root: &Path, arch: Arch, program: &Path, speaker: &Path) -> Result<()> {
    let installed = root.join("usr/bin/sg-ctl");
    copy(program, &installed, 0o755)?;
    // Debug information is for those who build.
    build::strip(arch, &installed)?;
    for (name, folder) in FILES {
        copy(&source(name), &root.join(folder).join(name), 0o644)?;
    }
    for (shell, path) in COMPLETIONS {
        let script = workspace::output(Command::new(speaker).args(["completions", shell]))?;
        write(&root.join(path), &(script + "\n"), 0o644)?;
    }
    let manual = root.join("usr/share/man/man1");
    workspace::output(Command::new(speaker).arg("man").arg(&manual))?;
    for page in fs::read_dir(&manual).context("reading the manual")? {
        let page = page?.path();
        workspace::run(
            workspace::command("gzip")
                .args(["--best", "--no-name"])
                .arg(&page),
        )?;
    }
    let documentation = root.join("usr/share/doc").join(NAME);
    copy(
        &workspace::root().join("README.md"),
        &documentation.join("README.md"),
        0o644,
    )?;
    let licences = ["LICENSE-MIT", "LICENSE-APACHE"].map(|name| workspace::root().join(name));
    let mut copyright = String::from("sg is licensed under MIT or Apache-2.0, at your choice.\n");
    for licence in licences {
        let text = fs::read_to_string(&licence);
        let text = text.with_context(|| format!("reading {}", licence.display()))?;
        copyright.push_str(&format!("\n----\n\n{text}"));
    }
    write(&documentation.join("copyright"), &copyright, 0o644)
}

fn control(root: &Path, arch: Arch, program: &Path) -> Result<String> {
    let program = fs::read(program).with_context(|| format!("reading {}", program.display()))?;
    let size = size_of_tree(root)?.div_ceil(1 << 10);
    Ok(format!(
        "Package: {NAME}\n\
         Version: {}\n\
         Architecture: {}\n\
         Maintainer: the authors of sg <sg@localhost>\n\
         Installed-Size: {size}\n\
         Depends: libc6 (>= {}), libgcc-s1\n\
         Section: net\n\
         Priority: optional\n\
         Description: security groups for any Linux machine\n \
         Named, stateful, allow-only sets of rules that may name each other, attached\n \
         to network interfaces and enforced in the kernel by XDP and TC programs.\n",
        version(),
        arch.debian(),
        newest_libc(&program),
    ))
}

/// The newest version of the C library that a program's symbols ask for.
fn newest_libc(program: &[u8]) -> String {
    const PREFIX: &[u8] = b"GLIBC_2.";
    let found = program
        .windows(PREFIX.len())
        .enumerate()
        .filter(|(_, window)| *window == PREFIX);
    let minor = found.filter_map(|(at, _)| {
        let digits = program.get(at + PREFIX.len()..)?;
        let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
        let text: String = digits.take(3).map(|byte| char::from(*byte)).collect();
        text.parse::<u32>().ok()
    });
    format!("2.{}", minor.max().unwrap_or(34))
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
    fn the_newest_version_that_is_asked_for_counts() {
        let program = b"..GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE";
        assert_eq!(newest_libc(program), "2.34");
    }
}
