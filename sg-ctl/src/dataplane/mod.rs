//! A stand-in while the real one is being written: it enforces nothing.

mod report;

use std::collections::HashMap;
use std::path::Path;

pub use report::*;

use crate::interfaces;
use crate::policy::model::Policy;
use crate::policy::names::{InterfaceName, RuleId, VpcName};

/// A device.
#[derive(Clone, Debug)]
pub struct Device {
    /// VPC.
    pub vpc: VpcName,
    /// Name.
    pub name: InterfaceName,
    /// Netns.
    pub netns: interfaces::Netns,
    /// Link.
    pub link: interfaces::Link,
}

/// What is wanted.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Policy.
    pub policy: &'a Policy,
    /// Devices.
    pub devices: Vec<Device>,
    /// Judge again.
    pub terminate: bool,
    /// Assured flows.
    pub capacity: Option<u32>,
}

/// Stand-in.
#[derive(Debug)]
pub struct Dataplane;

/// Stand-in.
#[derive(Debug)]
pub struct Prepared;

/// Outcome.
#[derive(Debug)]
pub struct Outcome {
    /// Generation.
    pub generation: u32,
}

/// Error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Never.
    #[error("the stand-in failed")]
    Never,
}

#[allow(missing_docs)]
impl Dataplane {
    pub fn open(_run: &Path, _bpffs: &Path) -> Result<Self, Error> {
        Ok(Self)
    }
    pub fn prepare(&self, _wanted: &Wanted<'_>) -> Result<Prepared, Error> {
        Ok(Prepared)
    }
    pub fn install(&mut self, _prepared: Prepared) -> Result<Outcome, Error> {
        Ok(Outcome { generation: 1 })
    }
    pub fn attachments(&self) -> Result<Vec<Attachment>, Error> {
        Ok(Vec::new())
    }
    pub fn reason_counts(&self) -> Result<Vec<ReasonCount>, Error> {
        Ok(Vec::new())
    }
    pub fn rule_counts(&self) -> Result<HashMap<RuleId, RuleCount>, Error> {
        Ok(HashMap::new())
    }
    pub fn flows(&self, _each: &mut dyn FnMut(FlowReport)) -> Result<(), Error> {
        Ok(())
    }
    pub fn flow_usage(&self) -> Result<FlowUsage, Error> {
        Ok(FlowUsage::default())
    }
}
