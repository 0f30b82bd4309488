//! The test programs: which there are, which of their promises `--quick` runs, and which need the
//! machine for themselves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::workspace;

/// What `--quick` runs besides unit tests: promises of each area, and no long ones.
const QUICK: [&str; 8] = [
    "flows/a_flow_opens_one_interface",
    "flows/flows_can_be_ended",
    "lifecycle/enforcement_needs_no_process",
    "packets/groups_protect_a_machine",
    "packets/packets_are_judged_right",
    "policy/attach_keeps_what_is_not_said",
    "policy/bad_input_changes_nothing",
    "updates/a_dry_run_tells_what_a_change_does",
];

/// They fill every CPU or much memory, or install packages: another program beside them would be cut
/// short, or they by it.
const ALONE: [&str; 4] = [
    "flows/flows_stay_whole_in_parallel_traffic",
    "policy/large_policies_fit",
    "lifecycle/the_image_runs_alone",
    "lifecycle/the_package_leaves_nothing",
];

/// Promises about what commands do, which hold with a daemon that makes them too: what is changed and
/// what is refused, what is then in force for packets, and what reading commands say of it. Promises about
/// what packets get, about boot, upgrades and killed commands have nothing to do with who makes a change, or
/// start a daemon where it matters; what differs on purpose is mended by a daemon at once.
const BOTH_WAYS: [&str; 7] = [
    "flows/flows_can_be_ended",
    "operate/json_has_its_schema",
    "packets/groups_protect_a_machine",
    "policy/attach_keeps_what_is_not_said",
    "policy/bad_input_changes_nothing",
    "updates/changes_apply_live",
    "updates/edits_cost_what_they_change",
];

/// What has each instance of a test run with a daemon.
const WITH_DAEMON: &str = "SG_TEST_DAEMON";

/// A program that cargo has built from tests, or one promise of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// The name of the crate, or of the group and its promise.
    pub(super) name: String,
    path: PathBuf,
    /// The package's folder, where cargo runs it.
    folder: PathBuf,
    /// The module that is run, if not all of them are.
    promise: Option<String>,
    with_daemon: bool,
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
            .arg("--show-output")
            .args(self.promise.iter().map(|promise| format!("{promise}::")));
        if self.with_daemon {
            command.env(WITH_DAEMON, "1");
        }
        command
    }

    /// The same with a daemon, for a promise that holds with it too.
    fn with_daemon(&self) -> Option<Self> {
        let holds = BOTH_WAYS.contains(&self.name.as_str());
        holds.then(|| Self {
            name: format!("{} with the daemon", self.name),
            with_daemon: true,
            ..self.clone()
        })
    }

    /// A group of promises is run promise by promise, so that none waits for a long one of its group.
    /// Other programs are left whole.
    fn promises(self) -> Result<Vec<Self>> {
        if !self.folder.join("tests").join(&self.name).is_dir() {
            return Ok(vec![self]);
        }
        let mut list = workspace::command(&self.path.to_string_lossy());
        let list = workspace::output(list.args(["--list", "--format=terse"]))?;
        let promises = promises(&list).into_iter().map(|promise| Self {
            name: format!("{}/{promise}", self.name),
            promise: Some(promise.to_owned()),
            ..self.clone()
        });
        Ok(promises.collect())
    }
}

/// The modules in a test program's list of its tests.
fn promises(list: &str) -> BTreeSet<&str> {
    let modules = list.lines().filter_map(|line| line.split_once("::"));
    modules.map(|(module, _)| module).collect()
}

/// What cargo has built.
pub(super) struct Built {
    pub(super) programs: Vec<Program>,
    /// How many promises were left out.
    pub(super) left_out: usize,
    /// `sg-ctl` as packages hold it.
    pub(super) sg_ctl: PathBuf,
}

/// Builds the programs that are run.
pub(super) fn build(is_quick: bool) -> Result<Built> {
    let built = programs(&messages(&["test", "--no-run"])?);
    ensure!(!built.is_empty(), "cargo has built no tests");
    let mut programs = Vec::new();
    for program in built {
        programs.extend(program.promises()?);
    }
    let all = programs.len();
    if is_quick {
        programs
            .retain(|program| program.promise.is_none() || QUICK.contains(&program.name.as_str()));
    }
    let left_out = all - programs.len();
    let both_ways: Vec<_> = programs.iter().filter_map(Program::with_daemon).collect();
    programs.extend(both_ways);
    let built = messages(&["build", "--package=sg-ctl", "--bin=sg-ctl"])?;
    let mut built = built.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    Ok(Built {
        left_out,
        programs,
        sg_ctl: built.next().context("cargo has built no sg-ctl")?,
    })
}

fn messages(arguments: &[&str]) -> Result<String> {
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
            promise: None,
            with_daemon: false,
        })
    });
    programs.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_promise_that_is_named_is_there() {
        let folder = workspace::root().join("tests/tests");
        for name in QUICK.iter().chain(&ALONE).chain(&BOTH_WAYS) {
            assert!(folder.join(format!("{name}.rs")).is_file(), "{name}");
        }
    }

    /// Cargo says nothing of a file that no group mentions. Folders hold what promises need.
    #[test]
    fn every_file_is_a_promise_of_its_group() -> Result<()> {
        for group in workspace::root().join("tests/tests").read_dir()? {
            let group = group?.path();
            let main = fs::read_to_string(group.join("main.rs"))?;
            for file in group.read_dir()? {
                let file = file?.path();
                if file.is_dir() {
                    continue;
                }
                let promise = file.file_stem().context("a file has a name")?;
                let module = format!("\nmod {};\n", promise.to_string_lossy());
                let is_main = promise == "main";
                assert!(is_main || main.contains(&module), "{}", file.display());
            }
        }
        Ok(())
    }

    #[test]
    fn a_group_has_the_promises_that_its_tests_are_in() {
        let list = "one::a: test\ntwo::inner::b: test\none::c: test\n";
        assert_eq!(
            promises(list).into_iter().collect::<Vec<_>>(),
            ["one", "two"]
        );
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
            promise: None,
            with_daemon: false,
        };
        assert_eq!(programs(messages), [expected]);
    }
}
