//! Two values of one entry, so that an update is seen whole or not at all.

use crate::ids::Generation;

/// Two values of one entry: the one in force and the one an update prepares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DoubleBuffer<T>(pub [T; 2]);

impl<T> DoubleBuffer<T> {
    /// The value that packets of this generation see.
    ///
    /// Found by its place, without a branch: what is read there then waits for the generation on every
    /// processor.
    #[inline(always)]
    pub fn at(&self, generation: Generation) -> &T {
        let Self(buffers) = self;
        let [even, _] = buffers;
        buffers.get((generation.0 & 1) as usize).unwrap_or(even)
    }

    /// The same, to be written.
    pub const fn at_mut(&mut self, generation: Generation) -> &mut T {
        let Self([even, odd]) = self;
        if generation.0 & 1 == 0 { even } else { odd }
    }
}

impl<T: Copy> DoubleBuffer<T> {
    /// Both buffers alike.
    pub const fn both(value: T) -> Self {
        Self([value, value])
    }
}
