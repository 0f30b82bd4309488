//! Immutable slices of the kernel's arrays: each content kept once, and at the same place from
//! image to image.
//!
//! A new slice gets places that no slice of the previous image has. So to install an image is to
//! write the slices that the one before has not, and freed places are written again only by the
//! image after the next, when no packet follows them any more. What the entries mean is nothing to
//! this module.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashSet, HashTable};
use serde::{Deserialize, Serialize};

use super::limits::{CompileError, Subject};

/// Where a slice lies.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Slice {
    /// Index of the first entry.
    pub offset: u32,
    /// How many entries.
    pub length: u32,
}

impl Slice {
    pub(super) fn end(self) -> u32 {
        self.offset + self.length
    }

    pub(super) fn range(self) -> std::ops::Range<usize> {
        let first = self.offset as usize;
        first..first + self.length as usize
    }
}

/// The slices of one array that are in use. What lies between them is nothing's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arena<E> {
    /// By offset; they do not overlap.
    slices: Vec<Slice>,
    /// Their entries, one slice behind the other.
    entries: Vec<E>,
    /// Where those of each slice begin.
    firsts: Vec<u32>,
}

impl<E> Default for Arena<E> {
    fn default() -> Self {
        Self {
            slices: Vec::new(),
            entries: Vec::new(),
            firsts: Vec::new(),
        }
    }
}

impl<E: Copy> Arena<E> {
    /// Takes slices as they come. Later ones must lie behind earlier ones.
    pub(super) fn from_slices<'a>(slices: impl Iterator<Item = (Slice, &'a [E])>) -> Self
    where
        E: 'a,
    {
        let mut arena = Self::default();
        for (slice, entries) in slices {
            // No array of the kernel has more entries than this counts.
            arena.firsts.push(arena.entries.len() as u32);
            arena.entries.extend_from_slice(entries);
            arena.slices.push(slice);
        }
        arena
    }

    /// The slices, by offset.
    pub fn slices(&self) -> &[Slice] {
        &self.slices
    }

    /// The slices with their entries, by offset.
    pub fn iter(&self) -> impl Iterator<Item = (Slice, &[E])> {
        let firsts = self.firsts.iter().map(|first| *first as usize);
        self.slices.iter().zip(firsts).map(|(slice, first)| {
            let entries = self.entries.get(first..first + slice.length as usize);
            (*slice, entries.unwrap_or_default())
        })
    }

    /// The slice that an index lies in, with its entries.
    pub fn slice_at(&self, index: u32) -> Option<(Slice, &[E])> {
        let behind = self.slices.partition_point(|slice| slice.offset <= index);
        let at = behind.checked_sub(1)?;
        let slice = *self.slices.get(at)?;
        let first = *self.firsts.get(at)? as usize;
        let entries = self.entries.get(first..first + slice.length as usize)?;
        (index < slice.end()).then_some((slice, entries))
    }

    /// The entries of a slice, or of a part of one; none for a slice that is not here.
    pub fn entries(&self, slice: Slice) -> &[E] {
        let Some((whole, entries)) = self.slice_at(slice.offset) else {
            return &[];
        };
        let first = (slice.offset - whole.offset) as usize;
        entries
            .get(first..first.saturating_add(slice.length as usize))
            .unwrap_or_default()
    }

    /// One entry by its index.
    pub fn entry(&self, index: u32) -> Option<&E> {
        let (slice, entries) = self.slice_at(index)?;
        entries.get((index - slice.offset) as usize)
    }

    /// How many entries the map must have.
    pub fn reach(&self) -> u32 {
        self.slices.last().map_or(0, |slice| slice.end())
    }
}

#[cfg(test)]
impl<E: Copy + Default> Arena<E> {
    /// The array, with nothing between the slices.
    pub(super) fn whole(&self) -> Vec<E> {
        let mut array = vec![E::default(); self.reach() as usize];
        for (slice, entries) in self.iter() {
            array[slice.range()].copy_from_slice(entries);
        }
        array
    }
}

/// The slices of one array in the making, counted by their users.
///
/// What has no user any more keeps its place until the change after the one that took its last user is
/// in force: one grace period has passed since no packet finds a way to it.
pub(super) struct Slices<E> {
    map: &'static str,
    limit: &'static str,
    hasher: DefaultHashBuilder,
    /// By index. What lies between the slices is nothing's.
    entries: Vec<E>,
    /// By content.
    known: HashTable<Known>,
    places: Places,
    /// Those that are not in force yet.
    new: Vec<Slice>,
    /// Those that may have lost their last user.
    left: Vec<Slice>,
    /// Those that had lost it when the change in force was made.
    resting: BTreeSet<Slice>,
    /// Entries of slices that found no place, and the hashes of these.
    beyond: u64,
    without_place: HashSet<u64>,
    /// Whose slices come now, and whose first found no place.
    subject: Subject,
    crossed: Option<Subject>,
}

/// Some of the slices of an array in the making.
#[derive(Clone, Copy)]
pub(super) enum Which {
    /// Those that have users.
    Used,
    /// Those that are not in force yet.
    New,
}

struct Known {
    hash: u64,
    slice: Slice,
    uses: u32,
}

impl<E: Copy + Default + Eq + Hash> Slices<E> {
    /// Those of the image in force, which nothing uses yet, and room for as many as are expected.
    /// Names the map and the limit as people know them.
    pub(super) fn new(
        (map, limit, allowed): (&'static str, &'static str, u32),
        previous: &Arena<E>,
        expected: usize,
    ) -> Self {
        let hasher = DefaultHashBuilder::default();
        let mut known = HashTable::with_capacity(expected.max(previous.slices.len()));
        let mut entries = vec![E::default(); previous.reach() as usize];
        for (slice, content) in previous.iter() {
            let hash = hasher.hash_one(content);
            let of_previous = Known {
                hash,
                slice,
                uses: 0,
            };
            known.insert_unique(hash, of_previous, |known| known.hash);
            if let Some(place) = entries.get_mut(slice.offset as usize..slice.end() as usize) {
                place.copy_from_slice(content);
            }
        }
        Self {
            map,
            limit,
            hasher,
            entries,
            known,
            places: Places::around(&previous.slices, allowed),
            new: Vec::new(),
            left: previous.slices.clone(),
            resting: BTreeSet::new(),
            beyond: 0,
            without_place: HashSet::new(),
            subject: Subject::Policy,
            crossed: None,
        }
    }

    /// Says whose slices come next.
    pub(super) fn begin(&mut self, subject: &Subject) {
        self.subject = subject.clone();
    }

    /// Where these entries lie; they have one user more. Once the map is full the answer means nothing,
    /// and [`Self::check`] will say so.
    pub(super) fn place(&mut self, wanted: &[E]) -> Slice {
        self.place_counted(wanted).0
    }

    /// As [`Self::place`], and whether this is the first user.
    pub(super) fn place_counted(&mut self, wanted: &[E]) -> (Slice, bool) {
        let length = match u32::try_from(wanted.len()) {
            Ok(0) => return (Slice::default(), false),
            Ok(length) => length,
            Err(_) => u32::MAX,
        };
        let hash = self.hasher.hash_one(wanted);
        let entries = &self.entries;
        let is_wanted =
            |known: &Known| known.hash == hash && entries.get(known.slice.range()) == Some(wanted);
        if let Some(known) = self.known.find_mut(hash, is_wanted) {
            known.uses += 1;
            return (known.slice, known.uses == 1);
        }
        let offset = match self.places.take(length) {
            Some(offset) => offset,
            // Nothing will be installed. What would be needed is counted, each slice once while that
            // is not hopeless.
            None => {
                self.crossed.get_or_insert_with(|| self.subject.clone());
                let is_hopeless = self.beyond > u64::from(self.places.limit);
                if is_hopeless || self.without_place.insert(hash) {
                    self.beyond += u64::from(length);
                }
                return (Slice::default(), false);
            }
        };
        let slice = Slice { offset, length };
        let range = slice.range();
        if range.end > self.entries.len() {
            // What was there behind the place was given back.
            self.entries.resize(range.start, E::default());
            self.entries.extend_from_slice(wanted);
        } else if let Some(place) = self.entries.get_mut(range) {
            place.copy_from_slice(wanted);
        }
        let new = Known {
            hash,
            slice,
            uses: 1,
        };
        self.known.insert_unique(hash, new, |known| known.hash);
        self.new.push(slice);
        (slice, true)
    }

    /// Takes a user away; tells whether it was the last.
    pub(super) fn release(&mut self, slice: Slice) -> bool {
        let Some(content) = self.entries.get(slice.range()).filter(|_| slice.length > 0) else {
            return false;
        };
        let hash = self.hasher.hash_one(content);
        let Some(known) = self.known.find_mut(hash, |known| known.slice == slice) else {
            return false;
        };
        known.uses = known.uses.saturating_sub(1);
        let is_last = known.uses == 0;
        if is_last {
            self.left.push(slice);
        }
        is_last
    }

    /// Entries from an index on.
    pub(super) fn entries(&self, slice: Slice) -> &[E] {
        self.entries.get(slice.range()).unwrap_or_default()
    }

    /// One entry.
    pub(super) fn entry(&self, index: u32) -> Option<E> {
        self.entries.get(index as usize).copied()
    }

    /// Whether all have found a place.
    pub(super) fn check(&self) -> Result<(), CompileError> {
        match &self.crossed {
            None => Ok(()),
            Some(subject) => Err(CompileError::Full {
                map: self.map,
                limit: self.limit,
                allowed: self.places.limit,
                needs: u64::from(self.places.end) + self.beyond,
                subject: subject.clone(),
            }),
        }
    }

    /// Some of the slices, with their entries.
    pub(super) fn arena(&self, which: Which) -> Arena<E> {
        let known = self.known.iter();
        let mut slices: Vec<Slice> = match which {
            Which::Used => known
                .filter(|known| known.uses > 0)
                .map(|known| known.slice)
                .collect(),
            Which::New => self.new.clone(),
        };
        slices.sort_unstable_by_key(|slice| slice.offset);
        let slices = slices.into_iter();
        Arena::from_slices(slices.map(|slice| (slice, self.entries(slice))))
    }

    /// What was made is in force, and no packet follows what lost its last user before that.
    pub(super) fn settle(&mut self) {
        self.new.clear();
        let left = std::mem::take(&mut self.left).into_iter();
        let left = left.filter(|slice| self.uses(*slice) == Some(0)).collect();
        for slice in std::mem::replace(&mut self.resting, left) {
            if self.uses(slice) == Some(0) && !self.resting.contains(&slice) {
                self.forget(slice);
                self.places.give_back(slice);
            }
        }
    }

    fn uses(&self, slice: Slice) -> Option<u32> {
        let hash = self.hasher.hash_one(self.entries(slice));
        let known = self.known.find(hash, |known| known.slice == slice)?;
        Some(known.uses)
    }

    fn forget(&mut self, slice: Slice) {
        let hash = self.hasher.hash_one(self.entries(slice));
        if let Ok(known) = self.known.find_entry(hash, |known| known.slice == slice) {
            known.remove();
        }
    }
}

/// The places of an array that are free.
struct Places {
    /// (length, offset) of the gaps between slices.
    gaps: BTreeSet<(u32, u32)>,
    /// The same by offset.
    lengths: BTreeMap<u32, u32>,
    end: u32,
    limit: u32,
}

impl Places {
    fn around(slices: &[Slice], limit: u32) -> Self {
        let mut places = Self {
            gaps: BTreeSet::new(),
            lengths: BTreeMap::new(),
            end: 0,
            limit,
        };
        for slice in slices {
            if slice.offset > places.end {
                places.add(places.end, slice.offset - places.end);
            }
            places.end = slice.end();
        }
        places
    }

    fn add(&mut self, offset: u32, length: u32) {
        self.gaps.insert((length, offset));
        self.lengths.insert(offset, length);
    }

    fn remove(&mut self, offset: u32, length: u32) {
        self.gaps.remove(&(length, offset));
        self.lengths.remove(&offset);
    }

    /// The tightest gap that fits, or the end.
    fn take(&mut self, length: u32) -> Option<u32> {
        if let Some(&(size, offset)) = self.gaps.range((length, 0)..).next() {
            self.remove(offset, size);
            if size > length {
                self.add(offset + length, size - length);
            }
            return Some(offset);
        }
        let offset = self.end;
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= self.limit)?;
        self.end = end;
        Some(offset)
    }

    /// Joins what is given back with the gaps beside it.
    fn give_back(&mut self, slice: Slice) {
        let (mut offset, mut end) = (slice.offset, slice.end());
        let before = self.lengths.range(..offset).next_back();
        if let Some((&at, &length)) = before
            && at + length == offset
        {
            self.remove(at, length);
            offset = at;
        }
        if let Some(length) = self.lengths.get(&end).copied() {
            self.remove(end, length);
            end += length;
        }
        match end == self.end {
            true => self.end = offset,
            false => self.add(offset, end - offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices(previous: &Arena<u32>, limit: u32) -> Slices<u32> {
        Slices::new(("PORTS", "port_entries", limit), previous, 0)
    }

    #[test]
    fn equal_content_has_one_place() {
        let before = Arena::default();
        let mut slices = slices(&before, 100);
        let first = slices.place(&[1, 2, 3]);
        assert_ne!(slices.place(&[1, 2]), first);
        assert_eq!(slices.place(&[1, 2, 3]), first);
        let arena = slices.arena(Which::Used);
        assert_eq!(arena.entries(first), [1, 2, 3]);
        assert_eq!(arena.reach(), 5);
    }

    #[test]
    fn new_slices_keep_clear_of_the_previous_ones() {
        let before = Arena::default();
        let mut first = slices(&before, 100);
        let kept = first.place(&[1, 1]);
        let gone = first.place(&[2, 2]);
        let last = first.place(&[3, 3]);
        let first = first.arena(Which::Used);

        let mut second = slices(&first, 100);
        assert_eq!(second.place(&[1, 1]), kept);
        assert_eq!(second.place(&[3, 3]), last);
        let new = second.place(&[4, 4]);
        assert_eq!(new.offset, 6, "behind all that are in force");
        let second = second.arena(Which::Used);

        let mut third = slices(&second, 100);
        assert_eq!(
            third.place(&[5, 5]),
            gone,
            "a place freed before the previous image is used again"
        );
    }

    #[test]
    fn what_has_no_user_keeps_its_place_until_no_packet_follows_it() {
        let before = Arena::default();
        let mut slices = slices(&before, 100);
        let (one, two) = (slices.place(&[1, 1]), slices.place(&[2, 2]));
        assert_eq!(slices.place(&[1, 1]), one);
        slices.settle();
        assert!(!slices.release(one), "another one uses it");
        assert!(slices.release(one));
        assert_eq!(slices.place(&[3, 3]).offset, 4, "behind all");
        assert_eq!(slices.place(&[1, 1]), one, "it is there still");
        assert!(slices.release(one));
        slices.settle();
        assert_eq!(slices.place(&[4]).offset, 6, "a packet may still follow it");
        assert_eq!(slices.place(&[1, 1]), one, "it is there still");
        assert!(slices.release(one));
        slices.settle();
        assert_eq!(slices.place(&[5]).offset, 7, "it was left anew");
        assert!(slices.release(two));
        slices.settle();
        assert_eq!(slices.place(&[6]).offset, 0);
        slices.settle();
        let wide = slices.place(&[7, 7, 7]);
        assert_eq!(wide.offset, 1, "gaps side by side are one");
        assert_eq!(slices.arena(Which::New).slices(), [wide]);
        assert_eq!(slices.entries(wide), [7, 7, 7]);
    }

    #[test]
    fn slices_that_fit_nowhere_are_refused_with_who_wanted_them() {
        let before = Arena::default();
        let mut slices = slices(&before, 3);
        slices.begin(&Subject::Vpc("first".parse().unwrap()));
        slices.place(&[1, 1]);
        slices.begin(&Subject::Vpc("second".parse().unwrap()));
        slices.place(&[2, 2]);
        slices.begin(&Subject::Vpc("third".parse().unwrap()));
        slices.place(&[3, 3]);
        let refused = slices.check().unwrap_err().to_string();
        assert!(
            refused.starts_with("VPC \"second\" goes beyond what PORTS holds: 6 entries"),
            "{refused}"
        );
        assert!(refused.contains("`port_entries` is 3"), "{refused}");
    }
}
