//! A thousand groups of sixty rules, and a hundred interfaces that share policies.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use tests::lab::Lab;
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{TcpEcho, tcp_connects};

const GROUPS: usize = 1_000;
const INTERFACES: usize = 100;

/// Group `n` opens sixty ports, each to a prefix of its own; the last port of all to the world's.
fn policy() -> Result<String> {
    let mut text = String::from("groups:\n");
    for group in 0..GROUPS {
        writeln!(text, "  g{group}:\n    ingress:")?;
        for rule in 0..58 {
            let (port, net) = (1_000 + rule, group % 250);
            writeln!(
                text,
                "      - {{protocol: tcp, ports: {port}, from: [172.{rule}.{net}.0/24]}}"
            )?;
        }
        writeln!(
            text,
            "      - {{protocol: tcp, ports: 22, from: [sg:g{}]}}",
            (group + 1) % GROUPS
        )?;
        let port = 2_000 + group;
        writeln!(
            text,
            "      - {{protocol: tcp, ports: {port}, from: [10.0.0.0/24]}}"
        )?;
    }
    text.push_str("interfaces:\n  eth0: {groups: [g0, g1, g999]}\n");
    for interface in 0..INTERFACES {
        // Every other one shares the set of the one before.
        let first = interface / 2 * 20;
        let groups: Vec<String> = (first..first + 10)
            .map(|group| format!("g{group}"))
            .collect();
        writeln!(text, "  v{interface}: {{groups: [{}]}}", groups.join(", "))?;
    }
    Ok(text)
}

#[test]
fn a_thousand_groups_and_a_hundred_interfaces() -> Result<()> {
    let pair = Lab::pair()?;
    for interface in 0..INTERFACES {
        pair.host.ip(&format!(
            "link add v{interface} type veth peer name w{interface}"
        ))?;
    }
    let sg = Sg::on(&pair.host)?;
    sg.apply(&policy()?)?;
    let status = sg.json(&["status"])?;
    let interfaces = status["interfaces"].as_array().cloned().unwrap_or_default();
    ensure!(
        interfaces.len() == INTERFACES + 1,
        "{} interfaces",
        interfaces.len()
    );
    ensure!(
        interfaces
            .iter()
            .all(|interface| interface["attached"] == true),
        "{interfaces:?}"
    );
    for (port, wanted) in [
        (2_000, Connected),
        (2_001, Connected),
        (2_999, Connected),
        (2_002, TimedOut),
        (1_000, TimedOut),
        (22, TimedOut),
    ] {
        let _listener = TcpEcho::listen(&pair.host, &format!("10.0.0.10:{port}"))?;
        let got = tcp_connects(pair.world.at("10.0.0.1")?, &format!("10.0.0.10:{port}"))?;
        ensure!(got == wanted, "port {port}: {got:?}, expected {wanted:?}");
    }
    // One command takes them all away.
    sg.apply("interfaces: {}")?;
    ensure!(
        sg.json(&["status"])?["interfaces"]
            .as_array()
            .is_some_and(Vec::is_empty),
        "something is still attached"
    );
    Ok(())
}
