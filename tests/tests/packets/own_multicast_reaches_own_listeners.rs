//! A machine hears its own multicast and broadcast, whatever the groups say: such a packet never
//! leaves it.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use tests::lab::{Host, Lab};
use tests::sg::Sg;
use tests::sockets::PATIENCE;

/// Everything both ways, and nothing at all.
const WIDE: &str = "{ingress: [{protocol: all, from: [0.0.0.0/0, '::/0']}]}";
const TIGHT: &str = "{ingress: [], egress: []}";
const PORT: u16 = 5353;

/// A socket of the machine that listens to the address, and one that sends to it from `own`.
fn sockets(host: &Host, to: IpAddr, own: IpAddr, device: u32) -> Result<(UdpSocket, UdpSocket)> {
    host.enter(|| {
        let domain = Domain::for_address(SocketAddr::new(to, PORT));
        let socket = || Socket::new(domain, Type::DGRAM, Some(Protocol::UDP));
        let (listener, sender) = (socket()?, socket()?);
        let any: SocketAddr = match to {
            IpAddr::V4(_) => "0.0.0.0:5353",
            IpAddr::V6(_) => "[::]:5353",
        }
        .parse()?;
        listener.bind(&any.into())?;
        listener.set_read_timeout(Some(PATIENCE))?;
        match (to, own) {
            (IpAddr::V4(group), IpAddr::V4(own)) if group.is_multicast() => {
                listener.join_multicast_v4(&group, &own)?;
                sender.set_multicast_if_v4(&own)?;
            }
            (IpAddr::V6(group), _) => {
                listener.join_multicast_v6(&group, device)?;
                sender.set_multicast_if_v6(device)?;
            }
            _ => sender.set_broadcast(true)?,
        }
        sender.bind(&SocketAddr::new(own, 0).into())?;
        Ok((listener.into(), sender.into()))
    })
}

fn check(hook: &str, group: &str) -> Result<()> {
    let lab = Lab::new()?;
    let (host, world) = (lab.host("host")?, lab.host("world")?);
    lab.join((&host, "eth0"), (&world, "eth0"))?;
    // Read as Ethernet, the first copy would be IPv4 with tags, and the second no frame at all.
    let own = ["8.0.69.0", "10.0.0.10", "2001:db8::10"];
    host.add_addresses("eth0", &["8.0.69.0/16", "10.0.0.10/24", "2001:db8::10/64"])?;
    host.ip("route add default dev eth0")?;
    let device = host.enter(|| Ok(nix::net::if_::if_nametoindex("eth0")?))?;
    let sg = Sg::on(&host)?;
    sg.apply(&format!(
        "groups: {{g: {group}}}\ninterfaces: {{eth0: {{groups: [g], hook: {hook}}}}}"
    ))?
    .succeeded()?;
    for own in own {
        let own: IpAddr = own.parse()?;
        let groups: &[&str] = match own {
            IpAddr::V4(_) => &["224.0.0.251", "239.1.2.3", "255.255.255.255", "10.0.0.255"],
            IpAddr::V6(_) => &["ff02::fb", "ff05::1:3"],
        };
        for group in groups {
            let to: IpAddr = group.parse()?;
            let (listener, sender) = sockets(&host, to, own, device)?;
            let said = format!("{own} to {group}");
            // What egress drops is told to the sender; the copy has gone to the listener before.
            let _ = sender.send_to(said.as_bytes(), SocketAddr::new(to, PORT));
            let mut heard = [0; 64];
            let (length, _) = listener
                .recv_from(&mut heard)
                .with_context(|| format!("{said} is not heard: {:?}", sg.run(&["stats"])))?;
            ensure!(heard[..length] == *said.as_bytes(), "{said}: another word");
        }
    }
    if hook == "tc" {
        let stats = sg.json(&["stats"])?;
        let reasons = stats["interfaces"][0]["reasons"].as_array();
        let copies = reasons
            .into_iter()
            .flatten()
            .find(|reason| reason["reason"] == "own-copy" && reason["direction"] == "ingress");
        let copies = copies.with_context(|| format!("no copy is counted: {stats}"))?;
        ensure!(copies["packets"].as_u64() >= Some(10), "{stats}");
    }
    Ok(())
}

#[test]
fn at_tc_where_everything_is_allowed() -> Result<()> {
    check("tc", WIDE)
}

#[test]
fn at_tc_where_nothing_is_allowed() -> Result<()> {
    check("tc", TIGHT)
}

#[test]
fn at_native_xdp_where_nothing_is_allowed() -> Result<()> {
    check("xdp", TIGHT)
}
