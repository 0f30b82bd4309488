//! The unix socket: HTTP and JSON for commands on this machine.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{self, Runtime};
use tokio::time::timeout;

use super::error::{Error, Result};
use super::state::{Report, State};
use super::{commands, edits, metrics};

/// Its name in the run folder.
pub const SOCKET: &str = "sg.sock";

/// The longest that a command waits for an answer, and the most that it reads.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_BYTES: usize = 1 << 24;

/// The longest that a client may take for the rest of its request.
const BODY_WITHIN: Duration = Duration::from_secs(10);

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
    router
        .merge(commands::router(Arc::clone(&state)))
        .merge(edits::router(Arc::clone(&state)))
        .merge(metrics::router(state))
}

async fn status(Shared(state): Shared<Arc<State>>) -> Json<Report> {
    Json(state.report())
}

/// Asks the daemon of a run folder, as a command does.
pub fn ask<T: DeserializeOwned>(run: &Path, path: &str) -> Result<T> {
    runtime()?.block_on(async {
        let mut daemon = Connection::open(run).await?;
        daemon.ask(path, Body::Nothing, PATIENCE).await?.json()
    })
}

pub(super) fn runtime() -> Result<Runtime> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Error::system("start an event loop"))
}

/// A connection to the daemon, for one request after the other.
pub(super) struct Connection {
    socket: PathBuf,
    sender: http1::SendRequest<Full<Bytes>>,
}

/// What a request brings along.
pub(super) enum Body {
    Nothing,
    Json(Vec<u8>),
}

impl Body {
    pub(super) fn of(value: &impl Serialize) -> Self {
        // What cannot be written is refused as what cannot be read.
        Self::Json(serde_json::to_vec(value).unwrap_or_default())
    }
}

/// What the daemon says.
pub(super) struct Answer {
    socket: PathBuf,
    pub(super) status: StatusCode,
    body: Bytes,
}

impl Connection {
    pub(super) async fn open(run: &Path) -> Result<Self> {
        let socket = run.join(SOCKET);
        let answer = |why: String| Error::Answer {
            path: run.join(SOCKET),
            why,
        };
        let stream = UnixStream::connect(&socket)
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NotRunning {
                    run: run.to_owned(),
                },
                _ => answer(error.to_string()),
            })?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| answer(error.to_string()))?;
        tokio::spawn(connection);
        Ok(Self { socket, sender })
    }

    pub(super) async fn ask(&mut self, path: &str, body: Body, within: Duration) -> Result<Answer> {
        let socket = self.socket.clone();
        let answer = |why: String| Error::Answer {
            path: socket.clone(),
            why,
        };
        let (request, body) = match body {
            Body::Nothing => (Request::get(path), Bytes::new()),
            Body::Json(bytes) => (Request::post(path), Bytes::from(bytes)),
        };
        let request = request.header(header::HOST, "sg").body(Full::new(body));
        let request = request.map_err(|error| answer(error.to_string()))?;
        let asked = async {
            let response = self.sender.send_request(request).await;
            let response = response.map_err(|error| error.to_string())?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MOST_BYTES).collect();
            let body = body.await.map_err(|error| error.to_string())?.to_bytes();
            Ok::<_, String>((status, body))
        };
        let silence = |_| answer(format!("nothing came within {} s", within.as_secs()));
        let (status, body) = timeout(within, asked)
            .await
            .map_err(silence)?
            .map_err(&answer)?;
        Ok(Answer {
            socket,
            status,
            body,
        })
    }
}

impl Answer {
    pub(super) fn json<T: DeserializeOwned>(self) -> Result<T> {
        let wrong = |why: String| Error::Answer {
            path: self.socket.clone(),
            why,
        };
        if self.status != StatusCode::OK {
            return Err(wrong(self.status.to_string()));
        }
        serde_json::from_slice(&self.body).map_err(|error| wrong(error.to_string()))
    }
}

/// Reads what a client sends, which has to come before long and to have so many bytes at most.
pub(super) async fn read<T: DeserializeOwned>(
    body: axum::body::Body,
    most: usize,
) -> std::result::Result<T, Response> {
    let refuse = |status: StatusCode, why: &str| (status, Json(json!({ "error": why })));
    let body = timeout(BODY_WITHIN, Limited::new(body, most).collect()).await;
    let body = match body {
        Err(_) => return Err(refuse(StatusCode::REQUEST_TIMEOUT, "too slow").into_response()),
        Ok(Err(error)) => {
            let why = error.to_string();
            return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, &why).into_response());
        }
        Ok(Ok(body)) => body.to_bytes(),
    };
    serde_json::from_slice(&body)
        .map_err(|error| refuse(StatusCode::BAD_REQUEST, &error.to_string()).into_response())
}
