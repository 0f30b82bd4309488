//! What one judgement costs: the loaded programs, run on frames by the kernel itself.
//!
//! Policies are read, compiled and put into maps as `sg-ctl apply` does it, and the programs run
//! over these maps through `BPF_PROG_TEST_RUN`, which takes its own time: about 30 ns a run.
//!
//! - *Hot*: one frame, again and again. Everything is in the nearest cache.
//! - *Scattered*: each run gets a frame from another address (and for many policies: of another
//!   interface), written into it by the program that is measured, in an order that no prefetcher
//!   follows. `sg_scattered_drop_xdp` does that and nothing else; what it takes, the kernel's own
//!   time included, is *overhead*, and what is left of the others is their *program time*.
//!
//! `deny_over_empty` and `tracked_1m_over_parse` compare runs whole, as the kernel tells them (the
//! writing of addresses is taken off the second); the measures of growth compare program times,
//! which are the stricter ratio. Those over loads compare them with the time of a program that does
//! nothing but load from random places of as much memory: no lookup takes less.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use sg_common::report::Reason;
use sg_common::scatter::Scatter;
use sg_ctl::compile::Limits;
use sg_ctl::dataplane::measure::{RandomLoads, Rehearsal, Yardstick};
use sg_ctl::dirs::{DirOptions, Dirs};
use tempfile::TempDir;
use tests::packets::words::frame;

use crate::Effort;
use crate::measure::{Rounds, Taken};
use crate::policies::{self, HOST, PREFIXES_BASE, PREFIXES_MASK, UNNAMED};

/// The source of the frames that are not scattered; no policy names it.
const STRANGER: &str = "32.0.1.7";

/// A folder for pins, on a bpf filesystem of its own.
pub(crate) struct Pins {
    folder: TempDir,
    dirs: Dirs,
    bpffs: PathBuf,
}

impl Pins {
    pub(crate) fn mount() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("sg-bench-").tempdir()?;
        let dirs = Dirs::create(&DirOptions {
            state_dir: folder.path().join("state"),
            run_dir: folder.path().join("run"),
        })?;
        let lock = dirs.lock()?;
        let bpffs = dirs.bpffs(&lock)?.path;
        Ok(Self {
            folder,
            dirs,
            bpffs,
        })
    }

    /// A folder for maps.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.bpffs.join(name)
    }

    /// Puts a policy into maps of their own, with room for so many flows.
    pub(crate) fn stage(
        &self,
        name: &str,
        policy: &str,
        flows: u32,
        limits: Limits,
    ) -> Result<Rehearsal> {
        let settings = Rehearsal::settings(flows, limits)?;
        let image = policies::compiled(policy, &settings)?;
        Ok(Rehearsal::stage(&self.bpffs.join(name), &image, &settings)?)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let unmounted = self
            .dirs
            .lock()
            .and_then(|lock| self.dirs.unmount_if_empty(&lock));
        if !matches!(unmounted, Ok(true)) {
            eprintln!("bench: {} stays mounted", self.folder.path().display());
        }
    }
}

/// Flows that a table is made for where flows don't matter.
pub(crate) const FEW_FLOWS: u32 = 65_536;

fn syn() -> Result<Vec<u8>> {
    frame(&format!("tcp {STRANGER}:40000 > {HOST}:22 syn"))
}

/// Random sources among the prefixes that no prefix covers.
fn unnamed_sources() -> Scatter {
    Scatter {
        base: PREFIXES_BASE | UNNAMED,
        mask: PREFIXES_MASK,
        ..Scatter::still(Rehearsal::IFINDEX)
    }
}

/// Nanoseconds of one run.
fn run(staged: &mut Rehearsal, yardstick: Yardstick, frame: &[u8], times: u32) -> Result<f64> {
    Ok(staged.run(yardstick, frame, times)?.as_nanos() as f64)
}

/// The same, and makes sure that each frame was judged as it is meant to be.
fn judge(
    staged: &mut Rehearsal,
    yardstick: Yardstick,
    reason: Reason,
    frame: &[u8],
    times: u32,
) -> Result<f64> {
    let before = staged.counted(reason)?;
    let took = run(staged, yardstick, frame, times)?;
    let counted = staged.counted(reason)? - before;
    ensure!(
        counted == u64::from(times),
        "of {times} frames only {counted} were judged `{}`",
        reason.name()
    );
    Ok(took)
}

/// The judgement of frames that are denied for want of a rule.
fn deny(staged: &mut Rehearsal, yardstick: Yardstick, frame: &[u8], times: u32) -> Result<f64> {
    judge(staged, yardstick, Reason::NoRule, frame, times)
}

/// Nanoseconds that loads from random places take, a round each.
struct Loads {
    loads: RandomLoads,
    taken: Vec<f64>,
}

impl Loads {
    /// So many, one after the other, from so much memory.
    fn within(bytes: u64, loads: u32) -> Result<Self> {
        Ok(Self {
            loads: RandomLoads::within(bytes, loads)?,
            taken: Vec::new(),
        })
    }

    fn round(&mut self, scatter: Scatter, frame: &[u8], times: u32) -> Result<()> {
        self.loads.scatter(scatter)?;
        let [loading, overhead] = self.loads.run(frame, times)?;
        let took = loading.as_nanos() as f64 - overhead.as_nanos() as f64;
        self.taken.push(took.max(1.0));
        Ok(())
    }
}

fn quotients(over: &[f64], under: &[f64]) -> Vec<f64> {
    over.iter()
        .zip(under)
        .map(|(over, under)| over / under)
        .collect()
}

fn differences(from: &[f64], less: &[f64]) -> Vec<f64> {
    // A clock of whole nanoseconds may call two things equal.
    from.iter()
        .zip(less)
        .map(|(from, less)| (from - less).max(1.0))
        .collect()
}

/// A plain SYN that ten prefixes refuse, over a program that drops.
pub(crate) fn deny_over_empty(_names: &[&'static str], effort: Effort) -> Result<Vec<Taken>> {
    let pins = Pins::mount()?;
    let mut staged = pins.stage("ten", &policies::by_rules(10), FEW_FLOWS, Limits::default())?;
    staged.scatter(unnamed_sources())?;
    let frame = syn()?;
    let times = effort.choose(2_000_000, 100_000);
    let contestants = [
        Yardstick::DropXdp,
        Yardstick::ReceiveXdp,
        Yardstick::DropTc,
        Yardstick::ReceiveTc,
        Yardstick::ScatteredDropXdp,
        Yardstick::ScatteredXdp,
    ];
    let mut taken = contestants.map(|_| Vec::new());
    effort.rounds(15, || {
        for (yardstick, taken) in contestants.iter().zip(&mut taken) {
            let judges = matches!(
                yardstick,
                Yardstick::ReceiveXdp | Yardstick::ReceiveTc | Yardstick::ScatteredXdp
            );
            taken.push(if judges {
                deny(&mut staged, *yardstick, &frame, times)?
            } else {
                run(&mut staged, *yardstick, &frame, times)?
            });
        }
        Ok(())
    })?;
    let [empty, deny, tc_empty, tc_deny, overhead, scattered] = taken;
    Ok(vec![
        Taken::new("deny_over_empty", Rounds::of(quotients(&deny, &empty)))
            .with_median("empty_ns", empty.iter().copied())
            .with_median("deny_ns", deny.iter().copied())
            .with_median("tc_ratio", quotients(&tc_deny, &tc_empty))
            .with_median("tc_empty_ns", tc_empty)
            .with_median("tc_deny_ns", tc_deny)
            .with_median("scattered_ratio", quotients(&scattered, &overhead))
            .with_median("scattered_program_ns", differences(&scattered, &overhead)),
    ])
}

/// One size of prefix list.
struct Listed {
    count: u32,
    /// By a prefix list.
    list: Rehearsal,
    /// By a rule a prefix.
    rules: Option<Rehearsal>,
    taken: DenyRounds,
}

#[derive(Default)]
struct DenyRounds {
    overhead: Vec<f64>,
    list: Vec<f64>,
    named: Vec<f64>,
    rules: Vec<f64>,
    hot: Vec<f64>,
}

impl DenyRounds {
    fn program_times(&self) -> Vec<f64> {
        differences(&self.list, &self.overhead)
    }
}

/// Plain SYNs from random sources that a prefix list refuses, by its length.
pub(crate) fn deny_over_fewer_prefixes(
    names: &[&'static str],
    effort: Effort,
) -> Result<Vec<Taken>> {
    const TEN: u32 = 10;
    let larger = [
        ("deny_1m_over_10", effort.choose(1_000_000, 20_000)),
        ("deny_100k_over_10", effort.choose(100_000, 5_000)),
    ];
    let wanted: Vec<_> = larger
        .into_iter()
        .filter(|(name, _)| names.contains(name))
        .collect();
    let pins = Pins::mount()?;
    let mut staged = Vec::new();
    for count in std::iter::once(TEN).chain(wanted.iter().map(|(_, count)| *count)) {
        let stage = |kind: &str, policy: String| {
            let mut staged = pins.stage(
                &format!("{kind}-{count}"),
                &policy,
                FEW_FLOWS,
                Limits::default(),
            )?;
            staged.scatter(unnamed_sources())?;
            anyhow::Ok(staged)
        };
        staged.push(Listed {
            count,
            list: stage("list", policies::by_prefix_list(count))?,
            // Nobody writes a million rules by hand.
            rules: match count {
                0..=100_000 => Some(stage("rules", policies::by_rules(count))?),
                _ => None,
            },
            taken: DenyRounds::default(),
        });
    }
    let frame = syn()?;
    let times = effort.choose(300_000, 50_000);
    effort.rounds(7, || {
        for Listed {
            list, rules, taken, ..
        } in &mut staged
        {
            list.scatter(unnamed_sources())?;
            taken
                .overhead
                .push(run(list, Yardstick::ScatteredDropXdp, &frame, times)?);
            taken
                .list
                .push(deny(list, Yardstick::ScatteredXdp, &frame, times)?);
            taken
                .hot
                .push(deny(list, Yardstick::ReceiveXdp, &frame, times)?);
            list.scatter(Scatter {
                base: PREFIXES_BASE,
                ..unnamed_sources()
            })?;
            taken
                .named
                .push(deny(list, Yardstick::ScatteredXdp, &frame, times)?);
            if let Some(rules) = rules {
                taken
                    .rules
                    .push(deny(rules, Yardstick::ScatteredXdp, &frame, times)?);
            }
        }
        Ok(())
    })?;
    let (ten, larger) = staged.split_first().context("nothing was staged")?;
    let few = &ten.taken;
    let mut results = Vec::new();
    for ((name, _), many) in wanted.iter().zip(larger) {
        let taken = &many.taken;
        let by_rules = |of: &DenyRounds| differences(&of.rules, &of.overhead);
        let half_named = |of: &DenyRounds| differences(&of.named, &of.overhead);
        results.push(
            Taken::new(
                name,
                Rounds::of(quotients(&taken.program_times(), &few.program_times())),
            )
            .with("prefixes", many.count)
            .with_median("program_ns", taken.program_times())
            .with_median("program_ns_of_10", few.program_times())
            .with_median("whole_run_ratio", quotients(&taken.list, &few.list))
            .with_median("overhead_ns", taken.overhead.iter().copied())
            .with_median("hot_run_ns", taken.hot.iter().copied())
            .with_median("hot_run_ratio", quotients(&taken.hot, &few.hot))
            .with_median("half_named_program_ns", half_named(taken))
            .with_median(
                "half_named_ratio",
                quotients(&half_named(taken), &half_named(few)),
            )
            .with_median("by_rules_program_ns", by_rules(taken))
            .with_median(
                "by_rules_ratio",
                quotients(&by_rules(taken), &by_rules(few)),
            ),
        );
    }
    Ok(results)
}

/// Plain SYNs from random sources to random interfaces, each with a policy of its own: over those to
/// one, and over the loads that no judgement can do without. There are four: the interface's entry
/// tells its set of groups, that tells its table of prefixes, and then there is the counter.
pub(crate) fn deny_over_one_policy(names: &[&'static str], effort: Effort) -> Result<Vec<Taken>> {
    const LOADS: u32 = 4;
    let count = effort.choose(10_000, 1_000);
    let limits = Limits {
        interfaces: 1 << 14,
        ..Limits::default()
    };
    let pins = Pins::mount()?;
    let one = pins.stage("one", &policies::many_policies(1)?, FEW_FLOWS, limits)?;
    let many = pins.stage("many", &policies::many_policies(count)?, FEW_FLOWS, limits)?;
    let mut staged = [
        (1, one, DenyRounds::default()),
        (count, many, DenyRounds::default()),
    ];
    let frame = syn()?;
    let times = effort.choose(300_000, 50_000);
    let [(_, one, _), (_, many, _)] = &staged;
    let bytes = many.memory()?.saturating_sub(one.memory()?);
    let mut loads = Loads::within(bytes, LOADS)?;
    effort.rounds(11, || {
        loads.round(unnamed_sources(), &frame, times)?;
        for (interfaces, staged, taken) in &mut staged {
            staged.scatter(Scatter {
                interfaces: *interfaces,
                ..unnamed_sources()
            })?;
            taken
                .overhead
                .push(run(staged, Yardstick::ScatteredDropXdp, &frame, times)?);
            taken
                .list
                .push(deny(staged, Yardstick::ScatteredXdp, &frame, times)?);
            taken
                .hot
                .push(deny(staged, Yardstick::ReceiveXdp, &frame, times)?);
        }
        Ok(())
    })?;
    let [(_, _, one), (_, _, many)] = &staged;
    Ok(names
        .iter()
        .map(|name| {
            let ratio = match *name {
                "deny_10kpolicies_over_1" => quotients(&many.program_times(), &one.program_times()),
                _ => quotients(&many.program_times(), &loads.taken),
            };
            Taken::new(name, Rounds::of(ratio))
                .with("policies", count)
                .with("loads", LOADS)
                .with("loads_within_bytes", bytes)
                .with_median("loads_ns", loads.taken.iter().copied())
                .with_median("program_ns", many.program_times())
                .with_median("program_ns_of_1", one.program_times())
                .with_median("whole_run_ratio", quotients(&many.list, &one.list))
                .with_median("hot_run_ratio", quotients(&many.hot, &one.hot))
        })
        .collect())
}

/// Packets of random flows among a million, over nothing but the parsing of their headers, and over
/// one load from as much memory as the flow table has.
pub(crate) fn tracked_over_yardsticks(
    names: &[&'static str],
    effort: Effort,
) -> Result<Vec<Taken>> {
    let flows: u32 = effort.choose(1 << 20, 1 << 14);
    let pins = Pins::mount()?;
    // Twice the room, as an operator would leave it.
    let mut staged = pins.stage("flows", policies::TRACKED, flows * 2, Limits::default())?;
    let to_host = frame(&format!(
        "tcp {STRANGER}:40000 > {HOST}:443 ack seq 7 ackno 7 window 1000"
    ))?;
    let from_host = frame(&format!(
        "tcp {HOST}:443 > {STRANGER}:40000 ack seq 7 ackno 7 window 1000"
    ))?;
    let every_flow = Scatter {
        base: PREFIXES_BASE,
        mask: flows - 1,
        ..Scatter::still(Rehearsal::IFINDEX)
    };
    open_flows(&mut staged, every_flow, flows, &to_host, &from_host)?;

    let times = effort.choose(1 << 20, 1 << 14);
    let contestants = [
        Yardstick::DropXdp,
        Yardstick::ParseXdp,
        Yardstick::ScatteredDropXdp,
        Yardstick::ScatteredParseXdp,
        Yardstick::ScatteredXdp,
    ];
    let mut taken = contestants.map(|_| Vec::new());
    let mut hot = Vec::new();
    let bytes = u64::from(flows * 2) * RandomLoads::LINE;
    let mut load = Loads::within(bytes, 1)?;
    effort.rounds(11, || {
        load.round(every_flow, &to_host, times)?;
        for (yardstick, taken) in contestants.iter().zip(&mut taken) {
            staged.scatter(every_flow)?;
            taken.push(match yardstick {
                Yardstick::ScatteredXdp => {
                    judge(&mut staged, *yardstick, Reason::Tracked, &to_host, times)?
                }
                _ => run(&mut staged, *yardstick, &to_host, times)?,
            });
        }
        staged.scatter(Scatter {
            mask: 1,
            ..every_flow
        })?;
        hot.push(judge(
            &mut staged,
            Yardstick::ScatteredXdp,
            Reason::Tracked,
            &to_host,
            times,
        )?);
        Ok(())
    })?;
    let [empty, parse, overhead, scattered_parse, tracked] = taken;
    let writing: Vec<f64> = overhead
        .iter()
        .zip(&empty)
        .map(|(overhead, empty)| overhead - empty)
        .collect();
    Ok(names
        .iter()
        .map(|name| {
            let ratio = match *name {
                "tracked_1m_over_parse" => quotients(
                    &differences(&tracked, &writing),
                    &differences(&scattered_parse, &writing),
                ),
                _ => quotients(&differences(&tracked, &overhead), &load.taken),
            };
            Taken::new(name, Rounds::of(ratio))
                .with("flows", flows)
                .with_median("load_ns", load.taken.iter().copied())
                .with_median("parse_ns", parse.iter().copied())
                .with_median("tracked_ns", differences(&tracked, &writing))
                .with_median("tracked_program_ns", differences(&tracked, &overhead))
                .with_median("two_flows_program_ns", differences(&hot, &overhead))
                .with_median(
                    "two_flows_ratio",
                    quotients(&differences(&hot, &writing), &parse),
                )
        })
        .collect())
}

/// Opens a flow for each address of the period: a packet from each peer and one back make it
/// assured, before the next peers' embryonic flows could take its place.
fn open_flows(
    staged: &mut Rehearsal,
    every_flow: Scatter,
    flows: u32,
    to_host: &[u8],
    from_host: &[u8],
) -> Result<()> {
    const AT_ONCE: u32 = 1 << 10;
    let mut scatter = every_flow;
    for _ in 0..flows / AT_ONCE {
        staged.scatter(scatter)?;
        staged.run(Yardstick::ScatteredXdp, to_host, AT_ONCE)?;
        staged.scatter(scatter)?;
        staged.run(Yardstick::ScatteredTc, from_host, AT_ONCE)?;
        for _ in 0..AT_ONCE {
            scatter.next();
        }
    }
    Ok(())
}
