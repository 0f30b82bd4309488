//! What is told of a decision: its steps, in order.

use crate::flow::{FlowKind, FlowState};
use crate::ids::{Identity, RuleSlot};
use crate::parse::Headers;
use crate::ports::Service;

/// Told each step of a decision. The kernel's is `()`, and costs nothing.
pub trait Trace {
    /// One step was taken.
    fn step(&self, step: Step);
}

impl Trace for () {
    #[inline(always)]
    fn step(&self, _step: Step) {}
}

/// What a decision looked at, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The packet was read.
    Parsed(Headers),
    /// A flow was looked for: of which kind it is, and its state.
    Flow(Option<(FlowKind, FlowState)>),
    /// A port table was searched.
    Rules {
        /// Whose rules.
        source: RuleSource,
        /// What they were asked.
        service: Service,
        /// The rule that admits it.
        rule: RuleSlot,
    },
}

/// Where a rule's peer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleSource {
    /// Every address of the family.
    Open,
    /// The longest prefix that covers the peer.
    Prefix,
    /// The prefix lists the peer is in.
    PrefixLists(Identity),
    /// The groups the peer is in.
    Groups(Identity),
}
