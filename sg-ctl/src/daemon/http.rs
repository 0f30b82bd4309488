//! The daemon's servers: who connects costs a bounded amount of memory and of time, whatever they send.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;
use tracing::{info, warn};

use super::config::{self, Config};
use super::error::{Error, Result};
use super::state::State;
use super::{metrics, socket};
use crate::api::{self, Api};

/// The longest that a client may take to send its head; it is also how long a connection may be idle.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// The longest that a client may take for everything.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);

/// More clients at once wait for those that are served.
const CLIENTS: usize = 64;
/// Clients of the API keep their connections.
const API_CLIENTS: usize = 16_384;

/// How much of a head is read.
const HEAD_BYTES: usize = 16 * 1024;

/// Everything that is listened on.
pub(super) struct Listeners {
    state: Arc<State>,
    socket: Option<JoinHandle<()>>,
    /// By address, what serves there.
    metrics: BTreeMap<SocketAddr, JoinHandle<()>>,
    api: BTreeMap<SocketAddr, JoinHandle<()>>,
    /// What the API serves with.
    api_config: config::Api,
}

impl Listeners {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self {
            state,
            socket: None,
            metrics: BTreeMap::new(),
            api: BTreeMap::new(),
            api_config: config::Api::default(),
        }
    }

    /// Listens on the unix socket. A socket of a daemon that ended is replaced.
    pub(super) fn open_socket(&mut self) -> Result<()> {
        let listener = socket::listen(&self.state.options.run_dir)?;
        let router = socket::router(Arc::clone(&self.state));
        self.socket = Some(tokio::spawn(serve(
            Listener::Unix(listener),
            router,
            CLIENTS,
        )));
        Ok(())
    }

    /// Listens on what the configuration lists and on nothing else. Where one address cannot be had,
    /// the others are served.
    pub(super) async fn listen(&mut self, config: &Config) -> Result<()> {
        self.state.set_rules(config.metrics.rules);
        let state = &self.state;
        let metrics = open(
            &mut self.metrics,
            &config.metrics.listen,
            "metrics.listen",
            || (metrics::router(Arc::clone(state)), CLIENTS),
        );
        let metrics = metrics.await;
        if self.api_config != config.api {
            // Whoever listens still serves with what was configured before.
            let all = std::mem::take(&mut self.api).into_values();
            for served in all {
                served.abort();
                let _ = served.await;
            }
            self.api_config = config.api.clone();
        }
        let api = Arc::new(Api::new(
            Arc::clone(state),
            config.api.account.as_str(),
            &config.api.quotas,
        ));
        let api = open(&mut self.api, &config.api.listen, "api.listen", || {
            (api::router(Arc::clone(&api)), API_CLIENTS)
        });
        metrics.and(api.await)
    }

    /// Listens no more. Those who are served get their answer.
    pub(super) fn close(&mut self) {
        let all = self.metrics.values().chain(self.api.values());
        all.chain(&self.socket).for_each(JoinHandle::abort);
    }
}

/// Listens on the addresses that are wanted and on no others of these.
async fn open(
    served: &mut BTreeMap<SocketAddr, JoinHandle<()>>,
    wanted: &[SocketAddr],
    what: &'static str,
    router: impl Fn() -> (Router, usize),
) -> Result<()> {
    served.retain(|address, served| {
        let stays = wanted.contains(address);
        if !stays {
            served.abort();
        }
        stays
    });
    let mut first = None;
    for address in wanted {
        if served.contains_key(address) {
            continue;
        }
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let (router, clients) = router();
                // Port 0 is whatever the system gives.
                if let Ok(at) = listener.local_addr() {
                    info!("{what}: serves on {at}");
                }
                let serving = tokio::spawn(serve(Listener::Tcp(listener), router, clients));
                served.insert(*address, serving);
            }
            Err(source) => {
                first.get_or_insert(Error::Listen {
                    address: *address,
                    what,
                    source,
                });
            }
        }
    }
    first.map_or(Ok(()), Err)
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

async fn serve(listener: Listener, router: Router, clients: usize) {
    let clients = Arc::new(Semaphore::new(clients));
    loop {
        let Ok(client) = Arc::clone(&clients).acquire_owned().await else {
            return;
        };
        let accepted = match &listener {
            Listener::Unix(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Stream::Unix(stream)),
            Listener::Tcp(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Stream::Tcp(stream)),
        };
        let router = router.clone();
        match accepted {
            Ok(Stream::Unix(stream)) if !is_trusted(&stream) => {}
            Ok(stream) => drop(tokio::spawn(async move {
                match stream {
                    Stream::Unix(stream) => answer(stream, router).await,
                    Stream::Tcp(stream) => answer(stream, router).await,
                }
                drop(client);
            })),
            Err(failed) => {
                // No more files may be opened, or the like: it passes.
                warn!("a client cannot be served: {failed}");
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// Whether the process at the other end is root's, or of the user that this one is of.
fn is_trusted(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid();
    let peer = stream.peer_cred();
    peer.is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own.as_raw())
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            let answer = router.oneshot(request.map(Body::new));
            Ok::<Response, Infallible>(match timeout(ANSWER_WITHIN, answer).await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_) => StatusCode::GATEWAY_TIMEOUT.into_response(),
            })
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // What a client does to its own connection is its own affair.
    let _ = connection.await;
}
