//! How much an instance may hold: settings of the machine, which are no part of any policy.
//!
//! A limit is there so that nobody's policy takes the machine's memory unasked; whoever needs more
//! says so with `sg-ctl limits set`. Maps are made as large as the policy needs, so a high limit
//! costs nothing by itself; only `flows` is room that is taken at once.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::compile;
use crate::dataplane::{DEFAULT_CAPACITY, room_for_flows};
use crate::store::{Store, StoreError};

/// The settings of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Flows; the table has room for the next size up.
    pub flows: u32,
    /// What a policy may need.
    pub tables: compile::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: DEFAULT_CAPACITY,
            tables: compile::Limits::default(),
        }
    }
}

/// The limits by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::flows`].
    Flows,
    /// One of [`compile::Limits`].
    Table(compile::Limit),
}

impl Limit {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let tables = compile::Limit::ALL.into_iter().map(Self::Table);
        std::iter::once(Self::Flows).chain(tables)
    }

    /// As commands and errors name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Table(limit) => limit.name(),
        }
    }

    /// What it limits.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Flows => "tracked flows that are assured",
            Self::Table(limit) => limit.meaning(),
        }
    }

    /// The lowest and the highest value there can be.
    pub fn bounds(self) -> (u32, u32) {
        match self {
            Self::Flows => (room_for_flows(1), room_for_flows(u32::MAX)),
            Self::Table(limit) => limit.bounds(),
        }
    }

    fn setting(self) -> String {
        format!("limit.{}", self.name())
    }
}

/// A value that a limit cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit `{name}` is from {least} to {most}, not {asked}")]
pub struct OutOfBounds {
    name: &'static str,
    least: u32,
    most: u32,
    asked: u32,
}

impl FromStr for Limit {
    type Err = UnknownLimit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::all()
            .find(|limit| limit.name() == text)
            .ok_or_else(|| UnknownLimit(text.to_owned()))
    }
}

/// A name that no limit has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no limit; `sg-ctl limits` lists them")]
pub struct UnknownLimit(String);

impl Limits {
    /// The value of a limit.
    pub fn value(&self, limit: Limit) -> u32 {
        match limit {
            Limit::Flows => self.flows,
            Limit::Table(limit) => self.tables.value(limit),
        }
    }

    /// The same with another value for one limit.
    pub fn with(mut self, limit: Limit, value: u32) -> Result<Self, OutOfBounds> {
        let (least, most) = limit.bounds();
        if !(least..=most).contains(&value) {
            return Err(OutOfBounds {
                name: limit.name(),
                least,
                most,
                asked: value,
            });
        }
        match limit {
            Limit::Flows => self.flows = value,
            Limit::Table(limit) => self.tables.set(limit, value),
        }
        Ok(self)
    }

    /// What is stored; defaults for the rest.
    pub fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let mut limits = Self::default();
        for limit in Limit::all() {
            let stored = store.setting(&limit.setting())?;
            let stored = stored.and_then(|text| text.parse().ok());
            // What an older or newer build stored and this one cannot have counts as not set.
            if let Some(Ok(with)) = stored.map(|value| limits.with(limit, value)) {
                limits = with;
            }
        }
        Ok(limits)
    }

    /// Stores what is not the default.
    pub fn write(&self, store: &mut dyn Store) -> Result<(), StoreError> {
        let (before, default) = (Self::read(store)?, Self::default());
        for limit in Limit::all() {
            let value = self.value(limit);
            if value != before.value(limit) {
                let value = (value != default.value(limit)).then(|| value.to_string());
                store.set_setting(&limit.setting(), value.as_deref())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SqliteStore;

    #[test]
    fn what_is_stored_is_read_again_and_a_default_is_not_stored() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        assert_eq!(Limits::read(&store).unwrap(), Limits::default());
        let mut changed = Limits::default();
        for limit in Limit::all() {
            changed = changed.with(limit, changed.value(limit) / 2).unwrap();
        }
        changed.write(&mut store).unwrap();
        assert_eq!(Limits::read(&store).unwrap(), changed);
        Limits::default().write(&mut store).unwrap();
        assert_eq!(store.setting("limit.flows").unwrap(), None);
    }

    #[test]
    fn a_value_that_cannot_be_is_refused() {
        let refused = Limits::default().with(Limit::Flows, 3).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the limit `flows` is from 512 to 8388608, not 3"
        );
        assert_eq!(
            "flow".parse::<Limit>().unwrap_err().to_string(),
            "\"flow\" is no limit; `sg-ctl limits` lists them"
        );
    }
}
