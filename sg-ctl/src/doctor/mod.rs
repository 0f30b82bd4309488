//! Whether this machine can enforce a policy, and whether it does.
//!
//! Each check finds one fact and says what to do where it is not as it should be. Nothing here
//! changes anything; what the kernel is asked about BPF is for the dataplane to know.

mod devices;
mod instance;
mod kernel;
mod machine;
mod path;

use serde::Serialize;

use crate::dirs::DirOptions;

/// How a fact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, and could be better or will need somebody.
    Warning,
    /// Something is not protected as it should be, or cannot be.
    Problem,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do; nothing where all is well.
    pub next: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Ok,
            found: found.into(),
            next: None,
        }
    }

    fn warning(name: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Warning,
            found: found.into(),
            next: Some(next.into()),
        }
    }

    fn problem(name: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Problem,
            found: found.into(),
            next: Some(next.into()),
        }
    }
}

/// Looks at everything, the kernel first.
pub fn examine(options: &DirOptions) -> Vec<Check> {
    let mut checks = kernel::checks(&options.run_dir);
    checks.extend(machine::checks());
    checks.extend(instance::checks(options));
    checks
}
