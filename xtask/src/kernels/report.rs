//! What came of each step on each kernel, for people and as JSON.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::fetch::Kernel;
use super::machine::Outcome;
use super::steps::Step;
use crate::arch::Arch;

/// Lines of a failed step that are shown; the log has all.
const LAST: usize = 25;

/// A step, and how it went.
#[derive(Clone, Debug)]
pub(super) struct Ran {
    name: &'static str,
    promise: &'static str,
    outcome: Outcome,
    took: Duration,
    /// What tests say they could not prove there.
    skipped: Vec<String>,
    /// The sentence of a refusal.
    refusal: Option<String>,
    last: VecDeque<String>,
}

/// All kernels, in the order they were booted.
#[derive(Debug, Default)]
pub(super) struct Matrix {
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    kernel: Kernel,
    arch: Arch,
    log: PathBuf,
    ran: Vec<Ran>,
}

impl Ran {
    pub(super) const fn not_yet(step: &Step) -> Self {
        Self {
            name: step.name,
            promise: step.promise,
            outcome: Outcome::NotRun,
            took: Duration::ZERO,
            skipped: Vec::new(),
            refusal: None,
            last: VecDeque::new(),
        }
    }

    /// Takes a line that it has printed.
    pub(super) fn read(&mut self, line: &str) {
        if line.starts_with("skipped") {
            self.skipped.push(line.to_owned());
        }
        if let Some(sentence) = line.strip_prefix("refusal: ") {
            self.refusal = Some(sentence.to_owned());
        }
        if self.last.len() == LAST {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
    }

    pub(super) const fn ended(&mut self, outcome: Outcome, took: Duration) {
        self.outcome = outcome;
        self.took = took;
    }

    pub(super) fn passed(&self) -> bool {
        self.outcome == Outcome::Passed
    }

    pub(super) fn last_lines(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }

    fn cell(&self) -> String {
        let seconds = self.took.as_secs();
        match self.outcome {
            Outcome::Passed if self.skipped.is_empty() => format!("ok {seconds} s"),
            Outcome::Passed => format!("ok {seconds} s, {} skipped", self.skipped.len()),
            Outcome::Failed(_) => "FAILED".to_owned(),
            Outcome::TimedOut => format!("STUCK after {seconds} s"),
            Outcome::KernelFault => "KERNEL FAULT".to_owned(),
            Outcome::NotRun => "not run".to_owned(),
        }
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:<10}  {}", self.name, self.cell())?;
        match &self.refusal {
            Some(sentence) => write!(out, ": {sentence}"),
            None => Ok(()),
        }
    }
}

impl Matrix {
    pub(super) fn add(&mut self, kernel: &Kernel, arch: Arch, log: &Path, ran: Vec<Ran>) {
        self.columns.push(Column {
            kernel: kernel.clone(),
            arch,
            log: log.to_owned(),
            ran,
        });
    }

    /// An error that names what failed and where its log is.
    pub(super) fn verdict(&self) -> Result<()> {
        let failed: Vec<String> = self
            .columns
            .iter()
            .flat_map(|column| {
                let failed = column.ran.iter().filter(|ran| !ran.passed());
                failed.map(|ran| {
                    let kernel = column.kernel.upstream();
                    format!("{} on {kernel} (log: {})", ran.name, column.log.display())
                })
            })
            .collect();
        ensure!(failed.is_empty(), "failed: {}", failed.join("; "));
        let passed: usize = self.columns.iter().map(|column| column.ran.len()).sum();
        ensure!(passed > 0, "nothing was run");
        Ok(())
    }

    /// Prints the table, or JSON.
    pub(super) fn print(&self, as_json: bool) {
        if as_json {
            println!("{:#}", self.to_json());
        } else {
            print!("\n{self}");
        }
    }

    fn to_json(&self) -> Value {
        let columns = self.columns.iter().map(|column| {
            let steps = column.ran.iter().map(|ran| {
                json!({
                    "step": ran.name,
                    "promise": ran.promise,
                    "outcome": outcome(ran.outcome),
                    "seconds": ran.took.as_secs(),
                    "skipped": ran.skipped,
                    "refusal": ran.refusal,
                })
            });
            json!({
                "version": column.kernel.upstream(),
                "release": column.kernel.release,
                "package": column.kernel.version,
                "arch": column.arch.debian(),
                "log": column.log,
                "steps": steps.collect::<Vec<_>>(),
            })
        });
        json!({ "kernels": columns.collect::<Vec<_>>() })
    }

    /// Every step of any kernel, in their order.
    fn steps(&self) -> Vec<(&'static str, &'static str)> {
        let mut steps = Vec::new();
        for ran in self.columns.iter().flat_map(|column| &column.ran) {
            if !steps.contains(&(ran.name, ran.promise)) {
                steps.push((ran.name, ran.promise));
            }
        }
        steps
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = Vec::new();
        let head = ["STEP".to_owned(), "WHAT HOLDS".to_owned()].into_iter();
        let kernels = self
            .columns
            .iter()
            .map(|column| format!("{} {}", column.kernel.upstream(), column.arch.debian()));
        rows.push(head.chain(kernels).collect::<Vec<_>>());
        for (name, promise) in self.steps() {
            let cells = self.columns.iter().map(|column| {
                let found = column.ran.iter().find(|ran| ran.name == name);
                found.map_or_else(|| "-".to_owned(), Ran::cell)
            });
            let words = [name.to_owned(), promise.to_owned()].into_iter();
            rows.push(words.chain(cells).collect());
        }
        let columns = self.columns.len() + 2;
        let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max();
        let widths: Vec<usize> = (0..columns).filter_map(width).collect();
        for row in &rows {
            let cells = row.iter().zip(&widths);
            let line: Vec<String> = cells
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            writeln!(out, "{}", line.join("  ").trim_end())?;
        }
        let said: Vec<(&str, &String)> = self
            .columns
            .iter()
            .flat_map(|column| {
                let refusals = column.ran.iter().filter_map(|ran| ran.refusal.as_ref());
                refusals.map(|refusal| (column.kernel.upstream(), refusal))
            })
            .collect();
        for (kernel, refusal) in said {
            writeln!(out, "on {kernel}: {refusal}")?;
        }
        Ok(())
    }
}

const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed(_) => "failed",
        Outcome::TimedOut => "timed-out",
        Outcome::KernelFault => "kernel-fault",
        Outcome::NotRun => "not-run",
    }
}

/// Prints a line at once; to standard error where standard output is JSON.
pub(super) fn say(as_json: bool, line: &str) {
    if as_json {
        eprintln!("{line}");
    } else {
        println!("{line}");
    }
}

/// The last lines of a log.
pub(super) fn tail(log: &Path) -> Result<String> {
    let text = fs::read(log).with_context(|| format!("reading {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LAST)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::fetch::Flavour;
    use crate::kernels::steps::{Choice, Promise};

    fn ran(outcome: Outcome) -> Ran {
        let choice = Choice {
            quick: false,
            patience: 1,
            flavour: Flavour::Cloud,
            named: vec!["hooks".to_owned()],
        };
        let mut ran = Ran::not_yet(&choice.steps(Promise::Protects)[0]);
        ran.ended(outcome, Duration::from_secs(7));
        ran
    }

    #[test]
    fn a_step_that_did_not_pass_fails_the_whole_and_is_named() {
        let matrix = |outcome| {
            let mut matrix = Matrix::default();
            let kernel = Kernel::example("6.12.1-1");
            matrix.add(
                &kernel,
                Arch::X86_64,
                Path::new("the.log"),
                vec![ran(outcome)],
            );
            matrix
        };
        assert!(matrix(Outcome::Passed).verdict().is_ok());
        for outcome in [
            Outcome::Failed(1),
            Outcome::TimedOut,
            Outcome::KernelFault,
            Outcome::NotRun,
        ] {
            let error = matrix(outcome).verdict().unwrap_err().to_string();
            assert_eq!(error, "failed: hooks on 6.12.1 (log: the.log)");
        }
        assert!(Matrix::default().verdict().is_err());
    }

    #[test]
    fn what_a_test_skips_is_counted() {
        let mut ran = ran(Outcome::Passed);
        assert_eq!(ran.cell(), "ok 7 s");
        ran.read("skipped: no tap here");
        assert_eq!(ran.cell(), "ok 7 s, 1 skipped");
    }
}
