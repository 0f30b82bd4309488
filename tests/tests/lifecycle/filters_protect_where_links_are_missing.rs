//! Where the kernel has no TCX links, filters of clsact protect as links do: beside the filters of
//! others, found again, repaired, and gone when they are no longer wanted.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::lab::{Host, Lab, Pair};
use tests::sg::Sg;
use tests::sockets::Outcome::{self, Connected, Refused, TimedOut};
use tests::sockets::{TcpEcho, UdpEcho, tcp_connects, udp_roundtrip};

const POLICY: &str = "
groups:
  web:
    ingress:
      - {protocol: tcp, ports: 80, from: [0.0.0.0/0]}
    egress:
      - {protocol: udp, ports: 53, to: [10.0.0.0/24]}
interfaces:
  eth0: {groups: [web]}
";

struct Machine {
    pair: Pair,
    sg: Sg,
    _listeners: (TcpEcho, UdpEcho, UdpEcho),
}

fn machine() -> Result<Machine> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    sg.use_filters(true);
    let listeners = (
        TcpEcho::listen(&pair.host, ":80")?,
        UdpEcho::listen(&pair.world, ":53")?,
        UdpEcho::listen(&pair.world, ":54")?,
    );
    Ok(Machine {
        pair,
        sg,
        _listeners: listeners,
    })
}

/// An open and a closed port inward, and the same outward.
fn outcomes(machine: &Machine) -> Result<[Outcome; 4]> {
    let Pair { world, host, .. } = &machine.pair;
    Ok([
        tcp_connects(world, "10.0.0.10:80")?,
        tcp_connects(world, "10.0.0.10:81")?,
        udp_roundtrip(host, "10.0.0.1:53")?,
        udp_roundtrip(host, "10.0.0.1:54")?,
    ])
}

const ENFORCED: [Outcome; 4] = [Connected, TimedOut, Connected, TimedOut];
const OPEN: [Outcome; 4] = [Connected, Refused, Connected, Connected];

fn tc(host: &Host, words: &str) -> Result<String> {
    let words: Vec<&str> = words.split_whitespace().collect();
    host.run("tc", &words)
}

/// The priorities of a way's filters. sg's is 1.
fn priorities(host: &Host, way: &str) -> Result<Vec<u64>> {
    let told = tc(host, &format!("-json filter show dev eth0 {way}"))?;
    let all: Vec<Value> = serde_json::from_str(&told).context("not JSON")?;
    let all = all.iter().filter_map(|filter| filter["pref"].as_u64());
    Ok(all.collect::<BTreeSet<_>>().into_iter().collect())
}

/// The priorities of both ways.
fn both(host: &Host) -> Result<[Vec<u64>; 2]> {
    Ok([priorities(host, "ingress")?, priorities(host, "egress")?])
}

fn has_clsact(host: &Host) -> Result<bool> {
    Ok(tc(host, "qdisc show dev eth0")?.contains("clsact"))
}

fn differences(sg: &Sg) -> Result<Vec<String>> {
    let told = sg.json(&["verify"])?;
    let list = told["differences"].as_array().context("no list")?.iter();
    let kinds = list.filter_map(|each| each["kind"].as_str());
    Ok(kinds.map(str::to_owned).collect())
}

#[test]
fn filters_enforce_a_policy_and_go_without_a_trace() -> Result<()> {
    let machine = machine()?;
    let (sg, host) = (&machine.sg, &machine.pair.host);
    ensure!(outcomes(&machine)? == OPEN);
    sg.apply(POLICY)?;
    ensure!(outcomes(&machine)? == ENFORCED, "{:?}", outcomes(&machine)?);
    ensure!(both(host)? == [[1], [1]], "{:?}", both(host)?);
    let status = sg.json(&["status"])?;
    let eth0 = &status["interfaces"][0];
    ensure!(
        (&eth0["attached"], &eth0["hook"], &eth0["tc"])
            == (&true.into(), &"tc".into(), &"clsact".into()),
        "{status}"
    );
    ensure!(differences(sg)?.is_empty(), "{:?}", differences(sg)?);
    // An edit finds its devices attached, and one rule more needs no other programs.
    sg.run(&[
        "rule",
        "add",
        "web",
        "--egress",
        "--protocol",
        "udp",
        "--ports",
        "54",
        "--to",
        "10.0.0.0/24",
    ])?
    .succeeded()?;
    ensure!(outcomes(&machine)? == [Connected, TimedOut, Connected, Connected]);
    sg.run(&["attach", "eth0", "--group", "web", "--hook", "xdp"])?
        .succeeded()?;
    ensure!(both(host)? == [vec![], vec![1]], "{:?}", both(host)?);
    ensure!(differences(sg)?.is_empty(), "{:?}", differences(sg)?);
    sg.run(&["detach", "eth0"])?.succeeded()?;
    ensure!(outcomes(&machine)? == OPEN);
    ensure!(!has_clsact(host)?, "the clsact of sg is left");
    ensure!(
        !sg.run_dir().join("bpf").exists(),
        "the folder of pins is left"
    );
    Ok(())
}

#[test]
fn what_others_have_in_a_clsact_stays_theirs() -> Result<()> {
    let machine = machine()?;
    let (sg, host) = (&machine.sg, &machine.pair.host);
    tc(host, "qdisc add dev eth0 clsact")?;
    // It ends the run of the filters, so that one after it is not asked.
    let foreign = "protocol ip prio 7 u32 match u32 0 0 flowid 1:1";
    tc(host, &format!("filter add dev eth0 ingress {foreign}"))?;
    tc(host, &format!("filter add dev eth0 egress {foreign}"))?;
    sg.apply(POLICY)?;
    ensure!(outcomes(&machine)? == ENFORCED, "{:?}", outcomes(&machine)?);
    ensure!(differences(sg)?.is_empty(), "{:?}", differences(sg)?);
    tc(
        host,
        "filter add dev eth0 ingress protocol all prio 2 u32 match u32 0 0 flowid 1:1",
    )?;
    ensure!(outcomes(&machine)? == ENFORCED, "{:?}", outcomes(&machine)?);
    sg.run(&["detach", "eth0"])?.succeeded()?;
    ensure!(both(host)? == [vec![2, 7], vec![7]], "{:?}", both(host)?);
    ensure!(outcomes(&machine)? == OPEN);

    // A clsact that sg has added is kept by the filter that somebody adds.
    tc(host, "qdisc del dev eth0 clsact")?;
    sg.apply(POLICY)?;
    tc(host, &format!("filter add dev eth0 egress {foreign}"))?;
    sg.run(&["detach", "eth0"])?.succeeded()?;
    ensure!(both(host)? == [vec![], vec![7]], "{:?}", both(host)?);
    // One that was there before sg is kept without any.
    tc(host, "filter del dev eth0 egress")?;
    sg.apply(POLICY)?;
    sg.run(&["detach", "eth0"])?.succeeded()?;
    ensure!(has_clsact(host)?, "a clsact that sg has not added is gone");
    Ok(())
}

#[test]
fn what_would_run_before_sg_is_refused() -> Result<()> {
    let machine = machine()?;
    let (sg, host) = (&machine.sg, &machine.pair.host);
    let policy = sg.write_policy(POLICY)?;
    tc(host, "qdisc add dev eth0 clsact")?;
    tc(
        host,
        "filter add dev eth0 ingress protocol ip prio 1 u32 match u32 0 0 flowid 1:1",
    )?;
    let ran = sg.run(&["apply", &policy])?;
    ensure!(ran.code == Some(2), "{ran}");
    ensure!(
        ran.stderr
            .contains("interface eth0 has a `u32` filter with priority 1"),
        "{ran}"
    );
    tc(host, "qdisc del dev eth0 clsact")?;
    tc(host, "qdisc add dev eth0 ingress")?;
    let ran = sg.run(&["apply", &policy])?;
    ensure!(ran.code == Some(2), "{ran}");
    ensure!(
        ran.stderr.contains("queueing discipline `ingress`"),
        "{ran}"
    );
    ensure!(tc(host, "qdisc show dev eth0")?.contains("ingress"));
    ensure!(
        both(host)?.iter().all(Vec::is_empty),
        "sg left a filter behind"
    );
    tc(host, "qdisc del dev eth0 ingress")?;
    sg.apply(POLICY)?;
    ensure!(outcomes(&machine)? == ENFORCED, "{:?}", outcomes(&machine)?);
    Ok(())
}

#[test]
fn what_is_done_to_a_filter_is_noticed_and_repaired() -> Result<()> {
    let machine = machine()?;
    let (sg, host) = (&machine.sg, &machine.pair.host);
    sg.apply(POLICY)?;
    let is_repaired = || -> Result<()> {
        sg.run(&["restore"])?.succeeded()?;
        ensure!(differences(sg)?.is_empty(), "{:?}", differences(sg)?);
        ensure!(outcomes(&machine)? == ENFORCED, "{:?}", outcomes(&machine)?);
        Ok(())
    };
    tc(host, "filter del dev eth0 ingress")?;
    ensure!(differences(sg)? == ["detached"], "{:?}", differences(sg)?);
    let status = sg.json(&["status"])?;
    ensure!(status["interfaces"][0]["attached"] == false, "{status}");
    is_repaired()?;
    tc(host, "qdisc del dev eth0 clsact")?;
    ensure!(
        differences(sg)? == ["detached", "detached"],
        "{:?}",
        differences(sg)?
    );
    is_repaired()?;
    // Another instance's filters run first, since they came later, and have another handle.
    let other = Sg::on(host)?;
    other.use_filters(true);
    other.apply(POLICY)?;
    ensure!(
        differences(&other)?.is_empty(),
        "{:?}",
        differences(&other)?
    );
    ensure!(
        differences(sg)? == ["preceded", "preceded"],
        "{:?}",
        differences(sg)?
    );
    other.run(&["detach", "eth0"])?.succeeded()?;
    ensure!(differences(sg)?.is_empty(), "{:?}", differences(sg)?);
    ensure!(outcomes(&machine)? == ENFORCED, "{:?}", outcomes(&machine)?);
    Ok(())
}

#[test]
fn a_kernel_with_links_gets_links() -> Result<()> {
    let machine = machine()?;
    let (sg, host) = (&machine.sg, &machine.pair.host);
    sg.apply(POLICY)?;
    sg.use_filters(false);
    ensure!(differences(sg)?.is_empty(), "{:?}", differences(sg)?);
    sg.run(&["restore"])?.succeeded()?;
    ensure!(both(host)?.iter().all(Vec::is_empty), "{:?}", both(host)?);
    let status = sg.json(&["status"])?;
    ensure!(status["interfaces"][0]["tc"] == "tcx", "{status}");
    ensure!(differences(sg)?.is_empty(), "{:?}", differences(sg)?);
    ensure!(outcomes(&machine)? == ENFORCED, "{:?}", outcomes(&machine)?);
    // Removing it loses packets, so it stays while the device is protected.
    ensure!(has_clsact(host)?);
    sg.run(&["detach", "eth0"])?.succeeded()?;
    ensure!(!has_clsact(host)?, "the clsact of sg is left");
    Ok(())
}
