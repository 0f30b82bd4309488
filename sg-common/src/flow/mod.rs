//! Flows: their keys, their states, and how a packet moves a flow from one state to the next.
//!
//! A request and its reply have the same key. Where flows are kept is the business of
//! [`Tables`](crate::tables::Tables); this module is arithmetic on a copy of one flow's state.
//!
//! There are two kinds, which share one table. *Embryonic* flows have been seen from one side, or
//! have not completed a handshake; any of them may be forgotten when room is short. *Assured* flows
//! have been seen from both sides and are never forgotten before their deadline.

mod bucket;
mod key;
mod kind;
mod phase;
pub mod slot;
mod state;
mod tcp;

pub use bucket::{FlowBucket, FlowSearch, FlowSlot, Migration, bpf_spin_lock};
pub use key::{FlowKey, FlowPlaces, HashKey};
pub use kind::FlowKind;
pub use phase::{Phase, TimeoutTicks};
pub use state::{FastUpdate, FlowState, Growth, Leg, StateChange};
