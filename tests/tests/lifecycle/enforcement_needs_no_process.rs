//! What was applied holds while no process of sg runs, goes without a trace, and comes back.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tests::lab::Lab;
use tests::sg::Sg;
use tests::sockets::{Outcome, TcpEcho, ports_80_and_81};

const POLICY: &str = "{groups: {web: {ingress: [{protocol: tcp, ports: 80, from: 0.0.0.0/0}]}}, \
                      interfaces: {eth0: {groups: [web]}}}";

const ENFORCED: [Outcome; 2] = [Outcome::Connected, Outcome::TimedOut];
const OPEN: [Outcome; 2] = [Outcome::Connected, Outcome::Refused];

fn mounts_below(folder: &Path) -> Result<usize> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
    let folder = folder.display().to_string();
    Ok(mounts.lines().filter(|line| line.contains(&folder)).count())
}

/// Processes that run with the state of this instance.
fn processes_of(sg: &Sg) -> usize {
    let wanted = format!("SG_STATE_DIR={}", sg.state_dir().display());
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| fs::read(entry.path().join("environ")).ok())
        .filter(|environ| {
            environ
                .split(|byte| *byte == 0)
                .any(|line| line == wanted.as_bytes())
        })
        .count()
}

#[test]
fn it_enforces_while_no_process_runs_and_leaves_nothing_when_detached() -> Result<()> {
    let pair = Lab::pair()?;
    let _web = TcpEcho::listen(&pair.host, ":80")?;
    let sg = Sg::on(&pair.host)?;
    ensure!(ports_80_and_81(&pair)? == OPEN);
    sg.apply(POLICY)?;
    ensure!(processes_of(&sg) == 0, "a process of sg is left running");
    ensure!(ports_80_and_81(&pair)? == ENFORCED);
    ensure!(mounts_below(&sg.run_dir())? == 1);
    sg.run(&["detach", "eth0"])?.succeeded()?;
    ensure!(ports_80_and_81(&pair)? == OPEN);
    ensure!(mounts_below(&sg.run_dir())? == 0, "a mount is left");
    ensure!(
        !sg.run_dir().join("bpf").exists(),
        "the folder of pins is left"
    );
    let link = pair.host.ip("-details link show eth0")?;
    ensure!(!link.contains("xdp"), "an XDP program is left: {link}");
    ensure!(
        pair.host
            .run("tc", &["qdisc", "show", "dev", "eth0"])?
            .find("clsact")
            .is_none()
    );
    Ok(())
}

#[test]
fn an_interface_that_is_made_again_is_protected_after_restore() -> Result<()> {
    let pair = Lab::pair()?;
    let _web = TcpEcho::listen(&pair.host, ":80")?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(POLICY)?;
    pair.host.ip("link del eth0")?;
    pair.lab.join((&pair.world, "eth0"), (&pair.host, "eth0"))?;
    pair.world.add_addresses("eth0", &["10.0.0.1/24"])?;
    pair.host.add_addresses("eth0", &["10.0.0.10/24"])?;
    sg.run(&["restore"])?.succeeded()?;
    ensure!(ports_80_and_81(&pair)? == ENFORCED);
    Ok(())
}
