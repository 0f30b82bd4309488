//! The cloud's own API: real clients of EC2 drive this machine's groups.
//!
//! It is a second front of the controller. A request is read into fields, its signature checked, and
//! its operation either looks at one revision of everything or drafts one change of it, which is made
//! whole or not at all. What an operation means is in a file for each kind of object; none of them
//! knows HTTP, the store or the kernel.

mod account;
mod fault;
mod filters;
mod front;
mod groups;
mod keys;
mod network_interfaces;
mod operations;
mod paging;
mod permissions;
mod prefix_lists;
mod query;
mod quotas;
mod rules;
mod serve;
mod sigv4;
mod subnets;
mod tags;
mod tokens;
mod vpcs;
mod world;
mod xml;

use std::collections::BTreeSet;
use std::fmt::Display;

use crate::policy::names::InterfaceName;

use fault::Result;
use world::World;

pub use keys::{Key, KeyError, Keys};
pub use quotas::Quotas;
pub use serve::{Api, router};

/// What an operation knows of everything but its own request.
#[derive(Clone, Copy)]
struct Context<'a> {
    world: &'a World,
    account: &'a str,
    region: &'a str,
    quotas: &'a Quotas,
    key: &'a Key,
    /// The entries of the policy that judge a device of this machine.
    attached: &'a dyn Fn() -> Result<BTreeSet<InterfaceName>>,
    /// How the policy calls a network namespace, or the one of the daemon.
    namespace: fn(Option<&str>) -> Result<Option<String>>,
}

impl Context<'_> {
    fn arn(&self, kind: &str, id: impl Display) -> String {
        format!("arn:aws:ec2:{}:{}:{kind}/{id}", self.region, self.account)
    }
}
