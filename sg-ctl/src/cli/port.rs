//! Ports by their number, or by the name of a service.

use std::str::FromStr;

use crate::policy::rule_text::{Protocol, ports_of, similar_service};
use crate::policy::services::{Service, service};

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
                let advice = match similar_service(text) {
                    Some(name) => format!("did you mean \"{name}\"?"),
                    None => "write a number from 0 to 65535, or a service like https".to_owned(),
                };
                Err(format!("{text:?} is not a port; {advice}"))
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
        let mut ranges: Vec<_> = ports_of(service, protocol).collect();
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
        let has = |protocol| ports_of(service, Some(protocol)).next().is_some();
        match (has(Protocol::Tcp), has(Protocol::Udp)) {
            (true, false) => Some(Protocol::Tcp),
            (false, true) => Some(Protocol::Udp),
            _ => None,
        }
    }
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
}
