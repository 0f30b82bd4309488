//! `cargo xtask fuzz`: looks for bytes that break a property, guided by what they reach.
//!
//! What it builds is the package `tests/fuzz`, with libFuzzer linked in and the compiler's own
//! coverage, which a stable toolchain has. No sanitizer is asked for: what is fuzzed is safe Rust,
//! whose mistakes are panics, and arithmetic that overflows is one here. What was found to reach far
//! is kept in `target/fuzz/TARGET/corpus` from run to run, and what breaks something in `broken`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::{setup, workspace};

/// What is fuzzed, and for how long.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to fuzz; everything unless one is named
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// How long each target takes
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

const TARGETS: [&str; 3] = ["parse", "decide", "policy_file"];

/// Marks each edge of the program, and what is compared with what, for libFuzzer to see.
const COVERAGE: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // An edge is to be one edge, whoever inlines it.
    "-Ccodegen-units=1",
    // What crates know a fuzzer by.
    "--cfg fuzzing",
];

/// What runs for each input, and is worth optimising. Everything else is built as for tests.
const OPTIMISED: [(&str, u8); 7] = [
    ("sg-common", 2),
    ("sg-ctl", 1),
    ("tests", 2),
    ("fuzz", 2),
    ("hashbrown", 2),
    ("saphyr-parser", 2),
    ("libfuzzer-sys", 2),
];

/// The longest input: a story of a dozen frames, and a policy file of two pages.
const LONGEST: u32 = 4096;

/// Builds the targets and runs them one after the other; the first that breaks ends it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::for_building()?;
    let programs = build()?;
    let wanted = TARGETS.iter().filter(|name| {
        arguments
            .target
            .as_deref()
            .is_none_or(|only| only == **name)
    });
    for name in wanted {
        fuzz(name, &programs, arguments.seconds)?;
    }
    Ok(())
}

/// Returns the folder of the programs. A target that is named, even if it is the machine's own,
/// keeps the flags from build scripts and macros, which would not link with them.
fn build() -> Result<PathBuf> {
    let version = workspace::output(workspace::command("rustc").arg("-vV"))?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc does not say what it compiles for")?;
    let mut cargo = workspace::command("cargo");
    cargo
        .args(["build", "--quiet", "--locked", "--package=fuzz", "--bins"])
        .args(["--target", host])
        .env("RUSTFLAGS", COVERAGE.join(" "));
    for (package, level) in OPTIMISED {
        cargo.arg(format!(
            "--config=profile.dev.package.{package}.opt-level={level}"
        ));
    }
    println!("── building with coverage");
    workspace::run(&mut cargo)?;
    Ok(workspace::target().join(host).join("debug"))
}

fn fuzz(name: &str, programs: &Path, seconds: u32) -> Result<()> {
    println!("── {name}, for {seconds} s");
    let home = workspace::target().join("fuzz").join(name);
    let [corpus, seeds, broken] = ["corpus", "seeds", "broken"].map(|folder| home.join(folder));
    for folder in [&corpus, &seeds, &broken] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut fuzzer = workspace::command(&programs.join(format!("fuzz_{name}")).to_string_lossy());
    fuzzer
        .env("SG_FUZZ_SEEDS", &seeds)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        // One input that takes so long is a finding as well.
        .arg("-timeout=10")
        .arg("-print_final_stats=1")
        .arg(format!("-artifact_prefix={}/", broken.display()))
        .args([&corpus, &seeds]);
    let status = fuzzer
        .status()
        .with_context(|| format!("cannot run {}", workspace::shown(&fuzzer)))?;
    ensure!(
        status.success(),
        "{name} is broken ({status}): the input is in {}; make it a case of the corpus, or of \
         tests/tests/packets/any_bytes_are_survived.rs, and mend what it breaks",
        broken.display()
    );
    Ok(())
}
