//! The controller as a library: from what the user means to what the kernel holds.

pub mod aws;
pub mod cli;
pub mod compile;
pub mod consequences;
pub mod controller;
pub mod crash;
pub mod daemon;
pub mod dataplane;
pub mod diagnose;
pub mod dirs;
pub mod doctor;
pub mod explain;
pub mod interfaces;
pub mod limits;
pub mod observe;
pub mod policy;
pub mod privileges;
#[cfg(test)]
mod scratch;
pub mod show;
pub mod store;
