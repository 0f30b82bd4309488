//! New rules of a group, many by one statement.
//!
//! They go in the order of their keys, so that each row comes behind the one before and pages fill up
//! one after the other.

use ipnet::IpNet;
use rusqlite::{CachedStatement, Connection, ToSql};

use super::column::{Address, Code, Text, TrafficColumns};
use crate::policy::model::{Peer, Rule};

const COLUMNS: [&str; 12] = [
    "security_group",
    "rule_id",
    "vpc",
    "direction",
    "protocol",
    "low",
    "high",
    "peer_address",
    "peer_length",
    "peer_prefix_list",
    "peer_group",
    "description",
];

/// How many rows a statement may have, each of which stays prepared. SQLite takes less time for a row
/// than for a statement.
const SIZES: [usize; 3] = [64, 8, 1];

/// Adds rules to a group.
pub(super) fn add(
    db: &Connection,
    vpc: i64,
    group: i64,
    mut rules: Vec<&Rule>,
) -> rusqlite::Result<()> {
    rules.sort_unstable_by_key(|rule| rule.id);
    let mut rest = rules.as_slice();
    for size in SIZES {
        let whole = rest.len() - rest.len() % size;
        let (now, later) = rest.split_at(whole);
        if !now.is_empty() {
            let mut statement = db.prepare_cached(&insertion(size))?;
            for rows in now.chunks_exact(size) {
                let mut values = Values {
                    statement: &mut statement,
                    bound: 0,
                };
                rows.iter()
                    .try_for_each(|rule| values.bind_rule(vpc, group, rule))?;
                statement.raw_execute()?;
            }
        }
        rest = later;
    }
    Ok(())
}

fn insertion(rows: usize) -> String {
    let row = format!("({})", ["?"; COLUMNS.len()].join(", "));
    let (columns, rows) = (COLUMNS.join(", "), vec![row.as_str(); rows].join(", "));
    format!("INSERT INTO rule ({columns}) VALUES {rows}")
}

/// The values of a statement, in order.
struct Values<'a, 'db> {
    statement: &'a mut CachedStatement<'db>,
    bound: usize,
}

impl Values<'_, '_> {
    fn bind(&mut self, value: impl ToSql) -> rusqlite::Result<()> {
        self.bound += 1;
        self.statement.raw_bind_parameter(self.bound, value)
    }

    /// In the order of [`COLUMNS`].
    fn bind_rule(&mut self, vpc: i64, group: i64, rule: &Rule) -> rusqlite::Result<()> {
        let TrafficColumns {
            protocol,
            low,
            high,
        } = rule.permission.traffic.into();
        let (prefix, list, peer_group) = match &rule.permission.peer {
            Peer::Prefix(prefix) => (Some(prefix), None, None),
            Peer::PrefixList(name) => (None, Some(name.as_str()), None),
            Peer::Group(name) => (None, None, Some(name.as_str())),
        };
        self.bind(group)?;
        self.bind(Text(rule.id))?;
        self.bind(vpc)?;
        self.bind(Code(rule.permission.direction))?;
        self.bind(protocol)?;
        self.bind(low)?;
        self.bind(high)?;
        self.bind(prefix.map(|prefix| Address(prefix.addr())))?;
        self.bind(prefix.map(IpNet::prefix_len))?;
        self.bind(list)?;
        self.bind(peer_group)?;
        self.bind(rule.description.as_str())
    }
}
