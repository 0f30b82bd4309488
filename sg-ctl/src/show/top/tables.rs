//! The tables of the full-screen view.

use std::collections::{BTreeMap, VecDeque};

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::Style as Look;
use ratatui::text::Text;
use ratatui::widgets::{Cell, Paragraph, Row, Table, Wrap};
use sg_common::packet::Direction;
use sg_common::report::{Reason, Verdict};

use super::super::rates::verdict;
use super::super::words::{bytes, number, per_second};
use super::Looks;
use super::controls::TopControls;
use crate::observe::{InterfaceLoad, Load, Overview};

/// What a table is made of.
struct Content {
    title: &'static str,
    titles: Vec<&'static str>,
    widths: Vec<Constraint>,
    /// The fields of each row, with the row's look.
    rows: Vec<(Vec<Field>, Look)>,
    /// What is said instead of rows.
    nothing: String,
}

fn render(frame: &mut Frame<'_>, content: Content, looks: Looks, area: Rect) {
    let Content {
        title,
        titles,
        widths,
        rows,
        nothing,
    } = content;
    if rows.is_empty() {
        let text = format!("{title}: {nothing}");
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let head = titles.into_iter().map(|name| match name {
        name if NUMBERS.contains(&name) => right(name.to_owned()),
        name => left(name),
    });
    let columns = Layout::horizontal(&widths).spacing(SPACING).split(area);
    let row = |fields: Vec<Field>| {
        let fields = fields.into_iter().zip(columns.iter());
        Row::new(fields.map(|(field, column)| field.cell(column.width)))
    };
    let head = row(head.collect()).style(looks.title());
    let rows = rows
        .into_iter()
        .map(|(fields, look)| row(fields).style(look));
    let table = Table::new(rows, &widths)
        .header(head)
        .column_spacing(SPACING);
    frame.render_widget(table, area);
}

/// Between two columns.
const SPACING: u16 = 2;

/// What stands in one column of a row.
struct Field {
    text: String,
    alignment: Alignment,
    look: Look,
}

impl Field {
    /// The text, with a mark where it is cut.
    fn cell(self, width: u16) -> Cell<'static> {
        let text = cut(self.text, usize::from(width));
        Cell::from(Text::from(text).alignment(self.alignment)).style(self.look)
    }

    fn look(self, look: Look) -> Self {
        Self { look, ..self }
    }
}

/// A text that is too long ends in `…`. Nothing here takes two places on a screen.
fn cut(text: String, width: usize) -> String {
    if text.chars().count() <= width {
        return text;
    }
    let kept = text.chars().take(width.saturating_sub(1));
    kept.chain(['…']).take(width).collect()
}

/// From this width on there is room for bytes.
const WIDE: u16 = 100;

/// Titles of columns that keep to the right.
const NUMBERS: [&str; 6] = [
    "PASS/S",
    "DROP/S",
    "BYTES/S",
    "PACKETS/S",
    "TOTAL",
    "DROPPED",
];

fn left(text: impl Into<String>) -> Field {
    Field {
        text: text.into(),
        alignment: Alignment::Left,
        look: Look::new(),
    }
}

fn right(text: String) -> Field {
    Field {
        alignment: Alignment::Right,
        ..left(text)
    }
}

fn look_of(reason: Reason, is_audited: bool, is_busy: bool, looks: Looks) -> Look {
    match reason.verdict() {
        Verdict::Drop if !is_busy => Look::new(),
        Verdict::Drop if is_audited => looks.would_drop(),
        Verdict::Drop => looks.dropped(),
        Verdict::Pass => Look::new(),
    }
}

/// A history as a line of bars, the last one rightmost.
fn trend(history: &VecDeque<f64>, width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let skipped = history.len().saturating_sub(width);
    let most = history.iter().skip(skipped).copied().fold(0.0, f64::max);
    let bar = |rate: &f64| {
        if *rate <= 0.0 || most <= 0.0 {
            return ' ';
        }
        let height = (rate / most * BARS.len() as f64).ceil() as usize;
        BARS[height.clamp(1, BARS.len()) - 1]
    };
    history.iter().skip(skipped).map(bar).collect()
}

fn trend_field(load: &Load, width: u16, looks: Looks) -> Field {
    right(trend(&load.history, usize::from(width))).look(looks.trend())
}

/// Every interface, and all of them.
pub(super) fn interfaces(
    frame: &mut Frame<'_>,
    overview: &Overview,
    controls: &TopControls,
    looks: Looks,
    area: Rect,
) {
    let is_wide = area.width >= WIDE;
    let fixed = 16 + 9 + 9 + 9 + 4 * 2 + if is_wide { 9 + 2 } else { 0 };
    let trend_width = area.width.saturating_sub(fixed);
    let row = |name: String, state: &'static str, pass: &Load, drop: &Load, is_chosen: bool| {
        let mark = if is_chosen { ">" } else { " " };
        let dropped = match drop.packets_per_second > 0.0 {
            true if state == "audited" => looks.would_drop(),
            true => looks.dropped(),
            false => Look::new(),
        };
        let mut cells = vec![
            left(format!("{mark} {name}")),
            left(state),
            right(per_second(pass.packets_per_second)),
        ];
        if is_wide {
            cells.push(right(bytes(pass.bytes_per_second as u64)));
        }
        cells.push(right(per_second(drop.packets_per_second)).look(dropped));
        cells.push(trend_field(pass, trend_width, looks));
        match is_chosen {
            true => (cells, looks.title()),
            false => (cells, Look::new()),
        }
    };
    let (mut pass, mut drop) = (Load::default(), Load::default());
    for interface in &overview.interfaces {
        pass.add(&interface.pass);
        drop.add(&interface.drop);
    }
    let mut rows = vec![row(
        "all".to_owned(),
        "",
        &pass,
        &drop,
        controls.interface.is_none(),
    )];
    // A filter that names no interface is about something else.
    let is_about_names = overview
        .interfaces
        .iter()
        .any(|each| is_found(each, controls));
    let mut found: Vec<&InterfaceLoad> = overview
        .interfaces
        .iter()
        .filter(|each| !is_about_names || is_found(each, controls))
        .collect();
    // The chosen one is always to be seen.
    let room = usize::from(area.height.saturating_sub(2)).max(1);
    let chosen = found
        .iter()
        .position(|each| Some(&each.key) == controls.interface.as_ref());
    if let Some(at) = chosen
        && at >= room
    {
        found.drain(..=(at - room));
    }
    rows.extend(found.into_iter().map(|each| {
        let state = match (each.attached, each.audit) {
            (false, _) => "detached",
            (true, true) => "audited",
            (true, false) => "protected",
        };
        let is_chosen = controls.interface.as_ref() == Some(&each.key);
        row(
            each.key.1.to_string(),
            state,
            &each.pass,
            &each.drop,
            is_chosen,
        )
    }));
    if overview.interfaces.is_empty() {
        rows.clear();
    }
    let mut titles = vec!["  INTERFACE", "STATE", "PASS/S"];
    let mut widths = vec![
        Constraint::Length(16),
        Constraint::Length(9),
        Constraint::Length(9),
    ];
    if is_wide {
        titles.push("BYTES/S");
        widths.push(Constraint::Length(9));
    }
    titles.extend(["DROP/S", "PASSED, LOOK BY LOOK"]);
    widths.extend([Constraint::Length(9), Constraint::Fill(1)]);
    let content = Content {
        title: "interfaces",
        titles,
        widths,
        rows,
        nothing: "none is protected; attach one with `sg-ctl attach IFACE`".to_owned(),
    };
    render(frame, content, looks, area);
}

fn is_found(interface: &InterfaceLoad, controls: &TopControls) -> bool {
    let (vpc, name) = &interface.key;
    controls.finds(&[name.as_str(), vpc.as_str()])
}

/// Verdicts by reason, of the interfaces that are shown.
pub(super) fn reasons(
    frame: &mut Frame<'_>,
    overview: &Overview,
    controls: &TopControls,
    looks: Looks,
    area: Rect,
) {
    let mut sums: BTreeMap<(Direction, bool, Reason), Load> = BTreeMap::new();
    for counted in &overview.reasons {
        let is_dropped = counted.reason.verdict() == Verdict::Drop;
        let name = counted.interface.1.as_str();
        if !controls.shows(&counted.interface)
            || (controls.only_drops && !is_dropped)
            || !controls.finds(&[counted.reason.name(), counted.direction.name(), name])
        {
            continue;
        }
        let is_audited = is_dropped && counted.audit;
        let key = (counted.direction, is_audited, counted.reason);
        sums.entry(key).or_default().add(&counted.load);
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|(_, a), (_, b)| controls.sort.loads(a, b));
    let is_wide = area.width >= WIDE;
    let fixed = 7 + 10 + 20 + 9 + 11 + 5 * 2 + if is_wide { 9 + 2 } else { 0 };
    let trend_width = area.width.saturating_sub(fixed);
    let rows = sums.iter().map(|((direction, is_audited, reason), load)| {
        let is_busy = load.packets_per_second > 0.0;
        let mut cells = vec![
            left(direction.name()),
            left(verdict(*reason, *is_audited)),
            left(reason.name()),
            right(per_second(load.packets_per_second)),
        ];
        if is_wide {
            cells.push(right(bytes(load.bytes_per_second as u64)));
        }
        cells.push(right(number(load.packets)));
        cells.push(trend_field(load, trend_width, looks));
        (cells, look_of(*reason, *is_audited, is_busy, looks))
    });
    let mut titles = vec!["", "VERDICT", "REASON", "PACKETS/S"];
    let mut widths = vec![
        Constraint::Length(7),
        Constraint::Length(10),
        Constraint::Length(20),
        Constraint::Length(9),
    ];
    if is_wide {
        titles.push("BYTES/S");
        widths.push(Constraint::Length(9));
    }
    titles.extend(["TOTAL", "LOOK BY LOOK"]);
    widths.extend([Constraint::Length(11), Constraint::Fill(1)]);
    let content = Content {
        title: "reasons",
        titles,
        widths,
        rows: rows.collect(),
        nothing: "no packet of the kind was counted".to_owned(),
    };
    render(frame, content, looks, area);
}

/// The rules that admit most.
pub(super) fn rules(
    frame: &mut Frame<'_>,
    overview: &Overview,
    controls: &TopControls,
    looks: Looks,
    area: Rect,
) {
    let mut rules: Vec<_> = overview.rules.iter().collect();
    rules.sort_by(|a, b| controls.sort.rules(a, b));
    let is_wide = area.width >= 70;
    let rows = rules.iter().filter_map(|rule| {
        let total = &rule.total;
        let (allows, id) = (total.permission.to_string(), total.id.to_string());
        if !controls.finds(&[&allows, &id, total.group.as_str()]) {
            return None;
        }
        let mut cells = vec![left(format!("{}: {allows}", total.group))];
        if is_wide {
            cells.push(left(id));
            cells.push(right(number(total.packets)));
        }
        cells.push(right(per_second(rule.growth.packets_per_second)));
        Some((cells, Look::new()))
    });
    let mut titles = vec!["RULE"];
    let mut widths = vec![Constraint::Fill(1)];
    if is_wide {
        titles.extend(["ID", "TOTAL"]);
        widths.extend([Constraint::Length(21), Constraint::Length(11)]);
    }
    titles.push("PACKETS/S");
    widths.push(Constraint::Length(9));
    let content = Content {
        title: "rules",
        titles,
        widths,
        rows: rows.collect(),
        nothing: "none of the kind has admitted anything".to_owned(),
    };
    render(frame, content, looks, area);
}

/// Whose packets are dropped.
pub(super) fn peers(
    frame: &mut Frame<'_>,
    overview: &Overview,
    controls: &TopControls,
    looks: Looks,
    area: Rect,
) {
    let mut peers: Vec<_> = overview.peers.iter().collect();
    peers.sort_by(|a, b| controls.sort.peers(a, b).then_with(|| a.peer.cmp(&b.peer)));
    let is_wide = area.width >= 70;
    let rows = peers.iter().filter_map(|peer| {
        let address = peer.peer.to_string();
        let (reason, interface) = (peer.reason.name(), peer.interface.1.as_str());
        if !controls.shows(&peer.interface)
            || !controls.finds(&[&address, reason, &peer.service, interface])
        {
            return None;
        }
        let mut cells = vec![left(address)];
        if is_wide {
            cells.push(left(interface.to_owned()));
            cells.push(left(reason));
        }
        cells.push(left(peer.service.clone()));
        cells.push(right(number(peer.packets)));
        if is_wide {
            cells.push(right(per_second(peer.packets_per_second)));
        }
        Some((cells, Look::new()))
    });
    let mut titles = vec!["DROPPED PEER"];
    let mut widths = vec![Constraint::Fill(1)];
    if is_wide {
        titles.extend(["AT", "REASON"]);
        widths.extend([Constraint::Length(10), Constraint::Length(18)]);
    }
    titles.extend(["FOR", "DROPPED"]);
    widths.extend([Constraint::Length(9), Constraint::Length(8)]);
    if is_wide {
        titles.push("DROP/S");
        widths.push(Constraint::Length(8));
    }
    let nothing = match (&overview.peers_missing, overview.unseen_drops) {
        (Some(why), _) => why.clone(),
        (None, 0) => "none since this began".to_owned(),
        (None, unseen) => format!("none told; {} packets were counted only", number(unseen)),
    };
    let content = Content {
        title: "dropped peers",
        titles,
        widths,
        rows: rows.collect(),
        nothing,
    };
    render(frame, content, looks, area);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_ends_in_a_mark() {
        let text = || "interface-with-a-name".to_owned();
        assert_eq!(cut(text(), 21), text());
        assert_eq!(cut(text(), 9), "interfac…");
        assert_eq!(cut(text(), 1), "…");
        assert_eq!(cut(text(), 0), "");
    }

    #[test]
    fn a_trend_ends_with_the_last_look() {
        let history: VecDeque<f64> = [0.0, 1.0, 50.0, 100.0].into();
        assert_eq!(trend(&history, 10), " ▁▄█");
        assert_eq!(trend(&history, 2), "▄█");
        assert_eq!(trend(&VecDeque::from([0.0, 0.0]), 5), "  ");
    }
}
