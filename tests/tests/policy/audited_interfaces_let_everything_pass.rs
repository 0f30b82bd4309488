//! An interface that is only audited: judged and counted as ever, and nothing is dropped.

use std::net::UdpSocket;

use anyhow::{Context as _, Result, ensure};
use tests::lab::Lab;
use tests::running::Running;
use tests::sg::Sg;
use tests::sockets::{Outcome, Session, TcpEcho, UdpEcho, tcp_connects, udp_roundtrip};

const POLICY: &str =
    "{groups: {web: {egress: [], ingress: [{protocol: tcp, ports: 80, from: 0.0.0.0/0}]}},
                       interfaces: {eth0: {groups: [web], hook: HOOK, audit: true}}}";

fn what_no_rule_allows_passes_and_is_counted(hook: &str) -> Result<()> {
    let pair = Lab::pair()?;
    let _services = (
        TcpEcho::listen(&pair.host, ":81")?,
        UdpEcho::listen(&pair.host, ":53")?,
        TcpEcho::listen(&pair.world, ":443")?,
    );
    let sg = Sg::on(&pair.host)?;
    sg.apply(&POLICY.replace("HOOK", hook))?;
    ensure!(tcp_connects(&pair.world, "10.0.0.10:81")? == Outcome::Connected);
    ensure!(udp_roundtrip(&pair.world, "10.0.0.10:53")? == Outcome::Connected);
    ensure!(tcp_connects(&pair.host, "10.0.0.1:443")? == Outcome::Connected);
    let mut session = Session::open(&pair.world, "10.0.0.10:81")?;
    ensure!(session.echoes()? == Outcome::Connected);

    let stats = sg.json(&["stats"])?;
    let interface = &stats["interfaces"][0];
    ensure!(interface["audit"] == true, "{interface}");
    let reasons = interface["reasons"].as_array().context("no reasons")?;
    for direction in ["ingress", "egress"] {
        let is_it = |counted: &&serde_json::Value| {
            counted["direction"] == direction && counted["reason"] == "no-rule"
        };
        ensure!(
            reasons.iter().any(|counted| is_it(&counted)),
            "{direction}: {interface}"
        );
    }
    let status = sg.json(&["status"])?;
    ensure!(status["interfaces"][0]["audit"] == true, "{status}");
    let shown = sg.run(&["status"])?.stdout;
    ensure!(shown.contains("audited: everything passes"), "{shown}");
    let shown = sg.run(&["stats"])?.stdout;
    ensure!(shown.contains("would drop"), "{shown}");
    Ok(())
}

#[test]
fn what_no_rule_allows_passes_and_is_counted_at_tc() -> Result<()> {
    what_no_rule_allows_passes_and_is_counted("tc")
}

#[test]
fn what_no_rule_allows_passes_and_is_counted_at_xdp() -> Result<()> {
    what_no_rule_allows_passes_and_is_counted("xdp")
}

#[test]
fn events_say_that_it_passed() -> Result<()> {
    let (pair, sg) = Sg::protecting(&POLICY.replace("HOOK", "auto"))?;
    let reader = Running::reading(sg.spawn(&["events", "--follow", "--json"])?)?;
    let connect = || tcp_connects(&pair.world, "10.0.0.10:82").map(drop);
    let event = reader.json_when(connect, |event| event["reason"] == "no-rule")?;
    ensure!(
        event["audit"] == true && event["verdict"] == "drop",
        "{event}"
    );
    Ok(())
}

#[test]
fn one_command_enforces_and_changes_nothing_else() -> Result<()> {
    let pair = Lab::pair()?;
    let _service = TcpEcho::listen(&pair.host, ":81")?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(&POLICY.replace("HOOK", "tc"))?;
    let done = sg.run(&["attach", "eth0", "--enforce"])?.succeeded()?;
    ensure!(done.stdout.contains("eth0"), "{done}");
    ensure!(tcp_connects(&pair.world, "10.0.0.10:81")? == Outcome::TimedOut);
    let status = sg.json(&["status"])?;
    let interface = &status["interfaces"][0];
    ensure!(
        interface["groups"][0] == "web" && interface["hook"] == "tc",
        "{status}"
    );
    ensure!(interface["audit"] == false, "{status}");
    sg.run(&["attach", "eth0", "--audit"])?.succeeded()?;
    ensure!(tcp_connects(&pair.world, "10.0.0.10:81")? == Outcome::Connected);
    // Another group is no word about the mode.
    sg.run(&["attach", "eth0", "--group", "default"])?
        .succeeded()?;
    ensure!(tcp_connects(&pair.world, "10.0.0.10:81")? == Outcome::Connected);
    let exported = sg.run(&["export"])?.stdout;
    ensure!(exported.contains("audit: true"), "{exported}");
    Ok(())
}

/// Ingress packets that no rule allows: those that passed while audited, and those dropped.
fn refused(sg: &Sg) -> Result<[u64; 2]> {
    let packets = |audit| {
        sg.packets(|counted| {
            counted["direction"] == "ingress"
                && counted["reason"] == "no-rule"
                && counted["audit"] == audit
        })
    };
    Ok([packets(true)?, packets(false)?])
}

#[test]
fn what_would_be_dropped_and_what_is_are_counted_apart() -> Result<()> {
    let (pair, sg) = Sg::protecting(&POLICY.replace("HOOK", "auto"))?;
    let knock = || tcp_connects(&pair.world, "10.0.0.10:82").map(drop);
    knock()?;
    let [audited, dropped] = refused(&sg)?;
    ensure!(audited > 0 && dropped == 0, "{audited} and {dropped}");

    sg.run(&["attach", "eth0", "--enforce"])?.succeeded()?;
    ensure!(refused(&sg)? == [audited, 0], "{:?}", refused(&sg)?);
    knock()?;
    let [still, dropped] = refused(&sg)?;
    ensure!(still == audited && dropped > 0, "{still} and {dropped}");
    let shown = sg.run(&["stats", "eth0"])?.stdout;
    ensure!(shown.contains("  would drop  no-rule"), "{shown}");
    ensure!(shown.contains("While audited: "), "{shown}");
    ensure!(shown.contains("  drop        no-rule"), "{shown}");

    // A change of something else, and a table that grows, keep them apart.
    sg.run(&[
        "rule",
        "add",
        "web",
        "--ingress",
        "--service",
        "ssh",
        "--from",
        "::/0",
    ])?
    .succeeded()?;
    sg.run(&["limits", "set", "rules=200000"])?.succeeded()?;
    ensure!(refused(&sg)? == [audited, dropped], "{:?}", refused(&sg)?);
    sg.run(&["attach", "eth0", "--audit"])?.succeeded()?;
    knock()?;
    let [more, still] = refused(&sg)?;
    ensure!(more > audited && still == dropped, "{more} and {still}");

    // One that is attached anew begins with nothing.
    sg.run(&["detach", "eth0"])?.succeeded()?;
    sg.run(&["attach", "eth0", "--group", "web"])?.succeeded()?;
    ensure!(refused(&sg)? == [0, 0], "{:?}", refused(&sg)?);
    Ok(())
}

#[test]
fn fragments_follow_what_their_first_was_judged_and_pass() -> Result<()> {
    let pair = Lab::pair()?;
    let service = UdpEcho::listen(&pair.host, ":53")?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(&POLICY.replace("HOOK", "auto"))?;
    // More than the wire takes at once.
    let datagram = vec![b'x'; 4_000];
    pair.world.enter(|| {
        let socket = UdpSocket::bind("10.0.0.1:0")?;
        Ok(socket.send_to(&datagram, "10.0.0.10:53")?)
    })?;
    ensure!(
        service.gets(|(_, payload)| *payload == datagram),
        "it has not come whole"
    );
    let stats = sg.json(&["stats", "eth0"])?;
    let reasons = stats["interfaces"][0]["reasons"].as_array();
    let later = reasons.into_iter().flatten().find(|counted| {
        counted["reason"] == "fragment-dropped" && counted["direction"] == "ingress"
    });
    let later = later.context("no later fragment was judged")?;
    ensure!(later["packets"] == 2, "{later}");
    Ok(())
}
