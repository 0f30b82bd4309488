//! The ways of running the decision that the corpus is told to: over the host's tables, and by the
//! loaded programs, replayed and on real devices.
//!
//! All of them protect the same machine: `eth0` has the addresses 10.0.0.10 and 2001:db8::10, the
//! next interface 11, and so on.

mod host;
#[cfg(feature = "programs")]
mod kernel;
#[cfg(feature = "programs")]
mod wires;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sg_common::flow::{FlowKey, FlowKind, FlowState};
use sg_ctl::policy::allows::ReadAddresses;
use sg_ctl::policy::model::Policy;
use sg_ctl::policy::names::InterfaceName;

pub use host::HostEvaluator;
#[cfg(feature = "programs")]
pub use kernel::{Hooks, Kernel, Way, in_kernel, uninstall};
#[cfg(feature = "programs")]
pub use wires::Linear;

use crate::corpus::{FlowIs, Flows};

/// The link-layer address of each guest, that frames come from if their words say no other.
pub(crate) const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// The addresses that are read from the interfaces of a policy.
pub fn addresses(policy: &Policy) -> ReadAddresses {
    let mut read: BTreeMap<InterfaceName, BTreeSet<IpAddr>> = BTreeMap::new();
    for vpc in policy.vpcs.values() {
        for (name, number) in vpc.interfaces.keys().zip(0_u8..) {
            read.insert(name.clone(), addresses_of(number));
        }
    }
    read
}

fn addresses_of(number: u8) -> BTreeSet<IpAddr> {
    let v6 = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10 + u16::from(number)];
    BTreeSet::from([IpAddr::from([10, 0, 0, 10 + number]), IpAddr::from(v6)])
}

fn flows(alive: Vec<(FlowKey, FlowKind, FlowState)>) -> Flows {
    let named = alive.into_iter().map(|(key, table, state)| {
        let is = FlowIs {
            assured: table == FlowKind::Assured,
            phase: state.phase.name().to_owned(),
        };
        (key, is)
    });
    named.collect()
}
