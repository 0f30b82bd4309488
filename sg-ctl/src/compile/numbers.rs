//! Numbers for new things, none of which the previous image uses.

/// Gives the lowest numbers that are not taken, in order.
pub(super) struct Numbers {
    taken: Vec<u32>,
    passed: usize,
    next: u32,
}

impl Numbers {
    /// Starts at `first`, around those that are taken.
    pub(super) fn new(first: u32, taken: impl IntoIterator<Item = u32>) -> Self {
        let mut taken: Vec<u32> = taken.into_iter().collect();
        taken.sort_unstable();
        Self {
            taken,
            passed: 0,
            next: first,
        }
    }

    /// The next one. Limits are far below the highest number, so there is always one.
    pub(super) fn fresh(&mut self) -> u32 {
        while let Some(&taken) = self.taken.get(self.passed)
            && taken <= self.next
        {
            self.next = self.next.max(taken.saturating_add(1));
            self.passed += 1;
        }
        let number = self.next;
        self.next = number.saturating_add(1);
        number
    }
}

/// Gives the numbers from 1 to an end in a circle, from where the last ones were given: one that was
/// freed comes back only when all others have had their turn.
pub(super) struct Circle {
    /// In order.
    taken: Vec<u32>,
    last: u32,
    end: u32,
    left: u32,
    beyond: u32,
}

impl Circle {
    /// Goes on behind `last`. The circle has room for `expected` numbers, those that are taken
    /// included, unless that would be more than `most`.
    pub(super) fn new(
        last: u32,
        taken: impl IntoIterator<Item = u32>,
        expected: usize,
        most: u32,
    ) -> Self {
        const LEAST: u32 = 2_048;
        let mut taken: Vec<u32> = taken.into_iter().collect();
        taken.sort_unstable();
        let expected = u32::try_from(expected).unwrap_or(u32::MAX);
        let size = expected.saturating_add(1).checked_next_power_of_two();
        let end = size
            .unwrap_or(u32::MAX)
            .max(LEAST)
            .min(most.saturating_add(1))
            - 1;
        let within = taken.partition_point(|taken| *taken <= end);
        Self {
            left: end.saturating_sub(u32::try_from(within).unwrap_or(u32::MAX)),
            last: if last < end { last } else { 0 },
            taken,
            end,
            beyond: end,
        }
    }

    /// The next one. Where none is left, those behind the end, which are too many.
    pub(super) fn fresh(&mut self) -> u32 {
        if self.left == 0 {
            self.beyond = self.beyond.saturating_add(1);
            return self.beyond;
        }
        self.left -= 1;
        let mut next = self.last + 1;
        let mut at = self.taken.partition_point(|taken| *taken < next);
        loop {
            if next > self.end {
                (next, at) = (1, 0);
            }
            match self.taken.get(at) {
                Some(taken) if *taken == next => (next, at) = (next + 1, at + 1),
                _ => break,
            }
        }
        self.last = next;
        next
    }

    /// The next one; none where none is left.
    pub(super) fn next_within(&mut self) -> Option<u32> {
        (self.left > 0).then(|| self.fresh())
    }

    /// Where to go on next time.
    pub(super) fn last(&self) -> u32 {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_number_comes_back_when_all_others_have_had_their_turn() {
        let mut circle = Circle::new(3, [1, 2, 3], 3, u32::MAX);
        assert_eq!((circle.fresh(), circle.last()), (4, 4));
        // The second was freed, and is not given again at once.
        let mut circle = Circle::new(4, [1, 3, 4], 4, u32::MAX);
        let given: Vec<_> = (0..2_044).map(|_| circle.fresh()).collect();
        assert_eq!((given[0], given[2_042], given[2_043]), (5, 2_047, 2));
        assert_eq!(circle.fresh(), 2_048, "the circle is full");
    }

    #[test]
    fn a_circle_is_no_larger_than_allowed() {
        let mut circle = Circle::new(0, [2], 3, 3);
        let given: Vec<_> = (0..3).map(|_| circle.fresh()).collect();
        assert_eq!(given, [1, 3, 4]);
    }

    #[test]
    fn gaps_are_filled_first() {
        let mut numbers = Numbers::new(1, [7, 2, 3]);
        let given: Vec<_> = (0..6).map(|_| numbers.fresh()).collect();
        assert_eq!(given, [1, 4, 5, 6, 8, 9]);
        assert_eq!(Numbers::new(0, []).fresh(), 0);
        assert_eq!(Numbers::new(1, [0, 1]).fresh(), 2);
    }
}
