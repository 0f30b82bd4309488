//! Immutable slices of the kernel's arrays: each content kept once, and at the same place from
//! image to image.
//!
//! A new slice gets places that no slice of the previous image has. So to install an image is to
//! write the slices that the one before has not, and freed places are written again only by the
//! image after the next, when no packet follows them any more. What the entries mean is nothing to
//! this module.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};
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

/// The slices of one array of an image in the making.
pub(super) struct Slices<'a, E> {
    map: &'static str,
    limit: &'static str,
    hasher: DefaultHashBuilder,
    /// The entries of slices that the previous image does not have, one slice behind the other.
    entries: Vec<E>,
    /// By content: the slices of this image and of the previous one.
    known: HashTable<Known<'a, E>>,
    /// Those of this image, in the order of their first use.
    used: Vec<Placed<'a, E>>,
    places: Places,
    /// Entries of slices that found no place.
    beyond: u64,
    /// Whose slices come now, and whose first found no place.
    subject: Subject,
    crossed: Option<Subject>,
}

struct Known<'a, E> {
    hash: u64,
    placed: Placed<'a, E>,
    is_used: bool,
}

/// A slice with its place, and where its content is.
#[derive(Clone, Copy)]
struct Placed<'a, E> {
    slice: Slice,
    content: Content<'a, E>,
}

#[derive(Clone, Copy)]
enum Content<'a, E> {
    /// That of the previous image.
    Previous(&'a [E]),
    /// It begins here in [`Slices::entries`].
    New(usize),
}

impl<'a, E> Placed<'a, E> {
    fn content<'e>(&self, entries: &'e [E]) -> &'e [E]
    where
        'a: 'e,
    {
        match self.content {
            Content::Previous(content) => content,
            Content::New(first) => {
                let last = first + self.slice.length as usize;
                entries.get(first..last).unwrap_or_default()
            }
        }
    }
}

impl<'a, E: Copy + Eq + Hash> Slices<'a, E> {
    /// No slices yet, and room for as many as are expected. Those that the previous image has too
    /// will keep their places. Names the map and the limit as people know them.
    pub(super) fn new(
        (map, limit, allowed): (&'static str, &'static str, u32),
        previous: &'a Arena<E>,
        expected: usize,
    ) -> Self {
        let expected = expected.max(previous.slices.len());
        let hasher = DefaultHashBuilder::default();
        let mut known = HashTable::with_capacity(expected);
        for (slice, content) in previous.iter() {
            let hash = hasher.hash_one(content);
            let content = Content::Previous(content);
            let of_previous = Known {
                hash,
                placed: Placed { slice, content },
                is_used: false,
            };
            known.insert_unique(hash, of_previous, |known| known.hash);
        }
        Self {
            map,
            limit,
            hasher,
            entries: Vec::new(),
            known,
            used: Vec::new(),
            places: Places::around(&previous.slices, allowed),
            beyond: 0,
            subject: Subject::Policy,
            crossed: None,
        }
    }

    /// Says whose slices come next.
    pub(super) fn begin(&mut self, subject: &Subject) {
        self.subject = subject.clone();
    }

    /// Where these entries lie. Once the map is full the answer means nothing, and
    /// [`Self::finish`] will say so.
    pub(super) fn place(&mut self, wanted: &[E]) -> Slice {
        let length = match u32::try_from(wanted.len()) {
            Ok(0) => return Slice::default(),
            Ok(length) => length,
            Err(_) => u32::MAX,
        };
        let hash = self.hasher.hash_one(wanted);
        let is_wanted = |known: &Known<'a, E>| {
            known.hash == hash && known.placed.content(&self.entries) == wanted
        };
        if let Some(known) = self.known.find_mut(hash, is_wanted) {
            if !known.is_used {
                known.is_used = true;
                self.used.push(known.placed);
            }
            return known.placed.slice;
        }
        let offset = match self.places.take(length) {
            Some(offset) => offset,
            // There will be no image; what it would need is counted, each slice once while that
            // is not hopeless.
            None => {
                self.crossed.get_or_insert_with(|| self.subject.clone());
                self.beyond += u64::from(length);
                if self.beyond > u64::from(self.places.limit) {
                    return Slice::default();
                }
                u32::MAX - length
            }
        };
        let slice = Slice { offset, length };
        let placed = Placed {
            slice,
            content: Content::New(self.entries.len()),
        };
        let new = Known {
            hash,
            placed,
            is_used: true,
        };
        self.used.push(placed);
        self.entries.extend_from_slice(wanted);
        self.known.insert_unique(hash, new, |known| known.hash);
        slice
    }

    /// All slices in their places, if they have found some.
    pub(super) fn finish(mut self) -> Result<Arena<E>, CompileError> {
        if let Some(subject) = self.crossed {
            return Err(CompileError::Full {
                map: self.map,
                limit: self.limit,
                allowed: self.places.limit,
                needs: u64::from(self.places.end) + self.beyond,
                subject,
            });
        }
        self.used.sort_by_key(|placed| placed.slice.offset);
        let slices = self.used.iter();
        let slices = slices.map(|placed| (placed.slice, placed.content(&self.entries)));
        Ok(Arena::from_slices(slices))
    }
}

/// The places of an array that the previous image leaves free.
struct Places {
    /// (length, offset) of the gaps between slices.
    gaps: BTreeSet<(u32, u32)>,
    end: u32,
    limit: u32,
}

impl Places {
    fn around(slices: &[Slice], limit: u32) -> Self {
        let mut places = Self {
            gaps: BTreeSet::new(),
            end: 0,
            limit,
        };
        for slice in slices {
            if slice.offset > places.end {
                places.gaps.insert((slice.offset - places.end, places.end));
            }
            places.end = slice.end();
        }
        places
    }

    /// The tightest gap that fits, or the end.
    fn take(&mut self, length: u32) -> Option<u32> {
        if let Some(&(size, offset)) = self.gaps.range((length, 0)..).next() {
            self.gaps.remove(&(size, offset));
            if size > length {
                self.gaps.insert((size - length, offset + length));
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices(previous: &Arena<u32>, limit: u32) -> Slices<'_, u32> {
        Slices::new(("PORTS", "port_entries", limit), previous, 0)
    }

    #[test]
    fn equal_content_has_one_place() {
        let before = Arena::default();
        let mut slices = slices(&before, 100);
        let first = slices.place(&[1, 2, 3]);
        assert_ne!(slices.place(&[1, 2]), first);
        assert_eq!(slices.place(&[1, 2, 3]), first);
        let arena = slices.finish().unwrap();
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
        let first = first.finish().unwrap();

        let mut second = slices(&first, 100);
        assert_eq!(second.place(&[1, 1]), kept);
        assert_eq!(second.place(&[3, 3]), last);
        let new = second.place(&[4, 4]);
        assert_eq!(new.offset, 6, "behind all that are in force");
        let second = second.finish().unwrap();

        let mut third = slices(&second, 100);
        assert_eq!(
            third.place(&[5, 5]),
            gone,
            "a place freed before the previous image is used again"
        );
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
        let refused = slices.finish().unwrap_err().to_string();
        assert!(
            refused.starts_with("VPC \"second\" goes beyond what PORTS holds: 6 entries"),
            "{refused}"
        );
        assert!(refused.contains("`port_entries` is 3"), "{refused}");
    }
}
