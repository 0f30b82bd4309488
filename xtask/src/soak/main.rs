//! Lets everything happen at once for a while, and counts what may not happen.
//!
//! `cargo xtask soak` builds and runs this. One machine is protected. Meanwhile connections and datagrams
//! that a rule allows, and others that none allows, come in from its neighbour; rules come and go; devices and
//! addresses come and go; the daemon is killed and started again; another build of sg-ctl takes over and
//! gives back; and everything is read all the time. At the end everything that came and went is gone, and what is
//! left of it is compared with what there was after the same things had happened once.
//!
//! Exit codes are those of `sg-ctl`: 0 when everything held, 1 when not, 2 a failure.

mod actors;
mod probes;
mod resources;
mod tally;

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use serde_json::json;
use tests::lab::Lab;
use tests::sg::{Sg, sg_ctl};
use tests::sockets::{TcpEcho, UdpEcho};

use actors::Stage;
use resources::Resources;
use tally::Tally;

/// Lets everything happen at once, and counts what may not happen.
#[derive(Parser)]
#[command(name = "cargo xtask soak", bin_name = "cargo xtask soak")]
struct Arguments {
    /// How long everything happens at once
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Repeats the choices of a run that printed this number
    #[arg(long)]
    seed: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("soak: {} minutes, seed {seed}", arguments.minutes);
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(actors::POLICIES[0])?;
    let another = sg.another_build()?;
    let stage = Stage {
        pair: &pair,
        sg: &sg,
        builds: [sg_ctl()?.to_owned(), another],
        tally: Tally::new(),
    };
    let _allowed = [
        TcpEcho::listen(&pair.host, ":22")?,
        TcpEcho::listen(&pair.host, ":23")?,
    ];
    let _datagrams = UdpEcho::listen(&pair.host, ":53")?;
    let denied = UdpEcho::listen(&pair.host, ":54")?;

    // What is made once and kept is no leak.
    stage.everything_once()?;
    let before = Resources::of(&sg)?;
    let begin = Instant::now();
    thread::scope(|scope| {
        for (number, (name, act)) in actors::ALL.iter().enumerate() {
            let (stage, random) = (&stage, fastrand::Rng::with_seed(seed ^ number as u64));
            scope.spawn(move || stage.tally.watch(name, || act(stage, random)));
        }
        let last = Duration::from_secs(arguments.minutes * 60);
        while begin.elapsed() < last && !stage.tally.has_failed.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(200));
        }
        stage.tally.is_over.store(true, Ordering::Relaxed);
    });
    let lasted = begin.elapsed();
    stage.settle().context("after everything")?;
    let after = Resources::of(&sg)?;
    let arrived = denied.received().len();
    if arrived > 0 {
        stage.tally.complain(
            "probes",
            format!("{arrived} datagrams came in that no rule allows"),
        );
    }
    for leak in after.beyond(&before) {
        stage.tally.complain("resources", leak);
    }
    let complaints = stage.tally.complaints();
    if arguments.json {
        let told = json!({
            "seconds": lasted.as_secs_f64().round(),
            "seed": seed,
            "counts": stage.tally.to_json(),
            "before": before.to_json(),
            "after": after.to_json(),
            "complaints": complaints,
        });
        println!("{told:#}");
    } else {
        println!("{:.0} s, seed {seed}", lasted.as_secs_f64());
        print!("{}", stage.tally);
        print!("{}", resources::side_by_side(&before, &after));
        for complaint in &complaints {
            println!("not right: {complaint}");
        }
    }
    Ok(complaints.is_empty())
}
