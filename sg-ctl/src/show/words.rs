//! Numbers, sizes and times in a few letters.

use std::fmt::Display;

/// A number with its thousands apart.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 rule`, `2 rules`.
pub fn count(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", number(count as u64))
}

/// Bytes in the largest unit of which there is one.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let (mut tenths, mut unit) = (bytes / 100, 0);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1_000;
        unit += 1;
    }
    let unit = UNITS.get(unit).copied().unwrap_or_default();
    match tenths {
        0..1_000 => format!("{}.{} {unit}", tenths / 10, tenths % 10),
        _ => format!("{} {unit}", tenths / 10),
    }
}

/// How many come in a second; few of them in tenths.
pub(super) fn per_second(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 0.05 => "<0.1".to_owned(),
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate => number(rate.round() as u64),
    }
}

/// A span of time in its largest unit, never more than it was.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How long ago something was.
pub(super) fn ago(seconds: Option<u64>) -> String {
    match seconds {
        None => "never".to_owned(),
        Some(0) => "just now".to_owned(),
        Some(seconds) => format!("{} ago", span(seconds)),
    }
}

/// The items with commas between them.
pub(super) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_thousands_apart() {
        assert_eq!(number(0), "0");
        assert_eq!(number(999), "999");
        assert_eq!(number(1_000), "1,000");
        assert_eq!(number(262_144), "262,144");
        assert_eq!(number(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn bytes_take_the_unit_that_fits() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_000), "1.0 kB");
        assert_eq!(bytes(1_550), "1.5 kB");
        assert_eq!(bytes(123_456), "123 kB");
        assert_eq!(bytes(999_999), "999 kB");
        assert_eq!(bytes(1_000_000), "1.0 MB");
        assert_eq!(bytes(u64::MAX), "18.4 EB");
    }

    #[test]
    fn rates_are_told_as_exactly_as_they_matter() {
        assert_eq!(per_second(0.0), "0");
        assert_eq!(per_second(0.01), "<0.1");
        assert_eq!(per_second(0.5), "0.5");
        assert_eq!(per_second(1_234.4), "1,234");
    }

    #[test]
    fn times_are_told_in_one_unit() {
        assert_eq!(ago(None), "never");
        assert_eq!(ago(Some(0)), "just now");
        assert_eq!(ago(Some(119)), "119 s ago");
        assert_eq!(ago(Some(120)), "2 min ago");
        assert_eq!(span(7_200), "2 h");
        assert_eq!(span(432_000), "5 d");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(count(1, "rule"), "1 rule");
        assert_eq!(count(0, "rule"), "0 rules");
        assert_eq!(count(1_200, "rule"), "1,200 rules");
    }
}
