//! What has no room for another connection, with its numbers.

use serde::Serialize;

use super::or_none;
use crate::dataplane::{Dataplane, Error, FullRoom, ReasonCount};
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
    /// Whether new connections pass all the same, because the interface is audited, or all are.
    pub audit: bool,
    /// Packets that this reason was counted for since the interfaces were attached.
    pub packets: u64,
}

impl Full {
    /// Everything that is full now.
    pub fn read(dataplane: Option<&Dataplane>) -> Result<Vec<Self>, Error> {
        let rooms = or_none(dataplane, Dataplane::full_rooms)?;
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let counts = or_none(dataplane, Dataplane::reason_counts)?;
        let full = rooms.into_iter().map(|room| Self::of(room, &counts));
        Ok(full.collect())
    }

    fn of(room: FullRoom, counts: &[ReasonCount]) -> Self {
        let (vpc, interface) = room.interface.unzip();
        let mut full = Self {
            reason: match interface {
                Some(_) => Reason::QuotaFull,
                None => Reason::TableFull,
            },
            interface,
            vpc,
            flows: room.flows,
            capacity: room.capacity,
            audit: room.audit,
            packets: 0,
        };
        let counts = counts.iter().filter(|count| {
            count.reason == full.reason
                && count.audited == full.audit
                && full.concerns(&count.vpc, &count.interface)
        });
        full.packets = counts.map(|count| count.packets).sum();
        full
    }

    /// Whether it keeps an interface from taking another connection.
    pub fn concerns(&self, vpc: &VpcName, interface: &InterfaceName) -> bool {
        match (&self.vpc, &self.interface) {
            (Some(of), Some(name)) => (of, name) == (vpc, interface),
            _ => true,
        }
    }

    /// Whether packets are dropped for it. That a table is full is an estimate until one is: a
    /// connection has a few places in it only, which are taken earlier or later than the rest.
    pub fn drops(&self) -> bool {
        !self.audit && (self.interface.is_some() || self.packets > 0)
    }

    /// What is full, with its numbers.
    pub fn found(&self) -> String {
        let (flows, capacity) = (self.flows, self.capacity);
        let reason = self.reason.name();
        let Some(interface) = &self.interface else {
            let percent = flows * 100 / capacity.max(1);
            let new = match (self.audit, self.packets) {
                (true, _) => "new ones that find no place pass, because every interface is audited"
                    .to_owned(),
                (false, 0) => "new ones may soon find no place and be dropped".to_owned(),
                (false, 1) => "new ones may find no place; 1 packet was dropped".to_owned(),
                (false, packets) => {
                    format!("new ones may find no place; {packets} packets were dropped")
                }
            };
            return format!(
                "the table of connections is {percent} % full ({flows} of {capacity}): {new} ({reason})"
            );
        };
        let new = match self.audit {
            true => "new ones would be dropped, and pass because it is audited",
            false => "new ones are dropped",
        };
        format!(
            "{interface} holds {flows} of the {capacity} connections it may have: {new} ({reason})"
        )
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

#[cfg(test)]
mod tests {
    use sg_common::packet::Direction;

    use super::*;

    fn full(of: Option<&str>, audit: bool, counts: &[(&str, Reason, bool, u64)]) -> Full {
        let vpc: VpcName = "default".parse().unwrap();
        let room = FullRoom {
            interface: of.map(|name| (vpc.clone(), name.parse().unwrap())),
            flows: 96,
            capacity: 100,
            audit,
        };
        let counts = counts.iter();
        let counts = counts.map(|(name, reason, audited, packets)| ReasonCount {
            vpc: vpc.clone(),
            interface: name.parse().unwrap(),
            direction: Direction::Ingress,
            reason: *reason,
            audited: *audited,
            packets: *packets,
            bytes: 0,
        });
        Full::of(room, &counts.collect::<Vec<_>>())
    }

    #[test]
    fn a_quota_drops_unless_its_interface_is_audited() {
        let quota = full(Some("eth0"), false, &[]);
        assert!(quota.drops());
        assert_eq!(
            quota.found(),
            "eth0 holds 96 of the 100 connections it may have: new ones are dropped (quota-full)"
        );
        let audited = full(Some("eth0"), true, &[]);
        assert!(!audited.drops());
        assert_eq!(
            audited.found(),
            "eth0 holds 96 of the 100 connections it may have: new ones would be dropped, and pass \
             because it is audited (quota-full)"
        );
    }

    #[test]
    fn a_table_is_nearly_full_until_it_has_dropped() {
        let counted = [
            ("eth0", Reason::TableFull, false, 3),
            ("eth1", Reason::TableFull, false, 4),
            ("eth1", Reason::TableFull, true, 50),
            ("eth1", Reason::QuotaFull, false, 600),
        ];
        let begins = |audit, counts| {
            let full = full(None, audit, counts);
            let found = full.found();
            let rest = found.strip_prefix("the table of connections is 96 % full (96 of 100): ");
            (full.drops(), rest.unwrap_or(&found).to_owned())
        };
        let (drops, found) = begins(false, &[]);
        assert!(!drops);
        assert_eq!(
            found,
            "new ones may soon find no place and be dropped (table-full)"
        );
        let (drops, found) = begins(false, &counted);
        assert!(drops);
        assert_eq!(
            found,
            "new ones may find no place; 7 packets were dropped (table-full)"
        );
        let (drops, found) = begins(true, &counted);
        assert!(!drops);
        assert_eq!(
            found,
            "new ones that find no place pass, because every interface is audited (table-full)"
        );
    }
}
