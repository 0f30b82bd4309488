//! Real conversations between machines of a [`crate::lab::Lab`], and how they end.
//!
//! A drop is silent, so it can only ever be [`Outcome::TimedOut`]; whatever answers with a reset or
//! an unreachable is [`Outcome::Refused`]. Anything else, a missing route for one, is a mistake of
//! the test and an error.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{Host, Pair};
use crate::packets::internet_checksum;

/// How long to wait for an answer. On a veth the kernel hands a packet to the other end at once;
/// this leaves a loaded machine time to run the thread that answers.
pub const PATIENCE: Duration = Duration::from_millis(400);

/// How often a listening thread looks whether it should end.
const PULSE: Duration = Duration::from_millis(20);

/// How an attempt to talk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The other side answered as it should.
    Connected,
    /// Nothing came back.
    TimedOut,
    /// Something came back that said no.
    Refused,
}

/// A machine, and the address to speak from if it matters.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'host> {
    host: &'host Host,
    source: Option<SocketAddr>,
}

impl<'host> From<&'host Host> for Origin<'host> {
    fn from(host: &'host Host) -> Self {
        Self { host, source: None }
    }
}

impl Host {
    /// This machine speaking from `source`: `10.0.0.1`, `10.0.0.1:4000`, `[2001:db8::1]:4000`.
    pub fn at(&self, source: &str) -> Result<Origin<'_>> {
        let source = match source.parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, 0),
            Err(_) => endpoint(source)?,
        };
        Ok(Origin {
            host: self,
            source: Some(source),
        })
    }
}

impl Origin<'_> {
    /// A socket on this machine for talking to `to`.
    fn socket(&self, to: SocketAddr, kind: Type, protocol: Option<Protocol>) -> Result<Socket> {
        self.host.enter(|| {
            let socket = Socket::new(Domain::for_address(to), kind, protocol)?;
            if let Some(source) = self.source {
                socket.set_reuse_address(true)?;
                socket
                    .bind(&source.into())
                    .with_context(|| format!("speaking from {source}"))?;
            }
            Ok(socket)
        })
    }
}

/// Whether a TCP connection comes about.
pub fn tcp_connects<'a>(from: impl Into<Origin<'a>>, to: &str) -> Result<Outcome> {
    let to = endpoint(to)?;
    let socket = from.into().socket(to, Type::STREAM, Some(Protocol::TCP))?;
    let outcome = outcome_of(socket.connect_timeout(&to.into(), PATIENCE), to)?;
    // A reset frees the flow's ports on both machines at once, so that the next test may use them.
    socket.set_linger(Some(Duration::ZERO))?;
    Ok(outcome)
}

/// What becomes of connections to ports 80 and 81 of the usual protected machine.
pub fn ports_80_and_81(pair: &Pair) -> Result<[Outcome; 2]> {
    Ok([
        tcp_connects(&pair.world, "10.0.0.10:80")?,
        tcp_connects(&pair.world, "10.0.0.10:81")?,
    ])
}

/// Whether one datagram reaches an [`UdpEcho`] and comes back.
pub fn udp_roundtrip<'a>(from: impl Into<Origin<'a>>, to: &str) -> Result<Outcome> {
    static NUMBER: AtomicU16 = AtomicU16::new(0);
    let to = endpoint(to)?;
    let mut socket = from.into().socket(to, Type::DGRAM, Some(Protocol::UDP))?;
    // A connected socket hears of ICMP errors, and of nobody else's datagrams.
    socket
        .connect(&to.into())
        .with_context(|| format!("a route to {to}"))?;
    let sent = format!("sgt {}", NUMBER.fetch_add(1, Ordering::Relaxed)).into_bytes();
    await_answer(
        &mut socket,
        to,
        |socket| socket.write_all(&sent),
        |received| received == sent,
    )
}

/// Whether an ICMP or ICMPv6 echo request is answered.
pub fn ping<'a>(from: impl Into<Origin<'a>>, to: &str) -> Result<Outcome> {
    static NUMBER: AtomicU16 = AtomicU16::new(1);
    let to: IpAddr = to.parse().with_context(|| format!("address `{to}`"))?;
    let identifier = NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let (request, answer, protocol) = match to {
        IpAddr::V4(_) => (8, 0, Protocol::ICMPV4),
        IpAddr::V6(_) => (128, 129, Protocol::ICMPV6),
    };
    let mut message = vec![request, 0, 0, 0, identifier[0], identifier[1], 0, 1];
    message.extend_from_slice(b"sgt echo");
    if to.is_ipv4() {
        // The kernel fills in the checksum of ICMPv6 alone.
        let checksum = internet_checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&checksum);
    }
    let to = SocketAddr::new(to, 0);
    let mut socket = from.into().socket(to, Type::RAW, Some(protocol))?;
    socket
        .connect(&to.into())
        .with_context(|| format!("a route to {to}"))?;
    await_answer(
        &mut socket,
        to,
        |socket| socket.write_all(&message),
        |received| {
            // A raw IPv4 socket gets the IP header too.
            let start = if to.is_ipv4() {
                usize::from(received[0] & 15) * 4
            } else {
                0
            };
            received.get(start).is_some_and(|kind| *kind == answer)
                && received
                    .get(start + 4..start + 6)
                    .is_some_and(|id| id == identifier)
        },
    )
}

/// Sends, then reads until something is `wanted` or patience ends.
fn await_answer(
    socket: &mut Socket,
    to: SocketAddr,
    send: impl FnOnce(&mut Socket) -> io::Result<()>,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<Outcome> {
    let sent = outcome_of(send(socket), to)?;
    if sent != Outcome::Connected {
        return Ok(sent);
    }
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 2048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Outcome::TimedOut);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut buffer) {
            Ok(length) if length > 0 && wanted(&buffer[..length]) => return Ok(Outcome::Connected),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return outcome_of(Err(error), to),
        }
    }
}

fn outcome_of(attempt: io::Result<()>, to: SocketAddr) -> Result<Outcome> {
    match attempt.map_err(|error| (error.kind(), error)) {
        Ok(()) => Ok(Outcome::Connected),
        Err((ErrorKind::TimedOut | ErrorKind::WouldBlock, _)) => Ok(Outcome::TimedOut),
        Err((ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset, _)) => Ok(Outcome::Refused),
        Err((_, error)) => Err(error).with_context(|| format!("talking to {to}")),
    }
}

/// A TCP connection that stays open, for flows that outlive a change of policy.
///
/// The other end is a [`TcpEcho`].
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
    peer: SocketAddr,
    said: u64,
}

impl Session {
    /// Connects, or says why not.
    pub fn open<'a>(from: impl Into<Origin<'a>>, to: &str) -> Result<Self> {
        let peer = endpoint(to)?;
        let socket = from
            .into()
            .socket(peer, Type::STREAM, Some(Protocol::TCP))?;
        socket
            .connect_timeout(&peer.into(), PATIENCE)
            .with_context(|| format!("connecting to {peer}"))?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            peer,
            said: 0,
        })
    }

    /// Whether something said now comes back.
    ///
    /// After a time-out the kernel keeps retransmitting, so a later call may well succeed.
    pub fn echoes(&mut self) -> Result<Outcome> {
        self.said += 1;
        let said = self.said.to_be_bytes();
        self.echoes_bytes(&said)
    }

    /// Whether these bytes, said now, come back.
    pub fn echoes_bytes(&mut self, said: &[u8]) -> Result<Outcome> {
        let sent = outcome_of(self.stream.write_all(said), self.peer)?;
        if sent != Outcome::Connected {
            return Ok(sent);
        }
        // Words of an earlier call may come back first.
        let deadline = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Outcome::TimedOut);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(Outcome::Refused),
                Ok(length) => heard.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return outcome_of(Err(error), self.peer),
            }
            if heard.ends_with(said) {
                return Ok(Outcome::Connected);
            }
        }
    }

    /// The address this end speaks from.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.stream.local_addr()?)
    }
}

/// Listens on a TCP port and sends back what it gets. Ends when dropped.
#[derive(Debug)]
pub struct TcpEcho {
    _service: Service,
}

impl TcpEcho {
    /// Listens at `10.0.0.10:22`, `[::]:22`; a bare `:22` is every address of both families.
    pub fn listen(host: &Host, at: &str) -> Result<Self> {
        let listener: TcpListener = bound(host, at, Type::STREAM)?.into();
        let service = Service::start(move |ended| {
            let mut talks: Vec<TcpStream> = Vec::new();
            while !ended() {
                let mut wanted = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
                wanted.extend(
                    talks
                        .iter()
                        .map(|t| PollFd::new(t.as_fd(), PollFlags::POLLIN)),
                );
                if !await_any(&mut wanted) {
                    continue;
                }
                talks.retain_mut(|talk| !is_over(talk));
                while let Ok((talk, _)) = listener.accept() {
                    if talk.set_nonblocking(true).is_ok() {
                        talks.push(talk);
                    }
                }
            }
        });
        Ok(Self { _service: service })
    }
}

/// Sends back what has come, if anything; `true` when the other end has left.
fn is_over(talk: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    match talk.read(&mut buffer) {
        Ok(0) => true,
        Ok(length) => talk.write_all(&buffer[..length]).is_err(),
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// A datagram that arrived: from where, and what it said.
pub type Datagram = (SocketAddr, Vec<u8>);

/// Listens on a UDP port, remembers what it gets and sends it back. Ends when dropped.
#[derive(Debug)]
pub struct UdpEcho {
    received: Arc<Mutex<Vec<Datagram>>>,
    _service: Service,
}

impl UdpEcho {
    /// Listens at `10.0.0.10:53`, `[::]:53`; a bare `:53` is every address of both families.
    pub fn listen(host: &Host, at: &str) -> Result<Self> {
        let socket: UdpSocket = bound(host, at, Type::DGRAM)?.into();
        let received = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&received);
        let service = Service::start(move |ended| {
            let mut buffer = vec![0; 65_536];
            while !ended() {
                if !await_any(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)]) {
                    continue;
                }
                // An error is a queued ICMP answer to an earlier echo: nothing to do with us.
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let said = buffer[..length].to_vec();
                record
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((canonical(from), said));
                drop(socket.send_to(&buffer[..length], from));
            }
        });
        Ok(Self {
            received,
            _service: service,
        })
    }

    /// What has arrived so far: the receiver's truth about ingress.
    pub fn received(&self) -> Vec<Datagram> {
        self.received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether a datagram for which `wanted` holds has arrived or arrives in time.
    pub fn gets(&self, wanted: impl Fn(&Datagram) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.received().iter().any(&wanted) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A thread that ends when this is dropped.
#[derive(Debug)]
struct Service {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    fn start(work: impl FnOnce(&dyn Fn() -> bool) + Send + 'static) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        let thread = thread::spawn(move || work(&|| seen.load(Ordering::Relaxed)));
        Self {
            ended,
            thread: Some(thread),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already, and this may run during another one.
            drop(thread.join());
        }
    }
}

fn await_any(wanted: &mut [PollFd<'_>]) -> bool {
    let timeout = PollTimeout::try_from(PULSE).unwrap_or(PollTimeout::ZERO);
    poll(wanted, timeout).is_ok_and(|ready| ready > 0)
}

fn bound(host: &Host, at: &str, kind: Type) -> Result<Socket> {
    let (at, both) = match at.strip_prefix(':') {
        Some(port) => {
            let port = port.parse().with_context(|| format!("port `{port}`"))?;
            (SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), true)
        }
        None => (endpoint(at)?, false),
    };
    host.enter(|| {
        let socket = Socket::new(Domain::for_address(at), kind, None)?;
        socket.set_reuse_address(true)?;
        if at.is_ipv6() {
            socket.set_only_v6(!both)?;
        }
        socket
            .bind(&at.into())
            .with_context(|| format!("listening at {at}"))?;
        if kind == Type::STREAM {
            socket.listen(128)?;
        }
        socket.set_nonblocking(true)?;
        Ok(socket)
    })
}

/// A socket of both families shows IPv4 peers as mapped addresses.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn endpoint(text: &str) -> Result<SocketAddr> {
    text.parse().with_context(|| {
        let (v4, v6) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        format!("`{text}` is no endpoint; write {v4}:22 or [{v6}]:22")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Lab;

    /// The world's packets to the host go to nobody from now on, and nobody says so.
    fn lose_packets(world: &Host) {
        for to in ["10.0.0.10", "2001:db8::10"] {
            world
                .ip(&format!(
                    "neigh replace {to} lladdr 02:00:00:00:00:99 dev eth0"
                ))
                .unwrap();
        }
    }

    #[test]
    fn two_machines_ping_each_other() {
        let pair = Lab::pair().unwrap();
        for to in ["10.0.0.10", "2001:db8::10"] {
            assert_eq!(ping(&pair.world, to).unwrap(), Outcome::Connected, "{to}");
        }
        assert_eq!(
            ping(&pair.host, "198.51.100.7").unwrap(),
            Outcome::Connected
        );
        assert_eq!(
            ping(&pair.host, "2001:db8:bb::5").unwrap(),
            Outcome::Connected
        );
    }

    #[test]
    fn two_machines_connect() {
        let pair = Lab::pair().unwrap();
        let _listener = TcpEcho::listen(&pair.host, ":22").unwrap();
        for to in ["10.0.0.10:22", "[2001:db8::10]:22"] {
            assert_eq!(
                tcp_connects(&pair.world, to).unwrap(),
                Outcome::Connected,
                "{to}"
            );
        }
        let from = pair.world.at("198.51.100.7:40000").unwrap();
        assert_eq!(
            tcp_connects(from, "10.0.0.10:22").unwrap(),
            Outcome::Connected
        );
    }

    #[test]
    fn a_closed_port_refuses() {
        let pair = Lab::pair().unwrap();
        assert_eq!(
            tcp_connects(&pair.world, "10.0.0.10:23").unwrap(),
            Outcome::Refused
        );
        assert_eq!(
            udp_roundtrip(&pair.world, "[2001:db8::10]:23").unwrap(),
            Outcome::Refused
        );
    }

    #[test]
    fn silence_is_a_time_out_and_an_absent_route_an_error() {
        let pair = Lab::pair().unwrap();
        lose_packets(&pair.world);
        assert_eq!(
            tcp_connects(&pair.world, "10.0.0.10:22").unwrap(),
            Outcome::TimedOut
        );
        assert_eq!(
            udp_roundtrip(&pair.world, "10.0.0.10:53").unwrap(),
            Outcome::TimedOut
        );
        assert_eq!(
            ping(&pair.world, "2001:db8::10").unwrap(),
            Outcome::TimedOut
        );
        tcp_connects(&pair.world, "100.64.0.1:22").unwrap_err();
    }

    #[test]
    fn a_datagram_arrives_and_comes_back() {
        let pair = Lab::pair().unwrap();
        let echo = UdpEcho::listen(&pair.host, ":53").unwrap();
        let from = pair.world.at("198.51.100.7:40000").unwrap();
        assert_eq!(
            udp_roundtrip(from, "10.0.0.10:53").unwrap(),
            Outcome::Connected
        );
        assert!(echo.gets(|(from, _)| from.to_string() == "198.51.100.7:40000"));
        assert_eq!(echo.received().len(), 1);
    }

    #[test]
    fn a_session_goes_on_until_the_wire_is_cut() {
        let pair = Lab::pair().unwrap();
        let _listener = TcpEcho::listen(&pair.host, ":22").unwrap();
        let mut session = Session::open(&pair.world, "10.0.0.10:22").unwrap();
        assert_eq!(session.echoes().unwrap(), Outcome::Connected);
        assert_eq!(session.echoes().unwrap(), Outcome::Connected);
        lose_packets(&pair.world);
        assert_eq!(session.echoes().unwrap(), Outcome::TimedOut);
    }

    #[test]
    fn a_guest_behind_a_bridge_is_reached() {
        let lab = Lab::guest_behind_veth().unwrap();
        assert_eq!(ping(&lab.world, "10.0.0.10").unwrap(), Outcome::Connected);
        assert_eq!(
            ping(&lab.guest, "2001:db8:aa::7").unwrap(),
            Outcome::Connected
        );
    }
}
