//! The programs that run on a booted kernel: sg-ctl for release, the tests, the demo and the budget.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::steps::{self, Step};
use crate::arch::Arch;
use crate::build;

/// Builds for an architecture what the steps call; returns programs with their names.
pub(super) fn build(
    arch: Arch,
    sg_ctl: Option<PathBuf>,
    steps: &[&Step],
) -> Result<Vec<(String, PathBuf)>> {
    let mut programs = vec![("sg-ctl".to_owned(), self::sg_ctl(arch, sg_ctl)?)];
    let called = |program: &str| steps.iter().any(|step| step.script.contains(program));
    if called("/xtask ") {
        if arch == Arch::native() {
            // Building the program that runs would only replace it by itself.
            let own = std::env::current_exe().context("the path of this program")?;
            programs.push(("xtask".to_owned(), own));
        } else {
            programs.extend(build::programs(
                arch,
                &["build", "--package=xtask", "--bin=xtask"],
            )?);
        }
    }
    if called("/sg-budget") {
        programs.extend(build::programs(
            arch,
            &[
                "build",
                "--package=xtask",
                "--features=xtask/bench",
                "--bin=sg-budget",
            ],
        )?);
    }
    let groups = steps::groups(steps);
    if !groups.is_empty() {
        let names: Vec<String> = groups
            .iter()
            .map(|group| format!("--test={group}"))
            .collect();
        let mut arguments = vec!["test", "--no-run"];
        arguments.extend(names.iter().map(String::as_str));
        programs.extend(build::programs(arch, &arguments)?);
    }
    Ok(programs)
}

/// The program that is given, or the one that it builds for release.
pub(super) fn sg_ctl(arch: Arch, given: Option<PathBuf>) -> Result<PathBuf> {
    match given {
        Some(program) => Ok(program),
        None => build::release(arch),
    }
}
