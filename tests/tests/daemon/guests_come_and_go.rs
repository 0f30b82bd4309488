//! A hypervisor with two hundred taps that come and go while the daemon runs: each is protected by what
//! the policy says of it, has nothing of one before it, and leaves nothing behind.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::daemon::{Daemon, eventually};
use tests::lab::{Host, Lab};
use tests::sg::Sg;
use tests::tap::Tap;

const GUESTS: usize = 200;

/// A guest that is known by its MAC address has its own groups, under whatever name it comes.
const POLICY: &str = "
groups:
  guests: {ingress: [{service: https, from: 0.0.0.0/0}]}
  web: {ingress: [{service: ssh, from: 0.0.0.0/0}]}
interfaces:
  guests: {match: {name: 'vnet*'}, groups: [guests], side: guest, addresses: [10.0.3.7]}
  web: {match: {mac: '52:54:00:00:00:01'}, groups: [web], side: guest, addresses: [10.0.3.8]}
";

/// A UDP packet from 10.0.3.66, which is nobody's.
const FORGED: [u8; 42] = [
    2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, //
    0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 3, 66, 10, 0, 3, 1, //
    0, 9, 0, 9, 0, 8, 0, 0,
];

fn name(number: usize) -> String {
    format!("vnet{number}")
}

fn taps(machine: &Host) -> Result<Vec<Tap>> {
    (0..GUESTS)
        .map(|number| Tap::on(machine, &name(number)))
        .collect()
}

/// The state of each interface.
fn states(sg: &Sg) -> Result<BTreeMap<String, String>> {
    let status = sg.json(&["status"])?;
    let interfaces = status["interfaces"].as_array().context("interfaces")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let states = interfaces.iter();
    Ok(states
        .map(|one| (text(&one["interface"]), text(&one["state"])))
        .collect())
}

/// Waits until every tap is protected, `vnetN` of the guest that is known by its entry.
fn are_protected(sg: &Sg, daemon: &Daemon, known: usize) -> Result<()> {
    let wanted: BTreeMap<_, _> = (0..GUESTS)
        .map(|number| {
            let entry = match number == known {
                true => "web",
                false => "guests",
            };
            (format!("{entry}/{}", name(number)), "protected".to_owned())
        })
        .collect();
    // Asking for links costs little, and leaves the machine to the daemon.
    eventually(
        "every tap has both programs",
        || Ok(links(sg) == 2 * GUESTS),
    )
    .with_context(|| daemon.log())?;
    eventually("every tap is protected", || Ok(states(sg)? == wanted)).with_context(|| daemon.log())
}

/// How many packets each interface has dropped.
fn drops(sg: &Sg) -> Result<BTreeMap<String, u64>> {
    let stats = sg.json(&["stats"])?;
    let interfaces = stats["interfaces"].as_array().context("interfaces")?;
    let count = |one: &Value| {
        let reasons = one["reasons"].as_array().into_iter().flatten();
        let drops = reasons.filter(|reason| reason["reason"] == "guest-source");
        let packets = drops.map(|reason| reason["packets"].as_u64().unwrap_or_default());
        let name = one["interface"].as_str().unwrap_or_default().to_owned();
        (name, packets.sum())
    };
    Ok(interfaces.iter().map(count).collect())
}

fn links(sg: &Sg) -> usize {
    let folder = sg.run_dir().join("bpf/links");
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn two_hundred_taps_come_and_go() -> Result<()> {
    let lab = Lab::new()?;
    let machine = lab.host("machine")?;
    let sg = Sg::on(&machine)?;
    sg.apply(POLICY)?;
    let daemon = Daemon::start(&sg, "")?;
    ensure!(states(&sg)?.values().all(|state| state == "waiting"));
    for known in [7, 9] {
        let guests = taps(&machine)?;
        let mac = "link set vnetN address fe:54:00:00:00:01";
        machine.ip(&mac.replace('N', &known.to_string()))?;
        are_protected(&sg, &daemon, known)?;
        ensure!(sg.json(&["verify"])?["same"] == true);
        // A recycled name has nothing of the guest before it.
        ensure!(drops(&sg)?.len() == GUESTS);
        ensure!(drops(&sg)?.values().all(|count| *count == 0));
        for guest in &guests {
            guest.send(&FORGED)?;
        }
        let dropped = drops(&sg)?;
        ensure!(dropped.values().all(|count| *count == 1), "{dropped:?}");
        for (number, verdict) in [(known, "pass"), (known + 1, "drop")] {
            let words = ["explain", &name(number), "ingress", "ssh", "10.0.3.1"];
            let told = sg.json(&words)?;
            ensure!(told["verdict"] == verdict, "{number}: {told}");
        }
        drop(guests);
        eventually("nothing is left of them", || Ok(links(&sg) == 0))
            .with_context(|| daemon.log())?;
        let left = states(&sg)?;
        ensure!(left.len() == 2 && left.values().all(|state| state == "waiting"));
        ensure!(drops(&sg)?.is_empty());
    }
    Ok(())
}
