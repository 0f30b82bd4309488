//! What the viewer reads: one line a step, ticked or crossed, and the score.

use std::fmt;

/// Prints each step as it happens and keeps the score.
#[derive(Debug, Default)]
pub(super) struct Board {
    passed: u32,
    failed: u32,
}

impl Board {
    pub(super) fn passed(&self) -> u32 {
        self.passed
    }

    pub(super) fn failed(&self) -> u32 {
        self.failed
    }

    pub(super) fn title(&self, text: &str) {
        println!("\n── {text}");
    }

    /// One step: what was expected, and what happened instead if it did not.
    pub(super) fn mark(&mut self, as_expected: bool, expected: &str, instead: &str) {
        if as_expected {
            self.passed += 1;
            println!("  ✓ {expected}");
        } else {
            self.failed += 1;
            println!("  ✗ {expected}: instead, {instead}");
        }
    }

    /// A command as typed, with what it printed.
    pub(super) fn command(&self, typed: &str, printed: &str) {
        println!("  $ {typed}");
        for line in printed.lines() {
            println!("      {line}");
        }
    }

    /// A file as the user wrote it.
    pub(super) fn file(&self, name: &str, text: &str) {
        println!("  {name}:");
        for line in text.lines() {
            println!("      {line}");
        }
    }
}

impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed } = self;
        match failed {
            0 => write!(f, "all {passed} steps went as told"),
            _ => write!(
                f,
                "{failed} of {} steps did not go as told",
                passed + failed
            ),
        }
    }
}
