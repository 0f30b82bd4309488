//! Port tables: which services of a peer are admitted, by which rule.
//!
//! A table is a sorted list of the services where the answer changes. It is immutable from when
//! something points to it until a grace period after nothing does.

use crate::ids::RuleSlot;
use crate::parse::Headers;
use crate::protocol::{ICMP, ICMPV6, TCP, UDP};

/// A protocol with its destination port, or its ICMP type and code: `protocol << 16 | low`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(transparent)]
pub struct Service(pub u32);

impl Service {
    /// One past the highest.
    pub const END: u32 = 1 << 24;

    /// Protocols without ports have `low` zero.
    #[inline(always)]
    pub const fn new(protocol: u8, low: u16) -> Self {
        Self((protocol as u32) << 16 | low as u32)
    }

    /// What a packet asks for: what port tables are searched by.
    #[inline(always)]
    pub const fn of(headers: &Headers) -> Self {
        let low = match headers.protocol {
            TCP | UDP => headers.destination_port,
            ICMP | ICMPV6 => (headers.icmp_type as u16) << 8 | headers.icmp_code as u16,
            _ => 0,
        };
        Self::new(headers.protocol, low)
    }

    /// Any service of the protocol: a search for it finds some rule that admits one.
    #[inline(always)]
    pub const fn any_of(protocol: u8) -> Self {
        Self(Self::ANY | (protocol as u32) << 16)
    }

    /// Beyond every service.
    const ANY: u32 = Self::END;

    /// Whether any service of the protocol will do.
    #[inline(always)]
    pub const fn is_any(self) -> bool {
        self.0 & Self::ANY != 0
    }

    /// The service itself, or the first one of the protocol.
    #[inline(always)]
    pub const fn first(self) -> Self {
        Self(self.0 & !Self::ANY)
    }

    /// The IP protocol number.
    #[inline(always)]
    pub const fn protocol(self) -> u8 {
        (self.0 >> 16) as u8
    }
}

/// A slice of the port entries: immutable once anything points to it, and shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct PortTable {
    /// Index of the first entry.
    pub offset: u32,
    /// How many entries; zero admits nothing.
    pub length: u32,
}

impl PortTable {
    /// Admits nothing.
    pub const EMPTY: Self = Self {
        offset: 0,
        length: 0,
    };
    /// The most entries one table may have: every boundary of every protocol's ports would be more,
    /// but the search is bounded in its halvings.
    pub const MAX_LENGTH: u32 = (1 << PORT_SEARCH_STEPS) - 1;
}

/// From `start` on, up to the next entry's start, this rule admits (or none).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct PortEntry {
    /// Protocol in the third byte; port, or ICMP type and code, in the lower two.
    pub start: Service,
    /// The rule that admits.
    pub rule: RuleSlot,
}

/// The array that port tables lie in.
pub trait Ports {
    /// One port entry.
    fn port_entry(&self, index: u32) -> Option<PortEntry>;

    /// Returns the number as it is, as [`Packet::forget`](crate::packet::Packet::forget) does.
    #[inline(always)]
    fn forget(&self, number: u32) -> u32 {
        number
    }
}

/// Entries of a port table up to which it is read from the front: as quick as halving, and small
/// enough for the kernel's program to have it wherever a table is asked.
pub const PORT_SCAN: u32 = 4;

/// The rule of the last entry that begins at or before the service, in a table of up to
/// [`PORT_SCAN`] entries. Where any service of the protocol will do, the next entry has one as well.
#[inline(always)]
pub fn scan_ports<T: Ports>(ports: &T, table: PortTable, service: Service) -> RuleSlot {
    let mut rule = RuleSlot::NONE;
    for at in 0..PORT_SCAN {
        if at >= table.length {
            break;
        }
        match ports.port_entry(table.offset.wrapping_add(at)) {
            Some(entry) if entry.start <= service.first() => rule = entry.rule,
            Some(entry) => return or_of_protocol(rule, entry, service),
            None => break,
        }
    }
    rule
}

/// The rule, or else that of the entry behind it, if any service of the protocol will do and that one
/// is of it. Neighboring entries have different rules: one of two has a rule.
#[inline(always)]
fn or_of_protocol(rule: RuleSlot, next: PortEntry, service: Service) -> RuleSlot {
    if service.is_any() && !rule.is_some() && next.start.protocol() == service.protocol() {
        return next.rule;
    }
    rule
}

/// The rule of the table's last entry that begins at or before the service.
#[inline(always)]
pub fn search_ports<T: Ports>(ports: &T, table: PortTable, service: Service) -> RuleSlot {
    if table.length <= PORT_SCAN {
        return scan_ports(ports, table, service);
    }
    let mut low = 0_u32;
    let mut high = table.length;
    let mut rule = RuleSlot::NONE;
    for _ in 0..PORT_SEARCH_STEPS {
        low = ports.forget(low);
        high = ports.forget(high);
        if low >= high {
            break;
        }
        let middle = low + (high - low) / 2;
        let Some(entry) = ports.port_entry(table.offset.wrapping_add(middle)) else {
            return RuleSlot::NONE;
        };
        if entry.start <= service.first() {
            rule = entry.rule;
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if !service.is_any() || low >= table.length {
        return rule;
    }
    match ports.port_entry(table.offset.wrapping_add(low)) {
        Some(next) => or_of_protocol(rule, next, service),
        None => rule,
    }
}

/// Halvings of one port search. All of a loop's turns are counted in 64 bits: of what LLVM keeps on
/// the stack, the verifier remembers only what fills eight bytes.
const PORT_SEARCH_STEPS: u64 = 17;

const _: () = assert!(size_of::<PortEntry>() == 8);
