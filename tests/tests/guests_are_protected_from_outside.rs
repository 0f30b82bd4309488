//! A guest behind a veth is protected from outside it, where it cannot switch that off.

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
    let stats = sg.json(&["stats"])?;
    let reasons = stats["interfaces"][0]["reasons"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let dropped = |reason: &str| reasons.iter().any(|counted| counted["reason"] == reason);
    ensure!(
        dropped("guest-source") || dropped("guest-arp"),
        "the address guard counted nothing: {reasons:?}"
    );
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
