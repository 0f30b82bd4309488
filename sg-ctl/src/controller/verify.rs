//! Whether the kernel holds what is stored.

use super::devices::{Devices, Missing, refuse_unfit};
use super::error::Result;
use super::{Controller, View};
use crate::dataplane::{self, Dataplane, Difference, Wanted};
use crate::dirs::DirOptions;
use crate::interfaces;
use crate::privileges;

/// What a comparison of the kernel with the stored policy came to.
#[derive(Debug)]
pub struct Verified {
    /// Everything that differs.
    pub differences: Vec<Difference>,
    /// Interfaces of the policy that the machine does not have now, or has elsewhere, in words.
    pub missing: Vec<String>,
    /// Interfaces of the policy that sg refuses to protect, in words.
    pub unfit: Vec<String>,
    /// The revision that was compared.
    pub revision: u64,
}

impl View {
    /// Compares what is stored with what the kernel holds, while no one may change either.
    pub fn verify(options: &DirOptions) -> Result<Verified> {
        privileges::check()?;
        let _lock = Self::open(options)?.lock()?;
        let view = Self::open(options)?;
        if let Some(mismatch) = view.mismatch {
            return Err(mismatch);
        }
        view.compare()
    }

    fn compare(&self) -> Result<Verified> {
        let Devices {
            found,
            missing,
            strayed,
        } = self.find_devices(&self.policy)?;
        let missing = missing.iter().map(|missing| match missing {
            Missing::Device(interfaces::Error::InterfaceMissing { name, .. }) => {
                format!("{name} is absent")
            }
            other => other.to_string(),
        });
        let mut missing: Vec<_> = missing
            .chain(strayed.iter().map(ToString::to_string))
            .collect();
        // Many interfaces may miss one namespace.
        missing.dedup();
        let unfit = refuse_unfit(&self.policy, &found, &self.policy)?;
        let differences = match self.dataplane()? {
            Some(dataplane) => dataplane.differences(&Wanted {
                policy: &self.policy,
                devices: found,
                terminate: false,
                capacity: self.limits.flows,
                limits: self.limits.tables,
            })?,
            None => {
                let names = found.into_iter().map(|device| device.name);
                names.map(Difference::NotProtected).collect()
            }
        };
        Ok(Verified {
            differences,
            missing,
            unfit: unfit.iter().map(ToString::to_string).collect(),
            revision: self.revision,
        })
    }
}

impl Controller {
    /// Lets the next installation make everything anew, should somebody have changed the maps or
    /// the record.
    pub fn distrust_changed_maps(&mut self) -> Result<()> {
        let Some(bpffs) = self.dirs.find_bpffs()? else {
            return Ok(());
        };
        match Dataplane::open(self.dirs.run(), &bpffs.path) {
            Ok(dataplane) => dataplane.distrust_changed_maps()?,
            Err(dataplane::Error::Damaged { path }) => self.replace(&path),
            Err(dataplane::Error::RecordGone { run }) => self.replace(&run.join(Dataplane::RECORD)),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
