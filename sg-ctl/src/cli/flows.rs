//! Looking at tracked flows, and ending them.

use std::collections::HashSet;
use std::net::IpAddr;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde::Serialize;
use serde_json::json;
use sg_common::flow::Phase;

use crate::controller::{Controller, View, namespace};
use crate::dataplane::{Dataplane, Device, FlowReport};
use crate::dirs::DirOptions;
use crate::explain::Machine;
use crate::interfaces::link;
use crate::observe::{Flow, FlowFilter, RuleNames, protocol_number};
use crate::policy::model::{Policy, Side};
use crate::policy::names::{InterfaceName, RuleId, VpcName};
use crate::policy::prefix::parse_prefix;
use crate::policy::rule_text::Protocol;
use crate::policy::suggest::closest;
use crate::show::{self, FlowLines, Style};

use super::error::{Error, Result};
use super::look::require_interface;
use super::output::{Output, json_list_start, print, print_json, tell, tell_json, uniform};
use super::port::Port;
use super::{Answer, choose};

/// More flows than anyone reads in detail; the others are counted.
const SHOWN: usize = 20;

#[derive(Debug, Subcommand)]
pub(super) enum Flows {
    /// List the connections that are open
    List(List),
    /// Show connections in detail, with the rules that allowed them
    Show(Show),
    /// Close connections: the rules judge their next packets as new ones
    ///
    /// A connection that the rules still allow goes on as a new one, unless the interface has
    /// `tcp_pickup: false`. The packets of every other one are dropped from now on.
    Terminate(Terminate),
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    words: Words,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    words: Words,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Terminate {
    #[command(flatten)]
    words: Words,
    /// Close every connection
    #[arg(long, conflicts_with = "Flows")]
    all: bool,
    /// Only show how many there are
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which flows are meant: those that match every option.
#[derive(Debug, Default, Args)]
#[group(id = "Flows", multiple = true)]
struct Words {
    /// Only this protocol, like tcp or 47
    #[arg(long)]
    protocol: Option<Protocol>,
    /// Only flows whose protected side is in this prefix
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    local: Option<IpNet>,
    /// Only flows whose other side is in this prefix
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    peer: Option<IpNet>,
    /// Only flows with this port on either side, like 443 or https
    #[arg(long)]
    port: Option<Port>,
    /// Only flows in this state, like established
    #[arg(long, value_parser = parse_state)]
    state: Option<String>,
    /// Only flows of the addresses of this interface
    #[arg(long, value_name = "IFACE")]
    interface: Option<InterfaceName>,
    /// Only flows of interfaces of this VPC
    #[arg(long)]
    vpc: Option<VpcName>,
    /// Only flows of this zone
    #[arg(long)]
    zone: Option<u32>,
    /// Only flows that this rule admitted
    #[arg(long, value_name = "RULE-ID")]
    rule: Option<RuleId>,
}

fn parse_state(text: &str) -> Result<String, String> {
    let names = || {
        (0..=u8::MAX)
            .map(|phase| Phase(phase).name())
            .filter(|name| *name != "unknown")
    };
    match names().find(|name| name.eq_ignore_ascii_case(text)) {
        Some(name) => Ok(name.to_owned()),
        None => Err(match closest(text, names()) {
            Some(meant) => format!("there is no state {text:?}; did you mean \"{meant}\"?"),
            None => format!(
                "there is no state {text:?}; use {}",
                names().collect::<Vec<_>>().join(", ")
            ),
        }),
    }
}

impl Words {
    /// What is asked for; the machine's devices are looked at if they matter.
    fn filter(
        &self,
        policy: &Policy,
        devices: impl FnOnce() -> Result<Vec<Device>>,
    ) -> Result<FlowFilter> {
        if let Some(vpc) = &self.vpc {
            choose::named_vpc(policy, vpc)?;
        }
        let addresses = self.interface.as_ref();
        let addresses = addresses.map(|name| {
            require_interface(policy, name)?;
            let machine = Machine::of(policy, &devices()?);
            addresses_of(policy, &machine, self.vpc.as_ref(), name)
        });
        Ok(FlowFilter {
            protocol: self.protocol.and_then(protocol_number),
            local: self.local,
            peer: self.peer,
            port: self
                .port
                .map(|port| port.number(self.protocol))
                .transpose()?,
            state: self.state.clone(),
            vpc: self.vpc.clone(),
            zone: self.zone,
            rule: self.rule,
            addresses: addresses.transpose()?,
        })
    }

    /// Whether anything at all is said; `--protocol all` is nothing.
    fn chooses(&self, filter: &FlowFilter) -> bool {
        *filter != FlowFilter::default() || self.protocol.is_some()
    }
}

/// The addresses that flows of an interface have at their protected side.
fn addresses_of(
    policy: &Policy,
    machine: &Machine,
    vpc: Option<&VpcName>,
    name: &InterfaceName,
) -> Result<HashSet<IpAddr>> {
    let matched = machine.interfaces.iter().filter(|interface| {
        let is_in = vpc.is_none_or(|vpc| *vpc == interface.vpc);
        is_in && interface.name.device().is_some() && interface.name.is_meant_by(name)
    });
    let matched = matched.flat_map(|interface| &interface.addresses);
    let mut addresses: HashSet<_> = matched.map(IpNet::addr).collect();
    for interface in policy
        .vpcs
        .iter()
        .filter(|(other, _)| vpc.is_none_or(|vpc| vpc == *other))
        .filter_map(|(_, vpc)| vpc.interfaces.get(name))
        .filter(|interface| interface.matching.is_none())
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

impl Flows {
    /// Whether it changes nothing.
    pub(super) fn only_looks(&self) -> bool {
        !matches!(self, Self::Terminate(_))
    }

    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        match self {
            Self::List(command) => command.run(dirs),
            Self::Show(command) => command.run(dirs),
            Self::Terminate(command) => command.run(dirs),
        }
    }
}

/// Calls `each` with every flow that is asked for, until it fails.
fn for_each(
    dataplane: Option<&Dataplane>,
    filter: &FlowFilter,
    mut each: impl FnMut(FlowReport) -> Result<()>,
) -> Result<()> {
    let mut outcome = Ok(());
    if let Some(dataplane) = dataplane {
        dataplane.flows(&mut |flow| {
            if outcome.is_ok() && filter.takes(&flow) {
                outcome = each(flow);
            }
        })?;
    }
    outcome
}

/// Writes a JSON list under the name `flows` as its members come. Nothing is written before the first one:
/// until then a command that finds what it reads replaced can look again.
struct JsonFlows<'a> {
    output: &'a mut Output,
    separator: String,
}

impl<'a> JsonFlows<'a> {
    fn of(output: &'a mut Output) -> Self {
        Self {
            output,
            separator: json_list_start("flows") + "\n",
        }
    }

    fn write(&mut self, flow: &impl Serialize) -> Result<()> {
        let text = uniform(flow)?;
        self.output.write(&format!("{}{text}", self.separator))?;
        self.separator = ",\n".to_owned();
        Ok(())
    }

    fn end(self) -> Result<()> {
        let start = json_list_start("flows");
        if self.separator.starts_with(&start) {
            self.output.write(&start)?;
        }
        self.output.write("\n]}\n")
    }
}

impl List {
    fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let view = View::open(dirs)?;
        let filter = self.words.filter(&view.policy, || Ok(view.devices()?))?;
        let dataplane = view.dataplane()?;
        let mut output = Output::new();
        if self.json {
            let mut list = JsonFlows::of(&mut output);
            for_each(dataplane.as_ref(), &filter, |flow| {
                list.write(&Flow::from(flow))
            })?;
            list.end()?;
        } else {
            let mut lines = FlowLines::new(Style::of_stdout());
            for_each(dataplane.as_ref(), &filter, |flow| {
                output.write(&lines.line(&Flow::from(flow)))
            })?;
            output.write(lines.end())?;
        }
        output.finish()?;
        Ok(Answer::Yes)
    }
}

impl Show {
    fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let view = View::open(dirs)?;
        let filter = self.words.filter(&view.policy, || Ok(view.devices()?))?;
        let dataplane = view.dataplane()?;
        let mut output = Output::new();
        let rules = RuleNames::of(&view.policy);
        let with_rule = |flow: FlowReport| rules.join(Flow::from(flow));
        if self.json {
            let mut list = JsonFlows::of(&mut output);
            for_each(dataplane.as_ref(), &filter, |flow| {
                list.write(&with_rule(flow))
            })?;
            list.end()?;
        } else {
            let (style, mut count) = (Style::of_stdout(), 0_usize);
            for_each(dataplane.as_ref(), &filter, |flow| {
                count += 1;
                match count <= SHOWN {
                    true => output.write(&show::flow(&with_rule(flow), style)),
                    false => Ok(()),
                }
            })?;
            output.write(&show::flows_left(count, SHOWN))?;
        }
        output.finish()?;
        Ok(Answer::Yes)
    }
}

impl Terminate {
    fn run(self, dirs: &DirOptions) -> Result<Answer> {
        // Whoever changes the layout meanwhile would take the flows' maps away.
        let controller = Controller::open(dirs)?;
        let filter = self
            .words
            .filter(controller.policy(), || Ok(View::open(dirs)?.devices()?))?;
        if !self.all && !self.words.chooses(&filter) {
            return Err(Error::AllFlows);
        }
        let dataplane = controller.dataplane_in_force()?;
        let mut keys = Vec::new();
        for_each(dataplane.as_ref(), &filter, |flow| {
            keys.push(flow.key);
            Ok(())
        })?;
        let count = match (&dataplane, self.dry_run) {
            (_, true) => keys.len(),
            (None, false) => 0,
            (Some(dataplane), false) => match dataplane.ender()? {
                None => 0,
                Some(ender) => {
                    let mut ended = 0;
                    for key in &keys {
                        ended += usize::from(ender.end(key)?);
                    }
                    ended
                }
            },
        };
        let json = json!({"count": count, "dry_run": self.dry_run});
        let text = show::flows_ended(count, self.dry_run);
        match (self.json, self.dry_run) {
            (true, true) => print_json(&json)?,
            (true, false) => tell_json(&json),
            (false, true) => print(&text)?,
            (false, false) => tell(&text),
        }
        Ok(Answer::Yes)
    }
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
                .words
                .filter(&Policy::default(), || Ok(Vec::new()))
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
