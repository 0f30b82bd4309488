//! Groups protect a machine: the real binary, real interfaces, real sockets.

use anyhow::{Result, ensure};
use tests::lab::Lab;
use tests::sg::Sg;
use tests::sockets::Outcome::{self, Connected, TimedOut};
use tests::sockets::{Session, TcpEcho, UdpEcho, ping, tcp_connects, udp_roundtrip};

/// What is asked, who asks, and what must come of it.
fn expect(what: &str, got: Outcome, wanted: Outcome) -> Result<()> {
    ensure!(got == wanted, "{what}: {got:?}, expected {wanted:?}");
    Ok(())
}

const OFFICE: &str = "203.0.113.5";

const MACHINE: &str = "
prefix_lists:
  office: [203.0.113.0/24, '2001:db8:bb::/48']
groups:
  web:
    ingress:
      - {service: https, from: [0.0.0.0/0, '::/0']}
  ssh:
    ingress:
      - {service: ssh, from: [pl:office]}
      - {protocol: udp, ports: 53, from: [pl:office]}
      - {protocol: icmp, type: 8, from: [203.0.113.0/24]}
interfaces:
  eth0: {groups: [web, ssh], hook: HOOK}
";

fn a_machine_is_protected(hook: &str) -> Result<()> {
    let (pair, sg) = Sg::protecting(&MACHINE.replace("HOOK", hook))?;
    let _listeners = (
        TcpEcho::listen(&pair.host, ":22")?,
        TcpEcho::listen(&pair.host, ":443")?,
        TcpEcho::listen(&pair.host, ":8080")?,
        UdpEcho::listen(&pair.host, ":53")?,
        TcpEcho::listen(&pair.world, ":443")?,
    );
    let office = || pair.world.at(OFFICE);
    let stranger = || pair.world.at("198.51.100.7");
    expect(
        "https for all",
        tcp_connects(stranger()?, "10.0.0.10:443")?,
        Connected,
    )?;
    expect(
        "ssh for the office",
        tcp_connects(office()?, "10.0.0.10:22")?,
        Connected,
    )?;
    expect(
        "ssh for nobody else",
        tcp_connects(stranger()?, "10.0.0.10:22")?,
        TimedOut,
    )?;
    expect(
        "no rule",
        tcp_connects(office()?, "10.0.0.10:8080")?,
        TimedOut,
    )?;
    expect(
        "dns for the office",
        udp_roundtrip(office()?, "10.0.0.10:53")?,
        Connected,
    )?;
    expect(
        "dns for nobody else",
        udp_roundtrip(stranger()?, "10.0.0.10:53")?,
        TimedOut,
    )?;
    expect(
        "ping for the office",
        ping(office()?, "10.0.0.10")?,
        Connected,
    )?;
    expect(
        "ping for nobody else",
        ping(stranger()?, "10.0.0.10")?,
        TimedOut,
    )?;
    let office6 = || pair.world.at("2001:db8:bb::5");
    let stranger6 = || pair.world.at("2001:db8:aa::7");
    expect(
        "https for all",
        tcp_connects(stranger6()?, "[2001:db8::10]:443")?,
        Connected,
    )?;
    expect(
        "ssh for the office",
        tcp_connects(office6()?, "[2001:db8::10]:22")?,
        Connected,
    )?;
    expect(
        "ssh for nobody else",
        tcp_connects(stranger6()?, "[2001:db8::10]:22")?,
        TimedOut,
    )?;
    expect(
        "families are independent",
        ping(office6()?, "2001:db8::10")?,
        TimedOut,
    )?;
    expect(
        "out with the reply",
        tcp_connects(&pair.host, "10.0.0.1:443")?,
        Connected,
    )?;
    expect(
        "out with the reply",
        tcp_connects(&pair.host, "[2001:db8::1]:443")?,
        Connected,
    )?;
    expect(
        "a ping out with its reply",
        ping(&pair.host, "10.0.0.1")?,
        Connected,
    )?;

    let flows = sg.json(&["flows", "list"])?;
    let flows = flows["flows"].as_array().map_or(&[][..], Vec::as_slice);
    ensure!(
        flows.iter().all(|flow| flow["local_port"] != 443),
        "what is open to everyone takes no flow: {flows:?}"
    );
    ensure!(!flows.is_empty(), "tracked flows are listed");
    Ok(())
}

#[test]
fn a_machine_is_protected_at_tc() -> Result<()> {
    a_machine_is_protected("tc")
}

#[test]
fn a_machine_is_protected_at_xdp() -> Result<()> {
    a_machine_is_protected("xdp")
}

#[test]
fn overlapping_prefixes_give_the_union() -> Result<()> {
    let (pair, _sg) = Sg::protecting(
        "
groups:
  g:
    ingress:
      - {protocol: tcp, ports: 80, from: [10.0.0.0/8]}
      - {protocol: tcp, ports: 22, from: [10.1.1.1/32]}
interfaces:
  eth0: {groups: [g]}
",
    )?;
    let _listeners = (
        TcpEcho::listen(&pair.host, ":22")?,
        TcpEcho::listen(&pair.host, ":80")?,
    );
    let inner = || pair.world.at("10.1.1.1");
    expect(
        "the longer prefix",
        tcp_connects(inner()?, "10.0.0.10:22")?,
        Connected,
    )?;
    expect(
        "the shorter prefix too",
        tcp_connects(inner()?, "10.0.0.10:80")?,
        Connected,
    )?;
    let outer = || pair.world.at("10.0.0.2");
    expect(
        "only the shorter",
        tcp_connects(outer()?, "10.0.0.10:80")?,
        Connected,
    )?;
    expect(
        "not the longer",
        tcp_connects(outer()?, "10.0.0.10:22")?,
        TimedOut,
    )
}

#[test]
fn members_of_a_group_are_the_addresses_of_its_interfaces() -> Result<()> {
    let lab = Lab::new()?;
    let (machine, peer, other) = (lab.host("machine")?, lab.host("peer")?, lab.host("other")?);
    lab.join((&machine, "a0"), (&peer, "eth0"))?;
    machine.add_addresses("a0", &["10.5.0.1/24"])?;
    peer.add_addresses("eth0", &["10.5.0.2/24", "10.5.0.3/24"])?;
    drop(other);
    let sg = Sg::on(&machine)?;
    let policy = |members: &str| {
        format!(
            "
groups:
  clients: {{members: [{members}]}}
  app:
    ingress:
      - {{protocol: tcp, ports: 8000-8080, from: [sg:clients]}}
interfaces:
  a0: {{groups: [app]}}
"
        )
    };
    sg.apply(&policy("10.5.0.2"))?;
    let _listener = TcpEcho::listen(&machine, ":8080")?;
    expect(
        "a member",
        tcp_connects(peer.at("10.5.0.2")?, "10.5.0.1:8080")?,
        Connected,
    )?;
    expect(
        "no member",
        tcp_connects(peer.at("10.5.0.3")?, "10.5.0.1:8080")?,
        TimedOut,
    )?;
    sg.apply(&policy("10.5.0.3"))?;
    expect(
        "no member now",
        tcp_connects(peer.at("10.5.0.2")?, "10.5.0.1:8080")?,
        TimedOut,
    )?;
    expect(
        "a member now",
        tcp_connects(peer.at("10.5.0.3")?, "10.5.0.1:8080")?,
        Connected,
    )
}

#[test]
fn a_tracked_flow_survives_its_rule_unless_it_is_to_end_with_it() -> Result<()> {
    let (pair, sg) = Sg::protecting(MACHINE.replace("HOOK", "auto").as_str())?;
    let _listener = TcpEcho::listen(&pair.host, ":22")?;
    let mut session = Session::open(pair.world.at(OFFICE)?, "10.0.0.10:22")?;
    expect("before", session.echoes()?, Connected)?;
    let rule = [
        "rule",
        "remove",
        "ssh",
        "--ingress",
        "--service",
        "ssh",
        "--from",
        "pl:office",
    ];
    sg.run(&rule)?.succeeded()?;
    expect(
        "a new one",
        tcp_connects(pair.world.at(OFFICE)?, "10.0.0.10:22")?,
        TimedOut,
    )?;
    expect("the old one goes on", session.echoes()?, Connected)?;

    let add = [
        "rule",
        "add",
        "ssh",
        "--ingress",
        "--service",
        "ssh",
        "--from",
        "pl:office",
    ];
    sg.run(&add)?.succeeded()?;
    sg.run(&[&rule[..], &["--terminate"]].concat())?
        .succeeded()?;
    expect("the old one is cut", session.echoes()?, TimedOut)
}

#[test]
fn three_hundred_disjoint_ports_and_their_edges() -> Result<()> {
    let ports: Vec<String> = (0..300).map(|n| (2000 + n * 2).to_string()).collect();
    let (pair, _sg) = Sg::protecting(&format!(
        "
groups:
  g:
    ingress:
      - {{protocol: tcp, ports: [{}], from: [10.0.0.0/24]}}
      - {{protocol: tcp, ports: 80-90, from: [10.0.0.0/24]}}
interfaces:
  eth0: {{groups: [g]}}
",
        ports.join(", ")
    ))?;
    for (port, wanted) in [
        (79, TimedOut),
        (80, Connected),
        (90, Connected),
        (91, TimedOut),
        (2000, Connected),
        (2001, TimedOut),
        (2598, Connected),
        (2599, TimedOut),
        (2600, TimedOut),
    ] {
        let _listener = TcpEcho::listen(&pair.host, &format!(":{port}"))?;
        let got = tcp_connects(&pair.world, &format!("10.0.0.10:{port}"))?;
        expect(&format!("port {port}"), got, wanted)?;
    }
    Ok(())
}

#[test]
fn nothing_is_left_when_the_last_interface_is_detached() -> Result<()> {
    let (pair, sg) = Sg::protecting(MACHINE.replace("HOOK", "xdp").as_str())?;
    let _listener = TcpEcho::listen(&pair.host, ":8080")?;
    expect(
        "protected",
        tcp_connects(&pair.world, "10.0.0.10:8080")?,
        TimedOut,
    )?;
    sg.run(&["detach", "eth0"])?.succeeded()?;
    expect(
        "free",
        tcp_connects(&pair.world, "10.0.0.10:8080")?,
        Connected,
    )?;
    let left: Vec<_> = std::fs::read_dir(sg.run_dir())?.collect::<Result<_, _>>()?;
    let mut names: Vec<_> = left.iter().map(std::fs::DirEntry::file_name).collect();
    // A daemon has these for as long as it runs.
    names.retain(|name| name != "sg.sock" && name != "daemon.lock");
    ensure!(names == ["lock"], "left in the run folder: {names:?}");
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let run = sg.run_dir().display().to_string();
    ensure!(!mounts.contains(&run), "still mounted:\n{mounts}");
    Ok(())
}
