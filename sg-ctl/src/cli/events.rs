//! Following what is dropped, and what begins.

use std::time::{Duration, Instant};

use clap::Args;
use ipnet::IpNet;
use serde::Serialize;
use sg_common::event::EventKind;
use sg_common::packet::Direction;
use sg_common::report::Reason;

use crate::controller::View;
use crate::dirs::DirOptions;
use crate::observe::{EventFilter, EventSource, PacketEvent, Unseen, protocol_number};
use crate::policy::names::InterfaceName;
use crate::policy::prefix::parse_prefix;
use crate::policy::rule_text::Protocol;
use crate::policy::suggest::closest;
use crate::show::{EventLines, Style};

use super::Answer;
use super::error::{Error, Result};
use super::flow_log::FlowLog;
use super::interrupt::Interrupt;
use super::look::require_interface;
use super::output::{Output, json_line, warn};
use super::port::Port;
use super::time::time;

/// How often the kernel's ring is emptied.
const POLL: Duration = Duration::from_millis(100);
/// The shortest and the longest time to listen without `--follow`.
const LISTEN: [Duration; 2] = [Duration::ZERO, Duration::from_secs(86_400)];
/// How often what came too fast is told.
const TELL_UNSEEN: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Keep listening until interrupted, also while nothing is protected
    #[arg(long, short)]
    follow: bool,
    /// How long to listen without --follow; the kernel keeps no earlier events
    #[arg(
        long = "for",
        value_name = "TIME",
        default_value = "5s",
        value_parser = time(LISTEN[0], LISTEN[1]),
        conflicts_with = "follow"
    )]
    time: Duration,
    /// Show each new flow too
    #[arg(long)]
    new_flows: bool,
    /// Only this interface
    #[arg(long, value_name = "IFACE")]
    interface: Option<InterfaceName>,
    /// Only this direction: ingress or egress
    #[arg(long, value_parser = parse_direction)]
    direction: Option<Direction>,
    /// Only this reason, like no-rule; repeat for several
    #[arg(long = "reason", value_name = "REASON", value_delimiter = ',', value_parser = parse_reason)]
    reasons: Vec<Reason>,
    /// Only this protocol, like tcp or 47
    #[arg(long)]
    protocol: Option<Protocol>,
    /// Only packets whose protected side is in this prefix
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    local: Option<IpNet>,
    /// Only packets whose other side is in this prefix
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    peer: Option<IpNet>,
    /// Only packets with this port on either side, like 443 or https
    #[arg(long)]
    port: Option<Port>,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flow_log: FlowLog,
}

fn parse_direction(text: &str) -> Result<Direction, String> {
    let found = Direction::ALL
        .into_iter()
        .find(|direction| direction.name() == text);
    found.ok_or_else(|| "a direction is ingress or egress".to_owned())
}

fn parse_reason(text: &str) -> Result<Reason, String> {
    let names = || Reason::ALL.iter().map(|reason| reason.name());
    let found = Reason::ALL.iter().find(|reason| reason.name() == text);
    found.copied().ok_or_else(|| match closest(text, names()) {
        Some(meant) => format!("there is no reason {text:?}; did you mean {meant:?}?"),
        None => format!("there is no reason {text:?}; `sg-ctl stats` shows those that occur"),
    })
}

impl Events {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        if let Some(file) = self.flow_log.file() {
            return self.flow_log.write(file, dirs);
        }
        let interrupt = Interrupt::catch()?;
        let kinds = match self.new_flows {
            true => EventKind::ALL.to_vec(),
            false => vec![EventKind::Drop],
        };
        let mut source = EventSource::open(dirs, &kinds)?;
        match (source.is_open(), self.follow) {
            (true, _) => {}
            (false, true) => warn(&"no interface is protected yet; waiting for one"),
            (false, false) => return Err(Error::NothingProtected),
        }
        let filter = self.filter(dirs)?;
        let mut printer = Printer::new(self.json);
        let began = Instant::now();
        let mut is_over = false;
        loop {
            let mut written = Ok(());
            let unseen = source.poll(&mut |event| {
                if written.is_ok() && filter.takes(&event) {
                    written = printer.event(&event);
                }
            })?;
            written?;
            printer.unseen(unseen)?;
            let is_read = !printer.flush()?;
            if is_over || !is_read {
                break;
            }
            // What came until now is still told.
            is_over = interrupt.comes_within(POLL) || !self.follow && began.elapsed() >= self.time;
        }
        printer.tell_unseen()?;
        if !self.follow && !self.json && printer.events == 0 {
            let seconds = self.time.as_secs_f64();
            printer.output.write(&format!(
                "No matching event in {seconds} s; use --follow to keep listening\n"
            ))?;
        }
        printer.output.finish()?;
        Ok(Answer::Yes)
    }

    fn filter(&self, dirs: &DirOptions) -> Result<EventFilter> {
        if let Some(name) = &self.interface {
            require_interface(&View::open(dirs)?.policy, name)?;
        }
        let protocol = self.protocol;
        Ok(EventFilter {
            interface: self.interface.clone(),
            direction: self.direction,
            reasons: self.reasons.clone(),
            protocol: self.protocol.and_then(protocol_number),
            local: self.local,
            peer: self.peer,
            port: self.port.map(|port| port.number(protocol)).transpose()?,
        })
    }
}

/// Prints events as they come.
struct Printer {
    output: Output,
    lines: EventLines,
    json: bool,
    events: u64,
    unseen: Unseen,
    told: Instant,
}

#[derive(Serialize)]
struct UnseenLine {
    event: &'static str,
    #[serde(flatten)]
    unseen: Unseen,
}

impl Printer {
    fn new(json: bool) -> Self {
        Self {
            output: Output::new(),
            lines: EventLines::new(Style::of_stdout()),
            json,
            events: 0,
            unseen: Unseen::default(),
            told: Instant::now(),
        }
    }

    fn event(&mut self, event: &PacketEvent) -> Result<()> {
        self.events += 1;
        let line = match self.json {
            true => json_line(event)?,
            false => self.lines.line(event),
        };
        self.output.write(&line)
    }

    /// Tells what came too fast, but not at every look.
    fn unseen(&mut self, more: Unseen) -> Result<()> {
        self.unseen.add(more);
        if self.told.elapsed() >= TELL_UNSEEN {
            self.tell_unseen()?;
        }
        Ok(())
    }

    fn tell_unseen(&mut self) -> Result<()> {
        self.told = Instant::now();
        if self.unseen.is_none() {
            return Ok(());
        }
        let unseen = std::mem::take(&mut self.unseen);
        let line = match self.json {
            true => json_line(&UnseenLine {
                event: "unseen",
                unseen,
            })?,
            false => self.lines.unseen(unseen),
        };
        self.output.write(&line)
    }

    /// Hands over what was written. Returns whether the reader has gone.
    fn flush(&mut self) -> Result<bool> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_reason_is_named() {
        assert_eq!(parse_reason("no-rule"), Ok(Reason::NoRule));
        assert_eq!(
            parse_reason("no-ruel").unwrap_err(),
            "there is no reason \"no-ruel\"; did you mean \"no-rule\"?"
        );
    }
}
