//! What was measured, as JSON and as a table.

use std::fs;

use serde_json::{Value, json};

use super::measure::{Goal, MEASURES, Taken, to_places};

/// The machine, and how busy it is.
pub(crate) struct Machine {
    cpus: usize,
    kernel: String,
    load_before: String,
}

impl Machine {
    /// Looks at it, before anything is measured.
    pub(crate) fn look() -> Self {
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease"),
            load_before: load(),
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "cpus": self.cpus,
            "kernel": self.kernel,
            "load_before": self.load_before,
            "load_after": load(),
        })
    }
}

/// The load averages over one, five and fifteen minutes.
fn load() -> String {
    let words = read("/proc/loadavg");
    words.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// `{"measures": […], "missing": […], "machine": …}`.
pub(crate) fn json(taken: &[Taken], machine: &Machine, quick: bool) -> Value {
    let mut measures = Vec::new();
    let mut missing = Vec::new();
    for (measure, taken) in with_goals(taken) {
        let (goal, at) = match measure.goal {
            Goal::AtMost(limit) => ("at most", limit),
            Goal::AtLeast(limit) => ("at least", limit),
        };
        match &taken.outcome {
            Ok(rounds) => {
                let mut entry = json!({
                    "name": taken.name,
                    "value": to_places(rounds.median),
                    "unit": measure.unit,
                    "min": to_places(rounds.min),
                    "max": to_places(rounds.max),
                    "rounds": rounds.count,
                    "goal": {"bound": goal, "value": at},
                    "met": measure.goal.is_met(rounds.median),
                });
                if let Some(entry) = entry.as_object_mut() {
                    entry.extend(taken.beside.clone());
                }
                measures.push(entry);
            }
            Err(why) => missing.push(json!({"name": taken.name, "reason": why})),
        }
    }
    json!({
        "measures": measures,
        "missing": missing,
        "machine": machine.to_json(),
        "quick": quick,
    })
}

/// A line a measure.
pub(crate) fn table(taken: &[Taken], machine: &Machine) -> String {
    let mut rows = vec![
        [
            "MEASURE", "VALUE", "MIN", "MAX", "ROUNDS", "UNIT", "GOAL", "",
        ]
        .map(str::to_owned),
    ];
    let mut remarks = Vec::new();
    for (measure, taken) in with_goals(taken) {
        let goal = match measure.goal {
            Goal::AtMost(limit) => format!("≤ {limit}"),
            Goal::AtLeast(limit) => format!("≥ {limit}"),
        };
        let (unit, name) = (measure.unit.to_owned(), taken.name.to_owned());
        match &taken.outcome {
            Ok(rounds) => {
                let met = if measure.goal.is_met(rounds.median) {
                    "met"
                } else {
                    "not met"
                };
                rows.push([
                    name,
                    to_places(rounds.median).to_string(),
                    to_places(rounds.min).to_string(),
                    to_places(rounds.max).to_string(),
                    rounds.count.to_string(),
                    unit,
                    goal,
                    met.to_owned(),
                ]);
            }
            Err(why) => {
                let dash = || "–".to_owned();
                rows.push([
                    name,
                    dash(),
                    dash(),
                    dash(),
                    dash(),
                    unit,
                    goal,
                    "missing".to_owned(),
                ]);
                remarks.push(format!("{}: {why}", taken.name));
            }
        }
    }
    let mut text = columns(&rows);
    text.push_str(&format!(
        "\n{} CPUs, Linux {}; load {} before, {} after; medians of alternating rounds\n",
        machine.cpus,
        machine.kernel,
        machine.load_before,
        load()
    ));
    for remark in remarks {
        text.push_str(&remark);
        text.push('\n');
    }
    text
}

fn with_goals(taken: &[Taken]) -> impl Iterator<Item = (&'static super::measure::Measure, &Taken)> {
    MEASURES.iter().filter_map(|measure| {
        let found = taken.iter().find(|taken| taken.name == measure.name)?;
        Some((measure, found))
    })
}

/// Words on the left, figures on the right.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(column, (cell, width))| match column {
                1..=4 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Rounds;

    fn machine() -> Machine {
        Machine {
            cpus: 2,
            kernel: "6.18".to_owned(),
            load_before: "0.1 0.2 0.3".to_owned(),
        }
    }

    fn taken() -> [Taken; 2] {
        [
            Taken::missing("deny_1m_over_10", "no memory"),
            Taken::new("deny_over_empty", Rounds::of([1.5, 1.4, 1.7])).with("hot_ns", 48),
        ]
    }

    #[test]
    fn a_measure_that_could_not_be_taken_is_told_and_not_imagined() {
        let json = json(&taken(), &machine(), false);
        assert_eq!(json["measures"].as_array().map(Vec::len), Some(1));
        assert_eq!(json["measures"][0]["name"], "deny_over_empty");
        assert_eq!(json["measures"][0]["value"], 1.5);
        assert_eq!(json["measures"][0]["met"], true);
        assert_eq!(json["measures"][0]["hot_ns"], 48);
        assert_eq!(json["missing"][0]["reason"], "no memory");
    }

    #[test]
    fn the_table_has_a_line_a_measure() {
        let table = table(&taken(), &machine());
        assert!(table.contains("deny_over_empty"), "{table}");
        assert!(table.contains("≤ 1.5  met"), "{table}");
        assert!(table.contains("deny_1m_over_10: no memory"), "{table}");
    }
}
