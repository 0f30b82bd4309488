//! `diagnose` tells apart what keeps a connection from coming about, each of them made for real.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::lab::{Host, Lab, Pair};
use tests::sg::Sg;
use tests::sockets::{Outcome, Session, TcpEcho, UdpEcho};

const POLICY: &str = "
groups:
  client:
    egress: [{protocol: tcp, ports: '443-444', to: [0.0.0.0/0, '::/0']}, {protocol: udp, ports: 53, to: [0.0.0.0/0]}]
interfaces:
  eth0: {groups: [client]}
";

/// A machine that may talk to ports 443 and 444, and a world that listens on 443.
fn client() -> Result<(Pair, Sg, TcpEcho)> {
    let (pair, sg) = Sg::protecting(POLICY)?;
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
fn what_would_allow_it_is_said_where_only_the_other_end_is_protected() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.world)?;
    sg.apply(&format!(
        "{{groups: {{closed: {{}}}}, interfaces: {{eth0: {{groups: [closed], netns: {}}}}}}}",
        pair.host.namespace()
    ))?;
    let told = diagnose(&sg, "10.0.0.10", &["22"])?;
    is(&told, "dropped")?;
    let command = told["attempts"][0]["dropped"]["remedy"]["command"].as_str();
    let command = command.with_context(|| format!("no remedy: {told:#}"))?;
    ensure!(
        command.ends_with("--ports 22 --from 10.0.0.1/32"),
        "{command}"
    );
    let words: Vec<_> = command.split(' ').skip(1).collect();
    sg.run(&words)?.succeeded()?;
    is(&diagnose(&sg, "10.0.0.10", &["22"])?, "refused")
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

/// A chain of nftables on the machine, with one rule.
fn filter(pair: &Pair, hook: &str, rule: &str) -> Result<()> {
    let chain = format!("{{ type filter hook {hook} priority 0 ; }}");
    for words in [
        "add table inet f".to_owned(),
        format!("add chain inet f c {chain}"),
        format!("add rule inet f c {rule}"),
    ] {
        pair.host.run("nft", &[words.as_str()])?;
    }
    Ok(())
}

#[test]
fn a_filter_of_this_machine_is_named_before_and_behind_the_wire() -> Result<()> {
    let (pair, sg, _listener) = client()?;
    filter(&pair, "output", "tcp dport 443 drop")?;
    let told = diagnose(&sg, "203.0.113.5", &["443"])?;
    is(&told, "not-sent")?;
    ensure!(told["attempts"][0]["sent"] == 0, "{told:#}");
    pair.host.run("nft", &["flush ruleset"])?;
    filter(&pair, "output", "tcp dport 443 reject with tcp reset")?;
    is(&diagnose(&sg, "203.0.113.5", &["443"])?, "not-sent")?;
    pair.host.run("nft", &["flush ruleset"])?;
    filter(&pair, "input", "tcp sport 443 drop")?;
    let told = diagnose(&sg, "203.0.113.5", &["443"])?;
    is(&told, "answer-lost")?;
    let attempt = &told["attempts"][0];
    ensure!(
        attempt["sent"].as_u64() > Some(0) && attempt["received"].as_u64() > Some(0),
        "{told:#}"
    );
    Ok(())
}

#[test]
fn a_neighbour_that_does_not_answer_is_no_filter() -> Result<()> {
    let (_pair, sg, _listener) = client()?;
    let told = diagnose(&sg, "10.0.0.99", &["443"])?;
    is(&told, "no-neighbour")?;
    ensure!(told["attempts"][0]["next_hop"] == "10.0.0.99", "{told:#}");
    Ok(())
}

#[test]
fn routes_that_refuse_are_told_in_words() -> Result<()> {
    let (pair, sg, _listener) = client()?;
    for (kind, word) in [
        ("blackhole", "blackhole"),
        ("prohibit", "prohibits"),
        ("unreachable", "unreachable"),
    ] {
        pair.host.ip(&format!("route add {kind} 192.0.2.0/24"))?;
        let told = diagnose(&sg, "192.0.2.7", &["443"])?;
        is(&told, "unreachable")?;
        let system = told["attempts"][0]["system"].as_str().unwrap_or_default();
        ensure!(
            system.contains(word) && !system.contains("os error"),
            "{told:#}"
        );
        pair.host.ip(&format!("route del {kind} 192.0.2.0/24"))?;
    }
    Ok(())
}

#[test]
fn a_drop_of_an_answer_is_the_headline() -> Result<()> {
    let (pair, sg, _listener) = client()?;
    sg.run(&["attach", "eth0", "--max-flows", "1"])?
        .succeeded()?;
    let mut session = Session::open(&pair.host, "10.0.0.1:443")?;
    ensure!(session.echoes()? == Outcome::Connected);
    let told = diagnose(&sg, "203.0.113.5", &["443"])?;
    is(&told, "dropped")?;
    let attempt = &told["attempts"][0];
    ensure!(attempt["dropped"]["reason"] == "quota-full", "{told:#}");
    // Of the handshake, only this machine's own last packet is too many.
    ensure!(attempt["dropped"]["direction"] == "egress", "{told:#}");
    ensure!(attempt["full"][0]["capacity"] == 1, "{told:#}");
    let shown = sg
        .run(&["diagnose", "203.0.113.5", "443", "--timeout", "500ms"])?
        .stdout;
    ensure!(shown.starts_with("dropped  "), "{shown}");
    ensure!(shown.contains("holds 1 of the 1 connections"), "{shown}");
    Ok(())
}

#[test]
fn an_answer_by_another_device_meets_rp_filter() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let _listener = TcpEcho::listen(&pair.world, ":443")?;
    pair.lab.join((&pair.host, "eth1"), (&pair.world, "eth1"))?;
    pair.host.add_addresses("eth1", &["10.1.0.10/24"])?;
    pair.world.add_addresses("eth1", &["10.1.0.1/24"])?;
    pair.host
        .ip("route add 203.0.113.5/32 via 10.1.0.1 dev eth1 src 10.1.0.10")?;
    pair.world
        .ip("route add 10.1.0.10/32 via 10.0.0.10 dev eth0")?;
    // ARP is judged by rp_filter too.
    let mac = pair.host.mac("eth0")?.map(|byte| format!("{byte:02x}"));
    let lladdr = mac.join(":");
    pair.world.ip(&format!(
        "neigh replace 10.0.0.10 lladdr {lladdr} dev eth0 nud permanent"
    ))?;
    let set = |host: &Host, device: &str, value: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
        host.enter(|| Ok(std::fs::write(path, value)?))
    };
    for device in ["all", "eth0", "eth1"] {
        set(&pair.world, device, "0")?;
        set(&pair.host, device, if device == "eth0" { "1" } else { "0" })?;
    }
    let told = diagnose(&sg, "203.0.113.5", &["443"])?;
    is(&told, "answer-lost")?;
    ensure!(
        told["attempts"][0]["reverse_path_drops"].as_u64() > Some(0),
        "{told:#}"
    );
    Ok(())
}

#[test]
fn large_packets_that_are_lost_are_noticed() -> Result<()> {
    let (pair, sg, _listener) = client()?;
    for protocol in ["icmp", "icmpv6"] {
        let all = ["0.0.0.0/0", "::/0"];
        let add = ["rule", "add", "client", "--egress", "--protocol", protocol];
        sg.run(&[&add[..], &["--to", all[0], "--to", all[1]]].concat())?
            .succeeded()?;
    }
    is(&diagnose(&sg, "203.0.113.5", &["443"])?, "fine")?;
    // A device drops silently what is larger than it takes.
    pair.world.ip("link set eth0 mtu 1400")?;
    for host in ["203.0.113.5", "2001:db8:bb::5"] {
        let told = diagnose(&sg, host, &["443"])?;
        is(&told, "too-big")?;
        ensure!(told["attempts"][0]["mtu"] == 1500, "{told:#}");
    }
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
