//! Changes that wait for a confirmation.

use std::time::Duration;

use clap::Args;

use crate::controller::{self, Care, Controller, Done, Plan, Session, await_confirmation};
use crate::dirs::DirOptions;
use crate::policy::change::Change;
use crate::show;

use super::Answer;
use super::error::Result;
use super::output::{tell, warn_each};
use super::progress::Progress;
use super::time::time;

/// The shortest and the longest time there is for a confirmation.
const BOUNDS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(86_400)];

/// The option of every command that changes what is enforced.
#[derive(Debug, Default, Args)]
pub(super) struct Confirm {
    /// Roll the change back unless `sg-ctl confirm` follows within this time, like 60s or 5m
    #[arg(long = "confirm", value_name = "TIME", value_parser = time(BOUNDS[0], BOUNDS[1]))]
    within: Option<Duration>,
}

impl Confirm {
    /// Whether a change stays without a confirmation.
    pub(super) fn is_needless(&self) -> bool {
        self.within.is_none()
    }

    /// How long the change is to wait for its confirmation, if it is.
    pub(super) fn within(&self) -> Option<Duration> {
        self.within
    }

    /// Makes changes that need no interface in particular hold.
    pub(super) fn change(
        &self,
        controller: &mut Controller,
        changes: &[Change],
        terminate: bool,
    ) -> Result<Done> {
        self.carefully(|care| controller.change_with(changes, terminate, care))
    }

    /// Makes a plan hold, with progress where it takes long and warnings before it is too late.
    pub(super) fn install(&self, controller: &mut Controller, plan: Plan) -> Result<Done> {
        let done = self.carefully(|care| controller.install_with(plan, care))?;
        warn_each(&done.warnings);
        Ok(done)
    }

    fn carefully(
        &self,
        work: impl FnOnce(&Care<'_>) -> Result<Done, controller::Error>,
    ) -> Result<Done> {
        let progress = Progress::start();
        let done = work(&Care {
            confirm_within: self.within,
            session: Session::current(),
            tell: &|news| progress.tell(&news),
        });
        drop(progress);
        Ok(done?)
    }
}

/// What to do about a change that waits, after what has changed.
pub(super) fn next_step(done: &Done) -> String {
    done.confirm_within
        .map(show::to_confirm)
        .unwrap_or_default()
}

/// Keeps the change that waits.
pub(super) fn confirm(dirs: &DirOptions) -> Result<Answer> {
    Controller::open(dirs)?.confirm()?;
    tell(show::confirmed());
    Ok(Answer::Yes)
}

/// Takes the change that waits back at once.
pub(super) fn rollback(dirs: &DirOptions) -> Result<Answer> {
    let taken_back = Controller::open(dirs)?.take_back()?;
    tell(&show::taken_back(&taken_back));
    Ok(Answer::Yes)
}

/// Waits for the deadline, away from whoever started it.
pub(super) fn wait(dirs: &DirOptions) -> Result<Answer> {
    await_confirmation(dirs)?;
    Ok(Answer::Yes)
}
