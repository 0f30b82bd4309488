//! Tables start small and grow with what is attached. Nothing that was counted is lost by it, nothing
//! is counted for another interface, and every packet is judged meanwhile.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::lab::{Lab, Pair};
use tests::sg::Sg;

const POLICY: &str = "
groups:
  g:
    ingress:
      - {protocol: udp, ports: 7, from: [10.0.0.0/8]}
interfaces:
  eth0: {groups: [g]}
";
/// More than the first tables have room for, by steps that make them grow twice.
const STEPS: [usize; 2] = [80, 150];

fn protect(pair: &Pair, sg: &Sg, interfaces: usize) -> Result<()> {
    let mut policy = POLICY.to_owned();
    for number in 0..interfaces {
        policy.push_str(&format!("  v{number}: {{groups: [g]}}\n"));
    }
    let present = pair.host.ip("-br link show")?;
    for number in (0..interfaces).filter(|number| !present.contains(&format!("v{number}@"))) {
        pair.host
            .ip(&format!("link add v{number} type veth peer name w{number}"))?;
    }
    sg.apply(&policy)?;
    Ok(())
}

fn counted(sg: &Sg, interface: &str, reason: &str) -> Result<u64> {
    let stats = sg.json(&["stats"])?;
    let interfaces = stats["interfaces"].as_array().context("no interfaces")?;
    let found = interfaces
        .iter()
        .find(|found| found["name"] == interface)
        .with_context(|| format!("{interface} is not there"))?;
    let reasons = found["reasons"].as_array().context("no reasons")?;
    let found = reasons
        .iter()
        .filter(|count| count["direction"] == "ingress" && count["reason"] == reason);
    Ok(found.filter_map(|count| count["packets"].as_u64()).sum())
}

#[test]
fn every_dropped_packet_is_counted_once_while_interfaces_come() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    // Nothing listens, and no rule allows it.
    let socket = pair.world.enter(|| {
        let socket = UdpSocket::bind("10.0.0.1:0")?;
        socket.connect("10.0.0.10:9")?;
        Ok(socket)
    })?;
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| -> Result<()> {
        let sender = scope.spawn(|| -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                socket.send(b"dropped")?;
                sent.fetch_add(1, Ordering::Relaxed);
                // So slow that no queue overflows.
                thread::sleep(std::time::Duration::from_micros(50));
            }
            Ok(())
        });
        let grown = STEPS.iter().try_for_each(|step| protect(&pair, &sg, *step));
        over.store(true, Ordering::Relaxed);
        sender
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the sender panicked")))?;
        grown
    })?;
    let (sent, counted_here) = (sent.into_inner(), counted(&sg, "eth0", "no-rule")?);
    ensure!(sent > 1_000, "only {sent} packets were sent");
    ensure!(
        sent == counted_here,
        "{sent} packets were sent, and {counted_here} are counted as dropped"
    );
    println!("{sent} packets while {} interfaces came", STEPS[1]);
    Ok(())
}

#[test]
fn an_interface_counts_from_zero_whatever_had_its_slot_before() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    pair.world.enter(|| {
        let socket = UdpSocket::bind("10.0.0.1:0")?;
        socket.connect("10.0.0.10:9")?;
        for _ in 0..10 {
            socket.send(b"dropped")?;
        }
        Ok(())
    })?;
    ensure!(counted(&sg, "eth0", "no-rule")? == 10, "ten were dropped");
    pair.host.ip("link add v0 type veth peer name w0")?;
    let other = POLICY.replace("eth0", "v0");
    sg.apply(&other)?;
    // Its slot is free again only after a change in which no interface had it.
    sg.apply(POLICY)?;
    let stats = sg.json(&["stats"])?;
    let reasons = &stats["interfaces"][0]["reasons"];
    let dropped = reasons.as_array().context("no reasons")?.iter();
    let dropped: Vec<&Value> = dropped
        .filter(|count| count["reason"] == "no-rule")
        .collect();
    ensure!(dropped.is_empty(), "eth0 was attached anew: {dropped:?}");
    Ok(())
}

#[test]
fn the_limit_of_interfaces_changes_while_they_are_attached() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    protect(&pair, &sg, 2)?;
    let set = |value: &str| sg.run(&["limits", "set", &format!("interfaces={value}")]);
    set("8")?.succeeded()?;
    set("20000")?.succeeded()?;
    let refused = set("2")?;
    ensure!(refused.code == Some(2), "{refused:?}");
    ensure!(
        refused.stderr.contains("3 entries are needed") && refused.stderr.contains("interfaces=8"),
        "{refused:?}"
    );
    let status = sg.json(&["status"])?;
    let interfaces = status["interfaces"].as_array().context("no interfaces")?;
    ensure!(
        interfaces.len() == 3 && interfaces.iter().all(|found| found["attached"] == true),
        "{interfaces:?}"
    );
    Ok(())
}
