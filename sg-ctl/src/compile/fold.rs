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

    /// The prefix of so many bits that covers this one, or this one if it is shorter.
    pub(super) fn within(self, bits: u8) -> Self {
        let bits = bits.min(self.bits);
        let behind = u128::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
        Self {
            address: self.address & !behind,
            bits,
        }
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

/// Visits each distinct prefix, in order, with what it and those that cover it have. The items come
/// sorted by their prefixes.
pub(super) fn fold<T: Copy>(
    items: impl Iterator<Item = (Prefix, T)>,
    mut visit: impl FnMut(Prefix, &[T]),
) {
    let mut items = items.peekable();
    // What the prefixes on the way from the outermost one to the current one have.
    let mut inherited: Vec<T> = Vec::new();
    let mut path: Vec<(Prefix, usize)> = Vec::new();
    while let Some((prefix, item)) = items.next() {
        while path.last().is_some_and(|(outer, _)| !outer.covers(prefix)) {
            path.pop();
        }
        inherited.truncate(path.last().map_or(0, |&(_, length)| length));
        inherited.push(item);
        while let Some((_, item)) = items.next_if(|(other, _)| *other == prefix) {
            inherited.push(item);
        }
        path.push((prefix, inherited.len()));
        visit(prefix, &inherited);
    }
}

/// Those of the items that lie in a region or cover it, in order. The items are sorted by their
/// prefixes.
pub(super) fn overlapping<T: Copy>(
    items: &[(Prefix, T)],
    region: Prefix,
) -> impl Iterator<Item = (Prefix, T)> {
    let (first, last) = region.span();
    let covering = (0..region.bits).filter_map(move |bits| {
        let prefix = region.within(bits);
        // Those that begin with the region are found with what lies in it.
        (prefix.address < first).then_some(prefix)
    });
    let covering = covering.flat_map(move |prefix| {
        let begins = items.partition_point(|(other, _)| *other < prefix);
        let ends = items.partition_point(|(other, _)| *other <= prefix);
        items.get(begins..ends).unwrap_or_default()
    });
    let begins = items.partition_point(|(prefix, _)| prefix.address < first);
    let ends = items.partition_point(|(prefix, _)| prefix.address <= last);
    covering
        .chain(items.get(begins..ends).unwrap_or_default())
        .copied()
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
        items.sort_by_key(|(prefix, _)| *prefix);
        fold(items.into_iter(), |prefix, all| {
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
    fn what_overlaps_a_region_lies_in_it_or_covers_it() {
        let prefix = |text: &str| Prefix::from(text.parse::<IpNet>().unwrap());
        let items = [
            "10.0.0.0/8",
            "10.0.0.0/16",
            "10.1.0.0/16",
            "10.1.2.0/24",
            "10.1.2.3/32",
            "11.0.0.0/8",
            "2001:db8::/32",
        ];
        let items: Vec<_> = items.iter().map(|text| (prefix(text), *text)).collect();
        let found = |region: &str| -> Vec<&str> {
            let found = overlapping(&items, prefix(region));
            found.map(|(_, text)| text).collect()
        };
        assert_eq!(
            found("10.1.2.0/25"),
            ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32"]
        );
        assert_eq!(found("10.0.0.0/16"), ["10.0.0.0/8", "10.0.0.0/16"]);
        assert_eq!(found("0.0.0.0/0").len(), 6);
        assert_eq!(found("2001:db8:1::/48"), ["2001:db8::/32"]);
        assert!(found("12.0.0.0/8").is_empty());
    }

    #[test]
    fn one_prefix_named_twice_is_one_entry() {
        check(
            &[("10.0.0.0/8", 'a'), ("10.0.0.0/8", 'b')],
            &[("10.0.0.0/8", "ab")],
        );
    }
}
