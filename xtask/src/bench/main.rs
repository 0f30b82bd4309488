//! Measures sg: beside nothing, beside the least a program can do, and beside nftables.
//!
//! `cargo xtask bench` builds and runs this. Contestants alternate within each round, so that what
//! else the machine does meets all of them; a value is the median of the rounds' ratios. Whoever
//! is not there is reported as missing. What is built for a measurement lives in namespaces and
//! temporary folders of its own, and goes with it.

mod before;
mod follows;
mod judgement;
mod measure;
mod memory;
mod nftables;
mod packet_rates;
mod policies;
mod report;
mod streams;
mod updates;
mod walks;
mod wire;

use std::process::{self, Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use measure::{MEASURES, Taken};
use report::Machine;

/// Measures what fast means, beside nftables and beside nothing.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Arguments {
    /// Measures by name; all unless some are named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Few rounds and small tables, to see in a minute that everything works; the numbers mean little
    #[arg(long)]
    quick: bool,
    /// Print what each way through the programs takes: instructions, calls, loads, cache lines
    #[arg(long, conflicts_with_all = ["names", "quick"])]
    explain: bool,
}

/// How long and how large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// To see that it works, not what it says.
    pub(crate) quick: bool,
}

/// Set by Ctrl-C: what was built is cleared away before the program ends.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

impl Effort {
    /// One or the other.
    pub(crate) fn choose<T>(self, whole: T, quick: T) -> T {
        if self.quick { quick } else { whole }
    }

    /// Takes this many rounds, or three quick ones, of what `round` does.
    pub(crate) fn rounds(self, whole: usize, mut round: impl FnMut() -> Result<()>) -> Result<()> {
        for _ in 0..self.choose(whole, 3) {
            go_on()?;
            round()?;
        }
        Ok(())
    }

    /// How long traffic flows for one figure.
    pub(crate) fn span(self) -> Duration {
        self.choose(Duration::from_millis(400), Duration::from_millis(60))
    }
}

/// Gives a thread, and what it starts, a real-time priority: a nice value counts only among the
/// tasks of one session (sched(7), autogroups).
pub(crate) fn put_first(thread: i32) -> Result<()> {
    let status = Command::new("chrt")
        .args(["--rr", "--pid", "1", &thread.to_string()])
        .status()
        .context("cannot run chrt")?;
    ensure!(status.success(), "chrt: {status}");
    Ok(())
}

/// Keeps a thread to one CPU; 0 is the calling one.
pub(crate) fn keep_to(thread: i32, cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(thread), &cpus)
        .with_context(|| format!("keeping thread {thread} to CPU {cpu}"))
}

/// The CPU of whoever receives; senders have the first.
pub(crate) fn last_cpu() -> Result<usize> {
    let cpus = std::thread::available_parallelism()?.get();
    ensure!(
        cpus > 1,
        "a sender and a receiver take two CPUs, and there is one"
    );
    Ok(cpus - 1)
}

fn go_on() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

/// Measures that are taken together.
struct Theme {
    names: &'static [&'static str],
    take: fn(&[&'static str], Effort) -> Result<Vec<Taken>>,
}

const THEMES: &[Theme] = &[
    Theme {
        names: &["deny_over_empty"],
        take: judgement::deny_over_empty,
    },
    Theme {
        names: &["deny_1m_over_10", "deny_100k_over_10"],
        take: judgement::deny_over_fewer_prefixes,
    },
    Theme {
        names: &["deny_10kpolicies_over_1", "deny_10kpolicies_over_loads"],
        take: judgement::deny_over_one_policy,
    },
    Theme {
        names: &["tracked_1m_over_parse", "tracked_1m_over_load"],
        take: judgement::tracked_over_yardsticks,
    },
    Theme {
        names: &[
            "drop_xdp_over_nft_10k",
            "drop_xdp_over_nft_100k",
            "drop_tc_over_nft_10k",
            "drop_tc_over_nft_100k",
            "drop_xdp_over_bound_100k",
            "drop_tc_over_bound_100k",
            "drop_xdp_over_parse_100k",
        ],
        take: packet_rates::drops,
    },
    Theme {
        names: &["small_udp_over_none", "small_udp_over_nft"],
        take: packet_rates::small_udp,
    },
    Theme {
        names: &[
            "tcp_over_none",
            "tcp_over_nft",
            "rr_over_none",
            "crr_over_nft",
        ],
        take: streams::streams,
    },
    Theme {
        names: &["update_100k_over_100", "update_ms_100k"],
        take: updates::one_edit,
    },
    Theme {
        names: &["edit_100k_over_100", "edit_100k_ms"],
        take: updates::one_stored_edit,
    },
    Theme {
        names: &["rule_add_ms_1k", "rule_add_ms_100k"],
        take: updates::one_rule,
    },
    Theme {
        names: &["apply_1m_s", "apply_1m_mb", "stats_1m_s", "stats_1m_mb"],
        take: updates::whole_policy,
    },
    Theme {
        names: &["compile_1m_s"],
        take: updates::compiling,
    },
    Theme {
        names: &["attach_300_s"],
        take: updates::many_interfaces,
    },
    Theme {
        names: &["device_protected_ms", "address_enforced_ms"],
        take: follows::follows,
    },
    Theme {
        names: &["bytes_per_flow", "bytes_per_prefix", "bytes_per_interface"],
        take: memory::bytes,
    },
    Theme {
        names: &["open_flood_over_none"],
        take: packet_rates::open_flood,
    },
    Theme {
        names: &[
            "established_tc_over_before",
            "established_xdp_over_before",
            "sent_over_before",
            "refused_syn_over_before",
        ],
        take: before::packets,
    },
    Theme {
        names: &["open_flow_over_before"],
        take: before::opened_flows,
    },
    Theme {
        names: &["first_apply_over_before"],
        take: before::first_apply,
    },
];

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if arguments.explain {
        return walks::explain(arguments.json);
    }
    let wanted = chosen(&arguments.names)?;
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))
        .context("cannot catch Ctrl-C")?;
    let effort = Effort {
        quick: arguments.quick,
    };
    // Whatever else the machine does then disturbs less.
    put_first(process::id() as i32)?;
    let machine = Machine::look();
    let mut taken = Vec::new();
    for theme in THEMES {
        let names: Vec<&'static str> = theme
            .names
            .iter()
            .copied()
            .filter(|name| wanted.contains(name))
            .collect();
        if names.is_empty() {
            continue;
        }
        eprintln!("measuring {}", names.join(", "));
        let begin = Instant::now();
        match (theme.take)(&names, effort) {
            Ok(results) => taken.extend(results),
            Err(error) if INTERRUPTED.load(Ordering::Relaxed) => return Err(error),
            // One theme's failure costs its own measures.
            Err(error) => taken.extend(
                names
                    .iter()
                    .map(|name| Taken::missing(name, format!("{error:#}"))),
            ),
        }
        eprintln!("  took {:.1} s", begin.elapsed().as_secs_f32());
    }
    if arguments.json {
        println!("{:#}", report::json(&taken, &machine, arguments.quick));
    } else {
        print!("{}", report::table(&taken, &machine));
    }
    Ok(())
}

/// The measures of these names; all when there are none.
fn chosen(names: &[String]) -> Result<Vec<&'static str>> {
    let known = || MEASURES.iter().map(|measure| measure.name);
    if names.is_empty() {
        return Ok(known().collect());
    }
    let unknown: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| !known().any(|known| known == *name))
        .collect();
    if !unknown.is_empty() {
        bail!(
            "no measure is called {}; there are {}",
            unknown.join(", "),
            known().collect::<Vec<_>>().join(", ")
        );
    }
    Ok(known()
        .filter(|known| names.iter().any(|name| name == known))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measure_has_one_theme() {
        let mut themed: Vec<&str> = THEMES
            .iter()
            .flat_map(|theme| theme.names.iter().copied())
            .collect();
        let mut all: Vec<&str> = MEASURES.iter().map(|measure| measure.name).collect();
        themed.sort_unstable();
        all.sort_unstable();
        assert_eq!(themed, all);
    }

    #[test]
    fn a_mistyped_name_lists_the_right_ones() {
        let error = chosen(&["deny_over_emty".to_owned()])
            .map(drop)
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("deny_over_emty;"), "{text}");
        assert!(text.contains("deny_over_empty"), "{text}");
    }
}
