//! `verify` tells when the kernel no longer holds what is stored, and `restore` repairs it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use tests::lab::Lab;
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{Session, TcpEcho, tcp_connects};

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
    let (_pair, sg) = Sg::protecting(POLICY)?;
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
    let (pair, sg) = Sg::protecting(POLICY)?;
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
    let (pair, sg) = Sg::protecting(POLICY)?;
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
    let (pair, sg) = Sg::protecting(POLICY)?;
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
    let (pair, sg) = Sg::protecting(&POLICY.replace("groups: [web]", "groups: [web, admin]"))?;
    ensure!(differences(&sg)?.is_empty());
    pair.host.add_addresses("eth0", &["10.0.0.77/24"])?;
    ensure!(differences(&sg)? == ["member"], "{:?}", differences(&sg)?);
    is_repaired(&sg)
}

/// Every pin but those of links.
fn pins(sg: &Sg) -> Result<Vec<PathBuf>> {
    let folders = fs::read_dir(sg.run_dir().join("bpf"))?.flatten();
    let folders = folders.map(|folder| folder.path());
    let folders = folders.filter(|folder| folder.is_dir() && !folder.ends_with("links"));
    let pins = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    Ok(pins.map(|pin| pin.path()).collect())
}

#[test]
fn pins_that_somebody_removed_are_noticed_and_come_back_with_what_they_held() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let _listener = TcpEcho::listen(&pair.host, ":22")?;
    let mut session = Session::open(pair.world.at("10.0.0.1:40000")?, "10.0.0.10:22")?;
    ensure!(session.echoes()? == Connected);
    let flows = || -> Result<usize> {
        let told = sg.json(&["flows", "list"])?;
        Ok(told["flows"].as_array().context("no flows")?.len())
    };
    ensure!(flows()? == 1);
    let all: Vec<String> = pins(&sg)?
        .iter()
        .filter_map(|pin| Some(pin.file_name()?.to_str()?.to_owned()))
        .collect();
    ensure!(all.len() > 30, "{all:?}");
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for removed in [
        &["FLOWS"][..],
        &["EVENTS_0", "EVENT_SCRATCHES"],
        &["GLOBALS", "MEMBERS"],
        &["netns-1-sg_tc_send", "sg_clock"],
        &all,
    ] {
        for pin in pins(&sg)? {
            if removed.iter().any(|name| pin.ends_with(name)) {
                fs::remove_file(pin)?;
            }
        }
        let found = differences(&sg)?;
        ensure!(
            found.iter().all(|kind| kind == "pin-removed") && found.len() == removed.len(),
            "{removed:?}: {found:?}"
        );
        let doctor = sg.run(&["doctor"])?;
        ensure!(doctor.stdout.contains("was removed"), "{doctor}");
        is_repaired(&sg)?;
        ensure!(flows()? == 1, "{removed:?} took the flows with it");
    }
    // A change puts them back as well.
    let flows_pin = pins(&sg)?.into_iter().find(|pin| pin.ends_with("FLOWS"));
    fs::remove_file(flows_pin.context("no table of flows")?)?;
    let words = "rule add web --ingress --protocol udp --ports 53 --from pl:office";
    let words: Vec<&str> = words.split(' ').collect();
    sg.run(&words)?.succeeded()?;
    ensure!(differences(&sg)?.is_empty());
    ensure!(flows()? == 1, "a change took the flows with it");
    ensure!(session.echoes()? == Connected);
    Ok(())
}

#[test]
fn a_damaged_record_is_noticed_and_repaired_without_a_gap() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let _listener = TcpEcho::listen(&pair.host, ":81")?;
    for (name, at) in [("installed", 40), ("installed", 2), ("owner", 20)] {
        let path = sg.run_dir().join(name);
        let mut bytes = fs::read(&path)?;
        bytes[at] ^= 4;
        fs::write(&path, bytes)?;
        let told = sg.run(&["verify"])?;
        ensure!(told.code == Some(2), "{told}");
        let wanted = format!("{} is damaged", path.display());
        ensure!(told.stderr.contains(&wanted), "wanted {wanted:?}: {told}");
        let refused = sg.run(&["group", "create", "other"])?;
        ensure!(refused.code == Some(2), "{refused}");
        ensure!(refused.stderr.contains(&wanted), "{refused}");
        ensure!(tcp_connects(&pair.world, "10.0.0.10:81")? == TimedOut);
        let restored = sg.run(&["restore"])?.succeeded()?;
        ensure!(
            restored.stderr.contains("was damaged or lost"),
            "{restored}"
        );
        ensure!(differences(&sg)?.is_empty());
        ensure!(tcp_connects(&pair.world, "10.0.0.10:81")? == TimedOut);
    }
    // One that somebody removed is no better.
    fs::remove_file(sg.run_dir().join("installed"))?;
    let told = sg.run(&["verify"])?;
    ensure!(told.stderr.contains("installed is gone"), "{told}");
    is_repaired(&sg)
}

#[test]
fn files_are_private_whatever_the_umask_is() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let path = sg.write_policy(POLICY)?;
    let open = ["sh", "-c", "umask 0; exec \"$0\" \"$@\""];
    sg.run_under(&open, &["apply", &path])?.succeeded()?;
    let words = "rule add web --ingress --protocol udp --ports 53 --from pl:office";
    let words: Vec<&str> = words.split(' ').collect();
    sg.run_under(&open, &words)?.succeeded()?;
    for folder in [sg.run_dir(), sg.state_dir()] {
        for entry in fs::read_dir(folder)?.flatten() {
            let mode = entry.metadata()?.mode() & 0o777;
            let wanted = if entry.path().is_dir() { 0o700 } else { 0o600 };
            ensure!(
                mode == wanted,
                "{} has mode {mode:o}",
                entry.path().display()
            );
        }
    }
    Ok(())
}
