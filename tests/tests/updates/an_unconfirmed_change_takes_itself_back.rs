//! A change made with `--confirm` takes itself back unless somebody says in time that it did no
//! harm, whoever dies in the meantime.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::lab::{Lab, Pair};
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, Refused, TimedOut};
use tests::sockets::{Outcome, TcpEcho, tcp_connects};

const OPEN: &str = "
groups:
  ssh: {ingress: [{protocol: tcp, ports: 22, from: [10.0.0.0/8], description: from inside}]}
interfaces:
  eth0: {groups: [ssh]}
";
/// What somebody applies by mistake.
const CLOSED: &str = "
groups:
  ssh: {ingress: [{protocol: tcp, ports: 2222, from: [10.0.0.0/8]}]}
interfaces:
  eth0: {groups: [ssh]}
";

/// Longer than any deadline here, on a busy machine.
const LONGEST: Duration = Duration::from_secs(30);

fn ssh(pair: &Pair) -> Result<Outcome> {
    tcp_connects(&pair.world, "10.0.0.10:22")
}

/// A machine with the policy `OPEN`, and somebody who listens at port 22.
fn machine() -> Result<(Pair, Sg, TcpEcho)> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let listener = TcpEcho::listen(&pair.host, ":22")?;
    sg.apply(OPEN)?;
    ensure!(ssh(&pair)? == Connected, "port 22 is not open");
    Ok((pair, sg, listener))
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LONGEST;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "{what}: never");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn is_waiting(sg: &Sg) -> Result<bool> {
    Ok(!sg.json(&["status"])?["unconfirmed"].is_null())
}

/// The processes that wait for a deadline of this instance.
fn waiters(sg: &Sg) -> Vec<String> {
    let state = sg.state_dir().display().to_string();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let waits = |pid: &String| {
        let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.contains(&state) && words.contains("await-confirmation")
    };
    all.filter_map(|entry| entry.file_name().into_string().ok())
        .filter(waits)
        .collect()
}

fn kill_waiter(pair: &Pair, sg: &Sg) -> Result<()> {
    let waiters = waiters(sg);
    ensure!(waiters.len() == 1, "waiting: {waiters:?}");
    let killed = [&["-KILL".to_owned()], waiters.as_slice()].concat();
    pair.host.run("kill", &killed).map(drop)
}

#[test]
fn a_confirmed_change_stays() -> Result<()> {
    let (pair, sg, _listener) = machine()?;
    let path = sg.write_policy(CLOSED)?;
    let ran = sg.run(&["apply", &path, "--confirm", "30s"])?.succeeded()?;
    ensure!(ran.stdout.contains("`sg-ctl confirm`"), "{ran}");
    ensure!(ssh(&pair)? == TimedOut, "the change is not in force");
    ensure!(waiters(&sg).len() == 1, "waiting: {:?}", waiters(&sg));
    sg.run(&["confirm"])?.succeeded()?;
    wait_for("the waiting process ends", || Ok(waiters(&sg).is_empty()))?;
    ensure!(!is_waiting(&sg)?, "it still waits");
    ensure!(ssh(&pair)? == TimedOut, "the change is gone");
    ensure!(!sg.state_dir().join("before-unconfirmed.db").exists());
    let again = sg.run(&["confirm"])?;
    ensure!(again.code == Some(2), "{again}");
    Ok(())
}

#[test]
fn it_is_taken_back_when_the_shell_that_made_it_is_killed() -> Result<()> {
    let (pair, sg, _listener) = machine()?;
    let groups = sg.json(&["group", "list"])?;
    let path = sg.write_policy(CLOSED)?;
    let shell = ["sh", "-c", "\"$0\" \"$@\"; exec sleep 600"];
    let mut shell = sg.spawn_under(&shell, &["apply", &path, "--confirm", "8s"])?;
    let group = format!("-{}", shell.id());
    let mut said = BufReader::new(shell.stdout.take().context("no output")?).lines();
    let told = |line: &std::io::Result<String>| {
        line.as_ref()
            .is_ok_and(|line| line.contains("sg-ctl confirm"))
    };
    ensure!(said.any(|line| told(&line)), "the change was not made");
    for signal in ["-HUP", "-KILL"] {
        pair.host.run("kill", &[signal, "--", &group])?;
    }
    shell.wait()?;
    ensure!(ssh(&pair)? == TimedOut, "the change is not in force");
    wait_for("the old policy", || Ok(ssh(&pair)? == Connected))?;
    wait_for("the end of the waiting process", || {
        Ok(waiters(&sg).is_empty())
    })?;
    ensure!(
        sg.json(&["group", "list"])? == groups,
        "not the same policy"
    );
    let status = sg.run(&["status"])?.succeeded()?;
    ensure!(status.stdout.contains("was rolled back"), "{status}");
    let late = sg.run(&["confirm"])?;
    ensure!(
        late.code == Some(2) && late.stderr.contains("too late"),
        "{late}"
    );
    Ok(())
}

#[test]
fn the_next_command_takes_it_back_when_nobody_else_is_left() -> Result<()> {
    let (pair, sg, _listener) = machine()?;
    let path = sg.write_policy(CLOSED)?;
    sg.run(&["apply", &path, "--confirm", "8s"])?.succeeded()?;
    kill_waiter(&pair, &sg)?;
    wait_for("the deadline", || {
        Ok(sg.json(&["status"])?["unconfirmed"]["left_s"] == 0)
    })?;
    ensure!(ssh(&pair)? == TimedOut, "who took it back?");
    let restored = sg.run(&["restore"])?.succeeded()?;
    ensure!(restored.stderr.contains("rolled back"), "{restored}");
    ensure!(ssh(&pair)? == Connected, "it was not rolled back");
    Ok(())
}

#[test]
fn an_attachment_is_taken_back_whole() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let attach = ["attach", "eth0", "--confirm", "60s"];
    sg.run(&attach)?.succeeded()?;
    ensure!(ssh(&pair)? == TimedOut, "it is not protected");

    let second = sg.run(&["group", "create", "web"])?;
    ensure!(second.code == Some(2), "{second}");
    ensure!(
        second.stderr.contains("waits for its confirmation"),
        "{second}"
    );

    sg.run(&["rollback"])?.succeeded()?;
    ensure!(ssh(&pair)? == Refused, "it is still protected");
    ensure!(sg.json(&["status"])?["interfaces"] == serde_json::json!([]));
    sg.run(&["group", "create", "web"])?.succeeded()?;
    Ok(())
}

#[test]
fn a_reboot_takes_an_unconfirmed_change_back() -> Result<()> {
    let (pair, sg, _listener) = machine()?;
    let path = sg.write_policy(CLOSED)?;
    sg.run(&["apply", &path, "--confirm", "1h"])?.succeeded()?;
    kill_waiter(&pair, &sg)?;
    ensure!(is_waiting(&sg)?);
    // What a reboot leaves: the state folder, and another boot's id.
    let booted = sg.run_under(
        &[
            "unshare",
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs none /mnt && echo 00000000-0000-0000-0000-000000000000 >/mnt/boot && \
             mount --bind /mnt/boot /proc/sys/kernel/random/boot_id && \"$0\" \"$@\"",
        ],
        &["restore"],
    )?;
    booted.succeeded()?;
    ensure!(ssh(&pair)? == Connected, "it was not rolled back");
    Ok(())
}

#[test]
fn whoever_would_lock_themselves_out_is_warned_before() -> Result<()> {
    let (_pair, sg, _listener) = machine()?;
    let path = sg.write_policy(CLOSED)?;
    let session = "SSH_CONNECTION=10.0.0.1 50000 10.0.0.10 22";
    let warning = "comes from 10.0.0.1 to 10.0.0.10:22, and the new policy drops such";

    let harmless = sg.run_under(&["env", session], &["group", "create", "web"])?;
    ensure!(!harmless.succeeded()?.stderr.contains("SSH session"));

    let own = sg
        .run_under(&["env", session], &["apply", &path])?
        .succeeded()?;
    ensure!(own.stderr.contains(warning), "{own}");
    sg.apply(OPEN)?;

    // As under sudo, which hands no such variable on.
    let sudo = [
        "env",
        session,
        "sh",
        "-c",
        "env -u SSH_CONNECTION \"$0\" \"$@\"; true",
    ];
    let path = sg.write_policy(CLOSED)?;
    let above = sg.run_under(&sudo, &["apply", &path])?.succeeded()?;
    ensure!(above.stderr.contains(warning), "{above}");
    Ok(())
}
