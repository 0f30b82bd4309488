//! Kernels and programs of Debian, fetched once into the project's own tools.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::archive::Archive;
use crate::arch::Arch;
use crate::{setup, workspace};

/// The releases that are looked through for a kernel.
const SUITES: [&str; 5] = ["bullseye", "bookworm", "trixie", "trixie-backports", "sid"];

/// How the names of kernel packages begin.
const PACKAGE: &str = "linux-image-";

/// The release whose programs run beside the tests.
const PROGRAMS_OF: &str = "trixie";

/// What the tests and the init script call.
const PROGRAMS: &[&str] = &[
    "bpftool",
    "busybox-static",
    "dash",
    "ethtool",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libgcc-s1",
    "liblzma5",
    "nftables",
    "wireguard-tools",
];

/// Where a package's modules are: what has to do with networks, and what that needs.
const MODULES: &[&str] = &["arch", "crypto", "drivers/net", "lib", "net"];

/// Drivers of hardware that no emulated machine has.
const HARDWARE: &[&str] = &[
    "arcnet",
    "can",
    "dsa",
    "ethernet",
    "fddi",
    "fjes",
    "hamradio",
    "ieee802154",
    "ipa",
    "mdio",
    "pcs",
    "phy",
    "plip",
    "ppp",
    "slip",
    "thunderbolt",
    "usb",
    "wan",
    "wireless",
    "wwan",
    "xen-netback",
];

/// The two kinds of kernel that Debian builds for servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    /// For virtual machines: small, and without many drivers.
    Cloud,
    /// For any machine.
    Generic,
}

/// A kernel, unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    /// As `uname -r` says it.
    pub(super) release: String,
    /// The version of Debian's package, which names the upstream version.
    pub(super) version: String,
    folder: PathBuf,
}

impl Flavour {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Cloud => "-cloud",
            Self::Generic => "",
        }
    }
}

impl Kernel {
    #[cfg(test)]
    pub(super) fn example(version: &str) -> Self {
        Self {
            release: version.to_owned(),
            version: version.to_owned(),
            folder: PathBuf::new(),
        }
    }

    /// The upstream version: `6.12.117` of `6.12.117-1`.
    pub(super) fn upstream(&self) -> &str {
        self.version
            .split(['-', '~', '+'])
            .next()
            .unwrap_or(&self.version)
    }

    /// What a boot loader loads.
    pub(super) fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The folder that is `/lib/modules/RELEASE` there.
    pub(super) fn modules(&self) -> PathBuf {
        self.folder.join("lib/modules").join(&self.release)
    }
}

/// What has been fetched for an architecture, and where more comes from.
#[derive(Debug)]
pub(super) struct Store {
    arch: Arch,
    /// Look for newer versions than those that are there.
    update: bool,
    /// In the order of [`SUITES`].
    archives: [OnceCell<Archive>; SUITES.len()],
}

impl Store {
    pub(super) const fn new(arch: Arch, update: bool) -> Self {
        Self {
            arch,
            update,
            archives: [const { OnceCell::new() }; SUITES.len()],
        }
    }

    /// The newest kernel of a version: `6.12`, `7.3.4`, or `newest`.
    pub(super) fn kernel(&self, flavour: Flavour, wanted: &str) -> Result<Kernel> {
        let name = format!("{wanted}{}.json", flavour.suffix());
        let note = self.folder().join("chosen").join(name);
        if !self.update
            && let Some(kernel) = self.remembered(&note)
        {
            return Ok(kernel);
        }
        let (archive, package) = self.newest(flavour, wanted)?;
        let release = package.strip_prefix(PACKAGE).unwrap_or(&package).to_owned();
        let described = archive.show(&package)?;
        let kernel = self.place(release, described.version);
        if !kernel.modules().is_dir() {
            setup::announce(
                &format!("apt-get download {package}"),
                "the kernel that is booted",
            );
            let mut packages = vec![package];
            packages.extend(parts(&described.depends));
            unpack(archive, &packages, &kernel)?;
        }
        remember(&note, &kernel)?;
        Ok(kernel)
    }

    /// A folder with the programs, laid out as a root.
    pub(super) fn programs(&self) -> Result<PathBuf> {
        let root = self.folder().join("programs");
        let list = root.join("packages");
        let wanted = PROGRAMS.join(" ");
        if !self.update && fs::read_to_string(&list).is_ok_and(|there| there == wanted) {
            return Ok(root);
        }
        let archive = self.archive(PROGRAMS_OF)?;
        setup::announce(
            &format!("apt-get download {wanted}"),
            "the programs beside the tests on a booted kernel",
        );
        let whole = tempfile::tempdir_in(self.folder()).context("making a folder")?;
        archive.unpack(&archive.closure(PROGRAMS)?, whole.path())?;
        // What is read by people stays out.
        for left_out in ["usr/share", "etc", "var"] {
            let path = whole.path().join(left_out);
            if path.exists() {
                fs::remove_dir_all(&path)
                    .with_context(|| format!("removing {}", path.display()))?;
            }
        }
        fs::write(whole.path().join("packages"), wanted).context("writing a list")?;
        replace(&root, whole.path())?;
        Ok(root)
    }

    fn folder(&self) -> PathBuf {
        workspace::tools().join("kernels").join(self.arch.debian())
    }

    /// A kernel, and where it is once it has been unpacked.
    fn place(&self, release: String, version: String) -> Kernel {
        let folder = self.folder().join(format!("{release}_{version}"));
        Kernel {
            release,
            version,
            folder,
        }
    }

    /// The kernel that was chosen before, if it is still there.
    fn remembered(&self, note: &Path) -> Option<Kernel> {
        let note: Value = serde_json::from_str(&fs::read_to_string(note).ok()?).ok()?;
        let field = |name: &str| note[name].as_str().map(str::to_owned);
        let kernel = self.place(field("release")?, field("version")?);
        kernel.modules().is_dir().then_some(kernel)
    }

    /// A release, whose lists are fetched once.
    fn archive(&self, suite: &str) -> Result<&Archive> {
        let mut suites = SUITES.iter().zip(&self.archives);
        let place = suites.find(|(name, _)| **name == suite);
        let (_, place) = place.with_context(|| format!("{suite} is not looked at"))?;
        if let Some(archive) = place.get() {
            return Ok(archive);
        }
        setup::announce(
            &format!("apt-get update for Debian {suite}, in a folder of its own"),
            "what it has",
        );
        let folder = self.folder().join("lists").join(suite);
        let archive = Archive::fetch(folder, suite, self.arch)?;
        Ok(place.get_or_init(|| archive))
    }

    /// The package with the newest kernel of a version, and where it is. Of equal ones that of the
    /// oldest release, whose users have it.
    fn newest(&self, flavour: Flavour, wanted: &str) -> Result<(&Archive, String)> {
        let suffix = format!("{}-{}", flavour.suffix(), self.arch.debian());
        let mut newest: Option<(&Archive, String)> = None;
        for suite in SUITES {
            let archive = self.archive(suite)?;
            for name in archive.names(PACKAGE)? {
                let is_newer = match &newest {
                    Some((_, best)) => numbers(&name) > numbers(best),
                    None => true,
                };
                if is_newer && is_wanted(&name, &suffix, wanted) {
                    newest = Some((archive, name));
                }
            }
        }
        newest.with_context(|| {
            let suites = SUITES.join(", ");
            format!("Debian has no kernel {wanted}{suffix} in {suites}")
        })
    }
}

/// Whether a package is a kernel of this flavour and version.
fn is_wanted(name: &str, suffix: &str, wanted: &str) -> bool {
    let Some(version) = name
        .strip_prefix(PACKAGE)
        .and_then(|rest| rest.strip_suffix(suffix))
        .filter(|version| version.starts_with(|first: char| first.is_ascii_digit()))
    else {
        return false;
    };
    let other_flavour = ["-cloud", "-rt", "-16k"];
    if other_flavour
        .iter()
        .any(|flavour| version.ends_with(flavour))
    {
        return false;
    }
    match version.strip_prefix(wanted) {
        Some(rest) => rest.starts_with(['.', '+', '-']) || rest.is_empty(),
        None => wanted == super::NEWEST,
    }
}

/// The numbers of a version, most important first.
fn numbers(name: &str) -> Vec<u64> {
    let words = name.split(|letter: char| !letter.is_ascii_digit());
    words.filter_map(|word| word.parse().ok()).collect()
}

/// The packages that newer kernels are divided into.
fn parts(depends: &str) -> Vec<String> {
    let names = depends
        .split(',')
        .filter_map(|one| one.split_whitespace().next());
    let parts = ["linux-binary-", "linux-modules-"];
    names
        .filter(|name| parts.iter().any(|part| name.starts_with(part)))
        .map(str::to_owned)
        .collect()
}

/// Keeps of the packages what is booted.
fn unpack(archive: &Archive, packages: &[String], kernel: &Kernel) -> Result<()> {
    let beside = kernel
        .folder
        .parent()
        .context("a folder without a parent")?;
    let whole = tempfile::tempdir_in(beside).context("making a folder")?;
    archive.unpack(packages, whole.path())?;
    let kept = tempfile::tempdir_in(beside).context("making a folder")?;

    let release = &kernel.release;
    let image = [
        format!("boot/vmlinuz-{release}"),
        format!("usr/lib/modules/{release}/vmlinuz"),
    ];
    let image = image
        .iter()
        .map(|path| whole.path().join(path))
        .find(|path| path.is_file());
    let image = image.with_context(|| format!("{packages:?} have no kernel"))?;
    rename(&image, &kept.path().join("vmlinuz"))?;

    let modules = ["lib/modules", "usr/lib/modules"];
    let modules = modules
        .iter()
        .map(|path| whole.path().join(path).join(release));
    let modules = modules
        .into_iter()
        .find(|path| path.join("kernel").is_dir());
    let modules = modules.with_context(|| format!("{packages:?} have no modules"))?;
    let into = kept.path().join("lib/modules").join(release);
    for part in MODULES {
        let from = modules.join("kernel").join(part);
        if from.is_dir() {
            rename(&from, &into.join("kernel").join(part))?;
        }
    }
    for hardware in HARDWARE {
        let drivers = into.join("kernel/drivers/net").join(hardware);
        if drivers.is_dir() {
            fs::remove_dir_all(&drivers)
                .with_context(|| format!("removing {}", drivers.display()))?;
        }
    }
    for list in [
        "modules.builtin",
        "modules.builtin.modinfo",
        "modules.order",
    ] {
        if modules.join(list).is_file() {
            rename(&modules.join(list), &into.join(list))?;
        }
    }
    let mut depmod = workspace::command(&setup::path_of("depmod")?);
    depmod.arg("-b").arg(kept.path()).arg(release);
    workspace::output(&mut depmod)?;
    replace(&kernel.folder, kept.path())
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("a path without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    fs::rename(from, to).with_context(|| format!("moving {} to {}", from.display(), to.display()))
}

/// Puts a whole folder in place, so that what is there is never half of it.
fn replace(place: &Path, with: &Path) -> Result<()> {
    if place.exists() {
        fs::remove_dir_all(place).with_context(|| format!("removing {}", place.display()))?;
    }
    rename(with, place)
}

fn remember(note: &Path, kernel: &Kernel) -> Result<()> {
    ensure!(
        kernel.image().is_file(),
        "{} is missing",
        kernel.image().display()
    );
    let folder = note.parent().context("a note without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let text = json!({
        "release": kernel.release,
        "version": kernel.version,
    });
    fs::write(note, format!("{text:#}\n")).with_context(|| format!("writing {}", note.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_stands_for_its_stable_series_and_for_one_flavour() {
        let wanted = |name, version| is_wanted(name, "-cloud-amd64", version);
        assert!(wanted("linux-image-6.12.117+deb13-cloud-amd64", "6.12"));
        assert!(wanted("linux-image-6.12.117+deb13-cloud-amd64", "6.12.117"));
        assert!(wanted("linux-image-6.1.0-50-cloud-amd64", "6.1"));
        assert!(wanted("linux-image-7.3.4+deb13-cloud-amd64", "newest"));
        assert!(!wanted("linux-image-6.12.117+deb13-cloud-amd64", "6.1"));
        assert!(!wanted("linux-image-6.12.117+deb13-amd64", "6.12"));
        assert!(!wanted("linux-image-cloud-amd64", "newest"));
        assert!(!wanted("linux-image-6.1.0-50-cloud-amd64-dbg", "6.1"));
        let generic = |name| is_wanted(name, "-amd64", "newest");
        assert!(generic("linux-image-7.3.4+deb13-amd64"));
        assert!(!generic("linux-image-7.3.4+deb13-cloud-amd64"));
        assert!(!generic("linux-image-7.3.4+deb13-rt-amd64"));
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let newer = numbers("linux-image-6.12.117+deb13-cloud-amd64");
        assert!(newer > numbers("linux-image-6.12.99+deb13-cloud-amd64"));
        assert!(
            numbers("linux-image-6.1.0-50-cloud-amd64")
                > numbers("linux-image-6.1.0-9-cloud-amd64")
        );
    }

    #[test]
    fn parts_are_told_from_what_an_installation_needs() {
        let depends = "dracut | initramfs-tools, linux-base-7.3.4 (= 1), \
                       linux-binary-7.3.4 (= 1), linux-modules-7.3.4 (= 1)";
        assert_eq!(
            parts(depends),
            ["linux-binary-7.3.4", "linux-modules-7.3.4"]
        );
    }
}
