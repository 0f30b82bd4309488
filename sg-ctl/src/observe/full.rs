//! What has no room for another connection, with its numbers.

use serde::Serialize;

use super::or_none;
use crate::dataplane::{Dataplane, Error, FullRoom};
use crate::policy::names::{InterfaceName, VpcName};
use sg_common::report::Reason;

use super::stats::reason_name;

/// A quota that is used up, or a table without room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Full {
    /// The interface whose quota it is; none for the table that all interfaces share.
    pub interface: Option<InterfaceName>,
    /// Whose policy.
    pub vpc: Option<VpcName>,
    /// Why new connections are dropped.
    #[serde(serialize_with = "reason_name")]
    pub reason: Reason,
    /// The connections it holds.
    pub flows: u64,
    /// The most it can hold.
    pub capacity: u64,
}

impl Full {
    /// Everything that is full now.
    pub fn read(dataplane: Option<&Dataplane>) -> Result<Vec<Self>, Error> {
        let rooms = or_none(dataplane, Dataplane::full_rooms)?;
        Ok(rooms.into_iter().map(Self::from).collect())
    }

    /// Whether it keeps an interface from taking another connection.
    pub fn concerns(&self, vpc: &VpcName, interface: &InterfaceName) -> bool {
        match (&self.vpc, &self.interface) {
            (Some(of), Some(name)) => (of, name) == (vpc, interface),
            _ => true,
        }
    }

    /// What is full, with its numbers.
    pub fn found(&self) -> String {
        let (flows, capacity) = (self.flows, self.capacity);
        let reason = self.reason.name();
        match &self.interface {
            Some(interface) => format!(
                "{interface} holds {flows} of the {capacity} connections it may have: new ones are dropped \
                 ({reason})"
            ),
            None => format!(
                "the connection table holds {flows} of {capacity}: new connections are dropped \
                 ({reason})"
            ),
        }
    }

    /// What makes room.
    pub fn remedy(&self) -> String {
        let more = self.capacity.saturating_mul(2);
        match &self.interface {
            Some(interface) => format!("sg-ctl attach {interface} --max-flows {more}"),
            None => format!("sg-ctl limits set flows={more}"),
        }
    }
}

impl From<FullRoom> for Full {
    fn from(room: FullRoom) -> Self {
        let (vpc, interface) = room.interface.unzip();
        Self {
            reason: match interface {
                Some(_) => Reason::QuotaFull,
                None => Reason::TableFull,
            },
            interface,
            vpc,
            flows: room.flows,
            capacity: room.capacity,
        }
    }
}
