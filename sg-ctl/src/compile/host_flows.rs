//! The flow table on the host: what the kernel promises of its own, without buckets.

use hashbrown::HashMap;
use sg_common::flow::{FlowKey, FlowKind, FlowState};
use sg_common::ids::Ticks;

/// Flows by key, at most as many as there is room for.
#[derive(Clone)]
pub(super) struct HostFlows {
    capacity: usize,
    flows: HashMap<FlowKey, HeldFlow>,
    /// How many assured ones each interface slot has opened, expired ones included until they are
    /// forgotten.
    owned: HashMap<u32, u32>,
}

/// One flow.
#[derive(Clone, Copy)]
pub(super) struct HeldFlow {
    kind: FlowKind,
    pub(super) state: FlowState,
    pub(super) deadline: Ticks,
}

impl HostFlows {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            flows: HashMap::new(),
            owned: HashMap::new(),
        }
    }

    /// A flow that is not past its deadline.
    pub(super) fn find(&self, key: &FlowKey, now: Ticks) -> Option<(FlowKind, FlowState)> {
        let held = self.flows.get(key);
        let held = held.filter(|held| !held.deadline.has_passed(now))?;
        Some((held.kind, held.state))
    }

    /// Every flow that is not past its deadline.
    pub(super) fn alive(&self, now: Ticks) -> impl Iterator<Item = (FlowKey, FlowKind, FlowState)> {
        let alive = self
            .flows
            .iter()
            .filter(move |(_, held)| !held.deadline.has_passed(now));
        alive.map(|(key, held)| (*key, held.kind, held.state))
    }

    /// Puts an embryonic flow into the table, and says whether there was room. An expired flow is room,
    /// and so is the embryonic flow with least time left.
    pub(super) fn open(
        &mut self,
        key: &FlowKey,
        state: &FlowState,
        deadline: Ticks,
        now: Ticks,
    ) -> bool {
        self.remove(key);
        if self.flows.len() >= self.capacity {
            self.forget_expired(now);
        }
        if self.flows.len() >= self.capacity {
            let embryonic = self
                .flows
                .iter()
                .filter(|(_, held)| held.kind == FlowKind::Embryonic);
            let left = |(key, held): (&FlowKey, &HeldFlow)| (held.deadline.until(now), *key);
            let Some((_, least)) = embryonic.map(left).min() else {
                return false;
            };
            self.remove(&least);
        }
        let held = HeldFlow {
            kind: FlowKind::Embryonic,
            state: *state,
            deadline,
        };
        self.flows.insert(*key, held);
        true
    }

    /// Assures a flow where it is, and says whether it is there.
    pub(super) fn assure(&mut self, key: &FlowKey, state: &FlowState, deadline: Ticks) -> bool {
        let Some(held) = self.flows.get_mut(key) else {
            return false;
        };
        if held.kind == FlowKind::Embryonic {
            *self.owned.entry(state.owner).or_default() += 1;
        }
        *held = HeldFlow {
            kind: FlowKind::Assured,
            state: *state,
            deadline,
        };
        true
    }

    pub(super) fn change(&mut self, key: &FlowKey, change: impl FnOnce(&mut HeldFlow)) {
        if let Some(held) = self.flows.get_mut(key) {
            change(held);
        }
    }

    pub(super) fn remove(&mut self, key: &FlowKey) {
        if let Some(held) = self.flows.remove(key) {
            self.disown(&held);
        }
    }

    pub(super) fn forget_expired(&mut self, now: Ticks) {
        let expired: Vec<_> = self
            .flows
            .extract_if(|_, held| held.deadline.has_passed(now))
            .collect();
        for (_, held) in expired {
            self.disown(&held);
        }
    }

    pub(super) fn owned_by(&self, owner: u32) -> u32 {
        self.owned.get(&owner).copied().unwrap_or_default()
    }

    fn disown(&mut self, held: &HeldFlow) {
        if held.kind == FlowKind::Assured
            && let Some(owned) = self.owned.get_mut(&held.state.owner)
        {
            *owned = owned.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> FlowState {
        FlowState {
            owner: 7,
            ..FlowState::default()
        }
    }

    fn key(number: u16) -> FlowKey {
        FlowKey {
            local_port: number,
            ..FlowKey::default()
        }
    }

    /// Two flows with 20 and 10 ticks left, and a third one that comes after 5 ticks.
    fn fill(are_assured: bool) -> (HostFlows, bool) {
        let mut flows = HostFlows::new(2);
        for (number, deadline) in [(1, 20), (2, 10)] {
            assert!(flows.open(&key(number), &state(), Ticks(deadline), Ticks(0)));
            assert!(!are_assured || flows.assure(&key(number), &state(), Ticks(deadline)));
        }
        let opened = flows.open(&key(3), &state(), Ticks(30), Ticks(5));
        (flows, opened)
    }

    #[test]
    fn a_full_table_forgets_the_embryonic_flow_with_least_time_left() {
        let (flows, opened) = fill(false);
        assert!(opened);
        assert!(flows.find(&key(1), Ticks(5)).is_some());
        assert!(flows.find(&key(2), Ticks(5)).is_none());
        assert_eq!(flows.owned_by(7), 0);
    }

    #[test]
    fn a_full_table_of_assured_flows_takes_no_more_until_one_expires() {
        let (mut flows, opened) = fill(true);
        assert!(!opened);
        assert!(flows.find(&key(2), Ticks(5)).is_some());
        assert_eq!(flows.owned_by(7), 2);
        assert!(flows.open(&key(3), &state(), Ticks(30), Ticks(10)));
        assert_eq!(flows.owned_by(7), 1);
    }

    #[test]
    fn a_flow_past_its_deadline_is_no_flow() {
        let (flows, _) = fill(true);
        assert!(flows.find(&key(2), Ticks(9)).is_some());
        assert!(flows.find(&key(2), Ticks(10)).is_none());
    }

    #[test]
    fn a_flow_is_assured_where_it_is_and_counted_once() {
        let (mut flows, _) = fill(false);
        for _ in 0..2 {
            assert!(flows.assure(&key(1), &state(), Ticks(50)));
        }
        assert_eq!(
            flows.find(&key(1), Ticks(40)),
            Some((FlowKind::Assured, state()))
        );
        assert_eq!(flows.owned_by(7), 1);
        assert!(
            !flows.assure(&key(9), &state(), Ticks(50)),
            "it is not there"
        );
    }
}
