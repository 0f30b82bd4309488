//! Looking at the machine.

use clap::Args;
use serde_json::json;

use crate::dirs::DirOptions;
use crate::doctor::{State, examine};
use crate::show::{self, Style};

use super::Answer;
use super::error::Result;
use super::output::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let checks = examine(dirs);
        match self.json {
            true => print_json(&json!({ "checks": checks }))?,
            false => print(&show::checks(&checks, Style::of_stdout()))?,
        }
        match checks.iter().any(|check| check.state == State::Problem) {
            true => Ok(Answer::No),
            false => Ok(Answer::Yes),
        }
    }
}
