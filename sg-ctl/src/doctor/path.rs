//! What else on this machine decides about packets: other filters, rp_filter, and routes that take
//! answers past a protected interface.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use serde_json::Value;

use super::Check;
use crate::controller::{is_for, namespace};
use crate::interfaces::{self, Link, Netns, first_hop};
use crate::policy::model::{Policy, Side};
use crate::policy::prefix::names_one_machine;

/// Addresses that no machine has (RFC 2544, RFC 5180), so that the way to them is the way to the
/// rest of the world.
const FAR_AWAY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1)),
];

pub(super) fn checks(policy: &Policy) -> Vec<Check> {
    let mut checks = filters(policy);
    checks.extend(answers(policy));
    checks
}

/// The rules of other filters that drop, in the namespace of each protected interface.
fn filters(policy: &Policy) -> Vec<Check> {
    let name = "other filters";
    let interfaces = policy.vpcs.values().flat_map(|vpc| vpc.interfaces.values());
    let mut spaces: BTreeSet<_> = interfaces
        .map(|interface| interface.netns.as_deref())
        .collect();
    if spaces.is_empty() {
        spaces.insert(None);
    }
    let mut checks = Vec::new();
    for asked in spaces {
        // Where it cannot be looked at, the interface is missing, and said to be.
        let found = namespace(asked).and_then(|netns| netns.enter(rules_that_drop));
        let (place, inside) = match asked {
            None => (String::new(), String::new()),
            Some(path) if path.starts_with('/') => {
                (format!(" (in {path})"), format!("nsenter --net={path} "))
            }
            Some(name) => (format!(" (in {name})"), format!("ip netns exec {name} ")),
        };
        checks.extend(found.unwrap_or_default().into_iter().map(|found| {
            let next = format!(
                "a packet has to pass these too; `{inside}nft list ruleset` and `{inside}iptables-save` \
                 show them"
            );
            Check::warning(name, found + &place, next)
        }));
    }
    if checks.is_empty() {
        let found = "no rule of nftables or iptables is seen that drops packets";
        checks.push(Check::ok(name, found));
    }
    checks
}

/// The rules that drop in the current namespace.
fn rules_that_drop() -> Vec<String> {
    let mut found = Vec::new();
    if let Some(ruleset) = output("nft", &["-j", "list", "ruleset"]) {
        found.extend(nftables(
            &serde_json::from_str(&ruleset).unwrap_or_default(),
        ));
    }
    for (program, tables) in [
        (
            "iptables-legacy-save",
            "/proc/thread-self/net/ip_tables_names",
        ),
        (
            "ip6tables-legacy-save",
            "/proc/thread-self/net/ip6_tables_names",
        ),
    ] {
        let is_used = fs::read_to_string(tables).is_ok_and(|tables| !tables.is_empty());
        if is_used && let Some(rules) = output(program, &[]) {
            found.extend(iptables(program, &rules));
        }
    }
    found
}

/// What a program prints, if it is there and succeeds.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = output.status.success().then_some(output.stdout)?;
    String::from_utf8(text).ok()
}

/// The chains of a ruleset that drop or reject anything.
fn nftables(ruleset: &Value) -> Vec<String> {
    let items = ruleset["nftables"].as_array();
    let items = items.map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let chains = items
        .iter()
        .map(|item| &item["chain"])
        .filter(|chain| chain.is_object());
    let found = chains.filter_map(|chain| {
        let is_in = |rule: &&Value| {
            rule["chain"] == chain["name"]
                && rule["table"] == chain["table"]
                && rule["family"] == chain["family"]
        };
        let rules = items.iter().map(|item| &item["rule"]).filter(is_in);
        let drops = rules.filter(|rule| {
            let statements = rule["expr"].as_array().into_iter().flatten();
            let mut keys = statements
                .filter_map(Value::as_object)
                .flat_map(|object| object.keys());
            keys.any(|key| key == "drop" || key == "reject")
        });
        let drops = drops.count();
        let is_closed = chain["policy"] == "drop";
        if drops == 0 && !is_closed {
            return None;
        }
        let hook = match chain["hook"].as_str() {
            Some(hook) => format!(" ({hook})"),
            None => String::new(),
        };
        let what = match (drops, is_closed) {
            (0, _) => "drops by default".to_owned(),
            (drops, false) => dropping(drops),
            (drops, true) => format!("{}, and it drops by default", dropping(drops)),
        };
        Some(format!(
            "nftables: table {} {}, chain {}{hook}: {what}",
            text(&chain["family"]),
            text(&chain["table"]),
            text(&chain["name"])
        ))
    });
    found.collect()
}

fn dropping(rules: usize) -> String {
    match rules {
        1 => "1 rule drops or rejects".to_owned(),
        rules => format!("{rules} rules drop or reject"),
    }
}

/// What a listing of iptables drops or rejects.
fn iptables(program: &str, rules: &str) -> Option<String> {
    let drops = rules.lines().filter(|line| {
        line.starts_with("-A") && (line.contains("-j DROP") || line.contains("-j REJECT"))
    });
    let closed = rules
        .lines()
        .filter(|line| line.starts_with(':') && line.contains(" DROP "));
    match (drops.count(), closed.count()) {
        (0, 0) => None,
        (drops, 0) => Some(format!("{program}: {}", dropping(drops))),
        (0, closed) => Some(format!("{program}: {}", closed_chains(closed))),
        (drops, closed) => Some(format!(
            "{program}: {}, {}",
            dropping(drops),
            closed_chains(closed)
        )),
    }
}

fn closed_chains(chains: usize) -> String {
    match chains {
        1 => "1 chain drops by default".to_owned(),
        chains => format!("{chains} chains drop by default"),
    }
}

/// Whether answers leave by the interfaces that connections come by.
fn answers(policy: &Policy) -> Vec<Check> {
    let mut checks = Vec::new();
    for vpc in policy.vpcs.values() {
        let hosts = vpc
            .interfaces
            .iter()
            .filter(|(_, interface)| interface.side == Side::Host);
        for (name, interface) in hosts {
            // Where it cannot be looked at, the interface is missing, and said to be.
            let Ok(netns) = namespace(interface.netns.as_deref()) else {
                continue;
            };
            let Ok(links) = interfaces::links(&netns) else {
                continue;
            };
            let is_protected = |link: &Link| {
                let mut all = policy.vpcs.values().flat_map(|vpc| &vpc.interfaces);
                all.any(|(name, other)| is_for(name, other, link) && other.netns == interface.netns)
            };
            for link in links.iter().filter(|link| is_for(name, interface, link)) {
                checks.extend(answers_of(&netns, &links, link, is_protected));
            }
        }
    }
    checks
}

fn answers_of(
    netns: &Netns,
    links: &[Link],
    link: &Link,
    is_protected: impl Fn(&Link) -> bool,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let name = &link.name;
    let own = link.addresses.iter().map(ipnet::IpNet::addr);
    for address in own.filter(names_one_machine) {
        let far = FAR_AWAY
            .into_iter()
            .find(|far| far.is_ipv4() == address.is_ipv4());
        let hop = far.and_then(|far| first_hop(netns, far, Some(address)).ok().flatten());
        let other = hop.and_then(|hop| links.iter().find(|other| other.ifindex == hop.ifindex));
        let Some(other) = other.filter(|other| other.ifindex != link.ifindex) else {
            continue;
        };
        let device = &other.name;
        if !is_protected(other) {
            checks.push(Check::warning(
                "answers",
                format!(
                    "answers from {address} of {name} to far networks leave by {device}, which sg does \
                     not protect: it sees one direction of these connections"
                ),
                format!("attach {device} in the same VPC, or route by source (`ip rule`)"),
            ));
        }
        if address.is_ipv4() && has_strict_rp_filter(netns, name) {
            checks.push(Check::warning(
                "rp_filter",
                format!(
                    "rp_filter is strict at {name}, and far networks are routed by {device}: the kernel \
                     drops what they send to {name}, after sg has let it pass"
                ),
                format!("sysctl net.ipv4.conf.{name}.rp_filter=2, or route by source (`ip rule`)"),
            ));
        }
    }
    checks
}

/// The larger of the two values counts (ip-sysctl).
fn has_strict_rp_filter(netns: &Netns, device: &str) -> bool {
    let read = |device: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
        let text = fs::read_to_string(path).unwrap_or_default();
        text.trim().parse().unwrap_or(0_u8)
    };
    netns
        .enter(|| read("all").max(read(device)))
        .is_ok_and(|value| value == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_that_drop_are_named() {
        let ruleset = serde_json::json!({"nftables": [
            {"chain": {"family": "inet", "table": "f", "name": "in", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "f", "name": "more"}},
            {"chain": {"family": "inet", "table": "f", "name": "open", "hook": "output", "policy": "accept"}},
            {"rule": {"family": "inet", "table": "f", "chain": "more", "expr": [{"match": {}}, {"drop": null}]}},
            {"rule": {"family": "inet", "table": "f", "chain": "open", "expr": [{"accept": null}]}},
        ]});
        assert_eq!(
            nftables(&ruleset),
            [
                "nftables: table inet f, chain in (input): drops by default",
                "nftables: table inet f, chain more: 1 rule drops or rejects",
            ]
        );
        assert_eq!(nftables(&Value::Null), [""; 0]);
    }

    #[test]
    fn a_listing_of_iptables_is_counted() {
        let rules = "*filter\n:INPUT DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -p tcp -j ACCEPT\n\
                     -A INPUT -j REJECT --reject-with icmp-port-unreachable\nCOMMIT\n";
        let found = "iptables-legacy-save: 1 rule drops or rejects, 1 chain drops by default";
        assert_eq!(
            iptables("iptables-legacy-save", rules).as_deref(),
            Some(found)
        );
        assert_eq!(
            iptables("iptables-legacy-save", "*filter\n:INPUT ACCEPT [0:0]\n"),
            None
        );
    }
}
