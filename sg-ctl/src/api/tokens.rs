//! Client tokens: a call that is made again with the same token is done once, and answered alike.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Context;
use super::fault::{Fault, Result};
use super::query::Params;
use crate::store::Annotation;

/// What a call was answered is noted under this and its token.
const OBJECT: &str = "token:";
const NOTE: &str = "answer";

/// How long a token is known, and how many are.
const KEPT_S: u64 = 24 * 60 * 60;
const MOST: usize = 10_000;

const LONGEST: usize = 64;

/// The token of a call, if it has one.
#[derive(Debug)]
pub(super) struct Token {
    object: Option<String>,
    digest: String,
    noted: Option<Noted>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    digest: String,
    unix_time_s: u64,
    answer: String,
}

impl Token {
    /// Takes the token before anything else of a call is taken, as it is good for this very call.
    pub(super) fn take(
        params: &mut Params,
        context: &Context<'_>,
        action: &'static str,
    ) -> Result<Self> {
        let token = params.text("ClientToken")?;
        let digest = params.digest();
        let Some(token) = token else {
            return Ok(Self {
                object: None,
                digest,
                noted: None,
            });
        };
        if token.len() > LONGEST || !token.is_ascii() {
            return Err(Fault::value(format!(
                "ClientToken has more than {LONGEST} characters, or others than ASCII has"
            )));
        }
        let object = format!("{OBJECT}{}:{action}:{token}", context.key.id);
        let noted = context.world.note(&object, NOTE);
        let noted: Option<Noted> = noted.and_then(|text| serde_json::from_str(text).ok());
        let noted = noted.filter(|noted| now().saturating_sub(noted.unix_time_s) < KEPT_S);
        match noted {
            Some(noted) if noted.digest != digest => Err(Fault::new(
                "IdempotentParameterMismatch",
                "The client token was used for a request with other parameters; use a new one",
            )),
            noted => Ok(Self {
                object: Some(object),
                digest,
                noted,
            }),
        }
    }

    /// What the call was answered, if it was made.
    pub(super) fn answer(&self) -> Option<&str> {
        self.noted.as_ref().map(|noted| noted.answer.as_str())
    }

    /// What makes the call known, and forgets those that nobody will make again.
    pub(super) fn notes(self, context: &Context<'_>, answer: &str) -> Vec<Annotation> {
        let Some(object) = self.object else {
            return Vec::new();
        };
        let noted = Noted {
            digest: self.digest,
            unix_time_s: now(),
            answer: answer.to_owned(),
        };
        let Ok(text) = serde_json::to_string(&noted) else {
            return Vec::new();
        };
        let known = context.world.noted(OBJECT).filter_map(|(object, notes)| {
            let noted: Noted = serde_json::from_str(notes.get(NOTE)?).ok()?;
            Some((noted.unix_time_s, object))
        });
        let mut known: Vec<_> = known.collect();
        known.sort_unstable();
        let room = known.len().saturating_sub(MOST - 1);
        let old = known
            .iter()
            .enumerate()
            .filter(|(place, (time, _))| *place < room || now().saturating_sub(*time) >= KEPT_S);
        let mut notes: Vec<Annotation> = old
            .map(|(_, (_, object))| Annotation::forget(object))
            .collect();
        notes.push(Annotation::set(object, NOTE, text));
        notes
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
