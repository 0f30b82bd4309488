//! The full-screen view, drawn from what is known and what the user has chosen, and from nothing
//! else.

mod controls;
mod tables;

use jiff::tz::TimeZone;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style as Look};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Gauge, Paragraph};

pub use controls::{Key, TopControls};

use super::style::Style;
use super::words::{count, number};
use crate::observe::{FlowsStatus, Overview};

/// Smaller than this there is no room for anything.
const SMALLEST: (u16, u16) = (40, 10);

/// The colours, or what stands for them where there are none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looks {
    coloured: bool,
}

impl Looks {
    fn colour(self, colour: Color) -> Look {
        match self.coloured {
            true => Look::new().fg(colour),
            false => Look::new(),
        }
    }

    fn dropped(self) -> Look {
        self.colour(Color::Red)
    }

    fn would_drop(self) -> Look {
        self.colour(Color::Yellow)
    }

    fn trend(self) -> Look {
        self.colour(Color::Cyan)
    }

    fn title(self) -> Look {
        Look::new().add_modifier(Modifier::BOLD)
    }
}

/// Draws everything.
pub fn top(frame: &mut Frame<'_>, overview: &Overview, controls: &TopControls, style: Style) {
    let zone = TimeZone::system();
    draw(frame, overview, controls, style, zone);
}

fn draw(
    frame: &mut Frame<'_>,
    overview: &Overview,
    controls: &TopControls,
    style: Style,
    zone: TimeZone,
) {
    let looks = Looks {
        coloured: style.is_coloured(),
    };
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        frame.render_widget(Paragraph::new("make the window larger; q quits"), area);
        return;
    }
    let interfaces = u16::try_from(overview.interfaces.len()).unwrap_or(u16::MAX);
    let [heading, gauge, first, second, third, help] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        // A line each, with one for all of them and the titles, in at most a third of the screen.
        Constraint::Length((interfaces.saturating_add(3)).min(area.height / 3).max(4)),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(heading_line(overview, controls, looks, zone), heading);
    flows(frame, overview.flows, looks, gauge);
    tables::interfaces(frame, overview, controls, looks, first);
    // A line stays free below.
    let second = Rect {
        height: second.height.saturating_sub(1),
        ..second
    };
    tables::reasons(frame, overview, controls, looks, second);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)])
        .spacing(2)
        .areas(third);
    tables::rules(frame, overview, controls, looks, left);
    tables::peers(frame, overview, controls, looks, right);
    frame.render_widget(help_line(controls, looks, help.width), help);
    if controls.is_helping {
        explain_keys(frame, area);
    }
}

fn heading_line(
    overview: &Overview,
    controls: &TopControls,
    looks: Looks,
    zone: TimeZone,
) -> Line<'static> {
    let time = overview
        .time
        .to_zoned(zone)
        .strftime("%H:%M:%S")
        .to_string();
    let audited = overview.interfaces.iter().filter(|each| each.audit).count();
    let mut parts = vec![
        Span::styled("sg top", looks.title()),
        Span::raw(format!(
            "  {time}  {}, policy revision {}",
            count(overview.interfaces.len(), "interface"),
            overview.revision
        )),
    ];
    if audited > 0 {
        let text = format!("  {audited} only audited");
        parts.push(Span::styled(text, looks.would_drop()));
    }
    if overview.unseen_drops > 0 {
        let unseen = number(overview.unseen_drops);
        parts.push(Span::raw(format!("  {unseen} drops untold")));
    }
    if controls.is_paused {
        parts.push(Span::styled("  PAUSED", looks.title()));
    }
    Line::from(parts)
}

fn flows(frame: &mut Frame<'_>, flows: FlowsStatus, looks: Looks, area: Rect) {
    let share = match flows.capacity {
        0 => 0.0,
        capacity => (flows.assured as f64 / capacity as f64).min(1.0),
    };
    let look = match share {
        share if share >= 0.9 => looks.dropped(),
        share if share >= 0.7 => looks.would_drop(),
        _ => looks.trend(),
    };
    let label = format!(
        "flows: {} of {} ({:.1} %), {} embryonic",
        number(flows.assured),
        number(flows.capacity),
        share * 100.0,
        number(flows.embryonic)
    );
    let width = u16::try_from(label.chars().count()).unwrap_or(u16::MAX);
    let [text, bar] = Layout::horizontal([Constraint::Length(width), Constraint::Fill(1)])
        .spacing(2)
        .areas(area);
    frame.render_widget(Line::raw(label), text);
    let gauge = Gauge::default()
        .ratio(share)
        .gauge_style(look)
        .use_unicode(true)
        .label("");
    frame.render_widget(gauge, bar);
}

/// The keys, as many as fit.
fn help_line(controls: &TopControls, looks: Looks, width: u16) -> Line<'static> {
    if controls.is_writing {
        return Line::raw(format!(
            "filter: {}_   Enter keeps it, Esc clears it",
            controls.filter
        ));
    }
    let filter = match controls.filter.as_str() {
        "" => "filter".to_owned(),
        filter => format!("filter: {filter}"),
    };
    let drops = if controls.only_drops {
        "everything"
    } else {
        "only drops"
    };
    let pause = if controls.is_paused { "go on" } else { "pause" };
    let mut line = Line::default();
    for (key, what) in [
        ("q", "quit".to_owned()),
        ("?", "help".to_owned()),
        ("\u{2191}\u{2193}", "interface".to_owned()),
        ("s", format!("sort: {}", controls.sort.name())),
        ("/", filter),
        ("d", drops.to_owned()),
        ("space", pause.to_owned()),
    ] {
        let key = Span::styled(key.to_owned(), looks.title());
        let what = Span::raw(format!(" {what}  "));
        if line.width() + key.width() + what.width() > usize::from(width) + 2 {
            break;
        }
        line.push_span(key);
        line.push_span(what);
    }
    line
}

fn explain_keys(frame: &mut Frame<'_>, area: Rect) {
    const TEXT: [&str; 11] = [
        "q, Ctrl-C    quit",
        "up, down     one interface, or all",
        "s            sort by packets/s, bytes/s, total",
        "/            show what has these letters",
        "d            only drops, or everything",
        "space        pause",
        "Esc          all interfaces, no filter",
        "",
        "Rates are of the last second. Peers are those that the",
        "kernel tells of; in a flood it tells a part and counts",
        "the rest.",
    ];
    let [wide] = Layout::horizontal([Constraint::Max(60)])
        .flex(ratatui::layout::Flex::Center)
        .areas(area);
    let [window] = Layout::vertical([Constraint::Max(TEXT.len() as u16 + 2)])
        .flex(ratatui::layout::Flex::Center)
        .areas(wide);
    frame.render_widget(Clear, window);
    let text: Vec<_> = TEXT.iter().map(|line| Line::raw(*line)).collect();
    frame.render_widget(
        Paragraph::new(text).block(Block::bordered().title(" keys ")),
        window,
    );
}

#[cfg(test)]
mod tests;
