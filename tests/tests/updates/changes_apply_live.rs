//! Rules move under traffic: what both policies allow is never lost, what neither allows never
//! passes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{TcpEcho, UdpEcho, tcp_connects, udp_roundtrip};

/// Ways to allow the same traffic: by prefixes of several lengths, everyone, a list, a group.
const WAYS: [&str; 6] = [
    "10.0.0.0/8",
    "10.0.0.0/24",
    "0.0.0.0/0",
    "pl:clients",
    "10.0.0.1/32",
    "sg:clients",
];
const CHANGES: usize = 60;
const KILLS: u32 = 12;
const ROUNDS: usize = 6;

/// One way only, so that each change takes the last one away. Egress is not open to everyone, so
/// that every connection is tracked whatever the way: a reset that closes an untracked one just
/// after it would be tracked belongs to no flow, and is dropped.
fn policy(way: &str, generation: usize) -> String {
    format!(
        "
prefix_lists:
  clients: [10.0.0.0/28]
groups:
  clients: {{members: [10.0.0.1]}}
  g:
    ingress:
      - {{protocol: udp, ports: 53, from: ['{way}']}}
      - {{protocol: tcp, ports: 7, from: ['{way}']}}
      - {{protocol: tcp, ports: {}, from: [192.0.2.0/24]}}
    egress:
      - {{protocol: all, to: [10.0.0.0/8]}}
interfaces:
  eth0: {{groups: [g]}}
",
        10_000 + generation
    )
}

/// Makes changes while packets that rules allow, and packets that none allows, come without a pause.
/// `changes` says how many it made.
fn nothing_is_lost_during(changes: impl FnOnce(&Sg) -> Result<usize>) -> Result<()> {
    let (pair, sg) = Sg::protecting(&policy(WAYS[0], 0))?;
    let _listeners = (
        UdpEcho::listen(&pair.host, ":53")?,
        TcpEcho::listen(&pair.host, ":7")?,
        TcpEcho::listen(&pair.host, ":22")?,
    );
    let over = AtomicBool::new(false);
    let (asked, changed) = thread::scope(|scope| {
        let traffic = scope.spawn(|| -> Result<u32> {
            let mut asked = 0;
            while !over.load(Ordering::Relaxed) {
                // Each from a port of its own, so that rules judge it and no flow does.
                let udp = udp_roundtrip(pair.world.at("10.0.0.1")?, "10.0.0.10:53")?;
                ensure!(udp == Connected, "udp after {asked} questions: {udp:?}");
                let tcp = tcp_connects(pair.world.at("10.0.0.1")?, "10.0.0.10:7")?;
                ensure!(tcp == Connected, "tcp after {asked} questions: {tcp:?}");
                asked += 1;
            }
            Ok(asked)
        });
        let refused = scope.spawn(|| -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                let never = tcp_connects(pair.world.at("10.0.0.1")?, "10.0.0.10:22")?;
                ensure!(never == TimedOut, "a port that no policy opens: {never:?}");
            }
            Ok(())
        });
        let changed = changes(&sg);
        over.store(true, Ordering::Relaxed);
        let refused = refused
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("panicked")));
        let traffic = traffic
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("panicked")));
        (
            traffic,
            changed.and_then(|changed| refused.map(|()| changed)),
        )
    });
    // A lost SYN or datagram would have come again; the counters know of every drop.
    let stats = sg.json(&["stats"])?;
    let reasons = stats["interfaces"][0]["reasons"]
        .as_array()
        .context("no reasons")?;
    let drops: Vec<_> = reasons
        .iter()
        .filter(|reason| {
            !matches!(
                reason["reason"].as_str(),
                Some(
                    "rule"
                        | "tracked"
                        | "untracked"
                        | "link-protocol"
                        | "neighbor-discovery"
                        | "multicast-membership"
                )
            )
        })
        .collect();
    // Every drop is a SYN to port 22, and those are sent by nobody else.
    ensure!(
        drops.iter().all(|drop| drop["reason"] == "no-rule"),
        "dropped: {drops:?}"
    );
    let asked = asked.with_context(|| format!("of what is counted: {reasons:?}"))?;
    let changed = changed?;
    ensure!(asked > 100, "only {asked} questions were asked");
    println!("{asked} questions each were answered during {changed} changes");
    Ok(())
}

#[test]
fn an_allowed_packet_is_never_lost_while_the_rule_that_allows_it_changes() -> Result<()> {
    nothing_is_lost_during(|sg| {
        for change in 1..=CHANGES {
            sg.apply(&policy(WAYS[change % WAYS.len()], change))?;
        }
        Ok(CHANGES)
    })
}

/// The words of a command about the rules that let the traffic in by one way.
fn rules<'a>(change: &'a str, way: &'a str, service: (&'a str, &'a str)) -> Vec<&'a str> {
    let (protocol, ports) = service;
    let what = ["rule", change, "g", "--ingress", "--protocol", protocol];
    [&what[..], &["--ports", ports, "--from", way]].concat()
}

#[test]
fn rules_that_come_and_go_one_by_one_lose_no_packet_that_another_allows() -> Result<()> {
    nothing_is_lost_during(|sg| {
        let steps = 2 * WAYS.len();
        for step in 0..steps {
            let [old, new] = [step, step + 1].map(|at| WAYS[at % WAYS.len()]);
            for service in [("udp", "53"), ("tcp", "7")] {
                sg.run(&rules("add", new, service))?.succeeded()?;
                sg.run(&rules("remove", old, service))?.succeeded()?;
            }
        }
        Ok(4 * steps)
    })
}

#[test]
fn members_and_prefixes_that_come_and_go_lose_no_packet_that_others_allow() -> Result<()> {
    nothing_is_lost_during(|sg| {
        let edit = |words: &str| -> Result<()> {
            let words: Vec<&str> = words.split_whitespace().collect();
            sg.run(&words)?.succeeded().map(drop)
        };
        // By the list first, then by the group, and by the list again.
        for service in [("udp", "53"), ("tcp", "7")] {
            sg.run(&rules("add", "pl:clients", service))?.succeeded()?;
            sg.run(&rules("add", "sg:clients", service))?.succeeded()?;
            sg.run(&rules("remove", WAYS[0], service))?.succeeded()?;
        }
        for round in 0..ROUNDS {
            edit(&format!("group members clients --add 10.0.{round}.77"))?;
            edit("group members clients --remove 10.0.0.1")?;
            // A longer prefix, a shorter one, and without the first.
            edit("prefix-list add clients 10.0.0.1/32 10.0.0.0/24")?;
            edit("prefix-list remove clients 10.0.0.0/28")?;
            edit("group members clients --add 10.0.0.1")?;
            edit("prefix-list remove clients 10.0.0.1/32 10.0.0.0/24")?;
            edit("prefix-list add clients 10.0.0.0/28")?;
        }
        Ok(7 * ROUNDS)
    })
}

#[test]
fn a_change_of_one_rule_that_is_killed_loses_no_packet_either() -> Result<()> {
    nothing_is_lost_during(|sg| {
        for kill in 0..KILLS {
            let port = (20_000 + kill).to_string();
            let mut change = sg.spawn(&rules("add", "10.0.0.0/9", ("tcp", &port)))?;
            // Most of a change's time are its grace periods.
            thread::sleep(Duration::from_millis(u64::from(kill)));
            change.kill()?;
            change.wait()?;
            sg.run(&["restore"])?.succeeded()?;
        }
        Ok(KILLS as usize)
    })
}
