//! Commands about prefix lists.

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde_json::json;

use crate::controller::View;
use crate::dirs::DirOptions;
use crate::policy::change::{Change, Edit};
use crate::policy::defaults::create_vpc;
use crate::policy::model::Policy;
use crate::policy::names::{PrefixListName, VpcName};
use crate::policy::prefix::parse_prefix;
use crate::show::{self, Style};

use super::confirm::Confirm;
use super::edit::Edit as CommandEdit;
use super::error::Result;
use super::output::{print, print_json};
use super::{Answer, choose};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a prefix list, or replace what is in it
    Set(Set),
    /// Add prefixes
    Add(Edited),
    /// Remove prefixes
    Remove(Edited),
    /// Delete a prefix list that no rule names
    Delete(Named),
    /// List prefix lists
    List(List),
    /// Show the prefixes of a list
    Show(Shown),
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// Its name
    name: PrefixListName,
    /// What it holds, like 10.0.0.0/8 or 2001:db8::/32; none empties it
    #[arg(value_name = "PREFIX", value_parser = parse_prefix)]
    prefixes: Vec<IpNet>,
    /// The VPC, made if there is none [default: `default`, or the only one that has the list]
    #[arg(long)]
    vpc: Option<VpcName>,
    #[command(flatten)]
    confirm: Confirm,
}

#[derive(Debug, Args)]
pub(super) struct Edited {
    /// The prefix list
    name: PrefixListName,
    /// Prefixes like 10.0.0.0/8 or 2001:db8::/32
    #[arg(required = true, value_name = "PREFIX", value_parser = parse_prefix)]
    prefixes: Vec<IpNet>,
    /// The VPC of the list [default: `default`, or the only one that has it]
    #[arg(long)]
    vpc: Option<VpcName>,
    #[command(flatten)]
    confirm: Confirm,
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// The prefix list
    name: PrefixListName,
    /// The VPC of the list [default: `default`, or the only one that has it]
    #[arg(long)]
    vpc: Option<VpcName>,
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
pub(super) struct Shown {
    #[command(flatten)]
    named: Named,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn add(prefixes: &mut BTreeSet<IpNet>, named: &[IpNet]) {
    prefixes.extend(named);
}

fn remove(prefixes: &mut BTreeSet<IpNet>, named: &[IpNet]) {
    prefixes.retain(|prefix| !named.contains(prefix));
}

impl Command {
    /// What it changes, if anything.
    pub(super) fn edit(self) -> Option<Result<CommandEdit>> {
        match self {
            Self::Set(command) => Some(Ok(command.edit())),
            Self::Add(command) => Some(Ok(command.edit(add))),
            Self::Remove(command) => Some(Ok(command.edit(remove))),
            Self::Delete(command) => Some(Ok(command.edit())),
            Self::List(_) | Self::Show(_) => None,
        }
    }

    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        match self {
            Self::Set(command) => command.edit().run(dirs),
            Self::Add(command) => command.edit(add).run(dirs),
            Self::Remove(command) => command.edit(remove).run(dirs),
            Self::Delete(command) => command.edit().run(dirs),
            Self::List(command) => command.run(dirs),
            Self::Show(command) => command.run(dirs),
        }
    }
}

impl Set {
    fn edit(self) -> CommandEdit {
        CommandEdit::new(self.confirm, move |policy| {
            let vpc = match &self.vpc {
                Some(vpc) => vpc.clone(),
                None if is_new(policy, &self.name) => VpcName::default(),
                None => choose::vpc_of_prefix_list(policy, None, &self.name)?
                    .0
                    .clone(),
            };
            let mut changes = match policy.vpcs.contains_key(&vpc) {
                true => Vec::new(),
                false => create_vpc(&vpc),
            };
            let prefixes = self.prefixes.iter().copied().collect();
            changes.push(Change {
                vpc,
                edit: Edit::PutPrefixList(self.name.clone(), prefixes),
            });
            Ok(changes)
        })
    }
}

fn is_new(policy: &Policy, name: &PrefixListName) -> bool {
    let mut vpcs = policy.vpcs.values();
    !vpcs.any(|vpc| vpc.prefix_lists.contains_key(name))
}

impl Edited {
    fn edit(self, edit: fn(&mut BTreeSet<IpNet>, &[IpNet])) -> CommandEdit {
        CommandEdit::new(self.confirm, move |policy| {
            let (name, vpc) = choose::vpc_of_prefix_list(policy, self.vpc.as_ref(), &self.name)?;
            let stored = vpc.prefix_lists.get_key_value(&self.name);
            // As it was spelt first.
            let list = stored.map_or(&self.name, |(list, _)| list);
            let mut prefixes = stored.map(|(_, held)| held.clone()).unwrap_or_default();
            edit(&mut prefixes, &self.prefixes);
            Ok(vec![Change {
                vpc: name.clone(),
                edit: Edit::PutPrefixList(list.clone(), prefixes),
            }])
        })
    }
}

impl Named {
    fn edit(self) -> CommandEdit {
        CommandEdit::new(Confirm::default(), move |policy| {
            let (vpc, _) = choose::vpc_of_prefix_list(policy, self.vpc.as_ref(), &self.name)?;
            Ok(vec![Change {
                vpc: vpc.clone(),
                edit: Edit::RemovePrefixList(self.name.clone()),
            }])
        })
    }
}

impl List {
    fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let policy = View::open(dirs)?.policy;
        let asked = self.vpc.as_ref();
        if let Some(asked) = asked {
            choose::named_vpc(&policy, asked)?;
        }
        if !self.json {
            print(&show::prefix_lists(&policy, asked, Style::of_stdout()))?;
            return Ok(Answer::Yes);
        }
        let vpcs = policy.vpcs.iter();
        let lists = vpcs
            .filter(|(name, _)| asked.is_none_or(|asked| asked == *name))
            .flat_map(|(vpc_name, vpc)| {
                let lists = vpc.prefix_lists.iter();
                lists.map(move |(name, prefixes)| {
                    json!({ "name": name, "vpc": vpc_name, "prefixes": prefixes })
                })
            });
        print_json(&json!({ "prefix_lists": lists.collect::<Vec<_>>() }))?;
        Ok(Answer::Yes)
    }
}

impl Shown {
    fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let policy = View::open(dirs)?.policy;
        let Named { name, vpc } = &self.named;
        let (vpc_name, vpc) = choose::vpc_of_prefix_list(&policy, vpc.as_ref(), name)?;
        let prefixes = vpc.prefix_lists.get(name).cloned().unwrap_or_default();
        match self.json {
            true => print_json(&json!({
                "name": name,
                "prefix_list": name,
                "vpc": vpc_name,
                "prefixes": prefixes,
            }))?,
            false => print(&show::prefix_list(name, &prefixes))?,
        }
        Ok(Answer::Yes)
    }
}
