//! Looking at what the kernel does.

use std::collections::HashSet;
use std::net::IpAddr;

use clap::{Args, Subcommand};
use ipnet::IpNet;

use crate::controller::{View, namespace};
use crate::dataplane::room_for_flows;
use crate::dirs::DirOptions;
use crate::interfaces::link;
use crate::observe::{self, Flow, FlowFilter, protocol_number};
use crate::policy::model::{Policy, Side};
use crate::policy::names::{InterfaceName, RuleId};
use crate::policy::prefix::parse_prefix;
use crate::policy::rule_text::Protocol;
use crate::policy::suggest::closest;
use crate::show::{self, FlowLines, Style};

use super::Answer;
use super::error::{Error, Result};
use super::output::{Output, json_list_start, print, print_json};

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
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Flows {
    /// List the flows that are alive
    List(FlowsList),
}

#[derive(Debug, Args)]
pub(super) struct FlowsList {
    /// Only this protocol, like tcp or 47
    #[arg(long)]
    protocol: Option<Protocol>,
    /// Only flows whose protected side is in this prefix
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    local: Option<IpNet>,
    /// Only flows whose other side is in this prefix
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    peer: Option<IpNet>,
    /// Only flows with this port on either side
    #[arg(long)]
    port: Option<u16>,
    /// Only flows in this state, like established
    #[arg(long)]
    state: Option<String>,
    /// Only flows of the addresses of this interface
    #[arg(long, value_name = "IFACE")]
    interface: Option<InterfaceName>,
    /// Only flows of this zone
    #[arg(long)]
    zone: Option<u32>,
    /// Only flows that this rule admitted
    #[arg(long, value_name = "RULE-ID")]
    rule: Option<RuleId>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let view = View::open(dirs)?;
        let dataplane = view.dataplane()?;
        let mut status = observe::Status::read(view.revision, &view.policy, dataplane.as_ref())?
            .with_confirmations(&view);
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
        let dataplane = view.dataplane()?;
        let stats = observe::Stats::read(&view.policy, dataplane.as_ref(), only)?;
        match self.json {
            true => print_json(&stats)?,
            false => print(&show::stats(&stats, Style::of_stdout()))?,
        }
        Ok(Answer::Yes)
    }
}

impl Flows {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        match self {
            Self::List(command) => command.run(dirs),
        }
    }
}

impl FlowsList {
    fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let view = View::open(dirs)?;
        let filter = self.filter(&view.policy)?;
        let mut output = Output::new();
        let mut written = Ok(());
        let mut lines = FlowLines::new(Style::of_stdout());
        let mut separator = "\n";
        if self.json {
            output.write(&json_list_start("flows"))?;
        }
        if let Some(dataplane) = view.dataplane()? {
            dataplane.flows(&mut |report| {
                if written.is_err() || !filter.takes(&report) {
                    return;
                }
                let flow = Flow::from(report);
                written = match self.json {
                    true => serde_json::to_string(&flow)
                        .map_err(|error| Error::Write(error.into()))
                        .and_then(|text| output.write(&format!("{separator}{text}"))),
                    false => output.write(&lines.line(&flow)),
                };
                separator = ",\n";
            })?;
        }
        written?;
        output.write(match self.json {
            true => "\n]}\n",
            false => lines.end(),
        })?;
        output.finish()?;
        Ok(Answer::Yes)
    }

    fn filter(&self, policy: &Policy) -> Result<FlowFilter> {
        let addresses = self.interface.as_ref();
        let addresses = addresses.map(|name| addresses_of(policy, name));
        Ok(FlowFilter {
            protocol: self.protocol.and_then(protocol_number),
            local: self.local,
            peer: self.peer,
            port: self.port,
            state: self.state.clone(),
            zone: self.zone,
            rule: self.rule,
            addresses: addresses.transpose()?,
        })
    }
}

fn require_interface(policy: &Policy, name: &InterfaceName) -> Result<()> {
    if policy
        .vpcs
        .values()
        .any(|vpc| vpc.interfaces.contains_key(name))
    {
        return Ok(());
    }
    let known = policy.vpcs.values().flat_map(|vpc| vpc.interfaces.keys());
    Err(Error::NotAttached {
        name: name.to_string(),
        meant: closest(name.as_str(), known.map(InterfaceName::as_str)).map(str::to_owned),
    })
}

/// The addresses that flows of an interface have at their protected side.
fn addresses_of(policy: &Policy, name: &InterfaceName) -> Result<HashSet<IpAddr>> {
    require_interface(policy, name)?;
    let mut addresses = HashSet::new();
    for interface in policy
        .vpcs
        .values()
        .filter_map(|vpc| vpc.interfaces.get(name))
    {
        match interface.side {
            Side::Guest => addresses.extend(&interface.addresses),
            Side::Host => {
                let link = link(&namespace(interface.netns.as_deref())?, name.as_str())?;
                addresses.extend(link.addresses.iter().map(IpNet::addr));
            }
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    fn filter(words: &[&str]) -> Result<FlowFilter, String> {
        let words = [&["sg-ctl", "flows", "list"], words].concat();
        match Cli::try_parse_from(words)
            .map_err(|error| error.to_string())?
            .command
        {
            Command::Flows(Flows::List(list)) => list
                .filter(&Policy::default())
                .map_err(|error| error.to_string()),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn flows_are_asked_for_in_the_words_of_rules() {
        let asked = filter(&["--protocol", "tcp", "--peer", "10.0.0.9", "--port", "22"]).unwrap();
        assert_eq!(asked.protocol, Some(6));
        assert_eq!(asked.peer, "10.0.0.9/32".parse().ok());
        assert_eq!(asked.port, Some(22));
        assert_eq!(
            filter(&["--protocol", "all"]).unwrap(),
            FlowFilter::default()
        );
        let refused = filter(&["--peer", "10.0.0.0/33"]).unwrap_err();
        assert!(refused.contains("impossible prefix length"), "{refused}");
    }

    #[test]
    fn flows_of_an_interface_that_is_not_attached_cannot_be_asked_for() {
        let refused = filter(&["--interface", "eth0"]).unwrap_err();
        assert!(
            refused.starts_with("interface \"eth0\" is not attached"),
            "{refused}"
        );
    }
}
