//! A packet that is dropped on its way out is lost to its sender as if it had been dropped further on:
//! nothing says so to the socket, unless the interface has `egress_drops: told`.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
use socket2::{Domain, Protocol, Socket, Type};
use tests::lab::Host;
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{Session, TcpEcho, UdpEcho};

/// Longer than a connection lives whose packets are told to be dropped.
const LONG: Duration = Duration::from_secs(12);

const TOLD: &str = ", egress_drops: told";

/// Only port 7 may be reached.
fn policy(more: &str) -> String {
    format!(
        "groups:
  g:
    egress:
      - {{protocol: tcp, ports: 7, to: [10.0.0.1/32, 2001:db8::1/128]}}
interfaces:
  eth0: {{groups: [g]{more}}}
"
    )
}

fn closed(more: &str) -> String {
    format!("groups:\n  g: {{egress: []}}\ninterfaces:\n  eth0: {{groups: [g]{more}}}\n")
}

/// A datagram socket that hears of errors as those of a resolver and of ping do.
fn listening_to_errors(host: &Host, to: SocketAddr) -> Result<Socket> {
    host.enter(|| {
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
        match to {
            SocketAddr::V4(_) => setsockopt(&socket, Ipv4RecvErr, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, Ipv6RecvErr, &true)?,
        }
        socket.connect(&to.into())?;
        Ok(socket)
    })
}

/// Bytes that the socket has sent and the kernel has not freed.
fn unfreed(host: &Host, socket: &Socket) -> Result<u64> {
    let local = socket.local_addr()?.as_socket().context("no address")?;
    let list = if local.is_ipv4() { "udp" } else { "udp6" };
    let list = host.run("cat", &[format!("/proc/net/{list}")])?;
    let port = format!(":{:04X}", local.port());
    let mut lines = list
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|words| words.get(1).is_some_and(|local| local.ends_with(&port)));
    let line = line.with_context(|| format!("no socket at port {port} in\n{list}"))?;
    let queue = line.get(4).and_then(|queues| queues.split(':').next());
    Ok(u64::from_str_radix(queue.context("no queue")?, 16)?)
}

fn dropped(sg: &Sg) -> Result<u64> {
    sg.packets(|reason| reason["reason"] == "no-rule" && reason["direction"] == "egress")
}

const DATAGRAMS: u64 = 500;

#[test]
fn a_datagram_that_is_dropped_is_sent_as_far_as_its_sender_knows() -> Result<()> {
    let (pair, sg) = Sg::protecting(&policy(""))?;
    for address in ["10.0.0.1:53", "[2001:db8::1]:53"] {
        let listener = UdpEcho::listen(&pair.world, address)?;
        let socket = listening_to_errors(&pair.host, address.parse()?)?;
        let before = dropped(&sg)?;
        for number in 0..DATAGRAMS {
            let sent = socket.send(b"anybody there?");
            ensure!(sent.is_ok(), "datagram {number} to {address}: {sent:?}");
        }
        let counted = dropped(&sg)? - before;
        ensure!(counted == DATAGRAMS, "{counted} of {DATAGRAMS} are counted");
        ensure!(
            unfreed(&pair.host, &socket)? == 0,
            "{} bytes leak",
            unfreed(&pair.host, &socket)?
        );
        ensure!(listener.received().is_empty(), "some have arrived");
    }
    Ok(())
}

#[test]
fn a_datagram_that_is_dropped_is_told_where_that_is_wanted() -> Result<()> {
    let (pair, sg) = Sg::protecting(&policy(TOLD))?;
    for address in ["10.0.0.1:53", "[2001:db8::1]:53"] {
        let socket = listening_to_errors(&pair.host, address.parse()?)?;
        // The first one waits for the neighbor's link-layer address, and its sender is gone by then.
        let mut errors = (0..DATAGRAMS).map(|_| {
            let sent = socket.send(b"anybody there?");
            std::thread::sleep(Duration::from_millis(10));
            sent.err().and_then(|error| error.raw_os_error())
        });
        let told = errors.find(Option::is_some).flatten();
        ensure!(told == Some(Errno::ENOBUFS as i32), "{address}: {told:?}");
    }
    ensure!(dropped(&sg)? >= 2, "what is told is not counted");
    Ok(())
}

/// How an attempt to connect ends within this time.
fn connects(host: &Host, to: &str, within: Duration) -> Result<Option<ErrorKind>> {
    let to: SocketAddr = to.parse()?;
    let socket = host.enter(|| {
        Ok(Socket::new(
            Domain::for_address(to),
            Type::STREAM,
            Some(Protocol::TCP),
        )?)
    })?;
    let begin = Instant::now();
    let error = socket.connect_timeout(&to.into(), within).err();
    // The time that was allowed and that of the kernel end with the same kind of error.
    Ok(match error {
        Some(_) if begin.elapsed() >= within => None,
        other => other.map(|error| error.kind()),
    })
}

#[test]
fn a_connection_that_is_dropped_is_tried_for_as_long_as_any() -> Result<()> {
    let (pair, _sg) = Sg::protecting(&policy(""))?;
    for address in ["10.0.0.1:8", "[2001:db8::1]:8"] {
        let ended = connects(&pair.host, address, LONG)?;
        ensure!(ended.is_none(), "{address} is given up: {ended:?}");
    }
    Ok(())
}

#[test]
fn a_connection_outlives_a_change_that_is_taken_back() -> Result<()> {
    let (pair, sg) = Sg::protecting(&policy(""))?;
    let _listener = TcpEcho::listen(&pair.world, ":7")?;
    let mut sessions = [
        Session::open(&pair.host, "10.0.0.1:7")?,
        Session::open(&pair.host, "[2001:db8::1]:7")?,
    ];
    for session in &mut sessions {
        ensure!(session.echoes()? == Connected);
    }
    let path = sg.write_policy(&closed(""))?;
    sg.run(&["apply", &path, "--terminate"])?.succeeded()?;
    for session in &mut sessions {
        ensure!(session.echoes()? == TimedOut, "the change is not in force");
    }
    std::thread::sleep(LONG);
    sg.apply(&policy(""))?;
    // The kernel tries again after times that double.
    for session in &mut sessions {
        let deadline = Instant::now() + 4 * LONG;
        let mut heard = session.echoes()?;
        while heard == TimedOut && Instant::now() < deadline {
            heard = session.echoes()?;
        }
        ensure!(heard == Connected, "the connection is lost: {heard:?}");
    }
    Ok(())
}
