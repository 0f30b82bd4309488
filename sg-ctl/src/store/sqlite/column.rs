//! How the model's values look in a column, and back.
//!
//! Reading is parsing: a row that this program could not have written is refused, never guessed at.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, Value, ValueRef};
use sg_common::packet::Direction;

use crate::policy::mac::MacAddress;
use crate::policy::model::{EgressDrops, Hook, IcmpMatch, OnRuleRemoval, PortRange, Side, Traffic};

/// A value that is stored as it is spelt.
pub(super) struct Text<T>(pub(super) T);

impl<T> FromSql for Text<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value
            .as_str()?
            .parse()
            .map(Self)
            .map_err(FromSqlError::other)
    }
}

impl<T: Display> ToSql for Text<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.to_string().into())
    }
}

/// A choice that is stored as a small number.
pub(super) struct Code<T>(pub(super) T);

/// The choices in the order of their numbers, which never changes.
pub(super) trait Choice: Copy + PartialEq + Sized + 'static {
    const ALL: &'static [Self];
}

impl Choice for bool {
    const ALL: &'static [Self] = &[false, true];
}

impl Choice for Direction {
    const ALL: &'static [Self] = &[Self::Ingress, Self::Egress];
}

impl Choice for Side {
    const ALL: &'static [Self] = &[Self::Host, Self::Guest];
}

impl Choice for Hook {
    const ALL: &'static [Self] = &[Self::Auto, Self::Xdp, Self::Tc, Self::XdpGeneric];
}

impl Choice for EgressDrops {
    const ALL: &'static [Self] = &[Self::Silent, Self::Told];
}

impl Choice for OnRuleRemoval {
    const ALL: &'static [Self] = &[Self::Keep, Self::Terminate];
}

impl<T: Choice> FromSql for Code<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        let choice = usize::try_from(number)
            .ok()
            .and_then(|index| T::ALL.get(index));
        choice
            .copied()
            .map(Self)
            .ok_or(FromSqlError::OutOfRange(number))
    }
}

impl<T: Choice> ToSql for Code<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let number = (0_i64..).zip(T::ALL).find(|(_, choice)| **choice == self.0);
        Ok(ToSqlOutput::Owned(Value::from(
            number.map(|(number, _)| number),
        )))
    }
}

/// Six bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mac(pub(super) MacAddress);

impl FromSql for Mac {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let bytes = <[u8; 6]>::column_result(value)?;
        let mac = MacAddress::new(bytes).map_err(|error| FromSqlError::Other(Box::new(error)))?;
        Ok(Self(mac))
    }
}

impl ToSql for Mac {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Owned(Value::from(self.0.bytes().to_vec())))
    }
}

/// Four bytes or sixteen, in network order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address(pub(super) IpAddr);

impl FromSql for Address {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let bytes = value.as_blob()?;
        if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
            return Ok(Self(Ipv4Addr::from(v4).into()));
        }
        match <[u8; 16]>::try_from(bytes) {
            Ok(v6) => Ok(Self(Ipv6Addr::from(v6).into())),
            Err(_) => Err(FromSqlError::InvalidBlobSize {
                expected_size: 16,
                blob_size: bytes.len(),
            }),
        }
    }
}

impl ToSql for Address {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        }
        .into())
    }
}

/// The columns of a prefix, put together again.
pub(super) fn prefix(Address(address): Address, length: u8) -> FromSqlResult<IpNet> {
    IpNet::new(address, length).map_err(FromSqlError::other)
}

/// The columns protocol, low and high.
#[derive(Clone, Copy)]
pub(super) struct TrafficColumns {
    pub(super) protocol: Option<u8>,
    pub(super) low: Option<u16>,
    pub(super) high: Option<u16>,
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

impl From<Traffic> for TrafficColumns {
    fn from(traffic: Traffic) -> Self {
        let bare = |protocol| Self {
            protocol,
            low: None,
            high: None,
        };
        let ports = |protocol, range: PortRange| Self {
            protocol: Some(protocol),
            low: Some(range.first()),
            high: Some(range.last()),
        };
        let icmp = |protocol, matched| match matched {
            IcmpMatch::Any => bare(Some(protocol)),
            IcmpMatch::Type(kind) => Self {
                low: Some(kind.into()),
                ..bare(Some(protocol))
            },
            IcmpMatch::TypeCode(kind, code) => Self {
                protocol: Some(protocol),
                low: Some(kind.into()),
                high: Some(code.into()),
            },
        };
        match traffic {
            Traffic::All => bare(None),
            Traffic::Tcp(range) => ports(TCP, range),
            Traffic::Udp(range) => ports(UDP, range),
            Traffic::Icmp(matched) => icmp(ICMP, matched),
            Traffic::Icmpv6(matched) => icmp(ICMPV6, matched),
            Traffic::Protocol(number) => bare(Some(number)),
        }
    }
}

impl TrafficColumns {
    /// `None` for columns that say nothing a rule can say.
    pub(super) fn traffic(self) -> Option<Traffic> {
        let ports = || PortRange::new(self.low?, self.high?);
        let icmp = || {
            Some(match (self.low, self.high) {
                (None, None) => IcmpMatch::Any,
                (Some(kind), None) => IcmpMatch::Type(kind.try_into().ok()?),
                (Some(kind), Some(code)) => {
                    IcmpMatch::TypeCode(kind.try_into().ok()?, code.try_into().ok()?)
                }
                (None, Some(_)) => return None,
            })
        };
        match self.protocol {
            Some(TCP) => ports().map(Traffic::Tcp),
            Some(UDP) => ports().map(Traffic::Udp),
            Some(ICMP) => icmp().map(Traffic::Icmp),
            Some(ICMPV6) => icmp().map(Traffic::Icmpv6),
            _ if self.low.is_some() || self.high.is_some() => None,
            Some(number) => Some(Traffic::Protocol(number)),
            None => Some(Traffic::All),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_traffic_comes_back() {
        let range = PortRange::new(0, 65535).unwrap();
        for traffic in [
            Traffic::All,
            Traffic::Tcp(range),
            Traffic::Udp(PortRange::new(53, 53).unwrap()),
            Traffic::Icmp(IcmpMatch::Any),
            Traffic::Icmp(IcmpMatch::Type(0)),
            Traffic::Icmpv6(IcmpMatch::TypeCode(255, 0)),
            Traffic::Protocol(0),
            Traffic::Protocol(255),
        ] {
            assert_eq!(TrafficColumns::from(traffic).traffic(), Some(traffic));
        }
    }

    #[test]
    fn columns_that_no_rule_has_are_refused() {
        for (protocol, low, high) in [
            (Some(TCP), None, None),
            (Some(TCP), Some(2), Some(1)),
            (Some(ICMP), None, Some(1)),
            (Some(ICMP), Some(256), None),
            (Some(47), Some(1), Some(1)),
            (None, Some(1), Some(1)),
        ] {
            let columns = TrafficColumns {
                protocol,
                low,
                high,
            };
            assert_eq!(columns.traffic(), None, "{protocol:?} {low:?} {high:?}");
        }
    }
}
