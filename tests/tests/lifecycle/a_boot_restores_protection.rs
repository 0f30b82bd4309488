//! After a boot, what is stored is in force before the network is, and on devices that come later
//! as soon as they come.

use anyhow::{Result, ensure};
use tests::lab::Lab;
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, Refused, TimedOut};
use tests::sockets::{TcpEcho, ports_80_and_81};

const POLICY: &str = "{groups: {web: {ingress: [{protocol: tcp, ports: 80, from: 0.0.0.0/0}]}}, \
                      interfaces: {eth0: {groups: [web]}}}";

#[test]
fn a_device_that_comes_after_boot_is_protected_when_it_comes() -> Result<()> {
    let pair = Lab::pair()?;
    let _web = TcpEcho::listen(&pair.host, ":80")?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(POLICY)?;
    pair.host.ip("link del eth0")?;
    sg.reboot()?;

    let early = sg.run(&["restore"])?.succeeded()?;
    ensure!(early.stderr.contains("eth0"), "it is not said: {early}");
    let others = sg.run(&["restore", "--device", "veth123"])?.succeeded()?;
    ensure!(others.stdout.is_empty(), "it did something: {others}");

    pair.lab.join((&pair.world, "eth0"), (&pair.host, "eth0"))?;
    pair.world.add_addresses("eth0", &["10.0.0.1/24"])?;
    pair.host.add_addresses("eth0", &["10.0.0.10/24"])?;
    ensure!(ports_80_and_81(&pair)? == [Connected, Refused]);
    sg.run(&["restore", "--device", "eth0"])?.succeeded()?;
    ensure!(ports_80_and_81(&pair)? == [Connected, TimedOut]);
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
    sg.reboot()?;
    pair.host.ip("link set eth0 down")?;
    pair.host.ip("address flush dev eth0")?;
    let restored = sg.run(&["restore"])?.succeeded()?;
    ensure!(restored.stderr.is_empty(), "{restored}");
    pair.host.ip("link set eth0 up")?;
    pair.host.add_addresses("eth0", &["10.0.0.10/24"])?;
    ensure!(ports_80_and_81(&pair)? == [Connected, TimedOut]);
    Ok(())
}
