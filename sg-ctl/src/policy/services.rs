//! Traffic by the name of the service it belongs to.
//!
//! A service is only a shorter spelling: a rule holds the traffic and forgets the name.

use super::model::{IcmpMatch, PortRange, Traffic};
use super::suggest::closest;

/// A named set of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// In lower case; looked up in any case.
    pub name: &'static str,
    /// What a rule for the service allows, one rule each.
    pub traffic: &'static [Traffic],
    /// For lists and completions.
    pub about: &'static str,
}

/// A name that no service has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a service; {}", match suggestion {
    Some(name) => format!("did you mean \"{name}\"?"),
    None => "use one like ssh, https or ping, or give protocol and ports".to_owned(),
})]
pub struct UnknownService {
    /// The name as given.
    pub name: String,
    /// The name that was perhaps meant.
    pub suggestion: Option<&'static str>,
}

/// Finds a service by its name in any case.
pub fn service(name: &str) -> Result<&'static Service, UnknownService> {
    let found = SERVICES
        .iter()
        .find(|service| service.name.eq_ignore_ascii_case(name));
    found.ok_or_else(|| UnknownService {
        name: name.chars().take(80).collect(),
        suggestion: closest(name, SERVICES.iter().map(|service| service.name)),
    })
}

const fn tcp(first: u16, last: u16) -> Traffic {
    Traffic::Tcp(range(first, last))
}

const fn udp(first: u16, last: u16) -> Traffic {
    Traffic::Udp(range(first, last))
}

/// Evaluated while compiling only, where a panic is a compile error.
const fn range(first: u16, last: u16) -> PortRange {
    match PortRange::new(first, last) {
        Some(range) => range,
        None => panic!("a service's port range is reversed"),
    }
}

const fn one(name: &'static str, about: &'static str, traffic: &'static [Traffic]) -> Service {
    Service {
        name,
        traffic,
        about,
    }
}

const PING: Traffic = Traffic::Icmp(IcmpMatch::Type(8));
const PING6: Traffic = Traffic::Icmpv6(IcmpMatch::Type(128));

/// Every service, the sets that open a whole protocol last.
pub const SERVICES: &[Service] = &[
    one("dns", "name resolution", &[tcp(53, 53), udp(53, 53)]),
    one(
        "ftp",
        "file transfer, control and active transfers",
        &[tcp(20, 21)],
    ),
    one("http", "web", &[tcp(80, 80)]),
    one("https", "web over TLS", &[tcp(443, 443)]),
    one("imap", "reading mail", &[tcp(143, 143)]),
    one("imaps", "reading mail over TLS", &[tcp(993, 993)]),
    one("kerberos", "authentication", &[tcp(88, 88), udp(88, 88)]),
    one("ldap", "directory", &[tcp(389, 389)]),
    one("ldaps", "directory over TLS", &[tcp(636, 636)]),
    one("memcached", "cache", &[tcp(11211, 11211)]),
    one("mongodb", "database", &[tcp(27017, 27017)]),
    one("mssql", "Microsoft SQL Server", &[tcp(1433, 1433)]),
    one("mysql", "MySQL and MariaDB", &[tcp(3306, 3306)]),
    one("nfs", "network file system", &[tcp(2049, 2049)]),
    one("ntp", "time", &[udp(123, 123)]),
    one("oracle", "Oracle database", &[tcp(1521, 1521)]),
    one("ping", "echo requests of both families", &[PING, PING6]),
    one("pop3", "fetching mail", &[tcp(110, 110)]),
    one("pop3s", "fetching mail over TLS", &[tcp(995, 995)]),
    one("postgres", "PostgreSQL", &[tcp(5432, 5432)]),
    one("postgresql", "PostgreSQL", &[tcp(5432, 5432)]),
    one("rdp", "remote desktop", &[tcp(3389, 3389), udp(3389, 3389)]),
    one("redis", "cache", &[tcp(6379, 6379)]),
    one("sftp", "file transfer over SSH", &[tcp(22, 22)]),
    one("smb", "Windows file sharing", &[tcp(445, 445)]),
    one("smtp", "sending mail", &[tcp(25, 25)]),
    one("smtps", "sending mail over TLS", &[tcp(465, 465)]),
    one("snmp", "monitoring", &[udp(161, 161)]),
    one("ssh", "secure shell", &[tcp(22, 22)]),
    one("submission", "sending mail as a user", &[tcp(587, 587)]),
    one("syslog", "logs", &[udp(514, 514)]),
    one(
        "traceroute",
        "being found by traceroute",
        &[udp(33434, 33534), PING, PING6],
    ),
    one("vnc", "remote screen, displays 0 to 9", &[tcp(5900, 5909)]),
    one("winrm", "Windows remote management", &[tcp(5985, 5986)]),
    one("wireguard", "VPN", &[udp(51820, 51820)]),
    one("all-tcp", "every TCP port", &[Traffic::Tcp(PortRange::ALL)]),
    one("all-udp", "every UDP port", &[Traffic::Udp(PortRange::ALL)]),
    one(
        "all-icmp",
        "every ICMP message of both families",
        &[
            Traffic::Icmp(IcmpMatch::Any),
            Traffic::Icmpv6(IcmpMatch::Any),
        ],
    ),
    one("all", "every protocol", &[Traffic::All]),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn spelt(name: &str) -> String {
        let traffic = service(name).unwrap().traffic.iter();
        traffic
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    }

    #[test]
    fn a_service_is_its_traffic() {
        assert_eq!(spelt("ssh"), "tcp 22");
        assert_eq!(spelt("FTP"), "tcp 20-21");
        assert_eq!(spelt("dns"), "tcp 53, udp 53");
        assert_eq!(spelt("ping"), "icmp 8, icmpv6 128");
        assert_eq!(spelt("all-tcp"), "tcp *");
        assert_eq!(spelt("all"), "all");
    }

    #[test]
    fn no_two_services_share_a_name() {
        let names: HashSet<_> = SERVICES.iter().map(|service| service.name).collect();
        assert_eq!(names.len(), SERVICES.len());
    }

    #[test]
    fn a_service_has_one_range_at_most_in_a_protocol() {
        // The bound of what a file's lists stand for counts a service in them as one.
        for service in SERVICES {
            let tcp = |traffic: &&Traffic| matches!(traffic, Traffic::Tcp(_));
            let udp = |traffic: &&Traffic| matches!(traffic, Traffic::Udp(_));
            let traffic = || service.traffic.iter();
            let counts = (traffic().filter(tcp).count(), traffic().filter(udp).count());
            assert!(counts.0 <= 1 && counts.1 <= 1, "{}", service.name);
        }
    }

    #[test]
    fn a_mistyped_service_is_told_what_was_meant() {
        let sentence = |name| service(name).unwrap_err().to_string();
        assert_eq!(
            sentence("htps"),
            "\"htps\" is not a service; did you mean \"https\"?"
        );
        assert_eq!(
            sentence("frobnicate"),
            "\"frobnicate\" is not a service; use one like ssh, https or ping, or give protocol \
             and ports"
        );
    }
}
