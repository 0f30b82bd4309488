//! What is drawn for what is known, on screens of every size.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use sg_common::packet::Direction;
use sg_common::report::Reason;

use super::*;
use crate::observe::{
    Growth, InterfaceKey, InterfaceLoad, Load, PeerDrops, ReasonLoad, RuleRate, RuleStats,
};
use crate::policy::model::{Peer, Permission, PortRange, Traffic};

fn load(packets_per_second: f64, packets: u64) -> Load {
    Load {
        packets_per_second,
        bytes_per_second: packets_per_second * 60.0,
        packets,
        history: [0.0, packets_per_second / 2.0, packets_per_second].into(),
    }
}

fn key(name: &str) -> InterfaceKey {
    ("default".parse().unwrap(), name.parse().unwrap())
}

fn overview() -> Overview {
    let interface = |name: &str, audit: bool| InterfaceLoad {
        key: key(name),
        attached: true,
        audit,
        pass: load(1_200.0, 40_000),
        drop: load(7.0, 90),
    };
    let reason = |name: &str, reason, audit, rate| ReasonLoad {
        interface: key(name),
        audit,
        direction: Direction::Ingress,
        reason,
        load: load(rate, 90),
    };
    Overview {
        time: "2026-05-04T10:11:12Z".parse().unwrap(),
        revision: 4,
        interfaces: vec![interface("eth0", false), interface("eth1", true)],
        reasons: vec![
            reason("eth0", Reason::Tracked, false, 1_200.0),
            reason("eth0", Reason::NoRule, false, 7.0),
            reason("eth1", Reason::NoRule, true, 3.0),
        ],
        rules: vec![RuleRate {
            total: RuleStats {
                id: "sgr-00000000000000001".parse().unwrap(),
                vpc: "default".parse().unwrap(),
                group: "web".parse().unwrap(),
                direction: Direction::Ingress,
                permission: Permission {
                    direction: Direction::Ingress,
                    traffic: Traffic::Tcp(PortRange::new(443, 443).unwrap()),
                    peer: Peer::Prefix("0.0.0.0/0".parse().unwrap()),
                },
                packets: 9_000,
                bytes: 540_000,
                flows: 12,
                last_hit: None,
                last_hit_s_ago: None,
            },
            growth: Growth {
                packets_per_second: 55.0,
                ..Growth::default()
            },
        }],
        peers: vec![
            PeerDrops::example(&key("eth0"), "198.51.100.7", 40),
            PeerDrops::example(&key("eth1"), "2001:db8::77", 50),
        ],
        peers_missing: None,
        unseen_drops: 0,
        flows: FlowsStatus {
            embryonic: 12,
            assured: 26_214,
            capacity: 262_144,
        },
    }
}

fn drawn(overview: &Overview, controls: &TopControls, size: (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal
        .draw(|frame| draw(frame, overview, controls, Style::PLAIN, TimeZone::UTC))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(size.0));
    let rows = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
    rows.map(|row| format!("{}\n", row.trim_end())).collect()
}

fn pressed(keys: &str) -> TopControls {
    let mut controls = TopControls::default();
    for letter in keys.chars() {
        controls.press(Key::Letter(letter), &overview());
    }
    controls
}

#[test]
fn a_small_screen_has_everything() {
    let shown = drawn(&overview(), &TopControls::default(), (80, 24));
    assert_eq!(
        shown,
        "\
sg top  10:11:12  2 interfaces, policy revision 4  1 only audited
flows: 26,214 of 262,144 (10.0 %), 12 embryonic  ███▏
  INTERFACE       STATE         PASS/S     DROP/S  PASSED, LOOK BY LOOK
> all                            2,400         14                             ▄█
  eth0            protected      1,200        7.0                             ▄█
  eth1            audited        1,200        7.0                             ▄█

         VERDICT     REASON                PACKETS/S        TOTAL  LOOK BY LOOK
ingress  pass        tracked                   1,200           90             ▄█
ingress  drop        no-rule                     7.0           90             ▄█
ingress  would drop  no-rule                     3.0           90             ▄█




RULE                          PACKETS/S  DROPPED PEER        FOR         DROPPED
web: tcp 443 from 0.0.0.0/0          55  2001:db8::77        tcp 22           50
                                         198.51.100.7        tcp 22           40





q quit  ? help  ↑↓ interface  s sort: packets/s  / filter  d only drops
"
    );
}

#[test]
fn one_interface_alone_is_shown_with_what_is_its() {
    let shown = drawn(&overview(), &pressed("jj"), (80, 24));
    assert!(shown.contains("> eth1"), "{shown}");
    assert!(shown.contains("would drop"), "{shown}");
    assert!(!shown.contains("tracked"), "{shown}");
    assert!(!shown.contains("198.51.100.7"), "{shown}");
}

#[test]
fn a_filter_leaves_what_has_its_letters() {
    let shown = drawn(&overview(), &pressed("/198.51"), (80, 24));
    assert!(shown.contains("198.51.100.7"), "{shown}");
    assert!(!shown.contains("2001:db8::77"), "{shown}");
    assert!(shown.contains("filter: 198.51_"), "{shown}");
}

#[test]
fn only_drops_leaves_out_what_passes() {
    let shown = drawn(&overview(), &pressed("d"), (80, 24));
    assert!(!shown.contains("tracked"), "{shown}");
    assert!(shown.contains("no-rule"), "{shown}");
}

#[test]
fn a_wide_screen_names_rules_and_reasons_whole() {
    let shown = drawn(&overview(), &TopControls::default(), (200, 50));
    assert!(shown.contains("sgr-00000000000000001"), "{shown}");
    assert!(shown.contains("198.51.100.7"), "{shown}");
    assert_eq!(shown.lines().count(), 50);
}

#[test]
fn every_size_can_be_drawn() {
    let help = pressed("?");
    for width in 1..120 {
        for height in [1, 2, 5, 9, 10, 11, 24, 60] {
            drawn(&overview(), &help, (width, height));
            drawn(
                &Overview::default(),
                &TopControls::default(),
                (width, height),
            );
        }
    }
}
