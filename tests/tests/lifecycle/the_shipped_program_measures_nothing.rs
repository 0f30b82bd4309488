//! The program that packages hold has nothing that only tests and benchmarks use.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use sg_ctl::dataplane::measure::programs_to_measure_by;
use tests::sg::sg_ctl;

/// Those of some texts that a file has.
fn found(path: &Path, texts: &[&str]) -> Result<BTreeSet<String>> {
    let patterns = texts.iter().flat_map(|text| ["-e", text]);
    let output = Command::new("grep")
        .args(["--text", "--only-matching", "--fixed-strings"])
        .args(patterns)
        .arg(path)
        .output()
        .context("starting grep")?;
    // 1: it has none of them.
    ensure!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    let output = String::from_utf8_lossy(&output.stdout);
    Ok(output.lines().map(str::to_owned).collect())
}

#[test]
fn it_has_no_program_to_measure_by_and_no_crash_point() -> Result<()> {
    let path = sg_ctl()?;
    let unwanted = programs_to_measure_by()?;
    ensure!(!unwanted.is_empty());
    let unwanted = unwanted
        .iter()
        .map(String::as_str)
        .chain(["SCATTER", "SG_CRASH_AT"]);
    // What is embedded can be seen like this.
    let embedded = ["sg_xdp_receive"];
    let texts: Vec<&str> = unwanted.chain(embedded).collect();
    let found = found(path, &texts)?;
    ensure!(
        found.iter().eq(embedded),
        "{} has {found:?}",
        path.display()
    );
    Ok(())
}
