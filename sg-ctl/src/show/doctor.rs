//! What a look at the machine found.

use super::columns::{Align, Columns, Paint};
use super::style::Style;
use super::words::count;
use crate::doctor::{Check, State};

/// A line for each fact, the way out below those that are not as they should be.
pub fn checks(checks: &[Check], style: Style) -> String {
    let mut columns = Columns::new([Align::Left; 3]);
    for check in checks {
        let (state, paint): (_, Paint) = match check.state {
            State::Ok => ("ok", |_, text| text.to_owned()),
            State::Warning => ("warning", Style::changed),
            State::Problem => ("problem", Style::bad),
        };
        let mut found = check.found.lines();
        let parts = [state, check.name, found.next().unwrap_or_default()];
        columns.painted(parts.map(str::to_owned), paint);
        for more in found {
            columns.line([String::new(), String::new(), more.to_owned()]);
        }
        if let Some(next) = &check.next {
            columns.line([String::new(), String::new(), format!("→ {next}")]);
        }
    }
    let number = |state| checks.iter().filter(|check| check.state == state).count();
    let problems = count(number(State::Problem), "problem");
    let warnings = count(number(State::Warning), "warning");
    columns.finish(style, 0) + &format!("{problems}, {warnings}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_stands_below_what_was_found() {
        let check = |name, state, next: Option<&str>| Check {
            name,
            state,
            found: "found".to_owned(),
            next: next.map(str::to_owned),
        };
        let shown = checks(
            &[
                check("kernel", State::Ok, None),
                check("drift", State::Problem, Some("sg-ctl restore")),
            ],
            Style::PLAIN,
        );
        assert_eq!(
            shown,
            "\
ok       kernel  found
problem  drift   found
                 → sg-ctl restore
1 problem, 0 warnings
"
        );
    }
}
