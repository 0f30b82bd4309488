//! Debian's archive, read with an apt of its own folders: the machine's package lists, its cache and
//! what it has installed are neither used nor changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::arch::Arch;
use crate::{setup, workspace};

/// One release of Debian for one architecture.
#[derive(Debug)]
pub(super) struct Archive {
    folder: PathBuf,
}

/// A package that an archive offers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) depends: String,
}

impl Archive {
    /// Fetches the lists of a release, signed by Debian's keys.
    pub(super) fn fetch(folder: PathBuf, suite: &str, arch: Arch) -> Result<Self> {
        for part in [
            "lists/partial",
            "cache/archives/partial",
            "etc/preferences.d",
        ] {
            fs::create_dir_all(folder.join(part))
                .with_context(|| format!("making {}", folder.join(part).display()))?;
        }
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        write("status", String::new())?;
        let mirror = mirror()?;
        let keys = setup::DEBIAN_KEYS;
        write(
            "etc/sources.list",
            format!("deb [signed-by={keys}] {mirror} {suite} main\n"),
        )?;
        let place = folder.display();
        let arch = arch.debian();
        // A proxy that the machine's apt goes through is this one's way out too.
        let http = apt_config("Acquire::http")?;
        let https = apt_config("Acquire::https")?;
        write(
            "apt.conf",
            format!(
                "Dir \"{place}\";\n\
                 Dir::State \"{place}\";\n\
                 Dir::State::lists \"lists\";\n\
                 Dir::State::status \"{place}/status\";\n\
                 Dir::Cache \"{place}/cache\";\n\
                 Dir::Etc \"{place}/etc\";\n\
                 Dir::Etc::sourcelist \"sources.list\";\n\
                 Dir::Etc::sourceparts \"/dev/null\";\n\
                 Dir::Etc::parts \"/dev/null\";\n\
                 Dir::Etc::main \"/dev/null\";\n\
                 APT::Architecture \"{arch}\";\n\
                 APT::Architectures {{ \"{arch}\"; }};\n\
                 APT::Install-Recommends \"false\";\n\
                 APT::Sandbox::User \"root\";\n\
                 Acquire::Languages \"none\";\n\
                 Acquire::Retries \"2\";\n\
                 Acquire::http::Timeout \"30\";\n\
                 // A mirror that lags offers older kernels, which are signed all the same.\n\
                 Acquire::Check-Valid-Until \"false\";\n\
                 {http}\n{https}\n"
            ),
        )?;
        let archive = Self { folder };
        let lists = archive.run("apt-get", &["-qq", "update"]);
        lists.with_context(|| format!("the package lists of Debian {suite} can't be had"))?;
        Ok(archive)
    }

    /// The names of packages that begin so.
    pub(super) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = self.run("apt-cache", &["pkgnames", prefix])?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The newest version of a package.
    pub(super) fn show(&self, name: &str) -> Result<Package> {
        let text = self.run("apt-cache", &["show", "--no-all-versions", name])?;
        parse(&text).with_context(|| format!("apt-cache says nothing of {name}"))
    }

    /// Downloads packages and unpacks them over each other.
    pub(super) fn unpack(&self, names: &[String], into: &Path) -> Result<()> {
        fs::create_dir_all(into).with_context(|| format!("making {}", into.display()))?;
        for name in names {
            let mut download = self.command("apt-get");
            download
                .args(["-qq", "download", name])
                .current_dir(&self.folder);
            workspace::output(&mut download)?;
        }
        for entry in fs::read_dir(&self.folder).context("reading the downloads")? {
            let package = entry?.path();
            if package
                .extension()
                .is_some_and(|extension| extension == "deb")
            {
                let mut unpack = workspace::command("dpkg-deb");
                unpack.arg("--extract").arg(&package).arg(into);
                workspace::output(&mut unpack)?;
                fs::remove_file(&package)
                    .with_context(|| format!("removing {}", package.display()))?;
            }
        }
        Ok(())
    }

    /// The packages that these need, themselves included.
    pub(super) fn closure(&self, names: &[&str]) -> Result<Vec<String>> {
        let mut arguments = vec!["-qq", "--simulate", "install"];
        arguments.extend(names);
        let plan = self.run("apt-get", &arguments)?;
        Ok(installed(&plan))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = workspace::command(program);
        command
            .env("APT_CONFIG", self.folder.join("apt.conf"))
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        workspace::output(self.command(program).args(arguments))
    }
}

/// The mirror that this machine's own packages come from, or the one that it is told.
fn mirror() -> Result<String> {
    if let Ok(mirror) = std::env::var("SG_DEBIAN_MIRROR") {
        return Ok(mirror);
    }
    let known = || {
        let mut list = workspace::command("apt-get");
        list.args(["indextargets", "--format", "$(LABEL) $(REPO_URI)"]);
        Ok::<_, anyhow::Error>(debian_mirror(&workspace::output(&mut list)?))
    };
    if let Some(mirror) = known()? {
        return Ok(mirror);
    }
    // A fresh image knows what its sources are only after it has looked at them.
    setup::package_lists()?;
    match known()? {
        Some(mirror) => Ok(mirror),
        None => bail!(
            "this machine's packages do not come from Debian, so that no mirror is known: set \
             SG_DEBIAN_MIRROR to the address of one"
        ),
    }
}

/// The address of the line that is labelled as Debian's main archive.
fn debian_mirror(targets: &str) -> Option<String> {
    let address = targets
        .lines()
        .find_map(|line| line.strip_prefix("Debian "));
    address.map(str::to_owned)
}

fn apt_config(subtree: &str) -> Result<String> {
    workspace::output(workspace::command("apt-config").args(["dump", subtree]))
}

/// Reads the fields of a package.
fn parse(text: &str) -> Result<Package> {
    let field = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.map(str::to_owned)
    };
    let package = Package {
        name: field("Package").context("no name")?,
        version: field("Version").context("no version")?,
        depends: field("Depends").unwrap_or_default(),
    };
    ensure!(!package.name.is_empty(), "an empty name");
    Ok(package)
}

/// The names in lines such as `Inst kmod (34.2-2 Debian:13.1/stable [amd64])`.
fn installed(plan: &str) -> Vec<String> {
    let names = plan
        .lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_the_main_archive() {
        let targets = "Debian-Security http://mirror.example/security/\n\
                       Node http://mirror.example/node/\n\
                       Debian http://mirror.example/debian/\n";
        assert_eq!(
            debian_mirror(targets).as_deref(),
            Some("http://mirror.example/debian/")
        );
        assert_eq!(debian_mirror("Ubuntu http://mirror.example/ubuntu/"), None);
    }

    #[test]
    fn a_package_is_read_from_its_fields() {
        let package = parse("Package: kmod\nVersion: 34.2-2\nDepends: libc6, libkmod2\n").unwrap();
        assert_eq!(package.version, "34.2-2");
        assert_eq!(package.depends, "libc6, libkmod2");
        assert!(parse("N: nothing\n").is_err());
    }

    #[test]
    fn a_plan_names_what_it_installs() {
        let plan = "Inst libc6 (2.41-12 Debian:13.1/stable [amd64])\n\
                    Inst kmod (34.2-2 Debian:13.1/stable [amd64])\n\
                    Conf libc6 (2.41-12 Debian:13.1/stable [amd64])\n";
        assert_eq!(installed(plan), ["libc6", "kmod"]);
    }
}
