//! Policies from elsewhere.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::aws::{Answers, Fate, Imported};
use crate::policy::names::VpcName;

use super::Answer;
use super::error::{Error, Result};
use super::output::{print, warn};
use super::policy_file::read_text;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a policy file from what `aws ec2 describe-security-groups` printed; exit code 1 if
    /// something that is allowed there is not allowed by the file
    Aws(Aws),
}

#[derive(Debug, Args)]
pub(super) struct Aws {
    /// What describe-security-groups, describe-security-group-rules,
    /// describe-managed-prefix-lists and get-managed-prefix-list-entries printed, as JSON or YAML;
    /// `-` reads standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The VPC, by AWS's id; needed where the files have several
    #[arg(long, value_name = "VPC-ID")]
    vpc: Option<String>,
    /// What the policy calls the VPC [default: AWS's id]
    #[arg(long = "as", value_name = "NAME")]
    name: Option<VpcName>,
    /// Write the policy into this file
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Command {
    pub(super) fn run(self) -> Result<Answer> {
        match self {
            Self::Aws(command) => command.run(),
        }
    }
}

impl Aws {
    fn run(self) -> Result<Answer> {
        let mut answers = Answers::default();
        for path in &self.files {
            let (name, text) = read_text(path)?;
            answers.read(&name, &text)?;
        }
        let imported = Imported::from_answers(&answers, self.vpc.as_deref(), self.name.as_ref())?;
        for note in &imported.notes {
            match note.fate {
                Fate::Changed => warn(note),
                Fate::Lost | Fate::LeftOut => warn(&format!("not carried over: {note}")),
            }
        }
        match &self.output {
            Some(path) => fs::write(path, &imported.text).map_err(Error::Write)?,
            None => print(&imported.text)?,
        }
        match imported.notes.iter().any(|note| note.fate == Fate::Lost) {
            true => Ok(Answer::No),
            false => Ok(Answer::Yes),
        }
    }
}
