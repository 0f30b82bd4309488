//! How soon the daemon has followed the machine, beside three hundred interfaces that it protects.

use std::os::fd::AsFd as _;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sg_ctl::interfaces::{Monitor, Netns};
use tests::daemon::Daemon;
use tests::lab::{Host, Lab};
use tests::sg::Sg;

use crate::measure::{Rounds, Taken, to_places};
use crate::{Effort, go_on};

const POLICY: &str = "
groups:
  web: {ingress: [{protocol: tcp, ports: 80, from: sg:app}]}
  app: {}
interfaces:
  web: {match: {name: 'v*'}, groups: [web]}
  app: {match: {name: 'a*'}, groups: [app]}
";

/// Nothing takes longer, on a loaded machine either.
const PATIENCE: Duration = Duration::from_secs(30);

/// The daemon, and what it says of itself.
struct Followed {
    machine: Host,
    daemon: Daemon,
    sg: Sg,
    _lab: Lab,
}

impl Followed {
    fn begin(effort: Effort) -> Result<Self> {
        let lab = Lab::new()?;
        let machine = lab.host("machine")?;
        for pair in 0..effort.choose(300, 20) {
            machine.ip(&format!("link add v{pair} type veth peer name w{pair}"))?;
        }
        machine.ip("link add a0 type veth peer name b0")?;
        let sg = Sg::on(&machine)?;
        sg.apply(POLICY)?;
        let daemon = Daemon::start(&sg, "")?;
        let followed = Self {
            machine,
            daemon,
            sg,
            _lab: lab,
        };
        // What it does at its start is done.
        followed.wait_for(0)?;
        Ok(followed)
    }

    /// How many changes it has made, and how long the last one took from its news, in milliseconds.
    fn changes(&self) -> Result<(u64, f64)> {
        let (_, status) = self.daemon.get("/status")?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        let number = |key: &str| status[key].as_u64().context("a number");
        Ok((number("changes")?, number("last_change_us")? as f64 / 1e3))
    }

    /// Waits until it has made more changes than this, and says how long the last one took.
    fn wait_for(&self, before: u64) -> Result<f64> {
        let began = Instant::now();
        loop {
            let (changes, took) = self.changes()?;
            if changes > before {
                return Ok(took);
            }
            ensure!(began.elapsed() < PATIENCE, "it does not follow");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How long after the kernel's word of it a new device has both programs, in milliseconds.
    fn protect(&self, effort: Effort) -> Result<Vec<f64>> {
        let mut taken = Vec::new();
        let netns = Netns::resolve(Some(self.machine.namespace()))?;
        for number in 0..effort.choose(100, 5) {
            go_on()?;
            let (before, _) = self.changes()?;
            let name = format!("vnew{number}");
            let monitor = Monitor::open(&netns)?;
            let took = std::thread::scope(|scope| {
                let watching =
                    scope.spawn(|| self.machine.enter(|| until_protected(&monitor, &name)));
                self.machine
                    .ip(&format!("link add {name} type veth peer name wnew{number}"))?;
                watching
                    .join()
                    .unwrap_or_else(|panicked| resume_unwind(panicked))
            })?;
            taken.push(took.as_secs_f64() * 1e3);
            self.wait_for(before)?;
        }
        ensure!(self.sg.json(&["verify"])?["same"] == true, "it differs");
        Ok(taken)
    }

    /// How long each of some steps takes to be followed.
    fn take(&self, effort: Effort, step: impl Fn(usize) -> String) -> Result<Vec<f64>> {
        let mut taken = Vec::new();
        for number in 0..effort.choose(100, 5) {
            go_on()?;
            let (before, _) = self.changes()?;
            self.machine.ip(&step(number))?;
            taken.push(self.wait_for(before)?);
        }
        ensure!(self.sg.json(&["verify"])?["same"] == true, "it differs");
        Ok(taken)
    }
}

/// Waits for the kernel's word of a change, and then for both programs of a device.
fn until_protected(monitor: &Monitor, name: &str) -> Result<Duration> {
    let mut files = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
    poll(&mut files, PollTimeout::try_from(PATIENCE)?)?;
    let heard = Instant::now();
    let has = |way| {
        let found = SchedClassifier::query_tcx(name, way);
        found.is_ok_and(|(_, programs)| !programs.is_empty())
    };
    while !(has(TcAttachType::Ingress) && has(TcAttachType::Egress)) {
        ensure!(heard.elapsed() < PATIENCE, "{name} is not protected");
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(heard.elapsed())
}

/// A device is protected, and an address is a member, so many milliseconds after the kernel says that it
/// is there; 99 of 100 are faster.
pub(crate) fn follows(names: &[&'static str], effort: Effort) -> Result<Vec<Taken>> {
    let followed = Followed::begin(effort)?;
    let mut all = Vec::new();
    for name in names {
        let mut taken = match *name {
            "device_protected_ms" => followed.protect(effort)?,
            _ => followed.take(effort, |number| {
                format!("address add 10.7.{number}.1/24 dev a0")
            })?,
        };
        taken.sort_by(f64::total_cmp);
        let at = |part: usize| taken.get(taken.len() * part / 100).copied();
        let worst = at(99).or(taken.last().copied());
        let of = Taken::new(name, Rounds::of(worst));
        all.push(of.with("p50_ms", to_places(at(50).unwrap_or_default())));
    }
    Ok(all)
}
