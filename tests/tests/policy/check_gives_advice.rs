//! `check` finds what is sound and still not meant, in a file and in what is in force.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::lab::Lab;
use tests::sg::Sg;
use tests::sockets::{Outcome, TcpEcho, tcp_connects};

const OPEN: &str = "groups:
  ssh:
    ingress:
      - {service: ssh, from: 0.0.0.0/0}
  spare: {}
interfaces:
  eth0: {groups: [ssh]}
";

fn kinds(told: &Value) -> Vec<(&str, &str)> {
    let findings = told["findings"].as_array().into_iter().flatten();
    findings
        .filter_map(|one| Some((one["group"].as_str()?, one["kind"].as_str()?)))
        .collect()
}

#[test]
fn a_file_is_advised_on_where_its_lines_are() -> Result<()> {
    let lab = Lab::new()?;
    let sg = Sg::on(&lab.host("a")?)?;
    let path = sg.write_policy(OPEN)?;
    let told = sg.run(&["check", &path])?.succeeded()?;
    let lines: Vec<_> = told.stdout.lines().collect();
    ensure!(lines.len() == 3, "{told}");
    ensure!(
        lines[0].starts_with(&format!(
            "{path}:4:30: warning: group \"ssh\": \"tcp 22 from 0.0.0.0/0\""
        )),
        "{told}"
    );
    ensure!(lines[1].contains(":5:3: notice: group \"spare\""), "{told}");
    ensure!(lines[2] == format!("{path}: 1 warning, 1 notice"), "{told}");

    // The exit code is about the level that is asked for.
    for (level, code) in [("error", 0), ("warning", 1), ("notice", 1)] {
        let told = sg.run(&["check", &path, "--level", level])?;
        ensure!(told.code == Some(code), "{level}: {told}");
    }
    let fine = sg.write_policy("groups: {web: {ingress: [{service: https, from: 0.0.0.0/0}]}}")?;
    let told = sg
        .run(&["check", &fine, "--level", "notice"])?
        .succeeded()?;
    ensure!(told.stdout == format!("{fine}: nothing wrong\n"), "{told}");
    let wrong = sg.write_policy("groups: {web: {ingress: [{service: htpps, from: 0.0.0.0/0}]}}")?;
    let told = sg.json(&["check", &wrong])?;
    ensure!(
        told["findings"][0]["level"] == "error" && told["count"] == 1,
        "{told}"
    );
    Ok(())
}

#[test]
fn rules_in_force_that_nothing_came_by_are_found_until_something_does() -> Result<()> {
    let (pair, sg) = Sg::protecting(OPEN)?;
    let _listener = TcpEcho::listen(&pair.host, ":22")?;
    let told = sg.json(&["check"])?;
    let all = [
        ("ssh", "open-administration"),
        ("spare", "unused-group"),
        ("ssh", "never-hit"),
    ];
    ensure!(kinds(&told) == all, "{told}");
    let rule = told["findings"][2]["rule"].as_str().context("a rule")?;
    let text = sg.run(&["check"])?.succeeded()?;
    ensure!(text.stdout.contains(rule), "{text}");
    ensure!(tcp_connects(&pair.world, "10.0.0.10:22")? == Outcome::Connected);
    let told = sg.json(&["check"])?;
    ensure!(kinds(&told) == all[..2], "{told}");
    let refused = sg.run(&["check", "--vpc", "nowhere"])?;
    ensure!(refused.code == Some(2), "{refused}");
    Ok(())
}
