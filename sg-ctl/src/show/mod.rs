//! Everything that is formatted for people, and nothing else.
//!
//! Each function takes what is to be said as data and gives the text; nobody here asks the kernel
//! or the store, or prints.

mod advice;
mod api;
mod changes;
mod columns;
mod confirmation;
mod consequences;
mod daemon;
mod diagnose;
mod doctor;
mod events;
mod explain;
mod flows;
mod limits;
mod policy;
mod policy_keys;
mod rates;
mod stats;
mod status;
mod style;
mod top;
mod trace;
mod verify;
mod words;

pub use advice::{AdviceLine, advice, advice_line};
pub use api::{api_keys, new_api_key};
pub use changes::{changes, changes_with_ids};
pub use confirmation::{confirmed, step, taken_back, to_confirm};
pub use consequences::consequences;
pub use daemon::daemon;
pub use diagnose::diagnosis;
pub use doctor::checks;
pub use events::EventLines;
pub use explain::explanation;
pub use flows::{FlowLines, flow, flows_ended, flows_left};
pub use limits::{limit_changes, limits};
pub use policy::{dependents, group, groups, members, prefix_list, prefix_lists, rules, vpcs};
pub use policy_keys::{
    manual as policy_manual, manual_sections, markdown as policy_keys, services_markdown,
};
pub use rates::{rate_lines, rates};
pub use stats::stats;
pub use status::status;
pub use style::Style;
pub use top::{Key, TopControls, top};
pub use trace::{StoryLines, trace_begun, trace_ended};
pub use verify::verified;
pub use words::count;
