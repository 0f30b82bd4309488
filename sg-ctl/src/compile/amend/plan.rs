//! Which cells edits touch, and the numbers of what is new.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use sg_common::addr::{Addr, Family};
use sg_common::packet::Direction;
use sg_common::tables::{Identity, MemberKey, RuleSlot};

use super::ground::{Answer, Ground, NextNumbers, Rules, Whole};
use super::{Amendment, Edits};
use crate::compile::fold::family_of;
use crate::compile::image::{IdentitySet, Member, MembersOf};
use crate::compile::numbers::Circle;
use crate::policy::model::Peer;
use crate::policy::names::{GroupName, PrefixListName, RuleId, VpcName};

/// One direction of a policy.
pub(super) type Course = (u32, Direction);

/// What one direction of a policy says of one family.
pub(super) type Cell = (Course, Family);

/// The cells to compute again.
pub(super) struct Plan<'a, G, R> {
    pub(super) vpc: &'a VpcName,
    pub(super) number: u32,
    pub(super) ground: &'a mut G,
    pub(super) rules: &'a mut R,
    pub(super) next: NextNumbers,
    /// The groups of the policies that are touched.
    pub(super) policies: BTreeMap<u32, BTreeSet<GroupName>>,
    /// Of rules that come.
    pub(super) slots: HashMap<RuleId, RuleSlot>,
    /// What policies open to everyone.
    pub(super) opens: BTreeSet<Cell>,
    /// Parts of policies' tables of prefixes.
    pub(super) regions: BTreeMap<Cell, Vec<IpNet>>,
    /// What sets are granted.
    pub(super) grants: BTreeSet<(Course, Identity)>,
    /// Which kinds of peers policies name, by what may have changed it.
    pub(super) flags: BTreeMap<Course, Vec<Peer>>,
    /// Parts of the table of prefix lists.
    pub(super) lists: BTreeMap<Family, Vec<(PrefixListName, IpNet)>>,
    /// What identities stand for, those that are new among them.
    pub(super) sets: BTreeMap<Identity, IdentitySet>,
    pub(super) amendment: Amendment,
}

impl<'a, G: Ground, R: Rules> Plan<'a, G, R> {
    /// Nothing to compute yet.
    pub(super) fn new(
        (vpc, number): (&'a VpcName, u32),
        next: NextNumbers,
        (ground, rules): (&'a mut G, &'a mut R),
    ) -> Self {
        Self {
            vpc,
            number,
            ground,
            rules,
            next,
            policies: BTreeMap::new(),
            slots: HashMap::new(),
            opens: BTreeSet::new(),
            regions: BTreeMap::new(),
            grants: BTreeSet::new(),
            flags: BTreeMap::new(),
            lists: BTreeMap::new(),
            sets: BTreeMap::new(),
            amendment: Amendment::default(),
        }
    }

    /// The numbers of the policies that a group is in.
    pub(super) fn policies_with(&mut self, group: &GroupName) -> Answer<Vec<u32>> {
        let found = self.ground.policies_with(self.vpc, group)?;
        let ids = found.iter().map(|policy| policy.id).collect();
        let found = found.into_iter().map(|policy| (policy.id, policy.groups));
        self.policies.extend(found);
        Ok(ids)
    }

    pub(super) fn take_rules(&mut self, edits: &Edits) -> Answer<()> {
        self.number_rules(edits)?;
        let coming = edits.rules_added.iter().map(|edit| (edit, true));
        let going = edits.rules_removed.iter().map(|edit| (edit, false));
        for ((group, rule), comes) in coming.chain(going) {
            let policies = self.policies_with(group)?;
            if policies.is_empty() {
                continue;
            }
            let direction = rule.permission.direction;
            let courses = policies.into_iter().map(|policy| (policy, direction));
            match &rule.permission.peer {
                Peer::Prefix(prefix) => {
                    for course in courses {
                        let cell = (course, family_of(prefix));
                        match prefix.prefix_len() {
                            0 => drop(self.opens.insert(cell)),
                            _ => self.regions.entry(cell).or_default().push(*prefix),
                        }
                    }
                }
                peer => {
                    let identities = self.identities_of_peer(peer, comes)?;
                    for course in courses {
                        let grants = identities.iter().map(|identity| (course, *identity));
                        self.grants.extend(grants);
                        self.flags.entry(course).or_default().push(peer.clone());
                    }
                }
            }
            if !comes {
                let slots = self.ground.slots_of(self.vpc, group, &[rule.id])?;
                let slot = slots.first().copied().flatten();
                let slot = slot.ok_or(Whole::because("a rule has no counters"))?;
                self.amendment.old.ids.rules.insert(rule.id, slot);
            }
        }
        Ok(())
    }

    /// Gives rules of attached groups that come their counters.
    fn number_rules(&mut self, edits: &Edits) -> Answer<()> {
        let mut coming = Vec::new();
        for (group, rule) in &edits.rules_added {
            if !self.policies_with(group)?.is_empty() {
                coming.push((group, rule.id));
            }
        }
        if coming.is_empty() {
            return Ok(());
        }
        let (taken, last) = self.ground.slots_taken()?;
        let room = self.ground.room().rules;
        let expected = taken.len().saturating_mul(2).saturating_add(coming.len());
        let mut numbers = Circle::new(last, taken, expected, room);
        for (group, rule) in coming {
            let slot = RuleSlot(numbers.fresh());
            if slot.0 > room {
                return Err(Whole::because("there are no counters left for a new rule"));
            }
            self.slots.insert(rule, slot);
            self.amendment.slots.push((group.clone(), rule, slot));
            self.amendment.new.ids.rules.insert(rule, slot);
        }
        self.amendment.new.ids.last_rule = numbers.last();
        Ok(())
    }

    /// The identities that a rule speaks of which names a group or prefix list, now or until now.
    fn identities_of_peer(&mut self, peer: &Peer, comes: bool) -> Answer<Vec<Identity>> {
        if let Peer::PrefixList(list) = peer {
            for family in Family::ALL {
                let open = self.rules.lists_of_everyone(self.vpc, family)?;
                if open.contains(list) {
                    let why = "a rule names a prefix list that holds every address";
                    return Err(Whole::because(why));
                }
            }
        }
        let found = self.identities_with(peer)?;
        match comes {
            true if found.is_empty() => Err(Whole::because("a peer is named for the first time")),
            false if !self.is_named(peer)? => Err(Whole::because("a peer is named no longer")),
            _ => Ok(found),
        }
    }

    fn identities_with(&mut self, peer: &Peer) -> Answer<Vec<Identity>> {
        let found = self.ground.identities_with(self.vpc, peer)?;
        let identities = found.iter().map(|(identity, _)| *identity).collect();
        self.sets.extend(found);
        Ok(identities)
    }

    /// Whether a rule of an attached group names a peer.
    fn is_named(&mut self, peer: &Peer) -> Answer<bool> {
        for group in self.rules.groups_naming(self.vpc, peer)? {
            if !self.policies_with(&group)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether tables tell who is in a group or prefix list.
    fn is_peer(&mut self, peer: &Peer) -> Answer<bool> {
        Ok(!self.identities_with(peer)?.is_empty() || self.is_named(peer)?)
    }

    pub(super) fn take_members(&mut self, edits: &Edits) -> Answer<()> {
        let coming = edits.members_added.iter().map(|edit| (edit, true));
        let going = edits.members_removed.iter().map(|edit| (edit, false));
        let mut is_peer: BTreeMap<&GroupName, bool> = BTreeMap::new();
        let mut changed: BTreeMap<IpAddr, BTreeMap<GroupName, bool>> = BTreeMap::new();
        for ((group, address), comes) in coming.chain(going) {
            let is_peer = match is_peer.get(group) {
                Some(known) => *known,
                None => {
                    let found = self.is_peer(&Peer::Group(group.clone()))?;
                    is_peer.insert(group, found);
                    found
                }
            };
            if is_peer {
                let groups = changed.entry(*address).or_default();
                groups.insert(group.clone(), comes);
            }
        }
        for (address, changed) in changed {
            // It may be in a group for more reasons than one.
            if self.ground.is_own_address(self.vpc, address)?
                || self.rules.is_guests_address(self.vpc, address)?
            {
                return Err(Whole::because("a member is the address of an interface"));
            }
            self.change_member(address, changed)?;
        }
        Ok(())
    }

    fn change_member(&mut self, address: IpAddr, changed: BTreeMap<GroupName, bool>) -> Answer<()> {
        let key = MemberKey {
            vpc: self.number,
            address: Addr::from(address),
        };
        let old = self.ground.member(key)?;
        let mut groups = match old {
            None => BTreeSet::new(),
            Some(member) => match self.members_of(member.identity)? {
                MembersOf::Groups(groups) => groups,
                MembersOf::PrefixLists(_) => return Err(unknown_identity()),
            },
        };
        for (group, comes) in changed {
            match comes {
                true => groups.insert(group),
                false => groups.remove(&group),
            };
        }
        if let Some(old) = old {
            self.amendment.old.members.insert(key, old);
        }
        if groups.is_empty() {
            return Ok(());
        }
        let index = match old {
            Some(member) => member.index,
            None => {
                let index = self.next.member;
                if index >= self.ground.room().members {
                    return Err(Whole::because("there is no room for another member"));
                }
                self.next.member += 1;
                index
            }
        };
        let identity = self.identity(MembersOf::Groups(groups))?;
        let new = Member { index, identity };
        self.amendment.new.members.insert(key, new);
        Ok(())
    }

    pub(super) fn members_of(&mut self, identity: Identity) -> Answer<MembersOf> {
        let set = match self.sets.get(&identity) {
            Some(known) => known.clone(),
            None => {
                let found = self.ground.identity_set(identity)?;
                let found = found.ok_or_else(unknown_identity)?;
                self.sets.insert(identity, found.clone());
                found
            }
        };
        Ok(set.members_of)
    }

    /// The identity of a set. One that is new is granted what rules allow it.
    pub(super) fn identity(&mut self, members_of: MembersOf) -> Answer<Identity> {
        let set = IdentitySet {
            vpc: self.vpc.clone(),
            members_of,
        };
        if let Some(known) = self.amendment.new.ids.identities.get(&set) {
            return Ok(*known);
        }
        if let Some(known) = self.ground.identity(&set)? {
            return Ok(known);
        }
        let identity = Identity(self.next.identity);
        self.next.identity += 1;
        let new = &mut self.amendment.new.ids.identities;
        new.insert(set.clone(), identity);
        for peer in peers(&set.members_of) {
            for group in self.rules.groups_naming(self.vpc, &peer)? {
                for policy in self.policies_with(&group)? {
                    let courses = Direction::ALL.map(|direction| (policy, direction));
                    let grants = courses.map(|course| (course, identity));
                    self.grants.extend(grants);
                }
            }
        }
        self.sets.insert(identity, set);
        Ok(identity)
    }

    pub(super) fn take_prefixes(&mut self, edits: &Edits) -> Answer<()> {
        let prefixes = edits.prefixes_added.iter().chain(&edits.prefixes_removed);
        let mut is_peer: BTreeMap<&PrefixListName, bool> = BTreeMap::new();
        for (list, prefix) in prefixes {
            let is_peer = match is_peer.get(list) {
                Some(known) => *known,
                None => {
                    let found = self.is_peer(&Peer::PrefixList(list.clone()))?;
                    is_peer.insert(list, found);
                    found
                }
            };
            if !is_peer {
                continue;
            }
            if prefix.prefix_len() == 0 {
                let why = "a prefix list comes to hold every address, or ceases to";
                return Err(Whole::because(why));
            }
            let regions = self.lists.entry(family_of(prefix)).or_default();
            regions.push((list.clone(), *prefix));
        }
        Ok(())
    }
}

pub(super) fn unknown_identity() -> Whole {
    Whole::because("an identity stands for nothing")
}

pub(super) fn peers(set: &MembersOf) -> impl Iterator<Item = Peer> {
    let (groups, lists) = match set {
        MembersOf::Groups(groups) => (Some(groups), None),
        MembersOf::PrefixLists(lists) => (None, Some(lists)),
    };
    let groups = groups.into_iter().flatten().cloned().map(Peer::Group);
    let lists = lists.into_iter().flatten().cloned().map(Peer::PrefixList);
    groups.chain(lists)
}
