//! What the machine has: memory, network cards, an init system that restores protection at boot.

use std::fs;
use std::path::Path;

use super::Check;
use crate::interfaces::{self, Kind, Link, Netns};

/// What the tables of an ordinary policy take, with room for a second layout during an upgrade.
const MEMORY_KB: u64 = 256 << 10;

/// What restores protection at boot.
const UNIT: &str = "sg-restore.service";

/// Where packages and administrators put units.
const UNIT_FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![memory(), boot()];
    checks.extend(cards());
    checks
}

fn memory() -> Check {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text.lines().find_map(|line| {
        let number = line.strip_prefix("MemAvailable:")?;
        number.split_whitespace().next()?.parse::<u64>().ok()
    });
    match available {
        Some(free) if free < MEMORY_KB => Check::warning(
            "memory",
            format!(
                "{} MB are free, and the tables may take {}",
                free >> 10,
                MEMORY_KB >> 10
            ),
            "free some, before a large policy is applied",
        ),
        Some(free) => Check::ok(
            "memory",
            format!(
                "{} MB are free; no limit of locked memory counts since Linux 5.11",
                free >> 10
            ),
        ),
        None => Check::ok("memory", "not visible from here"),
    }
}

fn boot() -> Check {
    if !Path::new("/run/systemd/system").exists() {
        return Check::warning(
            "boot",
            "this machine is not run by systemd",
            "let its init system run `sg-ctl restore` before the network is up",
        );
    }
    let installed = UNIT_FOLDERS
        .iter()
        .any(|folder| Path::new(folder).join(UNIT).exists());
    if !installed {
        return Check::warning(
            "boot",
            format!("{UNIT} is not installed: protection ends with a reboot"),
            "install the package, which brings it",
        );
    }
    match is_enabled(Path::new(UNIT_FOLDERS[0])) {
        true => Check::ok("boot", format!("{UNIT} restores protection")),
        false => Check::warning(
            "boot",
            format!("{UNIT} is not enabled: protection ends with a reboot"),
            format!("systemctl enable {UNIT}"),
        ),
    }
}

/// An enabled unit is one that another one wants.
fn is_enabled(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".wants"))
        .any(|entry| entry.path().join(UNIT).symlink_metadata().is_ok())
}

fn cards() -> Vec<Check> {
    let links = Netns::current().and_then(|netns| interfaces::links(&netns));
    let links = match links {
        Ok(links) => links,
        Err(error) => {
            let next = "look at the machine's interfaces with `ip link`";
            return vec![Check::problem("interface", error.to_string(), next)];
        }
    };
    let physical = links.iter().filter(|link| link.kind == Kind::Physical);
    physical.map(card).collect()
}

fn card(link: &Link) -> Check {
    let driver = link.driver.as_deref().unwrap_or("unknown driver");
    let name = &link.name;
    let found = match interfaces::has_native_xdp(link.ifindex) {
        Some(true) => format!("{name} ({driver}): native XDP"),
        Some(false) => format!("{name} ({driver}): no native XDP, so TC judges what it receives"),
        None => format!("{name} ({driver}): the kernel does not tell about native XDP"),
    };
    Check::ok("interface", found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_unit_is_enabled_when_another_wants_it() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_enabled(folder.path()));
        let wants = folder.path().join("sysinit.target.wants");
        fs::create_dir(&wants).unwrap();
        assert!(!is_enabled(folder.path()));
        symlink("/nowhere", wants.join(UNIT)).unwrap();
        assert!(is_enabled(folder.path()));
    }
}
