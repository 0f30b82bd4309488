//! While the daemon runs, devices, addresses and namespaces that come, go and are made again are
//! protected as the policy says without a command; nothing depends on its running.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::daemon::{Daemon, eventually};
use tests::lab::{Lab, Pair};
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, Refused, TimedOut};
use tests::sockets::{Outcome, TcpEcho, tcp_connects};

const POLICY: &str = "{groups: {web: {ingress: [{protocol: tcp, ports: 80, from: 0.0.0.0/0}]}}, \
                      interfaces: {eth0: {groups: [web]}}}";

fn outcomes(pair: &Pair) -> Result<[Outcome; 2]> {
    Ok([
        tcp_connects(&pair.world, "10.0.0.10:80")?,
        tcp_connects(&pair.world, "10.0.0.10:81")?,
    ])
}

fn state_of(sg: &Sg, name: &str) -> Result<String> {
    let status = sg.json(&["status"])?;
    let interfaces = status["interfaces"].as_array().context("interfaces")?;
    let found = interfaces
        .iter()
        .find(|interface| interface["name"] == name);
    let state = found.and_then(|interface| interface["state"].as_str());
    Ok(state
        .with_context(|| format!("{name} is not there: {status}"))?
        .to_owned())
}

#[test]
fn a_device_is_protected_when_it_comes_and_when_it_is_made_again() -> Result<()> {
    let pair = Lab::pair()?;
    let _web = TcpEcho::listen(&pair.host, ":80")?;
    let sg = Sg::on(&pair.host)?;
    pair.host.ip("link del eth0")?;
    sg.apply(POLICY)?;
    let daemon = Daemon::start(&sg, "")?;
    for _ in 0..2 {
        pair.lab.join((&pair.world, "eth0"), (&pair.host, "eth0"))?;
        pair.world.add_addresses("eth0", &["10.0.0.1/24"])?;
        pair.host.add_addresses("eth0", &["10.0.0.10/24"])?;
        eventually("eth0 is protected", || {
            Ok(state_of(&sg, "eth0")? == "protected")
        })?;
        ensure!(
            outcomes(&pair)? == [Connected, TimedOut],
            "{}",
            daemon.log()
        );
        pair.host.ip("link del eth0")?;
        eventually(
            "eth0 is awaited",
            || Ok(state_of(&sg, "eth0")? == "waiting"),
        )?;
    }
    Ok(())
}

#[test]
fn an_address_that_comes_belongs_to_the_groups_and_one_that_goes_does_not() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    pair.lab.join((&pair.world, "eth1"), (&pair.host, "eth1"))?;
    sg.apply(
        "{groups: {app: {}, web: {ingress: [{protocol: tcp, ports: 80, from: sg:app}]}}, \
          interfaces: {eth0: {groups: [web]}, eth1: {groups: [app]}}}",
    )?;
    let _daemon = Daemon::start(&sg, "")?;
    // What the tables in force say of a packet.
    let reaches = |address: &str| -> Result<bool> {
        let told = sg.json(&[
            "explain",
            "eth0",
            "ingress",
            "tcp",
            &format!("[{address}]:1"),
            ":80",
        ])?;
        Ok(told["verdict"] == "pass")
    };
    for address in ["10.7.0.7", "10.7.0.8"] {
        ensure!(!reaches(address)?);
        pair.host
            .ip(&format!("address add {address}/24 dev eth1"))?;
        eventually(&format!("{address} is a member"), || reaches(address))?;
    }
    pair.host.ip("link set eth1 up")?;
    pair.host
        .ip("address add 2001:db8:7::7/64 dev eth1 nodad")?;
    sg.run(&[
        "rule",
        "add",
        "web",
        "--ingress",
        "--protocol",
        "tcp",
        "--ports",
        "80",
        "--from",
        "sg:app",
    ])
    .map(drop)?;
    eventually("the IPv6 address is a member", || {
        let members = sg.json(&["verify"])?;
        Ok(members["same"] == true)
    })?;
    // The first address takes the second, which is secondary, along.
    pair.host.ip("address del 10.7.0.7/24 dev eth1")?;
    eventually("10.7.0.7 is no member", || Ok(!reaches("10.7.0.7")?))?;
    eventually("the kernel holds what is stored", || {
        Ok(sg.json(&["verify"])?["same"] == true)
    })
}

#[test]
fn a_namespace_that_is_made_again_is_protected_again() -> Result<()> {
    let lab = Lab::new()?;
    let machine = lab.host("machine")?;
    let sg = Sg::on(&machine)?;
    // Nothing but its name holds it.
    let name = format!("{}-inner", machine.namespace());
    let name = name.as_str();
    run_ip(&["netns", "add", name])?;
    sg.apply(&format!(
        "{{groups: {{web: {{}}}}, interfaces: {{eth0: {{groups: [web], netns: {name}}}}}}}"
    ))?;
    let _daemon = Daemon::start(&sg, "")?;
    let make = "link add eth0 type veth peer name eth1";
    let in_it =
        |words: &str| run_ip(&[&["-n", name], &words.split(' ').collect::<Vec<_>>()[..]].concat());
    in_it(make)?;
    let comes_to = |state: &str| eventually(state, || Ok(state_of(&sg, "eth0")? == state));
    comes_to("protected")?;
    run_ip(&["netns", "del", name])?;
    comes_to("waiting")?;
    run_ip(&["netns", "add", name])?;
    in_it(make)?;
    comes_to("protected")?;
    run_ip(&["netns", "del", name])
}

fn run_ip(words: &[&str]) -> Result<()> {
    let status = std::process::Command::new("ip").args(words).status()?;
    ensure!(status.success(), "ip {words:?}: {status}");
    Ok(())
}

#[test]
fn nothing_is_installed_again_while_nothing_changes() -> Result<()> {
    let changes = |sg: &Sg| -> Result<u64> {
        let told = sg.json(&["daemon", "status"])?;
        told["changes"].as_u64().context("changes")
    };
    for policy in [
        POLICY,
        "{groups: {web: {}}, interfaces: {guest: {groups: [web]}}}",
        "{groups: {web: {}}, interfaces: {}}",
    ] {
        let pair = Lab::pair()?;
        let sg = Sg::on(&pair.host)?;
        sg.apply(policy)?;
        let _daemon = Daemon::start(&sg, "")?;
        let looks = |sg: &Sg| {
            sg.json(&["daemon", "status"])
                .map(|told| told["looks"].clone())
        };
        // The second look after an installation is its last one.
        let mut last = (changes(&sg)?, looks(&sg)?);
        eventually("nothing happens any more", || {
            std::thread::sleep(Duration::from_secs(1));
            let now = (changes(&sg)?, looks(&sg)?);
            Ok(std::mem::replace(&mut last, now.clone()) == now)
        })?;
        ensure!(changes(&sg)? <= 1, "{policy}: {} changes", changes(&sg)?);
    }
    Ok(())
}

#[test]
fn what_a_command_changes_is_followed_at_once() -> Result<()> {
    let pair = Lab::pair()?;
    let _web = TcpEcho::listen(&pair.host, ":80")?;
    let sg = Sg::on(&pair.host)?;
    // It starts with nothing stored at all.
    let _daemon = Daemon::start(&sg, "")?;
    sg.apply(POLICY)?;
    ensure!(outcomes(&pair)? == [Connected, TimedOut]);
    pair.host.ip("link del eth0")?;
    pair.lab.join((&pair.world, "eth0"), (&pair.host, "eth0"))?;
    pair.world.add_addresses("eth0", &["10.0.0.1/24"])?;
    pair.host.add_addresses("eth0", &["10.0.0.10/24"])?;
    eventually("eth0 is protected", || {
        Ok(state_of(&sg, "eth0")? == "protected")
    })?;
    sg.run(&["detach", "eth0"])?.succeeded()?;
    ensure!(outcomes(&pair)? == [Connected, Refused]);
    Ok(())
}

#[test]
fn enforcement_goes_on_when_it_ends_and_nothing_changes_when_it_starts() -> Result<()> {
    let pair = Lab::pair()?;
    let _web = TcpEcho::listen(&pair.host, ":80")?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(POLICY)?;
    let ifindex = |sg: &Sg| {
        sg.json(&["status"])
            .map(|status| status["interfaces"].clone())
    };
    let before = ifindex(&sg)?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let daemon = Daemon::start(&sg, "")?;
        ensure!(outcomes(&pair)? == [Connected, TimedOut]);
        daemon.signal(signal)?;
        let status = daemon.end()?;
        ensure!(
            (status.code() == Some(0)) == (signal != Signal::SIGKILL),
            "{signal}: {status}"
        );
        ensure!(outcomes(&pair)? == [Connected, TimedOut]);
        ensure!(ifindex(&sg)? == before);
        let told = sg.run(&["daemon", "status"])?;
        ensure!(
            told.code == Some(2) && told.stderr.contains("no daemon runs in"),
            "{told}"
        );
    }
    sg.run(&["verify"])?.succeeded()?;
    Ok(())
}

#[test]
fn one_daemon_works_in_a_run_folder() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let daemon = Daemon::start(&sg, "")?;
    let second = sg.run(&["daemon"])?;
    ensure!(second.code == Some(2), "{second}");
    let pid = format!("(pid {})", daemon.pid()?);
    ensure!(
        second.stderr.contains(&pid) && second.stderr.contains("--run-dir"),
        "{second}"
    );
    let told = sg.json(&["daemon", "status"])?;
    ensure!(
        told["pid"] == daemon.pid()?.as_raw() && told["failure"] == Value::Null,
        "{told}"
    );
    Ok(())
}

#[test]
fn a_broken_configuration_is_refused_and_the_former_one_stays() -> Result<()> {
    let pair = Lab::pair()?;
    pair.host.ip("link set lo up")?;
    let sg = Sg::on(&pair.host)?;
    let broken = sg.write("broken.toml", "[metrics]\nlisten = [\"here\"]\n")?;
    let refused = sg.run(&["daemon", "--config", &broken])?;
    let wanted = format!("{broken}:2:11: listen: invalid socket address");
    ensure!(
        refused.code == Some(2) && refused.stderr.contains(&wanted),
        "{refused}"
    );
    let missing = sg.run(&["daemon", "--config", "/nowhere/daemon.toml"])?;
    ensure!(
        missing.code == Some(2) && missing.stderr.contains("/nowhere/daemon.toml"),
        "{missing}"
    );

    let daemon = Daemon::start(&sg, "[metrics]\nlisten = [\"127.0.0.1:9478\"]\n")?;
    let serves = |port: u16| tcp_connects(&pair.host, &format!("127.0.0.1:{port}"));
    ensure!(serves(9478)? == Connected);
    sg.write("daemon.toml", "[log]\nlevel = \"loud\"\n")?;
    daemon.signal(Signal::SIGHUP)?;
    daemon.says("level: unknown variant `loud`")?;
    ensure!(serves(9478)? == Connected);
    sg.write("daemon.toml", "[metrics]\nlisten = [\"127.0.0.1:9479\"]\n")?;
    daemon.signal(Signal::SIGHUP)?;
    eventually("the new address is served", || {
        Ok(serves(9479)? == Connected)
    })?;
    eventually("the old one is not", || Ok(serves(9478)? == Refused))
}

#[test]
fn clients_that_send_anything_cost_nothing_but_themselves() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let daemon = Daemon::start(&sg, "")?;
    let mut held = Vec::new();
    for said in [
        &b"\x00\xff\x16\x03\x01 no http"[..],
        b"GET /status HTTP/1.1\r\nHost: ",
        b"",
        b"POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\nxyz",
    ] {
        let mut stream = daemon.connect()?;
        stream.write_all(said)?;
        held.push(stream);
    }
    // A head without end is given up before it is stored.
    let mut endless = daemon.connect()?;
    let line = [b'a'; 4096];
    let written = (0..1024)
        .take_while(|_| endless.write_all(&line).is_ok())
        .count();
    ensure!(written < 1024, "4 MiB of head were taken");
    for _ in 0..100 {
        let (code, body) = daemon.get("/status")?;
        ensure!(code == 200, "{body}");
    }
    ensure!(daemon.get("/nothing")?.0 == 404);
    // Half a request is given up after some seconds.
    let began = Instant::now();
    let mut rest = Vec::new();
    held[1].read_to_end(&mut rest)?;
    ensure!(began.elapsed() < Duration::from_secs(15), "it is held");
    Ok(())
}

#[test]
fn prometheus_reads_what_was_counted() -> Result<()> {
    let pair = Lab::pair()?;
    let _web = TcpEcho::listen(&pair.host, ":80")?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(POLICY)?;
    ensure!(outcomes(&pair)? == [Connected, TimedOut]);
    let daemon = Daemon::start(&sg, "")?;
    let (code, text) = daemon.get("/metrics")?;
    ensure!(code == 200 && text.ends_with("# EOF\n"), "{text}");
    let counts = |wanted: &str| -> Result<u64> {
        let lines = text.lines();
        let mut found =
            lines.filter_map(|line| line.strip_prefix(wanted)?.trim().parse::<f64>().ok());
        let count = found
            .next()
            .with_context(|| format!("no {wanted} in\n{text}"))?;
        Ok(count as u64)
    };
    let dropped = counts(
        "sg_packets_total{interface=\"eth0\",vpc=\"default\",direction=\"ingress\",verdict=\"drop\",reason=\"no-rule\",audit=\"false\"}",
    )?;
    let stats = sg.json(&["stats", "eth0"])?;
    let reasons = stats["interfaces"][0]["reasons"]
        .as_array()
        .context("reasons")?;
    let told = reasons
        .iter()
        .find(|count| count["reason"] == "no-rule")
        .context("no-rule")?;
    ensure!(told["packets"] == dropped && dropped > 0, "{stats}");
    ensure!(counts("sg_flows_capacity")? == 262_144);
    ensure!(
        counts("sg_policy_revision")?
            == sg.json(&["status"])?["revision"]
                .as_u64()
                .context("revision")?
    );
    ensure!(
        text.contains("sg_interface_protected{interface=\"eth0\""),
        "{text}"
    );
    ensure!(text.contains("sg_rule_flows_total{"), "{text}");
    Ok(())
}
