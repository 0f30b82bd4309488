//! One flow table on the host: what the kernel promises of its own, without buckets.

use hashbrown::HashMap;
use sg_common::flow::{FlowKey, FlowState, Leg};
use sg_common::ids::Ticks;

/// Flows by key, at most as many as there is room for.
#[derive(Clone)]
pub(super) struct HostFlows {
    capacity: usize,
    flows: HashMap<FlowKey, HeldFlow>,
    /// How many each interface slot has opened, expired ones included until they are forgotten.
    owned: HashMap<u32, u32>,
}

/// One flow.
#[derive(Clone, Copy)]
pub(super) struct HeldFlow {
    pub(super) state: FlowState,
    pub(super) deadline: Ticks,
    pub(super) packets: [u64; 2],
    pub(super) bytes: [u64; 2],
    pub(super) opened: Ticks,
}

impl HeldFlow {
    pub(super) fn count(&mut self, leg: Leg, packets: u64, bytes: u64) {
        let place = leg as usize;
        if let (Some(counted), Some(counted_bytes)) =
            (self.packets.get_mut(place), self.bytes.get_mut(place))
        {
            *counted += packets;
            *counted_bytes += bytes;
        }
    }
}

impl HostFlows {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            flows: HashMap::new(),
            owned: HashMap::new(),
        }
    }

    /// The state of a flow that is not past its deadline.
    pub(super) fn find(&self, key: &FlowKey, now: Ticks) -> Option<FlowState> {
        let held = self
            .held(key)
            .filter(|held| !held.deadline.has_passed(now))?;
        Some(held.state)
    }

    /// Every flow that is not past its deadline.
    pub(super) fn alive(&self, now: Ticks) -> impl Iterator<Item = (&FlowKey, &FlowState)> {
        let alive = self
            .flows
            .iter()
            .filter(move |(_, held)| !held.deadline.has_passed(now));
        alive.map(|(key, held)| (key, &held.state))
    }

    pub(super) fn held(&self, key: &FlowKey) -> Option<&HeldFlow> {
        self.flows.get(key)
    }

    /// Says whether there was room. An expired flow is room, and so is, if one may be forgotten,
    /// the flow with least time left.
    pub(super) fn insert(
        &mut self,
        key: &FlowKey,
        state: &FlowState,
        deadline: Ticks,
        now: Ticks,
        forget: bool,
    ) -> bool {
        self.remove(key);
        if self.flows.len() >= self.capacity {
            self.forget_expired(now);
        }
        if self.flows.len() >= self.capacity && forget {
            let left = |(key, held): (&FlowKey, &HeldFlow)| (held.deadline.until(now), *key);
            if let Some((_, least)) = self.flows.iter().map(left).min() {
                self.remove(&least);
            }
        }
        if self.flows.len() >= self.capacity {
            return false;
        }
        let counts = [0; 2];
        let held = HeldFlow {
            state: *state,
            deadline,
            packets: counts,
            bytes: counts,
            opened: now,
        };
        self.flows.insert(*key, held);
        *self.owned.entry(state.owner).or_default() += 1;
        true
    }

    pub(super) fn change(&mut self, key: &FlowKey, change: impl FnOnce(&mut HeldFlow)) {
        if let Some(held) = self.flows.get_mut(key) {
            change(held);
        }
    }

    pub(super) fn remove(&mut self, key: &FlowKey) {
        if let Some(held) = self.flows.remove(key) {
            self.disown(held.state.owner);
        }
    }

    pub(super) fn forget_expired(&mut self, now: Ticks) {
        let expired: Vec<_> = self
            .flows
            .extract_if(|_, held| held.deadline.has_passed(now))
            .collect();
        for (_, held) in expired {
            self.disown(held.state.owner);
        }
    }

    pub(super) fn owned_by(&self, owner: u32) -> u32 {
        self.owned.get(&owner).copied().unwrap_or_default()
    }

    fn disown(&mut self, owner: u32) {
        if let Some(owned) = self.owned.get_mut(&owner) {
            *owned = owned.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u16) -> FlowKey {
        FlowKey {
            local_port: number,
            ..FlowKey::default()
        }
    }

    fn fill(forget: bool) -> (HostFlows, bool) {
        let mut flows = HostFlows::new(2);
        let state = FlowState {
            owner: 7,
            ..FlowState::default()
        };
        assert!(flows.insert(&key(1), &state, Ticks(20), Ticks(0), forget));
        assert!(flows.insert(&key(2), &state, Ticks(10), Ticks(0), forget));
        let inserted = flows.insert(&key(3), &state, Ticks(30), Ticks(5), forget);
        (flows, inserted)
    }

    #[test]
    fn a_full_table_forgets_the_flow_with_least_time_left() {
        let (flows, inserted) = fill(true);
        assert!(inserted);
        assert!(flows.find(&key(1), Ticks(5)).is_some());
        assert!(flows.find(&key(2), Ticks(5)).is_none());
    }

    #[test]
    fn a_full_table_of_flows_that_stay_takes_no_more_until_one_expires() {
        let (mut flows, inserted) = fill(false);
        assert!(!inserted);
        assert!(flows.find(&key(2), Ticks(5)).is_some());
        assert_eq!(flows.owned_by(7), 2);
        let state = FlowState {
            owner: 7,
            ..FlowState::default()
        };
        assert!(flows.insert(&key(3), &state, Ticks(30), Ticks(10), false));
        assert_eq!(flows.owned_by(7), 2);
    }

    #[test]
    fn a_flow_past_its_deadline_is_no_flow() {
        let (flows, _) = fill(false);
        assert!(flows.find(&key(2), Ticks(9)).is_some());
        assert!(flows.find(&key(2), Ticks(10)).is_none());
    }
}
