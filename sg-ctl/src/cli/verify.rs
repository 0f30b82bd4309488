//! Comparing the kernel with what is stored.

use clap::Args;
use serde_json::json;

use crate::controller::View;
use crate::dirs::DirOptions;
use crate::show::{self, Style};

use super::Answer;
use super::error::Result;
use super::output::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let verified = View::verify(dirs)?;
        let differences = &verified.differences;
        if self.json {
            let told = differences.iter().map(
                |difference| json!({"kind": difference.kind(), "text": difference.to_string()}),
            );
            print_json(&json!({
                "same": differences.is_empty(),
                "differences": told.collect::<Vec<_>>(),
                "missing": verified.missing,
                "unfit": verified.unfit,
                "revision": verified.revision,
            }))?;
        } else {
            print(&show::verified(&verified, Style::of_stdout()))?;
        }
        Ok(match differences.is_empty() {
            true => Answer::Yes,
            false => Answer::No,
        })
    }
}
