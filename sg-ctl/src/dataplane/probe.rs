//! What the kernel can do, asked without changing anything.

use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use aya::sys::SyscallError;
use nix::errno::Errno;

use super::report::TcHook;
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

/// How programs are attached at TC: a kernel without TCX does not know the loopback's hook, and has
/// filters since long before.
pub fn tc_hook() -> Result<TcHook, Error> {
    match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
        Ok(_) => Ok(TcHook::Tcx),
        Err(ProgramError::SyscallError(SyscallError { io_error, .. }))
            if io_error.raw_os_error() == Some(Errno::EINVAL as i32) =>
        {
            Ok(TcHook::Clsact)
        }
        Err(source) => Err(Error::TcHook(Box::new(source))),
    }
}
