//! Link-layer addresses as users write them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The link-layer address of one device on Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress([u8; 6]);

/// Why a text is no link-layer address of a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six numbers.
    #[error("{text:?} is not a MAC address; write one like 52:54:00:12:34:56")]
    Form {
        /// The text as given.
        text: String,
    },
    /// No device sends from it.
    #[error("{0} is a multicast address or zero, and no device sends from it")]
    NoDevice(MacAddress),
}

impl MacAddress {
    /// Of these bytes, if a device can have it.
    pub fn new(bytes: [u8; 6]) -> Result<Self, MacError> {
        let mac = Self(bytes);
        match bytes[0] & 1 == 1 || bytes == [0; 6] {
            true => Err(MacError::NoDevice(mac)),
            false => Ok(mac),
        }
    }

    /// The six bytes.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// The link-local address that a device derives from it (RFC 4291 appendix A).
    pub fn link_local(self) -> IpAddr {
        let [a, b, c, d, e, f] = self.0.map(u16::from);
        let groups = [
            0xfe80,
            0,
            0,
            0,
            (a ^ 2) << 8 | b,
            c << 8 | 0xff,
            0xfe00 | d,
            e << 8 | f,
        ];
        IpAddr::V6(Ipv6Addr::from(groups))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let byte = |part: &str| match part.len() {
            2 if !part.starts_with('+') => u8::from_str_radix(part, 16).ok(),
            _ => None,
        };
        let parts: Option<Vec<u8>> = text.split([':', '-']).map(byte).collect();
        let bytes = parts.and_then(|parts| <[u8; 6]>::try_from(parts).ok());
        let bytes = bytes.ok_or_else(|| MacError::Form {
            text: text.to_owned(),
        })?;
        Self::new(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_is_read_as_it_is_written() {
        let mac: MacAddress = "52:54:00:Ab:cd:01".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:01");
        assert_eq!("52-54-00-ab-cd-01".parse(), Ok(mac));
        for wrong in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:01:02",
            "52:54:00:ab:cd:+1",
            "5254.00ab.cd01",
            "52:54:0:ab:cd:01",
        ] {
            let error = wrong.parse::<MacAddress>();
            assert!(matches!(error, Err(MacError::Form { .. })), "{wrong}");
        }
    }

    #[test]
    fn no_device_has_a_multicast_address() {
        for wrong in [
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
        ] {
            let error = wrong.parse::<MacAddress>();
            assert!(matches!(error, Err(MacError::NoDevice(_))), "{wrong}");
        }
    }

    #[test]
    fn a_device_derives_its_link_local_address() {
        let mac: MacAddress = "52:54:00:ab:cd:01".parse().unwrap();
        assert_eq!(mac.link_local().to_string(), "fe80::5054:ff:feab:cd01");
    }
}
