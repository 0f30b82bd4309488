//! `verify` tells when the kernel no longer holds what is stored, and `restore` repairs it.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use tests::lab::{Lab, Pair};
use tests::sg::Sg;

const POLICY: &str = "
prefix_lists:
  office: [198.51.100.0/24, 2001:db8:aa::/48]
groups:
  web:
    ingress:
      - {protocol: tcp, ports: [80, 8000-8080], from: [0.0.0.0/0, pl:office]}
      - {protocol: tcp, ports: 22, from: [10.0.0.0/24, sg:admin]}
    egress:
      - {protocol: udp, ports: 53, to: [10.0.0.1/32]}
  admin: {members: [10.1.1.1, '2001:db8::2']}
interfaces:
  eth0: {groups: [web]}
";

fn protected() -> Result<(Pair, Sg)> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(POLICY)?;
    Ok((pair, sg))
}

/// The kinds of differences there are.
fn differences(sg: &Sg) -> Result<Vec<String>> {
    let ran = sg.run(&["verify"])?;
    let told = sg.json(&["verify"])?;
    let list = told["differences"].as_array().context("no list")?;
    ensure!(told["same"] == list.is_empty(), "{told}");
    ensure!(
        ran.code == Some(if list.is_empty() { 0 } else { 1 }),
        "{ran}"
    );
    for text in list.iter().filter_map(|each| each["text"].as_str()) {
        ensure!(ran.stdout.contains(text), "{ran}");
    }
    let kinds = list.iter().filter_map(|each| each["kind"].as_str());
    Ok(kinds.map(str::to_owned).collect())
}

fn is_repaired(sg: &Sg) -> Result<()> {
    sg.run(&["restore"])?.succeeded()?;
    let left = differences(sg)?;
    ensure!(left.is_empty(), "after restore: {left:?}");
    Ok(())
}

/// The file of a pin, by its name.
fn pin(sg: &Sg, folder: &str, name: &str) -> Result<String> {
    let bpf = sg.run_dir().join("bpf");
    let folders = fs::read_dir(&bpf).context("no pins")?.flatten();
    let found = folders
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(folder))
        .flat_map(|entry| fs::read_dir(entry.path()).into_iter().flatten().flatten())
        .find(|entry| entry.file_name().to_string_lossy().ends_with(name));
    let found = found.with_context(|| format!("no pin {folder}/{name}"))?;
    Ok(found.path().display().to_string())
}

#[test]
fn a_policy_is_the_same_after_every_change_of_it() -> Result<()> {
    let (_pair, sg) = protected()?;
    ensure!(differences(&sg)?.is_empty(), "{:?}", differences(&sg)?);
    for words in [
        "rule add web --ingress --protocol udp --ports 53 --from pl:office",
        "prefix-list add office 203.0.113.0/24",
        "group members admin --remove 10.1.1.1",
        "rule remove web --ingress --protocol tcp --ports 80 --from 0.0.0.0/0",
        "attach eth0 --group web,admin --hook xdp",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        sg.run(&words)?.succeeded()?;
        let found = differences(&sg)?;
        ensure!(found.is_empty(), "after {words:?}: {found:?}");
    }
    sg.run(&["detach", "eth0"])?.succeeded()?;
    ensure!(differences(&sg)?.is_empty());
    Ok(())
}

#[test]
fn a_foreign_detach_is_noticed_and_repaired() -> Result<()> {
    let (pair, sg) = protected()?;
    let link = pin(&sg, "links", "receive-tc")?;
    pair.host
        .run("bpftool", &["link", "detach", "pinned", &link])?;
    ensure!(differences(&sg)? == ["detached"], "{:?}", differences(&sg)?);
    let status = sg.json(&["status"])?;
    ensure!(status["interfaces"][0]["attached"] == false, "{status}");
    is_repaired(&sg)?;
    let status = sg.json(&["status"])?;
    ensure!(status["interfaces"][0]["attached"] == true, "{status}");
    Ok(())
}

#[test]
fn an_entry_that_somebody_deleted_is_noticed_and_repaired() -> Result<()> {
    let (pair, sg) = protected()?;
    let map = pin(&sg, "layout", "MEMBERS")?;
    let dump = pair
        .host
        .run("bpftool", &["--json", "map", "dump", "pinned", &map])?;
    let dump: serde_json::Value = serde_json::from_str(&dump)?;
    let key = dump[0]["key"].as_array().context("no member")?.iter();
    let key: Vec<&str> = key.filter_map(|byte| byte.as_str()).collect();
    let delete = [&["map", "delete", "pinned", &map, "key"], key.as_slice()].concat();
    pair.host.run("bpftool", &delete)?;
    ensure!(differences(&sg)? == ["map"], "{:?}", differences(&sg)?);
    is_repaired(&sg)
}

#[test]
fn another_program_before_ours_is_noticed() -> Result<()> {
    let (pair, sg) = protected()?;
    // Another instance puts its own program first.
    let other = Sg::on(&pair.host)?;
    other.apply(POLICY)?;
    ensure!(differences(&other)?.is_empty());
    ensure!(
        differences(&sg)? == ["preceded", "preceded"],
        "{:?}",
        differences(&sg)?
    );
    Ok(())
}

#[test]
fn an_address_that_came_since_is_noticed_and_repaired() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(&POLICY.replace("groups: [web]", "groups: [web, admin]"))?;
    ensure!(differences(&sg)?.is_empty());
    pair.host.add_addresses("eth0", &["10.0.0.77/24"])?;
    ensure!(differences(&sg)? == ["member"], "{:?}", differences(&sg)?);
    is_repaired(&sg)
}
