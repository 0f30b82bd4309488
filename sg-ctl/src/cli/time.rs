//! Times of the command line, within bounds.

use std::time::Duration;

use crate::policy::time::parse_time;

/// Reads a time within bounds; a bare number is seconds.
pub(super) fn time(
    least: Duration,
    most: Duration,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync {
    move |text| {
        let found = parse_time(text).filter(|time| (least..=most).contains(time));
        found.ok_or_else(|| {
            let (least, most) = (short(least), short(most));
            format!(
                "{text:?} is not a time from {least} to {most}; write one like 90, 2s, 5m or 1h"
            )
        })
    }
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
}
