//! The command line, written down for shells and for man(1), from its one definition.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::policy::file::schema::json_schema;
use crate::show;

use super::error::{Error, Result};
use super::output::print;
use super::{Answer, Cli};

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// The folder, made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints the schema of policy files.
pub(super) fn schema() -> Result<Answer> {
    print(&format!("{:#}\n", json_schema()))?;
    Ok(Answer::Yes)
}

impl Completions {
    pub(super) fn run(self) -> Result<Answer> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "sg-ctl", &mut script);
        print(&String::from_utf8_lossy(&script))?;
        Ok(Answer::Yes)
    }
}

impl Man {
    pub(super) fn run(self) -> Result<Answer> {
        let written = || -> io::Result<()> {
            fs::create_dir_all(&self.folder)?;
            clap_mangen::generate_to(Cli::command(), &self.folder)?;
            let policy = show::policy_manual(concat!("sg-ctl ", env!("CARGO_PKG_VERSION")));
            fs::write(self.folder.join("sg-policy.5"), policy)
        };
        written().map_err(Error::Write)?;
        Ok(Answer::Yes)
    }
}
