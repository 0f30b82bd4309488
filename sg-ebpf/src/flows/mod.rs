//! Flows in buckets of eight, in one array.
//!
//! Embryonic and assured flows share it: a bit of a place's tag says which its flow is, so that a flow
//! is assured where it is, and what is not assured gives way to what comes.
//!
//! Readers take no lock: they compare tags, then the key, and look at the stamp again after copying;
//! it is odd while a flow moves in, and another one afterwards. Writers of one bucket are
//! serialised by its spin lock, under which the verifier allows no call; so time and places are
//! computed before. Two CPUs that place one flow at once may choose different places: each looks for
//! another one when it has written its own, and one stays.
//!
//! A packet of a flow that is known waits for memory once: the first bucket is taken as long as half
//! of it is free, and in it the place that the tag names. So the processor, which expects what
//! mostly is, reads tags and flow at the same time.
//!
//! Expired flows are no flows: their places are reused by whoever needs one, and each new assured
//! flow sweeps one more bucket, so that quotas become true again without any process.
//!
//! While the table changes its size there are two, and a flow is in one of them: what the current one
//! does not have is looked for in the *other* one, used there in place, and migrated by a
//! program that the controller runs.
//!
//! What is called from several places is a function of its own in the kernel too: a call costs less
//! than the instructions and the stack of another copy.

mod bucket;
mod change;
mod expire;
mod fast;
mod openings;
mod order;
mod owners;
mod place;
mod resize;
mod search;

pub(crate) use bucket::FoundFlow;
pub(crate) use change::{advance, count, extend, remove, update};
pub(crate) use expire::sweep;
pub(crate) use fast::find_fast;
pub(crate) use openings::{may_cross_syn, note_syn};
pub(crate) use owners::owned;
pub(crate) use place::{assure, open};
pub(crate) use resize::migrate;
pub(crate) use search::find;
