//! The searches among sorted entries find what a look at every entry finds.

use sg_common::addr::Addr;
use sg_common::ids::RuleSlot;
use sg_common::ports::{PortEntry, PortTable, Ports, Service, search_ports};
use sg_common::protocol::TCP;
use sg_common::ranges::{IntervalV4, IntervalV6, RangeSlot, RangeTable, Ranges, search_ranges};

struct Entries(Vec<PortEntry>);

impl Ports for Entries {
    fn port_entry(&self, index: u32) -> Option<PortEntry> {
        self.0.get(index as usize).copied()
    }
}

/// The rule of the last entry that begins at or before the service.
fn by_every_entry(entries: &[PortEntry], service: Service) -> RuleSlot {
    let before = entries.iter().rev().find(|entry| entry.start <= service);
    before.map_or(RuleSlot::NONE, |entry| entry.rule)
}

#[test]
fn a_port_search_of_any_length_finds_the_last_entry_before() {
    for length in [0, 1, 3, 4, 5, 6, 100, 1001] {
        let entry = |number: u16| PortEntry {
            start: Service::new(TCP, number * 7 + 3),
            rule: RuleSlot(u32::from(number) + 1),
        };
        let entries = Entries((0..length).map(entry).collect());
        let table = PortTable {
            offset: 0,
            length: length.into(),
        };
        for port in (0..length * 7 + 20).chain([u16::MAX]) {
            let service = Service::new(TCP, port);
            assert_eq!(
                search_ports(&entries, table, service),
                by_every_entry(&entries.0, service),
                "port {port} among {length}"
            );
        }
    }
}

#[test]
fn any_service_of_a_protocol_is_found_where_one_is_admitted() {
    let entries = Entries(vec![
        PortEntry {
            start: Service::new(TCP, 22),
            rule: RuleSlot(1),
        },
        PortEntry {
            start: Service::new(TCP, 23),
            rule: RuleSlot::NONE,
        },
    ]);
    let table = PortTable {
        offset: 0,
        length: 2,
    };
    let any = |protocol| search_ports(&entries, table, Service::any_of(protocol));
    assert_eq!(any(TCP), RuleSlot(1));
    assert_eq!(any(17), RuleSlot::NONE);
}

/// One slot for all addresses from 10.0.0.0 on.
struct OneSlot(Vec<IntervalV4>);

impl Ranges for OneSlot {
    fn slot(&self, index: u32) -> Option<RangeSlot> {
        let length = self.0.len() as u32;
        (index == 0).then_some(RangeSlot { offset: 0, length })
    }

    fn interval_v4(&self, index: u32) -> Option<IntervalV4> {
        self.0.get(index as usize).copied()
    }

    fn interval_v6(&self, _index: u32) -> Option<IntervalV6> {
        None
    }

    fn nested(&self, _index: u32) -> Option<RangeTable> {
        None
    }
}

#[test]
fn an_address_has_the_value_of_the_interval_it_lies_in() {
    let base = u32::from_be_bytes([10, 0, 0, 0]);
    let interval = |number: u32| IntervalV4 {
        start: base + number * 16,
        value: number + 1,
    };
    let ranges = OneSlot((0..50).map(interval).collect());
    let table = RangeTable {
        base: base.into(),
        slots: 1,
        shift: 32,
        ..RangeTable::default()
    };
    let value = |address: u32| {
        let address = Addr::from_v4(address.to_be_bytes());
        search_ranges(&ranges, &table, &address)
    };
    assert_eq!(value(base - 1), 0, "before the first one");
    for offset in 0..800 {
        assert_eq!(value(base + offset), offset / 16 + 1, "{offset}");
    }
    assert_eq!(value(u32::MAX), 50, "behind the last one");
}
