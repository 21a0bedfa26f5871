use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign};

/// A set of keys; a model has few.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Keys(u8);

impl Keys {
    /// No key.
    pub const NONE: Self = Self(0);

    /// Nobody asks for it: a forged message names it.
    pub const BYSTANDER: Self = Self(1 << 7);

    /// The keys of these numbers, of 0 to 6.
    pub const fn range(from: u8, count: u8) -> Self {
        Self(((1 << count) - 1) << from)
    }

    /// How many.
    pub fn count(self) -> u64 {
        u64::from(self.0.count_ones())
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that `others` has not.
    #[must_use]
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// The first alone.
    #[must_use]
    pub fn first(self) -> Self {
        Self(self.0 & self.0.wrapping_neg())
    }

    /// Whether they have a key in common.
    pub fn meets(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Each alone.
    pub fn each(self) -> impl Iterator<Item = Self> {
        (0..8).map(|n| Self(1 << n)).filter(move |key| self.meets(*key))
    }
}

impl BitOr for Keys {
    type Output = Self;

    fn bitor(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

impl BitOrAssign for Keys {
    fn bitor_assign(&mut self, others: Self) {
        self.0 |= others.0;
    }
}

impl BitAnd for Keys {
    type Output = Self;

    fn bitand(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }
}

impl fmt::Debug for Keys {
    /// The keys' numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries((0..8).filter(|n| self.0 & (1 << n) != 0)).finish()
    }
}
