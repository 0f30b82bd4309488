//! What is going on, as data: the policy joined with what the kernel reports.
//!
//! The fields of these types are what `--json` prints and other programs rely on: fields are added
//! freely, and none is renamed. How people are told is for [`crate::show`] to know.

mod events;
pub mod flow_log;
mod flows;
mod full;
mod members;
mod overview;
mod rates;
mod stats;
mod status;

use serde::Serializer;
use sg_common::packet::Direction;

use crate::policy::rule_text::Protocol;

pub use events::{EventFilter, EventSource, PacketEvent, Unseen, time_of};
pub use flows::{Flow, FlowFilter, FlowWithRule, RuleNames};
pub use full::Full;
pub use members::{Member, Members};
pub use overview::{InterfaceKey, InterfaceLoad, Load, Overview, PeerDrops, ReasonLoad, Watcher};
pub use rates::{Growth, InterfaceRates, Rates, ReasonRate, RuleRate};
pub use stats::{InterfaceStats, ReasonStats, RuleStats, Stats};
pub use status::{FlowsStatus, InterfaceStatus, Status, UnconfirmedStatus};

/// What cannot be known is nothing: where there is no dataplane, nothing was counted.
fn or_none<T: Default, E>(
    dataplane: Option<&crate::dataplane::Dataplane>,
    ask: impl FnOnce(&crate::dataplane::Dataplane) -> Result<T, E>,
) -> Result<T, E> {
    dataplane
        .map(ask)
        .transpose()
        .map(Option::unwrap_or_default)
}

fn direction_name<S: Serializer>(direction: &Direction, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(direction.name())
}

/// The IP protocol as rules name it.
pub fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        number => number.to_string(),
    }
}

/// The number of a protocol; `None` for all of them.
pub fn protocol_number(protocol: Protocol) -> Option<u8> {
    match protocol {
        Protocol::All => None,
        Protocol::Icmp => Some(1),
        Protocol::Tcp => Some(6),
        Protocol::Udp => Some(17),
        Protocol::Icmpv6 => Some(58),
        Protocol::Number(number) => Some(number),
    }
}
