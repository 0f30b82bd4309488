//! The real `sg-ctl`, on a machine of the lab, with state of its own.
//!
//! Nothing here knows what a command means; a test reads its exit code, its text or its JSON.
//!
//! With [`WITH_DAEMON`] in the environment each instance has a daemon from the start, which then makes
//! what commands ask it for: promises about commands are proven both ways.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, umount2};
use serde_json::Value;
use tempfile::TempDir;

use crate::lab::{Host, Lab, Pair};

/// No command of sg takes this long; a hanging one must not hang the tests.
const LONGEST_RUN: Duration = Duration::from_secs(180);

/// The variable that gives each instance a daemon.
pub const WITH_DAEMON: &str = "SG_TEST_DAEMON";

/// How long a daemon may take to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(20);

/// An instance of sg on one machine. Dropping it detaches everything and leaves no file or mount.
#[derive(Debug)]
pub struct Sg {
    host: Host,
    folder: TempDir,
    uses_filters: AtomicBool,
    daemon: Option<Child>,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The words after `sg-ctl`.
    pub arguments: Vec<String>,
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Sg {
    /// An instance with an empty store.
    pub fn on(host: &Host) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("sgt-")
            .tempdir()
            .context("a folder")?;
        let mut sg = Self {
            host: host.clone(),
            folder,
            uses_filters: AtomicBool::new(false),
            daemon: None,
        };
        if env::var_os(WITH_DAEMON).is_some() {
            sg.start_daemon()?;
        }
        Ok(sg)
    }

    fn start_daemon(&mut self) -> Result<()> {
        let mut child = self.spawn(&["daemon"])?;
        // A full pipe would stop it.
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|pipe| Box::new(pipe) as _),
            child.stderr.take().map(|pipe| Box::new(pipe) as _),
        ];
        outputs
            .into_iter()
            .flatten()
            .for_each(|pipe| drop(reader(pipe)));
        let child = self.daemon.insert(child);
        let began = Instant::now();
        while UnixStream::connect(self.folder.path().join("run/sg.sock")).is_err() {
            let ended = child.try_wait()?;
            ensure!(
                ended.is_none() && began.elapsed() < LISTENS_WITHIN,
                "the daemon does not listen: {ended:?}"
            );
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Ends its daemon, if it has one: from here on commands do everything themselves.
    pub fn end_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It may have ended already.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// The usual two machines, one of which an instance protects by this policy.
    pub fn protecting(policy: &str) -> Result<(Pair, Self)> {
        let pair = Lab::pair()?;
        let sg = Self::on(&pair.host)?;
        sg.apply(policy)?;
        Ok((pair, sg))
    }

    /// Has the commands from here on attach as on a kernel without TCX links, or not any more.
    pub fn use_filters(&self, yes: bool) {
        self.uses_filters.store(yes, Ordering::Relaxed);
    }

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut variables = vec![
            ("SG_STATE_DIR", self.state_dir().into()),
            ("SG_RUN_DIR", self.run_dir().into()),
        ];
        if self.uses_filters.load(Ordering::Relaxed) {
            variables.push(("SG_TC_HOOK", "clsact".into()));
        }
        variables
    }

    /// Where its durable state is.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Where its pins are.
    pub fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Runs `sg-ctl` with these arguments to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<Ran> {
        Self::finish(self.spawn(arguments)?, arguments)
    }

    /// Waits for the end of a command that was started.
    pub fn wait_for(&self, child: Child, arguments: &[&str]) -> Result<Ran> {
        Self::finish(child, arguments)
    }

    /// Runs `sg-ctl` as a root user without any capability: it may read its folders and do nothing
    /// that takes a privilege.
    pub fn run_unprivileged(&self, arguments: &[&str]) -> Result<Ran> {
        let setpriv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
        self.run_under(&setpriv, arguments)
    }

    /// Runs `sg-ctl` to its end by a program that runs others, given with its own arguments.
    pub fn run_under(&self, program: &[&str], arguments: &[&str]) -> Result<Ran> {
        let command = Self::command_under(program)?;
        Self::finish(self.start(command, arguments)?, arguments)
    }

    /// Starts `sg-ctl` by a program that runs others, in a process group of their own.
    pub fn spawn_under(&self, program: &[&str], arguments: &[&str]) -> Result<Child> {
        let mut command = Self::command_under(program)?;
        command.process_group(0);
        self.start(command, arguments)
    }

    /// Runs another build of `sg-ctl` to its end, on the same state.
    pub fn run_build(&self, program: &Path, arguments: &[&str]) -> Result<Ran> {
        Self::finish(self.spawn_build(program, arguments)?, arguments)
    }

    /// Starts another build of `sg-ctl`, on the same state.
    pub fn spawn_build(&self, program: &Path, arguments: &[&str]) -> Result<Child> {
        self.start(Command::new(program), arguments)
    }

    /// Runs a build of `sg-ctl` that dies at a point (see `sg_ctl::crash`), and reports how it ended.
    pub fn run_to(&self, point: &str, program: &Path, arguments: &[&str]) -> Result<Ran> {
        let mut command = Command::new(program);
        command.env("SG_CRASH_AT", point);
        Self::finish(self.start(command, arguments)?, arguments)
    }

    /// Starts a build of `sg-ctl` that dies at a point, and returns at once.
    pub fn spawn_to(&self, point: &str, program: &Path, arguments: &[&str]) -> Result<Child> {
        let mut command = Command::new(program);
        command.env("SG_CRASH_AT", point);
        self.start(command, arguments)
    }

    /// Runs `sg-ctl` to its end on another machine, with the same state.
    pub fn run_on(&self, host: &Host, arguments: &[&str]) -> Result<Ran> {
        let command = Command::new(sg_ctl()?);
        Self::finish(self.start_on(host, command, arguments)?, arguments)
    }

    /// Makes a copy of `sg-ctl` that differs as another build does: in its programs for the
    /// kernel, which compare equal only to themselves.
    pub fn another_build(&self) -> Result<PathBuf> {
        self.another_build_of(sg_ctl()?)
    }

    /// The same of a build.
    pub fn another_build_of(&self, program: &Path) -> Result<PathBuf> {
        let mut bytes = fs::read(program).context("reading sg-ctl")?;
        // The ELF header of a little-endian object for machine 247, BPF. There may be several.
        let is_object = |window: &[u8]| {
            window.starts_with(b"\x7fELF\x02\x01\x01") && window[18..20] == [247, 0]
        };
        let windows = bytes.windows(20).enumerate();
        let objects = windows.filter_map(|(at, window)| is_object(window).then_some(at));
        let objects: Vec<usize> = objects.collect();
        ensure!(!objects.is_empty(), "sg-ctl has no object inside");
        for object in objects {
            // The last byte of padding in the header, which nobody reads.
            bytes[object + 15] = 1;
        }
        let path = self.folder.path().join("another-sg-ctl");
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        Ok(path)
    }

    fn command_under(program: &[&str]) -> Result<Command> {
        let [program, own @ ..] = program else {
            bail!("no program")
        };
        let mut command = Command::new(program);
        command.args(own).arg(sg_ctl()?);
        Ok(command)
    }

    fn finish(mut child: Child, arguments: &[&str]) -> Result<Ran> {
        let stdout = reader(child.stdout.take().context("no stdout")?);
        let stderr = reader(child.stderr.take().context("no stderr")?);
        let deadline = Instant::now() + LONGEST_RUN;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() >= deadline {
                child.kill()?;
                child.wait()?;
                bail!(
                    "sg-ctl {} ran longer than {LONGEST_RUN:?}",
                    arguments.join(" ")
                );
            }
            thread::sleep(Duration::from_millis(2));
        };
        Ok(Ran {
            arguments: arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect(),
            code: status.code(),
            stdout: read_by(stdout)?,
            stderr: read_by(stderr)?,
        })
    }

    /// Starts `sg-ctl` and returns at once, for tests that kill it or watch it run. Its output is
    /// piped.
    pub fn spawn(&self, arguments: &[&str]) -> Result<Child> {
        self.start(Command::new(sg_ctl()?), arguments)
    }

    /// The same, with a terminal to read keys from and to draw on.
    pub fn spawn_on(&self, terminal: &OwnedFd, arguments: &[&str]) -> Result<Child> {
        let terminal = || terminal.try_clone().map(Stdio::from);
        let (stdin, stdout) = (terminal()?, terminal()?);
        let mut command = Command::new(sg_ctl()?);
        self.host.enter(|| {
            command
                .args(arguments)
                .envs(self.environment())
                .env("TERM", "xterm-256color")
                .stdin(stdin)
                .stdout(stdout)
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("starting {command:?}"))
        })
    }

    fn start(&self, command: Command, arguments: &[&str]) -> Result<Child> {
        self.start_on(&self.host, command, arguments)
    }

    fn start_on(&self, host: &Host, mut command: Command, arguments: &[&str]) -> Result<Child> {
        host.enter(|| {
            command
                .args(arguments)
                .envs(self.environment())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("starting {command:?}"))
        })
    }

    /// Runs a line of shell on a machine, in this instance's folder and with its `sg-ctl`.
    pub fn shell(&self, host: &Host, line: &str) -> Result<Ran> {
        let folder = sg_ctl()?.parent().context("a binary without a folder")?;
        let path = env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", folder.display()));
        let arguments = ["-c", line];
        Self::finish(self.start_on(host, command, &arguments)?, &arguments)
    }

    /// Writes a file into this instance's folder and returns its path.
    pub fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.folder.path().join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path.display().to_string())
    }

    /// Writes a policy file and returns its path.
    pub fn write_policy(&self, yaml: &str) -> Result<String> {
        self.write("policy.yaml", yaml)
    }

    /// Makes the policy be `yaml`; anything but success is an error.
    pub fn apply(&self, yaml: &str) -> Result<Ran> {
        let path = self.write_policy(yaml)?;
        self.run(&["apply", &path])?.succeeded()
    }

    /// What a reading command says with `--json`; exit code 1, an answered question, is fine.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let arguments = [arguments, &["--json"]].concat();
        let ran = self.run(&arguments)?;
        ensure!(matches!(ran.code, Some(0 | 1)), "{ran}");
        serde_json::from_str(&ran.stdout).with_context(|| format!("not JSON: {ran}"))
    }

    /// How many packets of the first interface were counted for these reasons, as `stats` has them.
    pub fn packets(&self, reasons: impl Fn(&Value) -> bool) -> Result<u64> {
        let stats = self.json(&["stats"])?;
        let counted = stats["interfaces"][0]["reasons"].as_array();
        let counted = counted.context("no reasons")?.iter();
        let packets = counted.filter(|reason| reasons(reason));
        let packets = packets.map(|reason| reason["packets"].as_u64());
        packets.sum::<Option<u64>>().context("no number")
    }

    /// Leaves what a reboot leaves: no pins, and an empty run folder.
    pub fn reboot(&self) -> Result<()> {
        umount2(&self.run_dir().join("bpf"), MntFlags::empty()).context("unmounting the pins")?;
        fs::remove_dir_all(self.run_dir()).context("emptying the run folder")
    }

    fn detach_all(&self) -> Result<()> {
        let status = self.json(&["status"])?;
        let interfaces = status["interfaces"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let names = interfaces.iter();
        let names = names.filter_map(|interface| interface["name"].as_str());
        // An entry goes with all the devices that it matches.
        let entries = names.filter_map(|name| name.split('/').next());
        for entry in entries.collect::<BTreeSet<_>>() {
            self.run(&["detach", entry])?.succeeded()?;
        }
        Ok(())
    }

    /// Without their pins, programs and maps go, whatever state they were left in.
    fn unmount_all(&self) -> Result<()> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
        let own = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|mount| Path::new(mount).starts_with(self.folder.path()));
        // Those made last lie on top.
        for mount in own.collect::<Vec<_>>().into_iter().rev() {
            umount2(mount, MntFlags::MNT_DETACH).with_context(|| format!("unmounting {mount}"))?;
        }
        Ok(())
    }
}

impl Drop for Sg {
    fn drop(&mut self) {
        // A store that was never made, or was broken on purpose, has nothing to detach by name.
        if self.state_dir().exists()
            && let Err(error) = self.detach_all()
        {
            eprintln!("lab: {error:#}");
        }
        self.end_daemon();
        if let Err(error) = self.unmount_all() {
            eprintln!("lab: {error:#}");
        }
    }
}

impl Ran {
    /// Itself when the exit code is 0.
    pub fn succeeded(self) -> Result<Self> {
        ensure!(self.code == Some(0), "{self}");
        Ok(self)
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "sg-ctl {}: ", self.arguments.join(" "))?;
        match self.code {
            Some(code) => writeln!(out, "exit code {code}")?,
            None => writeln!(out, "killed")?,
        }
        write!(
            out,
            "--- stdout\n{}--- stderr\n{}",
            self.stdout, self.stderr
        )
    }
}

type Reading = JoinHandle<io::Result<String>>;

/// Reads while the child runs, as a full pipe would stop it.
fn reader(mut pipe: impl Read + Send + 'static) -> Reading {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    })
}

fn read_by(reading: Reading) -> Result<String> {
    match reading.join() {
        Ok(text) => text.context("reading the output"),
        Err(_) => bail!("the reading thread panicked"),
    }
}

/// The binary under test: `SG_CTL`, or the one of this build, which cargo brings up to date.
pub fn sg_ctl() -> Result<&'static Path> {
    static PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PATH.get_or_init(|| find_sg_ctl().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(path),
        Err(error) => bail!("{error}"),
    }
}

/// The `sg-ctl` that can be had die after each step of a change. Cargo builds it with the tests; it may
/// also lie beside them.
pub fn crashing_sg_ctl() -> Result<PathBuf> {
    const NAME: &str = "sg-ctl-crashing";
    let beside = env::current_exe()
        .context("the path of this test")?
        .with_file_name(NAME);
    let built = profile_dir()?.join(NAME);
    let found = [beside, built].into_iter().find(|path| path.exists());
    found.with_context(|| format!("no {NAME}: build the tests"))
}

/// `<target>/<profile>` of `<target>/<profile>/deps/<test>`.
fn profile_dir() -> Result<PathBuf> {
    let test = env::current_exe().context("the path of this test")?;
    let folder = test.ancestors().nth(2);
    folder
        .map(Path::to_owned)
        .context("a test outside of a target folder")
}

fn find_sg_ctl() -> Result<PathBuf> {
    if let Some(path) = env::var_os("SG_CTL") {
        return Ok(path.into());
    }
    let profile_dir = profile_dir()?;
    let target_dir = profile_dir
        .parent()
        .context("a test outside of a target folder")?;
    let path = profile_dir.join("sg-ctl");
    // Cargo sets CARGO for the tests it runs; a test started by hand takes what is there.
    if let Some(cargo) = env::var_os("CARGO") {
        let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(profile) => profile,
        };
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--package", "sg-ctl", "--bin", "sg-ctl"])
            .args(["--profile", profile, "--target-dir"])
            .arg(target_dir)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .context("starting cargo")?;
        ensure!(built.success(), "building sg-ctl: {built}");
    }
    ensure!(
        path.exists(),
        "no {}: build sg-ctl, or name it in SG_CTL",
        path.display()
    );
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Lab;
    use nix::mount::{MsFlags, mount};

    #[test]
    fn dropping_it_unmounts_and_removes_its_folder() {
        let lab = Lab::new().unwrap();
        let sg = Sg::on(&lab.host("a").unwrap()).unwrap();
        let folder = sg.folder.path().to_owned();
        for inner in ["run", "run/bpf"] {
            let path = folder.join(inner);
            fs::create_dir_all(&path).unwrap();
            let none: Option<&str> = None;
            mount(none, &path, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        }
        let mounted = || {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            mounts.contains(folder.to_str().unwrap())
        };
        assert!(mounted());
        drop(sg);
        assert!(!mounted());
        assert!(!folder.exists());
    }
}
