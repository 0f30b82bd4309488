//! Whether the kernel holds what is stored.

use super::devices::Devices;
use super::error::Result;
use super::{Controller, Needed, View};
use crate::dataplane::{Dataplane, Difference, Wanted};
use crate::dirs::DirOptions;
use crate::privileges;

/// What a comparison of the kernel with the stored policy came to.
#[derive(Debug)]
pub struct Verified {
    /// Everything that differs.
    pub differences: Vec<Difference>,
    /// Interfaces of the policy that the machine does not have now, in words.
    pub missing: Vec<String>,
    /// The revision that was compared.
    pub revision: u64,
}

impl View {
    /// Compares what is stored with what the kernel holds, while no one may change either.
    pub fn verify(options: &DirOptions) -> Result<Verified> {
        privileges::check()?;
        let _lock = Self::open(options)?.lock()?;
        Self::open(options)?.compare()
    }

    fn compare(&self) -> Result<Verified> {
        let Devices { found, missing } = Devices::find(&self.policy, &Needed::None)?;
        let missing = missing.iter().map(ToString::to_string).collect();
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
            revision: self.revision,
        })
    }
}

impl Controller {
    /// Lets the next installation make everything anew, should somebody have changed the maps.
    pub fn distrust_changed_maps(&self) -> Result<()> {
        match self.dirs.find_bpffs()? {
            Some(bpffs) => {
                let dataplane = Dataplane::open(self.dirs.run(), &bpffs.path)?;
                Ok(dataplane.distrust_changed_maps()?)
            }
            None => Ok(()),
        }
    }

    /// Opens what another version has left whose record this one cannot read; the next
    /// installation replaces what it has installed.
    pub fn take_over(options: &DirOptions) -> Result<Self> {
        let (dirs, lock) = Self::lock(options)?;
        Dataplane::forget_unreadable(dirs.run())?;
        Self::read(dirs, lock)
    }
}
