//! Annotations to rows, and rows to annotations.

use rusqlite::{Connection, Params};

use super::column::Text;
use super::edit::Failure;
use crate::store::{Annotated, Annotation, Notes};

/// Makes the annotations, in order, within the transaction that `db` is in.
pub(super) fn write(db: &Connection, annotations: &[Annotation]) -> Result<(), Failure> {
    annotations
        .iter()
        .try_for_each(|annotation| write_one(db, annotation))
}

fn write_one(db: &Connection, annotation: &Annotation) -> Result<(), Failure> {
    match annotation {
        Annotation::Note {
            object,
            name,
            value: Some(value),
        } => {
            let sql = "INSERT INTO note (object, name, value) VALUES (?1, ?2, ?3) \
                       ON CONFLICT (object, name) DO UPDATE SET value = ?3";
            execute(db, sql, (object, name, value)).map(drop)
        }
        Annotation::Note {
            object,
            name,
            value: None,
        } => {
            let sql = "DELETE FROM note WHERE object = ? AND name = ?";
            execute(db, sql, (object, name)).map(drop)
        }
        Annotation::Forget { object } => {
            execute(db, "DELETE FROM note WHERE object = ?", [object]).map(drop)
        }
        Annotation::IdentifyVpc(vpc, id) => {
            let sql = "UPDATE vpc SET object_id = ? WHERE name = ?";
            let rows = execute(db, sql, (Text(*id), vpc.as_str()))?;
            expect(rows, || format!("no VPC \"{vpc}\""))
        }
        Annotation::IdentifyPrefixList(vpc, list, id) => {
            let sql = "UPDATE prefix_list SET object_id = ? WHERE name = ? \
                       AND vpc = (SELECT id FROM vpc WHERE name = ?)";
            let rows = execute(db, sql, (Text(*id), list.as_str(), vpc.as_str()))?;
            expect(rows, || {
                format!("no prefix list \"{list}\" in VPC \"{vpc}\"")
            })
        }
        Annotation::IdentifyInterface(vpc, interface, id) => {
            let sql = "UPDATE interface SET object_id = ? WHERE name = ? \
                       AND vpc = (SELECT id FROM vpc WHERE name = ?)";
            let rows = execute(db, sql, (Text(*id), interface.as_str(), vpc.as_str()))?;
            expect(rows, || {
                format!("no interface \"{interface}\" in VPC \"{vpc}\"")
            })
        }
    }
}

fn execute(db: &Connection, sql: &str, values: impl Params) -> Result<usize, Failure> {
    Ok(db.prepare_cached(sql)?.execute(values)?)
}

fn expect(rows: usize, missing: impl FnOnce() -> String) -> Result<(), Failure> {
    match rows {
        0 => Err(Failure::Missing(missing())),
        _ => Ok(()),
    }
}

/// All annotations.
pub(super) fn read(db: &Connection) -> rusqlite::Result<Annotated> {
    let mut annotated = Annotated::default();
    let mut statement = db.prepare_cached("SELECT name, object_id FROM vpc")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let name = row.get::<_, Text<_>>(0)?.0;
        annotated.vpcs.insert(name, row.get::<_, Text<_>>(1)?.0);
    }
    let sql = "SELECT vpc.name, prefix_list.name, prefix_list.object_id FROM prefix_list \
               JOIN vpc ON vpc.id = prefix_list.vpc";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let place = (row.get::<_, Text<_>>(0)?.0, row.get::<_, Text<_>>(1)?.0);
        annotated
            .prefix_lists
            .insert(place, row.get::<_, Text<_>>(2)?.0);
    }
    let sql = "SELECT vpc.name, interface.name, interface.object_id FROM interface \
               JOIN vpc ON vpc.id = interface.vpc";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let place = (row.get::<_, Text<_>>(0)?.0, row.get::<_, Text<_>>(1)?.0);
        annotated
            .interfaces
            .insert(place, row.get::<_, Text<_>>(2)?.0);
    }
    let mut statement = db.prepare_cached("SELECT object, name, value FROM note")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let notes = annotated.notes.entry(row.get(0)?).or_default();
        notes.insert(row.get(1)?, row.get(2)?);
    }
    Ok(annotated)
}

/// The notes of one object.
pub(super) fn of(db: &Connection, object: &str) -> rusqlite::Result<Notes> {
    let mut statement = db.prepare_cached("SELECT name, value FROM note WHERE object = ?")?;
    let notes = statement.query_map([object], |row| Ok((row.get(0)?, row.get(1)?)))?;
    notes.collect()
}
