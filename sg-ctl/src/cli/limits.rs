//! How much the instance may hold.

use std::str::FromStr;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::controller::{Controller, View};
use crate::dirs::DirOptions;
use crate::limits::{Limit, Limits};
use crate::show::{self, Style};

use super::Answer;
use super::error::Result;
use super::output::{print, print_json, tell, warn};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Command {
    #[command(subcommand)]
    set: Option<Change>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Change {
    /// Change limits while everything goes on: no flow is lost
    Set {
        /// Like flows=1000000 or rules=default
        #[arg(required = true, value_name = "NAME=NUMBER")]
        settings: Vec<Setting>,
    },
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    limit: Limit,
    /// `None` for the default.
    value: Option<u32>,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| "write NAME=NUMBER, like flows=1000000".to_owned())?;
        let limit: Limit = name
            .parse()
            .map_err(|error: crate::limits::UnknownLimit| error.to_string())?;
        let value = match value {
            "default" => None,
            digits => Some(
                digits
                    .replace([',', '_'], "")
                    .parse()
                    .map_err(|_| format!("{digits:?} is not a number"))?,
            ),
        };
        Ok(Self { limit, value })
    }
}

impl Command {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        match self.set {
            None => {
                let limits = View::open(dirs)?.limits;
                match self.json {
                    true => print_json(&json!({ "limits": object(&limits) }))?,
                    false => print(&show::limits(&limits, Style::of_stdout()))?,
                }
            }
            Some(Change::Set { settings }) => set(&settings, dirs)?,
        }
        Ok(Answer::Yes)
    }
}

fn object(limits: &Limits) -> Map<String, Value> {
    let values = Limit::all().map(|limit| (limit.name().to_owned(), limits.value(limit).into()));
    values.collect()
}

fn set(settings: &[Setting], dirs: &DirOptions) -> Result<()> {
    let mut controller = Controller::open(dirs)?;
    let before = *controller.limits();
    let mut limits = before;
    for Setting { limit, value } in settings {
        let value = value.unwrap_or(Limits::default().value(*limit));
        limits = limits.with(*limit, value)?;
    }
    let done = controller.set_limits(limits)?;
    done.warnings.iter().for_each(warn);
    tell(&show::limit_changes(&before, &limits));
    Ok(())
}
