//! Every drop is told, or counted as untold; nothing is written where nobody reads.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData, RingBuf};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::inject::Injector;
use tests::lab::Pair;
use tests::packets::words::frame;
use tests::running::Running;
use tests::sg::Sg;
use tests::sockets::{Outcome, TcpEcho, tcp_connects};

const POLICY: &str =
    "{groups: {web: {ingress: [{protocol: tcp, ports: 80, from: 203.0.113.0/24}]}},
                       interfaces: {eth0: {groups: [web]}}}";
const FOLLOW: &[&str] = &["events", "--follow", "--json"];

fn follow(sg: &Sg, more: &[&str]) -> Result<Running> {
    Running::reading(sg.spawn(&[FOLLOW, more].concat())?)
}

/// Sends one packet that no rule admits.
fn refused(pair: &Pair, source_port: u16) -> Result<()> {
    let words = format!("tcp 198.51.100.7:{source_port} > 10.0.0.10:22 syn");
    Injector::on(&pair.world, "eth0")?.send(&frame(&words)?)
}

fn is_drop(event: &Value) -> bool {
    event["event"] == "drop" && event["reason"] == "no-rule" && event["direction"] == "ingress"
}

/// Waits until the reader reads.
fn when_it_listens(pair: &Pair, reader: &Running) -> Result<Value> {
    reader.json_when(|| refused(pair, 1), is_drop)
}

/// What was counted at the interface's ingress for want of a rule.
fn dropped(sg: &Sg) -> Result<u64> {
    sg.packets(|counted| is_drop(&with_kind(counted)))
}

fn with_kind(counted: &Value) -> Value {
    let mut counted = counted.clone();
    counted["event"] = "drop".into();
    counted
}

fn flow_map(sg: &Sg, name: &str) -> PathBuf {
    sg.run_dir().join("bpf/flows").join(name)
}

/// By kind, whether the kernel believes that somebody wants events.
fn wanted(sg: &Sg) -> Result<u32> {
    let map = Map::from_map_data(MapData::from_pin(flow_map(sg, "WANTED"))?)?;
    let wanted: Array<_, u32> = map.try_into()?;
    Ok(wanted.get(&0, 0)?)
}

/// How many records are in the first reader's ring. Takes them out.
fn in_ring(sg: &Sg) -> Result<usize> {
    let map = Map::from_map_data(MapData::from_pin(flow_map(sg, "EVENTS_0"))?)?;
    let mut ring: RingBuf<_> = map.try_into()?;
    let mut records = 0;
    while ring.next().is_some() {
        records += 1;
    }
    Ok(records)
}

#[test]
fn a_dropped_syn_is_told_with_its_reason_and_peer() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let reader = follow(&sg, &["--peer", "198.51.100.0/24", "--reason", "no-rule"])?;
    let event = reader.json_when(|| refused(&pair, 4_000), |event| event["event"] == "drop")?;
    for (field, value) in [
        ("interface", "eth0".into()),
        ("direction", "ingress".into()),
        ("verdict", "drop".into()),
        ("audit", false.into()),
        ("reason", "no-rule".into()),
        ("protocol", "tcp".into()),
        ("peer", "198.51.100.7".into()),
        ("peer_port", 4_000.into()),
        ("local", "10.0.0.10".into()),
        ("local_port", 22.into()),
        ("tcp_flags", "SYN".into()),
        (
            "sentence",
            "No rule of any attached group allows it.".into(),
        ),
        ("packets", 1.into()),
        ("version", 1.into()),
    ] {
        let value: Value = value;
        ensure!(event[field] == value, "{field} is not {value} in {event}");
    }
    reader.signal(Signal::SIGTERM)?;
    ensure!(reader.end()?.0 == Some(0), "SIGTERM is no failure");
    Ok(())
}

#[test]
fn a_new_flow_is_told_with_its_rule() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let _web = TcpEcho::listen(&pair.host, ":80")?;
    let reader = follow(&sg, &["--new-flows"])?;
    let connect = || {
        let outcome = tcp_connects(pair.world.at("203.0.113.5")?, "10.0.0.10:80")?;
        ensure!(outcome == Outcome::Connected);
        Ok(())
    };
    let event = reader.json_when(connect, |event| event["event"] == "new-flow")?;
    let rule = sg.json(&["rule", "list", "web"])?;
    let rules = rule["rules"].as_array().context("no rules")?;
    let rule = rules.iter().find(|rule| rule["direction"] == "ingress");
    let rule = rule.context("no ingress rule")?;
    ensure!(event["rule"] == rule["id"], "{event} for {rule}");
    ensure!(
        event["rule_group"] == "web" && event["verdict"] == "pass",
        "{event}"
    );
    Ok(())
}

#[test]
fn in_a_flood_events_and_untold_packets_are_all_that_was_dropped() -> Result<()> {
    const FLOOD: u16 = 20_000;
    let (pair, sg) = Sg::protecting(POLICY)?;
    let reader = follow(&sg, &[])?;
    when_it_listens(&pair, &reader)?;
    while reader.line_within(Duration::from_secs(1))?.is_some() {}
    let before = dropped(&sg)?;
    let injector = Injector::on(&pair.world, "eth0")?;
    let syn = frame("tcp 198.51.100.7:4000 > 10.0.0.10:22 syn")?;
    for _ in 0..FLOOD {
        injector.send(&syn)?;
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while dropped(&sg)? < before + u64::from(FLOOD) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
    }
    let counted = dropped(&sg)? - before;
    reader.signal(Signal::SIGINT)?;
    let (code, lines) = reader.end()?;
    ensure!(code == Some(0));
    let (mut told, mut untold) = (0, 0);
    for line in &lines {
        let event: Value = serde_json::from_str(line)?;
        match event["event"].as_str() {
            Some("unseen") => untold += event["drops"].as_u64().unwrap_or_default(),
            _ if is_drop(&event) => told += event["packets"].as_u64().unwrap_or_default(),
            _ => {}
        }
    }
    ensure!(
        told > 0 && untold > 0 && told + untold == counted,
        "{counted} packets were dropped, {told} told and {untold} counted as untold"
    );
    Ok(())
}

#[test]
fn a_reader_that_was_stopped_says_how_much_it_has_missed() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let reader = follow(&sg, &[])?;
    when_it_listens(&pair, &reader)?;
    while reader.line_within(Duration::from_secs(1))?.is_some() {}
    let before = dropped(&sg)?;
    reader.signal(Signal::SIGSTOP)?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while wanted(&sg)? != 0 {
        ensure!(Instant::now() < deadline, "the lease does not end");
        thread::sleep(Duration::from_millis(200));
        refused(&pair, 2)?;
    }
    for port in 10_000..10_100 {
        refused(&pair, port)?;
    }
    let counted = dropped(&sg)? - before;
    reader.signal(Signal::SIGCONT)?;
    let mut lines = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !lines.iter().any(|line: &String| line.contains("paused_s")) {
        ensure!(
            Instant::now() < deadline,
            "the pause is not told: {lines:?}"
        );
        lines.extend(reader.line_within(Duration::from_millis(300))?);
    }
    reader.signal(Signal::SIGINT)?;
    let (code, more) = reader.end()?;
    ensure!(code == Some(0));
    lines.extend(more);
    let (mut told, mut untold) = (0, 0);
    for line in &lines {
        let event: Value = serde_json::from_str(line)?;
        match event["event"].as_str() {
            Some("unseen") => {
                untold += event["drops"].as_u64().unwrap_or_default();
                ensure!(event["paused_s"].as_u64() >= Some(3), "{event}");
            }
            _ if is_drop(&event) => told += event["packets"].as_u64().unwrap_or_default(),
            _ => {}
        }
    }
    ensure!(
        untold >= 100 && told + untold == counted,
        "{counted} packets were dropped, {told} told and {untold} counted as untold"
    );
    Ok(())
}

#[test]
fn without_a_reader_nothing_is_written() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    for port in 1..100 {
        refused(&pair, port)?;
    }
    ensure!(dropped(&sg)? == 99);
    ensure!(wanted(&sg)? == 0, "somebody is believed to read");
    ensure!(in_ring(&sg)? == 0, "the ring was written");
    Ok(())
}

#[test]
fn a_killed_reader_ends_the_writing() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let reader = follow(&sg, &[])?;
    when_it_listens(&pair, &reader)?;
    ensure!(wanted(&sg)? == 1);
    reader.signal(Signal::SIGKILL)?;
    reader.end()?;
    ensure!(wanted(&sg)? == 1, "nobody can have cleared it");
    let deadline = Instant::now() + Duration::from_secs(20);
    while wanted(&sg)? != 0 {
        ensure!(Instant::now() < deadline, "the lease does not end");
        thread::sleep(Duration::from_millis(200));
        refused(&pair, 2)?;
    }
    in_ring(&sg)?;
    refused(&pair, 3)?;
    ensure!(in_ring(&sg)? == 0, "the ring is still written");
    Ok(())
}

#[test]
fn four_read_side_by_side_and_a_fifth_is_told_why_not() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let readers: Vec<_> = (0..4).map(|_| follow(&sg, &[])).collect::<Result<_>>()?;
    for reader in &readers {
        when_it_listens(&pair, reader)?;
    }
    let is_marked = |event: &Value| event["peer_port"] == 4_444;
    for reader in &readers {
        reader.json_when(|| refused(&pair, 4_444), is_marked)?;
    }
    let fifth = sg.run(&["events"])?;
    ensure!(fifth.code == Some(2), "{fifth}");
    ensure!(
        fifth.stderr.contains("4 commands read events already"),
        "{fifth}"
    );
    // A seat that is given back can be taken.
    drop(readers);
    ensure!(sg.run(&["events", "--for", "0"])?.code == Some(0));
    Ok(())
}

#[test]
fn readers_go_on_when_everything_was_detached_and_attached_again() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let reader = follow(&sg, &[])?;
    when_it_listens(&pair, &reader)?;
    sg.run(&["detach", "eth0"])?.succeeded()?;
    sg.apply(POLICY)?;
    reader.json_when(
        || refused(&pair, 5_555),
        |event| event["peer_port"] == 5_555,
    )?;
    Ok(())
}
