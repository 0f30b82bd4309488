//! `doctor` finds what keeps a machine from being protected, and says what to do about it.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::lab::Lab;
use tests::sg::Sg;

fn check<'a>(told: &'a Value, name: &str) -> Result<Vec<&'a Value>> {
    let checks = told["checks"].as_array().context("no checks")?;
    Ok(checks
        .iter()
        .filter(|check| check["name"] == name)
        .collect())
}

#[test]
fn a_sound_machine_has_no_problem_and_a_detached_one_has() -> Result<()> {
    let (pair, sg) = Sg::protecting("{groups: {web: {}}, interfaces: {eth0: {groups: [web]}}}")?;
    let sound = sg.run(&["doctor"])?;
    ensure!(sound.code == Some(0), "{sound}");
    ensure!(sound.stdout.contains("0 problems"), "{sound}");
    for name in [
        "kernel",
        "programs",
        "TC",
        "grace periods",
        "bpffs",
        "drift",
        "store",
    ] {
        let told = sg.json(&["doctor"])?;
        let found = check(&told, name)?;
        ensure!(
            found.len() == 1 && found[0]["state"] == "ok",
            "{name}: {found:?}"
        );
    }

    let links = sg.run_dir().join("bpf/links");
    for link in std::fs::read_dir(links)?.flatten() {
        let link = link.path().display().to_string();
        pair.host
            .run("bpftool", &["link", "detach", "pinned", &link])?;
    }
    let sick = sg.run(&["doctor"])?;
    ensure!(sick.code == Some(1), "{sick}");
    let told = sg.json(&["doctor"])?;
    let drift = check(&told, "drift")?;
    ensure!(drift.len() == 2, "{drift:?}");
    for found in drift {
        ensure!(
            found["state"] == "problem" && found["next"] == "sg-ctl restore",
            "{found}"
        );
    }
    sg.run(&["restore"])?.succeeded()?;
    ensure!(sg.run(&["doctor"])?.code == Some(0));
    Ok(())
}

#[test]
fn it_looks_at_a_machine_that_has_nothing_and_changes_nothing() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    sg.run(&["doctor"])?.succeeded()?;
    ensure!(
        !sg.state_dir().exists() && !sg.run_dir().exists(),
        "it made folders"
    );
    let nobody = sg.run_unprivileged(&["doctor"])?;
    ensure!(
        nobody.code == Some(1) && nobody.stdout.contains("run sg-ctl as root"),
        "{nobody}"
    );
    Ok(())
}

/// Root without all capabilities but these.
fn with_capabilities(sg: &Sg, kept: &str) -> Result<Value> {
    let bounding = format!("--bounding-set=-all{kept}");
    let setpriv = ["setpriv", bounding.as_str(), "--inh-caps=-all"];
    let told = sg.run_under(&setpriv, &["doctor", "--json"])?;
    serde_json::from_str(&told.stdout).with_context(|| told.to_string())
}

#[test]
fn the_capabilities_that_it_takes_are_those_that_are_named() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let told = with_capabilities(&sg, ",+bpf,+net_admin,+perfmon")?;
    for name in ["privileges", "programs"] {
        let found = check(&told, name)?;
        ensure!(found.len() == 1 && found[0]["state"] == "ok", "{found:?}");
    }
    let told = with_capabilities(&sg, ",+bpf,+net_admin")?;
    let found = check(&told, "privileges")?;
    let text = found[0]["found"].as_str().unwrap_or_default();
    ensure!(text.contains("CAP_PERFMON is missing"), "{found:?}");
    // The kernel is of the same opinion, and what it says is not taken for another thing.
    let found = check(&told, "programs")?;
    ensure!(
        found.iter().all(|found| found["state"] == "problem"),
        "{found:?}"
    );
    Ok(())
}

#[test]
fn other_filters_and_ways_past_a_protected_interface_are_told() -> Result<()> {
    let (pair, sg) = Sg::protecting("{groups: {g: {}}, interfaces: {eth0: {groups: [g]}}}")?;
    let doctor = || Ok::<_, anyhow::Error>(sg.run(&["doctor"])?.stdout);
    let quiet = doctor()?;
    ensure!(
        quiet.contains("no rule of nftables or iptables is seen"),
        "{quiet}"
    );
    ensure!(!quiet.contains("answers from"), "{quiet}");

    pair.host.run("nft", &["add table inet f"])?;
    pair.host.run(
        "nft",
        &["add chain inet f c { type filter hook input priority 0 ; policy drop ; }"],
    )?;
    pair.lab.join((&pair.host, "eth1"), (&pair.world, "eth1"))?;
    pair.host.add_addresses("eth1", &["10.1.0.10/24"])?;
    pair.host
        .ip("route replace default via 10.1.0.1 dev eth1")?;
    pair.host.enter(|| {
        Ok(std::fs::write(
            "/proc/sys/net/ipv4/conf/eth0/rp_filter",
            "1",
        )?)
    })?;
    let told = doctor()?;
    for wanted in [
        "nftables: table inet f, chain c (input): drops by default",
        "answers from 10.0.0.10 of eth0 to far networks leave by eth1, which sg does not protect",
        "rp_filter is strict at eth0",
    ] {
        ensure!(told.contains(wanted), "{wanted}: {told}");
    }
    sg.run(&["attach", "eth1", "--group", "g"])?.succeeded()?;
    ensure!(!doctor()?.contains("answers from"), "{}", doctor()?);
    Ok(())
}

#[test]
fn other_filters_are_looked_for_where_the_interfaces_are() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.world)?;
    let host = pair.host.namespace();
    sg.apply(&format!(
        "{{groups: {{g: {{}}}}, interfaces: {{eth0: {{groups: [g], netns: {host}}}}}}}"
    ))?;
    for (netns, table) in [(&pair.host, "there"), (&pair.world, "here")] {
        netns.run("nft", &[&format!("add table inet {table}")])?;
        let hook = "{ type filter hook input priority 0 ; policy drop ; }";
        netns.run("nft", &[&format!("add chain inet {table} c {hook}")])?;
    }
    let doctor = sg.run(&["doctor"])?.stdout;
    let wanted =
        format!("nftables: table inet there, chain c (input): drops by default (in {host})");
    ensure!(doctor.contains(&wanted), "{wanted}: {doctor}");
    let listed = format!("ip netns exec {host} nft list ruleset");
    ensure!(doctor.contains(&listed), "{listed}: {doctor}");
    // No interface of this namespace is protected.
    ensure!(!doctor.contains("table inet here"), "{doctor}");
    Ok(())
}
