//! One interface as the kernel describes it over netlink.
//!
//! The whole list is one question for interfaces and one for addresses, so callers with many
//! interfaces ask once and look up for themselves.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, IpVlanMode, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
    LinkLayerType, LinkMessage, LinkXdp,
};

use super::conversation::{all, converse};
use super::error::{Error, Hint, Result};
use super::netns::Netns;

/// An interface of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it, unique in its network namespace while it lives.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// The text that `ip link set alias` has given it.
    pub alias: Option<String>,
    /// What made it.
    pub kind: Kind,
    /// What its frames begin with.
    pub link_layer: LinkLayer,
    /// The bond, bridge or VRF that it is in, by number.
    pub master: Option<u32>,
    /// The interface under a VLAN, macvlan or ipvlan, by number.
    pub parent: Option<u32>,
    /// Its Ethernet address, where it has one.
    pub mac: Option<[u8; 6]>,
    /// Its other end, where it is one end of a pair.
    pub peer: Option<Peer>,
    /// The largest packet it sends, in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub is_up: bool,
    /// Its own addresses of both families, each with the length of its prefix, in the kernel's
    /// order. One that another machine was found to have is not among them.
    pub addresses: Vec<IpNet>,
    /// The id of an attached XDP program, whoever attached it.
    pub xdp_program: Option<u32>,
    /// The driver of a physical device.
    pub driver: Option<String>,
}

/// The other end of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number.
    pub ifindex: u32,
    /// How the namespace of this end calls that of the other; `None` when they are in one.
    pub netns: Option<i32>,
}

/// What made an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A device on a bus, virtual machines' included.
    Physical,
    /// `lo`.
    Loopback,
    /// One end of a pair.
    Veth,
    /// A process's device without Ethernet.
    Tun,
    /// A process's device with Ethernet; usually a guest's.
    Tap,
    /// A switch in software.
    Bridge,
    /// A VLAN of another interface.
    Vlan,
    /// Several interfaces as one.
    Bond,
    /// A WireGuard tunnel.
    Wireguard,
    /// One end of a netkit pair.
    Netkit,
    /// A routing domain, which other interfaces are in.
    Vrf,
    /// An address of another interface's link layer.
    Macvlan,
    /// An ipvlan device whose received packets are given to the network layer at once.
    IpvlanL3s,
    /// An IPsec tunnel with an interface of its own.
    Xfrm,
    /// Any other, by the kernel's name for it.
    Other(String),
}

/// What an interface's frames begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkLayer {
    /// An Ethernet header.
    Ethernet,
    /// An Ethernet header of zeros.
    Loopback,
    /// The IP header itself.
    Ip,
    /// Something else, by its ARPHRD number.
    Other(u16),
}

/// Every interface of a namespace, by ifindex.
pub fn links(netns: &Netns) -> Result<Vec<Link>> {
    let (links, addresses) = netns.enter(ask)??;
    let mut addresses = by_ifindex(addresses);
    let mut links: Vec<Link> = links
        .into_iter()
        .map(|message| {
            let own = addresses.remove(&message.header.index).unwrap_or_default();
            Link::from_message(message, own)
        })
        .collect();
    links.sort_by_key(|link| link.ifindex);
    Ok(links)
}

/// The interface of that name.
pub fn link(netns: &Netns, name: &str) -> Result<Link> {
    let mut links = links(netns)?;
    match links.iter().position(|link| link.name == name) {
        Some(found) => Ok(links.swap_remove(found)),
        None => Err(Error::InterfaceMissing {
            name: name.to_owned(),
            netns: netns.to_string(),
            hint: Hint::new(name, links.into_iter().map(|link| link.name)),
        }),
    }
}

/// The Ethernet address of the other end of a pair, in whichever namespace it is; `None` when there
/// is no other end, or this process may not look.
pub fn peer_mac(netns: &Netns, link: &Link) -> Option<[u8; 6]> {
    let peer = link.peer?;
    let asked = netns.enter(|| ask_for(peer)).ok()?.ok()?;
    Link::from_message(asked, Vec::new()).mac
}

/// The Ethernet addresses of the other ends of all pairs among these links, by the number of this
/// end.
pub fn peer_macs(netns: &Netns, links: &[Link]) -> HashMap<u32, [u8; 6]> {
    let own: HashMap<u32, [u8; 6]> = links
        .iter()
        .filter_map(|l| Some((l.ifindex, l.mac?)))
        .collect();
    let pairs = links
        .iter()
        .filter_map(|link| Some((link.ifindex, link.peer?)));
    let (near, far): (Vec<_>, Vec<_>) = pairs.partition(|(_, peer)| peer.netns.is_none());
    let near = near
        .into_iter()
        .filter_map(|(ifindex, peer)| Some((ifindex, *own.get(&peer.ifindex)?)));
    let mut found: HashMap<u32, [u8; 6]> = near.collect();
    if !far.is_empty() {
        let asked = netns.enter(|| converse(async |handle| macs_of(&handle, far).await));
        found.extend(asked.ok().and_then(Result::ok).into_iter().flatten());
    }
    found
}

async fn macs_of(handle: &Handle, peers: Vec<(u32, Peer)>) -> Vec<(u32, [u8; 6])> {
    let mut macs = Vec::new();
    for (ifindex, peer) in peers {
        if let Ok(message) = ask_by(handle, peer).await
            && let Some(mac) = Link::from_message(message, Vec::new()).mac
        {
            macs.push((ifindex, mac));
        }
    }
    macs
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Physical => "physical",
            Self::Loopback => "loopback",
            Self::Veth => "veth",
            Self::Tun => "tun",
            Self::Tap => "tap",
            Self::Bridge => "bridge",
            Self::Vlan => "vlan",
            Self::Bond => "bond",
            Self::Wireguard => "wireguard",
            Self::Netkit => "netkit",
            Self::Vrf => "vrf",
            Self::Macvlan => "macvlan",
            Self::IpvlanL3s => "ipvlan l3s",
            Self::Xfrm => "xfrm",
            Self::Other(name) => name,
        })
    }
}

impl Kind {
    fn new(info: Option<&InfoKind>, data: Option<&InfoData>, link_layer: LinkLayer) -> Self {
        if let Some(InfoData::IpVlan(settings)) = data
            && settings.contains(&InfoIpVlan::Mode(IpVlanMode::L3S))
        {
            return Self::IpvlanL3s;
        }
        match (info, link_layer) {
            (None, LinkLayer::Loopback) => Self::Loopback,
            (None, _) => Self::Physical,
            (Some(InfoKind::Veth), _) => Self::Veth,
            // The kernel calls both by one name.
            (Some(InfoKind::Tun), LinkLayer::Ethernet) => Self::Tap,
            (Some(InfoKind::Tun), _) => Self::Tun,
            (Some(InfoKind::Bridge), _) => Self::Bridge,
            (Some(InfoKind::Vlan), _) => Self::Vlan,
            (Some(InfoKind::Bond), _) => Self::Bond,
            (Some(InfoKind::Wireguard), _) => Self::Wireguard,
            (Some(InfoKind::Netkit), _) => Self::Netkit,
            (Some(InfoKind::Vrf), _) => Self::Vrf,
            (Some(InfoKind::MacVlan), _) => Self::Macvlan,
            (Some(InfoKind::Xfrm), _) => Self::Xfrm,
            (Some(other), _) => Self::Other(other.to_string()),
        }
    }
}

impl From<LinkLayerType> for LinkLayer {
    fn from(arphrd: LinkLayerType) -> Self {
        match arphrd {
            LinkLayerType::Ether => Self::Ethernet,
            LinkLayerType::Loopback => Self::Loopback,
            LinkLayerType::None
            | LinkLayerType::Rawip
            | LinkLayerType::Tunnel
            | LinkLayerType::Tunnel6
            | LinkLayerType::Sit => Self::Ip,
            other => Self::Other(other.into()),
        }
    }
}

impl Link {
    /// A plain device that is up, for tests to vary.
    #[cfg(test)]
    pub(crate) fn example(ifindex: u32, name: &str, kind: Kind) -> Self {
        Self {
            ifindex,
            name: name.to_owned(),
            alias: None,
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

    fn from_message(message: LinkMessage, addresses: Vec<IpNet>) -> Self {
        let link_layer = LinkLayer::from(message.header.link_layer_type);
        let (mut info_kind, mut info_data) = (None, None);
        let mut parent = None;
        let mut bus = None;
        let mut linked_netns = None;
        let mut link = Self {
            ifindex: message.header.index,
            name: String::new(),
            alias: None,
            kind: Kind::Physical,
            link_layer,
            master: None,
            parent: None,
            mac: None,
            peer: None,
            mtu: 0,
            is_up: message.header.flags.contains(LinkFlags::Up),
            addresses,
            xdp_program: None,
            driver: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Address(bytes) if link_layer == LinkLayer::Ethernet => {
                    link.mac = bytes.try_into().ok();
                }
                LinkAttribute::LinkNetNsId(netns) => linked_netns = Some(netns),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(ifindex) => link.master = Some(ifindex),
                LinkAttribute::Link(ifindex) => link.parent = Some(ifindex),
                LinkAttribute::Xdp(xdp) => link.xdp_program = xdp.iter().find_map(program_id),
                LinkAttribute::ParentDevName(name) => parent = Some(name),
                LinkAttribute::ParentDevBusName(name) => bus = Some(name),
                LinkAttribute::LinkInfo(info) => {
                    for info in info {
                        match info {
                            LinkInfo::Kind(kind) => info_kind = Some(kind),
                            LinkInfo::Data(data) => info_data = Some(data),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        link.kind = Kind::new(info_kind.as_ref(), info_data.as_ref(), link_layer);
        if matches!(link.kind, Kind::Veth | Kind::Netkit) {
            link.peer = link.parent.take().map(|ifindex| Peer {
                ifindex,
                netns: linked_netns,
            });
        }
        link.driver = bus
            .zip(parent)
            .and_then(|(bus, device)| driver_of(&bus, &device));
        link
    }
}

/// With programs in several modes at once the kernel names none as *the* program, but each in its
/// mode.
fn program_id(xdp: &LinkXdp) -> Option<u32> {
    match xdp {
        LinkXdp::ProgId(id)
        | LinkXdp::DrvProgId(id)
        | LinkXdp::SkbProgId(id)
        | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    }
}

/// By way of the bus, because `/sys/class/net` shows only the namespace in which sysfs was mounted.
fn driver_of(bus: &str, device: &str) -> Option<String> {
    let driver = fs::read_link(format!("/sys/bus/{bus}/devices/{device}/driver")).ok()?;
    Some(driver.file_name()?.to_str()?.to_owned())
}

fn by_ifindex(messages: Vec<AddressMessage>) -> HashMap<u32, Vec<IpNet>> {
    let mut addresses: HashMap<u32, Vec<IpNet>> = HashMap::new();
    for message in messages {
        if let Some(address) = own_address(&message) {
            addresses
                .entry(message.header.index)
                .or_default()
                .push(address);
        }
    }
    addresses
}

fn own_address(message: &AddressMessage) -> Option<IpNet> {
    let mut local: Option<IpAddr> = None;
    let mut address: Option<IpAddr> = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            // Another machine answers for it: it would make that one a member of our groups.
            AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Dadfailed) => {
                return None;
            }
            _ => {}
        }
    }
    // On a point-to-point interface the plain address is the other end's.
    IpNet::new(local.or(address)?, message.header.prefix_len).ok()
}

fn ask() -> Result<(Vec<LinkMessage>, Vec<AddressMessage>)> {
    converse(async |handle| {
        // Virtual functions' own lists and counters can make one answer larger than a buffer.
        let links = handle
            .link()
            .get()
            .set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats]);
        let links = all(links.execute(), "list the interfaces").await?;
        let addresses = handle.address().get().execute();
        Ok((links, all(addresses, "list the addresses").await?))
    })?
}

fn ask_for(peer: Peer) -> Result<LinkMessage> {
    converse(async |handle| ask_by(&handle, peer).await)?
}

async fn ask_by(handle: &Handle, peer: Peer) -> Result<LinkMessage> {
    let mut question = handle.link().get().match_index(peer.ifindex);
    let attributes = &mut question.message_mut().attributes;
    attributes.extend(peer.netns.map(LinkAttribute::IfNetnsId));
    let doing = "ask for the other end of a pair";
    let answers = all(question.execute(), doing).await?;
    let first = answers.into_iter().next();
    first.ok_or_else(|| Error::system(doing, std::io::ErrorKind::NotFound))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileTypeExt as _;

    use super::*;
    use crate::scratch::{Namespace, is_root};

    fn addresses(link: &Link) -> Vec<String> {
        let mut texts: Vec<String> = link.addresses.iter().map(IpNet::to_string).collect();
        texts.sort();
        texts
    }

    #[test]
    fn the_machine_has_a_loopback_interface() {
        let lo = link(&Netns::current().unwrap(), "lo").unwrap();
        assert_eq!(
            (lo.ifindex, lo.kind, lo.link_layer),
            (1, Kind::Loopback, LinkLayer::Loopback)
        );
        assert_eq!(lo.mac, None);
    }

    #[test]
    fn an_interface_is_described_whole() {
        if !is_root("that an interface is described whole") {
            return;
        }
        let namespace = Namespace::new();
        namespace.ip("link add web0 address 02:00:00:00:00:07 mtu 1400 type veth peer name web1");
        namespace.ip("address add 192.0.2.7/24 dev web0");
        namespace.ip("address add 2001:db8::7/64 dev web0 nodad");
        namespace.ip("link set web0 up");
        let netns = Netns::resolve(Some(namespace.name())).unwrap();

        let web0 = link(&netns, "web0").unwrap();
        assert_eq!(web0.kind, Kind::Veth);
        assert_eq!(web0.link_layer, LinkLayer::Ethernet);
        assert_eq!(web0.mac, Some([2, 0, 0, 0, 0, 7]));
        assert_eq!(web0.mtu, 1400);
        assert!(web0.is_up);
        assert_eq!(addresses(&web0), ["192.0.2.7/24", "2001:db8::7/64"]);
        assert_eq!((web0.xdp_program, web0.driver.as_deref()), (None, None));

        let web1 = link(&netns, "web1").unwrap();
        assert!(!web1.is_up);
        assert!(web1.addresses.is_empty());
    }

    #[test]
    fn the_near_end_of_a_point_to_point_interface_is_its_own() {
        if !is_root("that the near end of a point-to-point interface is its own") {
            return;
        }
        let namespace = Namespace::new();
        namespace.ip("link add p0 type veth peer name p1");
        namespace.ip("address add 192.0.2.1 peer 192.0.2.2/32 dev p0");
        let netns = Netns::resolve(Some(namespace.name())).unwrap();
        assert_eq!(addresses(&link(&netns, "p0").unwrap()), ["192.0.2.1/32"]);
    }

    #[test]
    fn kinds_and_link_layers_are_told_apart() {
        if !is_root("that kinds of interfaces are told apart") {
            return;
        }
        let namespace = Namespace::new();
        let netns = Netns::resolve(Some(namespace.name())).unwrap();
        namespace.ip("link add br0 type bridge");
        namespace.ip("link add v0 type veth peer name v1");
        namespace.ip("link add link v0 name m0 type macvlan");
        namespace.ip("link set v1 master br0");
        if has_tun() {
            namespace.ip("tuntap add tun0 mode tun");
            namespace.ip("tuntap add tap0 mode tap");
        } else {
            eprintln!("no /dev/net/tun; not proven: that tun and tap are told apart");
        }
        let links = links(&netns).unwrap();
        let number = |name: &str| {
            links
                .iter()
                .find(|link| link.name == name)
                .map(|link| link.ifindex)
        };
        let [m0, v1] =
            ["m0", "v1"].map(|name| links.iter().find(|link| link.name == name).unwrap());
        assert_eq!((m0.parent, m0.master), (number("v0"), None));
        assert_eq!(v1.master, number("br0"));
        let mut seen: Vec<(String, String, LinkLayer)> = links
            .iter()
            .cloned()
            .map(|link| (link.name, link.kind.to_string(), link.link_layer))
            .collect();
        seen.sort();
        let mut expected = vec![
            ("br0", "bridge", LinkLayer::Ethernet),
            ("lo", "loopback", LinkLayer::Loopback),
            ("m0", "macvlan", LinkLayer::Ethernet),
            ("v0", "veth", LinkLayer::Ethernet),
            ("v1", "veth", LinkLayer::Ethernet),
        ];
        if has_tun() {
            expected.extend([
                ("tap0", "tap", LinkLayer::Ethernet),
                ("tun0", "tun", LinkLayer::Ip),
            ]);
        }
        expected.sort();
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(n, k, l)| (n.to_owned(), k.to_owned(), l))
            .collect();
        assert_eq!(seen, expected);
    }

    fn has_tun() -> bool {
        File::open("/dev/net/tun")
            .and_then(|file| file.metadata())
            .is_ok_and(|found| found.file_type().is_char_device())
    }

    #[test]
    fn a_mistyped_interface_is_met_with_the_one_that_was_meant() {
        if !is_root("that a mistyped interface is met with the one that was meant") {
            return;
        }
        let namespace = Namespace::new();
        namespace.ip("link add web0 type veth peer name other");
        let netns = Netns::resolve(Some(namespace.name())).unwrap();
        assert_eq!(
            link(&netns, "wbe0").unwrap_err().to_string(),
            format!(
                "no interface `wbe0` in network namespace `{}`; did you mean `web0`?",
                namespace.name()
            )
        );
    }

    #[test]
    fn a_hundred_interfaces_are_one_list() {
        if !is_root("that many interfaces are one list") {
            return;
        }
        let namespace = Namespace::new();
        for i in 0..50 {
            namespace.ip(&format!("link add a{i} type veth peer name b{i}"));
        }
        let netns = Netns::resolve(Some(namespace.name())).unwrap();
        assert_eq!(links(&netns).unwrap().len(), 101);
    }
}
