//! Colours, where there is someone to see them.

use std::env;
use std::io::{self, IsTerminal as _};

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    coloured: bool,
}

impl Style {
    /// Text without colours.
    pub const PLAIN: Self = Self { coloured: false };

    /// As somebody else has chosen.
    pub fn new(coloured: bool) -> Self {
        Self { coloured }
    }

    /// Coloured on a terminal, unless NO_COLOR says otherwise (<https://no-color.org>).
    pub fn of_stdout() -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            coloured: !refused && io::stdout().is_terminal(),
        }
    }

    /// Whether there is someone to see colours.
    pub fn is_coloured(self) -> bool {
        self.coloured
    }

    /// What is added or passes.
    pub(super) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// What is removed or dropped.
    pub(super) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// What is changed.
    pub(super) fn changed(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// What stands over other things.
    pub(super) fn title(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self.coloured {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}
