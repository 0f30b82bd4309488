//! Commands about policy files.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::controller::{Controller, Needed, Plan, View, recorded_namespace};
use crate::dirs::DirOptions;
use crate::policy::change::Change;
use crate::policy::defaults::create_vpc;
use crate::policy::diff::diff;
use crate::policy::export::export;
use crate::policy::file::PolicyFile;
use crate::policy::findings::Findings;
use crate::policy::model::{Policy, Side};
use crate::policy::names::{InterfaceName, VpcName};
use crate::show::{self, Style};

use super::choose::named_vpc;
use super::confirm::{Confirm, next_step};
use super::error::{Error, Result};
use super::output::{print, print_json, tell, warn};
use super::{Answer, json};

/// Just above what a policy file may have, so that a larger one is refused for its size.
const MAX_READ: u64 = (128 << 20) + 1;

#[derive(Debug, Args)]
pub(super) struct Apply {
    /// Policy file; `-` reads standard input
    file: PathBuf,
    /// Only show what would change; exit code 1 if anything
    #[arg(long)]
    dry_run: bool,
    /// Close the connections that no rule allows any more
    #[arg(long)]
    terminate: bool,
    /// Replace what another state folder has installed, or one that was lost: every interface that
    /// is protected must be in the file
    #[arg(long, conflicts_with = "dry_run")]
    take_over: bool,
    /// With --dry-run, print JSON
    #[arg(long, requires = "dry_run")]
    json: bool,
    #[command(flatten)]
    confirm: Confirm,
}

#[derive(Debug, Args)]
pub(super) struct Diff {
    /// Policy file; `-` reads standard input
    file: PathBuf,
    /// Show what `apply --terminate` would do to open connections
    #[arg(long)]
    terminate: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The VPC to write
    #[arg(long, default_value = "default")]
    vpc: VpcName,
}

impl Apply {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        if self.dry_run {
            let Self {
                file,
                terminate,
                json,
                ..
            } = self;
            let diff = Diff {
                file,
                terminate,
                json,
            };
            return diff.run(dirs);
        }
        let file = parse(&self.file)??;
        let mut controller = match self.take_over {
            true => Controller::take_over_to_change(dirs)?,
            false => Controller::open(dirs)?,
        };
        let policy = to_policy(&file, controller.policy())?;
        let plan = Plan {
            needed: needed(controller.policy(), &policy, file.vpc_name()),
            policy,
            terminate: self.terminate,
        };
        let done = self.confirm.install(&mut controller, plan)?;
        let changes = show::changes(&done.before, &done.changes, Style::of_stdout());
        let summary = match done.changes.len() {
            0 => format!("nothing to change (revision {})\n", done.revision),
            number => {
                let changes = show::count(number, "change");
                format!("applied {changes} (revision {})\n", done.revision)
            }
        };
        tell(&(changes + &summary + &next_step(&done)));
        Ok(Answer::Yes)
    }
}

impl Diff {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let file = parse(&self.file)??;
        let view = View::open(dirs)?;
        let before = stored(&view)?;
        let after = to_policy(&file, &before)?;
        let changes = diff(&before, &after);
        let consequences = match changes.is_empty() {
            true => None,
            // What was asked is the difference; that flows cannot be looked at keeps nobody from it.
            false => view
                .foresee(&after, self.terminate)
                .unwrap_or_else(|error| {
                    warn(&format!("what it does to live flows is not known: {error}"));
                    None
                }),
        };
        match self.json {
            true => print_json(&json::changes(&before, &changes, consequences.as_ref()))?,
            false => {
                let style = Style::of_stdout();
                let consequences = consequences.map(|found| show::consequences(&found, style));
                print(&(told(&before, &changes) + &consequences.unwrap_or_default()))?;
            }
        }
        Ok(match changes.is_empty() {
            true => Answer::Yes,
            false => Answer::No,
        })
    }
}

fn told(before: &Policy, changes: &[Change]) -> String {
    match changes.is_empty() {
        true => "nothing would change\n".to_owned(),
        false => show::changes(before, changes, Style::of_stdout()),
    }
}

impl Export {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let policy = stored(&View::open(dirs)?)?;
        let (name, vpc) = named_vpc(&policy, &self.vpc)?;
        print(&export(name, vpc))?;
        Ok(Answer::Yes)
    }
}

/// The policy as it is stored, or as a store begins.
fn stored(view: &View) -> Result<Policy> {
    let policy = view.policy.clone();
    match policy.vpcs.is_empty() {
        true => Ok(policy.apply(&create_vpc(&VpcName::default()))?),
        false => Ok(policy),
    }
}

/// The policy with the file's VPC as the file wants it.
fn to_policy(file: &PolicyFile, existing: &Policy) -> Result<Policy> {
    let mut policy = file.to_policy(existing)?;
    // Interfaces that the file leaves as they are know their namespace already.
    if file.has_interfaces()
        && let Some(vpc) = policy.vpcs.get_mut(file.vpc_name())
    {
        for interface in vpc.interfaces.values_mut() {
            interface.netns = recorded_namespace(interface.netns.as_deref())?;
        }
        // Another VPC may have the same device by the name of its namespace.
        policy = policy.checked()?;
    }
    Ok(policy)
}

/// An interface that is not there is protected when it comes. But where the machine's own interfaces
/// give way to others, these have to be there: a mistaken name would open the machine.
fn needed(before: &Policy, after: &Policy, vpc: &VpcName) -> Needed {
    let own = |policy: &Policy| -> BTreeSet<InterfaceName> {
        let vpc = policy.vpcs.get(vpc);
        let interfaces = vpc.into_iter().flat_map(|vpc| &vpc.interfaces);
        let own = interfaces
            .filter(|(_, interface)| interface.side == Side::Host && interface.matching.is_none());
        own.map(|(name, _)| name.clone()).collect()
    };
    let (had, has) = (own(before), own(after));
    match had.is_subset(&has) {
        true => Needed::None,
        false => Needed::Some(vpc.clone(), has.difference(&had).cloned().collect()),
    }
}

pub(super) fn name(path: &Path) -> String {
    match path == Path::new("-") {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    }
}

/// Reads a file: the error outside is one of reading, the one inside says what is wrong with it.
pub(super) fn parse(path: &Path) -> Result<std::result::Result<PolicyFile, Findings>> {
    let (name, text) = read_text(path)?;
    Ok(PolicyFile::parse(&name, &text))
}

/// A file as text, and how messages call it.
pub(super) fn read_text(path: &Path) -> Result<(String, String)> {
    let name = name(path);
    let mut bytes = Vec::new();
    let read = match path == Path::new("-") {
        true => io::stdin().lock().take(MAX_READ).read_to_end(&mut bytes),
        false => File::open(path).and_then(|file| file.take(MAX_READ).read_to_end(&mut bytes)),
    };
    if let Err(source) = read {
        return Err(Error::Read { file: name, source });
    }
    let text = String::from_utf8(bytes).map_err(|error| Error::Encoding {
        file: name.clone(),
        byte: error.utf8_error().valid_up_to(),
    })?;
    Ok((name, text))
}
