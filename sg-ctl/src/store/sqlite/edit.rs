//! Changes to rows: each edit writes the rows it is about and no others.
//!
//! Where an edit gives a whole set, only the difference is written, so one prefix in a long list
//! costs one row.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use rusqlite::{Connection, OptionalExtension as _, Params, ToSql, params};

use super::column::{Address, Code, Mac, Text, prefix};
use super::rule_rows;
use crate::policy::change::{Change, Edit};
use crate::policy::model::{Group, Interface, Macs, OnRuleRemoval, Vpc};
use crate::policy::names::{
    GroupId, GroupName, InterfaceId, InterfaceName, PrefixListId, PrefixListName, VpcId, VpcName,
};

/// Why an edit could not be made.
#[derive(Debug)]
pub(super) enum Failure {
    /// It speaks of what is not there; in words.
    Missing(String),
    /// SQLite's own.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// Makes the changes, in order, within the transaction that `db` is in.
pub(super) fn make(db: &Connection, changes: &[Change]) -> Result {
    let mut rows = Rows {
        db,
        last_vpc: None,
        last_group: None,
    };
    changes
        .chunk_by(add_to_one_group)
        .try_for_each(|changes| rows.make_together(changes))
}

/// Whether both add a rule to the same group, so that their order means nothing.
fn add_to_one_group(a: &Change, b: &Change) -> bool {
    match (&a.edit, &b.edit) {
        (Edit::AddRule(group, _), Edit::AddRule(other, _)) => a.vpc == b.vpc && group == other,
        _ => false,
    }
}

/// The rows, and where the last edit was: the next is usually of the same group.
struct Rows<'a> {
    db: &'a Connection,
    last_vpc: Option<(&'a VpcName, i64)>,
    last_group: Option<(i64, &'a GroupName, i64)>,
}

impl<'a> Rows<'a> {
    fn make_together(&mut self, changes: &'a [Change]) -> Result {
        let rules = changes.iter().filter_map(|change| match &change.edit {
            Edit::AddRule(_, rule) => Some(rule),
            _ => None,
        });
        match changes.first() {
            Some(Change {
                vpc,
                edit: Edit::AddRule(group, _),
            }) => {
                let vpc = self.vpc(vpc)?;
                let group = self.group(vpc, group)?;
                Ok(rule_rows::add(self.db, vpc, group, rules.collect())?)
            }
            _ => changes.iter().try_for_each(|change| self.make(change)),
        }
    }

    fn make(&mut self, Change { vpc: name, edit }: &'a Change) -> Result {
        if let Edit::CreateVpc { default_group } = edit {
            return self.create_vpc(name, *default_group);
        }
        let vpc = self.vpc(name)?;
        match edit {
            // Taken above, where no VPC is looked up.
            Edit::CreateVpc { .. } => Ok(()),
            Edit::DeleteVpc => {
                (self.last_vpc, self.last_group) = (None, None);
                self.write("DELETE FROM vpc WHERE id = ?", [vpc]).map(drop)
            }
            Edit::SetLinkLocalServices(services) => self.put_services(vpc, services),
            Edit::SetOnRuleRemoval(choice) => self
                .write(
                    "UPDATE vpc SET on_rule_removal = ? WHERE id = ?",
                    (Code(*choice), vpc),
                )
                .map(drop),
            Edit::PutPrefixList(list, prefixes) => self.put_prefix_list(vpc, list, prefixes),
            Edit::RemovePrefixList(list) => {
                let gone = self.write(
                    "DELETE FROM prefix_list WHERE vpc = ? AND name = ?",
                    (vpc, list.as_str()),
                )?;
                self.expect(gone, || {
                    format!("no prefix list \"{list}\" in VPC \"{name}\"")
                })
            }
            Edit::CreateGroup {
                name,
                id,
                description,
            } => self.create_group(vpc, name, &Group::bare(*id, description.clone())),
            Edit::DeleteGroup(group) => {
                let group = self.group(vpc, group)?;
                self.last_group = None;
                self.write("DELETE FROM security_group WHERE id = ?", [group])
                    .map(drop)
            }
            Edit::DescribeGroup(group, text) => {
                let group = self.group(vpc, group)?;
                let sql = "UPDATE security_group SET description = ? WHERE id = ?";
                self.write(sql, (text, group)).map(drop)
            }
            Edit::SetMembers(group_name, members) => {
                let group = self.group(vpc, group_name)?;
                self.put_members(group, members)
            }
            // Taken together with others.
            Edit::AddRule(..) => Ok(()),
            Edit::RemoveRule(name, rule) => {
                let group = self.group(vpc, name)?;
                let sql = "DELETE FROM rule WHERE security_group = ? AND rule_id = ?";
                let gone = self.write(sql, (group, Text(rule)))?;
                self.expect(gone, || format!("no rule {rule} in group \"{name}\""))
            }
            Edit::DescribeRule(name, rule, text) => {
                let group = self.group(vpc, name)?;
                let sql =
                    "UPDATE rule SET description = ? WHERE security_group = ? AND rule_id = ?";
                let told = self.write(sql, (text, group, Text(rule)))?;
                self.expect(told, || format!("no rule {rule} in group \"{name}\""))
            }
            Edit::PutInterface(name, interface) => self.put_interface(vpc, name, interface),
            Edit::RemoveInterface(interface) => {
                let sql = "DELETE FROM interface WHERE vpc = ? AND name = ?";
                let gone = self.write(sql, (vpc, interface.as_str()))?;
                self.expect(gone, || {
                    format!("no interface \"{interface}\" in VPC \"{name}\"")
                })
            }
        }
    }

    fn write(&self, sql: &str, values: impl Params) -> Result<usize> {
        Ok(self.db.prepare_cached(sql)?.execute(values)?)
    }

    fn expect(&self, rows: usize, missing: impl FnOnce() -> String) -> Result {
        if rows == 0 {
            Err(Failure::Missing(missing()))
        } else {
            Ok(())
        }
    }

    fn id(&self, sql: &str, values: impl Params) -> Result<Option<i64>> {
        Ok(self
            .db
            .prepare_cached(sql)?
            .query_row(values, |row| row.get(0))
            .optional()?)
    }

    fn vpc(&mut self, name: &'a VpcName) -> Result<i64> {
        if let Some((last, id)) = self.last_vpc
            && last == name
        {
            return Ok(id);
        }
        let id = self
            .id("SELECT id FROM vpc WHERE name = ?", [name.as_str()])?
            .ok_or_else(|| Failure::Missing(format!("no VPC \"{name}\"")))?;
        self.last_vpc = Some((name, id));
        Ok(id)
    }

    fn group(&mut self, vpc: i64, name: &'a GroupName) -> Result<i64> {
        if let Some((last_vpc, last, id)) = self.last_group
            && last_vpc == vpc
            && last == name
        {
            return Ok(id);
        }
        let sql = "SELECT id FROM security_group WHERE vpc = ? AND name = ?";
        let id = self
            .id(sql, (vpc, name.as_str()))?
            .ok_or_else(|| Failure::Missing(format!("no group \"{name}\"")))?;
        self.last_group = Some((vpc, name, id));
        Ok(id)
    }

    fn create_vpc(&mut self, name: &VpcName, default_group: GroupId) -> Result {
        let Vpc {
            groups,
            link_local_services,
            on_rule_removal,
            ..
        } = Vpc::bare(default_group);
        let sql = "INSERT INTO vpc (name, on_rule_removal, object_id) VALUES (?, ?, ?)";
        let id = Text(VpcId::random());
        let removal = Code::<OnRuleRemoval>(on_rule_removal);
        self.write(sql, (name.as_str(), removal, id))?;
        let vpc = self.db.last_insert_rowid();
        self.put_services(vpc, &link_local_services)?;
        groups
            .iter()
            .try_for_each(|(name, group)| self.create_group(vpc, name, group))
    }

    fn create_group(&self, vpc: i64, name: &GroupName, group: &Group) -> Result {
        let sql = "INSERT INTO security_group (vpc, name, group_id, description) \
                   VALUES (?, ?, ?, ?)";
        self.write(
            sql,
            (vpc, name.as_str(), Text(group.id), &group.description),
        )
        .map(drop)
    }

    fn put_prefix_list(
        &self,
        vpc: i64,
        name: &PrefixListName,
        prefixes: &BTreeSet<IpNet>,
    ) -> Result {
        let sql = "INSERT INTO prefix_list (vpc, name, object_id) VALUES (?, ?, ?) \
                   ON CONFLICT DO NOTHING";
        self.write(sql, (vpc, name.as_str(), Text(PrefixListId::random())))?;
        let sql = "SELECT id FROM prefix_list WHERE vpc = ? AND name = ?";
        let list = self
            .id(sql, (vpc, name.as_str()))?
            .ok_or_else(|| Failure::Missing(format!("no prefix list \"{name}\"")))?;
        let sql = "SELECT address, length FROM prefix WHERE prefix_list = ?";
        let stored: BTreeSet<IpNet> = self
            .db
            .prepare_cached(sql)?
            .query_map([list], |row| Ok(prefix(row.get(0)?, row.get(1)?)?))?
            .collect::<rusqlite::Result<_>>()?;
        for gone in stored.difference(prefixes) {
            let sql = "DELETE FROM prefix WHERE prefix_list = ? AND address = ? AND length = ?";
            self.write(sql, (list, Address(gone.addr()), gone.prefix_len()))?;
        }
        for new in prefixes.difference(&stored) {
            let sql = "INSERT INTO prefix (prefix_list, address, length) VALUES (?, ?, ?)";
            self.write(sql, (list, Address(new.addr()), new.prefix_len()))?;
        }
        Ok(())
    }

    fn put_services(&self, vpc: i64, services: &BTreeSet<IpAddr>) -> Result {
        let services = services.iter().copied().map(Address).collect();
        self.put_set(("link_local_service", "vpc", "address"), vpc, services)
    }

    fn put_members(&self, group: i64, members: &BTreeSet<IpAddr>) -> Result {
        let addresses = members.iter().copied().map(Address).collect();
        self.put_set(("member", "security_group", "address"), group, addresses)
    }

    fn put_interface(&self, vpc: i64, name: &InterfaceName, given: &Interface) -> Result {
        let sql = "INSERT INTO interface (vpc, name, side, hook, netns, replace_xdp, tcp_pickup, \
                   strict_fragments, audit, tcp_established_s, udp_s, udp_stream_s, max_flows, egress_drops, \
                   any_mac, match_name, match_mac, match_alias, object_id) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
                   ON CONFLICT (vpc, name) DO UPDATE SET side = excluded.side, \
                   hook = excluded.hook, netns = excluded.netns, \
                   replace_xdp = excluded.replace_xdp, tcp_pickup = excluded.tcp_pickup, \
                   strict_fragments = excluded.strict_fragments, audit = excluded.audit, \
                   tcp_established_s = excluded.tcp_established_s, udp_s = excluded.udp_s, \
                   udp_stream_s = excluded.udp_stream_s, max_flows = excluded.max_flows, \
                   egress_drops = excluded.egress_drops, any_mac = excluded.any_mac, \
                   match_name = excluded.match_name, match_mac = excluded.match_mac, \
                   match_alias = excluded.match_alias \
                   RETURNING id";
        let matching = given.matching.clone().unwrap_or_default();
        let interface: i64 = self.db.prepare_cached(sql)?.query_row(
            params![
                vpc,
                name.as_str(),
                Code(given.side),
                Code(given.hook),
                given.netns,
                Code(given.replace_xdp),
                Code(given.tcp_pickup),
                Code(given.strict_fragments),
                Code(given.audit),
                given.timeouts.tcp_established_s,
                given.timeouts.udp_s,
                given.timeouts.udp_stream_s,
                given.max_flows,
                Code(given.egress_drops),
                Code(given.macs == Macs::Any),
                matching.name.as_ref().map(ToString::to_string),
                matching.mac.as_ref().map(ToString::to_string),
                matching.alias.as_ref().map(ToString::to_string),
                Text(InterfaceId::random()),
            ],
            |row| row.get(0),
        )?;
        let addresses = given.addresses.iter().copied().map(Address).collect();
        let place = ("guest_address", "interface", "address");
        self.put_set(place, interface, addresses)?;
        let macs = given.macs.listed().map(Mac).collect();
        self.put_set(("guest_mac", "interface", "mac"), interface, macs)?;
        let place = ("guest_vlan", "interface", "number");
        self.put_set(place, interface, given.vlans.clone())?;
        let place = ("ethertype", "interface", "number");
        self.put_set(place, interface, given.ethertypes.clone())?;
        // Few, and spelt as they are given: comparing them would keep the old spelling.
        self.write("DELETE FROM membership WHERE interface = ?", [interface])?;
        for group in &given.groups {
            let sql = "INSERT INTO membership (interface, vpc, security_group) VALUES (?, ?, ?)";
            self.write(sql, (interface, vpc, group.as_str()))?;
        }
        Ok(())
    }

    /// Makes the rows of `owner` in a table of sets, with its columns of owners and of values, those
    /// of `wanted`.
    fn put_set<T>(
        &self,
        (table, owner_column, column): (&str, &str, &str),
        owner: i64,
        wanted: BTreeSet<T>,
    ) -> Result
    where
        T: Ord + ToSql + rusqlite::types::FromSql,
    {
        let sql = format!("SELECT {column} FROM {table} WHERE {owner_column} = ?");
        let stored: BTreeSet<T> = self
            .db
            .prepare_cached(&sql)?
            .query_map([owner], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let sql = format!("DELETE FROM {table} WHERE {owner_column} = ? AND {column} = ?");
        for gone in stored.difference(&wanted) {
            self.write(&sql, (owner, gone))?;
        }
        let sql = format!("INSERT INTO {table} ({owner_column}, {column}) VALUES (?, ?)");
        for new in wanted.difference(&stored) {
            self.write(&sql, (owner, new))?;
        }
        Ok(())
    }
}
