//! Devices beside protected ones, by which packets come and go that a user may think are judged.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::controller::namespace;
use crate::interfaces::{self, Kind, Link};
use crate::policy::model::Policy;

pub(super) fn checks(policy: &Policy) -> Vec<Check> {
    let mut protected: BTreeMap<Option<&str>, BTreeSet<&str>> = BTreeMap::new();
    for vpc in policy.vpcs.values() {
        for (name, interface) in &vpc.interfaces {
            let names = protected.entry(interface.netns.as_deref()).or_default();
            names.insert(name.as_str());
        }
    }
    let checks = protected.into_iter().flat_map(|(netns, names)| {
        // Where it cannot be looked at, the interface is missing, and said to be.
        let links = namespace(netns).and_then(|netns| interfaces::links(&netns));
        beside(&links.unwrap_or_default(), &names)
    });
    checks.collect()
}

fn beside(links: &[Link], protected: &BTreeSet<&str>) -> Vec<Check> {
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
    use crate::interfaces::LinkLayer;

    fn link(ifindex: u32, name: &str, kind: Kind) -> Link {
        Link {
            ifindex,
            name: name.to_owned(),
            kind,
            link_layer: LinkLayer::Ethernet,
            master: None,
            parent: None,
            mac: None,
            peer: None,
            mtu: 1500,
            is_up: true,
            addresses: Vec::new(),
            xdp_program: None,
            driver: None,
        }
    }

    fn found(links: &[Link], protected: &[&str]) -> Vec<String> {
        let protected = protected.iter().copied().collect();
        let checks = beside(links, &protected).into_iter();
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
}
