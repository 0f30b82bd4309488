//! While the daemon runs it makes what commands change, with what it keeps in memory; what they say, and
//! what is then in force, is as without it, whoever else changes something and whoever dies.

use std::fs::File;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::daemon::{Daemon, eventually};
use tests::lab::{Lab, Pair};
use tests::sg::{Ran, Sg};
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{TcpEcho, tcp_connects};

const POLICY: &str = "
prefix_lists:
  clients: [198.51.100.0/24]
groups:
  web: {ingress: [{protocol: tcp, ports: 22, from: [10.0.0.0/8, sg:admin, pl:clients]}]}
  admin: {members: [192.0.2.1]}
interfaces:
  eth0: {groups: [web]}
";

/// Some are refused, some change nothing, some change what no edit can.
const COMMANDS: &[&str] = &[
    "rule add web --ingress --protocol tcp --ports 80,8000-8080 --from 0.0.0.0/0 --from ::/0",
    "rule add web --ingress --protocol tcp --ports 80 --from 0.0.0.0/0",
    "rule add wep --ingress --protocol tcp --ports 81 --from 0.0.0.0/0",
    "rule add web --ingress --protocol tcp --ports 81 --from sg:nobody",
    "rule add web --ingress --protocol tcp --ports 81 --from sg:admin --description \u{e9}\u{7}",
    "rule add web --ingress --protocol udp --ports 53 --from self --description names",
    "rule add web --egress --protocol all --to 10.0.0.0/8",
    "rule remove web --ingress --protocol tcp --ports 22 --from 10.0.0.0/8",
    "rule remove web --ingress --protocol tcp --ports 22 --from 10.0.0.0/8",
    "rule remove web --ingress --protocol udp --ports 53 --from self --terminate",
    "rule remove web sgr-00000000000000001",
    "group members admin --add 10.0.0.1 2001:db8::1",
    "group members admin --add 10.0.0.1",
    "group members admin --remove 192.0.2.1",
    "group members admin --set",
    "group members nobody --add 10.0.0.1",
    "prefix-list add clients 10.0.0.0/24 2001:db8::/32",
    "prefix-list add clients 10.0.0.0/24",
    "prefix-list remove clients 198.51.100.0/24",
    "prefix-list set clients 0.0.0.0/0",
    "prefix-list set others 10.0.0.0/8",
    "prefix-list delete others",
    "prefix-list delete clients",
    "prefix-list add nobody 10.0.0.0/8",
    "group create db --description data",
    "group create db",
    "group create app --vpc other",
    "rule add app --ingress --protocol tcp --ports 1 --from 10.0.0.0/8",
    "group delete admin",
    "group delete db",
    "vpc delete default",
    "vpc delete other",
    "rule add web --ingress --protocol tcp --ports 9 --from 10.0.0.0/8 --confirm 60s",
    "rule add web --ingress --protocol tcp --ports 10 --from 10.0.0.0/8",
    "confirm",
];

fn machine() -> Result<(Pair, Sg)> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(POLICY)?;
    Ok((pair, sg))
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// What a command said, without ids, which are random, the folder of its instance, and the seconds that
/// are left of a time, of which one may pass between two commands.
fn said(ran: &Ran, sg: &Sg) -> (Option<i32>, String, String) {
    let plain = |text: &str| {
        let text = text.replace(&sg.state_dir().display().to_string(), "STATE");
        let lines = text.lines().map(|line| {
            let counts_down = line.contains(" s left)");
            let is_kept = |word: &&str| {
                let word = word.trim_start_matches('(');
                let is_id = word.starts_with("sgr-") || word.starts_with("sg-");
                let is_time = counts_down && word.parse::<u64>().is_ok();
                !(is_id || is_time)
            };
            let words: Vec<&str> = line.split(' ').filter(is_kept).collect();
            words.join(" ")
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    (ran.code, plain(&ran.stdout), plain(&ran.stderr))
}

fn commands_made(sg: &Sg) -> Result<u64> {
    let told = sg.json(&["daemon", "status"])?;
    told["commands"].as_u64().context("commands")
}

fn holds(sg: &Sg) -> Result<()> {
    let told = sg.json(&["verify"])?;
    ensure!(told["same"] == true, "{told}");
    Ok(())
}

#[test]
fn a_command_says_and_does_the_same_with_the_daemon_and_without() -> Result<()> {
    let (_alone_pair, alone) = machine()?;
    let (_pair, sg) = machine()?;
    let _daemon = Daemon::start(&sg, "")?;
    let mut made = commands_made(&sg)?;
    for line in COMMANDS {
        let with = said(&sg.run(&words(line))?, &sg);
        let without = said(&alone.run(&words(line))?, &alone);
        ensure!(with == without, "{line}: {with:?}, alone {without:?}");
        let now = commands_made(&sg)?;
        // What its words tell to be wrong, and what only waits, needs no daemon.
        let is_asked = with.0 == Some(0) && *line != "confirm";
        ensure!(!is_asked || now == made + 1, "{line}: {now}, {made}");
        made = now;
        for list in ["rule list", "group list", "prefix-list list", "vpc list"] {
            let (with, without) = (sg.run(&words(list))?, alone.run(&words(list))?);
            let (with, without) = (said(&with, &sg), said(&without, &alone));
            ensure!(with == without, "after {line}: {with:?}, alone {without:?}");
        }
        let revision = |sg: &Sg| {
            sg.json(&["status"])
                .map(|status| status["revision"].clone())
        };
        ensure!(revision(&sg)? == revision(&alone)?, "after {line}");
        holds(&sg).with_context(|| format!("after {line}"))?;
    }
    Ok(())
}

#[test]
fn a_command_in_a_session_is_told_what_becomes_of_it() -> Result<()> {
    let (_alone_pair, alone) = machine()?;
    let (_pair, sg) = machine()?;
    let _daemon = Daemon::start(&sg, "")?;
    let session = ["env", "SSH_CONNECTION=10.0.0.1 40000 10.0.0.10 22"];
    let mut warnings = 0;
    for line in [
        "rule add web --ingress --protocol tcp --ports 23 --from 10.0.0.0/8",
        "rule remove web --ingress --protocol tcp --ports 22 --from 10.0.0.0/8",
        "group members admin --add 192.0.2.2",
        "group members admin --add 10.0.0.1",
        "group members admin --remove 10.0.0.1",
        "prefix-list add clients 10.0.0.1/32",
        "prefix-list remove clients 10.0.0.1/32 --confirm 60s",
        "rollback",
    ] {
        let with = said(&sg.run_under(&session, &words(line))?, &sg);
        let without = said(&alone.run_under(&session, &words(line))?, &alone);
        ensure!(with == without, "{line}: {with:?}, alone {without:?}");
        ensure!(with.0 == Some(0), "{line}: {with:?}");
        warnings += usize::from(with.2.contains("you cannot connect again"));
    }
    ensure!(warnings == 4, "{warnings} warnings");
    Ok(())
}

#[test]
fn what_another_writer_and_the_machine_change_is_noticed() -> Result<()> {
    let (pair, sg) = machine()?;
    let _listener = TcpEcho::listen(&pair.host, ":80")?;
    let daemon = Daemon::start(&sg, "")?;
    let add = |port: u16| {
        format!("rule add web --ingress --protocol tcp --ports {port} --from 10.0.0.0/8")
    };
    let removed = "rule remove web --ingress --protocol tcp --ports 1 --from 10.0.0.0/8";
    sg.run(&words(&add(1)))?.succeeded()?;
    // In another network namespace a command does it itself.
    let before = commands_made(&sg)?;
    sg.run_on(&pair.world, &words(&add(80)))?.succeeded()?;
    ensure!(commands_made(&sg)? == before);
    sg.run(&words(removed))?.succeeded()?;
    ensure!(commands_made(&sg)? == before + 1);
    ensure!(tcp_connects(&pair.world, "10.0.0.10:80")? == Connected);
    holds(&sg)?;
    // So it does where the daemon cannot be asked.
    for (number, command) in [&["restore"][..], &["limits", "set", "rules", "5000"]]
        .iter()
        .enumerate()
    {
        let ran = sg.run(command)?;
        ensure!(matches!(ran.code, Some(0 | 2)), "{ran}");
        sg.run(&words(&add(100 + u16::try_from(number)?)))?
            .succeeded()?;
        holds(&sg)?;
    }
    // What a device has now counts for the next command, whether the daemon has seen it or not.
    for round in 0..5 {
        pair.host
            .ip(&format!("address add 10.9.0.{}/32 dev eth0", round + 1))?;
        sg.run(&words(&add(200 + round)))?.succeeded()?;
        holds(&sg)?;
    }
    pair.host.ip("link del eth0")?;
    let ran = sg.run(&words(&add(300)))?.succeeded()?;
    ensure!(ran.stderr.contains("waiting"), "{ran}");
    pair.lab.join((&pair.world, "eth0"), (&pair.host, "eth0"))?;
    pair.world.add_addresses("eth0", &["10.0.0.1/24"])?;
    pair.host.add_addresses("eth0", &["10.0.0.10/24"])?;
    sg.run(&words(&add(301)))?.succeeded()?;
    holds(&sg)?;
    ensure!(
        tcp_connects(&pair.world, "10.0.0.10:80")? == Connected,
        "{}",
        daemon.log()
    );
    ensure!(tcp_connects(&pair.world, "10.0.0.10:81")? == TimedOut);
    Ok(())
}

#[test]
fn a_command_says_what_is_known_when_the_daemon_dies_before_it_has_done_it() -> Result<()> {
    let (_pair, sg) = machine()?;
    let daemon = Daemon::start(&sg, "")?;
    eventually("the policy is held", || {
        Ok(sg.json(&["daemon", "status"])?["changes"].as_u64() > Some(0))
    })?;
    // Somebody else has the right to change, so that the daemon waits.
    let lock = File::open(sg.run_dir().join("lock"))?;
    lock.lock()?;
    let add = words("rule add web --ingress --protocol tcp --ports 80 --from 10.0.0.0/8");
    let child = sg.spawn(&add)?;
    eventually("the daemon is asked", || {
        Ok(daemon.log().contains("makes rule add web"))
    })?;
    daemon.signal(Signal::SIGKILL)?;
    drop(lock);
    let ran = sg.wait_for(child, &add)?;
    ensure!(
        ran.code == Some(2)
            && ran
                .stderr
                .contains("nothing was changed, so run the command again"),
        "{ran}"
    );
    let rules = sg.run(&["rule", "list", "web"])?;
    ensure!(!rules.stdout.contains("80"), "{rules}");
    sg.run(&add)?.succeeded()?;
    holds(&sg)
}

#[test]
fn a_command_says_what_is_known_when_the_daemon_dies_after_it_has_stored_it() -> Result<()> {
    let (pair, sg) = machine()?;
    let _listener = TcpEcho::listen(&pair.host, ":80")?;
    let daemon = Daemon::start_to(&sg, "store-committed")?;
    let before = sg.json(&["status"])?["revision"]
        .as_u64()
        .context("revision")?;
    // Of the daemon's own build, or it would not be asked.
    let add = words("rule add web --ingress --protocol tcp --ports 80 --from 10.0.0.0/8");
    let ran = sg.run(&add)?;
    let told = format!("was at revision {before} and is at {}", before + 1);
    ensure!(ran.code == Some(2) && ran.stderr.contains(&told), "{ran}");
    drop(daemon);
    ensure!(tcp_connects(&pair.world, "10.0.0.10:80")? == TimedOut);
    let rules = sg.run(&["rule", "list", "web"])?;
    ensure!(rules.stdout.matches("tcp 80 ").count() == 1, "{rules}");
    // Whoever comes next completes it, be it the daemon.
    let _daemon = Daemon::start(&sg, "")?;
    eventually("what is stored is in force", || {
        Ok(sg.json(&["verify"])?["same"] == true)
    })?;
    ensure!(tcp_connects(&pair.world, "10.0.0.10:80")? == Connected);
    Ok(())
}
