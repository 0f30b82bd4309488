//! HTTP to operations and back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::request::Parts;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Context;
use super::fault::{Fault, Result};
use super::front::{self, Draft, Front};
use super::keys::{Key, KeyRing, Keys};
use super::operations::{self, EC2, Run, STS};
use super::query::Params;
use super::quotas::Quotas;
use super::sigv4::Claim;
use super::world::World;
use super::xml::Xml;
use crate::daemon::State;
use crate::policy::names::InterfaceName;

/// The most that a request may hold.
const MOST_BYTES: usize = 1 << 20;

/// The most that all requests together may hold while they are not known to be anybody's.
const MOST_BYTES_AT_ONCE: usize = 64 << 20;

/// The longest that a client may take to send its request.
const SENT_WITHIN: Duration = Duration::from_secs(10);

/// Requests that are worked on; more are told to come again.
const AT_ONCE: usize = 128;

/// Everything that the API serves with.
#[derive(Debug)]
pub struct Api {
    front: Front,
    keys: KeyRing,
    account: String,
    quotas: Quotas,
    busy: Arc<Semaphore>,
    room: Semaphore,
}

impl Api {
    /// Serves what the daemon keeps.
    pub fn new(state: Arc<State>, account: &str, quotas: &Quotas) -> Self {
        Self {
            keys: KeyRing::new(Keys::of(&state.options.state_dir)),
            front: Front::new(state),
            account: account.to_owned(),
            quotas: quotas.clone(),
            busy: Arc::new(Semaphore::new(AT_ONCE)),
            room: Semaphore::new(MOST_BYTES_AT_ONCE),
        }
    }

    fn context<'a>(
        &'a self,
        world: &'a World,
        key: &'a Key,
        region: &'a str,
        attached: &'a dyn Fn() -> Result<BTreeSet<InterfaceName>>,
    ) -> Context<'a> {
        Context {
            attached,
            namespace: front::namespace,
            world,
            account: &self.account,
            region,
            quotas: &self.quotas,
            key,
        }
    }
}

/// Answers every request.
pub fn router(api: Arc<Api>) -> Router {
    Router::new().fallback(answer).with_state(api)
}

async fn answer(Shared(api): Shared<Arc<Api>>, request: Request<Body>) -> Response {
    let id = request_id();
    let mut shape = EC2;
    let answered = serve(&api, request, &mut shape).await;
    let (status, body) = match answered {
        Ok((action, inner)) if shape == STS => (
            StatusCode::OK,
            format!(
                "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/{STS}/\">\
                 <{action}Result>{inner}</{action}Result><ResponseMetadata><RequestId>{id}\
                 </RequestId></ResponseMetadata></{action}Response>"
            ),
        ),
        Ok((action, inner)) => (
            StatusCode::OK,
            format!(
                "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/{EC2}/\">\
                 <requestId>{id}</requestId>{inner}</{action}Response>"
            ),
        ),
        Err(fault) => (fault.status, refusal(&fault, shape, &id)),
    };
    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}");
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/xml;charset=UTF-8"),
        ("x-amzn-requestid", id.as_str()),
        (header::CACHE_CONTROL.as_str(), "no-store"),
    ];
    (status, headers, body).into_response()
}

/// A refusal as each service writes it; clients of one cannot read that of the other.
fn refusal(fault: &Fault, shape: &str, id: &str) -> String {
    let mut error = Xml::default();
    error.element("Error", |xml| {
        if shape == STS {
            xml.text(
                "Type",
                if fault.status.is_server_error() {
                    "Receiver"
                } else {
                    "Sender"
                },
            );
        }
        xml.text("Code", fault.code);
        xml.text("Message", &fault.message);
    });
    let error = error.into_string();
    match shape {
        STS => format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/{STS}/\">{error}\
             <RequestId>{id}</RequestId></ErrorResponse>"
        ),
        _ => format!("<Response><Errors>{error}</Errors><RequestID>{id}</RequestID></Response>"),
    }
}

/// A random UUID.
fn request_id() -> String {
    let bits: u128 = rand::random();
    let hex = format!(
        "{:032x}",
        bits & !(0xf << 76) & !(3 << 62) | 4 << 76 | 2 << 62
    );
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    let parts = [
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32),
    ];
    parts.join("-")
}

/// The name of the operation, and the inside of its answer.
async fn serve(
    api: &Arc<Api>,
    request: Request<Body>,
    shape: &mut &'static str,
) -> Result<(String, String)> {
    let (parts, body) = request.into_parts();
    let length = parts.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let length = length.unwrap_or(MOST_BYTES).min(MOST_BYTES);
    let too_many = |_| Fault::overload("too many requests at once");
    // No length fails to fit.
    let room = u32::try_from(length).unwrap_or(u32::MAX);
    let _room = api.room.try_acquire_many(room).map_err(too_many)?;
    let body = read(body).await?;
    let busy = Arc::clone(&api.busy).try_acquire_owned();
    let busy = busy.map_err(too_many)?;
    // The shape of a refusal follows from who is asked, even where nothing else can be read.
    if let Ok(scope) = Claim::read(&parts, SystemTime::now()).map(|claim| claim.scope)
        && scope.service == "sts"
    {
        *shape = STS;
    }
    let form = form(&parts, &body)?;
    if form_is_sts(form) {
        *shape = STS;
    }
    let (key, region) = authenticate(api, &parts, &body)?;
    let mut params = Params::parse(form)?;
    let action = params.text("Action")?;
    let action = action.ok_or_else(|| {
        Fault::new(
            "MissingAction",
            "The request must contain the parameter Action; it is the name of an operation",
        )
    })?;
    let (run, version) = operations::find(&action)?;
    let asked = params.needed("Version")?;
    if asked != version {
        let message =
            format!("The version {asked} of the API is not known for {action}; use {version}");
        return Err(Fault::new("NoSuchVersion", message));
    }
    let api = Arc::clone(api);
    let name = action.clone();
    let done = spawn_blocking(move || {
        let _busy = busy;
        operate(&api, &name, run, &mut params, &key, &region)
    });
    let done = done.await;
    let inner = done.map_err(|_| Fault::internal("The operation ended before its time"))??;
    Ok((action, inner))
}

async fn read(body: Body) -> Result<Bytes> {
    let read = timeout(SENT_WITHIN, Limited::new(body, MOST_BYTES).collect());
    let read = read.await.map_err(|_| {
        Fault::with_status(
            StatusCode::REQUEST_TIMEOUT,
            "RequestTimeout",
            format!(
                "The request did not come within {} s",
                SENT_WITHIN.as_secs()
            ),
        )
    })?;
    match read {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Fault::with_status(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            format!("The request is longer than {MOST_BYTES} bytes"),
        )),
        Err(error) => Err(Fault::new(
            "MalformedQueryString",
            format!("The request cannot be read: {error}"),
        )),
    }
}

/// The request's fields: the body of a POST, the query of a GET.
fn form<'a>(parts: &'a Parts, body: &'a [u8]) -> Result<&'a [u8]> {
    if parts.uri.path() != "/" {
        let message = format!("Nothing is at {}; requests go to /", parts.uri.path());
        return Err(Fault::with_status(
            StatusCode::NOT_FOUND,
            "InvalidAction",
            message,
        ));
    }
    let query = parts.uri.query().unwrap_or_default();
    match parts.method {
        Method::POST => {
            let kind = parts.headers.get(header::CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            let kind = kind.split(';').next().unwrap_or_default().trim();
            if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
                let message = "The body of a POST must be application/x-www-form-urlencoded";
                return Err(Fault::new("MalformedQueryString", message));
            }
            match query {
                "" => Ok(body),
                _ => Err(Fault::new(
                    "MalformedQueryString",
                    "A POST has its parameters in its body; leave the query out",
                )),
            }
        }
        Method::GET if body.is_empty() => Ok(query.as_bytes()),
        _ => Err(Fault::with_status(
            StatusCode::METHOD_NOT_ALLOWED,
            "InvalidAction",
            "Requests are POST, or GET without a body",
        )),
    }
}

/// Whether a request is for the other service, seen before anything of it is known to be right.
fn form_is_sts(form: &[u8]) -> bool {
    let mut fields = form.split(|byte| *byte == b'&');
    let version = format!("Version={STS}");
    fields.any(|field| field == version.as_bytes())
}

fn authenticate(api: &Api, parts: &Parts, body: &[u8]) -> Result<(Key, String)> {
    let claim = Claim::read(parts, SystemTime::now())?;
    let keys = api
        .keys
        .current()
        .map_err(|error| Fault::internal(error.to_string()))?;
    let key = keys.get(&claim.scope.key_id);
    let key = key.ok_or_else(|| claim.refuse_key())?;
    match claim.is_signed_with(&key.secret, parts, body) {
        true => Ok((key.clone(), claim.scope.region)),
        false => Err(claim.refuse_signature()),
    }
}

fn operate(
    api: &Api,
    action: &str,
    run: Run,
    params: &mut Params,
    key: &Key,
    region: &str,
) -> Result<String> {
    let dry = params.flag("DryRun")?.unwrap_or(false);
    let would_do = || {
        Fault::with_status(
            StatusCode::PRECONDITION_FAILED,
            "DryRunOperation",
            "Request would have succeeded, but DryRun flag is set.",
        )
    };
    let attached = &|| api.front.attached();
    match run {
        Run::Look(look) => {
            let answer = api.front.look(|world| {
                let answer = look(params, &api.context(world, key, region, attached))?;
                params.done()?;
                Ok(answer)
            })?;
            match dry {
                true => Err(would_do()),
                false => Ok(answer.into_string()),
            }
        }
        Run::Change(_) if key.read_only => Err(Fault::with_status(
            StatusCode::FORBIDDEN,
            "UnauthorizedOperation",
            format!(
                "You are not authorized to perform this operation: the access key '{}' is read-only",
                key.name
            ),
        )),
        Run::Change(draft) => {
            let plan = |world: &World| -> Result<Draft> {
                let draft = draft(params, &api.context(world, key, region, attached))?;
                params.done()?;
                match dry {
                    true => Err(would_do()),
                    false => Ok(draft),
                }
            };
            let changed = api.front.change(plan);
            match &changed {
                Ok(_) => info!(key = key.name, "{action}: done"),
                Err(fault) if fault.status.is_server_error() => {
                    warn!(key = key.name, "{action}: {}", fault.message);
                }
                Err(_) => {}
            }
            changed
        }
    }
}
