//! Parts of the policy, for a change that is about little of it.
//!
//! What a change of rules, members or prefixes is about is read by its keys; what shares cells of
//! the tables with it is found through indexes. A part looks like a policy to whoever makes changes
//! of it, but holds no more than was asked for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use rusqlite::{Connection, OptionalExtension as _, Params, Row, Transaction, TransactionBehavior};
use sg_common::addr::Family;
use sg_common::packet::Direction;

use super::column::{Address, Code, Text, prefix};
use super::load::{rule, rule_columns};
use super::{SqliteStore, count_up, edit, explain, explain_failure, revision, stamp, writing};
use crate::compile::amend::{Answer, Rules, Whole};
use crate::policy::change::Change;
use crate::policy::defaults::everywhere;
use crate::policy::model::{Group, Peer, Permission, Policy, Rule, Vpc};
use crate::policy::names::{GroupName, PrefixListName, RuleId, VpcName};
use crate::store::{Revision, StoreError};

/// What a change is about.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// Some rules of a group.
    Rules {
        /// The group.
        group: &'a GroupName,
        /// What they allow.
        permissions: &'a [Permission],
        /// Their ids.
        ids: &'a [RuleId],
    },
    /// Some static members of a group.
    Members {
        /// The group.
        group: &'a GroupName,
        /// Those that may be members.
        addresses: &'a [IpAddr],
    },
    /// Some prefixes of a list.
    Prefixes {
        /// The list.
        list: &'a PrefixListName,
        /// Those that it may hold.
        prefixes: &'a [IpNet],
    },
}

impl From<rusqlite::Error> for Whole {
    fn from(error: rusqlite::Error) -> Self {
        Self::because(format!("a part cannot be read: {error}"))
    }
}

type Read<T> = rusqlite::Result<T>;

fn one<T>(
    db: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnOnce(&Row<'_>) -> Read<T>,
) -> Read<Option<T>> {
    db.prepare_cached(sql)?.query_row(values, read).optional()
}

fn all<T>(
    db: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnMut(&Row<'_>) -> Read<T>,
) -> Read<Vec<T>> {
    let mut statement = db.prepare_cached(sql)?;
    statement.query_map(values, read)?.collect()
}

const RULES_WITH_PREFIX: &str = concat!(
    "SELECT ",
    rule_columns!(),
    " FROM rule WHERE security_group = ? AND peer_address = ? AND peer_length BETWEEN ? AND ?"
);
const RULES_WITHIN: &str = concat!(
    "SELECT ",
    rule_columns!(),
    " FROM rule WHERE security_group = ? AND peer_address BETWEEN ? AND ?"
);
const RULES_NAMING_GROUP: &str = concat!(
    "SELECT ",
    rule_columns!(),
    " FROM rule WHERE vpc = ? AND peer_group = ? AND security_group = ?"
);
const RULES_NAMING_LIST: &str = concat!(
    "SELECT ",
    rule_columns!(),
    " FROM rule WHERE vpc = ? AND peer_prefix_list = ? AND security_group = ?"
);
const RULE_BY_ID: &str = concat!(
    "SELECT ",
    rule_columns!(),
    " FROM rule WHERE security_group = ? AND rule_id = ?"
);

/// The rules of a group that name a peer, which may be a prefix.
fn rules_naming(db: &Connection, vpc: i64, group: i64, peer: &Peer) -> Read<Vec<Rule>> {
    match peer {
        Peer::Prefix(prefix) => {
            let length = prefix.prefix_len();
            let values = (group, Address(prefix.addr()), length, length);
            all(db, RULES_WITH_PREFIX, values, rule)
        }
        Peer::PrefixList(list) => {
            let values = (vpc, list.as_str(), group);
            all(db, RULES_NAMING_LIST, values, rule)
        }
        Peer::Group(peer) => {
            let values = (vpc, peer.as_str(), group);
            all(db, RULES_NAMING_GROUP, values, rule)
        }
    }
}

fn group(db: &Connection, vpc: i64, name: &GroupName) -> Read<Option<(i64, GroupName, Group)>> {
    let sql = "SELECT id, name, group_id, description FROM security_group \
               WHERE vpc = ? AND name = ?";
    one(db, sql, (vpc, name.as_str()), |row| {
        let group = Group::bare(row.get::<_, Text<_>>(2)?.0, row.get(3)?);
        Ok((row.get(0)?, row.get::<_, Text<GroupName>>(1)?.0, group))
    })
}

fn group_id(db: &Connection, vpc: &VpcName, name: &GroupName) -> Read<Option<i64>> {
    let sql = "SELECT security_group.id FROM security_group JOIN vpc ON vpc.id = vpc \
               WHERE vpc.name = ? AND security_group.name = ?";
    one(db, sql, (vpc.as_str(), name.as_str()), |row| row.get(0))
}

fn list(db: &Connection, vpc: i64, name: &PrefixListName) -> Read<Option<(i64, PrefixListName)>> {
    let sql = "SELECT id, name FROM prefix_list WHERE vpc = ? AND name = ?";
    one(db, sql, (vpc, name.as_str()), |row| {
        Ok((row.get(0)?, row.get::<_, Text<_>>(1)?.0))
    })
}

/// The part of one VPC that a change is about.
fn part_of(db: &Connection, vpc_id: i64, vpc: &mut Vpc, asked: Asked<'_>) -> Read<()> {
    let bare = |vpc: &mut Vpc, name: &GroupName| -> Read<Option<(i64, GroupName)>> {
        let Some((id, name, found)) = group(db, vpc_id, name)? else {
            return Ok(None);
        };
        vpc.groups.entry(name.clone()).or_insert(found);
        Ok(Some((id, name)))
    };
    bare(vpc, &GroupName::default_group())?;
    match asked {
        Asked::Rules {
            group,
            permissions,
            ids,
        } => {
            let Some((id, name)) = bare(vpc, group)? else {
                return Ok(());
            };
            let mut rules: Vec<Rule> = Vec::new();
            for permission in permissions {
                let named = rules_naming(db, vpc_id, id, &permission.peer)?;
                rules.extend(
                    named
                        .into_iter()
                        .filter(|rule| rule.permission == *permission),
                );
            }
            for rule_id in ids {
                rules.extend(one(db, RULE_BY_ID, (id, Text(rule_id)), rule)?);
            }
            let known = rules.iter().map(|rule| &rule.permission.peer);
            let peers: BTreeSet<Peer> = permissions
                .iter()
                .map(|permission| &permission.peer)
                .chain(known)
                .cloned()
                .collect();
            for peer in &peers {
                match peer {
                    Peer::Prefix(_) => {}
                    Peer::Group(peer) => drop(bare(vpc, peer)?),
                    Peer::PrefixList(peer) => {
                        if let Some((_, name)) = list(db, vpc_id, peer)? {
                            vpc.prefix_lists.insert(name, BTreeSet::new());
                        }
                    }
                }
            }
            if let Some(group) = vpc.groups.get_mut(&name) {
                group.rules = rules;
            }
        }
        Asked::Members { group, addresses } => {
            let Some((id, name)) = bare(vpc, group)? else {
                return Ok(());
            };
            let sql = "SELECT 1 FROM member WHERE security_group = ? AND address = ?";
            for address in addresses {
                let is_member = one(db, sql, (id, Address(*address)), |_| Ok(()))?.is_some();
                if let Some(group) = vpc.groups.get_mut(&name).filter(|_| is_member) {
                    group.members.insert(*address);
                }
            }
        }
        Asked::Prefixes {
            list: name,
            prefixes,
        } => {
            let Some((id, name)) = list(db, vpc_id, name)? else {
                return Ok(());
            };
            let sql = "SELECT 1 FROM prefix WHERE prefix_list = ? AND address = ? AND length = ?";
            let mut held = BTreeSet::new();
            for prefix in prefixes {
                let values = (id, Address(prefix.addr()), prefix.prefix_len());
                if one(db, sql, values, |_| Ok(()))?.is_some() {
                    held.insert(*prefix);
                }
            }
            vpc.prefix_lists.insert(name, held);
        }
    }
    Ok(())
}

impl SqliteStore {
    /// The part of the policy that a change is about: in each VPC, what is asked for as far as it is
    /// there, and the names that it speaks of.
    pub fn part(&self, asked: Asked<'_>) -> Result<(Revision, Policy), StoreError> {
        let read = || -> Read<(Revision, Policy)> {
            let db = self.db.unchecked_transaction()?;
            let vpcs = all(
                &db,
                "SELECT id, name, on_rule_removal FROM vpc",
                [],
                |row| {
                    let vpc = Vpc {
                        prefix_lists: Default::default(),
                        groups: Default::default(),
                        interfaces: Default::default(),
                        link_local_services: Default::default(),
                        on_rule_removal: row.get::<_, Code<_>>(2)?.0,
                    };
                    Ok((
                        row.get::<_, i64>(0)?,
                        row.get::<_, Text<VpcName>>(1)?.0,
                        vpc,
                    ))
                },
            )?;
            let mut policy = Policy::default();
            for (id, name, mut vpc) in vpcs {
                part_of(&db, id, &mut vpc, asked)?;
                policy.vpcs.insert(name, vpc);
            }
            Ok((revision(&db)?, policy))
        };
        read().map_err(self.reading())
    }

    /// Makes changes of a part of the policy, to be committed or dropped.
    pub fn draft(
        &mut self,
        expected: Revision,
        changes: &[Change],
        part: &Policy,
    ) -> Result<Draft<'_>, StoreError> {
        let path = self.path.clone();
        let failed = writing(path.clone());
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&failed)?;
        let found = revision(&transaction).map_err(&failed)?;
        if found != expected {
            return Err(StoreError::Conflict { expected, found });
        }
        edit::make(&transaction, changes, Some(part))
            .map_err(|failure| explain_failure(&path, failure))?;
        Ok(Draft { transaction, path })
    }
}

/// The policy with changes that are not committed yet.
pub struct Draft<'a> {
    transaction: Transaction<'a>,
    path: std::path::PathBuf,
}

impl Draft<'_> {
    /// Makes the changes last. When this returns, they survive a loss of power. Tells the stamp of
    /// the policy with them, too, see [`SqliteStore::stamp`].
    pub fn commit(self) -> Result<(Revision, u64), StoreError> {
        let Self { transaction, path } = self;
        let counted = count_up(&transaction).and_then(|it| Ok((it, stamp(&transaction)?)));
        counted
            .and_then(|counted| transaction.commit().map(|()| counted))
            .map_err(|error| explain(&path, "write to", error))
    }

    /// The rules that queries find, group by group.
    fn rules(
        &self,
        vpc: &VpcName,
        groups: &BTreeSet<GroupName>,
        direction: Direction,
        mut find: impl FnMut(&Connection, i64) -> Read<Vec<Rule>>,
    ) -> Answer<Vec<(GroupName, Rule)>> {
        let mut found = Vec::new();
        for name in groups {
            let Some(id) = group_id(&self.transaction, vpc, name)? else {
                continue;
            };
            let rules = find(&self.transaction, id)?.into_iter();
            let rules = rules.filter(|rule| rule.permission.direction == direction);
            found.extend(rules.map(|rule| (name.clone(), rule)));
        }
        Ok(found)
    }

    fn vpc_id(&self, vpc: &VpcName) -> Answer<i64> {
        let sql = "SELECT id FROM vpc WHERE name = ?";
        let found = one(&self.transaction, sql, [vpc.as_str()], |row| row.get(0))?;
        found.ok_or(Whole::because("the VPC is not stored"))
    }
}

/// The first addresses of the prefixes that cover a region and begin before it.
fn addresses_around(region: IpNet) -> BTreeSet<Address> {
    let lengths = 0..region.prefix_len();
    let around = lengths.filter_map(|length| IpNet::new(region.addr(), length).ok());
    let around = around.map(|prefix| Address(prefix.trunc().addr()));
    let first = Address(region.network());
    around.filter(|address| *address != first).collect()
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

impl Rules for Draft<'_> {
    fn with_prefix_over(
        &mut self,
        vpc: &VpcName,
        groups: &BTreeSet<GroupName>,
        direction: Direction,
        region: IpNet,
    ) -> Answer<Vec<(GroupName, Rule)>> {
        let around = addresses_around(region);
        let (first, last) = (Address(region.network()), Address(region.broadcast()));
        self.rules(vpc, groups, direction, |db, group| {
            let mut rules = all(db, RULES_WITHIN, (group, first, last), rule)?;
            for address in &around {
                let values = (group, *address, 1, region.prefix_len());
                rules.extend(all(db, RULES_WITH_PREFIX, values, rule)?);
            }
            rules.retain(|rule| {
                matches!(rule.permission.peer, Peer::Prefix(prefix) if overlap(prefix, region))
            });
            Ok(rules)
        })
    }

    fn with_prefix(
        &mut self,
        vpc: &VpcName,
        groups: &BTreeSet<GroupName>,
        direction: Direction,
        prefix: IpNet,
    ) -> Answer<Vec<(GroupName, Rule)>> {
        self.naming(vpc, groups, direction, &[Peer::Prefix(prefix)])
    }

    fn naming(
        &mut self,
        vpc: &VpcName,
        groups: &BTreeSet<GroupName>,
        direction: Direction,
        peers: &[Peer],
    ) -> Answer<Vec<(GroupName, Rule)>> {
        let vpc_id = self.vpc_id(vpc)?;
        self.rules(vpc, groups, direction, |db, group| {
            let mut rules = Vec::new();
            for peer in peers {
                rules.extend(rules_naming(db, vpc_id, group, peer)?);
            }
            Ok(rules)
        })
    }

    fn names_any_like(
        &mut self,
        vpc: &VpcName,
        groups: &BTreeSet<GroupName>,
        direction: Direction,
        peer: &Peer,
    ) -> Answer<bool> {
        let sql = match peer {
            Peer::Prefix(_) => {
                "SELECT 1 FROM rule WHERE security_group = ? AND direction = ? \
                 AND peer_address IS NOT NULL LIMIT 1"
            }
            Peer::PrefixList(_) => {
                "SELECT 1 FROM rule WHERE security_group = ? AND direction = ? \
                 AND peer_prefix_list IS NOT NULL LIMIT 1"
            }
            Peer::Group(_) => {
                "SELECT 1 FROM rule WHERE security_group = ? AND direction = ? \
                 AND peer_group IS NOT NULL LIMIT 1"
            }
        };
        for name in groups {
            let Some(id) = group_id(&self.transaction, vpc, name)? else {
                continue;
            };
            let values = (id, Code(direction));
            if one(&self.transaction, sql, values, |_| Ok(()))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn groups_naming(&mut self, vpc: &VpcName, peer: &Peer) -> Answer<Vec<GroupName>> {
        let (sql, name) = match peer {
            Peer::Prefix(_) => return Ok(Vec::new()),
            Peer::PrefixList(list) => (
                "SELECT DISTINCT name FROM rule \
                 JOIN security_group ON security_group.id = rule.security_group \
                 WHERE rule.vpc = ? AND peer_prefix_list = ?",
                list.as_str(),
            ),
            Peer::Group(group) => (
                "SELECT DISTINCT name FROM rule \
                 JOIN security_group ON security_group.id = rule.security_group \
                 WHERE rule.vpc = ? AND peer_group = ?",
                group.as_str(),
            ),
        };
        let values = (self.vpc_id(vpc)?, name);
        let names = all(&self.transaction, sql, values, |row| {
            Ok(row.get::<_, Text<GroupName>>(0)?.0)
        });
        Ok(names?)
    }

    fn of_list_over(
        &mut self,
        vpc: &VpcName,
        name: &PrefixListName,
        region: IpNet,
    ) -> Answer<Vec<IpNet>> {
        let vpc = self.vpc_id(vpc)?;
        let Some((id, _)) = list(&self.transaction, vpc, name)? else {
            return Ok(Vec::new());
        };
        let columns = |row: &Row<'_>| Ok(prefix(row.get(0)?, row.get(1)?)?);
        let sql = "SELECT address, length FROM prefix \
                   WHERE prefix_list = ? AND address BETWEEN ? AND ?";
        let (first, last) = (Address(region.network()), Address(region.broadcast()));
        let mut prefixes = all(&self.transaction, sql, (id, first, last), columns)?;
        let sql = "SELECT address, length FROM prefix WHERE prefix_list = ? AND address = ?";
        for address in addresses_around(region) {
            prefixes.extend(all(&self.transaction, sql, (id, address), columns)?);
        }
        prefixes.retain(|prefix| overlap(*prefix, region));
        Ok(prefixes)
    }

    fn lists_of_everyone(&mut self, vpc: &VpcName, family: Family) -> Answer<Vec<PrefixListName>> {
        let [v4, v6] = everywhere();
        let everyone = match family {
            Family::V4 => v4,
            Family::V6 => v6,
        };
        // Each list is asked for one prefix; the prefixes of all are never looked through.
        let sql = "SELECT name FROM prefix_list WHERE vpc = ? AND EXISTS \
                   (SELECT 1 FROM prefix WHERE prefix_list = prefix_list.id \
                    AND address = ? AND length = 0)";
        let values = (self.vpc_id(vpc)?, Address(everyone.addr()));
        let names = all(&self.transaction, sql, values, |row| {
            Ok(row.get::<_, Text<PrefixListName>>(0)?.0)
        });
        Ok(names?)
    }

    fn is_guests_address(&mut self, vpc: &VpcName, address: IpAddr) -> Answer<bool> {
        let sql = "SELECT 1 FROM interface WHERE vpc = ? AND EXISTS \
                   (SELECT 1 FROM guest_address WHERE interface = interface.id AND address = ?) \
                   LIMIT 1";
        let values = (self.vpc_id(vpc)?, Address(address));
        Ok(one(&self.transaction, sql, values, |_| Ok(()))?.is_some())
    }
}
