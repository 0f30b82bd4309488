//! What the user means, sound by construction.

pub mod change;
mod check;
pub mod defaults;
pub mod findings;
pub mod model;
pub mod names;
pub mod prefix;
mod spell;
mod suggest;
