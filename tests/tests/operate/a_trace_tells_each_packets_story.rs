//! `sg-ctl trace` tells each packet in the words of `explain`, and leaves nothing behind.
//!
//! What it puts under an interface's links judges as what it takes away: traffic goes on, and what is
//! denied stays denied, while traces begin and end.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::Value;
use tests::inject::Injector;
use tests::lab::{Lab, Pair};
use tests::packets::Packet;
use tests::running::Running;
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{Session, TcpEcho, UdpEcho, tcp_connects};

const POLICY: &str = "
groups:
  g:
    ingress:
      - {service: ssh, from: [198.51.100.0/24, '2001:db8:aa::/48']}
      - {service: ssh, from: 203.0.113.0/24}
interfaces:
  eth0: {groups: [g], hook: HOOK}
";

fn protected(hook: &str) -> Result<(Pair, Sg, TcpEcho)> {
    let (pair, sg) = Sg::protecting(&POLICY.replace("HOOK", hook))?;
    let ssh = TcpEcho::listen(&pair.host, ":22")?;
    Ok((pair, sg, ssh))
}

/// A trace that has begun, as an object a line.
fn begin(sg: &Sg, words: &[&str]) -> Result<Running> {
    let trace = [&["trace", "eth0", "--json"], words].concat();
    let trace = Running::reading(sg.spawn(&trace)?)?;
    let begun = next(&trace)?;
    ensure!(begun["event"] == "begun", "{begun}");
    Ok(trace)
}

/// The next line; none that comes at all takes so long.
fn next(trace: &Running) -> Result<Value> {
    let line = trace.line_within(Duration::from_secs(20))?;
    let line = line.context("the trace says nothing")?;
    serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))
}

/// The pins of traced programs.
fn traced(sg: &Sg) -> Vec<String> {
    let layouts = fs::read_dir(sg.run_dir().join("bpf")).into_iter().flatten();
    let pins = layouts.flatten().flat_map(|layout| {
        let pins = fs::read_dir(layout.path()).into_iter().flatten();
        pins.flatten()
            .filter_map(|pin| pin.file_name().into_string().ok())
    });
    pins.filter(|pin| pin.starts_with("traced-")).collect()
}

/// Whether the ordinary programs judge, and nothing else is left.
fn is_over(sg: &Sg) -> Result<()> {
    sg.run(&["verify"])?.succeeded()?;
    ensure!(traced(sg).is_empty(), "{:?} are left", traced(sg));
    Ok(())
}

/// The process that ends a trace when its command is killed.
fn guard(sg: &Sg) -> Result<Pid> {
    let run = sg.run_dir().display().to_string();
    for process in fs::read_dir("/proc")?.flatten() {
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        let pid = process.file_name().to_string_lossy().parse();
        if let (true, true, Ok(pid)) = (words.contains("guard-trace"), words.contains(&run), pid) {
            return Ok(Pid::from_raw(pid));
        }
    }
    bail!("no process guards the trace")
}

#[test]
fn each_packet_is_told_as_explain_tells_it() -> Result<()> {
    for (hook, peer, from, local) in [
        ("tc", "198.51.100.7", "198.51.100.7:41000", "10.0.0.10"),
        (
            "tc",
            "2001:db8:aa::7",
            "[2001:db8:aa::7]:41000",
            "2001:db8::10",
        ),
        ("xdp", "198.51.100.7", "198.51.100.7:41000", "10.0.0.10"),
        (
            "xdp",
            "2001:db8:aa::7",
            "[2001:db8:aa::7]:41000",
            "2001:db8::10",
        ),
    ] {
        let (pair, sg, _ssh) = protected(hook)?;
        let at = |port: u16| match local.contains(':') {
            true => format!("[{local}]:{port}"),
            false => format!("{local}:{port}"),
        };
        // Before there is a flow.
        let explain = |port: u16| {
            let local = at(port);
            sg.run(&["explain", "eth0", "ingress", "tcp", from, local.as_str()])
        };
        let (opens, refused) = (explain(22)?, explain(23)?);
        ensure!(
            (opens.code, refused.code) == (Some(0), Some(1)),
            "{opens}{refused}"
        );
        let trace = sg.spawn(&["trace", "eth0", "--peer", peer, "--for", "60s"])?;
        let trace = Running::reading(trace)?;
        let begun = trace.line_within(Duration::from_secs(20))?;
        ensure!(begun.is_some_and(|line| line.starts_with("tracing eth0")));
        ensure!(tcp_connects(pair.world.at(from)?, &at(22))? == Connected);
        ensure!(tcp_connects(pair.world.at(from)?, &at(23))? == TimedOut);
        // What the filter does not take is not told.
        ensure!(tcp_connects(pair.world.at("203.0.113.5")?, "10.0.0.10:22")? == Connected);
        trace.signal(Signal::SIGINT)?;
        let (code, lines) = trace.end()?;
        ensure!(code == Some(0), "{code:?}");
        let told = lines.join("\n");
        for explained in [&opens, &refused] {
            let story = explained.stdout.trim_end();
            ensure!(
                told.contains(story),
                "at {hook}\n{story}\nis not told in\n{told}"
            );
        }
        ensure!(told.contains("reason      tracked: "), "{told}");
        ensure!(
            told.contains("none left out") && !told.contains("203.0.113.5 "),
            "{told}"
        );
        is_over(&sg)?;
    }
    Ok(())
}

#[test]
fn a_port_is_asked_for_on_either_side() -> Result<()> {
    let (pair, sg, _ssh) = protected("tc")?;
    let trace = begin(
        &sg,
        &["--peer", "198.51.100.0/24", "--port", "23", "--for", "60s"],
    )?;
    ensure!(tcp_connects(pair.world.at("198.51.100.7")?, "10.0.0.10:22")? == Connected);
    ensure!(tcp_connects(pair.world.at("198.51.100.7")?, "10.0.0.10:23")? == TimedOut);
    trace.signal(Signal::SIGINT)?;
    let (_, lines) = trace.end()?;
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line))
        .collect::<Result<_, _>>()?;
    let (ended, packets) = lines.split_last().context("nothing was told")?;
    ensure!(
        ended["event"] == "ended" && ended["why"] == "interrupt",
        "{ended}"
    );
    ensure!(
        !packets.is_empty() && ended["told"] == packets.len(),
        "{lines:?}"
    );
    for packet in packets {
        ensure!(packet["packet"]["destination_port"] == 23, "{packet}");
        ensure!(
            packet["reason"] == "no-rule" && packet["verdict"] == "drop",
            "{packet}"
        );
        let steps = packet["steps"].as_array().context("steps")?;
        ensure!(
            steps.first().is_some_and(|step| step["step"] == "parsed"),
            "{packet}"
        );
        ensure!(steps.iter().any(|step| step["step"] == "rules"), "{packet}");
    }
    Ok(())
}

#[test]
fn the_ordinary_programs_are_back_however_it_ends() -> Result<()> {
    for filters in [false, true] {
        let pair = Lab::pair()?;
        let sg = Sg::on(&pair.host)?;
        sg.use_filters(filters);
        sg.apply(&POLICY.replace("HOOK", "tc"))?;
        let asked = ["--peer", "198.51.100.7", "--for", "60s"];

        // Its time.
        sg.run(&["trace", "eth0", "--peer", "198.51.100.7", "--for", "1s"])?
            .succeeded()?;
        is_over(&sg)?;

        // Ctrl-C.
        let trace = begin(&sg, &asked)?;
        ensure!(traced(&sg).len() == 2, "{:?}", traced(&sg));
        sg.run(&["verify"])?.succeeded()?;
        trace.signal(Signal::SIGINT)?;
        ensure!(trace.end()?.0 == Some(0));
        is_over(&sg)?;

        // A kill of the command.
        let trace = begin(&sg, &asked)?;
        trace.signal(Signal::SIGKILL)?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Err(error) = is_over(&sg) {
            ensure!(Instant::now() < deadline, "{error}");
            thread::sleep(Duration::from_millis(20));
        }

        // A kill of the process that would end it.
        let trace = begin(&sg, &asked)?;
        kill(guard(&sg)?, Signal::SIGKILL)?;
        let ended = next(&trace)?;
        ensure!(ended["why"] == "guard", "{ended}");
        ensure!(trace.end()?.0 == Some(0));
        is_over(&sg)?;

        // A change of the policy within the layout, and one that needs another.
        for change in [
            &[
                "rule",
                "add",
                "g",
                "--ingress",
                "--protocol",
                "tcp",
                "--ports",
                "99",
                "--from",
                "198.51.100.7",
            ][..],
            &["limits", "set", "flows=300000"],
            &["restore"],
        ] {
            let trace = begin(&sg, &asked)?;
            sg.run(change)?.succeeded()?;
            is_over(&sg)?;
            let ended = next(&trace)?;
            ensure!(ended["why"] == "policy", "{change:?}: {ended}");
            ensure!(trace.end()?.0 == Some(0));
            is_over(&sg)?;
        }
    }
    Ok(())
}

#[test]
fn what_two_killed_processes_leave_is_told_and_taken_away() -> Result<()> {
    for next_command in [
        &["restore"][..],
        &[
            "rule",
            "add",
            "g",
            "--ingress",
            "--protocol",
            "tcp",
            "--ports",
            "99",
            "--from",
            "198.51.100.7",
        ],
        &["trace", "eth0", "--peer", "198.51.100.7", "--for", "1s"],
    ] {
        let (pair, sg, _ssh) = protected("xdp")?;
        let trace = begin(&sg, &["--peer", "198.51.100.7", "--for", "60s"])?;
        let guard = guard(&sg)?;
        // Neither sees the other end.
        trace.signal(Signal::SIGSTOP)?;
        kill(guard, Signal::SIGKILL)?;
        trace.signal(Signal::SIGKILL)?;
        let _ = trace.end()?;
        let verified = sg.json(&["verify"])?;
        let differences = verified["differences"].as_array().context("differences")?;
        ensure!(
            differences.len() == 1 && differences[0]["kind"] == "trace-left",
            "{verified}"
        );
        ensure!(tcp_connects(pair.world.at("198.51.100.7")?, "10.0.0.10:22")? == Connected);
        ensure!(tcp_connects(pair.world.at("198.51.100.7")?, "10.0.0.10:23")? == TimedOut);
        sg.run(next_command)?.succeeded()?;
        is_over(&sg)?;
    }
    Ok(())
}

#[test]
fn no_packet_is_lost_or_unjudged_while_traces_begin_and_end() -> Result<()> {
    for hook in ["tc", "xdp"] {
        let (pair, sg, _ssh) = protected(hook)?;
        let denied = UdpEcho::listen(&pair.host, ":99")?;
        let mut session = Session::open(pair.world.at("198.51.100.7")?, "10.0.0.10:22")?;
        let attack = Injector::on(&pair.world, "eth0")?;
        let attacks = vec![
            Packet::udp("198.51.100.7:4000".parse()?, "10.0.0.10:99".parse()?)
                .to_mac(pair.host.mac("eth0")?)
                .frame();
            64
        ];
        for _ in 0..5 {
            let mut trace = sg.spawn(&["trace", "eth0", "--peer", "203.0.113.9", "--for", "1s"])?;
            let mut echoes = 0;
            while trace.try_wait()?.is_none() {
                attack.send_all(&attacks)?;
                ensure!(
                    session.echoes()? == Connected,
                    "at {hook}, after {echoes} echoes"
                );
                echoes += 1;
            }
            ensure!(echoes > 0 && trace.wait()?.success());
        }
        ensure!(
            denied.received().is_empty(),
            "a denied packet came through at {hook}"
        );
        is_over(&sg)?;
    }
    Ok(())
}

#[test]
fn what_is_left_out_is_counted() -> Result<()> {
    const PACKETS: usize = 40_000;
    let (pair, sg, _ssh) = protected("tc")?;
    let trace = begin(
        &sg,
        &["--peer", "198.51.100.7", "--port", "99", "--for", "60s"],
    )?;
    let flood = vec![
        Packet::udp("198.51.100.7:4000".parse()?, "10.0.0.10:99".parse()?)
            .to_mac(pair.host.mac("eth0")?)
            .frame();
        PACKETS
    ];
    let lost = Injector::on(&pair.world, "eth0")?.send_all(&flood)?;
    let sent = PACKETS - lost;
    trace.signal(Signal::SIGINT)?;
    let (_, lines) = trace.end()?;
    let ended: Value = serde_json::from_str(lines.last().context("nothing was told")?)?;
    let count = |name: &str| ended[name].as_u64().unwrap_or_default() as usize;
    ensure!(
        count("told") + 1 == lines.len(),
        "{ended}, and {} lines",
        lines.len()
    );
    ensure!(count("told") + count("left_out") == sent, "{ended}");
    ensure!(count("left_out") > 0, "{ended}");
    Ok(())
}

#[test]
fn what_cannot_be_traced_is_refused_with_a_sentence() -> Result<()> {
    let (_pair, sg, _ssh) = protected("tc")?;
    let refuses = |words: &[&str], wanted: &str| {
        let ran = sg.run(&[&["trace"], words].concat())?;
        ensure!(ran.code == Some(2) && ran.stderr.contains(wanted), "{ran}");
        Ok(())
    };
    refuses(
        &["eth1", "--peer", "198.51.100.7"],
        "interface \"eth1\" is not attached",
    )?;
    refuses(
        &["eth0", "--peer", "198.51.100"],
        "invalid value '198.51.100' for '--peer",
    )?;
    refuses(&["eth0", "--port", "22"], "--peer <ADDRESS|PREFIX>")?;
    refuses(
        &["eth0", "--peer", "198.51.100.7", "--for", "2h"],
        "from 1s to 1h",
    )?;
    let trace = begin(&sg, &["--peer", "198.51.100.7"])?;
    refuses(
        &["eth0", "--peer", "198.51.100.7"],
        "another command traces interface eth0 already",
    )?;
    trace.signal(Signal::SIGINT)?;
    ensure!(trace.end()?.0 == Some(0));
    is_over(&sg)
}
