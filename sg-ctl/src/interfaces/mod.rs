//! What the machine says of its interfaces: which exist, of what kind, with which addresses.
//!
//! It reads and never changes anything, and it knows neither the policy nor BPF: what an
//! interface is protected by is not its business.

mod beside;
mod conversation;
mod error;
mod link;
mod monitor;
mod netns;
mod raw;
mod route;
mod xdp_features;

pub(crate) use conversation::converse;

pub use beside::{Flowtable, Tunnel, flowtables, tunnels};
pub use error::{Error, Result};
pub use link::{Kind, Link, LinkLayer, Peer, link, links, peer_mac, peer_macs};
pub use monitor::Monitor;
pub use netns::{Netns, NetnsId, every_namespace};
pub use route::{Hop, first_hop};
pub use xdp_features::has_native_xdp;
