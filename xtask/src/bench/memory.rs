//! What a flow, a prefix and an idle interface take of the kernel's memory.
//!
//! The same policy is staged with more room, with more prefixes and with more interfaces; what all
//! maps together take more, as the kernel tells it, is divided by how many more there are. So room
//! to spare counts, and so does whatever hangs on a prefix besides its own entry. The kernel does
//! not count the inner nodes of a longest-prefix trie.

use anyhow::Result;
use sg_ctl::compile::Limits;

use crate::judgement::{FEW_FLOWS, Pins};
use crate::measure::{Rounds, Taken, to_places};
use crate::{Effort, policies};

/// All three measures.
pub(crate) fn bytes(names: &[&'static str], effort: Effort) -> Result<Vec<Taken>> {
    let pins = Pins::mount()?;
    let memory = |policy: &str, flows: u32, limits: Limits| -> Result<f64> {
        Ok(pins.stage("memory", policy, flows, limits)?.memory()? as f64)
    };
    let ten = policies::by_prefix_list(10);
    let limits = Limits::default();
    let least = memory(&ten, FEW_FLOWS, limits)?;
    let mut taken = Vec::new();
    for name in names {
        crate::go_on()?;
        let (more, count) = match *name {
            "bytes_per_flow" => (memory(&ten, FEW_FLOWS * 4, limits)?, FEW_FLOWS * 3),
            "bytes_per_prefix" => {
                let count = effort.choose(100_000, 20_000);
                let policy = policies::by_prefix_list(count);
                (memory(&policy, FEW_FLOWS, limits)?, count - 10)
            }
            _ => {
                let count = effort.choose(4_000, 500);
                let policy = policies::with_interfaces(&ten, count);
                (memory(&policy, FEW_FLOWS, limits)?, count)
            }
        };
        let each = (more - least) / f64::from(count);
        taken.push(
            Taken::new(name, Rounds::of([each]))
                .with("more", count)
                .with("bytes_more", more - least)
                .with("bytes_before", to_places(least)),
        );
    }
    Ok(taken)
}
