//! A position in a store, as a type.

use std::fmt;

/// A byte position inside one [`Storage`](crate::Storage).
///
/// A bare `u64` is a length; a position is this type, so that the two, and guest and host, cannot
/// be confused. Arithmetic on numbers that come from a file is checked here, once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostOffset(pub u64);

impl HostOffset {
    /// The first byte.
    pub const ZERO: Self = Self(0);

    /// The raw number of bytes from the start of the store.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// `self + len` bytes, or `None` on overflow.
    #[must_use]
    pub const fn checked_add(self, len: u64) -> Option<Self> {
        match self.0.checked_add(len) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// `self + len` bytes, stopping at the largest offset. For comparisons, never for I/O.
    #[must_use]
    pub const fn saturating_add(self, len: u64) -> Self {
        Self(self.0.saturating_add(len))
    }

    /// Bytes from `start` to `self`, or `None` if `start` lies behind `self`.
    #[must_use]
    pub const fn checked_since(self, start: Self) -> Option<u64> {
        self.0.checked_sub(start.0)
    }

    /// Whether the offset is a multiple of `unit` bytes. `unit` must be a power of two.
    #[must_use]
    pub const fn is_aligned(self, unit: u64) -> bool {
        self.0 & (unit - 1) == 0
    }
}

impl fmt::Display for HostOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
