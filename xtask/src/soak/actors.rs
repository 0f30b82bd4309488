//! Who changes, reads, kills and takes over.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use nix::sys::signal::Signal;
use tests::daemon::{Daemon, eventually};
use tests::lab::Pair;
use tests::sg::Sg;

use crate::probes;
use crate::resources;
use crate::tally::Tally;

/// What is in force, in turn. Both allow the same probes.
pub(crate) const POLICIES: [&str; 2] = [
    "\
groups:
  web:
    ingress:
    - {protocol: tcp, ports: 22, from: [10.0.0.0/24]}
    - {protocol: udp, ports: 53, from: [10.0.0.0/24]}
interfaces:
  eth0: {groups: [web]}
  soaked: {match: {name: \"soak*\"}, groups: [web]}
",
    "\
prefix_lists:
  near: [10.0.0.0/25, 10.0.0.128/25]
groups:
  web:
    ingress:
    - {protocol: tcp, ports: 22, from: [10.0.0.0/24]}
    - {protocol: udp, ports: 50-53, from: [pl:near]}
  other:
    ingress: [{protocol: tcp, ports: 8000-8999, from: [sg:web]}]
interfaces:
  eth0: {groups: [web, other]}
  soaked: {match: {name: \"soak*\"}, groups: [other]}
",
];

/// Where everything happens.
pub(crate) struct Stage<'a> {
    pub(crate) pair: &'a Pair,
    pub(crate) sg: &'a Sg,
    /// Two builds of sg-ctl.
    pub(crate) builds: [PathBuf; 2],
    pub(crate) tally: Tally,
}

type Act = fn(&Stage<'_>, Rng) -> Result<()>;

/// All who act, by name.
pub(crate) const ALL: &[(&str, Act)] = &[
    ("one connection", probes::one_connection),
    ("new connections", probes::new_connections),
    ("datagrams", probes::datagrams),
    ("denied", probes::denied),
    ("rules", rules),
    ("devices", devices),
    ("addresses", addresses),
    ("readers", readers),
    ("upgrades", upgrades),
    ("daemon", daemon),
];

const RULE: &str = "web --ingress --protocol tcp --from 198.51.100.0/24 --ports";

impl Stage<'_> {
    /// A command that the daemon is asked for. One whose daemon is killed meanwhile says that nothing was changed,
    /// and is given again.
    fn sg_ctl(&self, words: &str, last: &str) -> Result<()> {
        let mut words: Vec<&str> = words.split_whitespace().collect();
        words.push(last);
        loop {
            let ran = self.sg.run(&words)?;
            if ran.code == Some(0) || !ran.stderr.contains("nothing was changed, so run") {
                return ran.succeeded().map(drop);
            }
            self.tally.count("edits given again");
        }
    }

    fn add_device(&self, name: &str) -> Result<()> {
        let host = &self.pair.host;
        host.ip(&format!("link add {name} type veth peer name far{name}"))?;
        host.ip(&format!("link set {name} up"))?;
        Ok(())
    }

    /// Each thing once, so that what stays for good is there.
    pub(crate) fn everything_once(&self) -> Result<()> {
        self.add_device("soak0")?;
        let daemon = Daemon::start(self.sg, "")?;
        eventually("a device that comes is protected", || {
            self.is_protected("soak0")
        })?;
        for policy in [1, 0] {
            self.sg.apply(POLICIES[policy])?;
        }
        for words in ["rule add", "rule remove"] {
            self.sg_ctl(&format!("{words} {RULE}"), "1000")?;
        }
        drop(daemon);
        self.pair.host.ip("link del soak0")?;
        for build in [1, 0] {
            let restored = self.sg.run_build(&self.builds[build], &["restore"])?;
            restored.succeeded()?;
        }
        self.settle()
    }

    /// Leaves the machine as it was: the first policy, by the first build, without a daemon.
    pub(crate) fn settle(&self) -> Result<()> {
        self.sg.apply(POLICIES[0])?;
        self.sg.run(&["restore"])?.succeeded()?;
        self.sg.run(&["verify"])?.succeeded()?;
        // Closed objects go after a grace period, or two.
        thread::sleep(Duration::from_secs(1));
        Ok(())
    }

    fn is_protected(&self, device: &str) -> Result<bool> {
        let status = self.sg.json(&["status"])?;
        let wanted = format!("soaked/{device}");
        let interfaces = status["interfaces"].as_array().context("interfaces")?;
        let mut found = interfaces.iter().filter(|one| one["name"] == *wanted);
        Ok(found.any(|one| one["state"] == "protected"))
    }
}

fn pause(random: &mut Rng, at_most: u64) {
    thread::sleep(Duration::from_millis(random.u64(1..=at_most)));
}

/// Rules come and go, and now and then a whole policy.
fn rules(stage: &Stage<'_>, mut random: Rng) -> Result<()> {
    while stage.tally.goes_on() {
        let port = random.u16(1_000..2_000).to_string();
        for words in ["rule add", "rule remove"] {
            stage.sg_ctl(&format!("{words} {RULE}"), &port)?;
            stage.tally.count("edits");
        }
        if random.u8(..8) == 0 {
            for policy in [1, 0] {
                stage.sg.apply(POLICIES[policy])?;
                stage.tally.count("policies applied");
            }
        }
        pause(&mut random, 200);
    }
    Ok(())
}

/// Devices come, are protected by the daemon, which may just be starting, and go.
fn devices(stage: &Stage<'_>, mut random: Rng) -> Result<()> {
    let mut number = 0;
    while stage.tally.goes_on() {
        // Names come again, and in between others.
        number = (number + 1) % 7 + u32::from(random.bool()) * 10;
        let name = format!("soak{number}");
        stage.add_device(&name)?;
        if random.u8(..4) > 0 {
            eventually(&format!("{name} is protected"), || {
                stage.is_protected(&name)
            })?;
            stage.tally.count("devices protected");
        }
        stage.pair.host.ip(&format!("link del {name}"))?;
        pause(&mut random, 300);
    }
    Ok(())
}

/// An address comes and goes.
fn addresses(stage: &Stage<'_>, mut random: Rng) -> Result<()> {
    while stage.tally.goes_on() {
        let address = format!("10.0.0.{}/24", random.u8(100..200));
        stage.pair.host.add_addresses("eth0", &[&address])?;
        pause(&mut random, 300);
        stage.pair.host.remove_address("eth0", &address)?;
        stage.tally.count("addresses");
        pause(&mut random, 300);
    }
    Ok(())
}

/// Everything that reads.
fn readers(stage: &Stage<'_>, mut random: Rng) -> Result<()> {
    const READING: [&[&str]; 5] = [
        &["status"],
        &["stats"],
        &["flows", "list"],
        &["rule", "list", "web"],
        &["explain", "eth0", "ingress", "tcp", "10.0.0.1", ":22"],
    ];
    while stage.tally.goes_on() {
        let words = READING[random.usize(..READING.len())];
        stage.sg.json(words)?;
        stage.tally.count("readings");
        pause(&mut random, 100);
    }
    Ok(())
}

/// Another build takes over, and gives back.
fn upgrades(stage: &Stage<'_>, mut random: Rng) -> Result<()> {
    while stage.tally.goes_on() {
        for build in [1, 0] {
            pause(&mut random, 10_000);
            let restored = stage.sg.run_build(&stage.builds[build], &["restore"])?;
            restored.succeeded()?;
            stage.tally.count("upgrades");
        }
    }
    Ok(())
}

/// The daemon runs for a while, is ended in one way or another, and is missed for a while.
fn daemon(stage: &Stage<'_>, mut random: Rng) -> Result<()> {
    while stage.tally.goes_on() {
        let daemon = Daemon::start(stage.sg, "")?;
        stage.tally.count("daemons");
        let pid = daemon.pid()?.as_raw();
        // What a new one reads first is no leak.
        thread::sleep(Duration::from_secs(2));
        let young = resources::of_process(pid).context("the daemon has ended by itself")?;
        let begin = Instant::now();
        let lives = Duration::from_secs(random.u64(1..30));
        while begin.elapsed() < lives && stage.tally.goes_on() {
            let (code, body) = daemon.get("/metrics")?;
            ensure!(code == 200, "the metrics: {code}: {body}");
            stage.tally.count("scrapes");
            if random.u8(..20) == 0 {
                daemon.signal(Signal::SIGHUP)?;
            }
            pause(&mut random, 500);
        }
        let old = resources::of_process(pid).context("the daemon has ended by itself")?;
        stage.tally.most("kB of the daemon", old.0);
        stage
            .tally
            .most("kB that a daemon grew by", old.0.saturating_sub(young.0));
        stage.tally.most(
            "descriptors that a daemon grew by",
            old.1.saturating_sub(young.1),
        );
        match random.bool() {
            true => {
                daemon.signal(Signal::SIGKILL)?;
                drop(daemon);
            }
            false => {
                daemon.signal(Signal::SIGTERM)?;
                let status = daemon.end()?;
                ensure!(status.success(), "the daemon ended with {status}");
            }
        }
        pause(&mut random, 1_000);
    }
    Ok(())
}
