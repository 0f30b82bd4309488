//! After a boot, what is stored is in force before the network is, and on devices that come later
//! as soon as they come.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, umount2};
use tests::lab::{Lab, Pair};
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, Refused, TimedOut};
use tests::sockets::{Outcome, TcpEcho, tcp_connects};

const POLICY: &str = "{groups: {web: {ingress: [{protocol: tcp, ports: 80, from: 0.0.0.0/0}]}}, \
                      interfaces: {eth0: {groups: [web]}}}";

/// What a reboot takes away: `/run`, with every program and map.
fn reboot(sg: &Sg) -> Result<()> {
    umount2(&sg.run_dir().join("bpf"), MntFlags::empty()).context("unmounting the pins")?;
    fs::remove_dir_all(sg.run_dir()).context("emptying the run folder")
}

fn outcomes(pair: &Pair) -> Result<[Outcome; 2]> {
    Ok([
        tcp_connects(&pair.world, "10.0.0.10:80")?,
        tcp_connects(&pair.world, "10.0.0.10:81")?,
    ])
}

#[test]
fn a_device_that_comes_after_boot_is_protected_when_it_comes() -> Result<()> {
    let pair = Lab::pair()?;
    let _web = TcpEcho::listen(&pair.host, ":80")?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(POLICY)?;
    pair.host.ip("link del eth0")?;
    reboot(&sg)?;

    let early = sg.run(&["restore"])?.succeeded()?;
    ensure!(early.stderr.contains("eth0"), "it is not said: {early}");
    let others = sg.run(&["restore", "--device", "veth123"])?.succeeded()?;
    ensure!(others.stdout.is_empty(), "it did something: {others}");

    pair.lab.join((&pair.world, "eth0"), (&pair.host, "eth0"))?;
    pair.world.add_addresses("eth0", &["10.0.0.1/24"])?;
    pair.host.add_addresses("eth0", &["10.0.0.10/24"])?;
    ensure!(outcomes(&pair)? == [Connected, Refused]);
    sg.run(&["restore", "--device", "eth0"])?.succeeded()?;
    ensure!(outcomes(&pair)? == [Connected, TimedOut]);
    let again = sg.run(&["restore", "--device", "eth0"])?.succeeded()?;
    ensure!(again.stdout.is_empty(), "it did something: {again}");
    sg.run(&["verify"])?.succeeded()?;
    Ok(())
}

#[test]
fn a_device_that_is_there_at_boot_is_protected_before_it_has_an_address() -> Result<()> {
    let pair = Lab::pair()?;
    let _web = TcpEcho::listen(&pair.host, ":80")?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(POLICY)?;
    reboot(&sg)?;
    pair.host.ip("link set eth0 down")?;
    pair.host.ip("address flush dev eth0")?;
    let restored = sg.run(&["restore"])?.succeeded()?;
    ensure!(restored.stderr.is_empty(), "{restored}");
    pair.host.ip("link set eth0 up")?;
    pair.host.add_addresses("eth0", &["10.0.0.10/24"])?;
    ensure!(outcomes(&pair)? == [Connected, TimedOut]);
    Ok(())
}
