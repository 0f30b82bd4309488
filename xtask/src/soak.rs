//! `cargo xtask soak`: builds what lets everything happen at once, and runs it.

use anyhow::Result;

use crate::{setup, workspace};

/// How long, and how to tell.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long everything happens at once
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Repeats the choices of a run that printed this number; what the machine makes of them differs
    #[arg(long)]
    seed: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Sets up, builds for release, and lets it run.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::for_live_traffic()?;
    setup::for_building()?;
    // Each by itself: what measures turns on features of sg-ctl that the program must not have.
    for package in [
        ["--package=sg-ctl", "--bin=sg-ctl"].as_slice(),
        &["--package=xtask", "--features=xtask/bench", "--bin=sg-soak"],
    ] {
        let build = ["build", "--quiet", "--locked", "--release"];
        workspace::run(workspace::command("cargo").args(build).args(package))?;
    }
    let release = workspace::target().join("release");
    let mut soak = workspace::command(&release.join("sg-soak").to_string_lossy());
    soak.env("SG_CTL", release.join("sg-ctl"))
        .arg(format!("--minutes={}", arguments.minutes));
    if let Some(seed) = arguments.seed {
        soak.arg(format!("--seed={seed}"));
    }
    if arguments.json {
        soak.arg("--json");
    }
    workspace::run(&mut soak)
}
