//! The controller as a library: from what the user means to what the kernel holds.

pub mod interfaces;
pub mod policy;
#[cfg(test)]
mod scratch;
