//! Telling what becomes of each packet, while it does.

use std::time::{Duration, Instant};

use clap::Args;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;
use sg_common::addr::Addr;
use sg_common::trace::TraceFilter;

use crate::controller::{Guarded, InterfaceState, Tracing, View, guard_trace};
use crate::dirs::DirOptions;
use crate::explain::{self, Explanation, Machine, Storyteller};
use crate::observe::time_of;
use crate::policy::names::{InterfaceName, VpcName};
use crate::policy::prefix::parse_prefix;
use crate::show::{self, StoryLines, Style};

use super::error::{Error, Result};
use super::interrupt::Interrupt;
use super::output::{Output, json_line, warn};
use super::port::Port;
use super::time::time;
use super::{Answer, choose};

/// The shortest and the longest trace.
const BOUNDS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3_600)];
/// How often the kernel's ring is emptied.
const POLL: Duration = Duration::from_millis(50);
/// How often the lease is renewed, and what is in place looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long what is logged already is told when the trace has ended.
const REST: Duration = Duration::from_secs(1);

/// For that time a traced build of the programs judges the interface's packets. It looks at the same
/// tables and flows and decides as the ordinary build does, and more slowly. The ordinary programs are
/// back when the command ends, whatever ends it: the time, Ctrl-C, a kill, or a change of the policy.
/// No packet passes unjudged.
///
/// Packets that come faster than they can be told are counted.
#[derive(Debug, Args)]
pub(super) struct Trace {
    /// The interface
    #[arg(value_name = "IFACE")]
    interface: InterfaceName,
    /// Only packets whose other side is this address, or in this prefix
    #[arg(long, value_name = "ADDRESS|PREFIX", value_parser = parse_prefix)]
    peer: IpNet,
    /// Only packets of TCP and UDP with this port on either side, like 443 or https
    #[arg(long)]
    port: Option<Port>,
    /// How long
    #[arg(
        long = "for",
        value_name = "TIME",
        default_value = "30s",
        value_parser = time(BOUNDS[0], BOUNDS[1])
    )]
    time: Duration,
    /// The VPC of the interface
    #[arg(long)]
    vpc: Option<VpcName>,
    /// The network namespace of the interface, by name or path
    #[arg(long, value_name = "NAME|PATH")]
    netns: Option<String>,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
}

/// Why a trace ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Ending {
    /// Its time is over.
    Time,
    /// It was asked to.
    Interrupt,
    /// The policy in force is another one, or was installed again.
    Policy,
    /// The process that would have ended it was killed.
    Guard,
    /// The reader of the output has closed it.
    Reader,
}

impl Ending {
    /// What the user did not ask for.
    fn warning(self) -> Option<&'static str> {
        match self {
            Self::Policy => Some(
                "the trace has ended early: a command changed the policy or installed it again",
            ),
            Self::Guard => {
                Some("the trace has ended early: the process that was to end it has been killed")
            }
            Self::Time | Self::Interrupt | Self::Reader => None,
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Line<'a> {
    Begun {
        interface: &'a InterfaceName,
        vpc: &'a VpcName,
        peer: IpNet,
        port: Option<u16>,
        for_s: u64,
    },
    Packet {
        time: Timestamp,
        #[serde(flatten)]
        told: Box<Explanation>,
    },
    Ended {
        why: Ending,
        told: u64,
        left_out: u64,
    },
}

impl Trace {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let interrupt = Interrupt::catch()?;
        let view = View::open(dirs)?;
        let (vpc, netns) = (self.vpc.as_ref(), self.netns.as_deref());
        let (vpc, name) = choose::present(&view, vpc, netns, &self.interface)?;
        let (vpc, name) = (&vpc, &name);
        let states = view.interface_states()?;
        let attachment = match states.of_interface(vpc, name) {
            InterfaceState::Protected(attachment) => attachment,
            _ => {
                return Err(explain::Error::NotProtected {
                    vpc: vpc.clone(),
                    interface: name.clone(),
                }
                .into());
            }
        };
        let port = self.port.map(|port| port.number(None)).transpose()?;
        let (peer, length) = (Addr::from(self.peer.addr()), self.peer.prefix_len());
        let filter = TraceFilter::of_prefix(peer, length, port);
        let (mut tracing, view, dataplane) = Tracing::begin(dirs, attachment, filter, self.time)?;
        let machine = Machine::of(&view.policy, &view.devices()?);
        let at = machine.interface(vpc, name);
        let at = at.ok_or_else(|| Error::Gone { name: name.clone() })?;
        let teller = Storyteller::at(at, attachment, &view.policy, &machine, &dataplane)?;
        let mut printer = Printer::new(self.json);
        let begun = Line::Begun {
            interface: name,
            vpc,
            peer: self.peer,
            port,
            for_s: self.time.as_secs(),
        };
        let words = show::trace_begun(name, self.peer, port, self.time.as_secs());
        printer.line(&begun, || words)?;
        let until = Instant::now() + self.time;
        let ending = tell(&mut tracing, &teller, &mut printer, &interrupt, until)?;
        tracing.end()?;
        // What the kernel has logged is told, unless there is too much of it.
        let rest = Instant::now() + REST;
        tracing.stream.poll();
        while Instant::now() < rest && printer.story(&mut tracing, &teller)? {}
        let left_out = tracing.stream.left_out()?;
        let ended = Line::Ended {
            why: ending,
            told: printer.told,
            left_out,
        };
        let words = show::trace_ended(printer.told, left_out);
        printer.line(&ended, || words)?;
        printer.output.finish()?;
        if let Some(warning) = ending.warning() {
            warn(&warning);
        }
        Ok(Answer::Yes)
    }
}

/// Waits for the end of the command that traces.
pub(super) fn guard(dirs: &DirOptions, guarded: &Guarded) -> Result<Answer> {
    guard_trace(dirs, guarded)?;
    Ok(Answer::Yes)
}

/// Tells packets until something ends it.
fn tell(
    tracing: &mut Tracing,
    teller: &Storyteller<'_>,
    printer: &mut Printer,
    interrupt: &Interrupt,
    until: Instant,
) -> Result<Ending> {
    let mut looked = Instant::now();
    let mut pause = Duration::ZERO;
    loop {
        if interrupt.comes_within(pause) {
            return Ok(Ending::Interrupt);
        }
        if Instant::now() >= until {
            return Ok(Ending::Time);
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            if !tracing.is_guarded() {
                return Ok(Ending::Guard);
            }
            if !tracing.stream.goes_on()? {
                return Ok(Ending::Policy);
            }
            tracing.stream.renew()?;
        }
        // What was told is read at once, and nothing is waited for while there is more.
        pause = match printer.story(tracing, teller)? {
            true => Duration::ZERO,
            false => POLL,
        };
        if pause == POLL {
            if printer.output.flush()? {
                return Ok(Ending::Reader);
            }
            tracing.stream.poll();
        }
    }
}

/// Prints stories as they come.
struct Printer {
    output: Output,
    lines: StoryLines,
    json: bool,
    told: u64,
}

impl Printer {
    fn new(json: bool) -> Self {
        Self {
            output: Output::new(),
            lines: StoryLines::new(Style::of_stdout()),
            json,
            told: 0,
        }
    }

    fn line(&mut self, line: &Line<'_>, words: impl FnOnce() -> String) -> Result<()> {
        let text = match self.json {
            true => json_line(line)?,
            false => words(),
        };
        self.output.write(&text)?;
        self.output.flush().map(drop)
    }

    /// Tells the oldest packet that was read. Returns whether there was one.
    fn story(&mut self, tracing: &mut Tracing, teller: &Storyteller<'_>) -> Result<bool> {
        let Some(packet) = tracing.stream.next_packet() else {
            return Ok(false);
        };
        let time = time_of(packet.time_ns);
        let told = teller.story(&packet)?;
        self.told += 1;
        let text = match self.json {
            true => json_line(&Line::Packet {
                time,
                told: Box::new(told),
            })?,
            false => self.lines.story(time, &told),
        };
        self.output.write(&text)?;
        Ok(true)
    }
}
