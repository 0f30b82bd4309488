//! Ending the protection of interfaces, and restoring it.

use std::collections::BTreeSet;

use clap::Args;

use crate::controller::{Controller, Done, InterfaceState, Needed, Plan, View};
use crate::dirs::DirOptions;
use crate::policy::change::{Change, Edit};
use crate::policy::model::Interface;
use crate::policy::names::{InterfaceName, VpcName};
use crate::show;

use super::confirm::Confirm;
use super::error::{Error, Result};
use super::output::{tell, warn};
use super::{Answer, choose, make, report};

#[derive(Debug, Args)]
pub(super) struct Detach {
    /// The interfaces
    #[arg(required_unless_present = "all", value_name = "IFACE")]
    interfaces: Vec<InterfaceName>,
    /// All interfaces of all VPCs and network namespaces, whatever state the policy is in
    #[arg(long, conflicts_with_all = ["interfaces", "vpc", "netns"])]
    all: bool,
    /// The VPC they are in
    #[arg(long)]
    vpc: Option<VpcName>,
    /// The network namespace they are in, by name or path
    #[arg(long, value_name = "NAME|PATH")]
    netns: Option<String>,
    #[command(flatten)]
    confirm: Confirm,
}

impl Detach {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        if self.all {
            return self.detach_all(dirs);
        }
        let controller = Controller::open(dirs)?;
        let attachments = controller.attachments()?;
        let vpcs = &controller.policy().vpcs;
        let is_stored = |name: &str| vpcs.values().any(|vpc| vpc.interfaces.contains_key(name));
        let mut chosen = BTreeSet::new();
        for name in &self.interfaces {
            let (vpc, netns) = (self.vpc.as_ref(), self.netns.as_deref());
            match choose::interface(controller.policy(), vpc, netns, name) {
                Ok((vpc, _)) => {
                    chosen.insert((vpc.clone(), name.clone()));
                }
                // Only the kernel has it still, since a detach was interrupted: any change ends it.
                Err(Error::NotAttached { .. })
                    if name.device().is_some() && is_stored(name.entry()) =>
                {
                    return Err(Error::OneOfEntry { name: name.clone() });
                }
                Err(Error::NotAttached { .. })
                    if !is_stored(name.as_str())
                        && attachments.iter().any(|left| left.name == *name) => {}
                Err(error) => return Err(error),
            }
        }
        let changes = chosen.into_iter().map(|(vpc, name)| Change {
            vpc,
            edit: Edit::RemoveInterface(name),
        });
        let changes = changes.collect::<Vec<_>>();
        report(&make(controller, &changes, false, &self.confirm)?)
    }

    /// The way out: what the policy has is detached as ever; where the policy cannot be read, or is
    /// not the one in force, what is installed goes all the same.
    fn detach_all(&self, dirs: &DirOptions) -> Result<Answer> {
        let refused = match Controller::open(dirs) {
            Ok(controller) => match self.detach_all_of(controller) {
                Ok(done) => return report(&done),
                Err(error) => error,
            },
            Err(error) => error.into(),
        };
        // One of the two is meant: a way back needs a policy to go back to.
        if !self.confirm.is_needless() {
            return Err(refused);
        }
        warn(&refused);
        let removed = Controller::remove_all(dirs)?;
        let lines = removed.iter().map(|name| format!("- interface {name}\n"));
        let lines: String = lines.collect();
        tell(&match lines.is_empty() {
            true => "nothing was attached\n".to_owned(),
            false => lines + "nothing is protected any more; the stored policy is as it was\n",
        });
        Ok(Answer::Yes)
    }

    fn detach_all_of(&self, controller: Controller) -> Result<Done> {
        let vpcs = controller.policy().vpcs.iter();
        let changes = vpcs.flat_map(|(vpc, content)| {
            content.interfaces.keys().map(|name| Change {
                vpc: vpc.clone(),
                edit: Edit::RemoveInterface(name.clone()),
            })
        });
        let changes: Vec<_> = changes.collect();
        make(controller, &changes, false, &self.confirm)
    }
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// Replace what another state folder, or a version of sg-ctl that this one cannot read,
    /// installed; open connections may be forgotten, and the rules judge their next packets
    #[arg(long)]
    take_over: bool,
    /// Only protect this interface, if the policy has it; for devices that appear later
    #[arg(long, value_name = "IFACE")]
    device: Option<String>,
}

impl Restore {
    /// Makes the kernel match what is stored.
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        if let Some(device) = &self.device
            && !waits_for(dirs, device)?
        {
            return Ok(Answer::Yes);
        }
        let mut controller = match self.take_over {
            true => Controller::take_over(dirs)?,
            false => Controller::open_to_restore(dirs)?,
        };
        if !self.take_over {
            controller.distrust_changed_maps()?;
        }
        let plan = Plan {
            policy: controller.policy().clone(),
            needed: Needed::None,
            terminate: false,
        };
        let done = Confirm::default().install(&mut controller, plan)?;
        let interfaces = show::count(done.interfaces, "interface");
        tell(&format!(
            "{interfaces} protected as stored (revision {})\n",
            done.revision
        ));
        Ok(Answer::Yes)
    }
}

/// Whether an interface of that name is to be protected and is not. Devices come and go by the
/// hundred where containers run, and have names of all kinds.
fn waits_for(dirs: &DirOptions, device: &str) -> Result<bool> {
    let view = View::open(dirs)?;
    let is_named = |name: &InterfaceName, interface: &Interface| {
        let matching = interface.matching.as_ref();
        matching.map_or(name.as_str() == device, |matching| {
            matching.may_be_called(device)
        })
    };
    let mut entries = view.policy.vpcs.values().flat_map(|vpc| &vpc.interfaces);
    if !entries.any(|(name, interface)| is_named(name, interface)) {
        return Ok(false);
    }
    let states = view.interface_states()?;
    let mut present = states.present();
    Ok(present.any(|(vpc, name)| {
        name.device().unwrap_or(name.as_str()) == device
            && states.of_interface(vpc, name) == InterfaceState::Open
    }))
}
