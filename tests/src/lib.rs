//! The laboratory that the promises are proven in: machines that are network namespaces, the real
//! `sg-ctl`, real sockets, and frames of any shape.
//!
//! Without the feature `programs` it is the frames, the corpus and the evaluators that need no kernel.
//!
//! Nothing here knows what a right verdict is; the tests beside this library say that.

#[cfg(feature = "programs")]
pub mod api;
pub mod corpus;
#[cfg(feature = "programs")]
pub mod daemon;
pub mod evaluators;
#[cfg(feature = "programs")]
pub mod inject;
#[cfg(feature = "programs")]
pub mod lab;
#[cfg(feature = "programs")]
pub mod package;
pub mod packets;
#[cfg(feature = "programs")]
pub mod pages;
pub mod properties;
pub mod random;
#[cfg(feature = "programs")]
pub mod running;
#[cfg(feature = "programs")]
pub mod sg;
#[cfg(feature = "programs")]
pub mod sockets;
pub mod specification;
#[cfg(feature = "programs")]
pub mod tap;
