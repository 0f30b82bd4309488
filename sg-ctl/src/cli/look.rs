//! Looking at what the kernel does.

use std::time::Duration;

use clap::Args;

use crate::controller::View;
use crate::dataplane::room_for_flows;
use crate::dirs::DirOptions;
use crate::observe;
use crate::policy::model::{Interface, Policy};
use crate::policy::names::InterfaceName;
use crate::policy::suggest::closest;
use crate::show::{self, Style};

use super::Answer;
use super::error::{Error, Result};
use super::output::{print, print_json};
use super::time::time;
use super::watch::watch;

/// The shortest and the longest time between two looks.
const WATCH: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3_600)];

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Stats {
    /// Only this interface and the groups it is in
    #[arg(value_name = "IFACE")]
    interface: Option<InterfaceName>,
    /// Show how fast counters grow, until interrupted
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s",
          value_parser = time(WATCH[0], WATCH[1]))]
    watch: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let view = View::open(dirs)?;
        let dataplane = view.dataplane()?;
        let states = view.interface_states()?;
        let status =
            observe::Status::read(view.revision, &view.policy, &states, dataplane.as_ref())?;
        let mut status = status.with_confirmations(&view);
        if status.flows.capacity == 0 {
            // What there will be when something is attached.
            status.flows.capacity = room_for_flows(view.limits.flows).into();
        }
        match self.json {
            true => print_json(&status)?,
            false => print(&show::status(&status, Style::of_stdout()))?,
        }
        Ok(Answer::Yes)
    }
}

impl Stats {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let view = View::open(dirs)?;
        let only = self.interface.as_ref();
        if let Some(name) = only {
            require_interface(&view.policy, name)?;
        }
        if let Some(every) = self.watch {
            return watch(dirs, only, every, self.json);
        }
        let dataplane = view.dataplane()?;
        let stats = observe::Stats::read(&view.policy, dataplane.as_ref(), only)?;
        match self.json {
            true => print_json(&stats)?,
            false => print(&show::stats(&stats, Style::of_stdout()))?,
        }
        Ok(Answer::Yes)
    }
}

pub(super) fn require_interface(policy: &Policy, name: &InterfaceName) -> Result<()> {
    let may_be = |(entry, interface): (&InterfaceName, &Interface)| match &interface.matching {
        None => entry == name,
        Some(matching) => entry.as_str() == name.entry() || matching.may_be_called(name.as_str()),
    };
    let mut entries = policy.vpcs.values().flat_map(|vpc| &vpc.interfaces);
    if entries.any(may_be) {
        return Ok(());
    }
    let known = policy.vpcs.values().flat_map(|vpc| vpc.interfaces.keys());
    Err(Error::NotAttached {
        name: name.to_string(),
        meant: closest(name.as_str(), known.map(InterfaceName::as_str)).map(str::to_owned),
    })
}
