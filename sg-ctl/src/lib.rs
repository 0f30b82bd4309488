//! The controller as a library: from what the user means to what the kernel holds.
//!
//! Without the feature `programs` it ends at the tables: what the user means, and what it compiles to.
//! The rest loads programs, or works for what does.

#![cfg_attr(
    not(feature = "programs"),
    allow(dead_code, reason = "some of the policy is for what is left out")
)]

pub mod compile;
pub mod policy;

#[cfg(feature = "programs")]
pub mod api;
#[cfg(feature = "programs")]
pub mod aws;
#[cfg(feature = "programs")]
pub mod cli;
#[cfg(feature = "programs")]
pub mod consequences;
#[cfg(feature = "programs")]
pub mod controller;
#[cfg(feature = "programs")]
pub mod crash;
#[cfg(feature = "programs")]
pub mod daemon;
#[cfg(feature = "programs")]
pub mod dataplane;
#[cfg(feature = "programs")]
pub mod diagnose;
#[cfg(feature = "programs")]
pub mod dirs;
#[cfg(feature = "programs")]
pub mod doctor;
#[cfg(feature = "programs")]
pub mod explain;
#[cfg(feature = "programs")]
pub mod interfaces;
#[cfg(feature = "programs")]
pub mod limits;
#[cfg(feature = "programs")]
pub mod observe;
#[cfg(feature = "programs")]
pub mod privileges;
#[cfg(all(test, feature = "programs"))]
mod scratch;
#[cfg(feature = "programs")]
pub mod show;
#[cfg(feature = "programs")]
pub mod store;
