//! One bounded attempt to talk to somebody, and how it ended.
//!
//! It knows sockets and nothing of policies.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// What talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A connection is opened.
    Tcp,
    /// A datagram is sent.
    Udp,
}

impl Transport {
    /// The IP protocol.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => sg_common::protocol::TCP,
            Self::Udp => sg_common::protocol::UDP,
        }
    }
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The other side talks.
    Answered,
    /// The other side, or somebody for it, said no.
    Refused,
    /// Nothing came back.
    Silence,
    /// Nothing can be sent there, or a router said so.
    Unreachable(io::Error),
}

/// A socket with an address of its own, not yet connected.
pub(super) struct Attempt {
    socket: Socket,
    transport: Transport,
    /// Where it speaks from.
    pub(super) source: SocketAddr,
    destination: SocketAddr,
}

/// Asks the system's resolver, which may take its time.
pub fn resolve(host: &str, port: u16, patience: Duration) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (answer, answered) = mpsc::channel();
    let name = host.to_owned();
    thread::spawn(move || {
        let found = (name.as_str(), port).to_socket_addrs();
        // Whoever asked may have given up.
        let _ = answer.send(found.map(Vec::from_iter));
    });
    match answered.recv_timeout(patience) {
        Ok(found) => found,
        Err(_) => Err(io::Error::new(
            ErrorKind::TimedOut,
            "no name server has answered",
        )),
    }
}

/// The address that packets to this one are sent from.
pub(super) fn source_towards(destination: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = match destination {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    // Connecting a datagram socket asks for the route, and sends nothing.
    let socket = UdpSocket::bind(any)?;
    socket.connect(destination)?;
    Ok(socket.local_addr()?.ip())
}

impl Attempt {
    /// Takes a port to speak from.
    pub(super) fn prepare(
        transport: Transport,
        source: IpAddr,
        destination: SocketAddr,
        interface: Option<&str>,
    ) -> io::Result<Self> {
        let domain = Domain::for_address(destination);
        let socket = match transport {
            Transport::Tcp => Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?,
            Transport::Udp => Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?,
        };
        if let Some(interface) = interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        let mut from = SocketAddr::new(source, 0);
        if let (SocketAddr::V6(from), SocketAddr::V6(to)) = (&mut from, destination) {
            from.set_scope_id(to.scope_id());
        }
        socket.bind(&from.into())?;
        let source = socket.local_addr()?.as_socket().unwrap_or(from);
        Ok(Self {
            socket,
            transport,
            source,
            destination,
        })
    }

    /// Tries, and says how long it took to know.
    pub(super) fn run(&self, patience: Duration) -> (Outcome, Duration) {
        let begin = Instant::now();
        let tried = match self.transport {
            Transport::Tcp => self
                .socket
                .connect_timeout(&self.destination.into(), patience),
            Transport::Udp => self.exchange(patience),
        };
        let outcome = match tried {
            Ok(()) => Outcome::Answered,
            Err(error) => match error.kind() {
                ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Outcome::Refused,
                ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::Silence,
                _ => Outcome::Unreachable(error),
            },
        };
        (outcome, begin.elapsed())
    }

    /// Sends an empty datagram, which services that answer nonsense answer too.
    fn exchange(&self, patience: Duration) -> io::Result<()> {
        self.socket.connect(&self.destination.into())?;
        self.socket.send(&[])?;
        self.socket
            .set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        let mut buffer = [std::mem::MaybeUninit::uninit(); 1];
        self.socket.recv(&mut buffer).map(drop)
    }
}
