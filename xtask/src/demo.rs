//! `cargo xtask demo`: the main job, live and readable.
//!
//! Two protected machines and a world around them, in network namespaces of their own; a policy
//! file; real connections that pass and that time out; changes under traffic; the counters that
//! explain them. It drives the real `sg-ctl` as a user would and knows nothing of its insides, so
//! it shares no code with the tests: it must build before the kernel's half does.

mod board;
mod stage;
mod story;
mod traffic;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::arch::Arch;
use crate::{build, setup};
use board::Board;
use stage::Stage;

/// Builds, plays, clears away; an error if anything did not go as told.
pub(crate) fn run(program: Option<PathBuf>) -> Result<()> {
    setup::for_live_traffic()?;
    let program = match program {
        Some(program) => program,
        None => build::release(Arch::native())?,
    };

    // Only a flag: the next step sees it, and the stage is cleared on the way out like after any
    // other failure.
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .context("cannot catch Ctrl-C")?;

    let started = Instant::now();
    let mut board = Board::default();
    let stage = Stage::build(program, interrupted)?;
    let played = story::play(&stage, &mut board);
    let remains = stage.clear();

    board.title("nothing is left behind");
    match remains {
        Ok(remains) => board.mark(
            remains.is_empty(),
            "no namespace, no mount and no file of the demo is left",
            &remains.join(", "),
        ),
        Err(error) => board.mark(false, "the stage is cleared", &format!("{error:#}")),
    }
    played?;
    println!("\n{board} in {:.1} s", started.elapsed().as_secs_f32());
    ensure!(board.failed() == 0, "the demo did not go as told");
    if board.passed() == 0 {
        bail!("the demo showed nothing");
    }
    Ok(())
}
