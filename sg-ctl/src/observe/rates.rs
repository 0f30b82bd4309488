//! How fast counters grow.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

use super::stats::{InterfaceStats, ReasonStats, RuleStats, Stats};

/// All counters, and what they have grown by.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// The time between the two looks.
    pub seconds: f64,
    /// Every interface of the policy.
    pub interfaces: Vec<InterfaceRates>,
    /// Every rule of the groups they are in.
    pub rules: Vec<RuleRate>,
}

/// The counters of one interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InterfaceRates {
    /// The interface as it is, with what was counted ever.
    #[serde(flatten)]
    pub stats: InterfaceStats,
    /// In the order of [`InterfaceStats::reasons`].
    pub rates: Vec<ReasonRate>,
}

/// What a reason's counter has grown by.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReasonRate {
    /// The counter as it is.
    #[serde(flatten)]
    pub total: ReasonStats,
    /// What has come since.
    #[serde(flatten)]
    pub growth: Growth,
}

/// What a rule's counter has grown by.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleRate {
    /// The counter as it is.
    #[serde(flatten)]
    pub total: RuleStats,
    /// What has come since.
    #[serde(flatten)]
    pub growth: Growth,
}

/// What has come between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Growth {
    /// Packets since the last look.
    pub new_packets: u64,
    /// Bytes since the last look.
    pub new_bytes: u64,
    /// The same for one second.
    pub packets_per_second: f64,
    /// The same for one second.
    pub bytes_per_second: f64,
}

impl Growth {
    fn between(before: (u64, u64), after: (u64, u64), seconds: f64) -> Self {
        // A counter that was given to something else has begun anew.
        let grown = |before: u64, after: u64| after.checked_sub(before).unwrap_or(after);
        let new_packets = grown(before.0, after.0);
        let new_bytes = grown(before.1, after.1);
        Self {
            new_packets,
            new_bytes,
            packets_per_second: new_packets as f64 / seconds,
            bytes_per_second: new_bytes as f64 / seconds,
        }
    }
}

impl Rates {
    /// What has come between two looks at the counters.
    pub fn between(before: &Stats, after: Stats, time: Duration) -> Self {
        // Two looks are never at once, but clocks have grains.
        let seconds = time.as_secs_f64().max(0.001);
        let mut reasons = HashMap::new();
        for interface in &before.interfaces {
            for count in &interface.reasons {
                let key = (
                    &interface.vpc,
                    &interface.name,
                    (count.direction, count.reason, count.audit),
                );
                reasons.insert(key, (count.packets, count.bytes));
            }
        }
        let rules: HashMap<_, _> = before
            .rules
            .iter()
            .map(|rule| (rule.id, (rule.packets, rule.bytes)))
            .collect();
        let interface = |stats: InterfaceStats| {
            let rate = |count: &ReasonStats| {
                let kind = (count.direction, count.reason, count.audit);
                let key = (&stats.vpc, &stats.name, kind);
                let before = reasons.get(&key).copied().unwrap_or_default();
                ReasonRate {
                    total: count.clone(),
                    growth: Growth::between(before, (count.packets, count.bytes), seconds),
                }
            };
            let rates = stats.reasons.iter().map(rate).collect();
            InterfaceRates { stats, rates }
        };
        let rule = |total: RuleStats| {
            let before = rules.get(&total.id).copied().unwrap_or_default();
            let growth = Growth::between(before, (total.packets, total.bytes), seconds);
            RuleRate { total, growth }
        };
        Self {
            seconds,
            interfaces: after.interfaces.into_iter().map(interface).collect(),
            rules: after.rules.into_iter().map(rule).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sg_common::packet::Direction;
    use sg_common::report::Reason;

    use super::*;

    fn stats(packets: u64) -> Stats {
        Stats {
            interfaces: vec![InterfaceStats {
                name: "eth0".parse().unwrap(),
                vpc: "default".parse().unwrap(),
                groups: BTreeSet::new(),
                audit: false,
                reasons: vec![ReasonStats {
                    direction: Direction::Ingress,
                    reason: Reason::NoRule,
                    audit: false,
                    packets,
                    bytes: packets * 60,
                }],
            }],
            rules: Vec::new(),
        }
    }

    fn growth(before: u64, after: u64) -> Growth {
        let time = Duration::from_secs(2);
        let rates = Rates::between(&stats(before), stats(after), time);
        rates.interfaces[0].rates[0].growth
    }

    #[test]
    fn a_rate_is_what_has_come_in_a_second() {
        let growth = growth(10, 14);
        assert_eq!((growth.new_packets, growth.new_bytes), (4, 240));
        assert_eq!(growth.packets_per_second, 2.0);
        assert_eq!(growth.bytes_per_second, 120.0);
    }

    #[test]
    fn a_counter_that_began_anew_has_grown_by_what_it_has() {
        assert_eq!(growth(10, 3).new_packets, 3);
    }
}
