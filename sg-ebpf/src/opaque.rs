//! Values of which the compiler forgets what it knows, so that the verifier learns it.

use core::arch::asm;
use core::ptr;

/// The number in a register that is its only copy.
///
/// LLVM may keep a number on the stack, compare one copy of it and add another. The verifier of Linux
/// 6.1 then knows no bound of what is added.
#[inline(always)]
pub(crate) fn in_register(number: u32) -> usize {
    let held;
    // SAFETY: it copies a number.
    unsafe {
        asm!(
            "{held} = {number}",
            held = out(reg) held,
            number = in(reg) number as usize,
            options(pure, nomem, nostack),
        );
    }
    held
}

/// The reference as it is, of which LLVM then knows nothing.
#[inline(always)]
#[expect(
    clippy::pointers_in_nomem_asm_block,
    reason = "the pointer is copied, and nothing is read through it"
)]
pub(crate) fn hidden<T>(known: &T) -> &T {
    let unknown: *const T;
    // SAFETY: it copies the pointer.
    unsafe {
        asm!(
            "{unknown} = {known}",
            unknown = out(reg) unknown,
            known = in(reg) ptr::from_ref(known),
            options(pure, nomem, nostack),
        );
        &*unknown
    }
}
