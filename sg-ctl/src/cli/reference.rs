//! The command line, written down for shells and for man(1), from its one definition.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::Shell;

use crate::policy::file::schema::json_schema;
use crate::show;

use super::error::{Error, Result};
use super::output::print;
use super::{Answer, complete, help};

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
        print(&complete::script(self.shell).map_err(Error::Write)?)?;
        Ok(Answer::Yes)
    }
}

impl Man {
    pub(super) fn run(self) -> Result<Answer> {
        let written = || -> io::Result<()> {
            fs::create_dir_all(&self.folder)?;
            let mut root = help::command().disable_help_subcommand(true);
            root.build();
            write_page(&root, "", &self.folder)?;
            let policy = show::policy_manual(concat!("sg-ctl ", env!("CARGO_PKG_VERSION")));
            fs::write(self.folder.join("sg-policy.5"), policy)
        };
        written().map_err(Error::Write)?;
        Ok(Answer::Yes)
    }
}

/// Writes the page of a command, and those of the commands below it.
fn write_page(command: &clap::Command, path: &str, folder: &Path) -> io::Result<()> {
    let below = command
        .get_subcommands()
        .filter(|below| !below.is_hide_set());
    for below in below {
        let path = format!("{path} {}", below.get_name()).trim().to_owned();
        write_page(below, &path, folder)?;
    }
    let page = Man::page(command);
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    if command
        .get_arguments()
        .any(|argument| !argument.is_hide_set())
    {
        page.render_options_section(&mut text)?;
    }
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    if let Some(page) = help::find(path) {
        text.extend(show::manual_sections(&help::sections(page)).into_bytes());
    }
    fs::write(folder.join(page.get_filename()), text)
}

impl Man {
    fn page(command: &clap::Command) -> clap_mangen::Man {
        clap_mangen::Man::new(command.clone())
            .source(concat!("sg-ctl ", env!("CARGO_PKG_VERSION")))
            .manual("sg-ctl manual")
    }
}
