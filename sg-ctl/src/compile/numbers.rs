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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_first() {
        let mut numbers = Numbers::new(1, [7, 2, 3]);
        let given: Vec<_> = (0..6).map(|_| numbers.fresh()).collect();
        assert_eq!(given, [1, 4, 5, 6, 8, 9]);
        assert_eq!(Numbers::new(0, []).fresh(), 0);
        assert_eq!(Numbers::new(1, [0, 1]).fresh(), 2);
    }
}
