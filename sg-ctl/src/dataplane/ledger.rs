//! Who has which numbers and places of the tables in force, so that an edit can be made without
//! reading the image.
//!
//! The image says the same, in a form that has to be read whole. The ledger is an SQLite file beside
//! it, without a journal: the mark that is set while maps are written covers it as well, and after
//! an interruption the next image that is compiled whole begins it anew. What the numbers mean is
//! nothing to it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Params, Row};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sg_common::tables::{Identity, RuleSlot};

use super::Error;
use crate::compile::AttachedInterface;
use crate::compile::amend::{
    self, Amendment, Answer, ArenaKind, InstalledPolicy, NextNumbers, Whole,
};
use crate::compile::image::{self, FreePlaces, GroupSet, IdentitySet, Image, MembersOf, Slice};
use crate::dirs::create_file;
use crate::policy::model::{Peer, Policy, Side};
use crate::policy::names::{GroupName, RuleId, VpcName};

/// The file's name within the run folder.
const FILE: &str = "ledger";

/// Names are compared as the policy's are.
const SCHEMA: &str = "
CREATE TABLE note (name TEXT PRIMARY KEY, content BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE vpc (
    name TEXT PRIMARY KEY COLLATE NOCASE,
    number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE policy (number INTEGER PRIMARY KEY, content BLOB NOT NULL) STRICT;
CREATE TABLE policy_of_group (
    vpc TEXT NOT NULL COLLATE NOCASE,
    name TEXT NOT NULL COLLATE NOCASE,
    policy INTEGER NOT NULL,
    PRIMARY KEY (vpc, name, policy)
) STRICT, WITHOUT ROWID;
CREATE TABLE slots_of_group (
    vpc TEXT NOT NULL COLLATE NOCASE,
    name TEXT NOT NULL COLLATE NOCASE,
    first BLOB NOT NULL,
    slots BLOB NOT NULL,
    PRIMARY KEY (vpc, name, first)
) STRICT;
CREATE TABLE identity (
    number INTEGER PRIMARY KEY,
    spelling TEXT NOT NULL UNIQUE COLLATE NOCASE,
    content BLOB NOT NULL
) STRICT;
CREATE TABLE identity_of_peer (
    vpc TEXT NOT NULL COLLATE NOCASE,
    kind INTEGER NOT NULL,
    name TEXT NOT NULL COLLATE NOCASE,
    identity INTEGER NOT NULL,
    PRIMARY KEY (vpc, kind, name, identity)
) STRICT, WITHOUT ROWID;
CREATE TABLE own_address (
    vpc TEXT NOT NULL COLLATE NOCASE,
    address TEXT NOT NULL,
    PRIMARY KEY (vpc, address)
) STRICT, WITHOUT ROWID;
CREATE TABLE slice (
    arena INTEGER NOT NULL,
    first INTEGER NOT NULL,
    length INTEGER NOT NULL,
    uses INTEGER NOT NULL,
    PRIMARY KEY (arena, first)
) STRICT, WITHOUT ROWID;
";

/// Changes with the layout of the ledger, of what is noted in it, and of the image.
pub(super) const FORMAT: u64 = image::FORMAT << 8 | 1;

/// What the tables in force were made of, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// [`FORMAT`].
    pub(super) format: u64,
    /// The generation of the maps.
    pub(super) generation: u32,
    /// What tells the stored policy from every other.
    pub(super) stamp: u64,
    /// Edits since then.
    pub(super) amendments: u32,
}

/// Numbers and places that are free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Free {
    next: NextNumbers,
    last_slot: u32,
    /// In the order of [`ArenaKind::ALL`].
    places: [FreePlaces; ArenaKind::ALL.len()],
}

const ORIGIN: &str = "origin";
const FREE: &str = "free";
const SLOTS_TAKEN: &str = "slots";
const SURROUNDINGS: &str = "surroundings";

/// What a ledger begins with.
pub(super) struct Contents<'a> {
    pub(super) origin: &'a Origin,
    pub(super) image: &'a Image,
    pub(super) policy: &'a Policy,
    pub(super) attached: &'a [AttachedInterface],
    /// Whatever the next command wants to compare; nothing to anybody else.
    pub(super) surroundings: &'a [u8],
}

/// The file.
pub(super) struct Ledger {
    db: Connection,
    free: Option<Free>,
}

/// A rule's number and its slot.
const ENTRY: usize = size_of::<u128>() + size_of::<u32>();

/// The rules of a group are told in rows of so many, by their numbers: what fits into a page.
const RULES_PER_ROW: usize = 150;

fn path(run: &Path) -> PathBuf {
    run.join(FILE)
}

/// Forgets everything.
pub(super) fn remove(run: &Path) -> Result<(), Error> {
    let path = path(run);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Folder { path, source })
        }
        _ => Ok(()),
    }
}

/// Begins a new ledger.
pub(super) fn write(run: &Path, contents: &Contents<'_>) -> Result<(), Error> {
    let path = path(run);
    // Nobody meets one that is half written.
    let beside = path.with_extension("new");
    let failed = |source| Error::Folder {
        path: path.clone(),
        source,
    };
    let begun = fs::remove_file(&beside);
    match begun {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(source)),
        _ => {}
    }
    // SQLite would give it the mode that the umask leaves.
    create_file(&beside).map_err(failed)?;
    begin(&beside, contents).map_err(|error| failed(io::Error::other(error)))?;
    fs::rename(&beside, &path).map_err(failed)
}

fn begin(path: &Path, contents: &Contents<'_>) -> Answer<()> {
    let db = Connection::open(path)?;
    configure(&db)?;
    db.execute_batch("BEGIN")?;
    db.execute_batch(SCHEMA)?;
    let ledger = Ledger { db, free: None };
    let Contents {
        origin,
        image,
        policy,
        attached,
        surroundings,
    } = contents;
    ledger.note(ORIGIN, origin)?;
    ledger.note_bytes(SURROUNDINGS, surroundings)?;
    let ids = &image.ids;
    for (name, number) in &ids.vpcs {
        ledger.write("INSERT INTO vpc VALUES (?, ?)", (name.as_str(), number))?;
    }
    for (set, number) in &ids.policies {
        ledger.add_policy(set, *number)?;
    }
    for (set, identity) in &ids.identities {
        ledger.add_identity(set, *identity)?;
    }
    for ((arena, slice), uses) in amend::uses(image) {
        ledger.set_uses(arena, slice, uses)?;
    }
    for attached in *attached {
        let vpc = policy.vpcs.get(&attached.vpc);
        let interface = vpc.and_then(|vpc| vpc.interfaces.get(&attached.name));
        if interface.is_some_and(|interface| interface.side == Side::Host) {
            for address in &attached.addresses {
                ledger.write(
                    "INSERT OR IGNORE INTO own_address VALUES (?, ?)",
                    (attached.vpc.as_str(), address.to_string()),
                )?;
            }
        }
    }
    ledger.add_rules(image, policy)?;
    ledger.note(FREE, &Free::beside(image))?;
    ledger.db.execute_batch("COMMIT")?;
    Ok(())
}

fn configure(db: &Connection) -> rusqlite::Result<()> {
    for (name, value) in [
        ("journal_mode", "OFF"),
        ("synchronous", "OFF"),
        ("locking_mode", "EXCLUSIVE"),
        ("trusted_schema", "OFF"),
    ] {
        db.pragma_update_and_check(None, name, value, |_| Ok(()))
            .or_else(|error| match error {
                // Most answer with nothing when they are set.
                rusqlite::Error::QueryReturnedNoRows => Ok(()),
                error => Err(error),
            })?;
    }
    db.set_prepared_statement_cache_capacity(32);
    Ok(())
}

impl Free {
    fn beside(image: &Image) -> Self {
        Self {
            next: NextNumbers::behind(image),
            last_slot: image.ids.last_rule,
            places: ArenaKind::ALL.map(|arena| FreePlaces::around(arena.slices(image))),
        }
    }
}

/// Whether a peer is a group or a prefix list, and its name; a prefix is neither.
fn named(peer: &Peer) -> Option<(u8, &str)> {
    match peer {
        Peer::Prefix(_) => None,
        Peer::PrefixList(name) => Some((0, name.as_str())),
        Peer::Group(name) => Some((1, name.as_str())),
    }
}

fn peers(set: &IdentitySet) -> Vec<(u8, &str)> {
    match &set.members_of {
        MembersOf::PrefixLists(lists) => lists.iter().map(|name| (0, name.as_str())).collect(),
        MembersOf::Groups(groups) => groups.iter().map(|name| (1, name.as_str())).collect(),
    }
}

/// Names have no line breaks.
fn spelling(set: &IdentitySet) -> String {
    let mut text = set.vpc.to_string();
    for (kind, name) in peers(set) {
        text.push('\n');
        text.push(char::from(b'0' + kind));
        text.push_str(name);
    }
    text
}

impl Ledger {
    /// Opens what [`write()`] has written.
    pub(super) fn open(run: &Path) -> Answer<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path(run), flags)?;
        configure(&db)?;
        Ok(Self { db, free: None })
    }

    fn write(&self, sql: &str, values: impl Params) -> Answer<()> {
        self.db.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }

    fn one<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Answer<Option<T>> {
        let mut statement = self.db.prepare_cached(sql)?;
        Ok(statement.query_row(values, read).optional()?)
    }

    fn note_bytes(&self, name: &str, content: &[u8]) -> Answer<()> {
        let sql = "INSERT INTO note VALUES (?1, ?2) ON CONFLICT DO UPDATE SET content = ?2";
        self.write(sql, (name, content))
    }

    fn note<T: Serialize>(&self, name: &str, content: &T) -> Answer<()> {
        self.note_bytes(name, &postcard::to_allocvec(content)?)
    }

    fn noted_bytes(&self, name: &str) -> Answer<Vec<u8>> {
        let sql = "SELECT content FROM note WHERE name = ?";
        let found = self.one(sql, [name], |row| row.get(0))?;
        found.ok_or(Whole::because("the ledger is not complete"))
    }

    fn noted<T: DeserializeOwned>(&self, name: &str) -> Answer<T> {
        Ok(postcard::from_bytes(&self.noted_bytes(name)?)?)
    }

    /// What the tables in force were made of.
    pub(super) fn origin(&self) -> Answer<Origin> {
        self.noted(ORIGIN)
    }

    /// What the command that compiled the image wanted to be compared.
    pub(super) fn surroundings(&self) -> Answer<Vec<u8>> {
        self.noted_bytes(SURROUNDINGS)
    }

    fn add_policy(&self, set: &GroupSet, number: u32) -> Answer<()> {
        let content = postcard::to_allocvec(&set.groups)?;
        self.write("INSERT INTO policy VALUES (?, ?)", (number, content))?;
        for group in &set.groups {
            let values = (set.vpc.as_str(), group.as_str(), number);
            self.write("INSERT INTO policy_of_group VALUES (?, ?, ?)", values)?;
        }
        Ok(())
    }

    fn add_identity(&self, set: &IdentitySet, identity: Identity) -> Answer<()> {
        let content = postcard::to_allocvec(set)?;
        let values = (identity.0, spelling(set), content);
        self.write("INSERT INTO identity VALUES (?, ?, ?)", values)?;
        for (kind, name) in peers(set) {
            let values = (set.vpc.as_str(), kind, name, identity.0);
            self.write("INSERT INTO identity_of_peer VALUES (?, ?, ?, ?)", values)?;
        }
        Ok(())
    }

    fn set_uses(&self, arena: ArenaKind, slice: Slice, uses: u32) -> Answer<()> {
        let arena = arena as u8;
        match uses {
            0 => self.write(
                "DELETE FROM slice WHERE arena = ? AND first = ?",
                (arena, slice.offset),
            ),
            uses => self.write(
                "INSERT INTO slice VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT DO UPDATE SET length = ?3, uses = ?4",
                (arena, slice.offset, slice.length, uses),
            ),
        }
    }

    /// The slots of the rules of every attached group.
    fn add_rules(&self, image: &Image, policy: &Policy) -> Answer<()> {
        let sets = image.ids.policies.keys();
        let groups: BTreeSet<(&VpcName, &GroupName)> = sets
            .flat_map(|set| set.groups.iter().map(move |group| (&set.vpc, group)))
            .collect();
        let groups: Vec<_> = groups.into_iter().collect();
        let mut rules: Vec<(RuleId, usize)> = Vec::with_capacity(image.ids.rules.len());
        for (at, (vpc, group)) in groups.iter().enumerate() {
            let vpc = policy.vpcs.get(*vpc);
            let group = vpc.and_then(|vpc| vpc.groups.get(*group));
            let of_group = group.map_or(&[][..], |group| group.rules.as_slice());
            rules.extend(of_group.iter().map(|rule| (rule.id, at)));
        }
        rules.sort_unstable();
        let mut slots: Vec<Vec<u8>> = vec![Vec::new(); groups.len()];
        let mut given = image.ids.rules.iter().peekable();
        for (rule, at) in rules {
            while given.next_if(|(other, _)| **other < rule).is_some() {}
            // Several groups may have rules of one id.
            if let Some((_, slot)) = given.peek().filter(|(other, _)| **other == rule)
                && let Some(slots) = slots.get_mut(at)
            {
                slots.extend(entry(rule, **slot));
            }
        }
        for ((vpc, group), slots) in groups.iter().zip(slots) {
            for (at, row) in slots.chunks(RULES_PER_ROW * ENTRY).enumerate() {
                let first = match (at, row.first_chunk()) {
                    (1.., Some(first)) => *first,
                    // A rule that comes before all others shall find a row too.
                    _ => NO_RULE,
                };
                self.put_slots((vpc, group, &first), row)?;
            }
        }
        let mut taken = Vec::new();
        for slot in image.ids.rules.values() {
            take(&mut taken, slot.0);
        }
        self.note_bytes(SLOTS_TAKEN, &taken)
    }

    fn put_slots(&self, row: (&VpcName, &GroupName, &RuleNumber), slots: &[u8]) -> Answer<()> {
        let sql = "INSERT INTO slots_of_group VALUES (?1, ?2, ?3, ?4) \
                   ON CONFLICT DO UPDATE SET slots = ?4";
        let (vpc, group, first) = row;
        self.write(sql, (vpc.as_str(), group.as_str(), first, slots))
    }

    /// The row that tells of a rule if any does, and what it begins with.
    fn slots(
        &self,
        vpc: &VpcName,
        group: &GroupName,
        rule: RuleId,
    ) -> Answer<(RuleNumber, Vec<u8>)> {
        let sql = "SELECT first, slots FROM slots_of_group \
                   WHERE vpc = ? AND name = ? AND first <= ? ORDER BY first DESC LIMIT 1";
        let values = (vpc.as_str(), group.as_str(), rule.number().to_be_bytes());
        let found = self.one(sql, values, |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(found.unwrap_or((NO_RULE, Vec::new())))
    }

    /// Where the rules of a group are counted.
    pub(super) fn slots_of(
        &self,
        vpc: &VpcName,
        group: &GroupName,
        rules: &[RuleId],
    ) -> Answer<Vec<Option<RuleSlot>>> {
        let slot = |rule: &RuleId| {
            let (_, slots) = self.slots(vpc, group, *rule)?;
            let (entries, _) = slots.as_chunks::<ENTRY>();
            let at = entries.binary_search_by_key(&rule.number(), |entry| read(entry).0);
            let entry = at.ok().and_then(|at| entries.get(at));
            Ok(entry.map(|entry| RuleSlot(read(entry).1)))
        };
        rules.iter().map(slot).collect()
    }

    /// The slots that are taken, and the one that was given last.
    pub(super) fn slots_taken(&mut self) -> Answer<(Vec<u32>, u32)> {
        let bits = self.noted_bytes(SLOTS_TAKEN)?;
        let mut taken = Vec::new();
        for (byte, first) in bits.iter().zip((0_u32..).step_by(8)) {
            let is_taken = |bit: &u32| byte >> bit & 1 == 1;
            taken.extend((0..8).filter(is_taken).map(|bit| first + bit));
        }
        Ok((taken, self.free()?.last_slot))
    }

    fn free(&mut self) -> Answer<&mut Free> {
        if self.free.is_none() {
            self.free = Some(self.noted(FREE)?);
        }
        let free = self.free.as_mut();
        free.ok_or(Whole::because("the ledger is not complete"))
    }

    /// The numbers that come next.
    pub(super) fn next_numbers(&mut self) -> Answer<NextNumbers> {
        Ok(self.free()?.next)
    }

    /// The places that are not taken.
    pub(super) fn free_places(&mut self, arena: ArenaKind) -> Answer<FreePlaces> {
        let places = self.free()?.places.get(arena as usize);
        Ok(places.cloned().unwrap_or_default())
    }

    /// The number of a VPC.
    pub(super) fn vpc(&self, name: &VpcName) -> Answer<Option<u32>> {
        let sql = "SELECT number FROM vpc WHERE name = ?";
        self.one(sql, [name.as_str()], |row| row.get(0))
    }

    /// The policies that a group is in.
    pub(super) fn policies_with(
        &self,
        vpc: &VpcName,
        group: &GroupName,
    ) -> Answer<Vec<InstalledPolicy>> {
        let sql = "SELECT number, content FROM policy_of_group \
                   JOIN policy ON number = policy WHERE vpc = ? AND name = ?";
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query((vpc.as_str(), group.as_str()))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(InstalledPolicy {
                id: row.get(0)?,
                groups: postcard::from_bytes(row.get_ref(1)?.as_blob().unwrap_or_default())?,
            });
        }
        Ok(found)
    }

    /// The identity of a set.
    pub(super) fn identity(&self, set: &IdentitySet) -> Answer<Option<Identity>> {
        let sql = "SELECT number FROM identity WHERE spelling = ?";
        self.one(sql, [spelling(set)], |row| row.get(0).map(Identity))
    }

    /// What an identity stands for.
    pub(super) fn identity_set(&self, identity: Identity) -> Answer<Option<IdentitySet>> {
        let sql = "SELECT content FROM identity WHERE number = ?";
        let content: Option<Vec<u8>> = self.one(sql, [identity.0], |row| row.get(0))?;
        let set = content.map(|content| postcard::from_bytes(&content));
        Ok(set.transpose()?)
    }

    /// The identities whose sets hold a peer.
    pub(super) fn identities_with(
        &self,
        vpc: &VpcName,
        peer: &Peer,
    ) -> Answer<Vec<(Identity, IdentitySet)>> {
        let Some((kind, name)) = named(peer) else {
            return Ok(Vec::new());
        };
        let sql = "SELECT number, content FROM identity_of_peer \
                   JOIN identity ON number = identity WHERE vpc = ? AND kind = ? AND name = ?";
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query((vpc.as_str(), kind, name))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let content = row.get_ref(1)?.as_blob().unwrap_or_default();
            found.push((Identity(row.get(0)?), postcard::from_bytes(content)?));
        }
        Ok(found)
    }

    /// Whether an address was read from an attached interface.
    pub(super) fn is_own_address(&self, vpc: &VpcName, address: IpAddr) -> Answer<bool> {
        let sql = "SELECT 1 FROM own_address WHERE vpc = ? AND address = ?";
        let values = (vpc.as_str(), address.to_string());
        Ok(self.one(sql, values, |_| Ok(()))?.is_some())
    }

    /// The slice that an index of an array lies in.
    pub(super) fn slice_at(&self, arena: ArenaKind, index: u32) -> Answer<Slice> {
        let sql = "SELECT first, length FROM slice WHERE arena = ? AND first <= ? \
                   ORDER BY first DESC LIMIT 1";
        let slice = |row: &Row<'_>| {
            Ok(Slice {
                offset: row.get(0)?,
                length: row.get(1)?,
            })
        };
        let found = self.one(sql, (arena as u8, index), slice)?;
        let found = found.filter(|slice| index - slice.offset < slice.length);
        found.ok_or(Whole::because("a table of prefixes has a hole"))
    }

    /// How many tables have a slice.
    pub(super) fn uses(&self, arena: ArenaKind, slice: Slice) -> Answer<u32> {
        let sql = "SELECT uses FROM slice WHERE arena = ? AND first = ? AND length = ?";
        let values = (arena as u8, slice.offset, slice.length);
        Ok(self.one(sql, values, |row| row.get(0))?.unwrap_or(0))
    }

    /// Takes down what an edit has changed.
    pub(super) fn amend(
        &mut self,
        run: &Path,
        (vpc, amendment): (&VpcName, &Amendment),
        origin: &Origin,
    ) -> Result<(), Error> {
        self.try_amend(vpc, amendment, origin)
            .map_err(|error| Error::Folder {
                path: path(run),
                source: io::Error::other(error),
            })
    }

    fn try_amend(&mut self, vpc: &VpcName, amendment: &Amendment, origin: &Origin) -> Answer<()> {
        self.db.execute_batch("BEGIN")?;
        for (arena, slice, uses) in &amendment.uses {
            // The place of one that goes may be that of one that comes.
            if *uses == 0 {
                self.set_uses(*arena, *slice, 0)?;
            }
        }
        for (arena, slice, uses) in &amendment.uses {
            if *uses > 0 {
                self.set_uses(*arena, *slice, *uses)?;
            }
        }
        for (set, identity) in &amendment.new.ids.identities {
            self.add_identity(set, *identity)?;
        }
        if !amendment.slots.is_empty() {
            let mut taken = self.noted_bytes(SLOTS_TAKEN)?;
            for (group, rule, slot) in &amendment.slots {
                let (first, mut slots) = self.slots(vpc, group, *rule)?;
                let (entries, _) = slots.as_chunks::<ENTRY>();
                let at = entries.partition_point(|entry| read(entry).0 < rule.number());
                slots.splice(at * ENTRY..at * ENTRY, entry(*rule, *slot));
                self.put_slots((vpc, group, &first), &slots)?;
                take(&mut taken, slot.0);
            }
            // A slot that was freed comes back when an image is compiled whole.
            self.note_bytes(SLOTS_TAKEN, &taken)?;
        }
        let free = self.free()?;
        free.next = amendment.next;
        if amendment.new.ids.last_rule != 0 {
            free.last_slot = amendment.new.ids.last_rule;
        }
        for (arena, places) in &amendment.free_places {
            if let Some(place) = free.places.get_mut(*arena as usize) {
                place.clone_from(places);
            }
        }
        let free = free.clone();
        self.note(FREE, &free)?;
        self.note(ORIGIN, origin)?;
        self.db.execute_batch("COMMIT")?;
        Ok(())
    }
}

/// The number of a rule as bytes, which compare as numbers do.
type RuleNumber = [u8; size_of::<u128>()];

/// Comes before every rule.
const NO_RULE: RuleNumber = [0; size_of::<u128>()];

fn entry(rule: RuleId, slot: RuleSlot) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    let (number, rest) = bytes.split_at_mut(size_of::<u128>());
    number.copy_from_slice(&rule.number().to_be_bytes());
    rest.copy_from_slice(&slot.0.to_be_bytes());
    bytes
}

fn read(entry: &[u8; ENTRY]) -> (u128, u32) {
    let [number @ .., a, b, c, d] = *entry;
    (
        u128::from_be_bytes(number),
        u32::from_be_bytes([a, b, c, d]),
    )
}

/// Sets a bit.
fn take(bits: &mut Vec<u8>, number: u32) {
    let at = (number / 8) as usize;
    if bits.len() <= at {
        bits.resize(at + 1, 0);
    }
    if let Some(byte) = bits.get_mut(at) {
        *byte |= 1 << (number % 8);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::compile::amend::Ground as _;
    use crate::compile::tests::agreement::{GROUPS, LISTS, World, peer, vpc_name, world};
    use crate::compile::tests::amendments::{OfImage, OfVpc, step};
    use crate::policy::change::Change;

    /// What a ledger answers, so that two can be compared.
    fn answers(ledger: &mut Ledger, image: &Image) -> Vec<String> {
        let vpc = vpc_name();
        let mut told = vec![
            format!("{:?}", ledger.vpc(&vpc)),
            format!("{:?}", ledger.next_numbers()),
        ];
        for arena in ArenaKind::ALL {
            told.push(format!("{arena:?} {:?}", ledger.free_places(arena)));
        }
        for ((arena, slice), _) in amend::uses(image) {
            let last = slice.offset + slice.length - 1;
            told.push(format!("{:?}", ledger.slice_at(arena, last)));
            told.push(format!("{:?}", ledger.uses(arena, slice)));
        }
        for group in 0..GROUPS {
            let peer = Peer::Group(format!("g{group}").parse().unwrap());
            told.push(format!("{:?}", ledger.identities_with(&vpc, &peer)));
        }
        for list in 0..LISTS {
            let peer = Peer::PrefixList(format!("L{list}").parse().unwrap());
            told.push(format!("{:?}", ledger.identities_with(&vpc, &peer)));
        }
        told
    }

    fn begun(folder: &Path, image: &Image, world: &World) -> Ledger {
        let origin = origin();
        let contents = Contents {
            origin: &origin,
            image,
            policy: &world.policy,
            attached: &world.attached(),
            surroundings: b"here",
        };
        write(folder, &contents).unwrap();
        Ledger::open(folder).unwrap()
    }

    fn origin() -> Origin {
        Origin {
            format: 1,
            generation: 2,
            stamp: 3,
            amendments: 0,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_ledger_knows_what_the_image_knows(world in world(), address in peer()) {
            let image = world.compile(None);
            let folder = tempfile::tempdir().unwrap();
            let mut ledger = begun(folder.path(), &image, &world);
            let mut ground = OfImage { image: &image, world: &world };
            let vpc = vpc_name();
            prop_assert_eq!(ledger.origin().unwrap(), origin());
            prop_assert_eq!(ledger.surroundings().unwrap(), b"here");
            prop_assert_eq!(ledger.vpc(&vpc), ground.vpc(&vpc));
            for (name, group) in &world.policy.vpcs[&vpc].groups {
                let mut policies = ledger.policies_with(&vpc, name).unwrap();
                policies.sort();
                let mut wanted = ground.policies_with(&vpc, name).unwrap();
                wanted.sort();
                let is_attached = !wanted.is_empty();
                prop_assert_eq!(policies, wanted);
                if is_attached {
                    let rules: Vec<RuleId> = group.rules.iter().map(|rule| rule.id).collect();
                    prop_assert_eq!(
                        ledger.slots_of(&vpc, name, &rules),
                        ground.slots_of(&vpc, name, &rules)
                    );
                }
                let peer = Peer::Group(name.clone());
                prop_assert_eq!(
                    ledger.identities_with(&vpc, &peer),
                    ground.identities_with(&vpc, &peer).map(|mut found| {
                        found.sort();
                        found
                    })
                );
            }
            let (mut taken, last) = ground.slots_taken().unwrap();
            taken.sort_unstable();
            taken.dedup();
            prop_assert_eq!(ledger.slots_taken().unwrap(), (taken, last));
            prop_assert_eq!(ledger.next_numbers(), ground.next_numbers());
            for arena in ArenaKind::ALL {
                prop_assert_eq!(ledger.free_places(arena), ground.free_places(arena));
            }
            for ((arena, slice), uses) in amend::uses(&image) {
                prop_assert_eq!(ledger.uses(arena, slice), Ok(uses));
                for index in [slice.offset, slice.offset + slice.length - 1] {
                    prop_assert_eq!(ledger.slice_at(arena, index), Ok(slice));
                }
            }
            for (set, identity) in &image.ids.identities {
                prop_assert_eq!(ledger.identity(set), Ok(Some(*identity)));
                prop_assert_eq!(ledger.identity_set(*identity), Ok(Some(set.clone())));
            }
            prop_assert_eq!(
                ledger.is_own_address(&vpc, address),
                ground.is_own_address(&vpc, address)
            );
        }

        #[test]
        fn a_ledger_that_was_amended_is_that_of_the_amended_image(
            world in world(),
            steps in vec(step(), 6),
        ) {
            let mut world = world;
            let vpc = vpc_name();
            let mut image = world.compile(None);
            let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let mut ledger = begun(folder.path(), &image, &world);
            for (number, step) in steps.iter().enumerate() {
                let Some((edit, edits)) = step.edits(&world.policy.vpcs[&vpc], number) else {
                    continue;
                };
                let before = world.clone();
                let change = Change { vpc: vpc.clone(), edit };
                world.policy = world.policy.clone().apply(&[change]).unwrap();
                let mut ground = OfImage { image: &image, world: &before };
                let mut rules = OfVpc(&world.policy.vpcs[&vpc]);
                match amend::amend(&edits, &mut ground, &mut rules) {
                    Ok(amendment) => {
                        ledger.amend(folder.path(), (&vpc, &amendment), &origin()).unwrap();
                        image.amend(&[(amendment.old, amendment.new)]);
                    }
                    Err(_) => {
                        image = world.compile(Some(&image));
                        ledger = begun(folder.path(), &image, &world);
                    }
                }
                let mut fresh = begun(other.path(), &image, &world);
                // A number that was given may stay given.
                let (kept, begun) = (answers(&mut ledger, &image), answers(&mut fresh, &image));
                prop_assert_eq!(&kept[0], &begun[0]);
                prop_assert_eq!(&kept[2..], &begun[2..]);
            }
        }
    }
}
