//! Looking at the counters again and again.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ratatui::crossterm::cursor::{Hide, MoveTo, Show};
use ratatui::crossterm::queue;
use ratatui::crossterm::style::Print;
use ratatui::crossterm::terminal::{
    Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen,
    size,
};

use crate::controller::View;
use crate::dirs::DirOptions;
use crate::observe::{Rates, Stats};
use crate::policy::names::InterfaceName;
use crate::show::{self, Style};

use super::Answer;
use super::error::{Error, Result};
use super::interrupt::Interrupt;
use super::output::{Output, json_line};

/// Where the rates go.
enum Display {
    /// An object a line.
    Json(Output),
    /// Lines as they come.
    Pipe(Output),
    /// The same place again and again.
    Screen(Screen),
}

/// Shows how fast counters grow until interrupted.
pub(super) fn watch(
    dirs: &DirOptions,
    only: Option<&InterfaceName>,
    every: Duration,
    json: bool,
) -> Result<Answer> {
    let interrupt = Interrupt::catch()?;
    let mut before = read(dirs, only)?;
    let mut looked = Instant::now();
    let mut display = match (json, io::stdout().is_terminal()) {
        (true, _) => Display::Json(Output::new()),
        (false, false) => Display::Pipe(Output::new()),
        (false, true) => Display::Screen(Screen::open(every)?),
    };
    if let Display::Screen(screen) = &mut display {
        let nothing_yet = Rates::between(&before, before.clone(), every);
        screen.draw(&nothing_yet)?;
    }
    let mut next = every;
    while !interrupt.comes_within(next) {
        let after = read(dirs, only)?;
        let time = looked.elapsed();
        looked = Instant::now();
        let rates = Rates::between(&before, after.clone(), time);
        let has_gone = match &mut display {
            Display::Json(output) => {
                output.write(&json_line(&rates)?)?;
                output.flush()?
            }
            Display::Pipe(output) => {
                output.write(&show::rate_lines(&rates, Timestamp::now()))?;
                output.flush()?
            }
            Display::Screen(screen) => {
                screen.draw(&rates)?;
                false
            }
        };
        if has_gone {
            break;
        }
        before = after;
        // What the look itself took is not waited for again.
        next = every.saturating_sub(looked.elapsed());
    }
    Ok(Answer::Yes)
}

fn read(dirs: &DirOptions, only: Option<&InterfaceName>) -> Result<Stats> {
    let view = View::open(dirs)?;
    let dataplane = view.dataplane()?;
    Ok(Stats::read(&view.policy, dataplane.as_ref(), only)?)
}

/// The terminal's other screen. What was on the first is there again when this is dropped, and
/// below it what was shown last.
struct Screen {
    every: Duration,
    last: String,
}

impl Screen {
    fn open(every: Duration) -> Result<Self> {
        let screen = Self {
            every,
            last: String::new(),
        };
        queue!(io::stdout(), EnterAlternateScreen, DisableLineWrap, Hide).map_err(Error::Write)?;
        Ok(screen)
    }

    fn draw(&mut self, rates: &Rates) -> Result<()> {
        self.last = show::rates(rates, Style::of_stdout());
        let title = format!("every {} s; Ctrl-C ends\n\n", self.every.as_secs());
        let (_, height) = size().map_err(Error::Write)?;
        let mut to = io::stdout().lock();
        let lines: Vec<_> = title.lines().chain(self.last.lines()).collect();
        let room = usize::from(height.max(2)) - 1;
        let left_out = lines.len().saturating_sub(room + 1);
        queue!(to, MoveTo(0, 0)).map_err(Error::Write)?;
        let shown = if left_out > 0 { room } else { lines.len() };
        for (row, line) in lines.iter().take(shown).enumerate() {
            let end = if row + 1 < lines.len() { "\r\n" } else { "" };
            queue!(to, Print(line), Clear(ClearType::UntilNewLine), Print(end))
                .map_err(Error::Write)?;
        }
        if left_out > 0 {
            let more = show::count(lines.len() - room, "line");
            let more = format!("{more} more than fit; name an interface, or use `sg-ctl top`");
            queue!(to, Print(more)).map_err(Error::Write)?;
        }
        queue!(to, Clear(ClearType::FromCursorDown)).map_err(Error::Write)?;
        to.flush().map_err(Error::Write)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut to = io::stdout().lock();
        // There is nobody to be told when the terminal has gone.
        let _ = queue!(
            to,
            EnableLineWrap,
            Show,
            LeaveAlternateScreen,
            Print(&self.last)
        );
        let _ = to.flush();
    }
}
