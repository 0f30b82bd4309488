//! Flows in buckets of eight, in one array.
//!
//! Embryonic and assured flows share it. A bit of a slot's tag says of which kind the flow is, so a flow
//! is assured where it is, and an embryonic flow gives its slot to a new one when room is short.
//!
//! Readers take no lock: they compare tags, then the key, and look at the stamp again after copying.
//! Writers of one bucket are serialised by its spin lock. The verifier allows no call while it is held,
//! so time and places are computed before. What happens in a slot is
//! [`sg_common::flow::slot`]; this module chooses the slots. Two CPUs that place one flow at once may
//! choose different slots: each searches for a duplicate after it has written its own, and one stays.
//!
//! A lookup of a known flow costs one cache miss: a flow goes into its first bucket as long as half of
//! that is free, and there into the slot that its tag names. So the processor reads the tags and the
//! flow at the same time.
//!
//! Expired flows count as free: a new flow reuses their slots, and each new assured flow sweeps one more
//! bucket, so quotas become true again without any process.
//!
//! While the table changes its size there are two, and a flow is in one of them. A search looks into the
//! current table and then into the *other* one. A flow is used where it is found, until a program that
//! the controller runs has migrated it.
//!
//! A function that several places call is a function in the kernel too: a call costs less than the
//! instructions and the stack of another copy.

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
