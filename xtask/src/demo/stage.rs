//! The machines of the demo: three network namespaces joined by veth, and a folder for `sg-ctl`.
//!
//! ```text
//!   web  web0 ── to-web  world  to-app ── app0  app
//! ```
//!
//! The world is everybody else: it routes between the two and has the addresses of an office and
//! of a stranger. Everything has a random name and is cleared away on every way out.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

use super::traffic::in_namespace;
use crate::workspace;

/// A machine of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    World,
    Web,
    App,
}

impl Machine {
    const ALL: [Self; 3] = [Self::World, Self::Web, Self::App];

    const fn name(self) -> &'static str {
        match self {
            Self::World => "world",
            Self::Web => "web",
            Self::App => "app",
        }
    }
}

/// Where someone speaks from or listens: a machine and an address of each family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Party {
    pub(super) name: &'static str,
    pub(super) machine: Machine,
    v4: &'static str,
    v6: &'static str,
}

impl Party {
    /// The address of the family.
    pub(super) fn address(&self, family: Family) -> Result<IpAddr> {
        let text = match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        };
        text.parse()
            .with_context(|| format!("{text} is no address"))
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

pub(super) const WEB: Party = Party {
    name: "web",
    machine: Machine::Web,
    v4: "10.77.1.10",
    v6: "2001:db8:77:1::10",
};
pub(super) const APP: Party = Party {
    name: "app",
    machine: Machine::App,
    v4: "10.77.2.10",
    v6: "2001:db8:77:2::10",
};
pub(super) const OFFICE: Party = Party {
    name: "office",
    machine: Machine::World,
    v4: "203.0.113.7",
    v6: "2001:db8:aa::7",
};
pub(super) const STRANGER: Party = Party {
    name: "stranger",
    machine: Machine::World,
    v4: "198.51.100.9",
    v6: "2001:db8:bb::9",
};

/// One `ip` command a line; `{}` is the common start of the namespaces' names.
const LAYOUT: &str = "\
link add web0 netns {}-web type veth peer name to-web netns {}-world
link add app0 netns {}-app type veth peer name to-app netns {}-world
-n {}-world address add 10.77.1.1/24 dev to-web
-n {}-world address add 2001:db8:77:1::1/64 dev to-web nodad
-n {}-world address add 10.77.2.1/24 dev to-app
-n {}-world address add 2001:db8:77:2::1/64 dev to-app nodad
-n {}-world address add 203.0.113.7/32 dev lo
-n {}-world address add 2001:db8:aa::7/128 dev lo nodad
-n {}-world address add 198.51.100.9/32 dev lo
-n {}-world address add 2001:db8:bb::9/128 dev lo nodad
-n {}-web address add 10.77.1.10/24 dev web0
-n {}-web address add 2001:db8:77:1::10/64 dev web0 nodad
-n {}-app address add 10.77.2.10/24 dev app0
-n {}-app address add 2001:db8:77:2::10/64 dev app0 nodad
-n {}-world link set lo up
-n {}-world link set to-web up
-n {}-world link set to-app up
-n {}-web link set lo up
-n {}-web link set web0 up
-n {}-app link set lo up
-n {}-app link set app0 up
-n {}-web route add default via 10.77.1.1
-n {}-web route add default via 2001:db8:77:1::1
-n {}-app route add default via 10.77.2.1
-n {}-app route add default via 2001:db8:77:2::1";

/// The machines, while they stand.
pub(super) struct Stage {
    /// The common start of the namespaces' names.
    name: String,
    /// `None` once cleared.
    folder: Option<TempDir>,
    program: PathBuf,
    interrupted: Arc<AtomicBool>,
}

/// What a run of `sg-ctl` came to.
pub(super) struct Run {
    pub(super) printed: String,
    pub(super) succeeded: bool,
}

impl Stage {
    pub(super) fn build(program: PathBuf, interrupted: Arc<AtomicBool>) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("sg-demo-")
            .tempdir()
            .context("cannot make a temporary folder")?;
        let name = folder
            .path()
            .file_name()
            .context("the temporary folder has no name")?
            .to_string_lossy()
            .into_owned();
        let stage = Self {
            name,
            folder: Some(folder),
            program,
            interrupted,
        };
        for machine in Machine::ALL {
            stage.ip(&["netns", "add", &stage.namespace(machine)])?;
            // Nobody else is on these links, and looking for a double costs a second on each.
            stage.switch(machine, "ipv6/conf/default/accept_dad", "0")?;
        }
        for line in LAYOUT.lines() {
            let line = line.replace("{}", &stage.name);
            stage.ip(&line.split(' ').collect::<Vec<_>>())?;
        }
        stage.switch(Machine::World, "ipv4/ip_forward", "1")?;
        stage.switch(Machine::World, "ipv6/conf/all/forwarding", "1")?;
        for (machine, interface) in [(Machine::Web, "web0"), (Machine::App, "app0")] {
            stage.wait_for_link(machine, interface)?;
        }
        Ok(stage)
    }

    /// The name that `ip netns` and `sg-ctl --netns` know a machine by.
    pub(super) fn namespace(&self, machine: Machine) -> String {
        format!("{}-{}", self.name, machine.name())
    }

    pub(super) fn namespace_file(&self, machine: Machine) -> PathBuf {
        Path::new("/run/netns").join(self.namespace(machine))
    }

    /// The folder that commands are typed in.
    pub(super) fn folder(&self) -> Result<&Path> {
        Ok(self.folder.as_ref().context("the stage is cleared")?.path())
    }

    /// Whatever `sg-ctl` keeps in the kernel by name is below this folder.
    pub(super) fn pins(&self) -> Result<PathBuf> {
        Ok(self.folder()?.join("run/bpf"))
    }

    /// Runs `sg-ctl` with folders of its own.
    pub(super) fn sg_ctl(&self, arguments: &[&str]) -> Result<Run> {
        self.go_on()?;
        let folder = self.folder()?;
        let output = Command::new(&self.program)
            .args(arguments)
            .current_dir(folder)
            .env("SG_STATE_DIR", folder.join("state"))
            .env("SG_RUN_DIR", folder.join("run"))
            .output()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
        printed.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok(Run {
            printed,
            succeeded: output.status.success(),
        })
    }

    /// An error once Ctrl-C was pressed.
    pub(super) fn go_on(&self) -> Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }

    fn ip(&self, arguments: &[&str]) -> Result<String> {
        self.go_on()?;
        workspace::output(workspace::command("ip").args(arguments))
    }

    /// The kernel reports a new link's carrier at most once a second, and until then IPv6 is mute.
    fn wait_for_link(&self, machine: Machine, interface: &str) -> Result<()> {
        let namespace = self.namespace(machine);
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self
            .ip(&["-n", &namespace, "-o", "link", "show", interface])?
            .contains("state UP")
        {
            ensure!(Instant::now() < deadline, "{interface} does not come up");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Sets a switch below `/proc/sys/net`, which shows the namespace of who looks.
    fn switch(&self, machine: Machine, name: &'static str, value: &'static str) -> Result<()> {
        in_namespace(&self.namespace_file(machine), move || {
            fs::write(Path::new("/proc/sys/net").join(name), value)
                .with_context(|| format!("cannot set {name}"))
        })
    }

    /// Clears everything away and returns what could not be.
    pub(super) fn clear(mut self) -> Result<Vec<String>> {
        self.strike()
    }

    fn strike(&mut self) -> Result<Vec<String>> {
        let Some(folder) = self.folder.take() else {
            return Ok(Vec::new());
        };
        let path = folder.path().to_path_buf();
        for machine in Machine::ALL {
            if self.namespace_file(machine).exists() {
                let mut delete = workspace::command("ip");
                delete.args(["netns", "delete", &self.namespace(machine)]);
                // What stays is in the list below.
                workspace::output(&mut delete).ok();
            }
        }
        for mount in mounts_below(&path)?.iter().rev() {
            umount2(mount, MntFlags::MNT_DETACH)
                .with_context(|| format!("cannot unmount {}", mount.display()))?;
        }
        folder
            .close()
            .with_context(|| format!("cannot remove {}", path.display()))?;

        let mut remains = mounts_below(&path)?;
        remains.extend(Machine::ALL.map(|machine| self.namespace_file(machine)));
        remains.push(path);
        remains.retain(|path| path.exists());
        Ok(remains
            .iter()
            .map(|path| path.display().to_string())
            .collect())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = self.strike() {
            eprintln!("the demo could not clear away all it made: {error:#}");
        }
    }
}

/// Mount points below a folder, outer before inner.
fn mounts_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("cannot list mounts")?;
    let mut mounts: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|mount| mount.starts_with(folder))
        .collect();
    mounts.sort();
    Ok(mounts)
}

/// Files below a folder, links and maps of the kernel included; none if there is no folder.
pub(super) fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => bail!("cannot list {}: {error}", folder.display()),
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}
