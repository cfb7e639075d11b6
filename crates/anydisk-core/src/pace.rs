//! When tables should be written back though nobody flushes.
//!
//! Of a file that says nowhere what is free, a check cannot tell space that a crash left without a name
//! from the data of a table that was lost, but by how much it is ([`can_be_leaks`]). So no writer lets
//! it become more: before that much has been given out and is named by no table on the medium, the tables
//! are written back. What is named doubles from one time to the next, so these are few, however much is
//! written.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use crate::can_be_leaks;

/// Bytes that were given out, and which of them the tables on the medium name. The counts are about right:
/// threads change them one by one.
///
/// The default is that of a new file: nothing is due before it was written back once. Until then nobody was
/// promised anything of it, and a copy that makes it need not wait for the medium.
#[derive(Debug, Default)]
pub struct Pace {
    /// What the tables on the medium name. Below 0 for a moment, where something is freed before it was
    /// written back.
    named: AtomicI64,
    /// What they do not: reserved, or committed in memory.
    unnamed: AtomicU64,
    /// Of that, what is committed: it is named with the next write-back.
    committed: AtomicU64,
    /// There is something that may not be lost.
    counts: AtomicBool,
}

impl Pace {
    /// For a file in which the tables name so many bytes, and nothing names so many.
    #[must_use]
    pub fn new(named: u64, unnamed: u64) -> Self {
        // Where it looks like a lost table already, there is nothing to be kept.
        let unnamed = if can_be_leaks(unnamed, named) { unnamed } else { 0 };
        let (named, unnamed) = (signed(named).into(), unnamed.into());
        Self { named, unnamed, committed: 0.into(), counts: true.into() }
    }

    /// Whether the tables are to be written back before `len` bytes more are given out: the answer of
    /// [`try_place`](crate::ImageWrite::try_place) is then [`Full`](crate::Attempt::Full). Never twice
    /// in a row, if nothing was committed between.
    #[must_use]
    pub fn is_due(&self, len: u64) -> bool {
        let unnamed = self.unnamed.load(Relaxed).saturating_add(len);
        let gains = self.counts.load(Relaxed) && self.committed.load(Relaxed) > 0;
        gains && !can_be_leaks(unnamed, self.named())
    }

    /// `len` bytes were given out.
    pub fn reserved(&self, len: u64) {
        self.unnamed.fetch_add(len, Relaxed);
    }

    /// A table in memory names `len` of those bytes. Call it **after** it does.
    pub fn committed(&self, len: u64) {
        self.committed.fetch_add(len, Relaxed);
    }

    /// `len` of those bytes came back.
    pub fn abandoned(&self, len: u64) {
        take(&self.unnamed, len);
    }

    /// `len` bytes that a table names are named no more from the next write-back on.
    pub fn freed(&self, len: u64) {
        self.named.fetch_sub(signed(len), Relaxed);
    }

    /// Bytes that a write-back which begins now will name: to be asked **before** the pictures of the tables are
    /// taken, and told to [`written`](Self::written).
    #[must_use]
    pub fn begin(&self) -> u64 {
        self.committed.load(Relaxed)
    }

    /// The tables that name so many bytes more are on the medium.
    pub fn written(&self, len: u64) {
        take(&self.committed, len);
        take(&self.unnamed, len);
        self.named.fetch_add(signed(len), Relaxed);
        self.counts.store(true, Relaxed);
    }

    fn named(&self) -> u64 {
        u64::try_from(self.named.load(Relaxed)).unwrap_or(0)
    }
}

/// Far from where a sum would wrap.
fn signed(len: u64) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX).min(i64::MAX / 2)
}

fn take(from: &AtomicU64, len: u64) {
    let less = |count: u64| Some(count.saturating_sub(len));
    // It always does something.
    let _ = from.fetch_update(Relaxed, Relaxed, less);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// Writes so many units of `unit` bytes, and says how often tables were written back.
    fn write(pace: &Pace, count: u64, unit: u64) -> u32 {
        let mut times = 0;
        for _ in 0..count {
            if pace.is_due(unit) {
                times += 1;
                pace.written(pace.begin());
            }
            pace.reserved(unit);
            pace.committed(unit);
        }
        times
    }

    #[test]
    fn a_tebibyte_is_written_with_few_write_backs_between() {
        assert_eq!(write(&Pace::new(0, 0), 16, MIB), 0);
        assert_eq!(write(&Pace::new(0, 0), 17, MIB), 1);
        assert_eq!(write(&Pace::new(0, 0), 1 << 20, MIB), 17);
        assert_eq!(write(&Pace::new(1 << 30, 0), 1 << 10, MIB), 1);
    }

    #[test]
    fn it_is_not_due_where_nothing_would_be_gained() {
        let pace = Pace::new(0, 0);
        pace.reserved(100 * MIB);
        assert!(!pace.is_due(MIB), "nothing is committed");
        pace.committed(MIB);
        assert!(pace.is_due(MIB));
        pace.written(pace.begin());
        assert!(!pace.is_due(MIB));
        let lost = Pace::new(0, 100 * MIB);
        assert_eq!(write(&lost, 16, MIB), 0);
    }

    #[test]
    fn of_a_new_file_nothing_is_due_before_it_was_written_back_once() {
        let pace = Pace::default();
        assert_eq!(write(&pace, 1 << 10, MIB), 0);
        pace.written(pace.begin());
        assert_eq!(write(&pace, (1 << 10) - 1, MIB), 0);
        assert!(pace.is_due(MIB));
    }

    #[test]
    fn what_was_freed_is_named_no_more() {
        let pace = Pace::new(1 << 30, 0);
        assert_eq!(write(&pace, 500, MIB), 0);
        pace.freed(1 << 30);
        assert!(pace.is_due(MIB));
        pace.written(pace.begin());
        assert_eq!(write(&pace, 499, MIB), 0);
        let pace = Pace::new(0, 0);
        pace.reserved(MIB);
        pace.committed(MIB);
        pace.freed(MIB);
        pace.written(pace.begin());
        assert_eq!(pace.named(), 0);
    }

    proptest! {
        #[test]
        fn what_is_not_named_can_always_be_leaks(
            named in 0..64 * MIB,
            left in 0..64 * MIB,
            units in proptest::collection::vec(1..4 * MIB, 1..200),
        ) {
            let pace = Pace::new(named, left);
            for unit in units {
                if pace.is_due(unit) {
                    pace.written(pace.begin());
                }
                pace.reserved(unit);
                pace.committed(unit);
                let (unnamed, named) = (pace.unnamed.load(Relaxed), pace.named());
                // One unit is always given out.
                prop_assert!(can_be_leaks(unnamed - unit, named));
            }
        }
    }
}
