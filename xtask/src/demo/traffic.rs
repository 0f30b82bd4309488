//! Real connections between the machines, over the standard library's sockets.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

/// Peers of a security group see silence, so silence is what has to be waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What came of an attempt to talk.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The other side sent back what was sent.
    Answered(Conversation),
    /// Nothing came back in time.
    TimedOut,
    /// Something else went wrong.
    Failed(io::Error),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(_) => f.write_str("it connected"),
            Self::TimedOut => f.write_str("it timed out"),
            Self::Failed(error) => write!(f, "it failed ({error})"),
        }
    }
}

impl From<io::Error> for Outcome {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::TimedOut,
            _ => Self::Failed(error),
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Conversation(TcpStream);

impl Conversation {
    /// Sends a word and waits for it to come back.
    pub(super) fn ask(mut self) -> Outcome {
        let word = *b"ping";
        let mut answer = [0; 4];
        match self
            .0
            .write_all(&word)
            .and_then(|()| self.0.read_exact(&mut answer))
        {
            Ok(()) if answer == word => Outcome::Answered(self),
            Ok(()) => Outcome::Failed(io::Error::other("the answer is not what was asked")),
            Err(error) => error.into(),
        }
    }
}

/// Runs something on a thread of its own in the namespace of the file.
pub(super) fn in_namespace<T: Send + 'static>(
    namespace: &Path,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let shown = namespace.display().to_string();
    let file = File::open(namespace).with_context(|| format!("cannot open {shown}"))?;
    thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {shown}"))?;
        work()
    })
    .join()
    .map_err(|_| anyhow!("a thread panicked"))?
}

/// Answers connections to a port of the namespace, on both families, as long as the demo runs.
pub(super) fn listen(namespace: &Path, port: u16) -> Result<()> {
    let listener = in_namespace(namespace, move || {
        // IPv4 arrives as mapped addresses.
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
            .with_context(|| format!("cannot listen on port {port}"))
    })?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // An echo ends with its connection, whichever way that goes.
            thread::spawn(move || {
                let reader = stream.try_clone();
                reader.and_then(|mut reader| io::copy(&mut reader, &mut stream))
            });
        }
    });
    Ok(())
}

/// Connects from an address of the namespace and exchanges a word.
pub(super) fn connect(namespace: &Path, from: IpAddr, to: SocketAddr) -> Result<Outcome> {
    in_namespace(namespace, move || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))
            .context("cannot open a socket")?;
        socket
            .bind(&SocketAddr::new(from, 0).into())
            .with_context(|| format!("cannot speak from {from}"))?;
        if let Err(error) = socket.connect_timeout(&to.into(), PATIENCE) {
            return Ok(error.into());
        }
        let stream = TcpStream::from(socket);
        stream
            .set_read_timeout(Some(PATIENCE))
            .context("cannot set a timeout")?;
        Ok(Conversation(stream).ask())
    })
}
