//! Commands about groups.

use std::collections::BTreeSet;
use std::net::IpAddr;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::controller::View;
use crate::dirs::DirOptions;
use crate::observe;
use crate::policy::change::{Change, Edit};
use crate::policy::defaults::{create_group, create_vpc};
use crate::policy::model::Policy;
use crate::policy::names::{GroupName, VpcName, check_description};
use crate::policy::prefix::{check_member, parse_address};
use crate::show::{self, Style};

use super::confirm::Confirm;
use super::edit::Edit as CommandEdit;
use super::error::Result;
use super::output::{print, print_json};
use super::{Answer, choose};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a group: nothing in, everything out
    Create(Create),
    /// Delete a group that nothing depends on
    Delete(Named),
    /// Show a group with its rules
    Show(Shown),
    /// List groups
    List(List),
    /// Show what uses a group
    Dependents(Shown),
    /// Show the members of a group, or change its static ones
    Members(Members),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Its name
    name: GroupName,
    /// For people
    #[arg(long, default_value = "")]
    description: String,
    /// The VPC, made if there is none
    #[arg(long, default_value = "default")]
    vpc: VpcName,
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// The group
    group: GroupName,
    /// The VPC of the group [default: `default`, or the only one that has it]
    #[arg(long)]
    vpc: Option<VpcName>,
}

#[derive(Debug, Args)]
pub(super) struct Shown {
    #[command(flatten)]
    named: Named,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only this VPC
    #[arg(long)]
    vpc: Option<VpcName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Members {
    #[command(flatten)]
    named: Named,
    /// Addresses to add
    #[arg(long, value_name = "ADDRESS", num_args = 1.., value_delimiter = ',', value_parser = member)]
    add: Vec<IpAddr>,
    /// Addresses to remove
    #[arg(long, value_name = "ADDRESS", num_args = 1.., value_delimiter = ',', value_parser = member)]
    remove: Vec<IpAddr>,
    /// The addresses to have instead; none empties the list
    #[arg(
        long,
        value_name = "ADDRESS",
        num_args = 0..,
        value_delimiter = ',',
        value_parser = member,
        conflicts_with_all = ["add", "remove"]
    )]
    set: Option<Vec<IpAddr>>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    confirm: Confirm,
}

fn member(text: &str) -> Result<IpAddr> {
    let address = parse_address(text)?;
    check_member(address)?;
    Ok(address)
}

impl Command {
    /// What it changes, if anything.
    pub(super) fn edit(self) -> Option<Result<CommandEdit>> {
        match self {
            Self::Create(command) => Some(command.edit()),
            Self::Delete(command) => Some(Ok(command.edit())),
            Self::Members(command) if command.changes_any() => Some(Ok(command.edit())),
            _ => None,
        }
    }

    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        match self {
            Self::Create(command) => command.edit()?.run(dirs),
            Self::Delete(command) => command.edit().run(dirs),
            Self::Show(command) => command.show(dirs),
            Self::List(command) => command.run(dirs),
            Self::Dependents(command) => command.dependents(dirs),
            Self::Members(command) if command.changes_any() => command.edit().run(dirs),
            Self::Members(command) => command.show(dirs),
        }
    }
}

impl Create {
    fn edit(self) -> Result<CommandEdit> {
        check_description(&self.description)?;
        Ok(CommandEdit::new(Confirm::default(), move |policy| {
            let mut changes = match policy.vpcs.contains_key(&self.vpc) {
                true => Vec::new(),
                false => create_vpc(&self.vpc),
            };
            changes.extend(create_group(&self.vpc, &self.name, &self.description));
            Ok(changes)
        }))
    }
}

impl Named {
    fn edit(self) -> CommandEdit {
        CommandEdit::new(Confirm::default(), move |policy| {
            let (vpc, _, name, _) = choose::vpc_of_group(policy, self.vpc.as_ref(), &self.group)?;
            Ok(vec![Change {
                vpc: vpc.clone(),
                edit: Edit::DeleteGroup(name.clone()),
            }])
        })
    }
}

impl Shown {
    fn show(self, dirs: &DirOptions) -> Result<Answer> {
        let policy = View::open(dirs)?.policy;
        let Named { group, vpc } = &self.named;
        let (vpc_name, vpc, name, group) = choose::vpc_of_group(&policy, vpc.as_ref(), group)?;
        match self.json {
            true => print_json(&super::json::group(vpc_name, vpc, name, group))?,
            false => print(&show::group(vpc_name, vpc, name, group, Style::of_stdout()))?,
        }
        Ok(Answer::Yes)
    }

    fn dependents(self, dirs: &DirOptions) -> Result<Answer> {
        let policy = View::open(dirs)?.policy;
        let Named { group, vpc } = &self.named;
        let (vpc_name, vpc, name, _) = choose::vpc_of_group(&policy, vpc.as_ref(), group)?;
        let dependents = vpc.dependents(name);
        match self.json {
            true => print_json(&json!({
                "vpc": vpc_name,
                "group": name,
                "interfaces": dependents.interfaces,
                "groups": dependents.groups,
            }))?,
            false => print(&show::dependents(name, &dependents))?,
        }
        Ok(Answer::Yes)
    }
}

impl List {
    fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let policy = View::open(dirs)?.policy;
        let asked = self.vpc.as_ref();
        if let Some(asked) = asked {
            choose::named_vpc(&policy, asked)?;
        }
        let vpcs = policy.vpcs.iter();
        let groups = vpcs
            .filter(|(name, _)| asked.is_none_or(|asked| asked == *name))
            .flat_map(|(vpc_name, vpc)| {
                let groups = vpc.groups.iter();
                groups.map(move |(name, group)| (vpc_name, vpc, name, group))
            });
        match self.json {
            true => {
                let groups = groups.map(|(vpc_name, vpc, name, group)| {
                    super::json::group(vpc_name, vpc, name, group)
                });
                print_json(&json!({ "groups": groups.collect::<Vec<_>>() }))?;
            }
            false => print(&show::groups(groups, Style::of_stdout()))?,
        }
        Ok(Answer::Yes)
    }
}

impl Members {
    fn changes_any(&self) -> bool {
        !self.add.is_empty() || !self.remove.is_empty() || self.set.is_some()
    }

    fn show(self, dirs: &DirOptions) -> Result<Answer> {
        let Named { group, vpc } = &self.named;
        let view = View::open(dirs)?;
        let (vpc_name, vpc, name, group) = choose::vpc_of_group(&view.policy, vpc.as_ref(), group)?;
        let members = observe::Members::of((vpc_name, vpc), (name, group), &view.devices()?);
        match self.json {
            true => print_json(&members)?,
            false => print(&show::members(&members, Style::of_stdout()))?,
        }
        Ok(Answer::Yes)
    }

    fn edit(self) -> CommandEdit {
        CommandEdit::new(self.confirm, move |policy: &Policy| {
            let Named { group, vpc } = &self.named;
            let (vpc, _, name, group) = choose::vpc_of_group(policy, vpc.as_ref(), group)?;
            let mut members: BTreeSet<IpAddr> = match &self.set {
                Some(members) => members.iter().copied().collect(),
                None => group.members.clone(),
            };
            members.extend(&self.add);
            members.retain(|address| !self.remove.contains(address));
            Ok(vec![Change {
                vpc: vpc.clone(),
                edit: Edit::SetMembers(name.clone(), members),
            }])
        })
    }
}
