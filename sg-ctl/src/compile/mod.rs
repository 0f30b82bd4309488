//! From the policy and the machine's interfaces to the tables, purely.
//!
//! Nothing here does I/O, asks a clock or draws a number: equal inputs give equal tables. What the
//! previous image has keeps its numbers and places, and what is new takes none of them, so that an
//! image can be written beside the one in force without touching what a packet may still follow.

mod arena;
mod cells;
mod domain;
mod edits;
mod fold;
pub mod host;
mod host_flows;
mod identities;
pub mod image;
mod in_use;
mod interfaces;
mod limits;
mod live;
mod meaning;
mod numbers;
mod ports;
mod ranges;
mod rules;

use crate::policy::model::Policy;

pub use edits::{Edits, Reversible};
use image::Image;
pub use in_use::{Arrays, Astray, edges};
pub use interfaces::AttachedInterface;
pub use limits::{CompileError, INTERFACE_SLOTS, Limit, Limits, Subject};
pub use live::{Change, Live, NeedsFullCompile};
pub use meaning::differing;

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
    Ok(Live::compile(policy, attached, previous, settings, false)?.into_image())
}

#[cfg(test)]
pub(crate) mod tests;
