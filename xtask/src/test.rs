//! `cargo xtask test`: everything that must hold, with real interfaces and the real kernel.
//!
//! A test that can't prove its fact here prints a line that begins with `skipped` and says what
//! was not proven. Those lines are repeated at the end, where nobody can miss them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::{setup, workspace};

/// Runs `cargo test` with the arguments.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    setup::for_live_traffic()?;
    setup::for_packages()?;
    setup::for_building()?;

    let mut cargo = workspace::command("cargo");
    // sg-ebpf is no default member: it is compiled for the kernel, by sg-ctl's build script.
    cargo
        .args(["test", "--locked", "--no-fail-fast"])
        .args(with_shown_output(arguments));
    let (summary, passed) = stream(&mut cargo)?;

    println!("\nproven: {} tests passed", summary.passed);
    if summary.failed > 0 {
        println!("broken: {} tests failed", summary.failed);
    }
    if summary.skipped.is_empty() && summary.ignored == 0 {
        println!("skipped: none");
    }
    for line in &summary.skipped {
        println!("{line}");
    }
    if summary.ignored > 0 {
        println!("skipped: {} tests are marked as ignored", summary.ignored);
    }
    ensure!(passed, "the tests did not pass");
    Ok(())
}

/// Passing tests keep what they print to themselves, and skips with it, unless asked.
fn with_shown_output(arguments: &[String]) -> Vec<String> {
    let mut all = arguments.to_vec();
    if !all.iter().any(|argument| argument == "--") {
        all.push("--".to_owned());
    }
    all.push("--show-output".to_owned());
    all
}

/// What the closing lines of all test programs add up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    passed: u64,
    failed: u64,
    ignored: u64,
    skipped: Vec<String>,
    in_output_of_passed_tests: bool,
}

impl Summary {
    /// Reads one line and tells whether to show it: the output of passing tests is not shown.
    fn read(&mut self, line: &str) -> bool {
        if line.starts_with("skipped") {
            self.skipped.push(line.to_owned());
        }
        if line == "successes:" {
            self.in_output_of_passed_tests = true;
        } else if line == "failures:" {
            self.in_output_of_passed_tests = false;
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.in_output_of_passed_tests = false;
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
            self.ignored += count(counts, "ignored");
        }
        !self.in_output_of_passed_tests
    }
}

/// The number before a word of `ok. 3 passed; 0 failed; 1 ignored; …`.
fn count(counts: &str, word: &str) -> u64 {
    let words: Vec<&str> = counts
        .split([' ', ';', '.'])
        .filter(|word| !word.is_empty())
        .collect();
    words
        .windows(2)
        .find_map(|pair| {
            if pair[1] == word {
                pair[0].parse().ok()
            } else {
                None
            }
        })
        .unwrap_or(0)
}

fn stream(cargo: &mut Command) -> Result<(Summary, bool)> {
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", workspace::shown(cargo)))?;
    let mut summary = Summary::default();
    let out = child
        .stdout
        .take()
        .context("cargo has no standard output")?;
    for line in BufReader::new(out).split(b'\n') {
        let line = line.context("cannot read what cargo prints")?;
        let line = String::from_utf8_lossy(&line);
        if summary.read(&line) {
            writeln!(std::io::stdout(), "{line}").context("cannot print")?;
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    Ok((summary, status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Summary, Vec<&str>) {
        let mut summary = Summary::default();
        let shown = text.lines().filter(|line| summary.read(line)).collect();
        (summary, shown)
    }

    const RUN: &str = "\
running 2 tests
test a ... ok
test b ... ok

successes:

---- b stdout ----
skipped for want of a tap device; not proven: guests
noise

successes:
    a
    b

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";

    #[test]
    fn counts_add_up_over_test_programs() {
        let failed = "test result: FAILED. 5 passed; 1 failed; 2 ignored; 0 measured";
        let (summary, _) = read(&format!("{RUN}\n{failed}"));
        assert_eq!((summary.passed, summary.failed, summary.ignored), (7, 1, 2));
    }

    #[test]
    fn a_skip_of_a_passing_test_is_kept_and_its_noise_is_not_shown() {
        let (summary, shown) = read(RUN);
        assert_eq!(
            summary.skipped,
            ["skipped for want of a tap device; not proven: guests"]
        );
        assert!(!shown.contains(&"noise"), "{shown:#?}");
        assert!(shown.contains(&"test b ... ok"), "{shown:#?}");
        assert!(
            shown.iter().any(|line| line.starts_with("test result: ok")),
            "{shown:#?}"
        );
    }

    #[test]
    fn the_output_of_a_failed_test_is_shown() {
        let (_, shown) = read("successes:\nfailures:\n---- a stdout ----\nwhy it failed");
        assert_eq!(shown, ["failures:", "---- a stdout ----", "why it failed"]);
    }

    #[test]
    fn own_arguments_after_the_dashes_are_kept() {
        let arguments = ["--package", "tests", "--", "fragments"].map(str::to_owned);
        assert_eq!(
            with_shown_output(&arguments),
            ["--package", "tests", "--", "fragments", "--show-output"]
        );
    }
}
