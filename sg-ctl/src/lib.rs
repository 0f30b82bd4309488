//! The controller as a library: from what the user means to what the kernel holds.

pub mod compile;
pub mod dataplane;
pub mod dirs;
pub mod interfaces;
pub mod policy;
pub mod privileges;
#[cfg(test)]
mod scratch;
pub mod store;
