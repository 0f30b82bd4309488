//! Overlapping prefixes: what holds for a prefix holds for every prefix inside it.
//!
//! A longest-prefix lookup finds one entry only. So each entry carries what its ancestors carry,
//! and nothing is lost by finding the longest.

use std::net::IpAddr;

use ipnet::IpNet;
use sg_common::addr::{Addr, Family};

/// A prefix of either family as the tables hold it: 128 bits, IPv4 behind the first 96.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    /// Bits behind the length are zero, so that a prefix sorts before all that it covers.
    address: u128,
    bits: u8,
}

impl Prefix {
    pub(super) fn address(self) -> Addr {
        Addr::from_v6(self.address.to_be_bytes())
    }

    /// The bits that count.
    pub(super) fn bits(self) -> u32 {
        u32::from(self.bits)
    }

    /// The first and the last address.
    pub(super) fn span(self) -> (u128, u128) {
        let behind = u128::MAX.checked_shr(self.bits()).unwrap_or(0);
        (self.address, self.address | behind)
    }

    fn covers(self, other: Self) -> bool {
        let behind = u32::from(128 - self.bits);
        // A shift by all 128 bits leaves nothing to differ in.
        let differs = (self.address ^ other.address)
            .checked_shr(behind)
            .unwrap_or(0);
        self.bits <= other.bits && differs == 0
    }
}

impl From<IpNet> for Prefix {
    fn from(prefix: IpNet) -> Self {
        let before = match prefix {
            IpNet::V4(_) => 96,
            IpNet::V6(_) => 0,
        };
        let address = u128::from_be_bytes(Addr::from(prefix.network()).octets());
        Self {
            address,
            bits: before + prefix.prefix_len(),
        }
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self {
            address: u128::from_be_bytes(Addr::from(address).octets()),
            bits: 128,
        }
    }
}

/// The family of a prefix, as tables index it.
pub(super) fn family_of(prefix: &IpNet) -> Family {
    match prefix {
        IpNet::V4(_) => Family::V4,
        IpNet::V6(_) => Family::V6,
    }
}

/// Visits each distinct prefix, in order, with what it and those that cover it have.
pub(super) fn fold<T: Copy>(items: &mut [(Prefix, T)], mut visit: impl FnMut(Prefix, &[T])) {
    items.sort_by_key(|&(prefix, _)| prefix);
    // What the prefixes on the way from the outermost one to the current one have.
    let mut inherited: Vec<T> = Vec::new();
    let mut path: Vec<(Prefix, usize)> = Vec::new();
    for group in items.chunk_by(|(a, _), (b, _)| a == b) {
        let Some(&(prefix, _)) = group.first() else {
            continue;
        };
        while path.last().is_some_and(|(outer, _)| !outer.covers(prefix)) {
            path.pop();
        }
        inherited.truncate(path.last().map_or(0, |&(_, length)| length));
        inherited.extend(group.iter().map(|&(_, item)| item));
        path.push((prefix, inherited.len()));
        visit(prefix, &inherited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(items: &[(&str, char)], wanted: &[(&str, &str)]) {
        let mut items: Vec<_> = items
            .iter()
            .map(|&(prefix, item)| (Prefix::from(prefix.parse::<IpNet>().unwrap()), item))
            .collect();
        let mut folded = Vec::new();
        fold(&mut items, |prefix, all| {
            folded.push((prefix, all.iter().collect::<String>()))
        });
        let wanted: Vec<_> = wanted
            .iter()
            .map(|&(prefix, all)| {
                (
                    Prefix::from(prefix.parse::<IpNet>().unwrap()),
                    all.to_owned(),
                )
            })
            .collect();
        assert_eq!(folded, wanted);
    }

    #[test]
    fn a_prefix_inherits_from_all_that_cover_it() {
        check(
            &[
                ("10.1.1.1/32", 'a'),
                ("10.0.0.0/8", 'b'),
                ("10.1.0.0/16", 'c'),
                ("11.0.0.0/8", 'd'),
            ],
            &[
                ("10.0.0.0/8", "b"),
                ("10.1.0.0/16", "bc"),
                ("10.1.1.1/32", "bca"),
                ("11.0.0.0/8", "d"),
            ],
        );
    }

    #[test]
    fn siblings_inherit_nothing_from_each_other() {
        check(
            &[
                ("10.0.0.0/9", 'a'),
                ("10.128.0.0/9", 'b'),
                ("10.0.0.0/8", 'c'),
            ],
            &[
                ("10.0.0.0/8", "c"),
                ("10.0.0.0/9", "ca"),
                ("10.128.0.0/9", "cb"),
            ],
        );
    }

    #[test]
    fn everything_of_a_family_covers_it() {
        check(
            &[("2001:db8::/32", 'a'), ("::/0", 'b'), ("::1/128", 'c')],
            &[("::/0", "b"), ("::1/128", "bc"), ("2001:db8::/32", "ba")],
        );
        check(
            &[("0.0.0.0/0", 'a'), ("1.2.3.4/32", 'b')],
            &[("0.0.0.0/0", "a"), ("1.2.3.4/32", "ab")],
        );
    }

    #[test]
    fn one_prefix_named_twice_is_one_entry() {
        check(
            &[("10.0.0.0/8", 'a'), ("10.0.0.0/8", 'b')],
            &[("10.0.0.0/8", "ab")],
        );
    }
}
