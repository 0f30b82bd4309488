//! Traffic from the neighbour: what a rule allows, of which nothing may be lost, and what none allows.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fastrand::Rng;

use crate::actors::Stage;

/// An answer that takes longer is lost. Nothing else on the way loses packets.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where no answer may come, one is waited for this long.
const SILENCE: Duration = Duration::from_millis(150);

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 10], port))
}

/// One connection that lasts as long as everything.
pub(crate) fn one_connection(stage: &Stage<'_>, _random: Rng) -> Result<()> {
    let connect = || TcpStream::connect_timeout(&at(22), PATIENCE).context("connecting");
    let mut stream = stage.pair.world.enter(connect)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut said = 0_u64;
    while stage.tally.goes_on() {
        said += 1;
        stream
            .write_all(&said.to_be_bytes())
            .context("the connection was cut")?;
        let mut heard = [0; 8];
        stream
            .read_exact(&mut heard)
            .context("the connection was cut")?;
        stage.tally.count("words over one connection");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A connection after another.
pub(crate) fn new_connections(stage: &Stage<'_>, _random: Rng) -> Result<()> {
    while stage.tally.goes_on() {
        let begin = Instant::now();
        let connected = stage
            .pair
            .world
            .enter(|| Ok(TcpStream::connect_timeout(&at(22), PATIENCE)));
        match connected? {
            // Had its first packet been lost, the second would have come a second later.
            Ok(_) if begin.elapsed() < Duration::from_secs(1) => {
                stage.tally.count("allowed connections");
            }
            Ok(_) => stage
                .tally
                .count("allowed connections that took a second or more"),
            Err(error) => stage.tally.complain("new connections", error),
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Datagrams, each of which has to come back; sometimes from another port.
pub(crate) fn datagrams(stage: &Stage<'_>, mut random: Rng) -> Result<()> {
    let open = || {
        stage
            .pair
            .world
            .enter(|| Ok(UdpSocket::bind("10.0.0.1:0")?))
    };
    let mut socket = open()?;
    let mut said = 0_u64;
    while stage.tally.goes_on() {
        if random.u8(..16) == 0 {
            socket = open()?;
        }
        socket.set_read_timeout(Some(PATIENCE))?;
        said += 1;
        socket.send_to(&said.to_be_bytes(), at(53))?;
        let mut heard = [0; 8];
        match socket.recv(&mut heard) {
            Ok(8) if heard == said.to_be_bytes() => stage.tally.count("allowed datagrams"),
            Ok(_) => {}
            Err(error) => stage.tally.complain(
                "datagrams",
                format!("the one of number {said} was lost: {error}"),
            ),
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// What no rule allows.
pub(crate) fn denied(stage: &Stage<'_>, _random: Rng) -> Result<()> {
    let socket = stage
        .pair
        .world
        .enter(|| Ok(UdpSocket::bind("10.0.0.1:0")?))?;
    socket.set_read_timeout(Some(SILENCE))?;
    while stage.tally.goes_on() {
        socket.send_to(b"let me in", at(54))?;
        match socket.recv(&mut [0; 16]) {
            Ok(_) => stage.tally.complain("denied datagrams", "one was answered"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                stage.tally.count("denied datagrams");
            }
            Err(error) => stage.tally.complain("denied datagrams", error),
        }
        let connected = stage
            .pair
            .world
            .enter(|| Ok(TcpStream::connect_timeout(&at(23), SILENCE)));
        match connected? {
            Ok(_) => stage
                .tally
                .complain("denied connections", "one was answered"),
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                stage.tally.count("denied connections");
            }
            Err(error) => stage.tally.complain("denied connections", error),
        }
    }
    Ok(())
}
