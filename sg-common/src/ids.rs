//! Numbers that tables, flows and events speak of: rules, installed policies, sets of groups, and the
//! time.

/// Where a rule's counters are. Zero is no rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(transparent)]
pub struct RuleSlot(pub u32);

impl RuleSlot {
    /// No rule.
    pub const NONE: Self = Self(0);

    /// Whether there is a rule.
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }
}

/// The number of one installed policy; it only grows, and wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// The one that comes after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Whether this one came before `other`, across a wrap.
    #[inline(always)]
    pub const fn is_before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }
}

/// The set of groups an address is in, or the set of prefix lists. Zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(transparent)]
pub struct Identity(pub u32);

impl Identity {
    /// In no group and no list.
    pub const NONE: Self = Self(0);

    /// Whether the address is in any.
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }
}

/// Kernel timer ticks divided by 32: 128 ms at 250 Hz. Cheap to read, and wraps after years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Ticks(pub u32);

impl Ticks {
    /// How far `jiffies64` is shifted.
    pub const SHIFT: u32 = 5;

    /// From the kernel's `jiffies64`.
    #[inline(always)]
    pub const fn from_jiffies(jiffies: u64) -> Self {
        Self((jiffies >> Self::SHIFT) as u32)
    }

    /// This much later.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, ticks: u32) -> Self {
        Self(self.0.wrapping_add(ticks))
    }

    /// Whether `now` has reached this deadline.
    #[inline(always)]
    pub const fn has_passed(self, now: Self) -> bool {
        self.0.wrapping_sub(now.0) as i32 <= 0
    }

    /// Whether it is worth a write to move this deadline to `other`: about a second's difference.
    #[inline(always)]
    pub const fn is_worth_moving_to(self, other: Self) -> bool {
        (other.0.wrapping_sub(self.0) as i32).unsigned_abs() >= 8
    }

    /// Ticks from `now` until this deadline; zero when it has passed.
    #[inline(always)]
    pub const fn until(self, now: Self) -> u32 {
        if self.has_passed(now) {
            0
        } else {
            self.0.wrapping_sub(now.0)
        }
    }
}
