//! Which devices are refused, because their hooks do not see the packets that groups are to judge.
//!
//! `docs/devices.md` has the table of all kinds of devices.

use thiserror::Error;

use crate::interfaces::{Kind, Link, LinkLayer, Netns, has_native_xdp};
use crate::policy::model::Hook;

/// Why a device is refused, and what to do instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// Its hooks see only packets for the VRF's own addresses.
    #[error(
        "is a VRF device, and the packets of the interfaces in the VRF do not pass its hooks; \
         protect those interfaces"
    )]
    Vrf,
    /// What it receives reaches it behind the hooks.
    #[error(
        "is an ipvlan device in mode l3s, and what it receives passes none of its hooks; protect \
         the interface under it, or use mode l2 or l3"
    )]
    IpvlanL3s,
    /// What it receives begins with the Ethernet header of another device, and what it sends does not.
    #[error(
        "is an xfrm interface, and its hooks see packets in two shapes; protect the interface that \
         the ESP packets come through"
    )]
    Xfrm,
    /// The kernel gives the program to the interfaces of the bond, by their numbers.
    #[error(
        "is a bond, and the kernel runs a bond's XDP program for the interfaces in it; choose the \
         hook `tc` (`auto` does), or protect each interface in the bond"
    )]
    XdpOnBond,
    /// XDP programs read frames.
    #[error("has packets without an Ethernet header; choose the hook `tc` (`auto` does)")]
    XdpWithoutEthernet,
    /// Generic XDP is slower than TC, and is only taken when it is asked for.
    #[error(
        "has a driver that does not run XDP programs; choose the hook `tc` (`auto` does), or \
         `xdp-generic` to have the kernel run them"
    )]
    NoNativeXdp,
}

/// Whether groups on a device would not mean what they say.
pub fn unfit(hook: Hook, netns: &Netns, link: &Link) -> Option<Unfit> {
    refusal(hook, link).or_else(|| {
        // A kernel before 6.3 does not say, and attaching tells.
        let has_native = || netns.enter(|| has_native_xdp(link.ifindex)).ok()?;
        (hook == Hook::Xdp && has_native() == Some(false)).then_some(Unfit::NoNativeXdp)
    })
}

fn refusal(hook: Hook, link: &Link) -> Option<Unfit> {
    let is_xdp = matches!(hook, Hook::Xdp | Hook::XdpGeneric);
    match &link.kind {
        Kind::Vrf => Some(Unfit::Vrf),
        Kind::IpvlanL3s => Some(Unfit::IpvlanL3s),
        Kind::Xfrm => Some(Unfit::Xfrm),
        Kind::Bond if is_xdp => Some(Unfit::XdpOnBond),
        _ if is_xdp && link.link_layer != LinkLayer::Ethernet => Some(Unfit::XdpWithoutEthernet),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(kind: Kind, link_layer: LinkLayer) -> Link {
        Link {
            link_layer,
            ..Link::example(7, "dev7", kind)
        }
    }

    #[test]
    fn a_device_whose_hooks_do_not_see_its_packets_is_refused() {
        for (kind, unfit) in [
            (Kind::Vrf, Unfit::Vrf),
            (Kind::IpvlanL3s, Unfit::IpvlanL3s),
            (Kind::Xfrm, Unfit::Xfrm),
        ] {
            let link = link(kind, LinkLayer::Ethernet);
            for hook in [Hook::Auto, Hook::Tc, Hook::Xdp, Hook::XdpGeneric] {
                assert_eq!(refusal(hook, &link), Some(unfit), "{hook:?}");
            }
        }
    }

    #[test]
    fn a_device_is_refused_at_a_hook_that_does_not_fit() {
        let at = |hook, kind, link_layer| refusal(hook, &link(kind, link_layer));
        for hook in [Hook::Xdp, Hook::XdpGeneric] {
            let bond = at(hook, Kind::Bond, LinkLayer::Ethernet);
            assert_eq!(bond, Some(Unfit::XdpOnBond));
            for kind in [Kind::Tun, Kind::Wireguard] {
                let bare = at(hook, kind, LinkLayer::Ip);
                assert_eq!(bare, Some(Unfit::XdpWithoutEthernet));
            }
            assert_eq!(at(hook, Kind::Veth, LinkLayer::Ethernet), None);
        }
        for hook in [Hook::Auto, Hook::Tc] {
            assert_eq!(at(hook, Kind::Bond, LinkLayer::Ethernet), None);
            assert_eq!(at(hook, Kind::Wireguard, LinkLayer::Ip), None);
        }
    }
}
