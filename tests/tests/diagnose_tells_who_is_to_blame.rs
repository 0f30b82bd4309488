//! `diagnose` tells apart what keeps a connection from coming about, each of them made for real.

use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::lab::{Lab, Pair};
use tests::sg::Sg;
use tests::sockets::{TcpEcho, UdpEcho};

const POLICY: &str = "
groups:
  client:
    egress: [{protocol: tcp, ports: '443-444', to: [0.0.0.0/0, '::/0']}, {protocol: udp, ports: 53, to: [0.0.0.0/0]}]
interfaces:
  eth0: {groups: [client]}
";

/// A machine that may talk to ports 443 and 444, and a world that listens on 443.
fn client() -> Result<(Pair, Sg, TcpEcho)> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(POLICY)?;
    let listener = TcpEcho::listen(&pair.world, ":443")?;
    Ok((pair, sg, listener))
}

fn diagnose(sg: &Sg, host: &str, words: &[&str]) -> Result<Value> {
    sg.json(&[&["diagnose", host, "--timeout", "0.5"], words].concat())
}

#[track_caller]
fn is(told: &Value, answer: &str) -> Result<()> {
    ensure!(told["answer"] == answer, "not {answer}: {told:#}");
    Ok(())
}

#[test]
fn who_answers_is_fine() -> Result<()> {
    let (pair, sg, _listener) = client()?;
    is(&diagnose(&sg, "203.0.113.5", &["443"])?, "fine")?;
    is(&diagnose(&sg, "2001:db8:bb::5", &["443"])?, "fine")?;
    // At one address, so that answers come from where the question went.
    let _names = UdpEcho::listen(&pair.world, "203.0.113.5:53")?;
    is(
        &diagnose(&sg, "203.0.113.5", &["53", "--protocol", "udp"])?,
        "fine",
    )?;
    let ran = sg.run(&["diagnose", "203.0.113.5", "443"])?.succeeded()?;
    ensure!(
        ran.stdout.starts_with("fine  tcp to 203.0.113.5:443\n"),
        "{ran}"
    );
    Ok(())
}

#[test]
fn who_says_no_refuses() -> Result<()> {
    let (_pair, sg, _listener) = client()?;
    let told = diagnose(&sg, "203.0.113.5", &["444"])?;
    is(&told, "refused")?;
    ensure!(told["attempts"][0]["interface"] == "eth0", "{told:#}");
    is(
        &diagnose(&sg, "203.0.113.5", &["53", "--protocol", "udp"])?,
        "refused",
    )
}

#[test]
fn a_missing_rule_is_named_and_adding_it_is_the_cure() -> Result<()> {
    let (pair, sg, _listener) = client()?;
    let _other = TcpEcho::listen(&pair.world, ":8443")?;
    let told = diagnose(&sg, "203.0.113.5", &["8443"])?;
    is(&told, "dropped")?;
    let dropped = &told["attempts"][0]["dropped"];
    ensure!(
        dropped["interface"] == "eth0" && dropped["direction"] == "egress",
        "{told:#}"
    );
    let counted = told["attempts"][0]["counted"].as_array();
    ensure!(
        counted.is_some_and(|all| all.iter().any(|one| one["reason"] == "no-rule")),
        "{told:#}"
    );
    let command = dropped["remedy"]["command"].as_str().unwrap_or_default();
    let words: Vec<_> = command.split(' ').skip(1).collect();
    sg.run(&words)?.succeeded()?;
    is(&diagnose(&sg, "203.0.113.5", &["8443"])?, "fine")
}

#[test]
fn a_filter_elsewhere_is_no_answer() -> Result<()> {
    let (pair, sg, _listener) = client()?;
    // Another machine's groups are none of this machine's business.
    let elsewhere = Sg::on(&pair.world)?;
    elsewhere.apply("{groups: {closed: {}}, interfaces: {eth0: {groups: [closed]}}}")?;
    let told = diagnose(&sg, "203.0.113.5", &["443"])?;
    is(&told, "no-answer")?;
    ensure!(told["attempts"][0]["dropped"].is_null(), "{told:#}");
    is(
        &diagnose(&sg, "203.0.113.5", &["53", "--protocol", "udp"])?,
        "no-answer",
    )
}

#[test]
fn the_other_end_is_to_blame_where_this_machine_protects_it() -> Result<()> {
    let (pair, sg, _listener) = client()?;
    let server = format!(
        "{{vpc: servers, groups: {{closed: {{}}}}, interfaces: {{eth0: {{groups: [closed], netns: {}}}}}}}",
        pair.world.namespace()
    );
    sg.apply(&server)?;
    let told = diagnose(&sg, "203.0.113.5", &["443"])?;
    is(&told, "dropped")?;
    let dropped = &told["attempts"][0]["dropped"];
    ensure!(dropped["direction"] == "ingress", "{told:#}");
    ensure!(dropped["netns"] == pair.world.namespace(), "{told:#}");
    Ok(())
}

#[test]
fn where_there_is_no_route_nothing_can_be_sent() -> Result<()> {
    let (pair, sg, _listener) = client()?;
    pair.host.ip("route del default")?;
    is(&diagnose(&sg, "192.88.99.1", &["443"])?, "unreachable")?;
    let ran = sg.run(&["diagnose", "no-such-name.invalid", "443", "--timeout", "1"])?;
    ensure!(
        ran.code == Some(2) && ran.stderr.contains("no-such-name.invalid"),
        "{ran}"
    );
    Ok(())
}

#[test]
fn it_works_inside_of_ip_netns_exec() -> Result<()> {
    let (pair, sg, _listener) = client()?;
    // The same binary that the other commands of this test ran.
    let binary = std::env::current_exe()?;
    let binary = binary
        .ancestors()
        .nth(2)
        .map(|profile| profile.join("sg-ctl"));
    let output = Command::new("ip")
        .args(["netns", "exec", pair.host.namespace()])
        .arg(binary.unwrap_or_default())
        .args(["diagnose", "203.0.113.5", "8443", "--timeout", "0.3"])
        .env("SG_STATE_DIR", sg.state_dir())
        .env("SG_RUN_DIR", sg.run_dir())
        .output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(
        told.starts_with("dropped  tcp to 203.0.113.5:8443\n"),
        "{told}"
    );
    Ok(())
}
