//! The types the kernel and the host agree on, and the decision itself.
//!
//! This crate knows no aya, no allocator, no clock and no panic: the same source is compiled for
//! the kernel's verifier and for the host, and both must reach the same verdict.
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

pub mod packet;
