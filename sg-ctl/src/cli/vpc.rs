//! Commands about VPCs.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::controller::View;
use crate::dirs::DirOptions;
use crate::policy::change::{Change, Edit};
use crate::policy::names::VpcName;
use crate::show::{self, Style};

use super::confirm::Confirm;
use super::edit::Edit as CommandEdit;
use super::error::Result;
use super::output::{print, print_json};
use super::{Answer, choose};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List VPCs
    List(List),
    /// Delete a VPC with its groups, rules and prefix lists; no interface may be in it
    Delete(Delete),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// The VPC
    vpc: VpcName,
    #[command(flatten)]
    confirm: Confirm,
}

impl Command {
    /// What it changes, if anything.
    pub(super) fn edit(self) -> Option<Result<CommandEdit>> {
        match self {
            Self::Delete(command) => Some(Ok(command.edit())),
            Self::List(_) => None,
        }
    }

    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        match self {
            Self::List(command) => command.run(dirs),
            Self::Delete(command) => command.edit().run(dirs),
        }
    }
}

impl List {
    fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let policy = View::open(dirs)?.policy;
        match self.json {
            true => {
                let vpcs = policy.vpcs.iter().map(|(name, vpc)| {
                    json!({
                        "vpc": name,
                        "groups": vpc.groups.keys().collect::<Vec<_>>(),
                        "prefix_lists": vpc.prefix_lists.keys().collect::<Vec<_>>(),
                        "interfaces": vpc.interfaces.keys().collect::<Vec<_>>(),
                    })
                });
                print_json(&json!({ "vpcs": vpcs.collect::<Vec<_>>() }))?;
            }
            false => print(&show::vpcs(&policy, Style::of_stdout()))?,
        }
        Ok(Answer::Yes)
    }
}

impl Delete {
    fn edit(self) -> CommandEdit {
        CommandEdit::new(self.confirm, move |policy| {
            let (vpc, _) = choose::named_vpc(policy, &self.vpc)?;
            Ok(vec![Change {
                vpc: vpc.clone(),
                edit: Edit::DeleteVpc,
            }])
        })
    }
}
