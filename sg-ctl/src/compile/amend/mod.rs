//! One edit among many rules: what it changes in the tables in force, and nothing else.
//!
//! Compiling reads the whole policy. Here only the cells that an edit touches are computed again,
//! from the rules that share them: what a policy opens to everyone, the part of a table of prefixes
//! that a prefix overlaps, what one set of groups or lists is granted, the sets that one address is
//! in. The result is a pair of images that hold these cells alone, as they were and as they are to
//! be; whoever installs images installs the difference of the two.
//!
//! Not every change is worth the trouble. One that gives many cells another shape at once, like the
//! first rule that names a group, or one that finds no room, is left to [`compile`](super::compile),
//! and so is everything but rules, static members and prefixes. Nothing here does I/O: what is in
//! force and what the policy says is asked of [`Ground`] and [`Rules`].

mod cells;
mod edges;
mod ground;
mod plan;
mod work;

use std::net::IpAddr;

use ipnet::IpNet;
use sg_common::tables::RuleSlot;

use super::arena::{FreePlaces, Slice};
use super::image::Image;
use crate::policy::model::Rule;
use crate::policy::names::{GroupName, PrefixListName, RuleId, VpcName};

pub(super) use edges::Seen;
pub use edges::uses;
pub use ground::{
    Answer, ArenaKind, Ground, InstalledPolicy, NextNumbers, RangeTableKey, Room, Rules, Segments,
    Whole,
};
use plan::Plan;

/// What changes in one VPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edits {
    /// Which one.
    pub vpc: VpcName,
    /// Rules that come.
    pub rules_added: Vec<(GroupName, Rule)>,
    /// Rules that go.
    pub rules_removed: Vec<(GroupName, Rule)>,
    /// Static members that come.
    pub members_added: Vec<(GroupName, IpAddr)>,
    /// Static members that go.
    pub members_removed: Vec<(GroupName, IpAddr)>,
    /// Prefixes of lists that come.
    pub prefixes_added: Vec<(PrefixListName, IpNet)>,
    /// Prefixes of lists that go.
    pub prefixes_removed: Vec<(PrefixListName, IpNet)>,
}

impl Edits {
    /// None yet.
    pub fn of(vpc: VpcName) -> Self {
        Self {
            vpc,
            rules_added: Vec::new(),
            rules_removed: Vec::new(),
            members_added: Vec::new(),
            members_removed: Vec::new(),
            prefixes_added: Vec::new(),
            prefixes_removed: Vec::new(),
        }
    }

    fn count(&self) -> usize {
        self.rules_added.len()
            + self.rules_removed.len()
            + self.members_added.len()
            + self.members_removed.len()
            + self.prefixes_added.len()
            + self.prefixes_removed.len()
    }

    /// Whether something is taken away that may have let packets through.
    pub fn take_away(&self) -> bool {
        !(self.rules_removed.is_empty()
            && self.members_removed.is_empty()
            && self.prefixes_removed.is_empty())
    }
}

/// More of these at once, and edits of a region with more rules or values than those, are compiled
/// with everything else: that costs as much for each as for one.
const MOST_EDITS: usize = 64;
const WIDEST_REGION: usize = 1 << 12;

/// What an edit changes.
#[derive(Debug, Default)]
pub struct Amendment {
    /// The cells as they are, with no others. Of arrays, only the places that are given back.
    pub old: Image,
    /// The cells as they are to be. Of arrays, only what is not there yet.
    pub new: Image,
    /// How many tables have a slice now, where that has changed.
    pub uses: Vec<(ArenaKind, Slice, u32)>,
    /// The places that are left.
    pub free_places: Vec<(ArenaKind, FreePlaces)>,
    /// Where rules that came are counted.
    pub slots: Vec<(GroupName, RuleId, RuleSlot)>,
    /// The numbers that come next.
    pub next: NextNumbers,
}

/// Finds what edits change. The rules are those after the edits.
pub fn amend(edits: &Edits, ground: &mut impl Ground, rules: &mut impl Rules) -> Answer<Amendment> {
    if edits.count() > MOST_EDITS {
        return Err(Whole::because("there are many edits at once"));
    }
    let Some(number) = ground.vpc(&edits.vpc)? else {
        return Ok(Amendment {
            next: ground.next_numbers()?,
            ..Amendment::default()
        });
    };
    let next = ground.next_numbers()?;
    let mut plan = Plan::new((&edits.vpc, number), next, (ground, rules));
    plan.take_rules(edits)?;
    plan.take_members(edits)?;
    plan.take_prefixes(edits)?;
    plan.carry_out()
}
