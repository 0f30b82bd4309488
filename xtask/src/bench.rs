//! `cargo xtask bench`: builds what measures and runs it.
//!
//! The measuring is a program of its own, in the folder beside: it is built with the kernel's half
//! inside, which takes what `cargo xtask setup` puts in place first.

use anyhow::Result;

use crate::{setup, workspace};

/// What to measure, and how to tell.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Measures by name; all unless some are named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Few rounds and small tables, to see in a minute that everything works; the numbers mean little
    #[arg(long)]
    quick: bool,
}

/// Sets up, builds for release, measures.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::for_live_traffic()?;
    setup::for_building()?;
    setup::for_measuring();
    workspace::run(workspace::command("cargo").args([
        "build",
        "--quiet",
        "--locked",
        "--release",
        "--package=sg-ctl",
        "--package=xtask",
        "--features=xtask/bench",
    ]))?;
    let release = workspace::target().join("release");
    let mut measure = workspace::command(&release.join("sg-bench").to_string_lossy());
    measure
        .env("SG_CTL", release.join("sg-ctl"))
        .args(&arguments.names);
    for (option, given) in [("--json", arguments.json), ("--quick", arguments.quick)] {
        if given {
            measure.arg(option);
        }
    }
    workspace::run(&mut measure)
}
