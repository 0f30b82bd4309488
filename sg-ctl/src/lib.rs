//! The controller as a library: from what the user means to what the kernel holds.

pub mod compile;
pub mod policy;
