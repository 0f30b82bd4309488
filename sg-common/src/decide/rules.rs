//! Which rule admits a packet as the first of its flow.

use super::question::Question;
use super::trace::{RuleSource, Step, Trace};
use crate::abi::{DirectionPolicy, GrantKey, PolicyFlags, Scope};
use crate::addr::Addr;
use crate::ids::{Identity, RuleSlot};
use crate::packet::Direction;
use crate::parse::Headers;
use crate::ports::Service;
use crate::protocol::{TCP, UDP};
use crate::report::Reason;
use crate::tables::Tables;

/// What admits a packet.
pub(super) struct Admitted {
    pub(super) rule: RuleSlot,
    pub(super) untracked: bool,
}

impl<T: Tables, R: Trace> Question<'_, T, R> {
    #[inline(always)]
    pub(super) fn direction_policy(&self, direction: Direction) -> Option<&DirectionPolicy> {
        Some(
            self.tables
                .group_set(self.interface.policy)?
                .direction(direction),
        )
    }

    /// Whether a packet that goes in `direction` belongs to no tracked flow: rules open to everyone
    /// allow it, as a first packet or as a reply, and everything that goes the other way.
    #[inline(always)]
    pub(super) fn is_untracked(
        &self,
        headers: &Headers,
        direction: Direction,
        rule: &mut RuleSlot,
    ) -> bool {
        if headers.protocol != TCP && headers.protocol != UDP {
            return false;
        }
        let (Some(forward), Some(backward)) = (
            self.direction_policy(direction),
            self.direction_policy(direction.opposite()),
        ) else {
            return false;
        };
        let family = headers.family();
        let whole = PolicyFlags::open(family, headers.protocol);
        if backward.flags.has(whole) {
            // As the packet of an initiator: its destination port is the service.
            *rule = self
                .tables
                .rule_in(forward.open_to(family), Service::of(headers));
            if rule.is_some() {
                return true;
            }
        }
        if forward.flags.has(whole) {
            // As a reply: its source port is the service.
            let service = Service::new(headers.protocol, headers.source_port);
            *rule = self.tables.rule_in(backward.open_to(family), service);
        }
        rule.is_some()
    }

    /// The rule that admits a packet as the first of its flow.
    #[inline(always)]
    pub(super) fn admitted(
        &self,
        headers: &Headers,
        direction: Direction,
    ) -> Result<Admitted, Reason> {
        self.service_admitted(headers.peer(direction), Service::of(headers), direction)
    }

    /// The rule that admits a service in a direction.
    #[inline(always)]
    pub(super) fn service_admitted(
        &self,
        peer: &Addr,
        service: Service,
        direction: Direction,
    ) -> Result<Admitted, Reason> {
        let policy = self.direction_policy(direction).ok_or(Reason::NoPolicy)?;
        let number = self.interface.direction_policy(direction);
        let family = peer.family();

        let rule = self.tables.rule_in(policy.open_to(family), service);
        self.trace.step(Step::Rules {
            source: RuleSource::Open,
            service,
            rule,
        });
        if rule.is_some() {
            let protocol = service.protocol();
            let untracked = (protocol == TCP || protocol == UDP)
                && self
                    .direction_policy(direction.opposite())
                    .is_some_and(|backward| {
                        backward.flags.has(PolicyFlags::open(family, protocol))
                    });
            return Ok(Admitted { rule, untracked });
        }
        if policy.flags.has(PolicyFlags::prefixes(family)) {
            let table = self.tables.prefix(Scope::policy(number, family), peer);
            let rule = self.tables.rule_in(table, service);
            self.trace.step(Step::Rules {
                source: RuleSource::Prefix,
                service,
                rule,
            });
            if rule.is_some() {
                return Ok(Admitted {
                    rule,
                    untracked: false,
                });
            }
        }
        if policy.flags.has(PolicyFlags::PREFIX_LISTS) {
            let scope = Scope::prefix_lists(self.interface.vpc, family);
            let identity = self.tables.set(scope, peer);
            let rule = self.granted(number, identity, service);
            self.trace.step(Step::Rules {
                source: RuleSource::PrefixLists(identity),
                service,
                rule,
            });
            if rule.is_some() {
                return Ok(Admitted {
                    rule,
                    untracked: false,
                });
            }
        }
        if policy.flags.has(PolicyFlags::GROUPS) {
            let identity = self.tables.member(self.interface.vpc, peer);
            let rule = self.granted(number, identity, service);
            self.trace.step(Step::Rules {
                source: RuleSource::Groups(identity),
                service,
                rule,
            });
            if rule.is_some() {
                return Ok(Admitted {
                    rule,
                    untracked: false,
                });
            }
        }
        Err(Reason::NoRule)
    }

    #[inline(always)]
    pub(super) fn granted(
        &self,
        direction_policy: u32,
        identity: Identity,
        service: Service,
    ) -> RuleSlot {
        if !identity.is_some() {
            return RuleSlot::NONE;
        }
        let key = GrantKey {
            direction_policy,
            identity,
        };
        self.tables.rule_in(self.tables.grant(&key), service)
    }
}
