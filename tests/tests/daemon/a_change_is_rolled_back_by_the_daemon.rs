//! Where the daemon runs it rolls back what nobody confirms, and no process waits for that; where it ends, a
//! process waits from then on, and where it starts again it goes on.

use std::fs;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::daemon::{Daemon, eventually};
use tests::lab::{Lab, Pair};
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{Outcome, TcpEcho, tcp_connects};

const OPEN: &str = "
groups:
  ssh: {ingress: [{protocol: tcp, ports: 22, from: [10.0.0.0/8]}]}
interfaces:
  eth0: {groups: [ssh]}
";
const CLOSED: &str = "
groups:
  ssh: {ingress: [{protocol: tcp, ports: 2222, from: [10.0.0.0/8]}]}
interfaces:
  eth0: {groups: [ssh]}
";
const CLOSE: [&str; 8] = [
    "rule",
    "remove",
    "ssh",
    "--ingress",
    "--service",
    "ssh",
    "--from",
    "10.0.0.0/8",
];

fn ssh(pair: &Pair) -> Result<Outcome> {
    tcp_connects(&pair.world, "10.0.0.10:22")
}

fn machine() -> Result<(Pair, Sg, TcpEcho)> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let listener = TcpEcho::listen(&pair.host, ":22")?;
    sg.apply(OPEN)?;
    Ok((pair, sg, listener))
}

/// How many processes wait for a deadline of this instance.
fn waiters(sg: &Sg) -> usize {
    let state = sg.state_dir().display().to_string();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let words = all.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    words
        .filter(|words| words.contains(&state) && words.contains("await-confirmation"))
        .count()
}

#[test]
fn no_process_waits_where_the_daemon_runs() -> Result<()> {
    let (pair, sg, _listener) = machine()?;
    let _daemon = Daemon::start(&sg, "")?;
    let path = sg.write_policy(CLOSED)?;
    // Made by the daemon, and made by the command.
    for change in [&CLOSE[..], &["apply", &path]] {
        sg.run(&[change, &["--confirm", "4s"]].concat())?
            .succeeded()?;
        ensure!(waiters(&sg) == 0, "{change:?}");
        ensure!(ssh(&pair)? == TimedOut, "{change:?} is not in force");
        eventually("it is rolled back", || Ok(ssh(&pair)? == Connected))?;
        let status = sg.run(&["status"])?.succeeded()?;
        ensure!(status.stdout.contains("was rolled back"), "{status}");
    }
    let late = sg.run(&["confirm"])?;
    ensure!(
        late.code == Some(2) && late.stderr.contains("too late"),
        "{late}"
    );
    sg.run(&[&CLOSE[..], &["--confirm", "60s"]].concat())?
        .succeeded()?;
    sg.run(&["confirm"])?.succeeded()?;
    ensure!(sg.json(&["status"])?["unconfirmed"].is_null());
    ensure!(ssh(&pair)? == TimedOut);
    Ok(())
}

#[test]
fn a_daemon_that_starts_again_goes_on_waiting() -> Result<()> {
    let (pair, sg, _listener) = machine()?;
    let daemon = Daemon::start(&sg, "")?;
    sg.run(&[&CLOSE[..], &["--confirm", "4s"]].concat())?
        .succeeded()?;
    daemon.signal(Signal::SIGKILL)?;
    daemon.end()?;
    ensure!(waiters(&sg) == 0 && ssh(&pair)? == TimedOut);
    let daemon = Daemon::start(&sg, "")?;
    eventually("it is rolled back", || Ok(ssh(&pair)? == Connected))?;
    daemon.says("was rolled back")
}

#[test]
fn a_process_waits_from_the_end_of_the_daemon_on() -> Result<()> {
    let (pair, sg, _listener) = machine()?;
    let daemon = Daemon::start(&sg, "")?;
    sg.run(&[&CLOSE[..], &["--confirm", "6s"]].concat())?
        .succeeded()?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.end()?;
    ensure!(waiters(&sg) == 1 && ssh(&pair)? == TimedOut);
    eventually("it is rolled back", || Ok(ssh(&pair)? == Connected))?;
    eventually("the process ends", || Ok(waiters(&sg) == 0))
}
