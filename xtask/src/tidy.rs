//! `cargo xtask tidy`: the invariants that a reader of the text can check.
//!
//! It knows words and folders, no types: what the compiler can hold is left to the compiler.

mod code;
mod layers;
mod rules;
mod tree;

use anyhow::{Result, ensure};

use crate::workspace;
use tree::Tree;

/// One place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    path: String,
    /// Counted from 1; `None` where the file as a whole is meant.
    line: Option<usize>,
    what: String,
}

/// Checks every rule and prints each violation as `path:line: what would be right`.
pub(crate) fn run() -> Result<()> {
    let tree = Tree::read(&workspace::root())?;
    let mut found = 0_usize;
    for (_, rule) in rules::ALL {
        for violation in rule(&tree) {
            found += 1;
            let line = violation
                .line
                .map(|line| format!(":{line}"))
                .unwrap_or_default();
            println!("{}{line}: {}", violation.path, violation.what);
        }
    }
    ensure!(found == 0, "tidy: {found} places break a rule");
    println!(
        "── tidy: {} rules hold in {} files",
        rules::ALL.len(),
        tree.files().len()
    );
    Ok(())
}
