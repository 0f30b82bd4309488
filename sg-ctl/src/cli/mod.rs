//! The command line: words into calls, results into text and exit codes.
//!
//! Each family of commands has a file. None of them formats for people, which is for
//! [`crate::show`], or decides what a policy means.

mod api;
mod attach;
mod check;
mod choose;
mod complete;
mod confirm;
mod daemon;
mod diagnose;
mod doctor;
mod edit;
mod error;
mod events;
mod explain;
mod flow_log;
mod flows;
mod group;
mod help;
mod import;
mod interface;
mod interrupt;
mod json;
mod limits;
mod look;
mod output;
mod policy_file;
mod port;
mod prefix_list;
mod progress;
mod reference;
mod rule;
mod time;
mod top;
mod trace;
mod uniform;
mod verify;
mod vpc;
mod watch;

use std::process::ExitCode;

use clap::{FromArgMatches as _, Parser, Subcommand};

use crate::controller::{
    AWAIT_COMMAND, Controller, Done, GUARD_COMMAND, Guarded, Installation, Needed, Plan,
};
use crate::dirs::DirOptions;
use crate::policy::change::Change;
use crate::show::{self, Style};

use confirm::Confirm;
use edit::Edit;
use error::Result;

/// Security groups for any Linux machine
#[derive(Debug, Parser)]
#[command(name = "sg-ctl", version = env!("SG_VERSION"), propagate_version = true)]
struct Cli {
    #[command(flatten)]
    dirs: DirOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the policy match a file, and the kernel match the policy
    ///
    /// The file is the whole truth of its VPC: what is not in it is removed, also rules that `rule add`
    /// has added since. Without the key `interfaces`, interfaces stay as they are.
    Apply(policy_file::Apply),
    /// Show what `apply` would change; exit code 1 if anything
    ///
    /// It also shows which open connections the change concerns.
    Diff(policy_file::Diff),
    /// Find errors and likely mistakes in a policy file, or in the policy in force
    ///
    /// An error prevents `apply`; a file with errors is not checked further. A warning is probably a
    /// mistake, like a database that is open to everyone. A notice is worth knowing, like a rule that
    /// another rule covers. For the policy in force, rules that have allowed nothing yet are notices.
    ///
    /// All findings are shown, whatever the level.
    Check(check::Check),
    /// Write the policy of a VPC as a file
    Export(policy_file::Export),
    /// Make a policy file from the groups of another system
    #[command(subcommand)]
    Import(import::Command),
    /// Protect an interface, or change how it is protected
    ///
    /// An interface that is attached already keeps what the command does not say: its groups, side,
    /// addresses, quota and everything else.
    Attach(attach::Attach),
    /// Stop protecting interfaces
    Detach(interface::Detach),
    /// Make the kernel match the stored policy: after boot, or after an interrupted command
    Restore(interface::Restore),
    /// Compare the kernel with the stored policy; exit code 1 if anything differs
    Verify(verify::Verify),
    /// Check that this machine can enforce a policy, and does; exit code 1 if there is a problem
    Doctor(doctor::Doctor),
    /// Follow the machine: protect interfaces, and follow their addresses, as they come and go
    ///
    /// Enforcement does not depend on it. It runs in the foreground until SIGTERM ends it, and reads its
    /// configuration again on SIGHUP.
    Daemon(daemon::Daemon),
    /// Keep a change that was made with `--confirm`
    Confirm,
    /// Undo a change that was made with `--confirm`
    Rollback,
    /// Print the completion script of a shell
    Completions(reference::Completions),
    /// Print the JSON schema of the policy file, for editors
    Schema,
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man(reference::Man),
    /// Wait for the deadline of a change
    #[command(name = AWAIT_COMMAND, hide = true)]
    AwaitConfirmation,
    /// End a trace when the command that reads it ends
    #[command(name = GUARD_COMMAND, hide = true)]
    GuardTrace(Guarded),
    /// Show which interfaces are protected
    Status(look::Status),
    /// Show packet counters, by interface and reason, and by rule
    Stats(look::Stats),
    /// Watch everything at once, full-screen: verdicts, rules, dropped peers, flows
    Top(top::Top),
    /// Show how much a policy may hold, or change it
    Limits(limits::Command),
    /// Show dropped packets, and new flows, as they happen
    Events(events::Events),
    /// Explain whether a packet passes, and why; exit code 1 if it is dropped
    Explain(explain::Explain),
    /// Show what becomes of each packet from and to a peer, and why, as it happens
    Trace(trace::Trace),
    /// Try a connection from here, and say what prevents it; exit code 1 if anything does
    ///
    /// The result is one of: fine; refused (nothing listens there); dropped by groups on this machine,
    /// with the rule that is missing; not sent (another filter of this machine); unreachable (no route);
    /// no neighbour (the next machine does not answer on the link); no answer; answer lost (it came, and
    /// another filter of this machine dropped it); too big (only large packets are lost).
    Diagnose(diagnose::Diagnose),
    /// Show tracked connections, and close them
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
    /// Let clients of the EC2 API in: make and delete their access keys
    #[command(subcommand)]
    Api(api::Command),
    /// Work with VPCs: each has groups, prefix lists and interfaces of its own
    #[command(subcommand)]
    Vpc(vpc::Command),
}

impl Command {
    /// What it changes, where that follows from the policy as it is.
    fn edit(self) -> Option<Result<Edit>> {
        match self {
            Self::Group(command) => command.edit(),
            Self::Rule(command) => command.edit(),
            Self::PrefixList(command) => command.edit(),
            Self::Vpc(command) => command.edit(),
            _ => None,
        }
    }

    /// Whether it changes nothing.
    fn only_looks(&self) -> bool {
        match self {
            Self::Status(_) | Self::Stats(_) | Self::Explain(_) => true,
            Self::Verify(_) | Self::Doctor(_) | Self::Diff(_) | Self::Check(_) => true,
            Self::Flows(command) => command.only_looks(),
            _ => false,
        }
    }
}

/// What a command that succeeded has to say by its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Done, or nothing differs.
    Yes,
    /// It differs, or something was found.
    No,
    /// It was not done, and the daemon has said why.
    Refused,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    complete::answer_shell();
    if std::env::args_os().len() < 2 {
        return output::overview();
    }
    let mut looks = 0;
    loop {
        let words = help::command().try_get_matches();
        let Cli { dirs, command } = match words.and_then(|words| Cli::from_arg_matches(&words)) {
            Ok(cli) => cli,
            Err(error) => return output::refuse(&error),
        };
        let only_looks = command.only_looks();
        let before = Installation::of(&dirs);
        match run(command, &dirs) {
            Ok(Answer::Yes) => return ExitCode::SUCCESS,
            Ok(Answer::No) => return ExitCode::from(1),
            Ok(Answer::Refused) => return ExitCode::from(2),
            // What it was looking at was replaced by another command, or by the daemon.
            Err(error)
                if only_looks
                    && looks < Installation::MOST_LOOKS
                    && !output::has_printed()
                    && error.dataplane().is_some()
                    && before.is_over(&dirs) =>
            {
                looks += 1;
            }
            Err(error) => {
                output::complain(&error, &dirs.run_dir);
                return ExitCode::from(2);
            }
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
        Command::Daemon(command) => command.run(dirs),
        Command::Confirm => confirm::confirm(dirs),
        Command::Rollback => confirm::rollback(dirs),
        Command::Completions(command) => command.run(),
        Command::Schema => reference::schema(),
        Command::Man(command) => command.run(),
        Command::AwaitConfirmation => confirm::wait(dirs),
        Command::GuardTrace(guarded) => trace::guard(dirs, &guarded),
        Command::Status(command) => command.run(dirs),
        Command::Stats(command) => command.run(dirs),
        Command::Top(command) => command.run(dirs),
        Command::Limits(command) => command.run(dirs),
        Command::Events(command) => command.run(dirs),
        Command::Explain(command) => command.run(dirs),
        Command::Trace(command) => command.run(dirs),
        Command::Diagnose(command) => command.run(dirs),
        Command::Flows(command) => command.run(dirs),
        Command::Group(command) => command.run(dirs),
        Command::Rule(command) => command.run(dirs),
        Command::PrefixList(command) => command.run(dirs),
        Command::Vpc(command) => command.run(dirs),
        Command::Api(command) => command.run(dirs),
    }
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
        true => output::tell("nothing to change\n"),
        false => output::tell(&show::changes(
            &done.before,
            &done.changes,
            Style::of_stdout(),
        )),
    }
    output::tell(&confirm::next_step(done));
    Ok(Answer::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        help::command().debug_assert();
    }
}
