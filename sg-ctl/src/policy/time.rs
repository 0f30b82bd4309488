//! Times as users write them: `90`, `500ms`, `2s`, `5m`, `1h`, `5d`.
//!
//! Policy files and the command line read them alike. Bounds are the caller's.

use std::time::Duration;

/// Units by their length in milliseconds; the longest first, `ms` before `m` and `s`.
const UNITS: [(&str, f64); 5] = [
    ("ms", 1.0),
    ("d", 86_400_000.0),
    ("h", 3_600_000.0),
    ("m", 60_000.0),
    ("s", 1_000.0),
];

/// Words for units that other programs take; the first letter is the unit.
const WORDS: [&str; 4] = ["days", "hours", "minutes", "seconds"];

/// Why a text is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a time{}; {}", if *.fraction { " in whole seconds" } else { "" }, self.advice())]
pub struct TimeError {
    /// The text as given.
    pub text: String,
    /// Whether it is a time, but not one of whole seconds.
    fraction: bool,
    /// The time that was perhaps meant.
    meant: Option<String>,
}

impl TimeError {
    /// What would be right.
    pub fn advice(&self) -> String {
        match &self.meant {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => "write one like 90, 30s, 5m or 1h".to_owned(),
        }
    }
}

/// Reads a time; a bare number is seconds.
pub fn parse_time(text: &str) -> Option<Duration> {
    let unit = UNITS.iter().find_map(|(unit, length)| {
        let number = text.strip_suffix(unit)?;
        Some((number, *length))
    });
    let (number, length) = unit.unwrap_or((text, 1_000.0));
    // The parser of numbers reads words, signs and exponents too.
    if !number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    Duration::try_from_secs_f64(number * length / 1_000.0).ok()
}

/// Reads a time of whole seconds.
pub fn whole_seconds(text: &str) -> Result<u32, TimeError> {
    let time = parse_time(text);
    let whole = time.filter(|time| time.subsec_nanos() == 0);
    let seconds = whole.and_then(|time| u32::try_from(time.as_secs()).ok());
    seconds.ok_or_else(|| TimeError {
        text: text.chars().take(80).collect(),
        fraction: time.is_some_and(|time| time.subsec_nanos() != 0),
        meant: meant(text),
    })
}

/// `5m` for `5 min`, `5M` or `5minutes`.
fn meant(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    let number = text.strip_suffix(unit)?;
    let unit = unit.trim_start();
    let words = WORDS.iter().filter(|_| !unit.is_empty());
    let word = words.into_iter().find(|word| word.starts_with(unit))?;
    let meant = format!("{number}{}", word.get(..1)?);
    let time = parse_time(&meant)?;
    (time.subsec_nanos() == 0).then_some(meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_whole() {
        assert_eq!(whole_seconds("1h"), Ok(3_600));
        assert_eq!(whole_seconds("350"), Ok(350));
        assert_eq!(whole_seconds("1.5m"), Ok(90));
        assert!(whole_seconds("9999999999").is_err());
    }

    #[test]
    fn a_mistyped_time_is_told_what_was_meant() {
        let told = |text| whole_seconds(text).unwrap_err().to_string();
        for text in ["5min", "5 min", "5M", "5 minutes"] {
            let wanted = format!("{text:?} is not a time; did you mean \"5m\"?");
            assert_eq!(told(text), wanted);
        }
        assert_eq!(
            told("soon"),
            "\"soon\" is not a time; write one like 90, 30s, 5m or 1h"
        );
        assert_eq!(
            told("1500ms"),
            "\"1500ms\" is not a time in whole seconds; write one like 90, 30s, 5m or 1h"
        );
    }
}
