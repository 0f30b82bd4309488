//! A command that goes on, read line by line until it is told to end.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// No line that comes at all takes this long, on a loaded machine either.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// A running `sg-ctl`. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Reads the lines of a child whose standard output is piped.
    pub fn reading(mut child: Child) -> Result<Self> {
        let stdout = child.stdout.take().context("no stdout")?;
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines();
            for line in lines.map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// The next line; `None` when none comes in time.
    pub fn line_within(&self, time: Duration) -> Result<Option<String>> {
        match self.lines.recv_timeout(time) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the command ended by itself"),
        }
    }

    /// Does something again and again until it makes the command print JSON that is wanted.
    pub fn json_when(
        &self,
        mut cause: impl FnMut() -> Result<()>,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + LONGEST_WAIT;
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            cause()?;
            while let Some(line) = self.line_within(Duration::from_millis(300))? {
                let value =
                    serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
                if wanted(&value) {
                    return Ok(value);
                }
                seen.push(line);
            }
        }
        bail!("nothing wanted was printed, but:\n{}", seen.join("\n"))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("sending {signal}"))
    }

    /// Waits until it has ended, and returns its exit code and the lines that were left.
    pub fn end(mut self) -> Result<(Option<i32>, Vec<String>)> {
        let deadline = Instant::now() + LONGEST_WAIT;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(10));
        };
        Ok((status.code(), self.lines.iter().collect()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
