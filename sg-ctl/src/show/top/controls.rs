//! What the user has chosen to see.

use std::cmp::Ordering;

use crate::observe::{InterfaceKey, Load, Overview, PeerDrops, RuleRate};

/// What rows are sorted by, the most of it first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// Packets per second.
    #[default]
    Packets,
    /// Bytes per second.
    Bytes,
    /// Packets ever.
    Total,
}

impl Sort {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets/s",
            Self::Bytes => "bytes/s",
            Self::Total => "total",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Packets => Self::Bytes,
            Self::Bytes => Self::Total,
            Self::Total => Self::Packets,
        }
    }

    /// What is more comes first; ties are broken by what was ever.
    fn compare(self, a: (f64, f64, u64), b: (f64, f64, u64)) -> Ordering {
        let by_rate = match self {
            Self::Packets => b.0.total_cmp(&a.0),
            Self::Bytes => b.1.total_cmp(&a.1),
            Self::Total => Ordering::Equal,
        };
        by_rate.then(b.2.cmp(&a.2))
    }

    pub(super) fn loads(self, a: &Load, b: &Load) -> Ordering {
        let of = |load: &Load| (load.packets_per_second, load.bytes_per_second, load.packets);
        self.compare(of(a), of(b))
    }

    pub(super) fn rules(self, a: &RuleRate, b: &RuleRate) -> Ordering {
        let of = |rule: &RuleRate| {
            let growth = &rule.growth;
            let rates = (growth.packets_per_second, growth.bytes_per_second);
            (rates.0, rates.1, rule.total.packets)
        };
        self.compare(of(a), of(b))
    }

    pub(super) fn peers(self, a: &PeerDrops, b: &PeerDrops) -> Ordering {
        let of = |peer: &PeerDrops| (peer.packets_per_second, peer.bytes_per_second, peer.packets);
        self.compare(of(a), of(b))
    }
}

/// A key of the keyboard, as far as it means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A letter or sign.
    Letter(char),
    /// Up.
    Up,
    /// Down.
    Down,
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
}

/// What the user has chosen to see.
#[derive(Clone, Debug, Default)]
pub struct TopControls {
    pub(super) sort: Sort,
    pub(super) filter: String,
    /// The filter is being written.
    pub(super) is_writing: bool,
    /// One interface alone.
    pub(super) interface: Option<InterfaceKey>,
    pub(super) only_drops: bool,
    pub(super) is_paused: bool,
    pub(super) is_helping: bool,
}

impl TopControls {
    /// Whether what is shown stays as it is.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Does what a key asks for. Returns whether it asks to end.
    pub fn press(&mut self, key: Key, overview: &Overview) -> bool {
        if self.is_writing {
            self.write(key);
            return false;
        }
        match key {
            Key::Letter('q') => return true,
            Key::Escape if self.is_helping => self.is_helping = false,
            Key::Escape => {
                self.filter.clear();
                self.interface = None;
            }
            Key::Letter('?' | 'h') => self.is_helping = !self.is_helping,
            Key::Letter('/') => self.is_writing = true,
            Key::Letter('s') => self.sort = self.sort.next(),
            Key::Letter('d') => self.only_drops = !self.only_drops,
            Key::Letter(' ' | 'p') => self.is_paused = !self.is_paused,
            Key::Up | Key::Letter('k') => self.choose(overview, false),
            Key::Down | Key::Letter('j') => self.choose(overview, true),
            _ => {}
        }
        false
    }

    fn write(&mut self, key: Key) {
        match key {
            Key::Letter(letter) => self.filter.push(letter),
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Enter => self.is_writing = false,
            Key::Escape => {
                self.filter.clear();
                self.is_writing = false;
            }
            Key::Up | Key::Down => {}
        }
    }

    /// The next interface, or all of them, which stand before the first.
    fn choose(&mut self, overview: &Overview, down: bool) {
        let keys: Vec<_> = overview.interfaces.iter().map(|each| &each.key).collect();
        let chosen = self.interface.as_ref();
        let at = keys.iter().position(|key| Some(*key) == chosen);
        let next = match (at, down) {
            (None, true) => Some(0),
            (None, false) => keys.len().checked_sub(1),
            (Some(at), true) => Some(at + 1),
            (Some(at), false) => at.checked_sub(1),
        };
        self.interface = next.and_then(|at| keys.get(at)).map(|key| (*key).clone());
    }

    pub(super) fn shows(&self, interface: &InterfaceKey) -> bool {
        self.interface.as_ref().is_none_or(|only| only == interface)
    }

    /// Whether any of the texts has what is looked for.
    pub(super) fn finds(&self, texts: &[&str]) -> bool {
        let wanted = self.filter.to_lowercase();
        wanted.is_empty()
            || texts
                .iter()
                .any(|text| text.to_lowercase().contains(&wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::InterfaceLoad;

    fn overview() -> Overview {
        let interface = |name: &str| InterfaceLoad {
            key: ("default".parse().unwrap(), name.parse().unwrap()),
            attached: true,
            audit: false,
            pass: Load::default(),
            drop: Load::default(),
        };
        Overview {
            interfaces: vec![interface("eth0"), interface("eth1")],
            ..Overview::default()
        }
    }

    fn after(keys: &[Key]) -> TopControls {
        let mut controls = TopControls::default();
        for key in keys {
            assert!(!controls.press(*key, &overview()));
        }
        controls
    }

    fn chosen(keys: &[Key]) -> Option<String> {
        let interface = after(keys).interface;
        interface.map(|(_, name)| name.to_string())
    }

    #[test]
    fn arrows_go_round_through_all_and_each() {
        assert_eq!(chosen(&[Key::Down]).as_deref(), Some("eth0"));
        assert_eq!(chosen(&[Key::Down, Key::Down]).as_deref(), Some("eth1"));
        assert_eq!(chosen(&[Key::Down, Key::Down, Key::Down]), None);
        assert_eq!(chosen(&[Key::Up]).as_deref(), Some("eth1"));
        assert_eq!(chosen(&[Key::Down, Key::Up]), None);
        assert_eq!(chosen(&[Key::Down, Key::Escape]), None);
    }

    #[test]
    fn letters_of_a_filter_are_no_commands() {
        let [slash, q, s] = ['/', 'q', 's'].map(Key::Letter);
        let controls = after(&[slash, q, s, Key::Backspace, Key::Enter]);
        assert_eq!(
            (controls.filter.as_str(), controls.sort),
            ("q", Sort::Packets)
        );
        assert!(controls.finds(&["SQL"]) && !controls.finds(&["web"]));
        assert!(after(&[slash, q, Key::Escape]).filter.is_empty());
        assert!(TopControls::default().press(q, &overview()), "q ends");
    }

    #[test]
    fn what_is_sorted_by_goes_round() {
        let s = Key::Letter('s');
        assert_eq!(after(&[s]).sort, Sort::Bytes);
        assert_eq!(after(&[s, s]).sort, Sort::Total);
        assert_eq!(after(&[s, s, s]).sort, Sort::Packets);
    }
}
