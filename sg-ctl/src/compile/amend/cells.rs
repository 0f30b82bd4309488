//! What cells say, from the rules that share them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use sg_common::addr::Family;
use sg_common::packet::Direction;
use sg_common::parse::{TCP, UDP};
use sg_common::ranges::RangeTable;
use sg_common::tables::{GrantKey, Identity, Policy, PolicyFlags, PortTable, Scope};

use super::edges::{Seen, splice, value_at, within};
use super::ground::{Answer, Ground, RangeTableKey, Rules, Whole};
use super::plan::{Cell, Plan, peers, unknown_identity};
use super::work::{Apart, Region, Regions, Work};
use super::{Amendment, WIDEST_REGION};
use crate::compile::arena::Slice;
use crate::compile::fold::{Prefix, fold};
use crate::compile::image::{Grant, MembersOf};
use crate::compile::ports::Admission;
use crate::compile::ranges::{Edge, Spans};
use crate::policy::change::sort;
use crate::policy::defaults::everywhere;
use crate::policy::model::{Peer, Rule};
use crate::policy::names::{GroupName, PrefixListName, RuleId};

impl<G: Ground, R: Rules> Plan<'_, G, R> {
    /// Computes the cells.
    pub(super) fn carry_out(mut self) -> Answer<Amendment> {
        let mut seen = Seen::default();
        // What is new comes of what there was: first everything is looked at that may stay.
        let lists = self.change_lists(&mut seen)?;
        let opens = self.find_opens(&mut seen)?;
        let regions = self.find_regions(&mut seen)?;
        let grants = self.find_grants(&mut seen)?;

        let mut work = Work::beside(&seen, self.ground)?;
        for (key, family, table) in lists {
            work.lay(key, family, &table);
        }
        for (((policy, direction), family), mut admissions) in opens {
            let policy = self.policy(policy)?;
            let course = &mut policy.directions[direction.number() as usize];
            for protocol in [TCP, UDP] {
                let whole = admissions
                    .iter()
                    .any(|admission| admission.admits_whole(protocol));
                course.flags = course
                    .flags
                    .with(PolicyFlags::open(family, protocol), whole);
            }
            course.open[family as usize] = work.ports.table(&mut admissions)?;
        }
        for (((policy, direction), family), mut regions) in regions {
            let key = policy_table(policy, direction, family);
            work.values(&mut regions)?;
            let table = work.lay(key, family, &regions.table);
            let course = &mut self.policy(policy)?.directions[direction.number() as usize];
            let has_prefixes = table != RangeTable::default();
            course.flags = course
                .flags
                .with(PolicyFlags::prefixes(family), has_prefixes);
        }
        for (key, mut admissions) in grants {
            let old = self.amendment.old.grants.get(&key);
            if admissions.is_empty() {
                continue;
            }
            let index = match old {
                Some(grant) => grant.index,
                None => {
                    let index = self.next.grant;
                    if index >= self.ground.room().grants {
                        return Err(Whole::because("there is no room for another grant"));
                    }
                    self.next.grant += 1;
                    index
                }
            };
            let table = work.ports.table(&mut admissions)?;
            let new = Grant { index, table };
            self.amendment.new.grants.insert(key, new);
        }
        self.set_flags()?;
        self.amendment.next = self.next;
        work.finish(&seen, self.ground, self.amendment)
    }

    /// A policy as it is to be, from where it is in force.
    fn policy(&mut self, id: u32) -> Answer<&mut Policy> {
        if !self.amendment.old.policies.contains_key(&id) {
            let policy = self.ground.policy(id)?;
            self.amendment.old.policies.insert(id, policy);
            self.amendment.new.policies.insert(id, policy);
        }
        let policy = self.amendment.new.policies.get_mut(&id);
        policy.ok_or(Whole::because("a policy is not there"))
    }

    fn set_flags(&mut self) -> Answer<()> {
        for ((policy, direction), peers) in std::mem::take(&mut self.flags) {
            let groups = self.groups(policy);
            for peer in peers {
                let flag = match peer {
                    Peer::Prefix(_) => continue,
                    Peer::PrefixList(_) => PolicyFlags::PREFIX_LISTS,
                    Peer::Group(_) => PolicyFlags::GROUPS,
                };
                let is_named = self
                    .rules
                    .names_any_like(self.vpc, &groups, direction, &peer)?;
                let course = &mut self.policy(policy)?.directions[direction.number() as usize];
                course.flags = course.flags.with(flag, is_named);
            }
        }
        Ok(())
    }

    fn groups(&self, policy: u32) -> BTreeSet<GroupName> {
        self.policies.get(&policy).cloned().unwrap_or_default()
    }

    /// What rules admit, in the order in which they are counted.
    fn admissions(&mut self, mut rules: Vec<(GroupName, Rule)>) -> Answer<Vec<(Rule, Admission)>> {
        rules.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut admissions = Vec::with_capacity(rules.len());
        for of_group in rules.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((group, _)) = of_group.first() else {
                continue;
            };
            let mut of_group: Vec<Rule> = of_group.iter().map(|(_, rule)| rule.clone()).collect();
            sort(&mut of_group);
            of_group.dedup_by_key(|rule| rule.id);
            let ids: Vec<RuleId> = of_group.iter().map(|rule| rule.id).collect();
            let slots = self.ground.slots_of(self.vpc, group, &ids)?;
            for (rule, slot) in of_group.into_iter().zip(slots) {
                let slot = slot.or_else(|| self.slots.get(&rule.id).copied());
                let (first, last) = rule.permission.traffic.services();
                let admission = Admission {
                    // There are fewer rules than this counts.
                    order: admissions.len() as u32,
                    first,
                    last,
                    rule: slot.ok_or(Whole::because("a rule has no counters"))?,
                };
                admissions.push((rule, admission));
            }
        }
        Ok(admissions)
    }

    fn find_opens(&mut self, seen: &mut Seen) -> Answer<Vec<(Cell, Vec<Admission>)>> {
        let mut found = Vec::new();
        for cell in std::mem::take(&mut self.opens) {
            let ((policy, direction), family) = cell;
            let groups = self.groups(policy);
            let [v4, v6] = everywhere();
            let everyone = match family {
                Family::V4 => v4,
                Family::V6 => v6,
            };
            let vpc = self.vpc;
            let mut rules = self.rules.with_prefix(vpc, &groups, direction, everyone)?;
            let lists = self.rules.lists_of_everyone(vpc, family)?;
            if !lists.is_empty() {
                let lists: Vec<Peer> = lists.into_iter().map(Peer::PrefixList).collect();
                rules.extend(self.rules.naming(vpc, &groups, direction, &lists)?);
            }
            let admissions = self.admissions(rules)?;
            let admissions = admissions.into_iter().map(|(_, admission)| admission);
            let admissions = admissions.collect();
            let policy = self.policy(policy)?;
            let open = policy.directions[direction.number() as usize].open[family as usize];
            self.see_ports(seen, open)?;
            found.push((cell, admissions));
        }
        Ok(found)
    }

    fn see_ports(&mut self, seen: &mut Seen, table: PortTable) -> Answer<()> {
        let PortTable { offset, length } = table;
        let slice = Slice { offset, length };
        if length > 0 && !seen.ports.contains_key(&slice) {
            seen.ports.insert(slice, self.ground.ports(table)?);
        }
        Ok(())
    }

    fn find_regions(&mut self, seen: &mut Seen) -> Answer<Vec<(Cell, Regions)>> {
        let mut found = Vec::new();
        for (cell, regions) in std::mem::take(&mut self.regions) {
            let ((policy, direction), family) = cell;
            let key = policy_table(policy, direction, family);
            let table = self.ground.range_table(key)?;
            let (edges, footprint) = seen.take_apart(self.ground, &table, family)?;
            let groups = self.groups(policy);
            let mut parts = Vec::new();
            for region in outermost(regions) {
                let span = Prefix::from(region).span();
                // What is around it may be what it will have.
                let around = [span.0.checked_sub(1), span.1.checked_add(1)];
                let around = around.into_iter().flatten();
                let around = around.map(|at| value_at(&edges, at));
                let values = within(&edges, span);
                if values.len() > WIDEST_REGION {
                    return Err(wide());
                }
                let values = values.into_iter().map(|(_, value)| value);
                for value in values.chain(around) {
                    let Some(index) = value.checked_sub(1) else {
                        continue;
                    };
                    let slice = Slice {
                        offset: index,
                        length: 1,
                    };
                    if let Entry::Vacant(vacant) = seen.port_tables.entry(slice) {
                        let table = self.ground.port_table(index)?;
                        vacant.insert(vec![table]);
                        self.see_ports(seen, table)?;
                    }
                }
                let rules = self
                    .rules
                    .with_prefix_over(self.vpc, &groups, direction, region)?;
                if rules.len() > WIDEST_REGION {
                    return Err(wide());
                }
                let admissions = self.admissions(rules)?.into_iter();
                let admissions = admissions.filter_map(|(rule, admission)| {
                    match &rule.permission.peer {
                        // Those for everyone are looked up elsewhere.
                        Peer::Prefix(prefix) if prefix.prefix_len() > 0 => {
                            Some((Prefix::from(*prefix), admission))
                        }
                        _ => None,
                    }
                });
                parts.push(Region::of(span, admissions.collect()));
            }
            found.push((
                cell,
                Regions {
                    table: Apart {
                        old: table,
                        edges,
                        footprint,
                    },
                    parts,
                },
            ));
        }
        Ok(found)
    }

    fn find_grants(&mut self, seen: &mut Seen) -> Answer<Vec<(GrantKey, Vec<Admission>)>> {
        let mut found = Vec::new();
        for ((policy, direction), identity) in std::mem::take(&mut self.grants) {
            let key = GrantKey {
                direction_policy: policy << 1 | direction.number(),
                identity,
            };
            let set = self.members_of(identity)?;
            let groups = self.groups(policy);
            let peers: Vec<Peer> = peers(&set).collect();
            let rules = self.rules.naming(self.vpc, &groups, direction, &peers)?;
            let admissions = self.admissions(rules)?;
            let admissions = admissions.into_iter().map(|(_, admission)| admission);
            let admissions: Vec<Admission> = admissions.collect();
            if let Some(old) = self.ground.grant(key)? {
                self.amendment.old.grants.insert(key, old);
                self.see_ports(seen, old.table)?;
            }
            found.push((key, admissions));
        }
        Ok(found)
    }

    /// The tables of prefix lists, as they are to be.
    fn change_lists(&mut self, seen: &mut Seen) -> Answer<Vec<(RangeTableKey, Family, Apart)>> {
        let mut changed = Vec::new();
        for (family, regions) in std::mem::take(&mut self.lists) {
            let index = Scope::prefix_lists(self.number, family).list_table();
            let index = index.ok_or(Whole::because("a VPC has no table of prefix lists"))?;
            let key = RangeTableKey::List(index);
            let table = self.ground.range_table(key)?;
            let (mut edges, footprint) = seen.take_apart(self.ground, &table, family)?;
            for (list, region) in regions {
                let span = Prefix::from(region).span();
                let part = self.list_within(&edges, &list, region, span)?;
                edges = splice(&edges, span, &part);
            }
            changed.push((
                key,
                family,
                Apart {
                    old: table,
                    edges,
                    footprint,
                },
            ));
        }
        Ok(changed)
    }

    /// The identities within a region when a list holds what it is to hold there.
    fn list_within(
        &mut self,
        edges: &[Edge],
        list: &PrefixListName,
        region: IpNet,
        span: (u128, u128),
    ) -> Answer<Vec<Edge>> {
        let prefixes = self.rules.of_list_over(self.vpc, list, region)?;
        let mut items: Vec<_> = prefixes
            .into_iter()
            .map(|prefix| (Prefix::from(prefix), ()))
            .collect();
        let mut spans = Spans::default();
        fold(&mut items, |prefix, _| spans.add(prefix, 1));
        let covered = within(&spans.into_edges(), span);
        let before = within(edges, span);
        if before.len() + covered.len() > WIDEST_REGION {
            return Err(wide());
        }
        let starts = covered.iter().chain(&before).map(|(at, _)| *at);
        let starts: BTreeSet<u128> = starts.collect();
        let mut known: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        let mut part = Vec::new();
        for at in starts {
            let found = (value_at(&before, at), value_at(&covered, at));
            let value = match known.get(&found) {
                Some(value) => *value,
                None => {
                    let value = self.with_list(found.0, list, found.1 != 0)?;
                    known.insert(found, value);
                    value
                }
            };
            part.push((at, value));
        }
        Ok(part)
    }

    /// The identity of the lists that one stands for, with or without a list.
    fn with_list(&mut self, value: u32, list: &PrefixListName, holds: bool) -> Answer<u32> {
        let mut lists = match value {
            0 => BTreeSet::new(),
            identity => match self.members_of(Identity(identity))? {
                MembersOf::PrefixLists(lists) => lists,
                MembersOf::Groups(_) => return Err(unknown_identity()),
            },
        };
        match holds {
            true => lists.insert(list.clone()),
            false => lists.remove(list),
        };
        match lists.is_empty() {
            true => Ok(0),
            false => Ok(self.identity(MembersOf::PrefixLists(lists))?.0),
        }
    }
}

fn wide() -> Whole {
    Whole::because("a prefix overlaps many others")
}

fn policy_table(policy: u32, direction: Direction, family: Family) -> RangeTableKey {
    let direction_policy = policy << 1 | direction.number();
    RangeTableKey::Policy(Scope::policy(direction_policy, family).0)
}

/// The prefixes that lie in no other.
fn outermost(mut prefixes: Vec<IpNet>) -> Vec<IpNet> {
    prefixes.sort_unstable();
    let mut outermost: Vec<IpNet> = Vec::new();
    for prefix in prefixes {
        if !outermost.last().is_some_and(|last| last.contains(&prefix)) {
            outermost.push(prefix);
        }
    }
    outermost
}
