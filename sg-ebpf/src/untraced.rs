//! What the ordinary build has in place of a trace: nothing.

use crate::context::Context;

/// Steps are told nobody.
pub(crate) const STEPS: () = ();

/// Whether each packet goes the long way, and its steps are told.
pub(crate) const IS_ON: bool = false;

#[inline(always)]
pub(crate) fn begin() {}

#[inline(always)]
pub(crate) fn tell(_context: *mut Context, _decision: u64) {}
