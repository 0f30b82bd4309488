//! This build beside an earlier one: `cargo xtask bench --against REVISION` builds that and names its
//! `sg-ctl` in `SG_CTL_BEFORE`.
//!
//! Each build protects a machine of its own by the same policy, with its own command. A packet's time
//! is that of the program which the command has attached, run on one frame by `bpftool prog run` with
//! that machine's interface: the kernel's own time for a run, some 30 ns here, is in both. Where each
//! run must meet another packet, they come over a wire, and the kernel tells how long the program ran
//! (`BPF_ENABLE_STATS`), which has the time of reading a clock in it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::ProgramInfo;
use aya::sys::{Stats, enable_stats};
use tests::lab::{Lab, Pair};
use tests::packets::words::{frame, packet};
use tests::sg::{Sg, sg_ctl};

use crate::Effort;
use crate::measure::{Rounds, Taken};
use crate::policies::HOST;
use crate::wire::Wire;

const POLICY: &str = "
groups:
  g:
    ingress: [{protocol: tcp, ports: 22, from: [198.51.100.0/24]}]
    egress: [{protocol: tcp, ports: 443, to: [198.51.100.0/24]}]
interfaces:
  eth0: {groups: [g], hook: HOOK}
";

const ROUNDS: usize = 15;

/// A handshake, and the packets that are measured behind it.
const SYN: &str = "tcp 198.51.100.7:40000 > 10.0.0.10:22 syn seq 1000";
const SYN_ACK: &str = "tcp 10.0.0.10:22 > 198.51.100.7:40000 syn ack seq 5000 ackno 1001";
const ACK: &str = "tcp 198.51.100.7:40000 > 10.0.0.10:22 ack seq 1001 ackno 5001";
const ANSWER: &str = "tcp 10.0.0.10:22 > 198.51.100.7:40000 ack seq 5001 ackno 1001";
const REFUSED: &str = "tcp 198.51.100.7:40000 > 10.0.0.10:23 syn seq 1000";

/// What the kernel's TC programs return to let a packet pass, and its XDP programs.
const PASSED: [&str; 2] = ["4294967295", "2"];

/// A build, and the machine that it protects.
struct Contestant {
    machine: Pair,
    sg: Sg,
    hook: &'static str,
    ifindex: u32,
}

impl Contestant {
    fn protect(build: &Path, hook: &'static str) -> Result<Self> {
        let (machine, sg) = fresh()?;
        apply(build, &sg, hook)?;
        let ifindex = u32::try_from(machine.host.link("eth0")?.ifindex())?;
        let contestant = Self {
            machine,
            sg,
            hook,
            ifindex,
        };
        for (received, words) in [(true, SYN), (false, SYN_ACK), (true, ACK)] {
            contestant.run(received, words, true, 1)?;
        }
        Ok(contestant)
    }

    /// Nanoseconds of one run of the program on a frame, which must come to this end.
    fn run(&self, received: bool, words: &str, passes: bool, times: u32) -> Result<f64> {
        let is_xdp = received && self.hook == "xdp";
        let name = match (received, is_xdp) {
            (false, _) => "sg_tc_send",
            (_, true) => "sg_xdp_receive",
            (_, false) => "sg_tc_receive",
        };
        let bytes = frame(words)?;
        let program = pinned(&self.sg.run_dir().join("bpf"), name)?.context("no such program")?;
        let folder = self.sg.state_dir();
        let (data, context) = (folder.join("bench-frame"), folder.join("bench-context"));
        fs::write(&data, &bytes)?;
        fs::write(&context, self.context(is_xdp, bytes.len()))?;
        let shown = |path: &Path| path.display().to_string();
        let (program, data, context) = (shown(&program), shown(&data), shown(&context));
        let command = ["prog", "run", "pinned", &program, "data_in", &data];
        let options = ["ctx_in", &context, "repeat", &times.to_string()];
        let arguments = [&command[..], &options[..]].concat();
        let told = self.machine.host.run("bpftool", &arguments)?;
        // `Return value: 2, duration (average): 85ns`
        let (value, rest) = told
            .trim()
            .strip_prefix("Return value: ")
            .and_then(|rest| rest.split_once(','))
            .with_context(|| format!("bpftool said {told:?}"))?;
        let has_passed = value == PASSED[usize::from(is_xdp)];
        ensure!(has_passed == passes, "{name} returned {value} for {words}");
        let took = rest.rsplit_once(' ').map_or(rest, |(_, last)| last);
        let took = took.trim_end_matches("ns").parse();
        took.with_context(|| format!("bpftool said {told:?}"))
    }

    /// `struct xdp_md`, or `struct __sk_buff`, of which the kernel takes the device.
    fn context(&self, is_xdp: bool, length: usize) -> Vec<u8> {
        let mut context = vec![0; if is_xdp { 24 } else { 192 }];
        let (place, number) = (if is_xdp { 12 } else { 40 }, self.ifindex.to_le_bytes());
        context[place..place + 4].copy_from_slice(&number);
        if is_xdp {
            context[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        }
        context
    }
}

fn fresh() -> Result<(Pair, Sg)> {
    let machine = Lab::pair()?;
    let sg = Sg::on(&machine.host)?;
    Ok((machine, sg))
}

fn apply(build: &Path, sg: &Sg, hook: &str) -> Result<()> {
    let file = sg.write_policy(&POLICY.replace("HOOK", hook))?;
    sg.run_build(build, &["apply", &file])?.succeeded()?;
    Ok(())
}

/// The pin whose name ends with a program's, in whichever folder a build keeps it.
fn pinned(folder: &Path, program: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let found = match path.is_dir() {
            true => pinned(&path, program)?,
            false => Some(path).filter(|path| path.to_string_lossy().ends_with(program)),
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn builds() -> Result<[PathBuf; 2]> {
    let before = env::var_os("SG_CTL_BEFORE");
    let before = before.context("`--against REVISION` names the build to compare with")?;
    Ok([before.into(), sg_ctl()?.to_owned()])
}

/// A packet's time in the programs of this build over that in those of the one before.
pub(crate) fn packets(names: &[&'static str], effort: Effort) -> Result<Vec<Taken>> {
    let builds = builds()?;
    let mut taken = Vec::new();
    for name in names {
        let (hook, received, words, passes) = match *name {
            "established_tc_over_before" => ("tc", true, ACK, true),
            "established_xdp_over_before" => ("xdp", true, ACK, true),
            "sent_over_before" => ("tc", false, ANSWER, true),
            _ => ("tc", true, REFUSED, false),
        };
        let pair = [
            Contestant::protect(&builds[0], hook)?,
            Contestant::protect(&builds[1], hook)?,
        ];
        let times = effort.choose(500_000, 20_000);
        let took = alternate(effort, |one| pair[one].run(received, words, passes, times))?;
        taken.push(compared(name, "ns", took));
    }
    Ok(taken)
}

/// A build behind a wire, on which SYNs arrive that it lets in and tracks.
struct Opening {
    /// Goes before its wire.
    sg: Sg,
    wire: Wire,
    frame: Vec<u8>,
}

impl Opening {
    fn protect(build: &Path) -> Result<Self> {
        let wire = Wire::lay()?;
        let sg = Sg::on(&wire.target)?;
        let interface = &wire.interface;
        let file = sg.write_policy(&format!(
            "groups:\n  g:\n    ingress: [{{protocol: tcp, ports: 22, from: [32.0.0.0/3]}}]\n\
             interfaces:\n  {interface}: {{groups: [g], hook: tc}}\n"
        ))?;
        sg.run_build(build, &["apply", &file])?.succeeded()?;
        let words = format!("tcp 32.0.1.7:40000 > {HOST}:22 syn window 1000");
        let mac = wire.target.mac(interface)?;
        let frame = packet(&words)?.to_mac(mac).frame();
        Ok(Self { sg, wire, frame })
    }

    /// Nanoseconds that the program took for each of so many SYNs from sources of their own.
    fn round(&self, count: u32) -> Result<f64> {
        let program = pinned(&self.sg.run_dir().join("bpf"), "sg_tc_receive")?;
        let program = program.context("no such program")?;
        let look = || ProgramInfo::from_pin(&program);
        let _counting = enable_stats(Stats::RunTime)?;
        let before = look()?;
        self.wire.send(&self.frame, count)?;
        // The last of them are still on their way.
        let deadline = Instant::now() + PATIENCE;
        let mut after = look()?;
        loop {
            std::thread::sleep(Duration::from_millis(20));
            let now = look()?;
            let is_still = now.run_count() == after.run_count();
            after = now;
            if is_still || Instant::now() > deadline {
                break;
            }
        }
        let runs = after.run_count() - before.run_count();
        ensure!(
            runs > u64::from(count) / 10,
            "of {count} SYNs {runs} arrived"
        );
        let took = after.run_time() - before.run_time();
        Ok(took.as_nanos() as f64 / runs as f64)
    }

    /// How many SYNs opened a flow, and how many were refused.
    fn opened(&self, build: &Path) -> Result<u64> {
        let ran = self.sg.run_build(build, &["status", "--json"])?;
        let status: serde_json::Value = serde_json::from_str(&ran.stdout)?;
        let embryonic = status["flows"]["embryonic"].as_u64();
        embryonic.with_context(|| format!("no flows in {status}"))
    }
}

/// Nothing takes this long.
const PATIENCE: Duration = Duration::from_secs(5);

/// The time of the program for a SYN that is let in and opens a flow, over that of the build before.
pub(crate) fn opened_flows(names: &[&'static str], effort: Effort) -> Result<Vec<Taken>> {
    let builds = builds()?;
    let pair = [Opening::protect(&builds[0])?, Opening::protect(&builds[1])?];
    let count = effort.choose(1 << 15, 1 << 12);
    let took = alternate(effort, |one| pair[one].round(count))?;
    let [flows_before, flows_now] = [pair[0].opened(&builds[0])?, pair[1].opened(&builds[1])?];
    ensure!(flows_before > 0 && flows_now > 0, "no flow was opened");
    Ok(names
        .iter()
        .map(|name| {
            compared(name, "ns", took.clone())
                .with("flows_before", flows_before)
                .with("flows_now", flows_now)
        })
        .collect())
}

/// The first `apply` of a small policy, from the command's start to its end, over that of the build
/// before.
pub(crate) fn first_apply(names: &[&'static str], effort: Effort) -> Result<Vec<Taken>> {
    let builds = builds()?;
    let took = alternate(effort, |one| {
        let (_machine, sg) = fresh()?;
        let begin = Instant::now();
        apply(&builds[one], &sg, "tc")?;
        Ok(begin.elapsed().as_secs_f64() * 1000.0)
    })?;
    Ok(names
        .iter()
        .map(|name| compared(name, "ms", took.clone()))
        .collect())
}

/// Takes figures of both in turn, each first in every other round.
fn alternate(
    effort: Effort,
    mut figure: impl FnMut(usize) -> Result<f64>,
) -> Result<[Vec<f64>; 2]> {
    let mut took = [Vec::new(), Vec::new()];
    let mut first = 0;
    effort.rounds(ROUNDS, || {
        for one in [first, 1 - first] {
            took[one].push(figure(one)?);
        }
        first = 1 - first;
        Ok(())
    })?;
    Ok(took)
}

fn compared(name: &'static str, unit: &str, [before, now]: [Vec<f64>; 2]) -> Taken {
    let ratios = before.iter().zip(&now).map(|(before, now)| now / before);
    Taken::new(name, Rounds::of(ratios))
        .with_median(&format!("{unit}_before"), before.iter().copied())
        .with_median(&format!("{unit}_now"), now.iter().copied())
}
