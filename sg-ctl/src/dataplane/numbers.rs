//! By what names the numbers in the maps were given, as the record keeps them.
//!
//! There may be a million rules. They are kept in the order of their ids, each by how far it is from
//! the one before: eight bytes of an id that was drawn at random, and one of a slot that was given in
//! turn.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::{SerializeSeq as _, Serializer};
use serde::{Deserialize, Serialize};
use sg_common::ids::{Identity, RuleSlot};

use crate::compile::image::{GroupSet, IdentitySet, Ids};
use crate::policy::names::{RuleId, VpcName};

/// The numbers of an image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Numbers {
    /// In the order of their ids.
    #[serde(with = "by_distance")]
    rules: Vec<(RuleId, RuleSlot)>,
    last_rule: u32,
    policies: BTreeMap<GroupSet, u32>,
    vpcs: BTreeMap<VpcName, u32>,
    next_vpc: u32,
    identities: BTreeMap<IdentitySet, Identity>,
}

impl Numbers {
    pub(super) fn of(ids: &Ids) -> Self {
        let Ids {
            rules,
            last_rule,
            policies,
            vpcs,
            next_vpc,
            identities,
        } = ids;
        Self {
            rules: rules.iter().map(|(id, slot)| (*id, *slot)).collect(),
            last_rule: *last_rule,
            policies: policies.clone(),
            vpcs: vpcs.clone(),
            next_vpc: *next_vpc,
            identities: identities.clone(),
        }
    }

    pub(super) fn ids(&self) -> Ids {
        Ids {
            rules: self.rules.iter().copied().collect(),
            last_rule: self.last_rule,
            policies: self.policies.clone(),
            vpcs: self.vpcs.clone(),
            next_vpc: self.next_vpc,
            identities: self.identities.clone(),
        }
    }

    /// Leaves out numbers of VPCs that an interrupted command may have given.
    pub(super) fn skip_vpcs(&mut self, count: u32) {
        self.next_vpc = self.next_vpc.saturating_add(count);
    }
}

/// Pairs of how far an id and a slot are from those before.
mod by_distance {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        rules: &[(RuleId, RuleSlot)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut written = serializer.serialize_seq(Some(rules.len()))?;
        let (mut last_id, mut last_slot) = (0, 0);
        for (id, RuleSlot(slot)) in rules {
            let (id, slot) = (id.number(), i64::from(*slot));
            written.serialize_element(&(id.wrapping_sub(last_id), slot - last_slot))?;
            (last_id, last_slot) = (id, slot);
        }
        written.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(RuleId, RuleSlot)>, D::Error> {
        struct Rules;

        impl<'de> Visitor<'de> for Rules {
            type Value = Vec<(RuleId, RuleSlot)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("distances of ids and slots")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut read: A) -> Result<Self::Value, A::Error> {
                let mut rules = Vec::new();
                let (mut id, mut slot) = (0_u128, 0_i64);
                while let Some((further, up)) = read.next_element::<(u128, i64)>()? {
                    (id, slot) = (id.wrapping_add(further), slot.wrapping_add(up));
                    let rule = RuleId::from_number(id).zip(u32::try_from(slot).ok());
                    let (rule, slot) = rule.ok_or_else(|| A::Error::custom("no such number"))?;
                    rules.push((rule, RuleSlot(slot)));
                }
                Ok(rules)
            }
        }

        deserializer.deserialize_seq(Rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: u32) -> Ids {
        let mut ids: Vec<RuleId> = (0..count).map(|_| RuleId::random()).collect();
        ids.sort();
        Ids {
            rules: ids.into_iter().zip((1..).map(RuleSlot)).collect(),
            last_rule: count,
            ..Ids::default()
        }
    }

    #[test]
    fn rules_are_read_as_they_were_written() {
        let mut ids = ids(1_000);
        // The lowest and the highest, with slots the other way round.
        let ends = [0, (1 << 68) - 1].map(|number| RuleId::from_number(number).unwrap());
        ids.rules.insert(ends[0], RuleSlot(u32::MAX));
        ids.rules.insert(ends[1], RuleSlot(0));
        let bytes = postcard::to_allocvec(&Numbers::of(&ids)).unwrap();
        let read: Numbers = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(read.ids(), ids);
    }

    #[test]
    fn a_rule_among_many_takes_ten_bytes() {
        let count = 100_000;
        let bytes = postcard::to_allocvec(&Numbers::of(&ids(count))).unwrap();
        assert!(bytes.len() < 10 * count as usize, "{}", bytes.len());
    }
}
