//! The command line: words into calls, results into text and exit codes.
//!
//! Each family of commands has a file. None of them formats for people, which is for
//! [`crate::show`], or decides what a policy means.

mod check;
mod choose;
mod confirm;
mod diagnose;
mod doctor;
mod error;
mod events;
mod explain;
mod flow_log;
mod flows;
mod group;
mod import;
mod interface;
mod interrupt;
mod json;
mod limits;
mod look;
mod output;
mod policy_file;
mod prefix_list;
mod progress;
mod reference;
mod rule;
mod top;
mod verify;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::controller::{AWAIT_COMMAND, Amended, Controller, Done, Needed, Plan};
use crate::dirs::DirOptions;
use crate::policy::change::Change;
use crate::policy::model::Policy;
use crate::show::{self, Style};
use crate::store::Asked;

use confirm::Confirm;
use error::Result;
use output::print;

/// Security groups for any Linux machine
///
/// Exit codes: 0 done, 1 a question was asked and something differs or was found, 2 bad input or
/// failure; then nothing was changed.
#[derive(Debug, Parser)]
#[command(
    name = "sg-ctl",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(flatten)]
    dirs: DirOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the policy match a file, and the kernel match the policy
    Apply(policy_file::Apply),
    /// Show what `apply` would change; exit code 1 if anything
    Diff(policy_file::Diff),
    /// Find what is wrong with a policy file or probably not meant, there or in force
    Check(check::Check),
    /// Write the policy of a VPC as a file
    Export(policy_file::Export),
    /// Make a policy file of what other systems have
    #[command(subcommand)]
    Import(import::Command),
    /// Protect an interface, or change how it is protected
    Attach(interface::Attach),
    /// Stop protecting interfaces
    Detach(interface::Detach),
    /// Make the kernel match what is stored: after boot, or after an interrupted command
    Restore(interface::Restore),
    /// Compare the kernel with what is stored; exit code 1 if anything differs
    Verify(verify::Verify),
    /// Look whether this machine can enforce a policy, and does; exit code 1 if there is a problem
    Doctor(doctor::Doctor),
    /// Keep a change that was made with `--confirm`
    Confirm,
    /// Take a change that was made with `--confirm` back at once
    Rollback,
    /// Write the completions of a shell: source them, or put them where it looks for them
    Completions(reference::Completions),
    /// Print the JSON schema of the policy file, for editors
    Schema,
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man(reference::Man),
    /// Wait for the deadline of a change
    #[command(name = AWAIT_COMMAND, hide = true)]
    AwaitConfirmation,
    /// Show which interfaces are protected
    Status(look::Status),
    /// Show what was counted, by interface and reason and by rule
    Stats(look::Stats),
    /// Watch everything at once, full-screen: verdicts, rules, dropped peers, flows
    Top(top::Top),
    /// Show how much may be held, or change it
    Limits(limits::Command),
    /// Tell of dropped packets, and of new flows, as they come
    Events(events::Events),
    /// Explain what becomes of a packet, and why; exit code 1 if it is dropped
    Explain(explain::Explain),
    /// Try a connection from here, and say what keeps it; exit code 1 if anything
    Diagnose(diagnose::Diagnose),
    /// Look at tracked flows, and end them
    #[command(subcommand)]
    Flows(flows::Flows),
    /// Work with groups
    #[command(subcommand)]
    Group(group::Command),
    /// Work with the rules of a group
    #[command(subcommand)]
    Rule(rule::Command),
    /// Work with prefix lists
    #[command(subcommand)]
    PrefixList(prefix_list::Command),
}

/// What a command that succeeded has to say by its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Done, or nothing differs.
    Yes,
    /// It differs, or something was found.
    No,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let Cli { dirs, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::refuse(&error),
    };
    match run(command, &dirs) {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) => {
            output::complain(&error);
            ExitCode::from(2)
        }
    }
}

fn run(command: Command, dirs: &DirOptions) -> Result<Answer> {
    match command {
        Command::Apply(command) => command.run(dirs),
        Command::Diff(command) => command.run(dirs),
        Command::Check(command) => command.run(dirs),
        Command::Export(command) => command.run(dirs),
        Command::Import(command) => command.run(),
        Command::Attach(command) => command.run(dirs),
        Command::Detach(command) => command.run(dirs),
        Command::Restore(command) => command.run(dirs),
        Command::Verify(command) => command.run(dirs),
        Command::Doctor(command) => command.run(dirs),
        Command::Confirm => confirm::confirm(dirs),
        Command::Rollback => confirm::rollback(dirs),
        Command::Completions(command) => command.run(),
        Command::Schema => reference::schema(),
        Command::Man(command) => command.run(),
        Command::AwaitConfirmation => confirm::wait(dirs),
        Command::Status(command) => command.run(dirs),
        Command::Stats(command) => command.run(dirs),
        Command::Top(command) => command.run(dirs),
        Command::Limits(command) => command.run(dirs),
        Command::Events(command) => command.run(dirs),
        Command::Explain(command) => command.run(dirs),
        Command::Diagnose(command) => command.run(dirs),
        Command::Flows(command) => command.run(dirs),
        Command::Group(command) => command.run(dirs),
        Command::Rule(command) => command.run(dirs),
        Command::PrefixList(command) => command.run(dirs),
    }
}

/// Makes changes that follow from the policy as it is, and shows them.
fn change(
    dirs: &DirOptions,
    confirm: &Confirm,
    changes: impl FnOnce(&Policy) -> Result<Vec<Change>>,
) -> Result<Answer> {
    let controller = Controller::open(dirs)?;
    let changes = changes(controller.policy())?;
    report(&make(controller, &changes, false, confirm)?)
}

/// Makes changes of a part of the policy, by that part alone where it will do.
fn change_part(
    dirs: &DirOptions,
    asked: Asked<'_>,
    (terminate, confirm): (bool, &Confirm),
    changes: impl Fn(&Policy) -> Result<Vec<Change>>,
) -> Result<Done> {
    let controller = match terminate || !confirm.is_needless() {
        true => Controller::open(dirs)?,
        false => match Controller::amend(dirs, asked, |part| changes(part).ok())? {
            Amended::Done(done) => {
                done.warnings.iter().for_each(output::warn);
                return Ok(done);
            }
            Amended::No(controller) => *controller,
        },
    };
    let changes = changes(controller.policy())?;
    make(controller, &changes, terminate, confirm)
}

/// Makes changes that need no interface in particular.
fn make(
    mut controller: Controller,
    changes: &[Change],
    terminate: bool,
    confirm: &Confirm,
) -> Result<Done> {
    let plan = Plan {
        policy: controller.policy().clone().apply(changes)?,
        needed: Needed::None,
        terminate,
    };
    confirm.install(&mut controller, plan)
}

/// Shows what was done.
fn report(done: &Done) -> Result<Answer> {
    match done.changes.is_empty() {
        true => print("nothing to change\n")?,
        false => print(&show::changes(
            &done.before,
            &done.changes,
            Style::of_stdout(),
        ))?,
    }
    print(&confirm::next_step(done))?;
    Ok(Answer::Yes)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
