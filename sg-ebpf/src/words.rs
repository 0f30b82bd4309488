//! Copies values word by word.
//!
//! LLVM makes a call of `memmove` or `memset` of an assignment of more than a few words. That is a
//! loop over bytes here, and no call may be made while a lock is held.

/// How many words a value has.
const fn words<T>() -> usize {
    assert!(size_of::<T>().is_multiple_of(4) && align_of::<T>() >= 4);
    size_of::<T>() / 4
}

/// Copies a value. Another CPU may write it meanwhile: the copy may then be of no value that was
/// there, and every pattern of bytes must be a value.
///
/// # Safety
/// `from` must be readable and `to` writable.
#[inline(always)]
pub(crate) unsafe fn copy<T: Copy>(from: *const T, to: *mut T) {
    for word in 0..const { words::<T>() } {
        // SAFETY: the word lies in the value. Volatile, so that the words stay single ones.
        unsafe {
            let value = from.cast::<u32>().add(word).read_volatile();
            to.cast::<u32>().add(word).write_volatile(value);
        }
    }
}

/// Writes zeros.
///
/// # Safety
/// `to` must be writable, and zeros must be a value.
#[inline(always)]
pub(crate) unsafe fn clear<T>(to: *mut T) {
    for word in 0..const { words::<T>() } {
        // SAFETY: as in `copy`.
        unsafe { to.cast::<u32>().add(word).write_volatile(0) };
    }
}
