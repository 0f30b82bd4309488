//! What leads packets past the hooks of devices: flowtables of nftables, and IPsec tunnels without
//! an interface of their own.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::raw::{Kernel, attributes, find};

/// Connections that nftables forwards from one device to the next by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flowtable {
    /// The table that it is in.
    pub table: String,
    /// Its own name.
    pub name: String,
    /// The devices that it takes packets from.
    pub devices: Vec<String>,
}

/// One end of an IPsec tunnel that routes and interfaces know nothing of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tunnel {
    /// The address of this machine.
    pub local: IpAddr,
    /// The address of the other end.
    pub peer: IpAddr,
}

/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_GETFLOWTABLE`.
const GET_FLOWTABLE: u16 = 10 << 8 | 23;
/// `struct nfgenmsg`.
const NETFILTER_HEADER: usize = 4;
const NFTA_FLOWTABLE_TABLE: u16 = 1;
const NFTA_FLOWTABLE_NAME: u16 = 2;
const NFTA_FLOWTABLE_HOOK: u16 = 3;
const NFTA_FLOWTABLE_HOOK_DEVS: u16 = 3;
const NFTA_DEVICE_NAME: u16 = 1;

/// The flowtables of the current namespace. A kernel without nftables has none, and is not made to
/// load it by being asked.
pub fn flowtables() -> io::Result<Vec<Flowtable>> {
    if !is_loaded("nf_tables") {
        return Ok(Vec::new());
    }
    let kernel = Kernel::open(libc::NETLINK_NETFILTER)?;
    let answers = kernel.dump(GET_FLOWTABLE, &[0; NETFILTER_HEADER])?;
    Ok(answers
        .iter()
        .filter_map(|answer| flowtable(answer))
        .collect())
}

fn flowtable(answer: &[u8]) -> Option<Flowtable> {
    let own = answer.get(NETFILTER_HEADER..)?;
    let hook = find(own, NFTA_FLOWTABLE_HOOK)?;
    let devices = find(hook, NFTA_FLOWTABLE_HOOK_DEVS).unwrap_or_default();
    let devices = attributes(devices).filter(|(kind, _)| *kind == NFTA_DEVICE_NAME);
    Some(Flowtable {
        table: text(find(own, NFTA_FLOWTABLE_TABLE)?),
        name: text(find(own, NFTA_FLOWTABLE_NAME)?),
        devices: devices.map(|(_, name)| text(name)).collect(),
    })
}

fn text(value: &[u8]) -> String {
    let value = value.strip_suffix(&[0]).unwrap_or(value);
    String::from_utf8_lossy(value).into_owned()
}

/// `XFRM_MSG_GETPOLICY`.
const GET_POLICY: u16 = 0x15;
/// `struct xfrm_userpolicy_id`.
const QUESTION: usize = 64;
/// `struct xfrm_userpolicy_info`, and where the direction is in it.
const POLICY: usize = 168;
const POLICY_DIR: usize = 160;
const POLICY_IN: u8 = 0;
const POLICY_OUT: u8 = 1;
const XFRMA_TMPL: u16 = 5;
const XFRMA_IF_ID: u16 = 31;
/// `struct xfrm_user_tmpl`.
const TEMPLATE: usize = 64;
const MODE_TUNNEL: u8 = 1;

/// The IPsec tunnels of the current namespace that have no interface of their own, by its policies.
pub fn tunnels() -> io::Result<Vec<Tunnel>> {
    if !is_loaded("xfrm_user") {
        return Ok(Vec::new());
    }
    let kernel = Kernel::open(libc::NETLINK_XFRM)?;
    let answers = kernel.dump(GET_POLICY, &[0; QUESTION])?;
    let mut tunnels: Vec<Tunnel> = answers
        .iter()
        .filter_map(|answer| ends(answer))
        .flatten()
        .collect();
    tunnels.sort_unstable();
    tunnels.dedup();
    Ok(tunnels)
}

fn ends(policy: &[u8]) -> Option<Vec<Tunnel>> {
    let direction = *policy.get(POLICY_DIR)?;
    let own = policy.get(POLICY..)?;
    let interface = find(own, XFRMA_IF_ID).unwrap_or_default();
    if interface.iter().any(|byte| *byte != 0) || !matches!(direction, POLICY_IN | POLICY_OUT) {
        return None;
    }
    let templates = find(own, XFRMA_TMPL)?.chunks_exact(TEMPLATE);
    let tunnels = templates.filter_map(|template| {
        let family = template.get(24..26)?;
        let address = |at: usize| address(template.get(at..)?, family);
        let (to, from) = (address(0)?, address(28)?);
        let is_tunnel = *template.get(48)? == MODE_TUNNEL;
        let (local, peer) = match direction {
            POLICY_IN => (to, from),
            _ => (from, to),
        };
        is_tunnel.then_some(Tunnel { local, peer })
    });
    Some(tunnels.collect())
}

fn address(bytes: &[u8], family: &[u8]) -> Option<IpAddr> {
    // One of the two bytes is 0, whichever the host's order is.
    match i32::from(family.iter().copied().max()?) {
        libc::AF_INET => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        libc::AF_INET6 => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
        _ => None,
    }
}

/// Whether a part of the kernel is there already. To ask for one that is not would load it.
fn is_loaded(module: &str) -> bool {
    // A kernel without modules has what it has.
    let Ok(loaded) = fs::read_to_string("/proc/modules") else {
        return true;
    };
    let is_listed = loaded
        .lines()
        .any(|line| line.split(' ').next() == Some(module));
    is_listed || is_built_in(module)
}

fn is_built_in(module: &str) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let list = Path::new("/lib/modules")
        .join(release.trim())
        .join("modules.builtin");
    let list = fs::read_to_string(list).unwrap_or_default();
    let file = format!("/{module}.ko");
    list.lines().any(|line| line.ends_with(&file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interfaces::Netns;
    use crate::interfaces::raw::attribute;
    use crate::scratch::{Namespace, is_root};

    #[test]
    fn a_flowtable_is_read_with_its_devices() {
        let devices = [attribute(1, b"eth0\0"), attribute(1, b"eth1\0")].concat();
        let hook = [attribute(1, &[0; 4]), attribute(3 | 0x8000, &devices)].concat();
        let answer = [
            vec![1, 0, 0, 0],
            attribute(1, b"filter\0"),
            attribute(2, b"fast\0"),
            attribute(3 | 0x8000, &hook),
        ];
        assert_eq!(
            flowtable(&answer.concat()),
            Some(Flowtable {
                table: "filter".to_owned(),
                name: "fast".to_owned(),
                devices: vec!["eth0".to_owned(), "eth1".to_owned()],
            })
        );
        assert_eq!(flowtable(&[1, 0, 0, 0]), None);
    }

    #[test]
    fn a_tunnel_is_read_from_the_policies_of_its_namespace() {
        if !is_root("that IPsec tunnels are found") {
            return;
        }
        let namespace = Namespace::new();
        let netns = Netns::resolve(Some(namespace.name())).unwrap();
        let tunnels = || netns.enter(tunnels).unwrap().unwrap();
        assert_eq!(tunnels(), []);
        let policy = |words: &str| namespace.ip(&format!("xfrm policy add {words}"));
        let (there, here) = ("192.0.2.1", "192.0.2.10");
        policy(&format!("dir out tmpl src {here} dst {there} proto esp"));
        policy(&format!(
            "dir in if_id 7 tmpl src {there} dst {here} proto esp mode tunnel"
        ));
        assert_eq!(tunnels(), [], "transport mode, or with an interface");
        for words in [
            format!("dir in src 10.0.0.0/8 tmpl src {there} dst {here} proto esp mode tunnel"),
            format!("dir out dst 10.0.0.0/8 tmpl src {here} dst {there} proto esp mode tunnel"),
            "dir in src 2001:db8:1::/64 tmpl src 2001:db8::1 dst 2001:db8::2 proto esp mode tunnel"
                .to_owned(),
        ] {
            policy(&words);
        }
        let tunnel = |local: &str, peer: &str| Tunnel {
            local: local.parse().unwrap(),
            peer: peer.parse().unwrap(),
        };
        assert_eq!(
            tunnels(),
            [tunnel(here, there), tunnel("2001:db8::2", "2001:db8::1")]
        );
    }
}
