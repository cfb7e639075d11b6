//! Positions and ranges of the guest disk, as types.

use std::fmt;

/// A byte position on the virtual disk, as the guest sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestOffset(pub u64);

impl GuestOffset {
    /// The first byte of the disk.
    pub const ZERO: Self = Self(0);

    /// The raw number of bytes from the start of the disk.
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
}

impl fmt::Display for GuestOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Consecutive bytes of the virtual disk. Its end never overflows a `u64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GuestRange {
    start: u64,
    len: u64,
}

impl GuestRange {
    /// `len` bytes from `start`, or `None` if the end is not a `u64`.
    #[must_use]
    pub const fn new(start: GuestOffset, len: u64) -> Option<Self> {
        match start.0.checked_add(len) {
            Some(_) => Some(Self { start: start.0, len }),
            None => None,
        }
    }

    /// The whole of a disk of `size` bytes.
    #[must_use]
    pub const fn whole(size: u64) -> Self {
        Self { start: 0, len: size }
    }

    /// From `start` up to, not including, `end`; empty if `end` lies before `start`.
    #[must_use]
    pub const fn between(start: GuestOffset, end: GuestOffset) -> Self {
        Self { start: start.0, len: end.0.saturating_sub(start.0) }
    }

    /// The first byte.
    #[must_use]
    pub const fn start(self) -> GuestOffset {
        GuestOffset(self.start)
    }

    /// The first byte behind the range.
    #[must_use]
    pub const fn end(self) -> GuestOffset {
        GuestOffset(self.start + self.len)
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.len
    }

    /// Whether it holds no byte.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The first `len` bytes of the range, or all of it.
    #[must_use]
    pub const fn first(self, len: u64) -> Self {
        Self { start: self.start, len: if len < self.len { len } else { self.len } }
    }

    /// What remains behind the first `len` bytes.
    #[must_use]
    pub const fn skip(self, len: u64) -> Self {
        let len = if len < self.len { len } else { self.len };
        Self { start: self.start + len, len: self.len - len }
    }

    /// The part that lies before `end`.
    #[must_use]
    pub const fn before(self, end: GuestOffset) -> Self {
        self.first(end.0.saturating_sub(self.start))
    }

    /// Whether the two have a byte in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.start + other.len && other.start < self.start + self.len
    }

    /// Whether every byte of `other` is in `self`.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.start + other.len <= self.start + self.len
    }

    /// The smallest range of whole `unit`s that covers this one. `unit` is not 0; the end stops at
    /// the last whole unit a `u64` can hold.
    #[must_use]
    pub const fn grown_to(self, unit: u64) -> Self {
        let start = floor(self.start, unit);
        let end = floor((self.start + self.len).saturating_add(unit - 1), unit);
        Self { start, len: end - start }
    }

    /// The largest range of whole `unit`s inside this one. If there is none it is empty, and where
    /// it begins then means nothing.
    #[must_use]
    pub const fn shrunk_to(self, unit: u64) -> Self {
        let end = floor(self.start + self.len, unit);
        let start = match self.start.checked_add(unit - 1) {
            Some(sum) => floor(sum, unit),
            None => end,
        };
        if start < end { Self { start, len: end - start } } else { Self { start: end, len: 0 } }
    }
}

/// The last multiple of `unit` up to `at`.
const fn floor(at: u64, unit: u64) -> u64 {
    at - at % unit
}

impl fmt::Display for GuestRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.start + self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, len: u64) -> GuestRange {
        GuestRange::new(GuestOffset(start), len).expect("small numbers")
    }

    proptest! {
        #[test]
        fn growing_covers_and_shrinking_stays_inside(start in 0u64..1 << 40, len in 0u64..1 << 30, unit in 1u64..1 << 24) {
            let range = range(start, len);
            let (grown, shrunk) = (range.grown_to(unit), range.shrunk_to(unit));
            prop_assert!(grown.contains(range));
            prop_assert_eq!(grown.start().get() % unit, 0);
            prop_assert!(grown.len() < len + 2 * unit);
            prop_assert!(shrunk.is_empty() || range.contains(shrunk));
            prop_assert_eq!(shrunk.len() % unit, 0);
            prop_assert!(shrunk.len() + 2 * unit > len);
        }

        #[test]
        fn first_and_skip_cut_a_range_in_two(start in 0u64..1 << 40, len in 0u64..1 << 20, cut in 0u64..1 << 21) {
            let whole = range(start, len);
            let (head, tail) = (whole.first(cut), whole.skip(cut));
            prop_assert_eq!(head.end(), tail.start());
            prop_assert_eq!(head.len() + tail.len(), len);
        }
    }

    #[test]
    fn a_range_whose_end_is_no_u64_does_not_exist() {
        assert_eq!(GuestRange::new(GuestOffset(u64::MAX), 1), None);
        assert!(GuestRange::new(GuestOffset(u64::MAX), 0).is_some());
    }
}
