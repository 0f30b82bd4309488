//! What the kernel can do, asked without changing anything.

use aya::programs::{SchedClassifier, TcAttachType};

pub use super::sys::can_wait_for_readers;
use super::{Error, object};

/// Loads the smallest of the programs, runs it, and gives the ticks of the kernel's clock in a
/// second.
pub fn load() -> Result<u32, Error> {
    object::measure_jiffies_per_second()
}

/// Asks the loopback's hook for its programs, which a kernel without TCX refuses.
pub fn tcx() -> Result<(), Error> {
    let asked = SchedClassifier::query_tcx("lo", TcAttachType::Ingress);
    asked.map(drop).map_err(|_| Error::NoTcx)
}
