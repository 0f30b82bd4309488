//! `cargo xtask bench`: builds what measures and runs it.
//!
//! The measuring is a program of its own, in the folder beside: it is built with the kernel's half
//! inside, which takes what `cargo xtask setup` puts in place first.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context as _, Result};

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
    /// Compare with the build of this commit, which takes some minutes to build the first time
    #[arg(long, value_name = "REVISION")]
    against: Option<String>,
    /// Few rounds and small tables, to see in a minute that everything works; the numbers mean little
    #[arg(long)]
    quick: bool,
    /// Print what each way through the programs takes, counted instruction by instruction
    #[arg(long, conflicts_with_all = ["names", "quick", "against"])]
    explain: bool,
}

/// Sets up, builds for release, measures.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::for_live_traffic()?;
    setup::for_building()?;
    setup::for_measuring();
    // Each by itself: what measures turns on features of sg-ctl that the measured program must not have.
    for package in [
        ["--package=sg-ctl", "--bin=sg-ctl"].as_slice(),
        &["--package=xtask", "--features=xtask/bench"],
    ] {
        let build = ["build", "--quiet", "--locked", "--release"];
        workspace::run(workspace::command("cargo").args(build).args(package))?;
    }
    let release = workspace::target().join("release");
    let mut measure = workspace::command(&release.join("sg-bench").to_string_lossy());
    measure
        .env("SG_CTL", release.join("sg-ctl"))
        .args(&arguments.names);
    if let Some(revision) = &arguments.against {
        measure.env("SG_CTL_BEFORE", build_of(revision)?);
    }
    for (option, given) in [
        ("--json", arguments.json),
        ("--quick", arguments.quick),
        ("--explain", arguments.explain),
    ] {
        if given {
            measure.arg(option);
        }
    }
    workspace::run(&mut measure)
}

/// Builds `sg-ctl` of an earlier commit, and returns where it is. The folder is not below this project's:
/// cargo would take the project's settings for the other's.
fn build_of(revision: &str) -> Result<PathBuf> {
    let wanted = format!("{revision}^{{commit}}");
    let commit = workspace::output(workspace::command("git").args([
        "rev-parse",
        "--verify",
        "--quiet",
        "--end-of-options",
        &wanted,
    ]))
    .with_context(|| format!("{revision} is no commit of this repository"))?;
    let folder = env::temp_dir().join("sg-against").join(&commit);
    let sources = folder.join("sources");
    if !sources.exists() {
        fs::create_dir_all(&folder)?;
        let clone = ["clone", "--quiet", "--shared", "--no-checkout", "."];
        workspace::run(workspace::command("git").args(clone).arg(&sources))?;
        let checkout = ["checkout", "--quiet", "--detach", &commit];
        workspace::run(
            workspace::command("git")
                .current_dir(&sources)
                .args(checkout),
        )?;
    }
    let build = [
        "build",
        "--quiet",
        "--locked",
        "--release",
        "--package=sg-ctl",
    ];
    workspace::run(
        workspace::command("cargo")
            .current_dir(&sources)
            .env("CARGO_TARGET_DIR", &folder)
            .args(build),
    )?;
    Ok(folder.join("release/sg-ctl"))
}
