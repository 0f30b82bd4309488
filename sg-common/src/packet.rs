//! Placeholder header, replaced below.

/// Which way a packet goes, relative to the protected interface and never to the kernel's hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Direction {
    /// Towards what is protected.
    Ingress = 0,
    /// Away from what is protected.
    Egress = 1,
}
