//! A change of a few rules, members or prefixes, made without reading the whole policy.
//!
//! The change is made of the part of the policy that it is about, and found to be sound there. What
//! it changes in the kernel is computed while it is not committed yet; then it is stored, and then
//! enforced, as any other change. Whatever is out of the ordinary, errors among it, is left to the
//! whole policy.

use crate::compile::amend::{Answer, Edits, Whole, amend};
use crate::dataplane::{Amendable, Dataplane};
use crate::dirs::{DirOptions, Dirs, Place};
use crate::limits::Limits;
use crate::policy::change::{Change, Edit};
use crate::policy::diff::diff;
use crate::policy::model::{OnRuleRemoval, Policy};
use crate::store::{Asked, Draft, Revision, SqliteStore, StoreError};

use super::devices::Surroundings;
use super::{Controller, Done, Result, Session, TakenBack, Unconfirmed, Warning, ownership};

/// What became of a change.
pub enum Amended {
    /// It is stored and in force.
    Done(Done),
    /// Nothing has been done: it is to be made with the whole policy.
    No(Box<Controller>),
}

/// A change that is stored and in force.
struct Stored {
    before: Policy,
    changes: Vec<Change>,
    revision: Revision,
    warnings: Vec<Warning>,
}

/// Why a change was not made.
enum Failure {
    /// Nothing has been done; the whole policy is to be compiled.
    Whole,
    /// It is stored, could not be enforced, and cannot be taken back.
    Stuck(super::Error),
}

/// What stands in the way of a part is said by the whole, if it stands in its way too.
impl<E: Into<Whole>> From<E> for Failure {
    fn from(_: E) -> Self {
        Self::Whole
    }
}

impl From<StoreError> for Whole {
    fn from(error: StoreError) -> Self {
        Self::because(error.to_string())
    }
}

impl From<super::Error> for Whole {
    fn from(error: super::Error) -> Self {
        Self::because(error.to_string())
    }
}

impl Controller {
    /// Waits for other writers and makes changes that follow from a part of the policy, unless they
    /// need more than that. `changes` is asked for them, and answers none where it finds an error.
    pub fn amend(
        options: &DirOptions,
        asked: Asked<'_>,
        changes: impl FnOnce(&Policy) -> Option<Vec<Change>>,
    ) -> Result<Amended> {
        let (dirs, lock) = Self::lock(options)?;
        ownership::refuse_lost(&dirs)?;
        let mut store = SqliteStore::open(dirs.state())?;
        let Stored {
            before,
            changes,
            revision,
            warnings,
        } = match change_a_part(&dirs, &mut store, asked, changes) {
            Ok(stored) => stored,
            Err(Failure::Whole) => {
                let controller = Self::of(dirs, lock, store)?;
                return Ok(Amended::No(Box::new(controller)));
            }
            Err(Failure::Stuck(error)) => return Err(error),
        };
        Ok(Amended::Done(Done {
            before,
            changes,
            revision,
            warnings,
            confirm_within: None,
        }))
    }
}

fn change_a_part(
    dirs: &Dirs,
    store: &mut SqliteStore,
    asked: Asked<'_>,
    changes: impl FnOnce(&Policy) -> Option<Vec<Change>>,
) -> Result<Stored, Failure> {
    if Unconfirmed::find(store)?.is_some() {
        return Err(Whole::because("a change waits for its confirmation").into());
    }
    // Whether it may take over what an earlier version has installed is for the whole to say.
    let owner = Dataplane::owner(dirs.run()).map_err(super::Error::from)?;
    if owner.is_none_or(|owner| store.id().ok().flatten() != Some(owner.store)) {
        return Err(Whole::because("another store's policy is in force").into());
    }
    let limits = Limits::read(store)?;
    let bpffs = dirs.find_bpffs().map_err(super::Error::from)?;
    let bpffs = bpffs.ok_or(Whole::because("nothing is in force"))?;
    let stamp = store.stamp()?;
    let mut ground = Amendable::open(dirs.run(), &bpffs.path, stamp, &limits.tables)?;
    let surroundings = Surroundings::from_bytes(&ground.surroundings()?);
    let are_unchanged = surroundings
        .ok_or(Whole::because("the surroundings are not known"))?
        .are_unchanged(&limits)
        .map_err(super::Error::from)?;
    if !are_unchanged {
        return Err(Whole::because("an interface or a limit has changed").into());
    }
    let (revision, before) = store.part(asked)?;
    let changes = changes(&before).ok_or(Whole::because("the change is refused"))?;
    let after = before.clone().apply(&changes);
    let after = after.map_err(|findings| Whole::because(findings.to_string()))?;
    let edits = edits(&before, &after, &changes)?;
    if edits.take_away() && Session::current().is_some() {
        let why = "whether the session would be let in again is for the whole policy to say";
        return Err(Whole::because(why).into());
    }
    let mut draft = store.draft(revision, &changes, &before)?;
    let amendment = amend(&edits, &mut ground, &mut draft)?;
    let (revision, stamp) = draft.commit()?;
    let mut warnings = Vec::new();
    if bpffs.place == Place::Private {
        warnings.push(Warning::PrivatePins);
    }
    if let Err(error) = ground.install(&edits.vpc, &amendment, stamp) {
        // The whole policy may still do it, and knows its own way back.
        let back = diff(&after, &before);
        let taken_back = store.draft(revision, &back, &after);
        return Err(match taken_back.and_then(Draft::commit) {
            Ok(_) => Failure::Whole,
            Err(second) => Failure::Stuck(super::Error::Stuck {
                first: Box::new(error),
                second: Box::new(second.into()),
            }),
        });
    }
    // Should it not be forgotten, `status` goes on telling of an earlier change.
    let _ = TakenBack::forget(store);
    Ok(Stored {
        before,
        changes,
        revision,
        warnings,
    })
}

/// What changes do to a part of the policy.
fn edits(before: &Policy, after: &Policy, changes: &[Change]) -> Answer<Edits> {
    let (first, others) = changes
        .split_first()
        .ok_or(Whole::because("nothing is to change"))?;
    let unlike = || Whole::because("the change is about more than rules, members and prefixes");
    if others.iter().any(|change| change.vpc != first.vpc) {
        return Err(unlike());
    }
    let mut edits = Edits::of(first.vpc.clone());
    let (was, is) = before
        .vpcs
        .get(&first.vpc)
        .zip(after.vpcs.get(&first.vpc))
        .ok_or_else(unlike)?;
    if is.on_rule_removal == OnRuleRemoval::Terminate {
        return Err(Whole::because("flows are judged again at every change"));
    }
    for change in changes {
        match &change.edit {
            Edit::AddRule(group, rule) => {
                edits.rules_added.push((group.clone(), rule.clone()));
            }
            Edit::RemoveRule(group, id) => {
                let group_before = was.groups.get(group).ok_or_else(unlike)?;
                let mut rules = group_before.rules.iter();
                let rule = rules.find(|rule| rule.id == *id).ok_or_else(unlike)?;
                edits.rules_removed.push((group.clone(), rule.clone()));
            }
            Edit::SetMembers(group, members) => {
                let had = was.groups.get(group).ok_or_else(unlike)?;
                let of_group = |address: &std::net::IpAddr| (group.clone(), *address);
                let added = members.difference(&had.members).map(of_group);
                edits.members_added.extend(added);
                let removed = had.members.difference(members).map(of_group);
                edits.members_removed.extend(removed);
            }
            Edit::PutPrefixList(list, prefixes) => {
                let had = was.prefix_lists.get(list).ok_or_else(unlike)?;
                let of_list = |prefix: &ipnet::IpNet| (list.clone(), *prefix);
                edits
                    .prefixes_added
                    .extend(prefixes.difference(had).map(of_list));
                edits
                    .prefixes_removed
                    .extend(had.difference(prefixes).map(of_list));
            }
            _ => return Err(unlike()),
        }
    }
    match edits == Edits::of(first.vpc.clone()) {
        true => Err(Whole::because("nothing is to change")),
        false => Ok(edits),
    }
}
