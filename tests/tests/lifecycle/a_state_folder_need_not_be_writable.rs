//! A read-only or full state folder keeps no machine from being protected at boot, and no question
//! from being answered; what was committed last counts.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sg_ctl::store::{SqliteStore, Store as _};
use tests::lab::{Lab, Pair};
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{TcpEcho, tcp_connects};

const POLICY: &str = "{groups: {web: {ingress: [{protocol: tcp, ports: 80, from: 0.0.0.0/0}]}}, \
                      interfaces: {eth0: {groups: [web]}}}";
const RULE: [&str; 9] = [
    "rule",
    "add",
    "web",
    "--ingress",
    "--service",
    "https",
    "--from",
    "0.0.0.0/0",
    "--from",
];

fn mount_on(path: &Path, kind: Option<&str>, flags: MsFlags, data: Option<&str>) -> Result<()> {
    mount(Some(path), path, kind, flags, data).with_context(|| format!("on {}", path.display()))
}

/// Lets nothing be written below a path.
fn make_read_only(path: &Path) -> Result<()> {
    mount_on(path, None, MsFlags::MS_BIND, None)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount_on(path, None, flags, None)
}

/// Boots, and expects protection by what was stored last; nothing can be changed.
fn boots_and_answers(pair: &Pair, sg: &Sg, refusal: &str) -> Result<()> {
    let restored = sg.run(&["restore"])?.succeeded()?;
    ensure!(
        restored.stdout.contains("1 interface protected"),
        "{restored}"
    );
    for (port, wanted) in [(80, Connected), (443, Connected), (81, TimedOut)] {
        let got = tcp_connects(&pair.world, &format!("10.0.0.10:{port}"))?;
        ensure!(got == wanted, "port {port}: {got:?}");
    }
    let status = sg.run(&["status"])?.succeeded()?;
    ensure!(status.stdout.contains("protected"), "{status}");
    ensure!(sg.run(&["export"])?.succeeded()?.stdout.contains("443"));
    sg.run(&["verify"])?.succeeded()?;
    sg.run(&["stats"])?.succeeded()?;
    sg.run(&["explain", "eth0", "ingress", "https", "10.0.0.1"])?
        .succeeded()?;
    sg.run(&["restore"])?.succeeded()?;
    let refused = sg.run(&["group", "create", "other"])?;
    ensure!(refused.code == Some(2), "{refused}");
    ensure!(refused.stderr.contains(refusal), "{refused}");
    let left = fs::read_dir(sg.run_dir())?.flatten();
    let left = left.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let left: Vec<String> = left.filter(|name| name.starts_with("reading")).collect();
    ensure!(left.is_empty(), "copies are left: {left:?}");
    Ok(())
}

fn listeners(pair: &Pair) -> Result<[TcpEcho; 3]> {
    Ok([
        TcpEcho::listen(&pair.host, ":80")?,
        TcpEcho::listen(&pair.host, ":443")?,
        TcpEcho::listen(&pair.host, ":81")?,
    ])
}

#[test]
fn a_read_only_folder_is_read_with_the_log_that_is_there() -> Result<()> {
    let pair = Lab::pair()?;
    let _listeners = listeners(&pair)?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(POLICY)?;
    let state = sg.state_dir();
    // While somebody reads, what is committed stays in the log.
    let reader = SqliteStore::open(&state)?;
    reader.snapshot()?;
    let words = [&RULE[..], &["::/0"]].concat();
    sg.run(&words)?.succeeded()?;
    let log = state.join("policy.db-wal");
    ensure!(fs::metadata(&log)?.len() > 0, "there is no log");
    // A machine that lost its power has the file and the log, and no index of it.
    let copy = state.with_extension("copy");
    fs::create_dir(&copy)?;
    for name in ["policy.db", "policy.db-wal"] {
        fs::copy(state.join(name), copy.join(name))?;
    }
    drop(reader);
    fs::remove_dir_all(&state)?;
    fs::rename(&copy, &state)?;
    fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    sg.reboot()?;
    make_read_only(&state)?;
    boots_and_answers(&pair, &sg, "Read-only file system")?;
    umount2(&state, MntFlags::empty())?;
    sg.run(&["group", "create", "other"])?.succeeded()?;
    Ok(())
}

#[test]
fn a_full_folder_is_read() -> Result<()> {
    let pair = Lab::pair()?;
    let _listeners = listeners(&pair)?;
    let sg = Sg::on(&pair.host)?;
    let state = sg.state_dir();
    fs::create_dir(&state)?;
    mount_on(
        &state,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=1m,mode=0700"),
    )?;
    sg.apply(POLICY)?;
    let words = [&RULE[..], &["::/0"]].concat();
    sg.run(&words)?.succeeded()?;
    sg.reboot()?;
    let filling = state.join("filling");
    let filled = fs::write(&filling, vec![0; 2 << 20]);
    ensure!(filled.is_err(), "it is not full");
    boots_and_answers(&pair, &sg, "policy.db")?;
    fs::remove_file(&filling)?;
    sg.run(&["group", "create", "other"])?.succeeded()?;
    Ok(())
}
