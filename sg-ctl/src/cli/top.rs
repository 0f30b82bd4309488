//! The full-screen view.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::dirs::DirOptions;
use crate::observe::{Overview, Watcher};
use crate::show::{self, Key, Style, TopControls};

use super::Answer;
use super::error::{Error, Result};
use super::interrupt::Interrupt;
use super::time::time;

/// The shortest and the longest time between two looks.
const EVERY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// How often keys and events are looked for.
const POLL: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub(super) struct Top {
    /// How often to look
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time(EVERY[0], EVERY[1]))]
    every: Duration,
}

impl Top {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Err(Error::NoTerminal);
        }
        let interrupt = Interrupt::catch()?;
        let mut watcher = Watcher::open(dirs)?;
        let first = watcher.look()?;
        // Also sees to it that a panic leaves the terminal as it was.
        let mut terminal = ratatui::try_init().map_err(Error::Write)?;
        let every = self.every;
        let result = follow(&mut terminal, &mut watcher, first, every, &interrupt);
        let restored = ratatui::try_restore().map_err(Error::Write);
        result.and(restored).map(|()| Answer::Yes)
    }
}

fn follow(
    terminal: &mut DefaultTerminal,
    watcher: &mut Watcher,
    first: Overview,
    every: Duration,
    interrupt: &Interrupt,
) -> Result<()> {
    let style = Style::of_stdout();
    let mut overview = first;
    let mut controls = TopControls::default();
    let mut looked = Instant::now();
    let mut is_stale = true;
    loop {
        if is_stale {
            let draw = |frame: &mut ratatui::Frame<'_>| {
                show::top(frame, &overview, &controls, style);
            };
            terminal.draw(draw).map_err(Error::Write)?;
            is_stale = false;
        }
        if interrupt.comes_within(Duration::ZERO) {
            return Ok(());
        }
        // Keys that have come together are taken together.
        let mut patience = POLL;
        while event::poll(patience).map_err(Error::Write)? {
            patience = Duration::ZERO;
            is_stale = true;
            if let Event::Key(pressed) = event::read().map_err(Error::Write)? {
                let is_interrupt = pressed.modifiers.contains(KeyModifiers::CONTROL)
                    && pressed.code == KeyCode::Char('c');
                let key = key(pressed.code).filter(|_| pressed.kind != KeyEventKind::Release);
                if is_interrupt || key.is_some_and(|key| controls.press(key, &overview)) {
                    return Ok(());
                }
            }
        }
        watcher.listen()?;
        if looked.elapsed() >= every {
            looked = Instant::now();
            let now = watcher.look()?;
            if !controls.is_paused() {
                overview = now;
                is_stale = true;
            }
        }
    }
}

fn key(code: KeyCode) -> Option<Key> {
    Some(match code {
        KeyCode::Char(letter) => Key::Letter(letter),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    })
}
