//! The laboratory that the promises are proven in: machines that are network namespaces, the real
//! `sg-ctl`, real sockets, and frames of any shape.
//!
//! Nothing here knows what a right verdict is; the tests beside this library say that.

pub mod corpus;
pub mod daemon;
pub mod evaluators;
pub mod inject;
pub mod lab;
pub mod package;
pub mod packets;
pub mod pages;
pub mod properties;
pub mod random;
pub mod running;
pub mod sg;
pub mod sockets;
pub mod specification;
pub mod tap;
