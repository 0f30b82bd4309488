//! Where packets to an address leave, and whether the next machine on the way is known.

use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::conversation::{all, converse};
use super::error::Result;
use super::netns::Netns;

/// The first step of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The device that it leaves by.
    pub ifindex: u32,
    /// The machine that it is given to: a router, or the destination.
    pub address: IpAddr,
    /// Whether the kernel asked for the link-layer address of that machine and got no answer.
    pub is_unresolved: bool,
}

/// The first step to a destination; from this address, if one is said. None where there is no route.
pub fn first_hop(netns: &Netns, destination: IpAddr, from: Option<IpAddr>) -> Result<Option<Hop>> {
    netns.enter(|| {
        converse(async |handle| {
            let route = handle.route().get(question(destination, from));
            // What refuses to route is no failure to ask.
            let Ok(Some(route)) = Box::pin(route.execute()).try_next().await else {
                return Ok(None);
            };
            let Some((ifindex, gateway)) = read(&route) else {
                return Ok(None);
            };
            let address = gateway.unwrap_or(destination);
            Ok(Some(Hop {
                ifindex,
                address,
                is_unresolved: is_unresolved(&handle, ifindex, address).await?,
            }))
        })?
    })?
}

fn question(destination: IpAddr, from: Option<IpAddr>) -> RouteMessage {
    match (destination, from) {
        (IpAddr::V4(to), Some(IpAddr::V4(from))) => {
            RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(to, 32)
                .source_prefix(from, 32)
                .build()
        }
        (IpAddr::V6(to), Some(IpAddr::V6(from))) => {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(to, 128)
                .source_prefix(from, 128)
                .build()
        }
        (IpAddr::V4(to), _) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(to, 32)
            .build(),
        (IpAddr::V6(to), _) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .destination_prefix(to, 128)
            .build(),
    }
}

fn read(route: &RouteMessage) -> Option<(u32, Option<IpAddr>)> {
    let device = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(device) => Some(*device),
            _ => None,
        });
    let gateway = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(IpAddr::from(*address)),
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => Some(IpAddr::from(*address)),
            _ => None,
        });
    Some((device?, gateway))
}

async fn is_unresolved(handle: &Handle, ifindex: u32, address: IpAddr) -> Result<bool> {
    let neighbours = handle.neighbours().get().execute();
    let neighbours = all(neighbours, "list the neighbours").await?;
    Ok(neighbours.iter().any(|neighbour| {
        let is_it = neighbour
            .attributes
            .iter()
            .any(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(known)) => {
                    IpAddr::from(*known) == address
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(known)) => {
                    IpAddr::from(*known) == address
                }
                _ => false,
            });
        let state = neighbour.header.state;
        is_it
            && neighbour.header.ifindex == ifindex
            && matches!(state, NeighbourState::Incomplete | NeighbourState::Failed)
    }))
}
