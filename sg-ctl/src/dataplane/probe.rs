//! What the kernel can do, asked without changing anything.

use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use aya::sys::SyscallError;
use nix::errno::Errno;

use super::report::TcHook;
use super::sizes::Sizes;
use super::{Error, object, sys};
use crate::compile::image::Image;

/// What the kernel makes of the programs.
#[derive(Debug)]
pub struct Acceptance {
    /// What is wrong with each that it does not take.
    pub refused: Vec<Error>,
    /// The ticks of its clock in a second.
    pub ticks: u32,
}

/// Loads every program that protecting an interface takes, and runs the smallest.
pub fn programs() -> Result<Acceptance, Error> {
    let refused = object::try_programs(&Sizes::roomy(&Image::default()))?;
    if refused.is_empty() {
        object::try_clock()?;
    }
    Ok(Acceptance {
        refused,
        ticks: object::jiffies_per_second()?,
    })
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
