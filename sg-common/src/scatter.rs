//! Frames that differ from one run of a program to the next, for measuring.
//!
//! A program that is run a million times on one frame finds everything it asks for in the nearest
//! cache, which no network does to it. So the programs that a benchmark runs first put another
//! address into the frame, and may take it for another interface's. What the judgement makes of it
//! is not this module's business.

/// Which frame comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Scatter {
    /// Where the sequence is.
    pub state: u32,
    /// Bits of every address.
    pub base: u32,
    /// Bits that change; none leaves the frame's own address.
    pub mask: u32,
    /// The first interface's number.
    pub first_interface: u32,
    /// How many interfaces, numbered on from the first.
    pub interfaces: u32,
}

/// What the next frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scattered {
    /// The IPv4 address.
    pub address: u32,
    /// The interface's number.
    pub interface: u32,
}

impl Scatter {
    /// Always the same interface, and the frame as it is.
    pub const fn still(interface: u32) -> Self {
        Self {
            state: 0,
            base: 0,
            mask: 0,
            first_interface: interface,
            interfaces: 1,
        }
    }

    /// Moves on. Where the changing bits are the lowest *n*, every 2ⁿ frames have every address
    /// once (Hull and Dobell: odd increment, multiplier one more than a multiple of four).
    #[inline(always)]
    pub const fn next(&mut self) -> Scattered {
        self.state = self
            .state
            .wrapping_mul(0x915f_77f5)
            .wrapping_add(0x6a09_e667);
        let place = ((self.state as u64 * self.interfaces as u64) >> 32) as u32;
        Scattered {
            address: self.base | self.state & self.mask,
            interface: self.first_interface.wrapping_add(place),
        }
    }
}

const _: () = assert!(size_of::<Scatter>() == 20);

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_period_has_every_address_once() {
        let mut scatter = Scatter {
            base: 0x2000_0000,
            mask: 0x0fff,
            ..Scatter::still(1)
        };
        let addresses: BTreeSet<u32> = (0..1 << 12).map(|_| scatter.next().address).collect();
        assert_eq!(addresses.len(), 1 << 12);
        assert_eq!(addresses.first(), Some(&0x2000_0000));
        assert_eq!(addresses.last(), Some(&0x2000_0fff));
    }

    #[test]
    fn every_interface_gets_its_share() {
        let mut scatter = Scatter {
            interfaces: 10,
            ..Scatter::still(5)
        };
        let mut frames = [0; 10];
        for _ in 0..10_000 {
            let place = scatter.next().interface - 5;
            if let Some(frames) = frames.get_mut(place as usize) {
                *frames += 1;
            }
        }
        assert!(
            frames.iter().all(|&count| (900..1_100).contains(&count)),
            "{frames:?}"
        );
    }
}
