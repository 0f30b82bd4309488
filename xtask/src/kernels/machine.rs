//! A booted kernel: the emulator, and what its console says.
//!
//! Nothing here waits without an end: a machine that says nothing new in time is ended.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::{setup, workspace};

/// What a machine is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hardware {
    pub(super) arch: Arch,
    pub(super) cpus: u16,
    pub(super) memory_mib: u32,
}

/// What the init script tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The kernel of this release runs the init script.
    Ready(String),
    Begin(String),
    /// A line that a step has printed.
    Printed(String),
    End(String, Outcome),
    /// All steps have been run.
    Over,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    /// It ended with this exit code.
    Failed(i32),
    /// It did not end in time.
    TimedOut,
    /// The kernel told of a fault of its own.
    KernelFault,
    /// The machine stopped before the end of the step, or before it began.
    NotRun,
}

/// A running emulator. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Machine {
    child: Child,
    lines: Receiver<String>,
    log: File,
}

impl Machine {
    /// Starts an emulator; all that the console says is kept in `log`.
    pub(super) fn boot(
        hardware: Hardware,
        kernel: &Path,
        image: &Path,
        log: &Path,
    ) -> Result<Self> {
        let log = File::create(log).with_context(|| format!("making {}", log.display()))?;
        let Hardware {
            arch,
            cpus,
            memory_mib,
        } = hardware;
        let mut qemu = workspace::command(&setup::path_of(arch.qemu())?);
        qemu.args(arch.machine())
            .args(["-smp", &cpus.to_string(), "-m", &memory_mib.to_string()])
            .args(["-nodefaults", "-no-reboot", "-display", "none"])
            .args(["-serial", "stdio", "-monitor", "none", "-nic", "none"])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(image)
            .args([
                "-append",
                &format!("{} quiet loglevel=1 panic=-1", arch.kernel_arguments()),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone().context("a log")?);
        let mut child = qemu
            .spawn()
            .with_context(|| format!("cannot run {}", arch.qemu()))?;
        let console = child.stdout.take().context("the emulator has no console")?;
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).replace('\r', "");
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines, log })
    }

    /// The next thing that the machine says; `None` when it has ended, or said nothing by then.
    pub(super) fn next(&mut self, deadline: Instant) -> Result<Option<Event>> {
        let time = deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(time.max(Duration::from_millis(1))) {
            Ok(line) => {
                writeln!(self.log, "{line}").context("writing the log")?;
                Ok(Some(read(&line)))
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(None),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a line of the console. Firmware and kernel may have written before it without a newline.
fn read(line: &str) -> Event {
    let printed = || Event::Printed(line.to_owned());
    let Some((_, told)) = line.split_once("sg:") else {
        return printed();
    };
    match told.split(' ').collect::<Vec<_>>()[..] {
        ["ready", release] => Event::Ready(release.to_owned()),
        ["begin", step] => Event::Begin(step.to_owned()),
        ["over"] => Event::Over,
        ["end", step, outcome] => match outcome_of(outcome) {
            Some(outcome) => Event::End(step.to_owned(), outcome),
            None => printed(),
        },
        _ => printed(),
    }
}

fn outcome_of(word: &str) -> Option<Outcome> {
    match word {
        "timeout" => Some(Outcome::TimedOut),
        "fault" => Some(Outcome::KernelFault),
        code => match code.parse().ok()? {
            0 => Some(Outcome::Passed),
            code => Some(Outcome::Failed(code)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_init_script_tells_is_read_behind_the_noise_of_firmware() {
        assert_eq!(
            read("\u{1b}[2Jsg:ready 6.1.0"),
            Event::Ready("6.1.0".to_owned())
        );
        assert_eq!(
            read("sg:end hooks 101"),
            Event::End("hooks".to_owned(), Outcome::Failed(101))
        );
        assert_eq!(
            read("sg:end hooks timeout"),
            Event::End("hooks".to_owned(), Outcome::TimedOut)
        );
        assert_eq!(read("sg:over"), Event::Over);
    }

    #[test]
    fn what_a_step_prints_is_not_taken_for_the_script() {
        let line = "from: [sg:web]";
        assert_eq!(read(line), Event::Printed(line.to_owned()));
    }
}
