//! Rows to a policy.
//!
//! One scan a table, each in the order of its key, so that a policy with a million rules is read
//! in about a second; what rows may not say is found by [`Policy::checked`] afterwards.

use std::collections::HashMap;

use rusqlite::types::FromSqlError;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::column::{Address, Code, Mac, Text, TrafficColumns, prefix};
use crate::policy::change;
use crate::policy::matching::DeviceMatch;
use crate::policy::model::{Group, Interface, Macs, Peer, Permission, Policy, Rule, Timeouts, Vpc};
use crate::policy::names::{GroupName, InterfaceName, PrefixListName, RuleId, VpcName};
use crate::store::Owned;

pub(super) fn policy(db: &Connection) -> rusqlite::Result<Policy> {
    let mut vpcs = vpcs(db)?;
    prefix_lists(db, &mut vpcs)?;
    groups(db, &mut vpcs)?;
    interfaces(db, &mut vpcs)?;
    Ok(Policy {
        vpcs: vpcs.into_values().collect(),
    })
}

type Vpcs = HashMap<i64, (VpcName, Vpc)>;

/// Reads all rows of a query, giving each to `take`.
fn each(
    db: &Connection,
    sql: &str,
    mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    Ok(())
}

/// Foreign keys make this impossible in a file that nobody else wrote to.
fn orphan() -> rusqlite::Error {
    FromSqlError::other(std::io::Error::other(
        "a row belongs to another that is not there",
    ))
    .into()
}

fn vpcs(db: &Connection) -> rusqlite::Result<Vpcs> {
    let mut vpcs = Vpcs::new();
    each(db, "SELECT id, name, on_rule_removal FROM vpc", |row| {
        let vpc = Vpc {
            prefix_lists: Default::default(),
            groups: Default::default(),
            interfaces: Default::default(),
            link_local_services: Default::default(),
            on_rule_removal: row.get::<_, Code<_>>(2)?.0,
        };
        vpcs.insert(row.get(0)?, (row.get::<_, Text<VpcName>>(1)?.0, vpc));
        Ok(())
    })?;
    each(db, "SELECT vpc, address FROM link_local_service", |row| {
        let (_, vpc) = vpcs.get_mut(&row.get(0)?).ok_or_else(orphan)?;
        vpc.link_local_services.insert(row.get::<_, Address>(1)?.0);
        Ok(())
    })?;
    Ok(vpcs)
}

fn prefix_lists(db: &Connection, vpcs: &mut Vpcs) -> rusqlite::Result<()> {
    let mut lists = HashMap::new();
    each(db, "SELECT id, vpc, name FROM prefix_list", |row| {
        let name = row.get::<_, Text<PrefixListName>>(2)?.0;
        lists.insert(
            row.get::<_, i64>(0)?,
            (row.get::<_, i64>(1)?, name, Vec::new()),
        );
        Ok(())
    })?;
    each(
        db,
        "SELECT prefix_list, address, length FROM prefix",
        |row| {
            let (_, _, prefixes) = lists.get_mut(&row.get(0)?).ok_or_else(orphan)?;
            prefixes.push(prefix(row.get(1)?, row.get(2)?)?);
            Ok(())
        },
    )?;
    for (vpc, name, prefixes) in lists.into_values() {
        let (_, vpc) = vpcs.get_mut(&vpc).ok_or_else(orphan)?;
        vpc.prefix_lists
            .insert(name, prefixes.into_iter().collect());
    }
    Ok(())
}

fn groups(db: &Connection, vpcs: &mut Vpcs) -> rusqlite::Result<()> {
    // By id, as the rules come, so that each is found next to the one before.
    let mut groups: Vec<(i64, i64, GroupName, Group)> = Vec::new();
    each(
        db,
        "SELECT id, vpc, name, group_id, description FROM security_group ORDER BY id",
        |row| {
            let group = Group::bare(row.get::<_, Text<_>>(3)?.0, row.get(4)?);
            groups.push((
                row.get(0)?,
                row.get(1)?,
                row.get::<_, Text<GroupName>>(2)?.0,
                group,
            ));
            Ok(())
        },
    )?;
    let mut at = 0;
    let mut find = |groups: &mut [_], id: i64| -> rusqlite::Result<usize> {
        let groups: &mut [(i64, i64, GroupName, Group)] = groups;
        if groups.get(at).is_none_or(|group| group.0 != id) {
            at = groups
                .binary_search_by_key(&id, |group| group.0)
                .map_err(|_| orphan())?;
        }
        Ok(at)
    };
    each(db, "SELECT security_group, address FROM member", |row| {
        let at = find(&mut groups, row.get(0)?)?;
        groups[at].3.members.insert(row.get::<_, Address>(1)?.0);
        Ok(())
    })?;
    each(
        db,
        &format!("SELECT {RULE} FROM rule ORDER BY security_group"),
        |row| {
            let at = find(&mut groups, row.get(0)?)?;
            groups[at].3.rules.push(rule(row)?);
            Ok(())
        },
    )?;
    for (_, vpc, name, group) in groups {
        let (_, vpc) = vpcs.get_mut(&vpc).ok_or_else(orphan)?;
        vpc.groups.insert(name, group);
    }
    Ok(())
}

/// What [`rule`] reads.
const RULE: &str = "rule.security_group, rule_id, direction, protocol, low, high, peer_address, \
    peer_length, peer_prefix_list, peer_group, rule.description";

/// One group of a VPC, with its rules as a policy has them.
pub(super) fn group(
    db: &Connection,
    vpc: &VpcName,
    name: &GroupName,
) -> rusqlite::Result<Option<Group>> {
    let sql = "SELECT security_group.id, group_id, security_group.description FROM security_group \
        JOIN vpc ON vpc.id = security_group.vpc WHERE vpc.name = ? AND security_group.name = ?";
    let mut found = db.prepare_cached(sql)?;
    let found = found.query_row((vpc.as_str(), name.as_str()), |row| {
        let group = Group::bare(row.get::<_, Text<_>>(1)?.0, row.get(2)?);
        Ok((row.get::<_, i64>(0)?, group))
    });
    let Some((id, mut group)) = found.optional()? else {
        return Ok(None);
    };
    let mut members = db.prepare_cached("SELECT address FROM member WHERE security_group = ?")?;
    let members = members.query_map([id], |row| Ok(row.get::<_, Address>(0)?.0))?;
    group.members = members.collect::<rusqlite::Result<_>>()?;
    let sql = format!("SELECT {RULE} FROM rule WHERE security_group = ?");
    let mut rules = db.prepare_cached(&sql)?;
    let rules = rules.query_map([id], rule)?;
    group.rules = rules.collect::<rusqlite::Result<_>>()?;
    change::sort(&mut group.rules);
    Ok(Some(group))
}

/// One rule with where it is. Each group is asked by the key of its rules, and there are far fewer
/// groups than rules.
pub(super) fn owned_rule(db: &Connection, id: RuleId) -> rusqlite::Result<Option<Owned>> {
    let sql = format!(
        "SELECT {RULE}, vpc.name, security_group.name FROM security_group \
         CROSS JOIN rule ON rule.security_group = security_group.id AND rule_id = ? \
         JOIN vpc ON vpc.id = security_group.vpc"
    );
    let mut found = db.prepare_cached(&sql)?;
    let found = found.query_row([Text(id)], |row| {
        Ok(Owned {
            vpc: row.get::<_, Text<VpcName>>(11)?.0,
            group: row.get::<_, Text<GroupName>>(12)?.0,
            rule: rule(row)?,
        })
    });
    found.optional()
}

fn rule(row: &Row<'_>) -> rusqlite::Result<Rule> {
    let columns = TrafficColumns {
        protocol: row.get(3)?,
        low: row.get(4)?,
        high: row.get(5)?,
    };
    let nonsense = || FromSqlError::other(std::io::Error::other("a rule that says nothing"));
    let peer = if let Some(address) = row.get::<_, Option<Address>>(6)? {
        Peer::Prefix(prefix(address, row.get(7)?)?)
    } else if let Some(Text(list)) = row.get::<_, Option<Text<_>>>(8)? {
        Peer::PrefixList(list)
    } else {
        Peer::Group(row.get::<_, Text<_>>(9)?.0)
    };
    Ok(Rule {
        id: row.get::<_, Text<_>>(1)?.0,
        permission: Permission {
            direction: row.get::<_, Code<_>>(2)?.0,
            traffic: columns.traffic().ok_or_else(nonsense)?,
            peer,
        },
        description: row.get(10)?,
    })
}

fn interfaces(db: &Connection, vpcs: &mut Vpcs) -> rusqlite::Result<()> {
    let mut interfaces: HashMap<i64, (i64, InterfaceName, Interface)> = HashMap::new();
    each(
        db,
        "SELECT id, vpc, name, side, hook, netns, replace_xdp, tcp_pickup, audit, tcp_established_s, \
         udp_s, udp_stream_s, max_flows, strict_fragments, egress_drops, \
         any_mac, match_name, match_mac, match_alias FROM interface",
        |row| {
            let matching = [("name", 16), ("mac", 17), ("alias", 18)];
            let mut found = DeviceMatch::default();
            for (key, column) in matching {
                if let Some(value) = row.get::<_, Option<String>>(column)? {
                    let added = found.add(&format!("{key}={value}"));
                    added.map_err(FromSqlError::other)?;
                }
            }
            let interface = Interface {
                matching: (!found.is_empty()).then(|| Box::new(found)),
                groups: Default::default(),
                side: row.get::<_, Code<_>>(3)?.0,
                hook: row.get::<_, Code<_>>(4)?.0,
                netns: row.get(5)?,
                addresses: Default::default(),
                ethertypes: Default::default(),
                replace_xdp: row.get::<_, Code<_>>(6)?.0,
                tcp_pickup: row.get::<_, Code<_>>(7)?.0,
                strict_fragments: row.get::<_, Code<_>>(13)?.0,
                audit: row.get::<_, Code<_>>(8)?.0,
                timeouts: Timeouts {
                    tcp_established_s: row.get(9)?,
                    udp_s: row.get(10)?,
                    udp_stream_s: row.get(11)?,
                },
                max_flows: row.get(12)?,
                egress_drops: row.get::<_, Code<_>>(14)?.0,
                macs: match row.get::<_, Code<bool>>(15)?.0 {
                    true => Macs::Any,
                    false => Macs::Peer,
                },
                vlans: Default::default(),
            };
            let name = row.get::<_, Text<InterfaceName>>(2)?.0;
            interfaces.insert(row.get(0)?, (row.get(1)?, name, interface));
            Ok(())
        },
    )?;
    each(
        db,
        "SELECT interface, security_group FROM membership",
        |row| {
            let (_, _, interface) = interfaces.get_mut(&row.get(0)?).ok_or_else(orphan)?;
            interface.groups.insert(row.get::<_, Text<_>>(1)?.0);
            Ok(())
        },
    )?;
    each(db, "SELECT interface, address FROM guest_address", |row| {
        let (_, _, interface) = interfaces.get_mut(&row.get(0)?).ok_or_else(orphan)?;
        interface.addresses.insert(row.get::<_, Address>(1)?.0);
        Ok(())
    })?;
    each(db, "SELECT interface, mac FROM guest_mac", |row| {
        let (_, _, interface) = interfaces.get_mut(&row.get(0)?).ok_or_else(orphan)?;
        let mac = row.get::<_, Mac>(1)?.0;
        match &mut interface.macs {
            Macs::Listed(macs) => {
                macs.insert(mac);
            }
            unlisted => *unlisted = Macs::Listed([mac].into()),
        }
        Ok(())
    })?;
    each(db, "SELECT interface, number FROM guest_vlan", |row| {
        let (_, _, interface) = interfaces.get_mut(&row.get(0)?).ok_or_else(orphan)?;
        interface.vlans.insert(row.get(1)?);
        Ok(())
    })?;
    each(db, "SELECT interface, number FROM ethertype", |row| {
        let (_, _, interface) = interfaces.get_mut(&row.get(0)?).ok_or_else(orphan)?;
        interface.ethertypes.insert(row.get(1)?);
        Ok(())
    })?;
    for (vpc, name, interface) in interfaces.into_values() {
        let (_, vpc) = vpcs.get_mut(&vpc).ok_or_else(orphan)?;
        vpc.interfaces.insert(name, interface);
    }
    Ok(())
}
