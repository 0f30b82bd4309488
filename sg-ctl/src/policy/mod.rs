//! What the user means, sound by construction.

pub mod advice;
pub mod allows;
#[cfg(test)]
mod arbitrary;
pub mod change;
mod check;
pub mod defaults;
pub mod diff;
mod excerpt;
pub mod export;
pub mod fan_out;
pub mod file;
pub mod findings;
pub mod mac;
pub mod matching;
pub mod model;
pub mod names;
pub mod prefix;
pub mod rule_text;
pub mod services;
mod spell;
pub(crate) mod suggest;
pub mod time;
pub(crate) mod traffic;
