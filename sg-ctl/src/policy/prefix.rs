//! Addresses and prefixes as users write them, and the ones that cannot mean what they say.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Why a text is no prefix or address, or why one cannot stand where it was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Neither a prefix nor an address.
    #[error("{text:?} is not a prefix; write one like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1")]
    Prefix {
        /// The text as given.
        text: String,
    },
    /// An address with an impossible length.
    #[error("{text:?} has an impossible prefix length; use /0 to /{longest}")]
    Length {
        /// The text as given.
        text: String,
        /// The longest prefix of the family.
        longest: u8,
    },
    /// Not an address.
    #[error("{text:?} is not an address; write one like 192.0.2.1 or 2001:db8::1, with no length")]
    Address {
        /// The text as given.
        text: String,
    },
    /// Bits are set that the length leaves out.
    #[error("{given} has bits set behind its length; write {masked}")]
    HostBits {
        /// The prefix as given.
        given: IpNet,
        /// The prefix that was meant.
        masked: IpNet,
    },
    /// An IPv4 address in IPv6 clothes, which no packet on a wire may carry.
    #[error("{given} is an IPv4 address mapped into IPv6, which no packet carries; write {plain}")]
    Mapped {
        /// The mapped form as given.
        given: String,
        /// The IPv4 form.
        plain: String,
    },
    /// An address that no interface can have.
    #[error("{address} is {kind}, which no peer has as its own; give a unicast address")]
    NotUnicast {
        /// The address as given.
        address: IpAddr,
        /// What it is instead.
        kind: &'static str,
    },
    /// Outside what link-local services may use.
    #[error(
        "{address} is not link-local; services that groups never filter lie in 169.254.0.0/16, \
         fd00:ec2::/32 or fe80::/10, and any other address needs a rule"
    )]
    NotLinkLocal {
        /// The address as given.
        address: IpAddr,
    },
}

/// Reads a prefix; a bare address is the prefix of that address alone, and host bits are cleared
/// as AWS does.
pub fn parse_prefix(text: &str) -> Result<IpNet, PrefixError> {
    let shown = || text.chars().take(80).collect::<String>();
    let prefix = match text.split_once('/') {
        None => text.parse::<IpAddr>().map(IpNet::from).ok(),
        Some((address, length)) => match address.parse::<IpAddr>() {
            Err(_) => None,
            Ok(address) => {
                let longest = if address.is_ipv4() { 32 } else { 128 };
                let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
                let length = length.parse::<u8>().ok().filter(|_| digits);
                let prefix = length.and_then(|length| IpNet::new(address, length).ok());
                Some(prefix.ok_or_else(|| PrefixError::Length {
                    text: shown(),
                    longest,
                })?)
            }
        },
    };
    let prefix = prefix
        .ok_or_else(|| PrefixError::Prefix { text: shown() })?
        .trunc();
    check_prefix(prefix)?;
    Ok(prefix)
}

/// Reads an address without a length.
pub fn parse_address(text: &str) -> Result<IpAddr, PrefixError> {
    text.parse().map_err(|_| PrefixError::Address {
        text: text.chars().take(80).collect(),
    })
}

/// Says whether a prefix may stand in a rule or a prefix list.
pub fn check_prefix(prefix: IpNet) -> Result<(), PrefixError> {
    if prefix.trunc() != prefix {
        return Err(PrefixError::HostBits {
            given: prefix,
            masked: prefix.trunc(),
        });
    }
    if let IpNet::V6(v6) = prefix
        && let Some(plain) = plain_prefix(v6)
    {
        return Err(PrefixError::Mapped {
            given: prefix.to_string(),
            plain: plain.to_string(),
        });
    }
    Ok(())
}

/// Says whether an address may belong to a group or a guest.
pub fn check_member(address: IpAddr) -> Result<(), PrefixError> {
    let kind = match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            let plain = v6.to_canonical().to_string();
            return Err(PrefixError::Mapped {
                given: address.to_string(),
                plain,
            });
        }
        _ if address.is_multicast() => "a multicast address",
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_unspecified() => "the unspecified address",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        _ => return Ok(()),
    };
    Err(PrefixError::NotUnicast { address, kind })
}

/// Says whether an address may be that of a service which groups never filter.
pub fn check_link_local_service(address: IpAddr) -> Result<(), PrefixError> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || AWS_SERVICES.contains(&v6),
    };
    if link_local {
        Ok(())
    } else {
        Err(PrefixError::NotLinkLocal { address })
    }
}

/// Says whether an address means something on its own link only, so that it names no one machine.
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Where AWS puts the IPv6 addresses of its local services.
const AWS_SERVICES: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32);

fn plain_prefix(v6: Ipv6Net) -> Option<Ipv4Net> {
    let length = v6.prefix_len().checked_sub(96)?;
    Ipv4Net::new(v6.network().to_ipv4_mapped()?, length).ok()
}

/// Whether an address read from an interface is a peer's for others.
pub fn names_one_machine(address: &IpAddr) -> bool {
    !(is_link_local(*address)
        || address.is_loopback()
        || address.is_multicast()
        || address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        parse_prefix(text).expect_err("refused").to_string()
    }

    #[test]
    fn a_bare_address_is_its_own_prefix_and_host_bits_go() {
        assert_eq!(
            parse_prefix("100.68.0.18/18"),
            Ok("100.68.0.0/18".parse().unwrap())
        );
        assert_eq!(
            parse_prefix("192.0.2.1"),
            Ok("192.0.2.1/32".parse().unwrap())
        );
        assert_eq!(
            parse_prefix("2001:DB8::1"),
            Ok("2001:db8::1/128".parse().unwrap())
        );
        assert_eq!(parse_prefix("::/0"), Ok("::/0".parse().unwrap()));
    }

    #[test]
    fn each_bad_prefix_is_told_what_would_be_right() {
        let not_a_prefix = "is not a prefix; write one like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1";
        for bad in ["", "office", "10.0.0/8", "10.0.0.256/8", "/8"] {
            assert_eq!(refusal(bad), format!("{bad:?} {not_a_prefix}"));
        }
        for bad in ["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/8/8"] {
            let wanted = format!("{bad:?} has an impossible prefix length; use /0 to /32");
            assert_eq!(refusal(bad), wanted);
        }
        assert_eq!(
            refusal("::ffff:10.0.0.0/104"),
            "::ffff:10.0.0.0/104 is an IPv4 address mapped into IPv6, which no packet carries; \
             write 10.0.0.0/8"
        );
    }

    #[test]
    fn only_unicast_addresses_are_members() {
        let kinds = [
            ("224.0.0.1", "a multicast address"),
            ("ff02::1", "a multicast address"),
            ("127.0.0.1", "a loopback address"),
            ("::1", "a loopback address"),
            ("0.0.0.0", "the unspecified address"),
            ("::", "the unspecified address"),
            ("255.255.255.255", "the broadcast address"),
        ];
        for (address, kind) in kinds {
            let address = address.parse().unwrap();
            assert_eq!(
                check_member(address),
                Err(PrefixError::NotUnicast { address, kind })
            );
        }
        assert!(check_member("192.0.2.1".parse().unwrap()).is_ok());
        let mapped = check_member("::ffff:192.0.2.1".parse().unwrap()).unwrap_err();
        assert!(mapped.to_string().ends_with("write 192.0.2.1"), "{mapped}");
    }

    #[test]
    fn link_local_services_stay_in_their_three_blocks() {
        for good in ["169.254.169.254", "fd00:ec2::254", "fe80::1"] {
            assert!(
                check_link_local_service(good.parse().unwrap()).is_ok(),
                "{good}"
            );
        }
        for bad in [
            "169.253.0.1",
            "10.0.0.2",
            "fd00:ec3::1",
            "::ffff:169.254.169.254",
        ] {
            assert!(
                check_link_local_service(bad.parse().unwrap()).is_err(),
                "{bad}"
            );
        }
    }
}
