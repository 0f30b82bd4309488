//! Writing to whoever reads, who may stop reading.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::error::{ContextKind, ContextValue};
use serde::Serialize;
use serde_json::Value;

use crate::policy::suggest::meanings;

use super::error::{Error, Result};
use super::help;
use super::uniform::make_uniform;

/// The number of what `docs/json.md` describes; it changes when a field is renamed or goes.
const SCHEMA: u32 = 2;

/// The older name of [`SCHEMA`], as it was in schema 1.
const VERSION: u32 = 1;

/// Prints text. A reader that has seen enough is no failure.
pub(super) fn print(text: &str) -> Result<()> {
    let mut output = Output::new();
    output.write(text)?;
    output.finish()
}

/// Says what was done. That it cannot be said undoes nothing, so that it is a warning and no failure.
pub(super) fn tell(text: &str) {
    done(print(text));
}

/// The same for other programs.
pub(super) fn tell_json(value: &impl Serialize) {
    done(print_json(value));
}

fn done(printed: Result<()>) {
    if let Err(error) = printed {
        warn(&format!("{error}; what the command was to do is done"));
    }
}

/// Prints what other programs read: one object, with the version of its shape.
pub(super) fn print_json(value: &impl Serialize) -> Result<()> {
    print(&format!("{:#}\n", versioned(value)?))
}

fn versioned(value: &impl Serialize) -> Result<Value> {
    let mut value = uniform(value)?;
    if let Value::Object(fields) = &mut value {
        fields.insert("schema".to_owned(), SCHEMA.into());
        fields.insert("version".to_owned(), VERSION.into());
    }
    Ok(value)
}

/// A value with the names that all commands share.
pub(super) fn uniform(value: &impl Serialize) -> Result<Value> {
    let mut value = serde_json::to_value(value).map_err(|error| Error::Write(error.into()))?;
    make_uniform(&mut value);
    Ok(value)
}

/// One object on one line, with the version of its shape.
pub(super) fn json_line(value: &impl Serialize) -> Result<String> {
    Ok(format!("{}\n", versioned(value)?))
}

/// The start of a JSON object whose one list is too long to hold.
pub(super) fn json_list_start(name: &str) -> String {
    format!("{{\"schema\":{SCHEMA},\"version\":{VERSION},\"{name}\":[")
}

/// Says what went wrong. Findings stand as they are, so that editors find their places. What is too
/// long to be said is written into the run folder.
pub(super) fn complain(error: &Error, run_dir: &Path) {
    repeat(&complaint(error, run_dir));
}

/// The same as text.
pub(super) fn complaint(error: &Error, run_dir: &Path) -> String {
    let Error::Findings(findings) = error else {
        let log = error
            .dataplane()
            .and_then(|error| error.keep_verifier_log(run_dir));
        let log = log.map(|log| format!("sg-ctl: {log}\n"));
        return format!("sg-ctl: {error}\n{}", log.unwrap_or_default());
    };
    let is_placed = findings.iter().any(|finding| finding.place.is_some());
    let prefix = if is_placed { "" } else { "sg-ctl: " };
    let text = findings.to_string();
    text.lines()
        .map(|line| format!("{prefix}{line}\n"))
        .collect()
}

/// Says to the user what is a complaint already.
pub(super) fn repeat(complaint: &str) {
    let _ = io::stderr().lock().write_all(complaint.as_bytes());
}

/// Says what is wrong with the words of a command line, or gives the help that was asked for.
pub(super) fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let _ = match (meant(error), text.split_once('\n')) {
        // The parser's own tips know only words that look alike.
        (Some(meant), Some((first, rest))) => {
            let rest = rest.trim_end().split("\n\n");
            let rest = rest.filter(|part| !part.trim_start().starts_with("tip: "));
            let rest = rest.collect::<Vec<_>>().join("\n\n");
            writeln!(
                io::stderr().lock(),
                "sg-ctl: {first}; did you mean '{meant}'?\n\n{}",
                rest.trim_start()
            )
        }
        _ => write!(io::stderr().lock(), "sg-ctl: {text}"),
    };
    ExitCode::from(2)
}

/// What a word of another tool stands for here.
fn meant(error: &clap::Error) -> Option<String> {
    let kinds = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand];
    let given = kinds.iter().find_map(|kind| error.get(*kind));
    let Some(ContextValue::String(given)) = given else {
        return None;
    };
    let name = meanings(given).first()?;
    Some(match given.starts_with("--") && !name.starts_with("--") {
        true => format!("--{name}"),
        false => (*name).to_owned(),
    })
}

/// Answers a call without a command: it did nothing, so it failed.
pub(super) fn overview() -> ExitCode {
    let _ = write!(io::stderr().lock(), "{}", help::overview());
    ExitCode::from(2)
}

/// Says what the user should know although the command goes on.
pub(super) fn warn(told: &impl Display) {
    repeat(&warning(told));
}

/// The same as text.
pub(super) fn warning(told: &impl Display) -> String {
    format!("sg-ctl: warning: {told}\n")
}

/// The same for several warnings: what many interfaces have in common is said once.
pub(super) fn warn_each(told: &[impl Display]) {
    repeat(&warnings(told));
}

/// The same as text.
pub(super) fn warnings(told: &[impl Display]) -> String {
    let mut said = BTreeSet::new();
    let texts = told.iter().map(warning);
    texts.filter(|text| said.insert(text.clone())).collect()
}

/// Whether anything was printed.
static HAS_PRINTED: AtomicBool = AtomicBool::new(false);

/// Whether this process has printed anything yet.
pub(super) fn has_printed() -> bool {
    HAS_PRINTED.load(Ordering::Relaxed)
}

/// Standard output, in large pieces.
pub(super) struct Output {
    to: BufWriter<io::StdoutLock<'static>>,
    is_closed: bool,
}

impl Output {
    pub(super) fn new() -> Self {
        Self {
            to: BufWriter::with_capacity(1 << 16, io::stdout().lock()),
            is_closed: false,
        }
    }

    /// Writes, unless the reader has gone.
    pub(super) fn write(&mut self, text: &str) -> Result<()> {
        if self.is_closed {
            return Ok(());
        }
        HAS_PRINTED.store(true, Ordering::Relaxed);
        let written = self.to.write_all(text.as_bytes());
        self.judge(written)
    }

    /// Hands over what was written. Returns whether the reader has gone.
    pub(super) fn flush(&mut self) -> Result<bool> {
        if !self.is_closed {
            let flushed = self.to.flush();
            self.judge(flushed)?;
        }
        Ok(self.is_closed)
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.flush().map(drop)
    }

    fn judge(&mut self, result: io::Result<()>) -> Result<()> {
        match result {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(())
            }
            result => result.map_err(Error::Write),
        }
    }
}
