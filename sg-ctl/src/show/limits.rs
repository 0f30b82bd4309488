//! How much an instance may hold.

use super::columns::{Align, Columns};
use super::style::Style;
use super::words::number;
use crate::dataplane::room_for_flows;
use crate::limits::{Limit, Limits};

/// Every limit with its value.
pub fn limits(limits: &Limits, style: Style) -> String {
    let mut columns = Columns::titles(
        [Align::Left, Align::Right, Align::Right, Align::Left],
        ["LIMIT", "IS", "DEFAULT", "OF"],
    );
    let default = Limits::default();
    for limit in Limit::all() {
        columns.line([
            limit.name().to_owned(),
            number(limits.value(limit).into()),
            number(default.value(limit).into()),
            limit.meaning().to_owned(),
        ]);
    }
    columns.finish(style, 0)
}

/// What differs between two settings.
pub fn limit_changes(before: &Limits, after: &Limits) -> String {
    let mut text = String::new();
    for limit in Limit::all() {
        let (was, is) = (before.value(limit), after.value(limit));
        if was == is {
            continue;
        }
        let room = match limit {
            Limit::Flows if room_for_flows(is) != is => {
                format!(
                    "; the table has room for {}",
                    number(room_for_flows(is).into())
                )
            }
            _ => String::new(),
        };
        let (was, is) = (number(was.into()), number(is.into()));
        text.push_str(&format!("{}: {was} → {is}{room}\n", limit.name()));
    }
    match text.is_empty() {
        true => "nothing to change\n".to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_says_how_much_room_there_is() {
        let before = Limits::default();
        let after = before.with(Limit::Flows, 1_000_000).unwrap();
        assert_eq!(
            limit_changes(&before, &after),
            "flows: 262,144 → 1,000,000; the table has room for 1,048,576\n"
        );
        assert_eq!(limit_changes(&before, &before), "nothing to change\n");
    }

    #[test]
    fn each_limit_has_a_line() {
        let shown = limits(&Limits::default(), Style::PLAIN);
        assert_eq!(shown.lines().count(), 1 + Limit::all().count());
        assert!(
            shown.contains(
                "\nflows            262,144     262,144  tracked flows that are assured\n"
            ),
            "{shown}"
        );
    }
}
