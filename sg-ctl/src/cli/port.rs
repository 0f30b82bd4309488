//! Ports by their number, or by the name of a service.

use std::str::FromStr;

use crate::policy::model::{PortRange, Traffic};
use crate::policy::rule_text::{Protocol, RuleError, parse_ports};
use crate::policy::services::{SERVICES, Service, service};
use crate::policy::suggest::closest;

use super::error::{Error, Result};

/// A port, or the service whose port is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Number(u16),
    Service(&'static Service),
}

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        match (text.parse(), service(text)) {
            (Ok(number), _) if is_number => Ok(Self::Number(number)),
            (_, Ok(service)) => Ok(Self::Service(service)),
            _ => {
                let known = SERVICES.iter().map(|service| service.name);
                let meant = closest(text, known).filter(|_| !is_number);
                let meant = meant.map(|name| format!("; did you mean \"{name}\"?"));
                Err(format!(
                    "{text:?} is not a port; write a number from 0 to 65535, or a service like \
                     https{}",
                    meant.unwrap_or_default()
                ))
            }
        }
    }
}

impl Port {
    /// Its number: with a protocol, that of the service's port there.
    pub(super) fn number(self, protocol: Option<Protocol>) -> Result<u16> {
        let service = match self {
            Self::Number(number) => return Ok(number),
            Self::Service(service) => service,
        };
        let mut ranges = ranges_of(service, protocol);
        ranges.dedup();
        match ranges.as_slice() {
            [range] if range.first() == range.last() => Ok(range.first()),
            [] => Err(Error::ServiceWithoutPort(service.name)),
            _ => Err(Error::SeveralPorts(service.name)),
        }
    }

    /// The protocol of a service that has only one.
    pub(super) fn protocol(self) -> Option<Protocol> {
        let Self::Service(service) = self else {
            return None;
        };
        let has = |protocol| !ranges_of(service, Some(protocol)).is_empty();
        match (has(Protocol::Tcp), has(Protocol::Udp)) {
            (true, false) => Some(Protocol::Tcp),
            (false, true) => Some(Protocol::Udp),
            _ => None,
        }
    }
}

/// Reads `443`, `8000-8080`, `https`, `all` and lists of them with commas.
pub(super) fn port_ranges(text: &str, protocol: Protocol) -> Result<Vec<PortRange>> {
    let each = text
        .split(',')
        .map(|part| match (parse_ports(part), service(part.trim())) {
            (Err(RuleError::Port(_)), Ok(service)) => match ranges_of(service, Some(protocol)) {
                ranges if ranges.is_empty() => Err(Error::ServiceWithoutPort(service.name)),
                ranges => Ok(ranges),
            },
            (ranges, _) => Ok(ranges?),
        });
    Ok(each.collect::<Result<Vec<_>>>()?.concat())
}

fn ranges_of(service: &Service, protocol: Option<Protocol>) -> Vec<PortRange> {
    let ranges = service.traffic.iter().filter_map(|traffic| match traffic {
        Traffic::Tcp(ports) if protocol.is_none_or(|asked| asked == Protocol::Tcp) => Some(*ports),
        Traffic::Udp(ports) if protocol.is_none_or(|asked| asked == Protocol::Udp) => Some(*ports),
        _ => None,
    });
    ranges.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str, protocol: Option<Protocol>) -> Result<u16, String> {
        let port: Port = text.parse()?;
        port.number(protocol).map_err(|error| error.to_string())
    }

    #[test]
    fn a_port_is_a_number_or_a_service() {
        let (tcp, udp) = (Some(Protocol::Tcp), Some(Protocol::Udp));
        assert_eq!(number("22", None), Ok(22));
        assert_eq!(number("HTTPS", tcp), Ok(443));
        assert_eq!(number("dns", None), Ok(53));
        assert_eq!(number("dns", udp), Ok(53));
        assert!(number("ssh", udp).unwrap_err().contains("has no such port"));
        for refused in ["65536", "+22", "", "-1", "22x"] {
            assert!(number(refused, None).unwrap_err().contains("is not a port"));
        }
        assert!(
            number("htps", None)
                .unwrap_err()
                .contains("did you mean \"https\"?")
        );
    }

    #[test]
    fn rules_take_services_as_ports() {
        let ranges = |text| {
            let ranges = port_ranges(text, Protocol::Tcp).map_err(|error| error.to_string())?;
            Ok::<_, String>(
                ranges
                    .iter()
                    .map(PortRange::to_string)
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        };
        assert_eq!(
            ranges("https,8080,9000-9010").unwrap(),
            "443 8080 9000-9010"
        );
        assert!(ranges("ping").unwrap_err().contains("has no such port"));
        assert!(ranges("90-80").unwrap_err().contains("is reversed"));
        assert!(ranges("nope").unwrap_err().contains("is not a port"));
    }
}
