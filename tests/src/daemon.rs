//! The real `sg-ctl daemon`, beside an instance of the lab.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sg::{Sg, crashing_sg_ctl};

/// Nothing that a daemon does takes this long, on a loaded machine either.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running daemon. Dropping it kills it, which opens nothing.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
    socket: PathBuf,
}

impl Daemon {
    /// Starts one with a configuration, and waits until it answers.
    pub fn start(sg: &Sg, config: &str) -> Result<Self> {
        let config = sg.write("daemon.toml", config)?;
        Self::of(sg, sg.spawn(&["daemon", "--config", &config])?)
    }

    /// Starts one that dies when it has made a step (see `sg_ctl::crash`).
    pub fn start_to(sg: &Sg, point: &str) -> Result<Self> {
        let child = sg.spawn_to(point, &crashing_sg_ctl()?, &["daemon"])?;
        Self::of(sg, child)
    }

    fn of(sg: &Sg, mut child: Child) -> Result<Self> {
        let stderr = child.stderr.take().context("no stderr")?;
        let log = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Ok(mut log) = written.lock() {
                    log.push_str(&line);
                    log.push('\n');
                }
            }
        });
        let mut daemon = Self {
            child,
            log,
            socket: sg.run_dir().join("sg.sock"),
        };
        let answers = |daemon: &mut Self| {
            if let Some(ended) = daemon.child.try_wait()? {
                bail!("it ended with {ended}: {}", daemon.log());
            }
            Ok(daemon.get("/status").is_ok_and(|(code, _)| code == 200))
        };
        let began = Instant::now();
        while !answers(&mut daemon)? {
            ensure!(
                began.elapsed() < PATIENCE,
                "it does not answer: {}",
                daemon.log()
            );
            thread::sleep(Duration::from_millis(10));
        }
        Ok(daemon)
    }

    /// Everything that it has written so far.
    pub fn log(&self) -> String {
        self.log.lock().map(|log| log.clone()).unwrap_or_default()
    }

    /// Waits until it has written something.
    pub fn says(&self, words: &str) -> Result<()> {
        eventually(&format!("the daemon says \"{words}\""), || {
            Ok(self.log().contains(words))
        })
        .with_context(|| self.log())
    }

    /// A connection to its socket.
    pub fn connect(&self) -> Result<UnixStream> {
        let stream = UnixStream::connect(&self.socket).context("connecting to the daemon")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// The status code and the body of a page.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        self.ask("GET", path, "")
    }

    /// The same of what is sent.
    pub fn post(&self, path: &str, body: &str) -> Result<(u16, String)> {
        self.ask("POST", path, body)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let mut stream = self.connect()?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: sg\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .context("reading the answer")?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
        let code = head.split(' ').nth(1).context("no status code")?;
        Ok((code.parse()?, body.to_owned()))
    }

    /// Its process.
    pub fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid()?, signal).with_context(|| format!("sending {signal}"))
    }

    /// Waits until it has ended.
    pub fn end(mut self) -> Result<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "it does not end: {}",
                self.log()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something holds, which it has to before long.
pub fn eventually(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !holds()? {
        ensure!(
            began.elapsed() < PATIENCE,
            "it does not come to this: {what}"
        );
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
