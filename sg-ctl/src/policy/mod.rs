//! What the user means, sound by construction.

pub mod model;
pub mod names;
