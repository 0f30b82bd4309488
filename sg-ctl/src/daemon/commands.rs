//! Commands that the daemon makes for those who gave them, through its socket.
//!
//! The daemon does it for a command of the same build that sees the same state folder and network
//! namespace; any other one does it itself, beside the daemon. A command never does what it has asked the
//! daemon for: where no answer comes it says what can be known.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tracing::info;

use super::error::{Error, Result};
use super::keeper::Keeper;
use super::socket::{self, Body, Connection};
use super::state::State;
use crate::controller::{Session, View};
use crate::dirs::{DirOptions, Dirs};
use crate::interfaces::Netns;

/// More than the words of any command have: a kernel gives a process no more either.
const MOST_BYTES: usize = 4 << 20;

/// The longest that a daemon takes to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(2);

/// The longest that a command waits for what it asked for: longer than the daemon waits for others.
const PATIENCE: Duration = Duration::from_secs(300);

/// Makes what a command asks for; none where the daemon does not make such commands.
pub type Serve = fn(&Keeper, &Asked) -> Option<Answered>;

/// A command that is given to the daemon.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// The words after `sg-ctl`.
    pub arguments: Vec<String>,
    /// Whether its output is coloured.
    pub is_coloured: bool,
    /// The session that it is given in.
    pub session: Option<Session>,
}

/// What a command is to say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answered {
    /// Whether it was done.
    pub is_done: bool,
    /// What it prints.
    pub stdout: String,
    /// What it complains about.
    pub stderr: String,
}

/// What has to be the same for a daemon to make a command as the command itself would.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    version: String,
    netns: (u64, u64),
    state: (u64, u64),
}

#[derive(Debug, Serialize, Deserialize)]
struct Introduction {
    place: Place,
    revision: u64,
}

impl Place {
    fn here(state_dir: &Path) -> Option<Self> {
        let netns = Netns::current().ok()?.id();
        let state = fs::metadata(state_dir).ok()?;
        Some(Self {
            version: env!("SG_VERSION").to_owned(),
            netns: (netns.device, netns.inode),
            state: (state.dev(), state.ino()),
        })
    }
}

pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/instance", get(introduce))
        .route("/command", post(make))
        .with_state(state)
}

async fn introduce(Shared(state): Shared<Arc<State>>) -> Response {
    match Place::here(&state.options.state_dir) {
        Some(place) => Json(Introduction {
            place,
            revision: state.keeper.last_revision(),
        })
        .into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn make(Shared(state): Shared<Arc<State>>, body: axum::body::Body) -> Response {
    let asked: Asked = match socket::read(body, MOST_BYTES).await {
        Ok(asked) => asked,
        Err(refused) => return refused,
    };
    let serve = move || {
        info!("makes {}", asked.arguments.join(" ").escape_debug());
        let answered = (state.serve)(&state.keeper, &asked);
        let is_made = u64::from(answered.is_some());
        state.commands.fetch_add(is_made, Ordering::Relaxed);
        answered
    };
    let answered = spawn_blocking(serve).await;
    match answered {
        Ok(Some(answered)) => Json(answered).into_response(),
        Ok(None) => StatusCode::MISDIRECTED_REQUEST.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Has the daemon make a command; none where no daemon runs that would make it as this process does.
pub fn forward(options: &DirOptions, asked: &Asked) -> Result<Option<Answered>> {
    if !options.run_dir.join(socket::SOCKET).exists() {
        return Ok(None);
    }
    let Some(place) = Place::here(&options.state_dir) else {
        return Ok(None);
    };
    let runtime = socket::runtime()?;
    runtime.block_on(async {
        let Ok(mut daemon) = Connection::open(&options.run_dir).await else {
            return Ok(None);
        };
        let introduced = daemon.ask("/instance", Body::Nothing, INTRODUCTION).await;
        let revision = match introduced.and_then(|answer| answer.json::<Introduction>()) {
            Ok(daemon) if daemon.place == place => daemon.revision,
            _ => return Ok(None),
        };
        let answer = daemon.ask("/command", Body::of(asked), PATIENCE).await;
        match answer {
            Ok(answer) if answer.status == StatusCode::MISDIRECTED_REQUEST => Ok(None),
            answer => match answer.and_then(|answer| answer.json()) {
                Ok(answered) => Ok(Some(answered)),
                Err(why) => Err(unanswered(options, revision, &why)),
            },
        }
    })
}

/// What is known when no answer came.
fn unanswered(options: &DirOptions, before: u64, why: &Error) -> Error {
    let why = why.to_string();
    // Whoever is still at work ends first.
    let locked = Dirs::create(options).and_then(|dirs| dirs.lock());
    let now = locked.ok().and_then(|_lock| View::open(options).ok());
    match now.map(|view| view.revision) {
        None => Error::Unanswered { why },
        Some(now) if now == before => Error::NotDone { why },
        Some(now) => Error::PerhapsDone { why, before, now },
    }
}
