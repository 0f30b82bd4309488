//! What is sound and still probably not meant.

use super::style::Style;
use super::words::count;
use crate::policy::advice::{Advice, Level};
use crate::policy::findings::Place;
use crate::policy::names::VpcName;

/// More findings than anyone reads; the others are counted.
const SHOWN: usize = 200;

/// One finding, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct AdviceLine<'a> {
    /// The file, if it is in one.
    pub source: Option<&'a str>,
    /// Where in the file.
    pub place: Option<Place>,
    /// In which VPC.
    pub vpc: &'a VpcName,
    /// What.
    pub advice: &'a Advice,
}

/// A line for each finding, and how many there are.
pub fn advice<'a>(
    source: &str,
    lines: impl Iterator<Item = AdviceLine<'a>>,
    style: Style,
) -> String {
    let mut text = String::new();
    let mut counts = [0_usize; 2];
    for line in lines {
        let [warnings, notices] = &mut counts;
        match line.advice.matter.level() {
            Level::Notice => *notices += 1,
            _ => *warnings += 1,
        }
        if counts.iter().sum::<usize>() <= SHOWN {
            text.push_str(&advice_line(&line, style));
            text.push('\n');
        }
    }
    let [warnings, notices] = counts;
    match warnings + notices {
        0 => format!("{source}: nothing wrong\n"),
        _ => {
            let (warnings, notices) = (count(warnings, "warning"), count(notices, "notice"));
            format!("{text}{source}: {warnings}, {notices}\n")
        }
    }
}

/// `policy.yaml:7:9: warning: group "ssh": …`, as compilers say it.
pub fn advice_line(line: &AdviceLine<'_>, style: Style) -> String {
    let mut text = String::new();
    if let Some(source) = line.source {
        text.push_str(source);
        if let Some(place) = line.place {
            text.push_str(&format!(":{}:{}", place.line, place.column));
        }
        text.push_str(": ");
    }
    let level = line.advice.matter.level();
    text.push_str(&match level {
        Level::Notice => style.changed(level.name()),
        _ => style.bad(level.name()),
    });
    if *line.vpc != VpcName::default() {
        text.push_str(&format!(": VPC \"{}\"", line.vpc));
    }
    text.push_str(&format!(
        ": group \"{}\": {}",
        line.advice.group, line.advice.matter
    ));
    // In a file the place says which rule it is.
    if let (Some(rule), None) = (line.advice.rule, line.place) {
        text.push_str(&format!("  {rule}"));
    }
    text
}
