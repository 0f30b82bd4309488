//! A wire between a sender that makes all the frames a CPU can make and a machine with one
//! receiving CPU.
//!
//! The receiving end of the veth polls (as with generic receive offload) on a kernel thread of its
//! own, which is kept to the last CPU; the sender keeps to the first. What the receiver has no time
//! for is lost in the ring between them, so that what it counts is what it can do. A rate is by the
//! time that the thread was running, as the scheduler tells it: what else the machine does on that
//! CPU is not the contestant's fault.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::net::Ipv4Addr;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sg_common::scatter::Scatter;
use sg_ctl::dataplane::measure::Flood;
use tests::lab::{Host, Lab};

use crate::policies::{HOST, PREFIXES_BASE, PREFIXES_MASK, UNNAMED};

/// The neighbour that every route leads to.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SENDING_END: &str = "far0";

/// One sender, one receiver.
pub(crate) struct Wire {
    pub(crate) source: Host,
    pub(crate) target: Host,
    /// The receiving interface.
    pub(crate) interface: String,
    ifindex: u32,
    flood: Flood,
    /// `/proc/net/dev` of the target.
    counters: File,
    /// `schedstat` of the polling thread.
    poller: File,
    /// Owns the machines.
    _lab: Lab,
}

/// What came of a flood, in packets a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Taken off the wire by the receiver, whatever it then did, by its own time.
    pub(crate) received: f64,
    /// The same, by the clock on the wall.
    pub(crate) received_by_clock: f64,
    /// The part of what was sent that found no room.
    pub(crate) lost: f64,
}

impl Wire {
    /// Lays a wire. The receiver holds [`HOST`] and knows its neighbour.
    pub(crate) fn lay() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // The polling thread is found by the interface's name, among those of every namespace.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let interface = format!("b{:x}n{number:x}", process::id());
        let lab = Lab::new()?;
        let (source, target) = (lab.host("source")?, lab.host("target")?);
        lab.join((&source, SENDING_END), (&target, &interface))?;
        target.add_addresses(&interface, &[&format!("{HOST}/24")])?;
        target.ip(&format!("route add default via {GATEWAY}"))?;
        let link = source.link(SENDING_END)?;
        let mac = mac_text(source.mac(SENDING_END)?);
        target.ip(&format!(
            "neighbour add {GATEWAY} lladdr {mac} dev {interface} nud permanent"
        ))?;
        poll_on_a_thread(&target, &interface)?;
        let poller = keep_poller_to_last_cpu(&interface)?;
        let counters = target.enter(|| Ok(File::open("/proc/thread-self/net/dev")?))?;
        let mut flood = Flood::load()?;
        flood.scatter(Scatter {
            base: PREFIXES_BASE | UNNAMED,
            mask: PREFIXES_MASK,
            ..Scatter::still(0)
        })?;
        Ok(Self {
            ifindex: link.ifindex() as u32,
            source,
            target,
            interface,
            flood,
            counters,
            poller,
            _lab: lab,
        })
    }

    /// Sends frames as they are from then on, not from random sources.
    pub(crate) fn keep_source(&mut self) -> Result<()> {
        Ok(self.flood.scatter(Scatter::still(0))?)
    }

    /// Sends so many frames at once.
    pub(crate) fn send(&self, frame: &[u8], count: u32) -> Result<()> {
        self.source
            .enter(|| Ok(self.flood.send(self.ifindex, frame, count)?))
    }

    /// Sends copies of a frame, from random sources unless told otherwise, and counts for this long.
    pub(crate) fn flood(&mut self, frame: &[u8], span: Duration) -> Result<Rate> {
        /// A tenth of a second's worth: beginning and ending a call takes the kernel milliseconds.
        const AT_ONCE: u32 = 1 << 19;
        const TO_BEGIN_WITH: u32 = 1 << 12;
        let Self {
            source,
            flood,
            ifindex,
            interface,
            counters,
            poller,
            ..
        } = self;
        source.enter(|| {
            crate::keep_to(0, 0)?;
            flood.send(*ifindex, frame, TO_BEGIN_WITH)?;
            let begin = Instant::now();
            let (before, ran_before) = (received(counters, interface)?, seconds_run(poller)?);
            let mut sent = 0.0;
            while begin.elapsed() < span {
                flood.send(*ifindex, frame, AT_ONCE)?;
                sent += f64::from(AT_ONCE);
            }
            let (after, ran_after) = (received(counters, interface)?, seconds_run(poller)?);
            let received = (after - before) as f64;
            Ok(Rate {
                received_by_clock: received / begin.elapsed().as_secs_f64(),
                received: received / (ran_after - ran_before),
                lost: 1.0 - received / sent,
            })
        })
    }

    /// How many packets reached the receiver's IP layer so far.
    pub(crate) fn passed(&self) -> Result<u64> {
        let text = self
            .target
            .enter(|| Ok(fs::read_to_string("/proc/thread-self/net/snmp")?))?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
        let (names, values) = (lines.next(), lines.next());
        let at = names
            .and_then(|names| names.split(' ').position(|name| name == "InReceives"))
            .context("the kernel does not count received IP packets")?;
        let value = values.and_then(|values| values.split(' ').nth(at));
        Ok(value.context("no count")?.parse()?)
    }
}

/// Packets that an interface has received, by `/proc/net/dev`.
fn received(counters: &mut File, interface: &str) -> Result<u64> {
    let mut text = String::new();
    counters.rewind()?;
    counters.read_to_string(&mut text)?;
    let figures = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))
        .with_context(|| format!("{interface} is gone"))?;
    let packets = figures.split_whitespace().nth(1).context("no count")?;
    Ok(packets.parse()?)
}

/// How long a thread was running so far, by its `schedstat`.
fn seconds_run(schedstat: &mut File) -> Result<f64> {
    let mut text = String::new();
    schedstat.rewind()?;
    schedstat.read_to_string(&mut text)?;
    let nanoseconds = text.split(' ').next().context("no time")?;
    Ok(nanoseconds.parse::<f64>()? / 1e9)
}

fn poll_on_a_thread(target: &Host, interface: &str) -> Result<()> {
    target
        .run("ethtool", &["-K", interface, "gro", "on"])
        .context("a veth polls when it has generic receive offload")?;
    // `ip netns exec` shows the namespace's own /sys.
    let command = format!("echo 1 > /sys/class/net/{interface}/threaded");
    let mut words = vec!["netns", "exec", target.namespace(), "sh", "-c"];
    words.push(&command);
    target
        .run("ip", &words)
        .context("polling on a thread of its own")?;
    Ok(())
}

/// The thread has the name `napi/<interface>-<number>`. Returns its `schedstat`.
fn keep_poller_to_last_cpu(interface: &str) -> Result<File> {
    let last = crate::last_cpu()?;
    let prefix = format!("napi/{interface}-");
    for entry in fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_string_lossy().parse::<i32>();
        let Ok(pid) = pid else { continue };
        // A process may end while the others are looked at.
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with(&prefix) {
            crate::keep_to(pid, last)?;
            crate::put_first(pid)?;
            return File::open(entry.path().join("schedstat"))
                .context("this kernel does not tell how long a thread was running");
        }
    }
    bail!("no thread polls {interface}")
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
