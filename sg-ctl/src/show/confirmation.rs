//! Changes that wait for a confirmation, and what a command is doing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::words::{ago, span};
use crate::controller::{Step, TakenBack};
use crate::observe::UnconfirmedStatus;

/// What the user has to do about the change just made.
pub fn to_confirm(within: Duration) -> String {
    format!(
        "in force for {}: run `sg-ctl confirm`, best from a new connection, to keep the change, or it \
         is rolled back\n",
        span(within.as_secs())
    )
}

/// The change is there to stay.
pub fn confirmed() -> &'static str {
    "confirmed: the change stays\n"
}

/// The change is gone.
pub fn taken_back(gone: &TakenBack) -> String {
    format!(
        "rolled back: the policy of revision {} is in force again (now revision {})\n",
        gone.before, gone.revision
    )
}

/// The state of a change that waits.
pub(super) fn unconfirmed(waiting: &UnconfirmedStatus) -> String {
    let mut text = match waiting.left_s {
        0 => {
            "the last change was not confirmed in time and is being rolled back; `sg-ctl restore` \
              completes it\n"
                .to_owned()
        }
        left => format!(
            "the last change is rolled back in {} unless you run `sg-ctl confirm`\n",
            span(left)
        ),
    };
    if let Some(failure) = &waiting.failure {
        text.push_str(&format!("rolling it back has failed so far: {failure}\n"));
    }
    text
}

/// What was taken back last.
pub(super) fn was_taken_back(gone: &TakenBack) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = now.map_or(0, |now| now.as_secs().saturating_sub(gone.unix_time_s));
    format!(
        "the last change was rolled back {}: the policy of revision {} is in force again\n",
        ago(Some(since)),
        gone.before
    )
}

/// What a command is doing.
pub fn step(step: Step) -> &'static str {
    match step {
        Step::Compile => "compiling the policy",
        Step::Store => "storing the policy",
        Step::Install => "writing the kernel's tables",
    }
}
