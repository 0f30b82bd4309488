//! Refusals as the cloud's clients know them: a code, an HTTP status and a sentence.
//!
//! Clients act on codes and retry what is 5xx, so a refusal is always 4xx; only overload and faults of
//! this machine are 5xx.

use axum::http::StatusCode;

use crate::controller;
use crate::store::StoreError;

pub(super) type Result<T, E = Fault> = std::result::Result<T, E>;

/// Why a call was not done. Nothing of it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Fault {
    /// A refusal of what the client asked for.
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self::with_status(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn with_status(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    pub(super) fn value(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterValue", message)
    }

    pub(super) fn combination(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterCombination", message)
    }

    pub(super) fn missing(parameter: &str) -> Self {
        let message = format!("The request must contain the parameter {parameter}");
        Self::new("MissingParameter", message)
    }

    pub(super) fn overload(why: &str) -> Self {
        Self::with_status(
            StatusCode::SERVICE_UNAVAILABLE,
            "RequestLimitExceeded",
            format!("Request limit exceeded: {why}; try again later"),
        )
    }

    /// A fault of the server: the client can only try again.
    pub(super) fn internal(why: impl Into<String>) -> Self {
        Self::with_status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", why)
    }
}

impl From<controller::Error> for Fault {
    fn from(error: controller::Error) -> Self {
        let message = error.to_string();
        match error {
            controller::Error::Findings(_) => Self::value(message),
            controller::Error::Unconfirmed(_) => Self::new("IncorrectState", message),
            controller::Error::Store(error) => error.into(),
            // The kernel has no room for it, or a device is not one to protect.
            controller::Error::Dataplane(_)
            | controller::Error::TakenBack { .. }
            | controller::Error::Interfaces(_) => Self::new("UnsupportedOperation", message),
            _ => Self::internal(message),
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy { .. } | StoreError::Conflict { .. } => {
                Self::overload(&error.to_string())
            }
            StoreError::Misfit(_) => Self::value(error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }
}
