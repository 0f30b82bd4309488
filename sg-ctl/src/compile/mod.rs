//! From the policy and the machine's interfaces to the tables, purely.
//!
//! Nothing here does I/O, asks a clock or draws a number: equal inputs give equal tables. What the
//! previous image has keeps its numbers and places, and what is new takes none of them, so that an
//! image can be written beside the one in force without touching what a packet may still follow.

mod arena;
mod domain;
mod fold;
pub mod host;
mod host_flows;
mod identities;
pub mod image;
mod interfaces;
mod limits;
mod numbers;
mod policies;
mod ports;
mod ranges;

use sg_common::addr::Addr;
use sg_common::tables::{Identity, Scope};

use crate::policy::model::Policy;

use domain::{Domain, domains};
use fold::Prefix;
use identities::{IdentityNumbers, MemberEntries, PRESENT, group_sets, prefix_list_sets};
use image::{Image, ScopedPrefix};
pub use interfaces::AttachedInterface;
use interfaces::Protected;
use limits::Entries;
pub use limits::{CompileError, INTERFACE_SLOTS, Limit, Limits, Subject};
use policies::PolicyTables;
use ranges::RangeTables;

/// What the machine and its operator say about the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Kernel timer ticks a second (`CONFIG_HZ`).
    pub jiffies_per_second: u32,
    /// How many assured flows the dataplane has room for, of which interfaces get their shares.
    pub assured_flows: u32,
    /// How much the maps hold.
    pub limits: Limits,
}

/// Compiles what the attached interfaces need. `previous` is the image in force.
pub fn compile(
    policy: &Policy,
    attached: &[AttachedInterface],
    previous: Option<&Image>,
    settings: &Settings,
) -> Result<Image, CompileError> {
    let nothing = Image::default();
    let previous = previous.unwrap_or(&nothing);
    let limits = &settings.limits;
    let mut image = Image::default();

    let protected = interfaces::protected(policy, attached)?;
    let domains = domains(&protected, previous, limits, &mut image)?;
    let numbers_of = |protected: &Protected<'_>| {
        let domain = domains.binary_search_by_key(&protected.vpc_name, |domain| domain.name);
        let policy = domain
            .ok()
            .and_then(|at| domains.get(at))
            .and_then(|domain| {
                let groups = domain.group_numbers(&protected.interface.groups);
                Some((domain.number, domain.policies.get(&groups)?.id))
            });
        // Policy 0 drops everything.
        policy.unwrap_or_default()
    };
    image.interfaces = interfaces::install(&protected, numbers_of, previous, settings)?;
    image.interface_places = interfaces::place(&mut image.interfaces, previous)?;

    let mut sets = Entries::new("SETS", "sets", limits.sets);
    interfaces::guest_addresses(&protected, &image.interfaces, &mut sets);
    let mut identities = IdentityNumbers::new(previous);
    let mut members = MemberEntries::new(previous, limits.members);
    let mut ranges = RangeTables::new(previous, limits);
    let mut tables = PolicyTables::new(previous, limits, image.ids.rules.len());
    for domain in &domains {
        add_services(domain, &mut sets);
        let lists = prefix_list_sets(domain, &mut identities, &mut ranges)?;
        let groups = group_sets(domain, &protected, &mut identities, &mut members);
        for (set, attached) in &domain.policies {
            let policy = tables.add(domain, set, attached, &lists, &groups, &mut ranges)?;
            image.policies.insert(attached.id, policy);
        }
    }

    let PolicyTables { ports, grants, .. } = tables;
    image.ports = ports.finish()?;
    ranges.finish(&mut image)?;
    image.sets = sets.finish(&previous.sets)?;
    image.members = members.entries.finish(&previous.members)?;
    image.grants = grants.finish(&previous.grants)?;
    image.ids.identities = identities.into_given();
    Ok(image)
}

/// Writes the link-local services of a VPC.
fn add_services(domain: &Domain<'_>, sets: &mut Entries<ScopedPrefix, Identity>) {
    sets.begin(Subject::Vpc(domain.name.clone()));
    for service in &domain.vpc.link_local_services {
        let scope = Scope::services(domain.number, Addr::from(*service).family());
        let whole = Prefix::from(*service);
        sets.add(
            ScopedPrefix::new(scope, whole.address(), whole.bits()),
            PRESENT,
        );
    }
}

#[cfg(test)]
pub(crate) mod tests;
