//! Writing a flow log.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use sg_common::event::EventKind;

use crate::controller::View;
use crate::dirs::DirOptions;
use crate::observe::EventSource;
use crate::observe::flow_log::{FlowLog as Records, LogFile, Record, Rotation};
use crate::policy::time::whole_seconds;

use super::Answer;
use super::error::{Error, Result};
use super::interrupt::{Hangups, Interrupt};
use super::output::warn;

/// How often the kernel's ring is emptied.
const POLL: Duration = Duration::from_millis(100);
/// How often flows are read: half the time that the shortest-lived state of one lasts.
const SAMPLE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct FlowLog {
    /// Write VPC flow log records (version 2, and fields of sg) to this file until interrupted,
    /// instead of showing events; SIGHUP opens the file anew
    #[arg(
        long = "flow-log",
        value_name = "FILE",
        conflicts_with_all = [
            "time", "new_flows", "interface", "direction", "reasons", "protocol", "local",
            "peer", "port", "json",
        ]
    )]
    file: Option<PathBuf>,
    /// The time that one record sums up, in whole seconds up to an hour
    #[arg(long, value_name = "TIME", default_value = "1m", requires = "file",
          value_parser = parse_interval)]
    interval: u32,
    /// Rotate the file at this size, like 64M
    #[arg(long, value_name = "SIZE", default_value = "64M", requires = "file",
          value_parser = parse_size)]
    rotate: u64,
    /// How many rotated files to keep
    #[arg(long, value_name = "NUMBER", default_value_t = 5, requires = "file")]
    keep: u32,
}

fn parse_interval(text: &str) -> Result<u32, String> {
    match whole_seconds(text).map_err(|error| error.to_string())? {
        seconds @ 1..=3_600 => Ok(seconds),
        _ => Err(format!("{text:?} is not a time from 1s to 1h")),
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size; write one like 500k, 64M or 2G");
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'M')) => (&text[..at], 1 << 20),
        Some((at, 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    match number.checked_mul(factor) {
        Some(size) if size > 0 => Ok(size),
        _ => Err(wrong()),
    }
}

impl FlowLog {
    /// The file, if a flow log is asked for.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    pub(super) fn write(&self, path: &Path, dirs: &DirOptions) -> Result<Answer> {
        let wrong = |source| Error::WriteFile {
            file: path.display().to_string(),
            source,
        };
        // Before there are threads, which would take the signal otherwise.
        let hangups = Hangups::catch()?;
        let interrupt = Interrupt::catch()?;
        let rotation = Rotation {
            bytes: self.rotate,
            keep: self.keep,
        };
        let mut file = LogFile::open(path, rotation).map_err(wrong)?;
        let mut source = EventSource::open(dirs, &EventKind::ALL)?;
        let mut records = Records::begin(Timestamp::now().as_second());
        let mut sampled: Option<Instant> = None;
        let (mut is_over, mut is_full) = (false, false);
        loop {
            let unseen = source.poll(&mut |event| records.event(&event))?;
            records.unseen(unseen);
            if hangups.has_come() {
                file.reopen().map_err(wrong)?;
            }
            let now = Timestamp::now().as_second();
            let is_due = now - records.start() >= i64::from(self.interval) || is_over;
            if is_due || sampled.is_none_or(|sampled| sampled.elapsed() >= SAMPLE) {
                records.sample(&View::open(dirs)?, now)?;
                sampled = Some(Instant::now());
            }
            if is_due {
                match write_records(&mut file, records.finish(now)) {
                    Ok(()) => is_full = false,
                    // There may be room again at the end of the next interval.
                    Err(error) if has_no_room(&error) => {
                        records.lost();
                        if !is_full {
                            let path = path.display();
                            warn(&format!("records are lost, as {path} cannot grow: {error}"));
                        }
                        is_full = true;
                    }
                    Err(error) => return Err(wrong(error)),
                }
            }
            if is_over {
                return Ok(Answer::Yes);
            }
            // The interval that has begun is still written.
            is_over = interrupt.comes_within(POLL);
        }
    }
}

fn write_records(file: &mut LogFile, records: Vec<Record>) -> io::Result<()> {
    if file.is_removed()? {
        file.reopen()?;
    }
    for record in records {
        file.line(&record.to_string())?;
    }
    file.flush()
}

fn has_no_room(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("512"), Ok(512));
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        for wrong in ["", "M", "0", "-1k", "1T", "99999999999G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
