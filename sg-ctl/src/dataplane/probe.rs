//! What the kernel can do, asked without changing anything.

use aya::programs::{SchedClassifier, TcAttachType};

use super::{Error, object, sys};

/// Loads the smallest of the programs, runs it, and gives the ticks of the kernel's clock in a
/// second.
pub fn load() -> Result<u32, Error> {
    object::try_clock()?;
    object::jiffies_per_second()
}

/// Whether the kernel tells when no program reads any more, as each change has to know.
pub fn can_wait_for_readers() -> bool {
    sys::can_wait_for_readers()
}

/// Asks the loopback's hook for its programs, which a kernel without TCX refuses.
pub fn tcx() -> Result<(), Error> {
    let asked = SchedClassifier::query_tcx("lo", TcAttachType::Ingress);
    asked.map(drop).map_err(|_| Error::NoTcx)
}
