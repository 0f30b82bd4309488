//! A trace of one interface, and the process that ends it whatever becomes of the command.
//!
//! That process, the *guard*, has the interface's seat. It reads from a pipe to which the command writes
//! once, when the trace has begun. The pipe ends when the command does, however it does, and then the
//! guard puts the ordinary programs back. Should the guard be killed, the command does so; should both be, the next command
//! that changes anything, or `restore`.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sg_common::trace::TraceFilter;

use super::View;
use super::error::{Error, Result};
use crate::dataplane::{self, Attachment, Dataplane, TraceSeat, TraceStream, end_trace};
use crate::dirs::{DirOptions, Dirs};
use crate::policy::names::InterfaceName;
use crate::privileges;

/// The command that guards a trace.
pub const GUARD_COMMAND: &str = "guard-trace";

/// A command that is stopped and never goes on does not keep the trace for longer than this after its
/// end.
const GRACE: Duration = Duration::from_secs(5);

/// Loading programs takes a second, and on a slow machine much longer.
const LONGEST_LOAD: Duration = Duration::from_secs(600);

/// How often and after which time the guard tries again what has failed.
const ATTEMPTS: u32 = 10;
const RETRY: Duration = Duration::from_millis(500);

/// What the guard says when it has the seat, or cannot have it.
const READY: &str = "ready";
const BUSY: &str = "busy";

/// An interface under a trace.
#[derive(Debug, clap::Args)]
pub struct Guarded {
    /// Its name
    #[arg(long)]
    interface: InterfaceName,
    /// The inode number of its network namespace
    #[arg(long)]
    netns_inode: u64,
    /// Its number there
    #[arg(long)]
    ifindex: u32,
    /// When the trace ends at the latest, in seconds from when it begins
    #[arg(long)]
    within_s: u64,
}

/// A trace that goes on. It ends with this.
pub struct Tracing {
    /// What is told.
    pub stream: TraceStream,
    guard: Guard,
    options: DirOptions,
    netns_inode: u64,
    ifindex: u32,
    has_ended: bool,
}

impl Tracing {
    /// Begins to trace an interface, and returns what is in force and stored meanwhile.
    pub fn begin(
        options: &DirOptions,
        at: &Attachment,
        filter: TraceFilter,
        within: Duration,
    ) -> Result<(Self, View, Dataplane)> {
        privileges::check()?;
        let guard = Guard::start(options, at, within)?;
        let lock = View::open(options)?.lock()?;
        let mut view = View::open(options)?;
        if let Some(mismatch) = view.mismatch.take() {
            return Err(mismatch);
        }
        let dataplane = view.dataplane()?;
        let dataplane = dataplane.ok_or(dataplane::Error::OtherPrograms)?;
        let mut tracing = Self {
            stream: dataplane.trace(at, filter)?,
            guard,
            options: options.clone(),
            netns_inode: at.netns_inode,
            ifindex: at.ifindex,
            has_ended: false,
        };
        // What ends the trace takes it.
        drop(lock);
        tracing.guard.begin()?;
        Ok((tracing, view, dataplane))
    }

    /// Whether the process that ends the trace is still there.
    pub fn is_guarded(&mut self) -> bool {
        matches!(self.guard.child.try_wait(), Ok(None))
    }

    /// Puts the ordinary programs back. What was logged can still be read.
    pub fn end(&mut self) -> Result<()> {
        self.has_ended = true;
        if !self.guard.end() {
            self.end_here()?;
        }
        Ok(self.stream.wait_until_told()?)
    }

    fn end_here(&self) -> Result<()> {
        end_now(&self.options, self.netns_inode, self.ifindex)
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        if !self.has_ended && !self.guard.end() {
            // What is left is seen by `verify`, and ended by the next command.
            let _ = self.end_here();
        }
    }
}

fn end_now(options: &DirOptions, netns_inode: u64, ifindex: u32) -> Result<()> {
    let dirs = Dirs::create(options)?;
    let _lock = dirs.lock()?;
    match dirs.find_bpffs()? {
        Some(bpffs) => Ok(end_trace(dirs.run(), &bpffs.path, netns_inode, ifindex)?),
        None => Ok(()),
    }
}

/// The process that ends the trace.
struct Guard {
    child: Child,
    /// Ends when this process does.
    pipe: Option<ChildStdin>,
    says: BufReader<ChildStdout>,
}

impl Guard {
    fn start(options: &DirOptions, at: &Attachment, within: Duration) -> Result<Self> {
        // By this name even where an upgrade has replaced the file.
        let mut child = Command::new("/proc/self/exe")
            .arg("--state-dir")
            .arg(&options.state_dir)
            .arg("--run-dir")
            .arg(&options.run_dir)
            .arg(GUARD_COMMAND)
            .args(["--interface", at.name.as_str()])
            .args(["--netns-inode", &at.netns_inode.to_string()])
            .args(["--ifindex", &at.ifindex.to_string()])
            .args(["--within-s", &(within + GRACE).as_secs().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::Guard)?;
        let pipe = child.stdin.take();
        let says = child.stdout.take();
        let says = says.ok_or_else(|| Error::Guard(io::ErrorKind::BrokenPipe.into()))?;
        let mut guard = Self {
            child,
            pipe,
            says: BufReader::new(says),
        };
        match guard.line().as_str() {
            READY => Ok(guard),
            BUSY => Err(dataplane::Error::TracedAlready(at.name.clone()).into()),
            said => Err(Error::Guard(io::Error::other(match said {
                "" => "it ended at once".to_owned(),
                said => said.to_owned(),
            }))),
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        // What cannot be read was not said.
        let _ = self.says.read_line(&mut line);
        line.trim_end().to_owned()
    }

    /// Tells it that the time of the trace runs from now on.
    fn begin(&mut self) -> Result<()> {
        match &mut self.pipe {
            Some(pipe) => pipe.write_all(b"\n").map_err(Error::Guard),
            None => Ok(()),
        }
    }

    /// Has it put the ordinary programs back, and returns whether it has.
    fn end(&mut self) -> bool {
        drop(self.pipe.take());
        self.child.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until the command that reads a trace ends, or should have, and puts the ordinary programs
/// back.
pub fn guard_trace(options: &DirOptions, guarded: &Guarded) -> Result<()> {
    // No terminal and no process group ends it.
    nix::unistd::setsid().map_err(|errno| Error::Guard(errno.into()))?;
    let mut says = io::stdout().lock();
    let mut say = |what: &str| {
        let _ = writeln!(says, "{what}");
        let _ = says.flush();
    };
    let dirs = Dirs::create(options)?;
    let Guarded {
        interface,
        netns_inode,
        ifindex,
        within_s,
    } = guarded;
    let seat = TraceSeat::take(dirs.run(), interface, *netns_inode, *ifindex);
    let _seat = match seat {
        Ok(seat) => seat,
        Err(dataplane::Error::TracedAlready(_)) => {
            say(BUSY);
            return Ok(());
        }
        Err(error) => {
            say(&error.to_string());
            return Err(error.into());
        }
    };
    say(READY);
    wait_for_end(Duration::from_secs(*within_s));
    let mut attempt = 0;
    loop {
        attempt += 1;
        match end_now(options, *netns_inode, *ifindex) {
            Err(_) if attempt < ATTEMPTS => thread::sleep(RETRY),
            ended => return ended,
        }
    }
}

/// Returns when standard input ends, or the time is over, which runs from when something comes.
fn wait_for_end(within: Duration) {
    let mut until = Instant::now() + LONGEST_LOAD;
    let mut stdin = io::stdin().lock();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut waited = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waited, timeout) {
            Ok(0) if left.is_zero() => return,
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(_) => return,
        }
        match stdin.read(&mut [0; 64]) {
            Ok(0) | Err(_) => return,
            Ok(_) => until = Instant::now() + within,
        }
    }
}
