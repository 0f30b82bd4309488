//! Devices beside protected ones, by which packets come and go that a user may think are judged.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::controller::{is_for, namespace};
use crate::interfaces::{self, Flowtable, Kind, Link, Netns, Tunnel};
use crate::policy::model::Policy;

pub(super) fn checks(policy: &Policy) -> Vec<Check> {
    let mut protected: BTreeMap<Option<&str>, Vec<_>> = BTreeMap::new();
    for vpc in policy.vpcs.values() {
        for (name, interface) in &vpc.interfaces {
            let entries = protected.entry(interface.netns.as_deref()).or_default();
            entries.push((name, interface));
        }
    }
    let checks = protected.into_iter().flat_map(|(netns, entries)| {
        // Where it cannot be looked at, the interface is missing, and said to be.
        let around = namespace(netns).and_then(|netns| Around::look(&netns));
        let around = around.unwrap_or_default();
        let is_protected = |link: &&Link| {
            let mut entries = entries.iter();
            entries.any(|(name, interface)| is_for(name, interface, link))
        };
        let devices = around.links.iter().filter(is_protected);
        around.checks(&devices.map(|link| link.name.as_str()).collect())
    });
    checks.collect()
}

/// What a namespace has.
#[derive(Default)]
struct Around {
    links: Vec<Link>,
    flowtables: Vec<Flowtable>,
    tunnels: Vec<Tunnel>,
}

impl Around {
    fn look(netns: &Netns) -> interfaces::Result<Self> {
        // A kernel that does not tell of flowtables or tunnels most likely has none.
        let beside = || (interfaces::flowtables(), interfaces::tunnels());
        let (flowtables, tunnels) = netns.enter(beside)?;
        Ok(Self {
            links: interfaces::links(netns)?,
            flowtables: flowtables.unwrap_or_default(),
            tunnels: tunnels.unwrap_or_default(),
        })
    }

    fn checks(&self, protected: &BTreeSet<&str>) -> Vec<Check> {
        let mut checks = siblings(&self.links, protected);
        let is_protected = |link: &&Link| protected.contains(link.name.as_str());
        for link in self.links.iter().filter(is_protected) {
            checks.extend(
                self.flowtables
                    .iter()
                    .filter_map(|table| self.forwarded(link, table)),
            );
            checks.extend(
                self.tunnels
                    .iter()
                    .filter_map(|tunnel| tunnelled(link, tunnel)),
            );
        }
        checks
    }

    /// A flowtable takes packets at the lowest device and hands them to the lowest device.
    fn forwarded(&self, link: &Link, table: &Flowtable) -> Option<Check> {
        if !matches!(link.kind, Kind::Vlan | Kind::Bridge) {
            return None;
        }
        let under = self.under(link);
        let is_taken = |link: &&&Link| table.devices.contains(&link.name);
        let taken: Vec<&Link> = under.iter().filter(is_taken).copied().collect();
        if taken.is_empty() {
            return None;
        }
        let (name, devices) = (&link.name, names(&taken));
        Some(Check::warning(
            "flowtable",
            format!(
                "connections that the flowtable {} of nftables' table {} forwards by {devices} do \
                 not pass the hooks of {name}",
                table.name, table.table
            ),
            format!("protect {devices}, or take it out of the flowtable"),
        ))
    }

    /// The interfaces that the packets of a VLAN or bridge come by.
    fn under(&self, link: &Link) -> Vec<&Link> {
        let mut under: Vec<&Link> = Vec::new();
        let mut above = vec![link];
        while let Some(link) = above.pop() {
            for lower in &self.links {
                let is_lower = link.parent == Some(lower.ifindex) && link.kind == Kind::Vlan
                    || lower.master == Some(link.ifindex) && link.kind == Kind::Bridge;
                if is_lower && !under.contains(&lower) {
                    under.push(lower);
                    above.push(lower);
                }
            }
        }
        under
    }
}

/// At TC what a tunnel carries is received by the interface that the ESP packets came by, once more.
fn tunnelled(link: &Link, tunnel: &Tunnel) -> Option<Check> {
    let is_end = link.addresses.iter().any(|own| own.addr() == tunnel.local);
    let name = &link.name;
    (is_end && link.xdp_program.is_none()).then(|| {
        Check::warning(
            "IPsec",
            format!(
                "what comes through the IPsec tunnel from {} is judged as received by {name}, and \
                 answers leave as ESP packets, so that connections through the tunnel break",
                tunnel.peer
            ),
            format!("let {name} have the hook `xdp`, where its driver has it, and a rule for protocol 50"),
        )
    })
}

/// Interfaces in one bond, or over one interface.
fn siblings(links: &[Link], protected: &BTreeSet<&str>) -> Vec<Check> {
    let is_protected = |link: &Link| protected.contains(link.name.as_str());
    let mut checks = Vec::new();
    for bond in links.iter().filter(|link| link.kind == Kind::Bond) {
        let slaves = links
            .iter()
            .filter(|link| link.master == Some(bond.ifindex));
        let (judged, open): (Vec<_>, Vec<_>) = slaves.partition(|slave| is_protected(slave));
        if !is_protected(bond) && !judged.is_empty() && !open.is_empty() {
            checks.push(Check::problem(
                "bond",
                format!(
                    "{} is in the bond {} and is protected; what comes through {} is not judged",
                    names(&judged),
                    bond.name,
                    names(&open)
                ),
                format!("protect {}, or each interface in it", bond.name),
            ));
        }
    }
    for parent in links.iter().filter(|link| is_protected(link)) {
        let is_child =
            |link: &&Link| link.kind == Kind::Macvlan && link.parent == Some(parent.ifindex);
        let children: Vec<_> = links.iter().filter(is_child).collect();
        if !children.is_empty() {
            let name = &parent.name;
            checks.push(Check::warning(
                "macvlan",
                format!(
                    "packets between the macvlan devices over {name} ({}) are not judged as they \
                     should be: at TC both ways are {name}'s ingress, and XDP does not see them",
                    names(&children)
                ),
                "protect the macvlan devices themselves",
            ));
        }
    }
    checks
}

fn names(links: &[&Link]) -> String {
    let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifindex: u32, name: &str, kind: Kind) -> Link {
        Link::example(ifindex, name, kind)
    }

    fn found(links: &[Link], protected: &[&str]) -> Vec<String> {
        let protected = protected.iter().copied().collect();
        let around = Around {
            links: links.to_vec(),
            ..Around::default()
        };
        let checks = around.checks(&protected).into_iter();
        checks.map(|check| check.found).collect()
    }

    #[test]
    fn a_bond_that_is_protected_in_part_is_a_problem() {
        let slave = |ifindex, name| Link {
            master: Some(1),
            ..link(ifindex, name, Kind::Physical)
        };
        let links = [
            link(1, "bond0", Kind::Bond),
            slave(2, "eth0"),
            slave(3, "eth1"),
        ];
        assert_eq!(
            found(&links, &["eth0"]),
            ["eth0 is in the bond bond0 and is protected; what comes through eth1 is not judged"]
        );
        for protected in [&["eth0", "eth1"][..], &["bond0"], &["bond0", "eth0"], &[]] {
            assert_eq!(found(&links, protected), [""; 0], "{protected:?}");
        }
    }

    #[test]
    fn macvlan_devices_over_a_protected_one_are_told() {
        let child = |ifindex, name| Link {
            parent: Some(1),
            ..link(ifindex, name, Kind::Macvlan)
        };
        let links = [
            link(1, "eth0", Kind::Physical),
            child(2, "m0"),
            child(3, "m1"),
        ];
        let told = found(&links, &["eth0"]);
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("over eth0 (m0, m1)"), "{told:?}");
        assert_eq!(found(&links, &["m0", "m1"]), [""; 0]);
    }

    #[test]
    fn a_flowtable_over_the_interface_under_a_protected_one_is_told() {
        let vlan = Link {
            parent: Some(1),
            ..link(2, "eth0.5", Kind::Vlan)
        };
        let port = Link {
            master: Some(3),
            ..link(4, "eth1", Kind::Physical)
        };
        let around = |device: &str| Around {
            links: vec![
                link(1, "eth0", Kind::Physical),
                vlan.clone(),
                link(3, "br0", Kind::Bridge),
                port.clone(),
            ],
            flowtables: vec![Flowtable {
                table: "filter".to_owned(),
                name: "fast".to_owned(),
                devices: vec![device.to_owned()],
            }],
            ..Around::default()
        };
        let told = |device: &str, protected: &str| {
            let checks = around(device).checks(&BTreeSet::from([protected]));
            checks.into_iter().map(|check| check.found).next()
        };
        assert_eq!(
            told("eth0", "eth0.5").as_deref(),
            Some(
                "connections that the flowtable fast of nftables' table filter forwards by eth0 \
                 do not pass the hooks of eth0.5"
            )
        );
        assert!(told("eth1", "br0").is_some());
        for (device, protected) in [("eth0", "eth0"), ("eth1", "eth0.5"), ("eth0", "br0")] {
            assert_eq!(told(device, protected), None, "{device} {protected}");
        }
    }

    #[test]
    fn an_ipsec_tunnel_of_a_protected_interface_is_told() {
        let around = |xdp_program| Around {
            links: vec![Link {
                addresses: vec!["192.0.2.10/24".parse().unwrap()],
                xdp_program,
                ..link(1, "eth0", Kind::Physical)
            }],
            tunnels: vec![Tunnel {
                local: "192.0.2.10".parse().unwrap(),
                peer: "192.0.2.1".parse().unwrap(),
            }],
            ..Around::default()
        };
        let protected = BTreeSet::from(["eth0"]);
        let told = around(None).checks(&protected);
        assert!(told[0].found.contains("tunnel from 192.0.2.1"), "{told:?}");
        assert_eq!(around(Some(7)).checks(&protected), []);
    }
}
