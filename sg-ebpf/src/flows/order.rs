//! The order of reads and writes of memory, on every processor.

use core::arch::asm;
use core::intrinsics::{self, AtomicOrdering};

/// Whether the processor itself keeps the order of reads, and that of writes.
pub(super) const IS_STRONGLY_ORDERED: bool = match option_env!("AYA_BPF_TARGET_ARCH") {
    Some(processor) => matches!(processor.as_bytes(), b"x86_64" | b"x86"),
    None => false,
};

/// Keeps reads and writes of memory from moving from one side to the other. `own` is a word of this
/// CPU's, which stays as it is.
///
/// x86 moves no read before a read and no write before a write (Intel SDM 3A §9.2.2), so there it is the
/// compiler alone that is kept from it. Other processors move both. The instructions of BPF that acquire
/// and release are of Linux 6.15 and later; one that reads, writes and returns what it read is a full
/// barrier by the kernel's memory model, on every kernel (arm64: `ldaddal`, or `stlxr` and `dmb ish`),
/// and on a word of this CPU's it waits for no other CPU.
#[inline(always)]
pub(super) fn keep_order(own: *mut u32) {
    if IS_STRONGLY_ORDERED {
        // SAFETY: it is empty; the compiler must think that it touches memory.
        unsafe { asm!("", options(nostack, preserves_flags)) };
    } else {
        full_barrier(own);
    }
}

/// Keeps also writes before reads, which no processor does by itself. `own` is as for [`keep_order`].
#[inline(always)]
pub(super) fn full_barrier(own: *mut u32) {
    // SAFETY: an aligned word of this CPU's.
    unsafe { intrinsics::atomic_xadd::<u32, u32, { AtomicOrdering::AcqRel }>(own, 0) };
}
