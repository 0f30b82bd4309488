//! `stats --watch` and `top`: what goes on, as it goes on, and a terminal that is as it was
//! afterwards.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Child;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;
use tests::inject::Injector;
use tests::lab::Pair;
use tests::packets::words::frame;
use tests::running::Running;
use tests::sg::Sg;

const POLICY: &str =
    "{groups: {web: {ingress: [{protocol: tcp, ports: 80, from: 203.0.113.0/24}]}},
                       interfaces: {eth0: {groups: [web]}}}";

/// Sends one packet that no rule admits.
fn refused(pair: &Pair) -> Result<()> {
    let syn = frame("tcp 198.51.100.7:4000 > 10.0.0.10:22 syn")?;
    Injector::on(&pair.world, "eth0")?.send(&syn)
}

#[test]
fn a_pipe_gets_a_line_for_what_has_grown() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let watch = Running::reading(sg.spawn(&["stats", "--watch", "1"])?)?;
    let deadline = Instant::now() + Duration::from_secs(20);
    let line = loop {
        ensure!(Instant::now() < deadline, "no line is about the drops");
        refused(&pair)?;
        match watch.line_within(Duration::from_millis(200))? {
            Some(line) if line.contains("no-rule") => break line,
            _ => {}
        }
    };
    for word in ["eth0", "ingress", "drop", "+", "packet", "/s"] {
        ensure!(line.contains(word), "no {word:?} in {line}");
    }
    watch.signal(Signal::SIGINT)?;
    ensure!(watch.end()?.0 == Some(0), "Ctrl-C is no failure");
    Ok(())
}

#[test]
fn json_gives_totals_and_rates() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let watch = Running::reading(sg.spawn(&["stats", "--watch", "1", "--json"])?)?;
    let has_grown = |look: &serde_json::Value| {
        let rates = look["interfaces"][0]["rates"].as_array();
        rates.into_iter().flatten().any(|rate| {
            rate["reason"] == "no-rule"
                && rate["new_packets"].as_u64() > Some(0)
                && rate["packets_per_second"].as_f64() > Some(0.0)
                && rate["packets"].as_u64() >= rate["new_packets"].as_u64()
        })
    };
    watch.json_when(|| refused(&pair), has_grown)?;
    Ok(())
}

/// A terminal with a program on it.
struct Screen {
    terminal: OpenptyResult,
    before: Termios,
    child: Child,
    drawn: Receiver<Vec<u8>>,
    keys: File,
}

impl Screen {
    fn with(sg: &Sg, arguments: &[&str]) -> Result<Self> {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let terminal = openpty(&size, None)?;
        let before = tcgetattr(&terminal.slave)?;
        let child = sg.spawn_on(&terminal.slave, arguments)?;
        let mut from = File::from(terminal.master.try_clone()?);
        let keys = File::from(terminal.master.try_clone()?);
        let (tell, drawn) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(length @ 1..) = from.read(&mut bytes) {
                if tell.send(bytes[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            terminal,
            before,
            child,
            drawn,
            keys,
        })
    }

    /// Waits until something is drawn.
    fn shows(&self, wanted: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut all = Vec::new();
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let Ok(bytes) = self.drawn.recv_timeout(left) else {
                break;
            };
            all.extend(bytes);
            if String::from_utf8_lossy(&all).contains(wanted) {
                return Ok(());
            }
        }
        bail!(
            "{wanted:?} is not drawn, but {:?}",
            String::from_utf8_lossy(&all)
        )
    }

    fn press(&mut self, key: &str) -> Result<()> {
        Ok(self.keys.write_all(key.as_bytes())?)
    }

    /// Whether it ends well, off the other screen, with the cursor shown and the terminal as it
    /// was.
    fn leaves_it_as_it_was(mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(20));
        };
        ensure!(status.code() == Some(0), "{status}");
        let mut rest = Vec::new();
        while let Ok(bytes) = self.drawn.recv_timeout(Duration::from_millis(300)) {
            rest.extend(bytes);
        }
        let rest = String::from_utf8_lossy(&rest);
        ensure!(
            rest.contains("\x1b[?1049l"),
            "the other screen stays: {rest:?}"
        );
        ensure!(rest.contains("\x1b[?25h"), "the cursor is hidden: {rest:?}");
        let after = tcgetattr(&self.terminal.slave)?;
        ensure!(after == self.before, "{after:?} was {:?}", self.before);
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn top_shows_drops_with_their_peer_and_q_ends_it() -> Result<()> {
    let (pair, sg) = Sg::protecting(POLICY)?;
    let mut top = Screen::with(&sg, &["top"])?;
    top.shows("eth0")?;
    refused(&pair)?;
    top.shows("198.51.100.7")?;
    top.press("q")?;
    top.leaves_it_as_it_was()
}

#[test]
fn a_terminated_top_leaves_the_terminal_as_it_was() -> Result<()> {
    let (_pair, sg) = Sg::protecting(POLICY)?;
    for arguments in [&["top"][..], &["stats", "--watch"]] {
        let screen = Screen::with(&sg, arguments)?;
        screen.shows("eth0")?;
        let pid = i32::try_from(screen.child.id()).context("a pid")?;
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        screen.leaves_it_as_it_was()?;
    }
    Ok(())
}

#[test]
fn top_without_a_terminal_says_what_to_do() -> Result<()> {
    let (_pair, sg) = Sg::protecting(POLICY)?;
    let ran = sg.run(&["top"])?;
    ensure!(ran.code == Some(2), "{ran}");
    ensure!(ran.stderr.contains("stats --watch"), "{ran}");
    Ok(())
}
