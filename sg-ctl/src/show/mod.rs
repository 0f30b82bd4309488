//! Everything that is formatted for people, and nothing else.
//!
//! Each function takes what is to be said as data and gives the text; nobody here asks the kernel
//! or the store, or prints.

mod changes;
mod columns;
mod flows;
mod limits;
mod policy;
mod stats;
mod status;
mod style;
mod words;

pub use changes::{changes, changes_with_ids};
pub use flows::FlowLines;
pub use limits::{limit_changes, limits};
pub use policy::{dependents, group, groups, members, prefix_list, prefix_lists, rules};
pub use stats::stats;
pub use status::status;
pub use style::Style;
pub use words::count;
