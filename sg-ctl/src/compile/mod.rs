//! From the policy and the machine's addresses to the tables, purely.
//!
//! Nothing here does I/O, asks a clock or draws a number: equal inputs give equal tables.

pub mod image;
