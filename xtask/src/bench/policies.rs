//! Policies of the sizes that are measured, as a user would write them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, anyhow};
use sg_ctl::compile::image::Image;
use sg_ctl::compile::{AttachedInterface, Settings, compile};
use sg_ctl::dataplane::measure::Rehearsal;
use sg_ctl::policy::file::PolicyFile;
use sg_ctl::policy::model::Policy;
use sg_ctl::policy::names::{InterfaceName, VpcName};

/// The address of what is protected.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);

/// Where prefixes lie: 32.0.0.0/3, half of whose /24s are anybody's to name. The other half, those
/// whose third byte is odd, lie between them and are named by nobody.
pub(crate) const PREFIXES_BASE: u32 = 32 << 24;
/// Bits of an address below [`PREFIXES_BASE`].
pub(crate) const PREFIXES_MASK: u32 = (1 << 29) - 1;
/// The bit that is set in addresses nobody names.
pub(crate) const UNNAMED: u32 = 1 << 8;

/// So many /24 prefixes, up to 2²⁰, spread evenly over 32.0.0.0/3.
pub(crate) fn prefixes(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(move |number| {
        let place = (u64::from(number) << 20) / u64::from(count);
        let network = Ipv4Addr::from(PREFIXES_BASE | (place as u32) << 9);
        format!("{network}/24")
    })
}

/// One group whose rule admits HTTPS from so many prefixes, each by a rule of its own.
pub(crate) fn by_rules(count: u32) -> String {
    let from: Vec<String> = prefixes(count).collect();
    format!(
        "groups:\n  web:\n    ingress:\n    \
         - {{protocol: tcp, ports: 443, from: [{}]}}\n    egress: []\n\
         interfaces:\n  eth0: {{groups: [web]}}\n",
        from.join(", ")
    )
}

/// One group whose rule admits HTTPS from a list of so many prefixes.
pub(crate) fn by_prefix_list(count: u32) -> String {
    let list: Vec<String> = prefixes(count).collect();
    format!(
        "prefix_lists:\n  customers: [{}]\n\
         groups:\n  web:\n    ingress:\n    \
         - {{protocol: tcp, ports: 443, from: [pl:customers]}}\n    egress: []\n\
         interfaces:\n  eth0: {{groups: [web]}}\n",
        list.join(", ")
    )
}

/// The same policy with so many interfaces more, all in the group `web`.
pub(crate) fn with_interfaces(policy: &str, count: u32) -> String {
    let more = (1..=count).map(|number| format!("  eth{number}: {{groups: [web]}}\n"));
    policy.to_owned() + &more.collect::<String>()
}

/// So many groups, each with ten prefixes, and an interface each.
pub(crate) fn many_policies(count: u32) -> Result<String> {
    let mut text = String::from("groups:\n");
    for group in 0..count {
        let from: Vec<String> = (0..10)
            .map(|number| {
                let place = (number * count + group) & 0xf_ffff;
                let network = Ipv4Addr::from(PREFIXES_BASE | place << 9);
                format!("{network}/24")
            })
            .collect();
        writeln!(
            text,
            "  g{group}:\n    ingress:\n    - {{protocol: tcp, ports: 443, from: [{}]}}\n    egress: []",
            from.join(", ")
        )?;
    }
    text.push_str("interfaces:\n");
    for group in 0..count {
        writeln!(text, "  eth{group}: {{groups: [g{group}]}}")?;
    }
    Ok(text)
}

/// One group that admits HTTPS from everywhere, and whose flows are tracked.
pub(crate) const TRACKED: &str = "\
groups:
  web:
    ingress:
    - {protocol: tcp, ports: 443, from: [0.0.0.0/0]}
    egress: []
interfaces:
  eth0: {groups: [web]}
";

/// Reads a policy file.
pub(crate) fn read(text: &str) -> Result<Policy> {
    let findings = |findings| anyhow!("{findings}");
    let file = PolicyFile::parse("policy.yaml", text).map_err(findings)?;
    file.to_policy(&Policy::default()).map_err(findings)
}

/// Compiles a policy for all of its interfaces, the first of which is the rehearsal's.
pub(crate) fn compiled(text: &str, settings: &Settings) -> Result<Image> {
    let policy = read(text)?;
    Ok(compile(&policy, &attached(&policy), None, settings)?)
}

/// All interfaces of a policy, as if this machine had them.
pub(crate) fn attached(policy: &Policy) -> Vec<AttachedInterface> {
    let interfaces = policy
        .vpcs
        .iter()
        .flat_map(|(vpc, content)| content.interfaces.keys().map(move |name| (vpc, name)));
    (Rehearsal::IFINDEX..)
        .zip(interfaces)
        .map(|(ifindex, (vpc, name))| interface(vpc, name, ifindex))
        .collect()
}

fn interface(vpc: &VpcName, name: &InterfaceName, ifindex: u32) -> AttachedInterface {
    AttachedInterface {
        vpc: vpc.clone(),
        name: name.clone(),
        netns: Rehearsal::NETNS,
        ifindex,
        bare: false,
        incarnation: 1,
        addresses: BTreeSet::from([IpAddr::from(HOST)]),
        peer_mac: None,
        judge_again_before: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_distinct_and_leave_room_between_them() {
        for count in [10, 100_000, 1 << 20] {
            let distinct: BTreeSet<String> = prefixes(count).collect();
            assert_eq!(distinct.len(), count as usize);
        }
        let odd = |prefix: String| {
            prefix
                .split('.')
                .nth(2)
                .is_some_and(|byte| byte.parse::<u32>().is_ok_and(|byte| byte % 2 == 1))
        };
        assert!(!prefixes(1 << 12).any(odd));
    }

    #[test]
    fn every_policy_is_sound() {
        for text in [
            by_rules(20),
            by_prefix_list(20),
            many_policies(20).expect("text"),
            TRACKED.to_owned(),
        ] {
            read(&text).expect("a sound policy");
        }
    }
}
