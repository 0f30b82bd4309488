//! How many rules a list of ports and a list of peers stand for.
//!
//! A rule is written with lists, and there is one rule for each port range and peer. Two lists of a
//! thousand are read in no time and are a million rules, which is more than the machine should take
//! unasked; a prefix list says the same in a thousand.

/// The most rules that the lists of one file, or of one command, may stand for together.
pub const MOST: usize = 1 << 17;

/// How many rules the lists multiply to; none where they are hardly more than what is written.
pub(crate) fn product(ranges: usize, peers: usize) -> usize {
    match ranges.min(peers) {
        0..=2 => 0,
        _ => ranges.saturating_mul(peers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_beside_one_or_two_does_not_multiply() {
        assert_eq!(product(2, 1_000_000), 0);
        assert_eq!(product(1_000_000, 1), 0);
        assert_eq!(product(3, 100), 300);
        assert_eq!(product(usize::MAX, usize::MAX), usize::MAX);
    }
}
