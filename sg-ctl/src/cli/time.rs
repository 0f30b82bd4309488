//! Times as users write them: `90`, `500ms`, `2s`, `5m`, `1h`, `5d`.

use std::time::Duration;

/// Units by their length in milliseconds; the longest first, `ms` before `m` and `s`.
const UNITS: [(&str, f64); 5] = [
    ("ms", 1.0),
    ("d", 86_400_000.0),
    ("h", 3_600_000.0),
    ("m", 60_000.0),
    ("s", 1_000.0),
];

/// Reads a time within bounds; a bare number is seconds.
pub(super) fn time(
    least: Duration,
    most: Duration,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync {
    move |text| {
        let found = parse(text).filter(|time| (least..=most).contains(time));
        found.ok_or_else(|| {
            let (least, most) = (short(least), short(most));
            format!(
                "{text:?} is not a time from {least} to {most}; write one like 90, 2s, 5m or 1h"
            )
        })
    }
}

/// Reads whole seconds, for what has its bounds elsewhere.
pub(super) fn whole_seconds(text: &str) -> Result<u32, String> {
    let time = parse(text).filter(|time| time.subsec_nanos() == 0);
    let seconds = time.and_then(|time| u32::try_from(time.as_secs()).ok());
    seconds.ok_or_else(|| format!("{text:?} is not a time; write one like 90, 30s, 5m or 1h"))
}

fn parse(text: &str) -> Option<Duration> {
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

/// A bound, by the longest unit that has a whole number of it, up to hours.
fn short(time: Duration) -> String {
    let (seconds, milliseconds) = (time.as_secs(), time.as_millis());
    match (seconds, time.subsec_nanos()) {
        (_, 1..) => format!("{milliseconds}ms"),
        (1.., 0) if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        (1.., 0) if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_or_is_seconds() {
        let day = time(Duration::from_secs(1), Duration::from_secs(86_400));
        for (text, seconds) in [
            ("90", 90.0),
            ("60s", 60.0),
            ("5m", 300.0),
            ("1.5m", 90.0),
            ("2500ms", 2.5),
            ("24h", 86_400.0),
            ("1d", 86_400.0),
        ] {
            assert_eq!(day(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for refused in [
            "0s",
            "25h",
            "",
            "s",
            "ms",
            ".",
            "-1s",
            "+1s",
            "1e3",
            "inf",
            "NaN",
            "1 h",
            "1w",
            "99999999999999999999h",
        ] {
            let told = day(refused).unwrap_err();
            assert!(
                told.contains("is not a time from 1s to 24h; write one like"),
                "{told}"
            );
        }
    }

    #[test]
    fn seconds_are_whole() {
        assert_eq!(whole_seconds("1h"), Ok(3_600));
        assert_eq!(whole_seconds("350"), Ok(350));
        assert!(whole_seconds("1500ms").is_err());
        assert!(whole_seconds("9999999999").is_err());
    }
}
