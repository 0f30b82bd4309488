//! `cargo xtask test`: everything that must hold, with real interfaces and the real kernel.
//!
//! Each test makes network namespaces and folders of its own, so that several programs run at once; those
//! that need the machine for themselves run after the others. What a program prints is shown when it has
//! ended.
//!
//! A test that can't prove its fact here prints a line that begins with `skipped` and says what
//! was not proven. Those lines are repeated at the end, where nobody can miss them.

mod programs;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};

use self::programs::Program;
use crate::{setup, workspace};

/// How many programs run at once. Most wait most of the time, for packets that must not come.
const AT_ONCE: usize = 4;

/// Runs everything, or a short part of it, or `cargo test` with the arguments.
pub(crate) fn run(is_quick: bool, arguments: &[String]) -> Result<()> {
    setup::for_live_traffic()?;
    if !is_quick {
        setup::for_packages()?;
        setup::for_clients();
    }
    setup::for_building()?;
    match arguments {
        [] => run_programs(is_quick),
        _ => run_cargo(arguments),
    }
}

/// Runs the programs, several at once, and at last the examples in the documentation.
fn run_programs(is_quick: bool) -> Result<()> {
    let built = programs::build(is_quick)?;
    let (alone, together): (Vec<_>, Vec<_>) =
        built.programs.into_iter().partition(Program::runs_alone);
    let mut summary = run_at_once(&together, &built.sg_ctl, AT_ONCE)?;
    summary.add(run_at_once(&alone, &built.sg_ctl, 1)?);
    let mut passed = summary.broken.is_empty();
    if is_quick {
        println!(
            "\nleft out: {} promises; `cargo xtask test` proves all of them",
            built.left_out
        );
    } else {
        let mut cargo = workspace::command("cargo");
        let (examples, all_passed) = stream(cargo.args(["test", "--locked", "--doc"]))?;
        summary.add(examples);
        passed &= all_passed;
    }
    report(&summary);
    ensure!(passed, "the tests did not pass");
    Ok(())
}

/// Runs programs in their order, several at once.
fn run_at_once(programs: &[Program], sg_ctl: &Path, at_once: usize) -> Result<Summary> {
    let left = Mutex::new(programs.iter());
    let shown = Mutex::new(Summary::default());
    let work = || -> Result<()> {
        loop {
            let next = left
                .lock()
                .map_err(|_| anyhow!("a thread panicked"))?
                .next();
            let Some(program) = next else { return Ok(()) };
            let begin = Instant::now();
            let mut command = program.command(sg_ctl);
            let output = command
                .output()
                .with_context(|| format!("cannot run {}", workspace::shown(&command)))?;
            let took = begin.elapsed();
            let mut all = shown.lock().map_err(|_| anyhow!("a thread panicked"))?;
            let mut summary = Summary::default();
            println!("── {} ({took:.0?})", program.name);
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                if summary.read(line) {
                    println!("{line}");
                }
            }
            if !output.status.success() {
                print!("{}", String::from_utf8_lossy(&output.stderr));
                println!("{} ended with {}", program.name, output.status);
                summary.broken.push(program.name.clone());
            }
            let outcome = format!("{} passed, {} failed", summary.passed, summary.failed);
            summary
                .programs
                .insert(program.name.clone(), format!("{outcome} ({took:.0?})"));
            all.add(summary);
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        let ended = threads.into_iter().map(|thread| {
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
        });
        // All of them are waited for.
        ended
            .collect::<Vec<_>>()
            .into_iter()
            .collect::<Result<()>>()
    })?;
    shown.into_inner().map_err(|_| anyhow!("a thread panicked"))
}

/// Runs `cargo test` with the arguments.
fn run_cargo(arguments: &[String]) -> Result<()> {
    let mut cargo = workspace::command("cargo");
    // sg-ebpf is no default member: it is compiled for the kernel, by sg-ctl's build script.
    cargo
        .args(["test", "--locked", "--no-fail-fast"])
        .args(with_shown_output(arguments));
    let (summary, passed) = stream(&mut cargo)?;
    report(&summary);
    ensure!(passed, "the tests did not pass");
    Ok(())
}

fn report(summary: &Summary) {
    print!("{}", grouped(&summary.programs));
    println!("\nproven: {} tests passed", summary.passed);
    if summary.failed > 0 {
        println!("broken: {} tests failed", summary.failed);
    }
    if !summary.broken.is_empty() {
        println!("in: {}", summary.broken.join(", "));
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
}

/// The promises by their groups; the other programs stand by themselves.
fn grouped(programs: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    let mut last = "";
    for (name, outcome) in programs {
        let (group, indent, name) = match name.split_once('/') {
            Some((group, promise)) => (group, "  ", promise),
            None => ("", "", name.as_str()),
        };
        if group != last && !group.is_empty() {
            text += &format!("{group}/\n");
        }
        text += &format!("{indent}{name}: {outcome}\n");
        last = group;
    }
    text
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
    /// What has become of each program.
    programs: BTreeMap<String, String>,
    /// Programs that failed.
    broken: Vec<String>,
    in_output_of_passed_tests: bool,
}

impl Summary {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.skipped.extend(other.skipped);
        self.programs.extend(other.programs);
        self.broken.extend(other.broken);
    }

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
    fn promises_are_listed_by_their_groups() {
        let names = ["flows/one", "flows/two", "sg_common", "updates/three"];
        let programs = names.map(|name| (name.to_owned(), "1 passed".to_owned()));
        let expected = "flows/\n  one: 1 passed\n  two: 1 passed\nsg_common: 1 passed\nupdates/\n  three: 1 passed\n";
        assert_eq!(grouped(&BTreeMap::from(programs)), expected);
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
