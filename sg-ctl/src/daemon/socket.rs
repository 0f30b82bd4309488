//! The unix socket: HTTP and JSON for commands on this machine.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::routing::get;
use axum::{Json, Router};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime;
use tokio::time::timeout;

use super::error::{Error, Result};
use super::metrics;
use super::state::{Report, State};

/// Its name in the run folder.
pub const SOCKET: &str = "sg.sock";

/// The longest that a command waits for an answer, and the most that it reads.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_BYTES: usize = 1 << 24;

/// Listens for root alone, as the folder lets nobody else in.
pub(super) fn listen(run: &Path) -> Result<UnixListener> {
    let path = run.join(SOCKET);
    let failed = |source| Error::Socket {
        path: path.clone(),
        source,
    };
    // This process holds the lock of daemons, so nobody listens there any more.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

pub(super) fn router(state: Arc<State>) -> Router {
    let router = Router::new()
        .route("/status", get(status))
        .with_state(Arc::clone(&state));
    router.merge(metrics::router(state))
}

async fn status(Shared(state): Shared<Arc<State>>) -> Json<Report> {
    Json(state.report())
}

/// Asks the daemon of a run folder, as a command does.
pub fn ask<T: DeserializeOwned>(run: &Path, path: &str) -> Result<T> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::system("start an event loop"))?;
    let socket = run.join(SOCKET);
    let answered =
        runtime.block_on(async { timeout(PATIENCE, get_bytes(run, &socket, path)).await });
    let answer = |why: String| Error::Answer {
        path: socket.clone(),
        why,
    };
    let body =
        answered.map_err(|_| answer(format!("nothing came within {} s", PATIENCE.as_secs())))??;
    serde_json::from_slice(&body).map_err(|error| answer(error.to_string()))
}

async fn get_bytes(run: &Path, socket: &PathBuf, path: &str) -> Result<Bytes> {
    let answer = |why: String| Error::Answer {
        path: socket.clone(),
        why,
    };
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NotRunning {
                run: run.to_owned(),
            },
            _ => answer(error.to_string()),
        })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| answer(error.to_string()))?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, "sg")
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|error| answer(error.to_string()))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| answer(error.to_string()))?;
    if response.status() != StatusCode::OK {
        return Err(answer(response.status().to_string()));
    }
    let body = Limited::new(response.into_body(), MOST_BYTES)
        .collect()
        .await;
    Ok(body.map_err(|error| answer(error.to_string()))?.to_bytes())
}
