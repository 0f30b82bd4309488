//! A dry run tells which live connections a change would cut, and those are the ones that it cuts.

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::lab::Pair;
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{Session, TcpEcho};

const BOTH: &str = "
groups:
  ssh: {ingress: [{service: ssh, from: 203.0.113.0/24}, {service: ssh, from: 198.51.100.7}]}
interfaces:
  eth0: {groups: [ssh]}
";
const ONE: &str = "
groups:
  ssh: {ingress: [{service: ssh, from: 198.51.100.7}]}
interfaces:
  eth0: {groups: [ssh]}
";

struct Machine {
    going: Session,
    staying: Session,
    sg: Sg,
    _listener: TcpEcho,
    _pair: Pair,
}

/// Two connections, each by a rule of its own.
fn machine() -> Result<Machine> {
    let (pair, sg) = Sg::protecting(BOTH)?;
    let listener = TcpEcho::listen(&pair.host, ":22")?;
    let mut going = Session::open(pair.world.at("203.0.113.5")?, "10.0.0.10:22")?;
    let mut staying = Session::open(pair.world.at("198.51.100.7")?, "10.0.0.10:22")?;
    ensure!(going.echoes()? == Connected && staying.echoes()? == Connected);
    Ok(Machine {
        going,
        staying,
        sg,
        _listener: listener,
        _pair: pair,
    })
}

fn peers<'a>(told: &'a Value, what: &str) -> Vec<&'a str> {
    let flows = told["consequences"][what].as_array().into_iter().flatten();
    flows.filter_map(|flow| flow["peer"].as_str()).collect()
}

#[test]
fn flows_that_lose_their_rule_are_named_before_they_do() -> Result<()> {
    let mut machine = machine()?;
    let path = machine.sg.write_policy(ONE)?;
    let told = machine.sg.json(&["diff", &path])?;
    ensure!(peers(&told, "outlive") == ["203.0.113.5"], "{told:#}");
    ensure!(
        peers(&told, "cut").is_empty() && told["consequences"]["flows"] == 2,
        "{told:#}"
    );
    let told = machine
        .sg
        .json(&["apply", &path, "--dry-run", "--terminate"])?;
    ensure!(peers(&told, "cut") == ["203.0.113.5"], "{told:#}");
    ensure!(
        told["consequences"]["cut"][0]["allows"] == "tcp 22 from 203.0.113.0/24",
        "{told:#}"
    );
    let text = machine
        .sg
        .run(&["apply", &path, "--dry-run", "--terminate"])?;
    ensure!(text.code == Some(1), "{text}");
    ensure!(
        text.stdout.contains("1 open connection is closed:\n"),
        "{text}"
    );
    ensure!(
        machine.going.echoes()? == Connected,
        "a dry run does nothing"
    );

    machine
        .sg
        .run(&["apply", &path, "--terminate"])?
        .succeeded()?;
    ensure!(machine.going.echoes()? == TimedOut);
    ensure!(machine.staying.echoes()? == Connected);
    Ok(())
}

#[test]
fn flows_that_outlive_their_rule_are_let_in_by_the_next() -> Result<()> {
    let machine = machine()?;
    machine.sg.apply(ONE)?;
    let path = machine.sg.write_policy(BOTH)?;
    let told = machine.sg.json(&["diff", &path])?;
    ensure!(peers(&told, "let_in") == ["203.0.113.5"], "{told:#}");
    let path = machine
        .sg
        .write_policy(&format!("on_rule_removal: terminate\n{ONE}"))?;
    let told = machine.sg.run(&["diff", &path])?;
    ensure!(
        told.stdout.ends_with("No tracked connection is affected\n"),
        "{told}"
    );
    let path = machine
        .sg
        .write_policy("{groups: {ssh: {}}, interfaces: {}}")?;
    let told = machine.sg.json(&["diff", &path])?;
    ensure!(peers(&told, "unprotected").len() == 2, "{told:#}");
    Ok(())
}

#[test]
fn nothing_is_closed_at_an_interface_that_is_audited() -> Result<()> {
    let audited = |policy: &str| policy.replace("groups: [ssh]", "groups: [ssh], audit: true");
    let mut machine = machine()?;
    machine.sg.apply(&audited(BOTH))?;
    let path = machine.sg.write_policy(&audited(ONE))?;
    let told = machine
        .sg
        .run(&["apply", &path, "--dry-run", "--terminate"])?;
    ensure!(
        told.stdout.ends_with("No tracked connection is affected\n"),
        "{told}"
    );
    // With the same change it is enforced again.
    let path_to_one = machine.sg.write_policy(ONE)?;
    let told = machine
        .sg
        .json(&["apply", &path_to_one, "--dry-run", "--terminate"])?;
    ensure!(peers(&told, "cut") == ["203.0.113.5"], "{told:#}");

    machine
        .sg
        .apply(&format!("on_rule_removal: terminate\n{}", audited(ONE)))?;
    ensure!(machine.going.echoes()? == Connected);
    ensure!(machine.staying.echoes()? == Connected);
    Ok(())
}
