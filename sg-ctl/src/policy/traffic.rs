//! Traffic as an interval of services: what the tables are made of, and how two rules compare.

use std::net::IpAddr;

use sg_common::ports::Service;
use sg_common::protocol::{ICMP, ICMPV6, TCP, UDP};

use super::model::{IcmpMatch, PortRange, Traffic};

/// Every service of a protocol.
fn whole(protocol: u8) -> (u32, u32) {
    within(protocol, 0, u16::MAX)
}

fn within(protocol: u8, first: u16, last: u16) -> (u32, u32) {
    (
        Service::new(protocol, first).0,
        Service::new(protocol, last).0,
    )
}

impl Traffic {
    /// The first and the last service that the traffic is.
    pub(crate) fn services(self) -> (u32, u32) {
        let icmp = |protocol, wanted| match wanted {
            IcmpMatch::Any => whole(protocol),
            IcmpMatch::Type(kind) => {
                within(protocol, u16::from(kind) << 8, u16::from(kind) << 8 | 0xff)
            }
            IcmpMatch::TypeCode(kind, code) => {
                let low = u16::from(kind) << 8 | u16::from(code);
                within(protocol, low, low)
            }
        };
        match self {
            Self::All => (0, Service::END - 1),
            Self::Tcp(ports) => within(TCP, ports.first(), ports.last()),
            Self::Udp(ports) => within(UDP, ports.first(), ports.last()),
            Self::Icmp(wanted) => icmp(ICMP, wanted),
            Self::Icmpv6(wanted) => icmp(ICMPV6, wanted),
            Self::Protocol(number) => whole(number),
        }
    }

    /// Whether all that `other` admits is admitted.
    pub(crate) fn covers(self, other: Self) -> bool {
        let ((first, last), (from, to)) = (self.services(), other.services());
        first <= from && to <= last
    }

    /// Whether the service is admitted.
    pub(crate) fn admits(self, service: Service) -> bool {
        let (first, last) = self.services();
        (first..=last).contains(&service.0)
    }

    /// Whether it is SSH or remote desktop alone.
    pub(crate) fn is_administration(self) -> bool {
        match self {
            Self::Tcp(ports) | Self::Udp(ports) => {
                ports.first() == ports.last() && matches!(ports.first(), 22 | 3389)
            }
            _ => false,
        }
    }

    /// The least that admits the service.
    pub(crate) fn only(service: Service) -> Self {
        let low = service.0 as u16;
        let port = PortRange::new(low, low).unwrap_or(PortRange::ALL);
        let [kind, code] = low.to_be_bytes();
        // Codes are details of what a type says, and an echo has none.
        let message = match (service.protocol(), kind) {
            (ICMP, 8) | (ICMPV6, 128) => IcmpMatch::Type(kind),
            _ => IcmpMatch::TypeCode(kind, code),
        };
        match service.protocol() {
            TCP => Self::Tcp(port),
            UDP => Self::Udp(port),
            ICMP => Self::Icmp(message),
            ICMPV6 => Self::Icmpv6(message),
            other => Self::Protocol(other),
        }
    }
}

/// Whether both addresses are of one family.
pub(crate) fn are_one_family(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_an_interval_of_services() {
        let http = Traffic::Tcp(PortRange::new(80, 90).unwrap());
        assert_eq!(http.services(), (0x06_0050, 0x06_005a));
        assert_eq!(
            Traffic::Udp(PortRange::ALL).services(),
            (0x11_0000, 0x11_ffff)
        );
        assert_eq!(
            Traffic::Icmp(IcmpMatch::Type(8)).services(),
            (0x01_0800, 0x01_08ff)
        );
        assert_eq!(
            Traffic::Icmpv6(IcmpMatch::TypeCode(128, 0)).services(),
            (0x3a_8000, 0x3a_8000)
        );
        assert_eq!(Traffic::Protocol(47).services(), (0x2f_0000, 0x2f_ffff));
    }

    #[test]
    fn the_least_traffic_of_a_service_admits_it() {
        for service in [0x06_0016, 0x11_0035, 0x01_0800, 0x3a_8000, 0x01_0304] {
            let only = Traffic::only(Service(service));
            assert!(only.admits(Service(service)), "{only}");
            assert!(!only.admits(Service(service ^ 0x10_0000)), "{only}");
            assert!(Traffic::All.covers(only) && !only.covers(Traffic::All));
        }
        assert_eq!(Traffic::only(Service::new(47, 0)), Traffic::Protocol(47));
    }
}
