//! ICMP errors about allowed traffic reach the sockets they concern, and others reach nobody.
//!
//! Whether sg passes an error is seen by what the machine's own kernel does with it: a route with
//! a smaller MTU, a refused socket, a traceroute that has an answer.

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use tests::inject::inject;
use tests::lab::{Host, Lab, Pair};
use tests::packets::words::packet;
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, Refused, TimedOut};
use tests::sockets::{PATIENCE, Session, TcpEcho, udp_roundtrip};

/// `host eth0 — near [router] far — eth0 client`; the router's way to the client takes 1,300 bytes.
///
/// Only the router's route is narrow: what the client announces in its SYN tells the host nothing.
struct Path {
    _lab: Lab,
    host: Host,
    client: Host,
}

const HOST: [&str; 2] = ["10.0.0.10", "2001:db8::10"];
const ROUTER: [&str; 2] = ["10.0.0.1", "2001:db8::1"];
const CLIENT: [&str; 2] = ["203.0.113.5", "2001:db8:bb::5"];
const NARROW: &str = "1300";

fn narrow_path() -> Result<Path> {
    let lab = Lab::new()?;
    let (host, router, client) = (lab.host("host")?, lab.host("router")?, lab.host("client")?);
    lab.join((&host, "eth0"), (&router, "near"))?;
    lab.join((&router, "far"), (&client, "eth0"))?;
    host.add_addresses("eth0", &["10.0.0.10/24", "2001:db8::10/64"])?;
    router.add_addresses("near", &["10.0.0.1/24", "2001:db8::1/64"])?;
    router.add_addresses("far", &["203.0.113.1/24", "2001:db8:bb::1/64"])?;
    client.add_addresses("eth0", &["203.0.113.5/24", "2001:db8:bb::5/64"])?;
    router.forward()?;
    for address in ROUTER {
        host.add_default_route(address.parse()?)?;
    }
    for address in ["203.0.113.1", "2001:db8:bb::1"] {
        client.add_default_route(address.parse()?)?;
    }
    for address in CLIENT {
        router.ip(&format!("route add {address} dev far mtu {NARROW}"))?;
    }
    Ok(Path {
        _lab: lab,
        host,
        client,
    })
}

/// Whether the machine has learned that its way to `to` is narrow.
fn knows_narrow_way(host: &Host, to: &str, mtu: &str) -> Result<bool> {
    Ok(host
        .ip(&format!("route get {to}"))?
        .contains(&format!(" mtu {mtu} ")))
}

/// Ports 22 and 443 both answer; 443 is open to everyone both ways, so its flows are not tracked.
const SERVER: &str = "
groups:
  ssh:
    ingress:
      - {protocol: tcp, ports: 22, from: [203.0.113.0/24, '2001:db8:bb::/48']}
      - {protocol: tcp, ports: 443, from: [0.0.0.0/0, '::/0']}
interfaces:
  eth0: {groups: [ssh], hook: HOOK}
";

fn path_mtu_is_discovered(hook: &str, port: u16, tracked: bool) -> Result<()> {
    let path = narrow_path()?;
    let sg = Sg::on(&path.host)?;
    sg.apply(&SERVER.replace("HOOK", hook))?;
    let _listener = TcpEcho::listen(&path.host, &format!(":{port}"))?;
    for (host, client) in HOST.into_iter().zip(CLIENT) {
        let to = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        let mut session = Session::open(&path.client, &to)?;
        ensure!(
            session.echoes_bytes(&[b'x'; 8_000])? == Connected,
            "{to}: what is larger than the path never arrives"
        );
        ensure!(
            knows_narrow_way(&path.host, client, NARROW)?,
            "{to}: the machine did not learn its path's MTU: {}",
            path.host.ip(&format!("route get {client}"))?
        );
        let flows = sg.json(&["flows", "list"])?;
        let flows = flows["flows"].as_array().map_or(0, Vec::len);
        ensure!((flows > 0) == tracked, "{to}: {flows} flows");
    }
    Ok(())
}

#[test]
fn path_mtu_is_discovered_for_a_tracked_flow_at_tc() -> Result<()> {
    path_mtu_is_discovered("tc", 22, true)
}

#[test]
fn path_mtu_is_discovered_for_a_tracked_flow_at_xdp() -> Result<()> {
    path_mtu_is_discovered("xdp", 22, true)
}

#[test]
fn path_mtu_is_discovered_for_an_untracked_flow() -> Result<()> {
    path_mtu_is_discovered("tc", 443, false)
}

/// Everything out, nothing in: flows are tracked.
const CLIENT_POLICY: &str = "
groups:
  g: {}
interfaces:
  eth0: {groups: [g]}
";

/// Everything out and all of UDP in: no flow of UDP is tracked.
const OPEN_UDP: &str = "
groups:
  g:
    ingress:
      - {protocol: udp, ports: 0-65535, from: [0.0.0.0/0, '::/0']}
interfaces:
  eth0: {groups: [g]}
";

/// A route tracer's probe: it dies at the router, which says so.
fn probe_is_answered(host: &Host, to: &str) -> Result<bool> {
    let v6 = to.contains(':');
    let socket = host.enter(|| {
        let socket = UdpSocket::bind(if v6 { "[::]:0" } else { "0.0.0.0:0" })?;
        let wide = socket2::SockRef::from(&socket);
        if v6 {
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
            wide.set_unicast_hops_v6(1)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
            wide.set_ttl_v4(1)?;
        }
        Ok(socket)
    })?;
    socket.connect((to, 33_434))?;
    socket.send(b"probe")?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(error) = socket.take_error()? {
            let error = error.raw_os_error().map(Errno::from_raw);
            return Ok(error == Some(Errno::EHOSTUNREACH));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(false)
}

fn errors_reach_sockets(policy: &str) -> Result<()> {
    let path = narrow_path()?;
    let sg = Sg::on(&path.host)?;
    sg.apply(policy)?;
    for client in CLIENT {
        ensure!(
            probe_is_answered(&path.host, client)?,
            "{client}: the router's word about the probe did not arrive"
        );
        let to = match client.contains(':') {
            true => format!("[{client}]:9"),
            false => format!("{client}:9"),
        };
        let outcome = udp_roundtrip(&path.host, &to)?;
        ensure!(outcome == Refused, "{to}: {outcome:?}, expected a refusal");
    }
    Ok(())
}

#[test]
fn errors_about_tracked_datagrams_reach_their_socket() -> Result<()> {
    errors_reach_sockets(CLIENT_POLICY)
}

#[test]
fn errors_about_untracked_datagrams_reach_their_socket() -> Result<()> {
    errors_reach_sockets(OPEN_UDP)
}

/// Errors that no packet of the machine's has caused; the bare kernel believes them.
const FORGED: [(&str, &str); 2] = [
    (
        "icmp fragmentation-needed 10.0.0.2 > 10.0.0.10 mtu 1300 about \
         icmp reply 10.0.0.10 > 203.0.113.5 id 7",
        "203.0.113.5",
    ),
    (
        "icmpv6 packet-too-big 2001:db8::2 > 2001:db8::10 mtu 1300 about \
         icmpv6 echo 2001:db8::10 > 2001:db8:bb::5 id 7",
        "2001:db8:bb::5",
    ),
];

fn inject_forged(pair: &Pair) -> Result<Vec<bool>> {
    let mac = pair.host.mac("eth0")?;
    let believed = FORGED.iter().map(|(words, about)| {
        inject(&pair.world, "eth0", &packet(words)?.to_mac(mac).frame())?;
        let deadline = Instant::now() + Duration::from_millis(200);
        while Instant::now() < deadline {
            if knows_narrow_way(&pair.host, about, NARROW)? {
                return Ok(true);
            }
        }
        Ok(false)
    });
    believed.collect()
}

#[test]
fn a_forged_error_changes_no_route() -> Result<()> {
    let bare = Lab::pair()?;
    ensure!(
        inject_forged(&bare)? == [true, true],
        "without sg the kernel believes forged errors, or this test proves nothing"
    );
    let (pair, sg) = Sg::protecting(CLIENT_POLICY)?;
    ensure!(
        inject_forged(&pair)? == [false, false],
        "a forged error changed a route: {}",
        sg.run(&["stats"])?
    );
    Ok(())
}

/// A refusal that quotes a flow of the machine's ends a wait, and one that quotes another does not.
#[test]
fn a_refusal_is_believed_for_the_socket_it_quotes_alone() -> Result<()> {
    let (pair, sg) = Sg::protecting(CLIENT_POLICY)?;
    // Nobody at this address answers by himself.
    pair.host
        .ip("neighbour add 10.0.0.77 lladdr 02:00:00:00:00:77 dev eth0")?;
    let mac = pair.host.mac("eth0")?;
    let refused = |quoted: u16| {
        let socket = pair.host.enter(|| Ok(UdpSocket::bind("10.0.0.10:0")?))?;
        socket.connect("10.0.0.77:9")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let own = socket.local_addr()?.port();
        socket.send(b"hello")?;
        let about = own.wrapping_add(quoted);
        let words = format!(
            "icmp unreachable 10.0.0.2 > 10.0.0.10 about udp 10.0.0.10:{about} > 10.0.0.77:9"
        );
        inject(&pair.world, "eth0", &packet(&words)?.to_mac(mac).frame())?;
        Ok(match socket.recv(&mut [0; 8]) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Refused,
            Err(_) => TimedOut,
            Ok(_) => Connected,
        })
    };
    let outcome: Result<_> = refused(0);
    ensure!(outcome? == Refused, "about its own flow");
    let outcome: Result<_> = refused(1);
    ensure!(outcome? == TimedOut, "about another");
    let stats = sg.json(&["stats"])?;
    let reasons = stats["interfaces"][0]["reasons"]
        .as_array()
        .cloned()
        .context("no reasons")?;
    let counted = |reason: &str| {
        reasons
            .iter()
            .filter(|r| r["direction"] == "ingress" && r["reason"] == reason)
            .filter_map(|r| r["packets"].as_u64())
            .sum::<u64>()
    };
    ensure!(
        (counted("related"), counted("no-rule")) == (1, 1),
        "one error is related and one is not: {reasons:?}"
    );
    Ok(())
}
