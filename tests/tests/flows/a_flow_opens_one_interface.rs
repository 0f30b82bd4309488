//! A flow that one interface has admitted opens no other interface: each judges by its own groups what
//! goes the way the flow was opened. Answers may come back by any interface.

use anyhow::{Result, ensure};
use tests::lab::Lab;
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{TcpEcho, UdpEcho, ping, tcp_connects, udp_roundtrip};

/// What `wide` admits is tracked, since not everyone may send it.
const GROUPS: &str = "
groups:
  wide:
    ingress: [{protocol: all, from: [10.0.0.0/24, '2001:db8::/64']}]
    egress: [{protocol: all, to: [10.0.0.0/24, '2001:db8::/64']}]
  tight:
    ingress: [{protocol: tcp, ports: 22, from: [10.0.0.0/24, '2001:db8::/64']}]
    egress: [{protocol: udp, ports: 5000, to: [10.0.0.0/24, '2001:db8::/64']}]
";
const HOST: [&str; 2] = ["10.0.0.10", "2001:db8::10"];
const WORLD: [&str; 2] = ["10.0.0.1", "2001:db8::1"];

fn at(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// `world eth0 — eth0 [br0] host`: the port's groups admit everything, and those of the bridge SSH.
fn a_bridge_is_not_opened_by_its_port(hook: &str) -> Result<()> {
    let lab = Lab::new()?;
    let (host, world) = (lab.host("host")?, lab.host("world")?);
    lab.join((&host, "eth0"), (&world, "eth0"))?;
    host.bridge("br0", &["eth0"])?;
    host.add_addresses("br0", &["10.0.0.10/24", "2001:db8::10/64"])?;
    world.add_addresses("eth0", &["10.0.0.1/24", "2001:db8::1/64"])?;
    let sg = Sg::on(&host)?;
    sg.apply(&format!(
        "{GROUPS}
interfaces:
  eth0: {{groups: [wide], hook: {hook}}}
  br0: {{groups: [tight], hook: tc}}
"
    ))?
    .succeeded()?;
    let _services = (
        UdpEcho::listen(&host, ":53")?,
        TcpEcho::listen(&host, ":22")?,
        TcpEcho::listen(&host, ":80")?,
        UdpEcho::listen(&world, ":5000")?,
        UdpEcho::listen(&world, ":5001")?,
    );
    for (host_address, world_address) in HOST.into_iter().zip(WORLD) {
        // Asked twice: what the first packet has opened must not let the second one in.
        for _ in 0..2 {
            let outcome = ping(&world, host_address)?;
            ensure!(outcome == TimedOut, "ping {host_address}: {outcome:?}");
            let asker = world.at(&at(world_address, 4000))?;
            let outcome = udp_roundtrip(asker, &at(host_address, 53))?;
            ensure!(outcome == TimedOut, "UDP {host_address}: {outcome:?}");
            let outcome = tcp_connects(&world, &at(host_address, 80))?;
            ensure!(outcome == TimedOut, "TCP {host_address}: {outcome:?}");
            let outcome = tcp_connects(&world, &at(host_address, 22))?;
            ensure!(outcome == Connected, "SSH {host_address}: {outcome:?}");
            let outcome = udp_roundtrip(&host, &at(world_address, 5000))?;
            ensure!(outcome == Connected, "out {world_address}: {outcome:?}");
            let outcome = udp_roundtrip(&host, &at(world_address, 5001));
            ensure!(
                !matches!(outcome, Ok(Connected)),
                "out {world_address}: {outcome:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_bridge_at_tc() -> Result<()> {
    a_bridge_is_not_opened_by_its_port("tc")
}

#[test]
fn a_bridge_at_xdp() -> Result<()> {
    a_bridge_is_not_opened_by_its_port("xdp")
}

/// Two machines of one VPC have equal addresses, and one of them admits more.
#[test]
fn a_namespace_is_not_opened_by_another_of_equal_address() -> Result<()> {
    let lab = Lab::new()?;
    let (wide, tight) = (lab.host("wide")?, lab.host("tight")?);
    let (near, far) = (lab.host("near")?, lab.host("far")?);
    lab.join((&wide, "eth0"), (&near, "eth0"))?;
    lab.join((&tight, "eth1"), (&far, "eth0"))?;
    wide.add_addresses("eth0", &["10.0.0.10/24"])?;
    tight.add_addresses("eth1", &["10.0.0.10/24"])?;
    for world in [&near, &far] {
        world.add_addresses("eth0", &["10.0.0.1/24"])?;
    }
    let sg = Sg::on(&wide)?;
    sg.apply(&format!(
        "{GROUPS}
interfaces:
  eth0: {{groups: [wide]}}
  eth1: {{groups: [tight], netns: {}}}
",
        tight.namespace()
    ))?
    .succeeded()?;
    let _services = (
        UdpEcho::listen(&wide, ":53")?,
        UdpEcho::listen(&tight, ":53")?,
    );
    for _ in 0..2 {
        // Equal ports, so that both flows would be one.
        let outcome = udp_roundtrip(near.at("10.0.0.1:4000")?, "10.0.0.10:53")?;
        ensure!(outcome == Connected, "the wide one: {outcome:?}");
        let outcome = udp_roundtrip(far.at("10.0.0.1:4000")?, "10.0.0.10:53")?;
        ensure!(outcome == TimedOut, "the tight one: {outcome:?}");
    }
    Ok(())
}
