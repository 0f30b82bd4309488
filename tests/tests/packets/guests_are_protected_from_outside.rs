//! A guest behind a veth is protected from outside it, where it cannot switch that off.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::lab::Lab;
use tests::sg::Sg;
use tests::sockets::Outcome::{self, Connected, TimedOut};
use tests::sockets::{TcpEcho, ping, tcp_connects, udp_roundtrip};

const GUEST: &str = "
groups:
  app:
    ingress:
      - {protocol: tcp, ports: 8080, from: [10.0.0.0/24, '2001:db8::/64']}
interfaces:
  guest0: {groups: [app], side: guest, addresses: [10.0.0.10, '2001:db8::10'], hook: HOOK}
";

fn expect(what: &str, got: Outcome, wanted: Outcome) -> Result<()> {
    ensure!(got == wanted, "{what}: {got:?}, expected {wanted:?}");
    Ok(())
}

fn a_guest_is_protected(hook: &str) -> Result<()> {
    let lab = Lab::guest_behind_veth()?;
    let sg = Sg::on(&lab.machine)?;
    sg.apply(&GUEST.replace("HOOK", hook))?;
    let _listeners = (
        TcpEcho::listen(&lab.guest, ":8080")?,
        TcpEcho::listen(&lab.guest, ":22")?,
        TcpEcho::listen(&lab.world, ":443")?,
    );
    expect(
        "a rule",
        tcp_connects(&lab.world, "10.0.0.10:8080")?,
        Connected,
    )?;
    expect(
        "a rule",
        tcp_connects(&lab.world, "[2001:db8::10]:8080")?,
        Connected,
    )?;
    expect(
        "no rule",
        tcp_connects(&lab.world, "10.0.0.10:22")?,
        TimedOut,
    )?;
    expect("no rule", ping(&lab.world, "10.0.0.10")?, TimedOut)?;
    expect(
        "out with the reply",
        tcp_connects(&lab.guest, "10.0.0.1:443")?,
        Connected,
    )?;
    expect(
        "out with the reply",
        ping(&lab.guest, "10.0.0.1")?,
        Connected,
    )?;

    // The guest takes an address that is not its own: nothing of it leaves.
    lab.guest.add_addresses("eth0", &["10.0.0.66/24"])?;
    let stolen = || lab.guest.at("10.0.0.66");
    expect(
        "not its own address",
        tcp_connects(stolen()?, "10.0.0.1:443")?,
        TimedOut,
    )?;
    expect(
        "not its own address",
        udp_roundtrip(stolen()?, "10.0.0.1:53")?,
        TimedOut,
    )?;
    // Its ARP for that address is dropped as well, so the world may not even find a way there.
    let reached = tcp_connects(&lab.world, "10.0.0.66:8080");
    ensure!(
        !matches!(reached, Ok(Connected)),
        "an address that is not the guest's answers"
    );
    let reasons = reasons(&sg)?;
    ensure!(
        reasons.contains("guest-source") || reasons.contains("guest-arp"),
        "the address guard counted nothing: {reasons:?}"
    );
    ensure!(
        reasons.contains("not-for-guest"),
        "the world's questions for another are not counted: {reasons:?}"
    );
    Ok(())
}

fn reasons(sg: &Sg) -> Result<BTreeSet<String>> {
    let stats = sg.json(&["stats"])?;
    let counted = stats["interfaces"][0]["reasons"].as_array().cloned();
    let counted = counted.unwrap_or_default().into_iter();
    let named = counted.filter_map(|counted| counted["reason"].as_str().map(str::to_owned));
    Ok(named.collect())
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn a_guest_has_its_mac_address(hook: &str) -> Result<()> {
    let lab = Lab::guest_behind_veth()?;
    let sg = Sg::on(&lab.machine)?;
    sg.apply(&GUEST.replace("HOOK", hook))?;
    expect("its own", ping(&lab.guest, "10.0.0.1")?, Connected)?;

    // Where the switch believes the guest, the world gets nothing any more.
    let (own, worlds) = (lab.guest.mac("eth0")?, mac_text(lab.world.mac("eth0")?));
    lab.guest.ip(&format!("link set eth0 address {worlds}"))?;
    expect("its neighbor's", ping(&lab.guest, "10.0.0.1")?, TimedOut)?;
    let ports = lab.machine.run("bridge", &["fdb", "show", "br", "br0"])?;
    let port = ports.lines().find(|line| line.starts_with(&worlds));
    ensure!(
        port.is_none_or(|port| port.contains("uplink")),
        "the world is looked for behind {port:?}"
    );
    ensure!(
        reasons(&sg)?.contains("guest-mac"),
        "guest-mac is not counted"
    );

    lab.guest
        .ip(&format!("link set eth0 address {}", mac_text(own)))?;
    expect("its own again", ping(&lab.guest, "10.0.0.1")?, Connected)
}

#[test]
fn a_guest_has_its_mac_address_at_tc() -> Result<()> {
    a_guest_has_its_mac_address("tc")
}

#[test]
fn a_guest_has_its_mac_address_at_xdp() -> Result<()> {
    a_guest_has_its_mac_address("xdp")
}

/// Duplicate address detection for an address of the world, by a guest that would have it.
#[test]
fn a_guest_takes_no_address_by_asking_for_it() -> Result<()> {
    let lab = Lab::guest_behind_veth()?;
    let sg = Sg::on(&lab.machine)?;
    sg.apply(&GUEST.replace("HOOK", "tc"))?;
    lab.guest
        .run("sysctl", &["-qw", "net.ipv6.conf.eth0.accept_dad=1"])?;
    lab.guest
        .run("sysctl", &["-qw", "net.ipv6.conf.eth0.dad_transmits=1"])?;
    lab.guest.ip("address add 2001:db8::77/64 dev eth0")?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !reasons(&sg)?.contains("guest-neighbor-discovery") {
        ensure!(Instant::now() < deadline, "its question is not dropped");
    }
    Ok(())
}

#[test]
fn a_guest_is_protected_at_tc() -> Result<()> {
    a_guest_is_protected("tc")
}

#[test]
fn a_guest_is_protected_at_xdp() -> Result<()> {
    a_guest_is_protected("xdp")
}
