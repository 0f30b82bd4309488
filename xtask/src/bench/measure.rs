//! The measures by name: their goals, and what came of them.
//!
//! Nothing here measures, and nothing is asserted: a goal that is not met is told.

use serde_json::{Map, Value};

/// What a measure should come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Goal {
    /// Whether a value is as good.
    pub(crate) fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

/// A measure, before it is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) goal: Goal,
}

const fn ratio(name: &'static str, goal: Goal) -> Measure {
    Measure {
        name,
        unit: "ratio",
        goal,
    }
}

const fn absolute(name: &'static str, unit: &'static str, goal: Goal) -> Measure {
    Measure { name, unit, goal }
}

use Goal::{AtLeast, AtMost};

/// All of them, in the order they are told.
pub(crate) const MEASURES: &[Measure] = &[
    ratio("deny_over_empty", AtMost(1.5)),
    ratio("deny_1m_over_10", AtMost(3.0)),
    ratio("deny_100k_over_10", AtMost(1.5)),
    ratio("deny_10kpolicies_over_1", AtMost(3.0)),
    ratio("deny_10kpolicies_over_loads", AtMost(1.5)),
    ratio("tracked_1m_over_parse", AtMost(4.0)),
    ratio("tracked_1m_over_load", AtMost(1.5)),
    ratio("drop_xdp_over_nft_10k", AtLeast(6.0)),
    ratio("drop_xdp_over_nft_100k", AtLeast(6.0)),
    ratio("drop_tc_over_nft_10k", AtLeast(2.5)),
    ratio("drop_tc_over_nft_100k", AtLeast(2.5)),
    ratio("drop_xdp_over_bound_100k", AtLeast(0.75)),
    ratio("drop_tc_over_bound_100k", AtLeast(0.9)),
    ratio("drop_xdp_over_parse_100k", AtLeast(0.8)),
    ratio("small_udp_over_none", AtLeast(0.9)),
    ratio("small_udp_over_nft", AtLeast(1.25)),
    ratio("tcp_over_none", AtLeast(0.97)),
    ratio("tcp_over_nft", AtLeast(1.0)),
    ratio("rr_over_none", AtMost(1.03)),
    ratio("crr_over_nft", AtLeast(1.0)),
    ratio("update_100k_over_100", AtMost(1.5)),
    absolute("update_ms_100k", "ms", AtMost(25.0)),
    ratio("edit_100k_over_100", AtMost(1.5)),
    absolute("edit_100k_ms", "ms", AtMost(25.0)),
    absolute("rule_add_ms_1k", "ms", AtMost(40.0)),
    absolute("rule_add_ms_100k", "ms", AtMost(400.0)),
    absolute("apply_1m_s", "s", AtMost(4.0)),
    absolute("apply_1m_mb", "MB", AtMost(600.0)),
    absolute("stats_1m_s", "s", AtMost(1.5)),
    absolute("stats_1m_mb", "MB", AtMost(300.0)),
    absolute("compile_1m_s", "s", AtMost(1.0)),
    absolute("attach_300_s", "s", AtMost(3.0)),
    absolute("device_protected_ms", "ms", AtMost(20.0)),
    absolute("address_enforced_ms", "ms", AtMost(50.0)),
    absolute("bytes_per_flow", "bytes", AtMost(128.0)),
    absolute("bytes_per_prefix", "bytes", AtMost(32.0)),
    absolute("bytes_per_interface", "bytes", AtMost(4096.0)),
    ratio("open_flood_over_none", AtLeast(0.9)),
    ratio("established_tc_over_before", AtMost(0.7)),
    ratio("established_xdp_over_before", AtMost(0.7)),
    ratio("sent_over_before", AtMost(1.0)),
    ratio("refused_syn_over_before", AtMost(1.0)),
    ratio("open_flow_over_before", AtMost(0.6)),
    ratio("first_apply_over_before", AtMost(0.5)),
];

/// What several rounds came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rounds {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) count: usize,
}

impl Rounds {
    /// `None` when there was no round. A ratio to nothing is none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values
            .into_iter()
            .filter(|value| value.is_finite())
            .collect();
        sorted.sort_by(f64::total_cmp);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self {
            median: f64::midpoint(lower, upper),
            min: *sorted.first()?,
            max: *sorted.last()?,
            count: sorted.len(),
        })
    }
}

/// A measure, taken or not.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) name: &'static str,
    /// Why not, if not.
    pub(crate) outcome: Result<Rounds, String>,
    /// Figures that the value came from, and others that explain it.
    pub(crate) beside: Map<String, Value>,
}

impl Taken {
    pub(crate) fn new(name: &'static str, rounds: Option<Rounds>) -> Self {
        Self {
            name,
            outcome: rounds.ok_or_else(|| "no round was measured".to_owned()),
            beside: Map::new(),
        }
    }

    pub(crate) fn missing(name: &'static str, why: impl ToString) -> Self {
        Self {
            name,
            outcome: Err(why.to_string()),
            beside: Map::new(),
        }
    }

    /// Adds a figure.
    pub(crate) fn with(mut self, figure: &str, value: impl Into<Value>) -> Self {
        self.beside.insert(figure.to_owned(), value.into());
        self
    }

    /// Adds the median of some rounds, if there were any.
    pub(crate) fn with_median(self, figure: &str, values: impl IntoIterator<Item = f64>) -> Self {
        match Rounds::of(values) {
            Some(rounds) => self.with(figure, to_places(rounds.median)),
            None => self,
        }
    }
}

/// Rounded to as many digits as a measurement has.
pub(crate) fn to_places(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = 3 - value.abs().log10().floor() as i32;
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_in_the_middle() {
        let median = |values: &[f64]| Rounds::of(values.iter().copied()).map(|r| r.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn values_keep_four_digits() {
        assert_eq!(to_places(1.234_56), 1.235);
        assert_eq!(to_places(123_456.0), 123_500.0);
        assert_eq!(to_places(0.000_123_456), 0.000_123_5);
        assert_eq!(to_places(0.0), 0.0);
    }

    #[test]
    fn names_are_unique() {
        for (index, measure) in MEASURES.iter().enumerate() {
            assert!(
                MEASURES[..index]
                    .iter()
                    .all(|other| other.name != measure.name),
                "{}",
                measure.name
            );
        }
    }
}
