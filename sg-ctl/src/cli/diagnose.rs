//! Asking why a connection does not come about.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;
use sg_common::event::EventKind;

use crate::controller::View;
use crate::diagnose::{self, Circumstances, Transport, resolve};
use crate::dirs::DirOptions;
use crate::explain::Machine;
use crate::observe::EventSource;
use crate::policy::names::{InterfaceName, VpcName};
use crate::policy::rule_text::Protocol;
use crate::show::{self, Style};

use super::error::{Error, Result};
use super::output::{print, print_json};
use super::port::Port;
use super::time::time;
use super::{Answer, choose};

/// Names may have many addresses; those that are tried first are the ones that matter.
const ADDRESSES: usize = 4;

#[derive(Debug, Args)]
pub(super) struct Diagnose {
    /// The machine, by name or address
    host: String,
    /// The port, by its number or by a service like https
    port: Port,
    /// What to try [default: the protocol of the service, or tcp]
    #[arg(long, value_enum)]
    protocol: Option<TransportWord>,
    /// Leave by this interface
    #[arg(long, value_name = "IFACE")]
    interface: Option<InterfaceName>,
    /// The VPC of that interface
    #[arg(long, requires = "interface")]
    vpc: Option<VpcName>,
    /// How long to wait for an answer, like 3s or 500ms
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = time(PATIENCE[0], PATIENCE[1]))]
    timeout: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TransportWord {
    Tcp,
    Udp,
}

/// The shortest and the longest time to wait for an answer.
const PATIENCE: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(300)];

impl Diagnose {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let view = View::open(dirs)?;
        let machine = Machine::of(&view.policy, &view.devices()?);
        let interface = self
            .interface
            .as_ref()
            .map(|name| {
                let (vpc, name) = choose::present(&view, self.vpc.as_ref(), None, name)?;
                let found = machine.interface(&vpc, &name);
                found.ok_or(Error::Gone { name })
            })
            .transpose()?;
        let (transport, port) = self.service()?;
        let addresses = self.addresses(port)?;
        let dataplane = view.dataplane()?;
        let circumstances = Circumstances {
            policy: &view.policy,
            machine: &machine,
            dataplane: dataplane.as_ref(),
            interface,
            transport,
            patience: self.timeout,
        };
        // Where another reads them, or nothing is protected, counters have to do.
        let mut events = EventSource::open(dirs, &[EventKind::Drop]).ok();
        let mut tried = Vec::new();
        for address in addresses {
            let diagnosis = circumstances.diagnose(address, events.as_mut())?;
            let is_fine = diagnosis.answer == diagnose::Answer::Fine;
            tried.push(diagnosis);
            if is_fine {
                break;
            }
        }
        let best = tried
            .iter()
            .find(|one| one.answer == diagnose::Answer::Fine);
        let best = best.or(tried.first());
        let answer = best.map_or(diagnose::Answer::Unreachable, |one| one.answer);
        match self.json {
            true => print_json(&json!({
                "answer": answer,
                "host": self.host,
                "port": port,
                "protocol": circumstances.transport.number(),
                "attempts": tried,
            }))?,
            false => {
                let style = Style::of_stdout();
                let texts = tried
                    .iter()
                    .map(|one| show::diagnosis(one, circumstances.transport, style));
                print(&texts.collect::<String>())?;
            }
        }
        Ok(match answer {
            diagnose::Answer::Fine => Answer::Yes,
            _ => Answer::No,
        })
    }

    fn service(&self) -> Result<(Transport, u16)> {
        let protocol = match self.protocol {
            Some(TransportWord::Tcp) => Protocol::Tcp,
            Some(TransportWord::Udp) => Protocol::Udp,
            None => self.port.protocol().unwrap_or(Protocol::Tcp),
        };
        let transport = match protocol {
            Protocol::Udp => Transport::Udp,
            _ => Transport::Tcp,
        };
        Ok((transport, self.port.number(Some(protocol))?))
    }

    fn addresses(&self, port: u16) -> Result<Vec<SocketAddr>> {
        let host = self.host.trim_matches(['[', ']']);
        let unresolved = |source| Error::Unresolved {
            host: self.host.clone(),
            source,
        };
        let mut addresses = resolve(host, port, self.timeout).map_err(unresolved)?;
        for address in &mut addresses {
            address.set_ip(IpAddr::to_canonical(&address.ip()));
        }
        addresses.truncate(ADDRESSES);
        Ok(addresses)
    }
}
