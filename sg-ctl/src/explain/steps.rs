//! The steps of a decision with names instead of numbers.

use serde::Serialize;
use sg_common::decide::{RuleSource, Step};
use sg_common::flow::FlowKind;

/// What was looked at, and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum StepReport {
    /// The packet was read.
    Parsed,
    /// A flow was looked for.
    Flow {
        /// `assured` or `embryonic`, if one was found.
        table: Option<&'static str>,
        /// Its state.
        state: Option<&'static str>,
    },
    /// Rules were asked.
    Rules {
        /// Whose: `open`, `prefix`, `prefix-lists` or `groups`.
        source: &'static str,
        /// Whether one of them admits it.
        admitted: bool,
    },
}

impl From<&Step> for StepReport {
    fn from(step: &Step) -> Self {
        match step {
            Step::Parsed(_) => Self::Parsed,
            Step::Flow(found) => Self::Flow {
                table: found.map(|(kind, _)| match kind {
                    FlowKind::Embryonic => "embryonic",
                    FlowKind::Assured => "assured",
                }),
                state: found.map(|(_, state)| state.phase.name()),
            },
            Step::Rules { source, rule, .. } => Self::Rules {
                source: match source {
                    RuleSource::Open => "open",
                    RuleSource::Prefix => "prefix",
                    RuleSource::PrefixLists(_) => "prefix-lists",
                    RuleSource::Groups(_) => "groups",
                },
                admitted: rule.is_some(),
            },
        }
    }
}
