//! Completions by the names that this machine has: groups, interfaces, VPCs, prefix lists, services.
//!
//! A shell asks the program itself at each press of the key, so names are those of that moment.
//! Whatever cannot be read completes to nothing: a shell has no use for an error.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;

use clap::{Arg, Command, Parser as _};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::CompleteEnv;
use clap_complete::{Shell, env::Shells};

use crate::controller::View;
use crate::dirs::DirOptions;
use crate::policy::model::Policy;
use crate::policy::services::SERVICES;

use super::help;

/// The variable by which a shell's script asks for candidates.
const VARIABLE: &str = "SG_COMPLETE";

/// Answers a shell that asks for candidates, and then ends; returns at once otherwise.
pub(super) fn answer_shell() {
    CompleteEnv::with_factory(|| with_candidates(help::command()))
        .var(VARIABLE)
        .complete();
}

/// The script that makes a shell ask.
pub(super) fn script(shell: Shell) -> std::io::Result<String> {
    let name = shell.to_string();
    let shells = Shells::builtins();
    let mut script = Vec::new();
    match shells.completer(&name) {
        Some(completer) => {
            completer.write_registration(VARIABLE, "sg-ctl", "sg-ctl", "sg-ctl", &mut script)?;
        }
        None => clap_complete::generate(shell, &mut help::command(), "sg-ctl", &mut script),
    }
    Ok(String::from_utf8_lossy(&script).into_owned())
}

/// Gives each argument that takes a name the names that there are.
fn with_candidates(command: Command) -> Command {
    let command = command.mut_args(|argument| match candidates(&argument) {
        Some(candidates) => argument.add(candidates),
        None => argument,
    });
    command.mut_subcommands(with_candidates)
}

fn candidates(argument: &Arg) -> Option<ArgValueCandidates> {
    let names = |names: fn(&Policy) -> Vec<String>| {
        ArgValueCandidates::new(move || list(policy().as_ref().map(names).unwrap_or_default()))
    };
    let id = argument.get_id().as_str();
    let value = argument.get_value_names().and_then(<[_]>::first);
    match (id, value.map(|value| value.as_str())) {
        ("vpc", Some("VPC")) => Some(names(vpcs)),
        ("group" | "groups" | "add_group" | "remove_group" | "add_groups" | "remove_groups", _) => {
            Some(names(groups))
        }
        ("interface" | "interfaces" | "device", _) => Some(ArgValueCandidates::new(interfaces)),
        ("name", Some("NAME")) if argument.is_positional() => Some(names(prefix_lists)),
        ("from" | "to", _) => Some(names(peers)),
        ("service", _) => Some(ArgValueCandidates::new(services)),
        _ => None,
    }
}

fn list(names: Vec<String>) -> Vec<CompletionCandidate> {
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// The policy of the folders that the environment names.
fn policy() -> Option<Policy> {
    #[derive(clap::Parser)]
    struct Folders {
        #[command(flatten)]
        dirs: DirOptions,
    }
    let folders = Folders::try_parse_from([OsString::from("sg-ctl")]).ok()?;
    View::open(&folders.dirs).ok().map(|view| view.policy)
}

fn vpcs(policy: &Policy) -> Vec<String> {
    policy.vpcs.keys().map(ToString::to_string).collect()
}

fn groups(policy: &Policy) -> Vec<String> {
    let names = policy.vpcs.values().flat_map(|vpc| vpc.groups.keys());
    names.map(ToString::to_string).collect()
}

fn prefix_lists(policy: &Policy) -> Vec<String> {
    let names = policy.vpcs.values().flat_map(|vpc| vpc.prefix_lists.keys());
    names.map(ToString::to_string).collect()
}

fn peers(policy: &Policy) -> Vec<String> {
    let groups = groups(policy).into_iter().map(|name| format!("sg:{name}"));
    let lists = prefix_lists(policy).into_iter();
    let lists = lists.map(|name| format!("pl:{name}"));
    let all = ["0.0.0.0/0", "::/0", "self"].map(str::to_owned);
    groups.chain(lists).chain(all).collect()
}

/// The interfaces of the policy, and those of this namespace.
fn interfaces() -> Vec<CompletionCandidate> {
    let mut names = BTreeSet::new();
    for vpc in policy().unwrap_or_default().vpcs.values() {
        names.extend(vpc.interfaces.keys().map(ToString::to_string));
    }
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten();
    let here = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.extend(here.filter(|name| name != "lo"));
    list(names.into_iter().collect())
}

fn services() -> Vec<CompletionCandidate> {
    let services = SERVICES.iter();
    let services = services
        .map(|service| CompletionCandidate::new(service.name).help(Some(service.about.into())));
    services.collect()
}
