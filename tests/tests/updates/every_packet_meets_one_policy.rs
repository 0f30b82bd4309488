//! At full rate, while rules, members and prefixes change and commands are killed: a packet that the
//! policies before and after allow passes, and one that neither allows does not.
//!
//! The programs are run over the maps in force by the kernel itself, frame by frame, so that each
//! verdict is known and none is lost on the way.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sg_common::report::Verdict;
use sg_ctl::crash::Point;
use sg_ctl::dataplane::Dataplane;
use sg_ctl::dataplane::measure::{Replay, ReplayHook};
use tests::lab::Host;
use tests::packets::words::frame;
use tests::sg::{Sg, crashing_sg_ctl};

/// Every way in is there at the start; the edits take one away when another one stays.
const POLICY: &str = "
prefix_lists:
  clients: [10.0.0.0/28, 198.51.100.0/24]
groups:
  clients: {members: [10.0.0.1, 10.0.0.2]}
  g:
    ingress:
      - {protocol: tcp, ports: 7, from: [10.0.0.0/8, pl:clients, sg:clients]}
      - {protocol: tcp, ports: [80, 8000-8080], from: [192.0.2.0/24]}
    egress:
      - {protocol: all, to: [10.0.0.0/8]}
interfaces:
  eth0: {groups: [g]}
";

/// Each from a port of its own, so that rules judge it and no flow does.
const PORTS: std::ops::Range<u16> = 10_000..40_000;
/// A judge that is not ready by then has failed, and says why.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the threads look for another layout.
const LOOK: usize = 2_000;

fn frames(to: u16) -> Result<Vec<Vec<u8>>> {
    PORTS
        .map(|port| frame(&format!("tcp 10.0.0.1:{port} > 10.0.0.10:{to} syn")))
        .collect()
}

/// The programs over the maps in force; the caller is in the device's network namespace.
fn replay(sg: &Sg) -> Result<Replay> {
    let dataplane = Dataplane::open(&sg.run_dir(), &sg.run_dir().join("bpf"))?;
    // Namespaces are numbered from 1.
    dataplane.replay(1)?.context("nothing is installed")
}

/// How far the judges are.
#[derive(Default)]
struct Stage {
    /// How many judge by now.
    ready: AtomicUsize,
    over: AtomicBool,
}

/// Judges frames without a pause until it is over, and says how many.
fn judge(sg: &Sg, host: &Host, hook: ReplayHook, stage: &Stage) -> Result<usize> {
    let (allowed, refused) = (frames(7)?, frames(443)?);
    host.enter(|| {
        let ifindex =
            sg_ctl::interfaces::link(&sg_ctl::interfaces::Netns::current()?, "eth0")?.ifindex;
        let mut programs = replay(sg)?;
        let mut judged = 0;
        let pairs = allowed.iter().zip(&refused).cycle();
        for (allowed, refused) in pairs {
            for (frame, wanted) in [(allowed, Verdict::Pass), (refused, Verdict::Drop)] {
                match programs.judge(hook, ifindex, frame)? {
                    Some(verdict) if verdict == wanted => judged += 1,
                    other => bail!("{hook:?}: frame {judged} is to get {wanted:?}: {other:?}"),
                }
            }
            if judged % LOOK == 0 {
                if judged == LOOK {
                    stage.ready.fetch_add(1, Ordering::Relaxed);
                }
                if stage.over.load(Ordering::Relaxed) {
                    break;
                }
                // While a command replaces the record there may be none to read.
                let run = sg.run_dir();
                if let Ok(dataplane) = Dataplane::open(&run, &run.join("bpf"))
                    && !dataplane.is_current(&programs)
                    && let Ok(fresh) = replay(sg)
                {
                    programs = fresh;
                }
            }
        }
        Ok(judged)
    })
}

/// Makes changes while both hooks judge.
fn every_verdict_is_right_during(changes: impl FnOnce(&Sg) -> Result<usize>) -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let stage = Stage::default();
    let (changed, judged) = thread::scope(|scope| {
        let hooks = [ReplayHook::XdpReceive, ReplayHook::TcReceive];
        let judges = hooks.map(|hook| {
            let (sg, host, stage) = (&sg, &pair.host, &stage);
            scope.spawn(move || judge(sg, host, hook, stage))
        });
        let begin = Instant::now();
        while stage.ready.load(Ordering::Relaxed) < hooks.len() && begin.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(10));
        }
        let changed = changes(&sg);
        stage.over.store(true, Ordering::Relaxed);
        let judged: Result<Vec<usize>> = judges
            .into_iter()
            .map(|judge| judge.join().unwrap_or_else(|_| bail!("panicked")))
            .collect();
        (changed, judged)
    });
    let (judged, changed) = (judged?, changed?);
    ensure!(judged.iter().all(|count| *count > 2 * LOOK), "{judged:?}");
    println!("{judged:?} verdicts were right during {changed} changes");
    Ok(())
}

/// Words of commands. Whatever the moment, one way in is left.
const EDITS: [&str; 14] = [
    "rule remove g --ingress --protocol tcp --ports 7 --from 10.0.0.0/8",
    "group members clients --remove 10.0.0.1",
    "prefix-list add clients 10.0.0.1/32 10.0.0.0/24",
    "prefix-list remove clients 10.0.0.0/28",
    "rule add g --ingress --protocol tcp --ports 7 --from 10.0.0.1/32",
    "prefix-list remove clients 10.0.0.1/32 10.0.0.0/24",
    "group members clients --add 10.0.0.1",
    "rule remove g --ingress --protocol tcp --ports 7 --from 10.0.0.1/32",
    "rule add g --ingress --protocol tcp --ports 1-100 --from 0.0.0.0/1",
    "rule remove g --ingress --protocol tcp --ports 7 --from sg:clients",
    "rule add g --ingress --protocol tcp --ports 7 --from sg:clients",
    "prefix-list add clients 10.0.0.0/28",
    "rule add g --ingress --protocol tcp --ports 7 --from 10.0.0.0/8",
    "rule remove g --ingress --protocol tcp --ports 1-100 --from 0.0.0.0/1",
];

/// Where each of them is killed.
const POINTS: [Point; EDITS.len()] = [
    Point::StoreWritten,
    Point::StoreCommitted,
    Point::Marked,
    Point::UnwantedRemoved,
    Point::ArenasWritten,
    Point::CountersCleared,
    Point::BuffersPrepared,
    Point::KeysWritten,
    Point::GenerationRaised,
    Point::ReadersGone,
    Point::BuffersMirrored,
    Point::KeysDeleted,
    Point::RecordWritten,
    Point::Unmarked,
];

fn words(edit: &str) -> Vec<&str> {
    edit.split_whitespace().collect()
}

#[test]
fn while_edits_follow_each_other() -> Result<()> {
    every_verdict_is_right_during(|sg| {
        for _ in 0..4 {
            for edit in EDITS {
                sg.run(&words(edit))?.succeeded()?;
            }
        }
        Ok(4 * EDITS.len())
    })
}

#[test]
fn while_each_edit_is_killed_and_made_again() -> Result<()> {
    let program = crashing_sg_ctl()?;
    every_verdict_is_right_during(|sg| {
        for (number, edit) in EDITS.iter().enumerate() {
            let point = POINTS[number].name();
            let killed = sg.run_to(point, &program, &words(edit))?;
            ensure!(killed.code.is_none(), "{point} was not reached: {killed}");
            // Whichever it left, the next command completes it.
            sg.run(&["restore"])?.succeeded()?;
            // A rule that was added already, or removed, is an error.
            let _ = sg.run(&words(edit))?;
            ensure!(sg.json(&["verify"])?["same"] == true);
        }
        Ok(2 * EDITS.len())
    })
}
