//! The test programs: which there are, which of them `--quick` runs, and which need the machine for
//! themselves.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::workspace;

/// What `--quick` runs besides unit tests: a promise of each area.
const QUICK: [&str; 8] = [
    "a_dry_run_tells_what_a_change_does",
    "a_flow_opens_one_interface",
    "attach_keeps_what_is_not_said",
    "bad_input_changes_nothing",
    "enforcement_needs_no_process",
    "flows_can_be_ended",
    "groups_protect_a_machine",
    "packets_are_judged_right",
];

/// They fill every CPU or much memory, or install packages: another program beside them would be cut
/// short, or they by it.
const ALONE: [&str; 4] = [
    "flows_stay_whole_in_parallel_traffic",
    "large_policies_fit",
    "the_image_runs_alone",
    "the_package_leaves_nothing",
];

/// A program that cargo has built from tests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// The name of the crate or of the file.
    pub(super) name: String,
    path: PathBuf,
    /// The package's folder, where cargo runs it.
    folder: PathBuf,
}

impl Program {
    /// Whether no other program may run meanwhile.
    pub(super) fn runs_alone(&self) -> bool {
        ALONE.contains(&self.name.as_str())
    }

    /// What runs it.
    pub(super) fn command(&self, sg_ctl: &Path) -> Command {
        let mut command = workspace::command(&self.path.to_string_lossy());
        command
            .current_dir(&self.folder)
            .env("SG_CTL", sg_ctl)
            .env("CARGO_MANIFEST_DIR", &self.folder)
            .arg("--show-output");
        command
    }
}

/// Builds the programs, and `sg-ctl` as packages hold it.
pub(super) fn build(is_quick: bool) -> Result<(Vec<Program>, PathBuf)> {
    let mut arguments = vec!["test".to_owned(), "--no-run".to_owned()];
    if is_quick {
        arguments.extend(["--lib".to_owned(), "--bins".to_owned()]);
        arguments.extend(QUICK.map(|name| format!("--test={name}")));
    }
    let programs = programs(&messages(&arguments)?);
    ensure!(!programs.is_empty(), "cargo has built no tests");
    let build = ["build", "--package=sg-ctl", "--bin=sg-ctl"].map(str::to_owned);
    let built = messages(&build)?;
    let mut built = built.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    Ok((programs, built.next().context("cargo has built no sg-ctl")?))
}

fn messages(arguments: &[String]) -> Result<String> {
    let mut cargo = workspace::command("cargo");
    cargo
        .args(arguments)
        .args(["--locked", "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit());
    workspace::output(&mut cargo)
}

/// The tests in what cargo says, a JSON object a line.
fn programs(messages: &str) -> Vec<Program> {
    let messages = messages.lines();
    let messages = messages.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let programs = messages.filter_map(|message| {
        message["profile"]["test"].as_bool().filter(|is| *is)?;
        let manifest = Path::new(message["manifest_path"].as_str()?);
        Some(Program {
            name: message["target"]["name"].as_str()?.to_owned(),
            path: message["executable"].as_str()?.into(),
            folder: manifest.parent()?.to_owned(),
        })
    });
    programs.collect()
}

/// How many promises there are that `--quick` leaves out.
pub(super) fn left_out() -> Result<usize> {
    let folder = workspace::root().join("tests/tests");
    let entries = folder.read_dir().context("listing tests/tests")?;
    Ok(entries.count().saturating_sub(QUICK.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_that_is_named_is_there() {
        let folder = workspace::root().join("tests/tests");
        for name in QUICK.iter().chain(&ALONE) {
            let is_there = folder.join(format!("{name}.rs")).exists() || folder.join(name).exists();
            assert!(is_there, "{name}");
        }
    }

    #[test]
    fn tests_are_told_from_programs_that_they_run() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/there/tests/Cargo.toml","target":{"name":"sg-ctl-crashing"},"profile":{"test":false},"executable":"/there/sg-ctl-crashing"}
{"reason":"compiler-artifact","manifest_path":"/there/tests/Cargo.toml","target":{"name":"flows"},"profile":{"test":true},"executable":"/there/deps/flows-1"}
{"reason":"build-finished","success":true}"#;
        let expected = Program {
            name: "flows".to_owned(),
            path: "/there/deps/flows-1".into(),
            folder: "/there/tests".into(),
        };
        assert_eq!(programs(messages), [expected]);
    }
}
