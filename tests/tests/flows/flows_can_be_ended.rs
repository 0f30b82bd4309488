//! Flows are shown with their rules, and ended on request: exactly those that are asked for.

use anyhow::{Result, ensure};
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{Session, TcpEcho};

const POLICY: &str = "
groups:
  ssh: {ingress: [{service: ssh, from: 203.0.113.0/24}, {service: ssh, from: 198.51.100.7}]}
interfaces:
  eth0: {groups: [ssh]}
";

#[test]
fn ending_a_flow_cuts_a_connection_that_no_rule_allows_any_more() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let _listener = TcpEcho::listen(&pair.host, ":22")?;
    let mut cut = Session::open(pair.world.at("203.0.113.5")?, "10.0.0.10:22")?;
    let mut kept = Session::open(pair.world.at("198.51.100.7")?, "10.0.0.10:22")?;
    ensure!(cut.echoes()? == Connected && kept.echoes()? == Connected);
    sg.apply("{groups: {ssh: {}}, interfaces: {eth0: {groups: [ssh]}}}")?;
    ensure!(
        cut.echoes()? == Connected,
        "removing a rule cuts nothing by itself"
    );

    let ended = sg
        .run(&["flows", "terminate", "--peer", "203.0.113.5"])?
        .succeeded()?;
    ensure!(ended.stdout == "1 flow ended\n", "{ended}");
    ensure!(cut.echoes()? == TimedOut);
    ensure!(kept.echoes()? == Connected);
    let ended = sg.run(&["flows", "terminate", "--all"])?.succeeded()?;
    ensure!(ended.stdout == "1 flow ended\n", "{ended}");
    ensure!(kept.echoes()? == TimedOut);
    Ok(())
}

#[test]
fn ending_a_flow_leaves_room_for_another() -> Result<()> {
    let (pair, sg) =
        Sg::protecting(&POLICY.replace("groups: [ssh]}", "groups: [ssh], max_flows: 1}"))?;
    let _listener = TcpEcho::listen(&pair.host, ":22")?;
    let world = || pair.world.at("203.0.113.5");
    let mut first = Session::open(world()?, "10.0.0.10:22")?;
    ensure!(first.echoes()? == Connected);
    // Its handshake is answered, but there is no room for what comes after.
    let mut second = Session::open(world()?, "10.0.0.10:22")?;
    ensure!(second.echoes()? == TimedOut, "the interface has its share");
    let port = first.local()?.port().to_string();
    sg.run(&["flows", "terminate", "--port", &port])?
        .succeeded()?;
    // What was said is said again, ever more rarely.
    let heard = (0..20).any(|_| second.echoes().is_ok_and(|outcome| outcome == Connected));
    ensure!(heard, "there is room for the other");
    Ok(())
}

#[test]
fn nothing_ends_unless_it_is_asked_for() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let _listener = TcpEcho::listen(&pair.host, ":22")?;
    let mut session = Session::open(pair.world.at("203.0.113.5")?, "10.0.0.10:22")?;
    ensure!(session.echoes()? == Connected);
    sg.apply("{groups: {ssh: {}}, interfaces: {eth0: {groups: [ssh]}}}")?;
    let refused = sg.run(&["flows", "terminate"])?;
    ensure!(
        refused.code == Some(2) && refused.stderr.contains("--all"),
        "{refused}"
    );
    let told = sg
        .run(&["flows", "terminate", "--all", "--dry-run"])?
        .succeeded()?;
    ensure!(told.stdout == "1 flow would end\n", "{told}");
    for words in [
        ["--peer", "198.51.100.7"],
        ["--port", "23"],
        ["--protocol", "udp"],
        ["--state", "closed"],
        ["--local", "10.0.0.11"],
        ["--rule", "sgr-0123456789abcdef0"],
    ] {
        let told = sg.json(&[&["flows", "terminate"], &words[..]].concat())?;
        ensure!(told["count"] == 0, "{words:?}: {told}");
    }
    ensure!(session.echoes()? == Connected);
    Ok(())
}

#[test]
fn a_flow_is_shown_with_its_rule() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let _listener = TcpEcho::listen(&pair.host, ":22")?;
    let mut session = Session::open(pair.world.at("203.0.113.5")?, "10.0.0.10:22")?;
    ensure!(session.echoes()? == Connected);
    let shown = sg.json(&["flows", "show", "--interface", "eth0", "--vpc", "default"])?;
    let flow = &shown["flows"][0];
    ensure!(
        flow["group"] == "ssh" && flow["allows"] == "tcp 22 from 203.0.113.0/24",
        "{shown}"
    );
    ensure!(
        flow["interface"] == "eth0" && flow["opened_by"] == "ingress",
        "{shown}"
    );
    ensure!(
        flow["opened_s_ago"].as_u64() < Some(60) && flow["idle_s"].as_u64() < Some(60),
        "{shown}"
    );
    let text = sg.run(&["flows", "show", "--port", "22"])?.succeeded()?;
    ensure!(
        text.stdout.contains("ssh  tcp 22 from 203.0.113.0/24"),
        "{text}"
    );
    let nowhere = sg.run(&["flows", "show", "--vpc", "defualt"])?;
    ensure!(
        nowhere.stderr.contains("did you mean \"default\"?"),
        "{nowhere}"
    );
    Ok(())
}
