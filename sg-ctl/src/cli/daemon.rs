//! The daemon: running it, and asking it how it is.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::daemon::{self, Report};
use crate::dirs::DirOptions;
use crate::show::{self, Style};

use super::Answer;
use super::error::Result;
use super::output::{print, print_json};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Daemon {
    /// The configuration file; /etc/sg/daemon.toml unless it is said, if there is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show whether the daemon runs, and what it has done
    Status(Status),
}

#[derive(Debug, Args)]
struct Status {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Daemon {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        match self.command {
            Some(Command::Status(command)) => command.run(dirs),
            None => {
                daemon::run(dirs, self.config.as_deref(), super::edit::serve)?;
                Ok(Answer::Yes)
            }
        }
    }
}

impl Status {
    fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let report: Report = daemon::ask(&dirs.run_dir, "/status")?;
        match self.json {
            true => print_json(&report)?,
            false => print(&show::daemon(&report, Style::of_stdout()))?,
        }
        Ok(match report.followed.failure {
            None => Answer::Yes,
            Some(_) => Answer::No,
        })
    }
}
