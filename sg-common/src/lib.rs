//! The types the kernel and the host agree on, and the decision itself.
//!
//! This crate knows no aya, no allocator, no clock and no panic: the same source is compiled for
//! the kernel's verifier and for the host, and both must reach the same verdict. Every function on
//! the packet's way is `#[inline(always)]`: the verifier follows one function per program better
//! than calls, and LLVM otherwise packs returned enums from uninitialised registers, which it
//! refuses.
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

pub mod abi;
pub mod addr;
pub mod decide;
pub mod event;
pub mod flow;
pub mod ids;
pub mod packet;
pub mod parse;
pub mod ports;
pub mod protocol;
pub mod ranges;
pub mod report;
#[cfg(feature = "measure")]
pub mod scatter;
pub mod tables;
pub mod trace;
